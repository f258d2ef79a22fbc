"""One `.attn` file per mechanism; nothing registers them."""

from attnc.library.catalogue import Entry, entries, names, resolve, text

__all__ = ["Entry", "entries", "names", "resolve", "text"]
