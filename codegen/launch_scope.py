"""What the Python side of a module calls everything, and what it knows of tensors."""

from __future__ import annotations

from collections.abc import Iterable

from attnc.codegen.host import Host
from attnc.codegen.kernel import Kernel
from attnc.codegen.names import Namer
from attnc.ir.cascade import Cascade, Einsum
from attnc.ir.expr import Expr, Extent, Param, Read
from attnc.ir.walk import output_ranks


class LaunchScope:
    """Names and facts for the launcher of a plan's kernels.

    public: the module's function; reserved: names that are taken; kernels: those of the plan's
    stages; part_ranks: the ranks that count the parts of split sweeps
    """

    def __init__(
        self,
        cascade: Cascade,
        public: str,
        reserved: Iterable[str],
        kernels: tuple[Kernel, ...],
        part_ranks: frozenset[str],
    ) -> None:
        self.cascade, self.public = cascade, public
        self.kernels, self.part_ranks = kernels, part_ranks
        self.names = Namer()
        self.names.reserve((public, *reserved))
        self.op = self.names.name("op", f"_{public}")
        for t in self.cascade.inputs:
            self.tensor(t.name)
        for p in self.cascade.params:
            self.names.name(("param", p.name), p.name, f"{p.name}_")
        for r in self.cascade.ranks:
            self.extent(r.name)
        self.host = Host(self.scalar)

    def tensor(self, name: str) -> str:
        return self.names.name(("tensor", name), name, f"{name}_")

    def extent(self, rank: str) -> str:
        return self.names.name(("extent", rank), rank.upper(), f"{rank.upper()}_extent")

    def scalar(self, e: Expr) -> str:
        match e:
            case Extent(rank):
                return self.extent(rank)
            case Param(name, None):
                return self.names.name(("param", name), name)
            case Param(name, item):
                return f"{self.names.name(('param', name), name)}[{item}]"
            case Read(name, ()):
                return self.names.name(("host", name), name)
        raise AssertionError(e)

    @property
    def lead(self) -> str:
        """The input whose type the outputs take."""
        floats = [t.name for t in self.cascade.inputs if t.dtype == "float"]
        return self.tensor((floats or [t.name for t in self.cascade.inputs])[0])

    def _local(self, name: str) -> str:
        return self.names.name(("local", name), f"{name}", f"own_{name}")

    def _number(self, e: Expr) -> str:
        return self.host.write(e).text

    def _host(self, value: object) -> str:
        return self.host.write(value).text  # type: ignore[arg-type]

    def _block(self, rank: str) -> str:
        return self.names.name(("block", rank), f"BLOCK_{rank.upper()}")

    def _axes(self, tensor: str) -> tuple[str, ...]:
        if tensor in self.cascade.input_names:
            return self.cascade.input(tensor).ranks
        return output_ranks(self.cascade.producers(tensor)[0])

    def _rank(self, tensor: str) -> int:
        return len(self._axes(tensor))

    def _empty(self, tensor: str) -> str:
        """An uninitialised tensor: in the inputs' type if it has a feature rank, else float32; bool
        for the flags of parts."""
        axes = self._axes(tensor)
        native = tensor in self.cascade.outputs and self._has_feature(tensor)
        made = self.cascade.producers(tensor)[0]
        flags = (
            not self.part_ranks.isdisjoint(axes)
            and isinstance(made, Einsum)
            and made.dtype == "bool"
        )
        kind = "" if native else f", dtype=torch.{'bool' if flags else 'float32'}"
        shape = ", ".join(self.extent(r) for r in axes) + ("," if len(axes) == 1 else "")
        return f"{self.lead}.new_empty(({shape}){kind})"

    def _has_feature(self, tensor: str) -> bool:
        """Whether it has an axis that no sweep runs along: a head dimension."""
        features = {r for k in self.kernels for r in (*k.stage.columns, *k.stage.inner)}
        return not features or bool(features & set(self._axes(tensor)))
