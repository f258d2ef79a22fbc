"""A Plan as the source of a standalone module: kernels, the function that launches them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

from attnc.codegen.code import CONSTANTS
from attnc.codegen.config import Chosen, Config, permutes_tokens
from attnc.codegen.environment import templates
from attnc.codegen.helpers import HELPER_NAMES, helper_sources
from attnc.codegen.kernel import Kernel, words, write_kernel
from attnc.codegen.launcher import Launcher, write_launcher
from attnc.codegen.names import OWN, Namer
from attnc.codegen.prune import needed_stages
from attnc.codegen.tile_lists import tile_list_helpers
from attnc.ir.cascade import Cascade
from attnc.ir.plan import Plan, SweepStage


def emit(
    plan: Plan, config: Mapping[str, Config] | None = None, chosen: Sequence[Chosen] = ()
) -> str:
    """The module's text. `config` fixes the tiles of stages by name; others choose when called.

    They choose what is in `chosen` for the GPU and the kind of call, else what a rule says.
    """
    plan = replace(plan, stages=needed_stages(plan))
    names = Namer()
    names.reserve((*OWN, *CONSTANTS.values()))
    public = names.name("public", plan.cascade.name)
    lead = leading_input(plan.cascade)
    helpers = {op: names.name(("helper", op), wish) for op, wish in HELPER_NAMES.items()}
    stages = [s for s in plan.stages if isinstance(s, SweepStage)]
    config = config or {}
    kernels = {
        s.name: write_kernel(
            plan.cascade,
            s,
            names.name(("kernel", i), f"{public}_kernel"),
            lead,
            helpers,
            _permutes(s, config.get(s.name)),
        )
        for i, s in enumerate(stages)
    }
    boxed: dict[str, Kernel] = {}
    for s in (s for s in stages if _asks_boxes(s, config, chosen)):
        name = names.name(("boxed", s.name), f"{public}_descriptor_kernel")
        permute = _permutes(s, config.get(s.name))
        kernel = write_kernel(plan.cascade, s, name, lead, helpers, permute, boxes=True)
        if kernel.descriptors:
            boxed[s.name] = kernel
    launcher = write_launcher(plan, tuple(kernels.values()), public, config, chosen, boxed)
    written = [x for n, k in kernels.items() for x in (k, boxed.get(n)) if x is not None]
    return _module(plan, written, launcher, helpers)


def _module(
    plan: Plan, kernels: Sequence[Kernel], launcher: Launcher, helpers: Mapping[str, str]
) -> str:
    """The text of a module with these kernels; it is named after itself."""
    permuted = any(k.permuted for k in kernels)
    lists = tuple(k.lists for k in kernels if k.lists is not None and not k.descriptors)
    sources = helper_sources({h for k in kernels for h in k.helpers}, helpers)
    text = [x for k in kernels for x in k.lines]
    constants = [(name, value) for value, name in CONSTANTS.items() if name in words(text)]
    template = templates().get_template("module.py.j2")
    fields = {
        "cascade": plan.cascade, "kernels": kernels, "launcher": launcher, "helpers": sources,
        "lists": lists, "list_helpers": tile_list_helpers(lists, permuted) if lists else "",
        "notes": _derivation(plan), "constants": constants,
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


def _derivation(plan: Plan) -> tuple[str, ...]:
    """How the kernels came about: one line per law used, and per pass that no law could save."""
    lines: list[str] = []
    for stage in plan.stages:
        if not isinstance(stage, SweepStage) or stage.derived is None:
            continue
        uses: dict[tuple[str, str], list[str]] = {}
        for c in stage.derived.certificates:
            # How partial results would merge is not used by a kernel that sweeps the whole rank.
            if c.law != "local-then-fix":
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
