"""Where a kernel finds which tiles it visits: in a table of row tiles and a list of key tiles."""

from __future__ import annotations

from attnc.codegen.scope import Scope
from attnc.codegen.tile_lists import TileLists
from attnc.codegen.visits import Share, TileLoop, Visits


def table_name(scope: Scope) -> str:
    """What the kernel calls the table: a row tile per row, as `_list_tiles` makes it."""
    return scope.namer.name(("lists", "table"), "row_table")


def tiles_name(scope: Scope) -> str:
    """What the kernel calls the list: first coordinates of key tiles."""
    return scope.namer.name(("lists", "tiles"), "key_tiles")


def count_name(scope: Scope) -> str:
    """What the kernel calls the number of row tiles at each point of the grid."""
    row = scope.stage.row
    return scope.namer.name(("count", row), f"tiles_{row}" if row else "tiles")


def entry_lines(scope: Scope, lists: TileLists, place: str) -> list[str]:
    """Finds the row tile of a program: `place` counts them at each point of the grid."""
    row, swept, grid = scope.stage.row, scope.stage.swept, lists.grid
    at = place if row else "0"
    if grid:
        point = scope.wide_place(grid[0])
        for r in grid[1:]:
            point = f"({point} * {scope.extent(r)} + {scope.wide_place(r)})"
        at = f"{point} * {count_name(scope)} + {place}" if row else point
    at = f"({at})" if " " in at else at
    entry = scope.namer.name(("lists", "entry"), "entry")
    begin, middle, end = _ends(scope)
    lines = [f"{entry} = {table_name(scope)} + {at} * 4"]
    if row:
        lines.append(f"{scope.start(row)} = tl.load({entry})")
    names = ((begin, 1), (middle, 2), (end, 3))
    lines += [f"{name} = tl.load({entry} + {i})" for name, i in names]
    return (
        [f"# its tile of {row}, and which tiles of {swept} that visits", *lines] if row else lines
    )


def listed_tiles(scope: Scope) -> Visits:
    """The tiles of the list that belong to the program's row tile, full ones first."""
    begin, middle, end = _ends(scope)
    swept = scope.stage.swept
    at = scope.namer.name(("lists", "index"), "i")
    opening = (f"{scope.start(swept)} = tl.load({tiles_name(scope)} + {at})",)
    share = Share.of(scope)
    head = f"for {at} in range({{}}):"
    full, rest = head.format(share.first(begin, middle)), head.format(share.second(middle, end))
    return Visits(
        (*share.setup, *share.back),
        (
            TileLoop(("# tiles in which nothing is hidden",), full, opening, True),
            TileLoop(("# the other tiles",), rest, opening),
        ),
    )


def _ends(scope: Scope) -> tuple[str, str, str]:
    names = ("begin", "full_end", "end")
    begin, middle, end = (scope.namer.name(("lists", x), x) for x in names)
    return begin, middle, end
