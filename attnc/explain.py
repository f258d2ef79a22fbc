"""What the compiler found out about a spec: passes, laws, stages, footprints, work."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Literal

from attnc.ir.cascade import Cascade, Rank
from attnc.ir.count_passes import Forced, PassCount, count_all_passes
from attnc.ir.derived import Barrier, Certificate, Derived
from attnc.ir.geometry.key_range import find_range
from attnc.ir.geometry.solve_for import Unsolvable
from attnc.ir.geometry.tile_range import tile_range
from attnc.ir.plan import Plan, SweepStage, TorchStage
from attnc.ir.presence import TRUE
from attnc.ir.show import show_expr
from attnc.ir.visibility import Visibility
from attnc.ir.walk import iteration_ranks
from attnc.ir.work import Work, count_work

# Errors of float64 arithmetic, relative; a law that does not hold is wrong by far more.
_ROUNDING = 1e-9


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
    """One use of a law: `before` was replaced by `after`, on the spec's line `line`.

    If it was checked: `symbolic` is whether sympy proved it (None: it found no answer), `numeric`
    the largest relative error at `points` random points.
    """

    law: str
    tensor: str
    line: int
    reason: str
    before: str
    after: str
    symbolic: bool | None = None
    numeric: float | None = None
    points: int = 0

    @property
    def holds(self) -> bool:
        """Whether no check found it wrong."""
        return self.symbolic is not False and (self.numeric or 0.0) <= _ROUNDING

    def __str__(self) -> str:
        text = f"{self.law} in {self.tensor} (line {self.line}): {self.reason}"
        if not self.holds:
            return f"{text}; WRONG by {self.numeric}"
        proved = "proved; " if self.symbolic else ""
        return f"{text}; {proved}holds at {self.points} points" if self.points else text


@dataclass(frozen=True, slots=True)
class PassTiles:
    """The keys that a tile of rows first .. last needs in a pass, where a mask hides some.

    `visits` and `full` (the keys that all rows see) are ranges in the spec's notation; if there is
    no closed form, they are None and `why` says so: the kernel reads lists of tiles.
    """

    number: int
    visits: str | None = None
    full: str | None = None
    why: str | None = None

    def to_dict(self) -> dict[str, object]:
        """With `pass` for the number."""
        return {"pass": self.number, "visits": self.visits, "full": self.full, "why": self.why}


@dataclass(frozen=True, slots=True)
class StageInfo:
    """A kernel or a torch call. `state`: what a kernel keeps per row while it sweeps.

    `tiles` has an entry for each pass that a mask keeps from some of its points.
    """

    name: str
    family: Literal["sweep", "torch"]
    resident: str | None
    swept: str | None
    passes: int
    state: tuple[str, ...]
    tiles: tuple[PassTiles, ...] = ()

    def to_dict(self) -> dict[str, object]:
        return {**asdict(self), "tiles": [t.to_dict() for t in self.tiles]}


@dataclass(frozen=True, slots=True)
class Explanation:
    """The result of `attnc explain`.

    `error` is that of the derived cascade against the written one in float64, if it was checked.
    """

    name: str
    summary: str
    ranks: Mapping[str, tuple[str, ...]]
    passes: Mapping[str, RankPasses]
    certificates: tuple[Step, ...]
    stages: tuple[StageInfo, ...]
    work: Work
    error: float | None = None

    @property
    def ok(self) -> bool:
        """Whether no check found anything wrong."""
        return all(c.holds for c in self.certificates) and (self.error or 0.0) <= _ROUNDING

    def to_dict(self) -> dict[str, object]:
        """The command's JSON."""
        return {
            "name": self.name,
            "summary": self.summary,
            "ranks": {rank: list(tensors) for rank, tensors in self.ranks.items()},
            "passes": {rank: asdict(p) for rank, p in self.passes.items()},
            "certificates": [asdict(c) for c in self.certificates],
            "stages": [s.to_dict() for s in self.stages],
            "formulas": self.work.to_dict(),
            "error": self.error,
            "ok": self.ok,
        }

    def __str__(self) -> str:
        sections: list[tuple[str, Iterable[str]]] = [
            ("ranks", self._ranks()),
            ("passes", self._passes()),
            ("laws", map(str, self.certificates)),
            ("stages", self._stages()),
            ("work, every point counted", _columns(self.work.to_dict())),
        ]
        if self.error is not None:
            what = "off the spec as written, in float64, relative to its largest value"
            sections.append(("derived form", (f"{self.error:.1e} {what}",)))
        shown = [(title, [f"  {line}" for line in lines]) for title, lines in sections]
        return "\n\n".join(
            [
                f"{self.name}: {self.summary}" if self.summary else self.name,
                *("\n".join([title, *lines]) for title, lines in shown if lines),
            ]
        )

    def _ranks(self) -> Iterator[str]:
        return _columns({rank: ", ".join(tensors) for rank, tensors in self.ranks.items()})

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
            yield from _tiles(s)


def _tiles(s: StageInfo) -> Iterator[str]:
    """One line for passes that need the same keys."""
    numbers: dict[PassTiles, list[str]] = {}
    for t in s.tiles:
        numbers.setdefault(replace(t, number=0), []).append(str(t.number))
    rows = f"a tile of {s.resident} = first..last" if s.resident else "a program"
    for t, passes in numbers.items():
        which = "" if len(passes) == s.passes else f"pass {', '.join(passes)}: "
        if t.why is None:
            yield f"  {which}{rows} visits {s.swept} in {t.visits}, sees all of {t.full}"
        else:
            yield f"  {which}no closed form: {t.why}; lists of tiles"


def _columns(rows: Mapping[str, str]) -> Iterator[str]:
    width = max(map(len, rows), default=0)
    yield from (f"{name:{width}}  {value}" for name, value in rows.items())


def explain(cascade: Cascade, plan: Plan, *, check: bool = False) -> Explanation:
    """Gather what is known of a cascade and its plan; `check` proves and tries every law again."""
    counts = count_all_passes(cascade)
    sweeps = [s for s in plan.stages if isinstance(s, SweepStage)]
    derived = [s.derived for s in sweeps if s.derived is not None]
    return Explanation(
        cascade.name,
        cascade.doc.strip().split("\n")[0],
        {r.name: _carriers(cascade, r) for r in cascade.ranks},
        {rank: _rank_passes(cascade, count, sweeps, plan) for rank, count in counts.items()},
        tuple(step for d in derived for step in (_checked(d) if check else _steps(d))),
        tuple(_stage(s, plan.cascade) for s in plan.stages),
        count_work(plan),
        _error(cascade, plan) if check else None,
    )


def _error(cascade: Cascade, plan: Plan) -> float:
    from attnc.ir.recheck import recheck

    return recheck(plan, written=cascade)


def _carriers(cascade: Cascade, rank: Rank) -> tuple[str, ...]:
    """The inputs that have a rank; a component says whose it is."""
    part = () if rank.parent is None else (f"part of {rank.parent}",)
    return (*part, *(t.name for t in cascade.inputs if rank.name in t.ranks))


def _rank_passes(
    cascade: Cascade, count: PassCount, sweeps: list[SweepStage], plan: Plan
) -> RankPasses:
    rank = cascade.rank(count.rank)
    # Components over which nothing iterates any more were merged into the rank that they make up.
    left = {r for s in plan.cascade.statements for r in iteration_ranks(s)}
    swept = rank.name if rank.parent is None or rank.name in left else rank.parent
    along = [s for s in sweeps if s.swept == swept]
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


def _steps(derived: Derived) -> tuple[Step, ...]:
    return tuple(map(_step, derived.certificates))


def _checked(derived: Derived) -> tuple[Step, ...]:
    from attnc.ir.certify import certify

    return tuple(
        replace(_step(c.certificate), symbolic=c.symbolic, numeric=c.numeric, points=c.points)
        for c in certify(derived)
    )


def _step(c: Certificate) -> Step:
    line = 0 if c.span is None else c.span.line
    return Step(c.law, c.tensor, line, c.reason, show_expr(c.before), show_expr(c.after))


def _stage(stage: SweepStage | TorchStage, cascade: Cascade) -> StageInfo:
    match stage:
        case TorchStage(name):
            return StageInfo(name, "torch", None, None, 0, ())
        case SweepStage():
            carries = [c for p in stage.passes for c in p.carries]
            state = tuple(f"{c.name}[{', '.join(c.ranks)}]" for c in carries)
            tiles = tuple(
                _pass_tiles(number, p.visibility, cascade)
                for number, p in enumerate(stage.passes, 1)
                if p.visibility.some != TRUE or p.visibility.every != TRUE
            )
            times = len(stage.passes)
            return StageInfo(stage.name, "sweep", stage.row, stage.swept, times, state, tiles)


def _pass_tiles(number: int, needs: Visibility, cascade: Cascade) -> PassTiles:
    try:
        found = tile_range(find_range(needs, cascade), needs.row)
    except Unsolvable as e:
        return PassTiles(number, why=str(e))
    return PassTiles(number, found.visits, found.full)
