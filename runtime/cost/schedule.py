"""When the last of many programs ends, if each starts as soon as there is room for it."""

from __future__ import annotations

from heapq import heapify, heapreplace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

FloatArray: TypeAlias = NDArray[np.float64]
# Programs are followed one by one in the last so many rounds; before them all places are busy.
_ROUNDS = 4


def makespan(lengths: FloatArray, repeats: int, places: int) -> float:
    """The time from the first start to the last end.

    lengths: of the programs of a pattern, in the order in which they start; the pattern is run
    `repeats` times. places: how many programs run at the same time.
    """
    count = len(lengths) * repeats
    if not count:
        return 0.0
    if count <= places:
        return float(lengths.max())
    followed = min(count, _ROUNDS * places)
    earlier = count - followed
    whole, rest = divmod(earlier, len(lengths))
    busy = whole * float(lengths.sum()) + float(lengths[:rest].sum())
    # Where programs came before, places get free one after another.
    spread = busy / earlier if earlier else 0.0
    base = busy / places - spread / 2
    ends = [base + spread * (i + 0.5) / places if earlier else 0.0 for i in range(places)]
    heapify(ends)
    last = 0.0
    order = np.arange(earlier, count) % len(lengths)
    for length in lengths[order].tolist():
        end = ends[0] + length
        heapreplace(ends, end)
        last = max(last, end)
    return last
