"""Calls whose kernels have the same key have the same machine code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import attnc
from attnc.codegen import emit
from attnc.codegen.config import Config
from attnc.errors import AttncError
from attnc.ir.bind import bind_extents
from attnc.ir.plan import SweepStage
from attnc.runtime.cost.kernel_key import call_classes
from attnc.runtime.launches import Launch, find_launches
from attnc.runtime.machine_code import Constexpr, Descriptor, Pointer
from attnc.runtime.modules import load_source

CONFIGS = [Config(64, 32, 4, 2), Config(64, 32, 4, 2, descriptors=True)]
# Plain, by tensors' values, on grids of several axes, with steps between tokens, in two passes.
SPECS = ["sliding_window", "document", "na2d", "dilated_na", "lssar"]


SIZES = (1, 2, 3, 8, 24, 64, 20000)


def compiled_for(launch: Launch) -> object:
    """What Triton's binder makes of a launch: constants, kinds of numbers, strides' divisibility.

    Extents, parameters and what the caller computes are declared not to be specialised.
    """
    found: dict[str, object] = {}
    for name, value in launch.arguments.items():
        match value:
            case Pointer() | Descriptor() | Constexpr() | bool() | float() | None:
                found[name] = repr(value)
            case int() if name.startswith("stride"):
                found[name] = value == 1, value % 16 == 0, value >= 2**31
            case int() if name in launch.config:
                found[name] = value
            case _:
                found[name] = value >= 2**31
    return launch.kernel, launch.num_warps, launch.num_stages, found


@pytest.mark.parametrize("spec", SPECS)
def test_equal_keys_mean_equal_specialisations(spec: str) -> None:
    attention = attnc.load(spec)
    cascade, stages = attention.plan.cascade, attention.plan.stages
    sweeps = [s for s in stages if isinstance(s, SweepStage)]
    modules = {
        c: load_source(emit(attention.plan, {s.name: c for s in sweeps}), spec) for c in CONFIGS
    }
    seen: list[str] = []
    params = attention.run_time_params
    known: dict[tuple[Config, str, str], object] = {}
    free = [r.name for r in cascade.ranks if not r.components and not cascade.is_joined(r.name)]

    @settings(max_examples=10)
    @given(st.lists(st.sampled_from(SIZES), min_size=len(free), max_size=len(free)))
    def agree(sizes: list[int]) -> None:
        extents = {**dict(zip(free, sizes, strict=True))}
        # heads in groups of one, so that every size can be had
        extents |= {"g": extents["h"]} if "g" in extents and "h" in extents else {}
        extents = sized(cascade, extents)
        for config, module in modules.items():
            try:
                launches = find_launches(module, cascade, extents, params, torch.bfloat16, 32, 90)
            except AttncError as e:
                assert e.code == "E505"
                return
            for stage, launch in zip(sweeps, launches, strict=True):
                key = call_classes(stage, cascade, extents, params, config, "bf16")
                made = compiled_for(launch)
                assert known.setdefault((config, stage.name, key), made) == made
                seen.append(key)

    agree()
    # different lengths do share code
    assert len({*seen}) < len(seen)


def sized(cascade: Any, lengths: Mapping[str, int]) -> dict[str, int]:
    shapes: dict[str, tuple[int, ...]] = {}
    whole = dict(lengths)
    for rank in cascade.ranks:
        if rank.components and not cascade.is_joined(rank.name):
            n = 1
            for c in rank.components:
                n *= lengths[c]
            whole[rank.name] = n
    for t in cascade.inputs:
        shapes[t.name] = tuple(whole[r] for r in t.ranks)
    return bind_extents(cascade, shapes, whole)
