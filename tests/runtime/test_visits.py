"""What row tiles visit: spans, their partial parts, and boxes of the grid that visit the same."""

from __future__ import annotations

from itertools import product

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from attnc.ir.geometry.tile_runs import make_runs
from attnc.runtime.visits import Visits, boxes


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_spans_are_the_visited_tiles(data: st.DataObject) -> None:
    rows, keys = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 9))
    classes = np.array(data.draw(st.lists(st.integers(0, 2), min_size=rows * keys, max_size=99)))
    classes = classes[: rows * keys].reshape(rows, keys)
    tile, width = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 12))
    extent = keys * tile - data.draw(st.integers(0, tile - 1))
    row, key = np.nonzero(classes)
    runs = make_runs(rows, keys, row, key, key + 1, classes[row, key] == 2)
    visits = Visits(extent, tile, runs, np.arange(rows).reshape(1, rows))
    for r in range(rows):
        found = np.zeros(extent, int)
        for span in visits.spans(r, width):
            assert 0 < len(span.points) <= width
            found[list(span.points)] += 2
            for part in span.cut:
                assert set(part) <= set(span.points)
                found[list(part)] -= 1
        assert (found == np.repeat(classes[r], tile)[:extent]).all()


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_boxes_cover_the_grid_once(data: st.DataObject) -> None:
    sizes = data.draw(st.lists(st.integers(1, 4), max_size=3))
    deciding = [data.draw(st.sampled_from((1, n))) for n in sizes]
    count = int(np.prod(deciding))
    labels = np.array(data.draw(st.lists(st.integers(0, 1), min_size=count, max_size=count)))
    labels = labels.reshape(deciding)
    seen = np.zeros(sizes, int)
    for box in boxes(labels, {str(i): range(n) for i, n in enumerate(sizes)}):
        points = list(product(*box.values()))
        here = {int(labels[tuple(np.minimum(p, labels.shape) % labels.shape)]) for p in points}
        assert len(here) == 1 or not sizes
        for p in points:
            seen[p] += 1
    assert (seen == 1).all()
