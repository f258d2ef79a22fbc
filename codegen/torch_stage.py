"""Statements that run as torch calls."""

from __future__ import annotations

from collections.abc import Callable

from attnc.codegen.host import Host
from attnc.codegen.kernel import Kernel
from attnc.codegen.names import Namer
from attnc.ir.expr import Expr
from attnc.ir.plan import Plan, TorchStage


class TorchCode:
    def __init__(
        self, plan: Plan, names: Namer, scalar: Callable[[Expr], str], host: Host,
        kernels: tuple[Kernel, ...],
    ) -> None:  # fmt: skip
        self.helpers: tuple[str, ...] = ()

    def lines(self, stage: TorchStage, lead: str) -> tuple[str, ...]:
        raise NotImplementedError
