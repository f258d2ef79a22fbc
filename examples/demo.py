"""`make demo`: sliding-window attention as Mistral-7B has it, from its spec to a checked kernel.

The kernel is compiled for an H200, which need not be there, at the model's real shapes; then the
same kernel is run on a stretch of real text, by Triton's interpreter where there is no GPU.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

import attnc
from attnc.codegen import emit
from attnc.runtime.verify import verify

ROOT = Path(__file__).parent.parent
MISTRAL = {"B": 1, "H": 32, "G": 8, "M": 32768, "N": 32768, "D": 128, "E": 128}
# What an interpreter can do in seconds: two key heads with their four query heads each, 384 tokens.
SMALL = {"B": 1, "H": 8, "G": 2, "M": 384, "N": 384, "D": 128, "E": 128}


def embedded(text: bytes, shape: Mapping[str, int]) -> dict[str, Tensor]:
    """Queries, keys and values of a text: each byte through a fixed random table per head."""
    tokens = torch.tensor(list(text[: shape["M"]]))
    fixed = torch.Generator().manual_seed(7)

    def project(heads: int, width: int) -> Tensor:
        return torch.randn(1, heads, 256, width, generator=fixed)[:, :, tokens]

    return {
        "Q": project(shape["H"], shape["D"]),
        "K": project(shape["G"], shape["D"]),
        "V": project(shape["G"], shape["E"]),
    }


def main() -> None:
    attention = attnc.load("sliding_window", window=4096)
    print(attention.explain())
    print("\ncompiled for the model's shapes")
    made = attention.compile(MISTRAL, target="h200", dtype="bf16", to=ROOT / "build" / "demo")
    print(made)

    print("\nrun on the text of README.md, with a window of 100 tokens")
    tensors = embedded((ROOT / "README.md").read_bytes(), SMALL)
    report = verify(
        attention.plan,
        lambda: emit(attention.plan),
        dtype=torch.float16,
        params={"window": 100},
        shape=SMALL,
        cases=("given",),
        override=lambda case, drawn: {n: x.to(drawn[n].dtype) for n, x in tensors.items()},
    )
    print(report)
    raise SystemExit(not report.ok)


if __name__ == "__main__":
    main()
