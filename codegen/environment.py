"""The environment in which templates are rendered: it lays text out, Python decides."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from attnc.codegen.text import escape, fill, paragraph, wrap

if TYPE_CHECKING:
    import jinja2


@cache
def templates() -> jinja2.Environment:
    """Those in the folder `templates`."""
    # Planning and predicting write no source: they need not wait for it.
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # the text is Python; `escape` and `wrap` make it safe
    )
    environment.filters["escape"] = escape
    environment.filters["code"] = lambda line, indent=4: "\n".join(wrap(line, indent))
    environment.filters["paragraph"] = paragraph
    environment.filters["fill"] = lambda items, indent=4: "\n".join(fill(items, indent))
    return environment
