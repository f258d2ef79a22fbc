"""What the compiler found out about a spec: passes, laws, stages, footprints, work."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Literal

from attnc.errors import Span
from attnc.ir.cascade import Cascade
from attnc.ir.count_passes import Forced, PassCount, count_all_passes
from attnc.ir.derived import Barrier, Certificate
from attnc.ir.plan import Plan, SweepStage, TorchStage
from attnc.ir.show import show_expr
from attnc.ir.work import Work, count_work


@dataclass(frozen=True, slots=True)
class RankPasses:
    """How often a rank is traversed: by the spec as written, and in the derived form.

    `forced_by` says why the derived form needs each pass after the first, `written_forced_by` the
    same of the spec. `whole` are the tensors of which the spec as written needs the whole rank.
    """

    written: int
    derived: int
    forced_by: tuple[Forced, ...]
    written_forced_by: tuple[Forced, ...]
    whole: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Step:
    """One use of a law: `before` was replaced by `after`, on the spec's line `line`."""

    law: str
    tensor: str
    line: int
    reason: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class StageInfo:
    """A kernel or a torch call. `state`: what a kernel keeps per row while it sweeps."""

    name: str
    family: Literal["sweep", "torch"]
    resident: str | None
    swept: str | None
    passes: int
    state: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """The result of `attnc explain`."""

    name: str
    summary: str
    ranks: Mapping[str, tuple[str, ...]]
    passes: Mapping[str, RankPasses]
    certificates: tuple[Step, ...]
    stages: tuple[StageInfo, ...]
    work: Work

    def to_dict(self) -> dict[str, object]:
        """The command's JSON."""
        return {
            "name": self.name,
            "summary": self.summary,
            "ranks": {rank: list(tensors) for rank, tensors in self.ranks.items()},
            "passes": {rank: asdict(p) for rank, p in self.passes.items()},
            "certificates": [asdict(c) for c in self.certificates],
            "stages": [asdict(s) for s in self.stages],
            "formulas": self.work.to_dict(),
        }

    def __str__(self) -> str:
        sections = (
            (f"{self.name}: {self.summary}" if self.summary else self.name, ()),
            ("ranks", (f"{r:<4}{', '.join(tensors)}" for r, tensors in self.ranks.items())),
            ("passes", self._passes()),
            (
                "laws",
                (f"{c.law} in {c.tensor} (line {c.line}): {c.reason}" for c in self.certificates),
            ),
            ("stages", self._stages()),
            ("work, every point counted", (f"{k:<15}{v}" for k, v in self.work.to_dict().items())),
        )
        shown = [(title, list(lines)) for title, lines in sections]
        return "\n\n".join(
            "\n".join([title, *(f"  {line}" for line in lines)])
            for title, lines in shown
            if lines or title.startswith(self.name)
        )

    def _passes(self) -> Iterator[str]:
        for rank, p in self.passes.items():
            if p.written == p.derived:
                yield f"{rank}: {p.written}"
            else:
                yield f"{rank}: {p.written} as written, {p.derived} as derived"
                yield from (f"  as written, {why}" for why in p.written_forced_by)
            if p.whole:
                yield f"  as written, all of {rank} is needed of {', '.join(p.whole)} at once"
            yield from (f"  {why}" for why in p.forced_by)

    def _stages(self) -> Iterator[str]:
        for s in self.stages:
            if s.family == "torch":
                yield f"{s.name}: torch"
                continue
            held = f"holds tiles of {s.resident}, " if s.resident else ""
            times = "once" if s.passes == 1 else f"{s.passes} times"
            yield f"{s.name}: {held}sweeps {s.swept} {times}; state {', '.join(s.state)}"


def explain(cascade: Cascade, plan: Plan) -> Explanation:
    """Gather what is known of a cascade and its plan."""
    counts = count_all_passes(cascade)
    sweeps = [s for s in plan.stages if isinstance(s, SweepStage)]
    return Explanation(
        cascade.name,
        cascade.doc.strip().split("\n")[0],
        {r.name: _carriers(cascade, r.name) for r in cascade.ranks},
        {rank: _rank_passes(cascade, count, sweeps) for rank, count in counts.items()},
        tuple(_step(c) for s in sweeps if s.derived for c in s.derived.certificates),
        tuple(_stage(s) for s in plan.stages),
        count_work(plan),
    )


def _carriers(cascade: Cascade, rank: str) -> tuple[str, ...]:
    return tuple(t.name for t in cascade.inputs if rank in t.ranks)


def _rank_passes(cascade: Cascade, count: PassCount, sweeps: list[SweepStage]) -> RankPasses:
    along = [s for s in sweeps if s.swept == count.rank]
    # A rank that no kernel sweeps is traversed as the spec says.
    derived = max((len(s.passes) for s in along), default=count.passes)
    barriers = [b for s in along if s.derived for b in s.derived.barriers]
    return RankPasses(
        count.passes,
        derived,
        tuple(_forced(cascade, count.rank, b) for b in barriers) if along else count.forced_by,
        count.forced_by,
        tuple(t.tensor for t in count.tensors if t.footprint == "full"),
    )


def _forced(cascade: Cascade, rank: str, barrier: Barrier) -> Forced:
    line = barrier.span.line if barrier.span else 0
    lines = cascade.source.splitlines()
    text = lines[line - 1].strip() if 0 < line <= len(lines) else ""
    why = (
        f"`{barrier.operator}` in `{barrier.tensor}` needs `{barrier.statistic}` over all of "
        f"`{rank}`: no law moves it out of `{barrier.operator}`"
    )
    return Forced(line, text, why)


def _step(c: Certificate) -> Step:
    return Step(c.law, c.tensor, _line(c.span), c.reason, show_expr(c.before), show_expr(c.after))


def _line(span: Span | None) -> int:
    return 0 if span is None else span.line


def _stage(stage: SweepStage | TorchStage) -> StageInfo:
    match stage:
        case TorchStage(name):
            return StageInfo(name, "torch", None, None, 0, ())
        case SweepStage():
            carries = [c for p in stage.passes for c in p.carries]
            state = tuple(f"{c.name}[{', '.join(c.ranks)}]" for c in carries)
            return StageInfo(stage.name, "sweep", stage.row, stage.swept, len(stage.passes), state)
