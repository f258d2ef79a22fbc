"""One namer for all of a function's names, so nothing of a spec can shadow what the code needs."""

from __future__ import annotations

import builtins
import keyword
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field

# What emitted code refers to by name besides its own variables.
_MODULES = ("math", "re", "tl", "torch", "triton")
RESERVED = frozenset({*keyword.kwlist, *keyword.softkwlist, *dir(builtins), *_MODULES, "pid"})
# What a module defines for itself, whatever its spec is: nothing public may be called so.
OWN = frozenset(
    """
    TensorDescriptor WARP_SIZE _ _are_few _capability _describable _descriptor _gapless _gpu _limits
    _mergeable _OP _KINDS _TILES _CHOSEN _check _divide _exact _exp _extreme _log
    _power _Axis _Box _Mask _KEPT _Ranges _at_places _by_points _check_places _distance _filled
    _halves _in_order _in_parts _kept _list_tiles _product _range _ranges _rest _stepped _steps
    _tile_order _tile_shape _tiles_of _unravel
    Callable NamedTuple functools itertools weakref
    """.split()
)
# What Triton takes at a launch, and what it adds: no argument of a kernel may be called so.
LAUNCH = frozenset(
    """
    debug grid instrumentation_mode maxnreg num_ctas num_stages num_warps sanitize_overflow warmup
    """.split()
)


@dataclass(slots=True)
class Namer:
    """Gives every key one name, unique within its function."""

    taken: set[str] = field(default_factory=lambda: set(RESERVED))
    names: dict[Hashable, str] = field(default_factory=dict)

    def name(self, key: Hashable, *wishes: str) -> str:
        """The name of `key`: the first free wish, else the last wish with a number."""
        if key not in self.names:
            self.names[key] = self._free(wishes)
            self.taken.add(self.names[key])
        return self.names[key]

    def reserve(self, names: Iterable[str]) -> None:
        """Names that nothing may get from now on."""
        self.taken.update(names)

    def _free(self, wishes: tuple[str, ...]) -> str:
        for wish in wishes:
            if wish not in self.taken:
                return wish
        last, n = wishes[-1].rstrip("_"), 2
        if f"{last}_" not in self.taken:
            return f"{last}_"
        while f"{last}_{n}" in self.taken:
            n += 1
        return f"{last}_{n}"
