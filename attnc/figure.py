"""The look of all pictures, and their files: the same content gives the same bytes."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnc.errors import AttncError
from attnc.files import replace_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's colours, told apart by colour-blind readers, on light ground.
BLUE, ORANGE, GREEN, PURPLE, RED = "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00"
MARK, INK = "#cc3377", "#222222"
_DPI = 160
_SUFFIXES = (".svg", ".png")
_SETTINGS: Any = {
    "svg.hashsalt": "attnc",
    "svg.fonttype": "path",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.edgecolor": INK,
    "axes.linewidth": 0.8,
}


def check_suffix(path: Path) -> None:
    """Raises E714 unless the file can be written as a picture, by its suffix."""
    if path.suffix.lower() not in _SUFFIXES:
        raise AttncError(
            "E714",
            f"`{path}` names no kind of picture",
            hint="end the name with .svg or .png",
        )


def new_figure(width: float, height: float) -> Figure:
    """An empty page, in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def write_figure(make: Callable[[], Figure], path: Path) -> tuple[int, int]:
    """Draw, and write the file in one step; gives its width and height in pixels, SVG's in points.

    Raises E713 if it cannot be written, E714 for its suffix.
    """
    check_suffix(path)
    from matplotlib import rc_context

    kind = path.suffix.lower().removeprefix(".")
    dots = 72 if kind == "svg" else _DPI
    with rc_context(_SETTINGS):
        figure = make()
        content = BytesIO()
        # Neither a date nor a version: the same figure gives the same bytes.
        about = {"Date": None, "Creator": "attnc"} if kind == "svg" else {"Software": "attnc"}
        figure.savefig(content, format=kind, dpi=dots, metadata=about)
    width, height = (round(n * dots) for n in figure.get_size_inches())
    replace_bytes(path, content.getvalue())
    return width, height
