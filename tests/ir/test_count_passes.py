"""The pass analysis: FuseMax's counts, the corner cases, and what must not change a count."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnc.dsl import load_text
from attnc.errors import AttncError
from attnc.ir.cascade import Cascade, Einsum, Rank, Reduction, Statement, TensorDecl
from attnc.ir.count_passes import PassCount, count_all_passes, count_passes
from attnc.ir.expr import Apply, Expr, Index, Read, call
from attnc.ir.graph import topological_order, used_statements
from attnc.ir.walk import map_cascade, statement_reads, substitute

CASCADES = Path(__file__).parent.parent / "cascades"

# cascade, rank: passes, loops, tensors kept whole (with the leaves they have), tensors with state
TABLE: dict[tuple[str, str], tuple[int, int, str, str]] = {
    ("toy_two_passes", "k"): (2, 2, "A[k]", ""),
    ("toy_deferred", "k"): (1, 1, "", ""),
    ("toy_iterative", "i"): (1, 1, "", "RY RZ"),
    ("softmax_unstable", "m"): (2, 2, "SN[m]", ""),
    ("softmax_3_pass", "m"): (3, 3, "QK[m] SN[m]", ""),
    ("softmax_3_pass_deferred", "m"): (2, 2, "QK[m]", ""),
    ("softmax_local_max", "m"): (2, 3, "LM[m1] PLM[m1] SLD[m1] SLN[m1,m0]", ""),
    ("softmax_rescaled", "m"): (2, 2, "RM[m1] SLN[m1,m0]", "RD RM"),
    ("softmax_split", "m"): (1, 2, "LM[m1] SLD[m1] SLNV[m1]", ""),
    ("softmax_split", "m1"): (2, 2, "LM[m1] SLD[m1] SLNV[m1]", ""),
    ("softmax_1_pass", "m"): (1, 1, "", "RD RM RNV"),
    ("softmax_1_pass", "m0"): (2, 2, "BQK[m0]", ""),
    ("softmax_1_pass_divided", "m"): (1, 1, "", "RAV RD RM"),
    ("softmax_1_pass_divided", "m0"): (2, 2, "BQK[m0]", ""),
    ("sigmoid", "m"): (1, 1, "", ""),
    ("linear_iterative", "t"): (1, 1, "", "S"),
    ("backward_from_weights", "m"): (2, 2, "K[m] P[m] dP[m]", ""),
    ("backward_from_output", "m"): (1, 1, "", ""),
    ("backward_from_output", "p"): (1, 1, "", ""),
    ("two_streams", "k"): (1, 2, "", ""),
}


def load(name: str) -> Cascade:
    path = CASCADES / f"{name}.attn"
    return load_text(path.read_text(), path.name)


def spec(text: str) -> Cascade:
    """A cascade from the lines of a spec, written with `;` between statements."""
    return load_text(
        "attention t\n" + "\n".join(line.strip() for line in text.split(";")), "t.attn"
    )


def passes(text: str, rank: str) -> int:
    return count_passes(spec(text), rank).passes


def kept(count: PassCount) -> str:
    full = (t for t in count.tensors if t.footprint == "full")
    return " ".join(sorted(f"{t.tensor}[{','.join(t.leaves)}]" for t in full))


@pytest.mark.parametrize(("name", "rank"), TABLE, ids="-".join)
def test_counts_of_fusemax(name: str, rank: str) -> None:
    count = count_passes(load(name), rank)
    state = " ".join(sorted(t.tensor for t in count.tensors if t.state))
    assert (count.passes, count.loops, kept(count), state) == TABLE[name, rank]


def test_every_cascade_is_in_the_table() -> None:
    assert {p.stem for p in CASCADES.glob("*.attn")} == {name for name, _ in TABLE}


def test_passes_of_each_tensor() -> None:
    count = count_passes(load("softmax_3_pass"), "m")
    found = {t.tensor: t.passes for t in count.tensors}
    assert found == {"K": 3, "QK": 3, "SN": 2, "A": 1, "V": 1}


def test_summaries_of_tiles_are_passed_over_on_their_own() -> None:
    count = count_passes(load("softmax_split"), "m1")
    assert count.tensor("LM").passes == 2
    assert count.tensor("K").passes == 1


def test_all_ranks_that_are_traversed_are_counted() -> None:
    assert set(count_all_passes(load("softmax_1_pass"))) == {"m", "m1", "m0", "e"}
    assert set(count_all_passes(load("linear_iterative"))) == {"t", "d"}


class TestWitness:
    def test_names_the_lines_that_force_each_pass(self) -> None:
        count = count_passes(load("softmax_3_pass"), "m")
        assert str(count) == (
            "m: 3 passes\n"
            "  line 10: `SN` visits `QK` again and needs `GM`, the max over all of `m` (line 9)\n"
            "  line 12: `A` visits `SN` again and needs `SD`, the sum over all of `m` (line 11)"
        )
        assert count.forced_by[0].text == "SN[m, p] = exp(QK[m, p] - GM[p])"

    def test_names_the_end_of_an_iteration(self) -> None:
        (forced,) = count_passes(load("softmax_rescaled"), "m").forced_by
        assert "`A` visits `SLN` again and needs the last `RD` along `m`" in forced.why

    @pytest.mark.parametrize("name", sorted({name for name, _ in TABLE}))
    def test_has_one_entry_for_each_further_pass(self, name: str) -> None:
        for count in count_all_passes(load(name)).values():
            assert len(count.forced_by) == count.passes - 1

    def test_prints_the_statement_where_no_spec_has_it(self) -> None:
        cascade = load("toy_two_passes")
        bare = replace(cascade, statements=tuple(replace(s, span=None) for s in cascade.statements))
        (forced,) = count_passes(bare, "k").forced_by
        assert (forced.line, forced.text) == (0, "Z[] = sum(k) Y[] * A[k]")

    def test_is_ready_for_json(self) -> None:
        found = count_passes(load("toy_two_passes"), "k").to_dict()
        assert found["passes"] == 2
        assert found["forced_by"] == [
            {
                "line": 8,
                "text": "Z[] = sum(k) Y[] * A[k]",
                "why": "`Z` visits `A` again and needs `Y`, the sum over all of `k` (line 7)",
            }
        ]


class TestCornerCases:
    def test_two_streams_need_two_loops_but_one_pass_each(self) -> None:
        count = count_passes(load("two_streams"), "k")
        assert {t.tensor: t.passes for t in count.tensors} == {"A": 1, "C": 1}
        assert str(count) == "k: 1 pass, 2 loops"

    def test_a_tensor_read_twice_by_one_statement_is_visited_once(self) -> None:
        assert passes("input A[k]; Y[] = sum(k) A[k] * A[k]; output Y[]", "k") == 1

    def test_dead_statements_force_nothing(self) -> None:
        text = "input A[k]; Y[] = sum(k) A[k]; Z[k] = A[k] * Y[]; output Y[]"
        count = count_passes(spec(text), "k")
        assert (count.passes, count.levels) == (1, (0, -1))

    def test_an_independent_rank_is_not_affected(self) -> None:
        counts = count_all_passes(load("softmax_3_pass"))
        assert {r: c.passes for r, c in counts.items()} == {"e": 1, "m": 3}

    def test_where_can_read_tensors(self) -> None:
        text = """input A[k]; Y[] = sum(k) A[k];
            Z[] = sum(k) 2.0 where A[k] > Y[]; output Z[]"""
        assert passes(text, "k") == 2

    def test_a_causal_mask_leaves_the_row_maximum_a_barrier(self) -> None:
        text = """input S[m, n]; G[m] = max(n) S[m, n] where n <= m;
            W[m, n] = exp(S[m, n] - G[m]) where n <= m; O[m] = sum(n) W[m, n]; output O[m]"""
        assert passes(text, "n") == 2

    PREFIX = "input A[i]; C[i] = sum(k) A[k] where {}; Z[] = sum(i) C[i] * A[i]; output Z[]"

    def test_a_prefix_sum_runs_along(self) -> None:
        count = count_passes(spec(self.PREFIX.format("k <= i")), "i")
        assert (count.passes, count.tensor("A").footprint) == (1, "prefix")

    def test_a_condition_inside_the_sum_counts_as_well(self) -> None:
        cascade = spec(self.PREFIX.format("k <= i"))
        s = cascade.statements[0]
        assert isinstance(s, Einsum) and s.where is not None
        inside = replace(s, expr=call("exp", call("given", s.expr, s.where)), where=None)
        moved = replace(cascade, statements=(inside, *cascade.statements[1:]))
        assert count_passes(moved, "i").passes == 1

    @pytest.mark.parametrize("where", ["k >= i", "i < k + 3", "not (k < i) and i <= k"])
    def test_a_suffix_sum_runs_along_the_other_way(self, where: str) -> None:
        count = count_passes(spec(self.PREFIX.format(where)), "i")
        assert (count.passes, count.tensor("A").footprint) == (1, "prefix")

    def test_a_window_keeps_a_tile(self) -> None:
        count = count_passes(spec(self.PREFIX.format("k <= i and i - k < 9")), "i")
        assert (count.passes, count.tensor("A").footprint) == (1, "tile")

    def test_a_sum_over_everything_does_not_run_along(self) -> None:
        count = count_passes(spec(self.PREFIX.format("A[k] > A[i]")), "i")
        assert (count.passes, count.tensor("A").footprint) == (2, "full")

    def test_scans_in_both_directions_need_a_second_pass(self) -> None:
        text = """input A[i]; C[i] = sum(k) A[k] where k <= i; B[i] = sum(k) A[k] where k >= i;
            Z[] = sum(i) C[i] * B[i] * A[i]; output Z[]"""
        count = count_passes(spec(text), "i")
        assert count.passes == 2
        assert "the other way" in count.forced_by[0].why

    def test_an_iteration_fixes_the_direction(self) -> None:
        text = """input A[i]; B[i] = sum(k) A[k] where k >= i; R[0] = 0.0;
            R[i + 1] = R[i] * B[i] + A[i]; Z[] = R[I]; output Z[]"""
        assert passes(text, "i") == 2

    def test_lookahead_is_a_halo(self) -> None:
        text = """input A[i]; B[i] = exp(A[i]); C[] = sum(i) B[i] * B[i + 1] where i + 1 < I;
            output C[]"""
        assert passes(text, "i") == 1

    def test_a_constant_coordinate_is_ordered_first(self) -> None:
        text = "input A[i]; B[i] = exp(A[i]); C[] = sum(i) B[i] * B[0]; output C[]"
        assert passes(text, "i") == 1

    def test_the_same_axis_under_another_name(self) -> None:
        text = "input A[k]; Y[] = sum(k) A[k]; Z[] = sum(j) Y[] * A[j]; output Z[]"
        assert passes(text, "k") == passes(text, "j") == 2

    def test_a_vector_read_at_query_and_key_keeps_them_apart(self) -> None:
        text = """input doc[n]; input S[m, n]; G[m] = max(n) S[m, n] where doc[m] == doc[n];
            O[m] = sum(n) exp(S[m, n] - G[m]) where doc[m] == doc[n]; output O[m]"""
        counts = count_all_passes(spec(text))
        assert {r: c.passes for r, c in counts.items()} == {"n": 2}

    def test_selection_needs_the_whole_rank(self) -> None:
        text = """input G[m, c]; sel[m, c] = topk(c, 4) G[m, c];
            O[m] = sum(c) exp(G[m, c]) where sel[m, c]; output O[m]"""
        count = count_passes(spec(text), "c")
        assert (count.passes, kept(count)) == (2, "G[c] sel[c]")
        assert "the topk of `sel` along `c`" in count.forced_by[0].why

    def test_block_selection_reads_the_keys_twice(self) -> None:
        text = """param B: int = 64; input Q[d]; input K[n, d]; P[c, d] = sum(i) K[c * B + i, d];
            G[c] = sum(d) Q[d] * P[c, d]; sel[c] = topk(c, 8) G[c];
            O[d] = sum(n) K[n, d] where sel[n // B]; output O[d]"""
        count = count_passes(spec(text), "n")
        assert (count.passes, count.tensor("K").footprint) == (2, "full")

    def test_a_strided_convolution_is_no_partition(self) -> None:
        text = """input K[n]; C[m] = sum(i) K[m * 2 + i] where i < 2; S[m, n] = C[m] * K[n];
            G[m] = max(n) S[m, n]; O[m] = sum(n) exp(S[m, n] - G[m]); output O[m]"""
        assert passes(text, "n") == 2

    def test_concatenation_renames(self) -> None:
        text = """input A[x]; input B[c]; S[n] = concat(n) A[x], B[c]; G[] = max(n) S[n];
            O[] = sum(n) exp(S[n] - G[]); output O[]"""
        count = count_passes(spec(text), "n")
        assert {t.tensor: t.passes for t in count.tensors} == {"A": 2, "B": 2, "S": 2}

    def test_gathering_an_intermediate_needs_all_of_it(self) -> None:
        text = """input A[n]; input idx[j]: int; B[n] = exp(A[n]); C[n] = B[n] * B[idx[n]];
            output C[n]"""
        assert count_passes(spec(text.replace("idx[j]", "idx[n]")), "n").loops == 2

    def test_a_row_of_a_grid_is_not_the_whole_grid(self) -> None:
        text = """rank n = (y, x); input A[n]; G[y] = max(x) A[y * X + x];
            O[] = sum(y, x) exp(A[y * X + x] - G[y]); output O[]"""
        assert {r: c.passes for r, c in count_all_passes(spec(text)).items()} == {
            "n": 1,
            "y": 1,
            "x": 2,
        }

    def test_components_in_a_mask_leave_the_rank_whole(self) -> None:
        text = """rank m = (my, mx); rank n = (ny, nx); input S[m, n];
            P[m, n] = softmax(n) S[m, n] where abs(my - ny) < 3 and mx == nx;
            O[m] = sum(n) P[m, n]; output O[m]"""
        assert {r: c.passes for r, c in count_all_passes(spec(text)).items()} == {"n": 3}

    def test_a_reduction_inside_a_step_is_counted_per_step(self) -> None:
        text = """input K[t, d]; input V[t, e]; H[0, d, e] = 0.0;
            X[t, e] = sum(d) H[t, d, e] * K[t, d];
            H[t + 1, d, e] = H[t, d, e] + K[t, d] * (V[t, e] - X[t, e]);
            O[e] = sum(d) H[T, d, e]; output O[e]"""
        counts = count_all_passes(spec(text))
        assert {r: c.passes for r, c in counts.items()} == {"t": 1, "d": 2}

    def test_what_feeds_one_late_statement_waits_for_it(self) -> None:
        text = """input A[k]; input V[k]; Y[] = sum(k) A[k]; B[k] = exp(V[k]); C[k] = tanh(B[k]);
            Z[] = sum(k) Y[] * C[k]; output Z[]"""
        assert kept(count_passes(spec(text), "k")) == ""

    @pytest.mark.parametrize(
        "step",
        [
            "H[t + 1] = H[t + 1] * A[t]",
            "H[t + 1] = H[t] * H[T] * A[t]",
            "H[t + 1] = H[t + 2] * A[t]",
        ],
    )
    def test_a_tensor_that_needs_itself_is_refused(self, step: str) -> None:
        text = f"input A[t]; H[0] = 0.0; {step}; O[] = H[T]; output O[]"
        with pytest.raises(AttncError, match="`H` needs its own value"):
            passes(text, "t")


# -- properties ----------------------------------------------------------------------------------

_M = (Index("m"),)


@st.composite
def cascades(draw: st.DrawFn) -> Cascade:
    """Maps over rank m, sums over it, and scalars made of sums, read in any combination."""
    vectors: list[Expr] = [Read("A", _M), Read("B", _M)]
    scalars: list[Expr] = []
    statements: list[Statement] = []
    for i in range(draw(st.integers(2, 8))):
        a = draw(st.sampled_from(vectors))
        b = draw(st.sampled_from(vectors + scalars))
        expr = call(draw(st.sampled_from(("mul", "add", "div"))), a, b)
        kind = draw(st.sampled_from(("map", "sum", "scalar" if scalars else "sum")))
        if kind == "map":
            statements.append(Einsum(f"T{i}", _M, expr))
            vectors.append(Read(f"T{i}", _M))
        else:
            if kind == "scalar":
                c, d = draw(st.sampled_from(scalars)), draw(st.sampled_from(scalars))
                statements.append(Einsum(f"T{i}", (), call("add", c, d)))
            else:
                statements.append(Einsum(f"T{i}", (), expr, Reduction("sum", ("m",))))
            scalars.append(Read(f"T{i}", ()))
    read = {r.tensor for s in statements for r in statement_reads(s)}
    outputs = tuple(s.tensor for s in statements if s.tensor not in read)
    inputs = (TensorDecl("A", ("m",)), TensorDecl("B", ("m",)))
    return Cascade("c", (Rank("m"),), (), inputs, tuple(statements), outputs)


def summary(count: PassCount) -> Mapping[str, tuple[int, int | str]]:
    return {"": (count.passes, count.loops)} | {
        t.tensor: (t.passes, t.footprint) for t in count.tensors
    }


@given(cascades())
def test_names_do_not_matter(cascade: Cascade) -> None:
    def renamed(e: Expr) -> Expr:
        match e:
            case Index():
                return Index("z9")
            case Read(tensor, indices):
                return Read(f"x{tensor}", tuple(map(renamed, indices)))
            case Apply(op, args):
                return Apply(op, tuple(map(renamed, args)))
            case _:
                return e

    moved = map_cascade(cascade, renamed)
    statements = tuple(
        replace(
            s,
            tensor=f"x{s.tensor}",
            reduce=s.reduce and Reduction(s.reduce.op, ("z9",)),
        )
        for s in moved.statements
        if isinstance(s, Einsum)
    )
    inputs = tuple(TensorDecl(f"x{t.name}", ("z9",)) for t in cascade.inputs)
    outputs = tuple(f"x{o}" for o in cascade.outputs)
    moved = Cascade("c", (Rank("z9"),), (), inputs, statements, outputs)
    before, after = summary(count_passes(cascade, "m")), summary(count_passes(moved, "z9"))
    assert {f"x{k}" if k else k: v for k, v in before.items()} == after


@given(cascades(), st.randoms(use_true_random=False))
def test_the_order_of_independent_statements_does_not_matter(
    cascade: Cascade, random: Random
) -> None:
    shuffled = list(cascade.statements)
    random.shuffle(shuffled)
    moved = replace(cascade, statements=tuple(shuffled))
    for other in (moved, replace(moved, statements=topological_order(moved))):
        assert summary(count_passes(other, "m")) == summary(count_passes(cascade, "m"))


@given(cascades())
def test_inlining_a_map_does_not_matter(cascade: Cascade) -> None:
    before = count_passes(cascade, "m")
    for s in used_statements(cascade):
        if not isinstance(s, Einsum) or not s.indices or s.tensor in cascade.outputs:
            continue
        rest = replace(cascade, statements=tuple(t for t in cascade.statements if t != s))
        inlined = map_cascade(rest, partial(substitute, mapping={Read(s.tensor, _M): s.expr}))
        after = count_passes(inlined, "m")
        assert (after.passes, after.loops) == (before.passes, before.loops)
        expected = {t.tensor: t.passes for t in before.tensors if t.tensor != s.tensor}
        assert {t.tensor: t.passes for t in after.tensors} == expected


@given(cascades())
def test_deferring_a_division_never_costs_a_pass(cascade: Cascade) -> None:
    statements: list[Statement] = []
    for s in cascade.statements:
        match s:
            case Einsum(expr=Apply("div", (a, Read(_, ()) as y)), reduce=reduce) if reduce:
                statements.append(replace(s, tensor=f"{s.tensor}u", expr=a))
                whole = call("div", Read(f"{s.tensor}u", s.indices), y)
                statements.append(replace(s, expr=whole, reduce=None))
            case _:
                statements.append(s)
    deferred = count_passes(replace(cascade, statements=tuple(statements)), "m")
    written = count_passes(cascade, "m")
    assert deferred.passes <= written.passes
    assert deferred.loops <= written.loops
