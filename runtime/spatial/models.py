"""The encoders that FuseMax is evaluated on, and the lengths.

Shapes: Nayak et al. 2024, FuseMax (MICRO 2024), section 6.1, and its artifact.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches

from attnc.errors import AttncError

LENGTHS = (1 << 10, 1 << 12, 1 << 14, 1 << 16, 1 << 18, 1 << 20)


@dataclass(frozen=True, slots=True)
class Model:
    """A layer of an encoder: as many queries as keys, no mask, values as wide as keys.

    Raises E842 if one of its figures is not positive.
    """

    name: str
    embedding: int
    heads: int
    head_dim: int
    feed_forward: int
    batch: int = 64

    def __post_init__(self) -> None:
        for name in ("embedding", "heads", "head_dim", "feed_forward", "batch"):
            if getattr(self, name) < 1:
                raise AttncError(
                    "E842", f"`{name}` of a model is {getattr(self, name)}, not positive"
                )


_MODELS = (
    Model("BERT", 768, 12, 64, 3072),
    Model("TrXL", 1024, 16, 64, 4096),
    Model("T5", 512, 8, 64, 2048),
    Model("XLM", 2048, 16, 128, 8192),
)


def model_names() -> tuple[str, ...]:
    """The models, in the order of the paper's figures."""
    return tuple(m.name for m in _MODELS)


def load_model(name: str) -> Model:
    """A model by name, in any case. Raises E842 if there is none of that name."""
    known = {m.name.lower(): m for m in _MODELS}
    if name.lower() in known:
        return known[name.lower()]
    near = get_close_matches(name.lower(), known, n=1, cutoff=0.5)
    listed = ", ".join(f"`{m.name}`" for m in _MODELS)
    raise AttncError(
        "E842",
        f"unknown model `{name[:60]}`; the models are {listed}",
        hint=f"did you mean `{known[near[0]].name}`?" if near else "give one of these names",
    )


def show_length(length: int) -> str:
    """`4096` as `4K`, `1048576` as `1M`; other lengths as they are."""
    for unit, size in (("M", 1 << 20), ("K", 1 << 10)):
        if length >= size and length % size == 0:
            return f"{length // size}{unit}"
    return str(length)
