"""Specs to plans to modules that run in Triton's interpreter."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import ModuleType
from typing import TypeAlias

import numpy as np
import pytest
import torch
from torch import Tensor

from attnc import library
from attnc.codegen import Config, emit
from attnc.dsl import load_text
from attnc.ir.cascade import Cascade
from attnc.ir.interpret import interpret
from attnc.ir.pipeline import plan
from attnc.runtime.modules import load_source

Emitted: TypeAlias = tuple[Cascade, str]
# Written out, so that a small tile meets every edge; the interpreter is slow.
SMALL = Config(block_m=16, block_n=16, num_warps=4, num_stages=2)


def _cascade(spec: str) -> Cascade:
    return load_text(spec if "\n" in spec else library.text(spec))


@pytest.fixture(scope="session")
def source() -> Callable[[str], str]:
    """The module of a spec: its text, or its name in the library."""
    return lambda spec: emit(plan(_cascade(spec)))


@pytest.fixture(scope="session")
def load() -> Callable[[str], ModuleType]:
    """The module of a spec, to be run by the interpreter, in small tiles."""

    def make(spec: str) -> ModuleType:
        made = plan(_cascade(spec))
        small = {s.name: SMALL for s in made.stages}
        return load_source(emit(made, small), made.cascade.name, interpret=True)

    return make


@pytest.fixture(scope="session")
def load_permuted() -> Callable[[str], ModuleType]:
    """`load`, with the tokens of each tile side by side where tiles have several axes, or gaps."""

    def make(spec: str) -> ModuleType:
        made = plan(_cascade(spec))
        small = {s.name: replace(SMALL, permuted=True) for s in made.stages}
        return load_source(emit(made, small), made.cascade.name, interpret=True)

    return make


@pytest.fixture(scope="session")
def exact() -> Callable[..., tuple[Tensor, ...]]:
    """All outputs of a spec in float64, as it is written."""

    def run(spec: str, tensors: Mapping[str, Tensor], **extents: int) -> tuple[Tensor, ...]:
        cascade = _cascade(spec)
        inputs = {
            name: np.asarray(x.double() if x.is_floating_point() else x)
            for name, x in tensors.items()
        }
        found = interpret(cascade, inputs, extents=extents)
        return tuple(torch.tensor(np.asarray(found[o])) for o in cascade.outputs)

    return run
