"""Passes of the launcher that put tokens in the order of tiles for a kernel, and back after it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from attnc.codegen.list_calls import ListCaller


@dataclass(frozen=True, slots=True)
class MovedTensors:
    """Tensors that a kernel takes with tokens in the order of tiles.

    permuted: tensors and axes; axes: the ranks of these tensors; outputs: what the kernel stores
    The functions tell what the launcher calls things.
    """

    permuted: frozenset[tuple[str, int]]
    axes: Mapping[str, tuple[str, ...]]
    outputs: tuple[str, ...]
    tensor: Callable[[str], str]
    extent: Callable[[str], str]
    local: Callable[[str], str]
    lists: ListCaller

    @property
    def ranks(self) -> frozenset[str]:
        """The ranks whose tokens stand in another order in some tensor."""
        return frozenset(self.axes[t][axis] for t, axis in self.permuted)

    def passed(self, tensor: str) -> str:
        """What the kernel takes for a tensor."""
        return (
            self.local(f"{tensor.lower()}_in_tiles") if tensor in self.axes else self.tensor(tensor)
        )

    def lines(self) -> Iterator[str]:
        """Inputs copied in the order of tiles, room for outputs in it."""
        for t in sorted(self.axes):
            value = self.tensor(t)
            if t in self.outputs:
                sizes = [self.extent(r) for r in self.axes[t]]
                for axis, rank in self._moves(t):
                    sizes[axis] = f"len({self.lists.order(rank)})"
                value += f".new_empty(({', '.join(sizes)}{',' if len(sizes) == 1 else ''}))"
            else:
                for axis, rank in self._moves(t):
                    value += f".index_select({axis}, {self.lists.order(rank)})"
            yield f"{self.passed(t)} = {value}"

    def put_back(self) -> Iterator[str]:
        """Outputs in the order of tokens."""
        for t in self.outputs:
            if t in self.axes:
                value = self.passed(t)
                for axis, rank in self._moves(t):
                    value += f".index_select({axis}, {self.lists.places(rank)})"
                yield f"{self.tensor(t)} = {value}"

    def _moves(self, tensor: str) -> Iterator[tuple[int, str]]:
        for t, axis in sorted(self.permuted):
            if t == tensor:
                yield axis, self.axes[t][axis]
