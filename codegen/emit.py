"""A Plan as the source of a standalone module: kernels, the function that launches them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from attnc.codegen.code import CONSTANTS
from attnc.codegen.config import Chosen, Config, permutes_tokens
from attnc.codegen.environment import templates
from attnc.codegen.helpers import HELPER_NAMES, helper_sources
from attnc.codegen.identity import Same
from attnc.codegen.kernel import Kernel, words, write_kernel
from attnc.codegen.launcher import Launcher, write_launcher
from attnc.codegen.names import OWN, Namer
from attnc.codegen.prune import needed_stages
from attnc.codegen.split_plan import SplitKernels, split_plan
from attnc.codegen.tile_lists import TileLists, tile_list_helpers
from attnc.ir.cascade import Cascade
from attnc.ir.plan import Plan, SweepStage


def emit(
    plan: Plan, config: Mapping[str, Config] | None = None, chosen: Sequence[Chosen] = ()
) -> str:
    """The module's text. `config` fixes the tiles of stages by name; others choose when called.

    They choose what is in `chosen` for the GPU and the kind of call, else what a rule says.
    """
    config = config or {}
    split = split_plan(replace(plan, stages=needed_stages(plan)), config, chosen)
    plan = split.plan
    names = Namer()
    names.reserve((*OWN, *CONSTANTS.values()))
    public = names.name("public", plan.cascade.name)
    helpers = {op: names.name(("helper", op), wish) for op, wish in HELPER_NAMES.items()}
    writer = _KernelWriter(plan.cascade, names, public, helpers)
    stages = [s for s in plan.stages if isinstance(s, SweepStage)]
    permuted = {s.name: _permutes(s, config.get(s.name)) for s in stages}
    kernels = {s.name: writer.write(s, "", permuted[s.name]) for s in stages}
    boxed: dict[str, Kernel] = {}
    parts: dict[str, SplitKernels] = {}
    for s in stages:
        boxes = _asks_boxes(s, config, chosen)
        tried = [writer.write(s, "_descriptor", permuted[s.name], boxes=True)] if boxes else []
        if s.name in split.stages:
            partial, merge = split.stages[s.name].both
            parts[s.name] = SplitKernels(
                writer.write(partial, "_parts"), writer.write(merge, "_merge")
            )
            tried += [writer.write(partial, "_parts_descriptor", boxes=True)] if boxes else []
        boxed |= {k.stage.name: k for k in tried if k.descriptors}
    launcher = write_launcher(plan, tuple(kernels.values()), public, config, chosen, boxed, parts)
    written = [k for n, k in kernels.items() if n not in split.only]
    written += [k for pair in parts.values() for k in pair.both]
    written = [x for k in written for x in (k, boxed.get(k.stage.name)) if x is not None]
    lists = tuple(k.lists for k in kernels.values() if k.lists is not None)
    return _module(plan, written, lists, launcher, helpers, frozenset(parts))


@dataclass(frozen=True, slots=True)
class _KernelWriter:
    """Writes the kernels of one module: `public` is its function's name."""

    cascade: Cascade
    names: Namer
    public: str
    helpers: Mapping[str, str]

    def write(
        self, stage: SweepStage, what: str, permute: bool = False, boxes: bool = False
    ) -> Kernel:
        """The kernel of a stage; `what` it does, for its name."""
        name = self.names.name((what, stage.name), f"{self.public}{what}_kernel")
        lead = leading_input(self.cascade)
        return write_kernel(self.cascade, stage, name, lead, self.helpers, permute, boxes)


def loads_boxes(plan: Plan, stage: SweepStage) -> bool:
    """Whether tiles of a stage can be loaded by tensor descriptors; quick when asked again."""
    return _loads_boxes(Same(plan.cascade), Same(stage))


@lru_cache(maxsize=64)
def _loads_boxes(cascade: Same[Cascade], of: Same[SweepStage]) -> bool:
    lead, permute = leading_input(cascade.value), permutes_tokens(of.value)
    kernel = write_kernel(
        cascade.value, of.value, "kernel", lead, HELPER_NAMES, permute, boxes=True
    )
    return bool(kernel.descriptors)


def _module(
    plan: Plan,
    kernels: Sequence[Kernel],
    lists: Sequence[TileLists],
    launcher: Launcher,
    helpers: Mapping[str, str],
    split: frozenset[str],
) -> str:
    """The text of a module with these kernels; it is named after itself."""
    permuted = any(k.permuted for k in kernels)
    sources = helper_sources({h for k in kernels for h in k.helpers}, helpers)
    text = [x for k in kernels for x in k.lines]
    constants = [(name, value) for value, name in CONSTANTS.items() if name in words(text)]
    template = templates().get_template("module.py.j2")
    fields = {
        "cascade": plan.cascade, "kernels": kernels, "launcher": launcher, "helpers": sources,
        "lists": lists, "list_helpers": tile_list_helpers(lists, permuted) if lists else "",
        "notes": _derivation(plan, split), "constants": constants,
        "spec": _listing(plan.cascade), "boxed": any(k.descriptors for k in kernels),
        "called": words(x for lines in launcher.stages for x in lines),
    }  # fmt: skip
    unnamed = template.render(**fields, digest="")
    digest = hashlib.sha256(unnamed.encode()).hexdigest()[:12]
    return template.render(**fields, digest=digest)


def _asks_boxes(stage: SweepStage, config: Mapping[str, Config], chosen: Sequence[Chosen]) -> bool:
    """Whether some configuration of a stage loads tiles by tensor descriptors."""
    if stage.name in config:
        return config[stage.name].descriptors
    return any(x.config.descriptors for x in chosen if x.stage == stage.name)


def _permutes(stage: SweepStage, config: Config | None) -> bool:
    """Whether tokens are put in the order of tiles: as it was asked for, or where that pays."""
    asked = None if config is None else config.permuted
    return permutes_tokens(stage) if asked is None else asked


def _derivation(plan: Plan, split: frozenset[str]) -> tuple[str, ...]:
    """How the kernels came about: one line per law used, and per pass that no law could save.

    `split`: the stages whose sweeps are split, and their results merged.
    """
    lines: list[str] = []
    for stage in plan.stages:
        if not isinstance(stage, SweepStage) or stage.derived is None:
            continue
        uses: dict[tuple[str, str], list[str]] = {}
        for c in stage.derived.certificates:
            # How partial results would merge is not used by a kernel that sweeps the whole rank.
            if c.law != "local-then-fix" or stage.name in split:
                place = f"{c.tensor}, line {c.span.line}" if c.span is not None else c.tensor
                uses.setdefault((c.law, c.reason), []).append(place)
        for (law, reason), places in uses.items():
            lines.append(f"{law} ({'; '.join(dict.fromkeys(places))}): {reason}")
        for b in stage.derived.barriers:
            where = f"line {b.span.line}: " if b.span is not None else ""
            lines.append(
                f"{where}pass {b.sweep + 1}, since {b.operator} needs the final {b.statistic}"
            )
    return tuple(dict.fromkeys(lines))


def _listing(cascade: Cascade) -> tuple[str, ...]:
    """The spec's lines with their numbers, comments and blank lines left out."""
    lines = list(enumerate(cascade.source.splitlines(), 1))
    # the spec's own docstring is the module's
    quotes = [n for n, x in lines if '"""' in x][:2]
    doc = range(quotes[0], quotes[-1] + 1) if quotes else range(0)
    kept = (n for n, x in lines if n not in doc and x.strip() and not x.lstrip().startswith("#"))
    return tuple(f"{n:3d}  {lines[n - 1][1]}" for n in kept)


def leading_input(cascade: Cascade) -> str:
    """The input whose type outputs and products of computed tiles take."""
    floats = [t.name for t in cascade.inputs if t.dtype == "float"]
    return (floats or [t.name for t in cascade.inputs])[0]
