"""The mistakes found in one spec, and the nearest name for the hint."""

from __future__ import annotations

from collections.abc import Iterable

from attnc.errors import AttncError, Span

MAX_ERRORS = 100
# Looking for the nearest name is the one thing here that is not linear in the spec.
_MAX_SEARCHES = 100
_MAX_CANDIDATES = 200


class Report:
    """Collects errors; one per place and code, at most `MAX_ERRORS`."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._errors: dict[tuple[str, Span], AttncError] = {}
        self._searches = 0

    def add(self, code: str, message: str, span: Span, hint: str = "") -> None:
        """Add a mistake, unless the same was found at the same place."""
        if len(self._errors) < MAX_ERRORS:
            error = AttncError(code, message, span=span, source=self._source, hint=hint)
            self._errors.setdefault((code, span), error)

    @property
    def errors(self) -> tuple[AttncError, ...]:
        """Every mistake, in order of place."""
        return tuple(e for _, e in sorted(self._errors.items(), key=lambda i: (i[0][1], i[0][0])))

    def nearest(self, name: str, candidates: Iterable[str]) -> str:
        """`did you mean ...?`; if nothing is near, all that is known if it is little."""
        from difflib import get_close_matches

        known = tuple(dict.fromkeys(candidates))
        self._searches += 1
        if self._searches > _MAX_SEARCHES:
            return ""
        near = [c for c in known if abs(len(c) - len(name)) <= 3][:_MAX_CANDIDATES]
        folded = {c.lower(): c for c in reversed(near)}
        found = get_close_matches(name, near, 1) or [
            folded[f] for f in get_close_matches(name.lower(), folded, 1)
        ]
        if found:
            return f"did you mean `{found[0]}`?"
        few = [f"`{c}`" for c in known] if len(known) <= 8 else []
        return f"known here: {', '.join(few)}" if few else ""
