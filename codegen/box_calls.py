"""How the launcher calls a kernel that loads boxes: when it does, and what descriptors it makes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from attnc.codegen.kernel import Kernel


@dataclass(frozen=True, slots=True)
class BoxCaller:
    """Writes for one kernel; the functions tell what the launcher calls things.

    passed: what the kernel takes for a tensor; step: how far apart the places of a tile are
    """

    kernel: Kernel
    passed: Callable[[str], str]
    extent: Callable[[str], str]
    block: Callable[[str], str]
    step: Callable[[str], str]

    def argument(self, name: str) -> str:
        """The descriptor that a parameter of the kernel takes."""
        d = next(d for d in self.kernel.descriptors if d.name == name)
        view = self.passed(d.tensor)
        for axis, sides in reversed([*enumerate(d.sides)]):
            if len(sides) > 1:
                view += f".unflatten({axis}, ({', '.join(map(self.extent, sides))}))"
        lengths = [x for sides in d.sides for x in ([*map(self.block, sides)] or ["1"])]
        view += ".flatten(0, 1)" if d.merged else ""
        while lengths[0] == "1":
            del lengths[0]
        return f"_descriptor({', '.join([view, *lengths])})"

    def conditions(self) -> Iterator[str]:
        """What must hold for a call: tiles without gaps, tensors that the hardware can read."""
        tensors = dict.fromkeys(self.passed(d.tensor) for d in self.kernel.descriptors)
        yield f"_describable({', '.join(tensors)})"
        pairs = [f"({self.step(c)}, {self.block(c)})" for c in dict.fromkeys(self._stepped())]
        if pairs:
            yield f"_gapless({', '.join(pairs)})"
        merged = dict.fromkeys(self.passed(d.tensor) for d in self.kernel.descriptors if d.merged)
        if merged:
            yield f"_mergeable({', '.join(merged)})"

    def _stepped(self) -> Iterator[str]:
        """The coordinates along which boxes extend and tiles may have gaps."""
        layouts = {} if self.kernel.lists is None else self.kernel.lists.layouts
        gaps = {a.coordinate for x in layouts.values() for a in x.axes if a.step is not None}
        for d in self.kernel.descriptors:
            for axis, sides in enumerate(d.sides):
                if (d.tensor, axis) not in self.kernel.permuted:
                    yield from (c for c in sides if c in gaps)
