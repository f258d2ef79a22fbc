"""Draw what `attnc.mask_view` found out, as SVG or PNG: the same view gives the same bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import numpy as np

from attnc.figure import BLUE, INK, MARK, ORANGE, new_figure, write_figure
from attnc.mask_view import MaskView
from attnc.panels import EMPTY, FULL, HIDDEN, PARTIAL, VISIBLE, Box, Panel

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {
    EMPTY: "#f2f2f0",
    HIDDEN: "#fbe7bd",
    VISIBLE: ORANGE,
    FULL: BLUE,
    PARTIAL: ORANGE,
}
_LINE = "#ffffff"
# Inches: a block of panels is square; the page around it.
_BLOCK, _GAP, _LEFT, _RIGHT, _BOTTOM = 6.0, 0.95, 0.8, 0.25, 1.2


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture that was written. Width and height are in pixels, of an SVG in points."""

    file: str
    width: int
    height: int
    view: MaskView

    def to_dict(self) -> dict[str, object]:
        """The command's JSON."""
        return {
            "file": self.file,
            "width": self.width,
            "height": self.height,
            "counts": self.view.counts.to_dict(),
        }

    def __str__(self) -> str:
        return f"{self.file}: {self.width} x {self.height}, {self.view.counts}"


def draw(view: MaskView, path: Path) -> Picture:
    """Write the picture in one step. Raises E713 if it cannot be written, E714 for its suffix."""
    width, height = write_figure(lambda: _figure(view), path)
    return Picture(str(path), width, height, view)


def _figure(view: MaskView) -> Figure:
    blocks = [b for b in (view.query, (view.matrix,)) if b]
    width = _LEFT + len(blocks) * _BLOCK + (len(blocks) - 1) * _GAP + _RIGHT
    lines = _title(view, width)
    top = 0.45 + 0.2 * len(lines)
    height = _BOTTOM + _BLOCK + top
    figure = new_figure(width, height)
    for i, (line, bold) in enumerate(lines):
        at = (_LEFT - 0.6) / width, 1 - (0.25 + 0.2 * i) / height
        weight, size = ("bold", 12) if bold else ("normal", 9)
        figure.text(*at, line, weight=weight, size=size, color=INK, va="center")
    for i, panels in enumerate(blocks):
        corner = _LEFT + i * (_BLOCK + _GAP), _BOTTOM
        for panel, box in zip(panels, _places(panels), strict=True):
            x, y, w, h = box
            spot = ((corner[0] + x) / width, (corner[1] + y) / height, w / width, h / height)
            _panel(figure.add_axes(spot), panel, small=len(panels) > 1)
        if len(panels) > 1:
            middle = (corner[0] + _BLOCK / 2) / width
            above = (_BOTTOM + _BLOCK + 0.09) / height
            figure.text(middle, above, view.caption, size=10, color=INK, ha="center")
    _legend(figure, view, width, height)
    return figure


def _title(view: MaskView, width: float) -> list[tuple[str, bool]]:
    """Lines of text and whether they are bold: the name, the rule, the sizes."""
    fits = int(width * 12.5)
    rule = [line for text in view.rules for line in wrap(text, fits, subsequent_indent="    ")]
    if len(rule) > 6:
        rule = [*rule[:5], rule[5][: fits - 2] + " …"]
    sizes = wrap(view.sizes, fits)
    return [(view.name, True), *((line, False) for line in (*rule, *sizes))]


def _places(panels: tuple[Panel, ...]) -> Iterator[tuple[float, float, float, float]]:
    """Where each panel of a block goes, in inches from the block's lower left corner."""
    if len(panels) == 1:
        yield 0, 0, _BLOCK, _BLOCK
        return
    tall = panels[0].size[0] / max(1, panels[0].size[1])
    gap = 0.36

    def side(columns: int) -> float:
        """The width of a panel, that many beside each other."""
        rows = ceil(len(panels) / columns)
        return min(
            (_BLOCK - gap * (columns - 1)) / columns, (_BLOCK - gap * rows) / rows / max(tall, 1e-6)
        )

    columns = max(range(1, len(panels) + 1), key=side)
    w = side(columns)
    for i in range(len(panels)):
        row, column = divmod(i, columns)
        yield column * (w + gap), _BLOCK - (row + 1) * (w * tall + gap), w, w * tall


def _panel(axes: Axes, panel: Panel, small: bool) -> None:
    height, width = panel.size
    palette = np.array([_rgb(COLOURS[k]) for k in sorted(COLOURS)])
    pixels = np.round(panel.shares @ palette).astype(np.uint8)
    axes.set_aspect("equal" if panel.square else "auto", anchor="C")
    if pixels.size:
        rows, columns = pixels.shape[:2]
        axes.imshow(
            pixels,
            extent=(0, columns * panel.cell[1], rows * panel.cell[0], 0),
            interpolation="none",
            aspect=axes.get_aspect(),
            zorder=0,
        )
    # An axis without tokens still has a width on the page.
    axes.set_xlim(0, width or 1)
    axes.set_ylim(height or 1, 0)
    _lines(axes, panel)
    _marks(axes, panel, small)
    axes.set_title(panel.title, size=8 if small else 10, color=INK, pad=3 if small else 6)
    places = axes.set_yticks, axes.set_xticks
    for place, length, step in zip(places, panel.size, panel.step, strict=True):
        ticks = _ticks(length, step, 4 if small else 8)
        place(ticks, [str(n) for n in ticks])
    axes.tick_params(labelsize=6 if small else 8, length=2 if small else 3, pad=1.5, color=INK)
    if not small:
        axes.set_ylabel(panel.labels[0], labelpad=2)
        axes.set_xlabel(panel.labels[1], labelpad=2)


def _marks(axes: Axes, panel: Panel, small: bool) -> None:
    """The query, its tile, the key tiles that it visits, its row."""
    _rectangles(axes, panel.outlines, 0.35)
    _rectangles(axes, [panel.box] if panel.box is not None else [], 1.4)
    if panel.point is not None:
        y, x = panel.point
        axes.plot(
            x + 0.5,
            y + 0.5,
            "s",
            zorder=4,
            ms=4.5 if small else 5,
            mfc=MARK,
            mec="white",
            mew=0.6,
        )
    if panel.marked is not None:
        # Beside the axis: the row that the other panels show.
        axes.plot(
            [-0.012], [1 - (panel.marked + 0.5) / panel.size[0]], ">", ms=6, color=MARK,
            transform=axes.transAxes, clip_on=False,
        )  # fmt: skip


def _rectangles(axes: Axes, boxes: Sequence[Box], line: float) -> None:
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Rectangle

    drawn = [Rectangle((x, y), w, h) for y, x, h, w in boxes]
    style: Any = {"facecolor": "none", "edgecolor": INK, "linewidth": line, "zorder": 3}
    axes.add_collection(PatchCollection(drawn, **style))


def _lines(axes: Axes, panel: Panel) -> None:
    """Between points where each is drawn, and, stronger, between tiles; none where they crowd."""
    if not panel.ruled:
        return
    height, width = panel.size
    for strength, (high, wide) in ((0.4, (1, 1)), (1.0, panel.step)):
        most = max(height / high, width / wide)
        if most <= 72:
            line = strength if most <= 40 else strength / 2
            style: Any = {"colors": _LINE, "linewidths": line, "zorder": 2}
            axes.hlines(np.arange(0, height, high), 0, width, **style)
            axes.vlines(np.arange(0, width, wide), 0, height, **style)


def _ticks(length: int, step: int, most: int) -> list[int]:
    """Multiples of the step, doubled until at most so many; all land on the edge of a tile."""
    while length / step > most:
        step *= 2
    return list(range(0, length + 1, step))


def _legend(figure: Figure, view: MaskView, width: float, height: float) -> None:
    left = (_LEFT - 0.6) / width
    handles = list(_handles(view))
    figure.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(left, 0.28 / height),
        ncols=len(handles) if view.query else 2,
        frameon=False,
        handlelength=1.2,
        handleheight=1.2,
        columnspacing=1.6,
        borderpad=0,
        borderaxespad=0,
    )
    figure.text(left, 0.15 / height, view.counts.summary(), size=9, color=INK, va="center")


def _handles(view: MaskView) -> Iterator[Artist]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    counts = view.counts
    hidden = [(HIDDEN, "hidden in a partial tile")] if view.resolved else []
    for kind, text in (
        (FULL, f"full {_share(counts.full, counts.total)}"),
        (VISIBLE, f"partial {_share(counts.partial, counts.total)}"),
        *hidden,
        (EMPTY, f"empty {_share(counts.empty, counts.total)}"),
    ):
        yield Patch(facecolor=COLOURS[kind], edgecolor="#888888", linewidth=0.6, label=text)
    if any(panel.point for panel in view.query):
        yield Line2D([], [], color=MARK, marker="s", markersize=5, linestyle="", label="query")
        yield Patch(facecolor="none", edgecolor=INK, linewidth=1.4, label="its tile")
    if view.matrix.marked is not None:
        label = "row of the query"
        yield Line2D([], [], color=MARK, marker=">", markersize=6, linestyle="", label=label)


def _share(n: int, total: int) -> str:
    return f"{n} ({100 * n / total:.3g} %)" if total else "0"


def _rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
