"""Tables on stdout: as wide as the terminal, or uncut where stdout is a file or a pipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain

from rich.console import Console
from rich.table import Table
from rich.text import Text


def print_groups(groups: Mapping[str, Sequence[Sequence[str]]]) -> None:
    """Rows under the name of their group, columns aligned across all groups, a line per row."""
    # As Text a cell is data: what a spec says must not be read as rich's markup.
    rows = {
        name: [tuple(map(Text, (f"  {first}", *rest))) for first, *rest in group]
        for name, group in groups.items()
    }
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    console = Console(highlight=False)
    widths = [max(map(len, c)) for c in zip(*chain(*rows.values()), strict=True)]
    if not console.is_terminal:
        console = Console(highlight=False, width=sum(widths) + 2 * len(widths))
    for width in _fitted(widths, console.width):
        table.add_column(width=width, no_wrap=True, overflow="ellipsis")
    for name, group in rows.items():
        if table.rows:
            table.add_row()
        table.add_row(Text(name, style="bold"))
        for row in group:
            table.add_row(*row)
    console.print(table)


def _fitted(widths: Sequence[int], available: int) -> list[int]:
    """The columns' widths on a line that may be too short: the first column stays whole."""
    first, *others = widths
    space = available - first - 2 * len(widths)
    if sum(others) <= space:
        return list(widths)
    return [first, *(max(1, width * space // sum(others)) for width in others)]
