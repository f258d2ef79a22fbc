"""The linear layers around attention: projections and the feed-forward layers, on the 2d array."""

from __future__ import annotations

from dataclasses import dataclass

from attnc.runtime.spatial.designs import Machine
from attnc.runtime.spatial.models import Model


@dataclass(frozen=True, slots=True)
class LinearLayers:
    """All linear layers of one layer of a model.

    least_bytes: what they move if each operand crosses once; where the weights of a layer exceed
                 half a buffer, a mapping reads something again
    """

    seconds: float
    least_bytes: int


def linear_layers(model: Model, length: int, machine: Machine) -> LinearLayers:
    """Each layer takes the longer of its products and of its operands' one trip to the chip.

    Source: Nayak et al. 2024, FuseMax (MICRO 2024), and its artifact.
    """
    rows = model.batch * length
    width = model.heads * model.head_dim
    projections = [(model.embedding, width)] * 3 + [(width, model.embedding)]
    layers = [
        *projections,
        (model.embedding, model.feed_forward),
        (model.feed_forward, model.embedding),
    ]
    seconds, moved = 0.0, 0
    for inner, outer in layers:
        cycles = inner * (rows / machine.edge) * (outer / machine.edge)
        layer_bytes = machine.word_bytes * (rows * inner + inner * outer + rows * outer)
        seconds += max(cycles / machine.clock_hz, layer_bytes / machine.bytes_per_second)
        moved += layer_bytes
    return LinearLayers(seconds, moved)
