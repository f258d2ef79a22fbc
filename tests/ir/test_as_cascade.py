"""A plan written as a cascade again: iterative states, tiles, the passes of the derived form."""

from __future__ import annotations

from attnc.ir.as_cascade import as_cascade
from attnc.ir.count_passes import count_passes
from attnc.ir.recheck import recheck
from attnc.ir.show import show_cascade
from attnc.ir.walk import iteration_ranks
from tests.ir.derived import planned

SOFTMAX = "P[b, m, n] = softmax(n) S[b, m, n]\nO[b, m, e] = sum(n) P[b, m, n] * V[b, n, e]"


def test_the_swept_rank_becomes_tiles_of_one_pass() -> None:
    made = as_cascade(planned(SOFTMAX))
    assert made.rank("n").components == ("n1", "n0") and made.rank("n1").iterative
    assert count_passes(made, "n").passes == 1


def test_two_sweeps_are_two_passes() -> None:
    lines = SOFTMAX.replace("P[b, m, n] * V", "tanh(P[b, m, n]) * V")
    assert count_passes(as_cascade(planned(lines)), "n").passes == 2


def test_no_statement_holds_the_whole_map() -> None:
    """What has rows and keys has the keys as a tile coordinate and its offset."""
    for s in as_cascade(planned(SOFTMAX)).statements:
        assert "n" not in iteration_ranks(s)


def test_states_step_along_the_tiles() -> None:
    text = show_cascade(as_cascade(planned(SOFTMAX)))
    assert "n1 + 1]" in text and "N1]" in text


def test_names_do_not_clash_with_the_specs() -> None:
    lines = SOFTMAX.replace("P[", "RESCALE[") + "\nVISIBLE[m] = row[m]"
    made = as_cascade(planned(lines, "O[b, m, e], VISIBLE[m]"))
    pairs = [(s.tensor, s.indices) for s in made.statements]
    assert len(pairs) == len(set(pairs))


def test_what_lacks_a_rank_of_the_kernel_is_stored_once() -> None:
    """A value that is no product with the map runs per column; the row's maximum does not."""
    lines = (
        "G[b, m] = max(n) S[b, m, n] where n < m\n"
        "O[b, m, e] = sum(n) (if V[b, n, e] > 0.0 then S[b, m, n] else V[b, n, e]) where n < m"
    )
    assert recheck(planned(lines, "O[b, m, e], G[b, m]")) < 1e-12


def test_what_an_earlier_stage_stored_is_not_stored_again() -> None:
    lines = (
        "R[b, m] = max(n) min(S[b, m, n], 2.0) where doc[n] > 0\n"
        "X[b, m, n] = S[b, m, n] / (1 + abs(w[m])) where doc[n] > 0\n"
        "U[b, m, e] = sum(n) if X[b, m, n] > m then X[b, m, n] else 0.0 * V[b, n, e]\n"
        "O[b, m, e] = U[b, m, e] / (1 + abs(R[b, m]))"
    )
    made = planned(lines, "O[b, m, e], R[b, m]")
    stored = [t for s in made.stages for t in s.outputs]
    assert len(stored) == len(set(stored)) and recheck(made) < 1e-12
