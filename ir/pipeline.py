"""The compiler's middle on one page: the order of the passes, one name per stage.

A pass rewrites a cascade into an equal one and certifies what it did. Then the plan is built:
regions to sweep are found, their reductions derived (`derive`, `use_exp2`) and laid out in tiles
(`build_sweep`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeAlias

from attnc.ir.as_cascade import as_cascade
from attnc.ir.build_plan import build_plan
from attnc.ir.cascade import Cascade
from attnc.ir.close_iterations import close_iterations
from attnc.ir.derived import Certificate
from attnc.ir.exchange_sums import exchange_sums
from attnc.ir.inline import check_size
from attnc.ir.join_ranks import join_ranks
from attnc.ir.merge_tiles import merge_tiles
from attnc.ir.plan import Plan
from attnc.ir.specialise import specialise
from attnc.ir.split_factors import split_factors

Certified: TypeAlias = tuple[Cascade, tuple[Certificate, ...]]
OnChange: TypeAlias = Callable[[str, str, Cascade], None]


def _plain(rewrite: Callable[[Cascade], Cascade]) -> Callable[[Cascade], Certified]:
    return lambda cascade: (rewrite(cascade), ())


# (name, what it does, pass), in order.
PASSES: tuple[tuple[str, str, Callable[[Cascade], Certified]], ...] = (
    ("specialise", "const params put in, constants folded", _plain(specialise)),
    ("close_iterations", "running states in closed form", close_iterations),
    ("merge_tiles", "tiles of a rank put together again", merge_tiles),
    ("exchange_sums", "a normalised map swept before it is mixed", exchange_sums),
    ("join_ranks", "products of products as one product", join_ranks),
    ("split_factors", "constants out of the products", _plain(split_factors)),
)


def plan(written: Cascade, on_change: OnChange | None = None) -> Plan:
    """How a cascade runs; `on_change(name, what, cascade)` sees it after each change.

    Raises AttncError E901 for what is not lowered yet, E902 for what expands to too much.
    """
    check_size(written)
    cascade = written
    certificates: tuple[Certificate, ...] = ()
    for name, what, rewrite in PASSES:
        rewritten, found = rewrite(cascade)
        certificates += found
        if on_change is not None and rewritten != cascade:
            on_change(name, what, rewritten)
        cascade = rewritten
    made = replace(build_plan(cascade, certificates), rewritten_from=specialise(written))
    if on_change is not None:
        on_change("derive", "fewest passes, tile by tile", as_cascade(made))
    return made
