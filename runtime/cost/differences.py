"""Why the counts of machine code differ from those of the plan, unit by unit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from attnc.ir.demand import UNITS, Demand, KernelDemand, Unit

# Below this part of the larger count two counts say the same.
_SAME = 0.1

# What the machine code has that the plan leaves out, and what it does without.
_MORE: Mapping[Unit, str] = {
    "tensor": "tiles smaller than what all warps multiply at once, computed repeatedly",
    "fma": "integer multiply-adds, of addresses and as copies of registers",
    "alu": "addresses, moves, and tests of coordinates in 64 bits",
    "sfu": "reciprocals of divisors and conversions of integers, computed anew",
    "shared": "tiles that pass through shared memory from one layout to another",
    "l2": "lanes that load nothing, lists of tiles, values that several threads load",
    "waits": "loads that the compiler did not start ahead",
}
_LESS: Mapping[Unit, str] = {
    "tensor": "products that the compiler left out",
    "fma": "arithmetic that the compiler merged or moved out of the loop",
    "alu": "tests and choices that the compiler merged or moved out of the loop",
    "sfu": "functions that the compiler moved out of the loop",
    "shared": "operands that stay in registers",
    "l2": "tiles that are kept from one tile to the next",
    "waits": "loads that the compiler started ahead",
}


def explain_difference(plan: KernelDemand, machine: KernelDemand) -> tuple[str, ...]:
    """A sentence per unit and kind of tile where the two counts differ by more than 10 %.

    Instructions issued are left out: the plan does not know them.
    """
    found: list[str] = []
    several = len(plan.passes) > 1
    for i, (a, b) in enumerate(zip(plan.passes, machine.passes, strict=True), 1):
        of = f" of pass {i}" if several else ""
        found += _sentences(a.full, b.full, f"per full tile{of}")
        if (a.partial, b.partial) != (a.full, b.full):
            found += _sentences(a.partial, b.partial, f"per border tile{of}")
    return (*found, *_sentences(plan.once, machine.once, "per program"))


def _sentences(plan: Demand, machine: Demand, where: str) -> Iterator[str]:
    for unit in UNITS:
        counted, read = getattr(plan, unit), getattr(machine, unit)
        known = unit != "issue"
        if known and abs(read - counted) > _SAME * max(read, counted):
            reason = (_MORE if read > counted else _LESS)[unit]
            share = f" ({read / counted - 1:+.0%})" if counted else ""
            yield f"{reason}: {read - counted:+,.0f} {unit} {where}{share}"
