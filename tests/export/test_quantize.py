"""int8: which maps share a scale, and that a ReLU that the rounding does is not lost by it."""

from pathlib import Path

import numpy as np
import pytest
from random_networks import head, logits_of, plain_session

from nasnet_zoo.export.emit import emit, write
from nasnet_zoo.export.graph import INPUT, Concat, Conv, Graph, Node, Pool, Relu
from nasnet_zoo.export.quantize import quantize

SIZE = (9, 12)


def conv(name, value, width=4, seed=0):
    rng = np.random.default_rng(seed)
    weights = {"weight": rng.normal(size=(width, 4, 1, 1)).astype(np.float32), "bias": np.zeros(width, np.float32)}
    return Node(name, Conv(4, width, (1, 1)), (value,), weights)


def session_of(model, constants):
    assert write(model, constants, Path("no-file")) == ""
    return plain_session(model.SerializeToString())


@pytest.mark.parametrize(
    "parts", [("relu", "conv"), ("conv", "relu"), ("relu", "relu"), ("relu", "pool"), ("max", "relu")]
)
@pytest.mark.parametrize("kernel", [1, 2, 3])
def test_joined_maps_are_what_they_were(parts, kernel, tmp_path):
    """Of which some are rectified and some are not, as no network of the zoo joins them yet."""
    nodes = (
        conv("conv", INPUT),
        conv("read once", INPUT, seed=1),
        Node("relu", Relu(), ("read once",)),
        Node("pool", Pool("avg", kernel, 1), ("conv",)),
        Node("max", Pool("max", kernel, 1), ("conv",)),
        Node("both", Concat(), parts),
        *head("both", 8),
    )
    graph = Graph(nodes, 4)
    images = np.random.default_rng(1).normal(size=(32, 4, *SIZE)).astype(np.float32)
    expected = logits_of(session_of(*emit(graph, SIZE)), images)
    quantized = quantize(*emit(graph, SIZE, quantizable=True), list(images), 8, tmp_path)
    error = np.abs(logits_of(session_of(*quantized), images) - expected).max()
    assert error < 0.02 * np.abs(expected).max()
