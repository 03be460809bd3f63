"""Small networks whose every number is random, and their ONNX graphs in onnxruntime, for the tests of the export."""

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from torch import nn

from nasnet_zoo.arch.cells import CellScale
from nasnet_zoo.arch.config import NetworkConfig
from nasnet_zoo.arch.genotype import Block, Cell, Edge, Genotype
from nasnet_zoo.arch.ops import COMBINES, OPS
from nasnet_zoo.arch.preprocess import Preprocess
from nasnet_zoo.export.emit import emit, write
from nasnet_zoo.export.graph import OUTPUT, Linear, Mean, Node
from nasnet_zoo.export.trace import trace
from nasnet_zoo.networks.build import build

SAME = 1e-5  # of the largest logit


def randomised(network):
    """The network in eval mode with random statistics, scales (of both signs) and shifts: fresh ones, zeros and ones,
    would hide what a folding gets wrong."""
    for module in network.modules():
        if isinstance(module, (nn.BatchNorm2d, nn.GroupNorm, nn.InstanceNorm2d)):
            nn.init.uniform_(module.weight, 0.5, 1.2)
            module.weight.data[::3] *= -1
            nn.init.normal_(module.bias, std=0.3)
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 2)
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.bias, std=0.1)
    return network.eval()


def random_network(genotype, stem="cifar", style="slim", stages=(1, 1), **config):
    """Of widths that no eight divides."""
    scale, genotype = CellScale(stem, 6, 10, stages), replace(genotype, style=style)
    config = {"num_classes": 7, **config}
    return randomised(build(NetworkConfig(genotype, scale, Preprocess((32, 32)), **config)))


def genotype_of(op, combine="add"):
    """Both cells have this operation on inputs and on hidden states, strided in the reduction."""
    first, second = Block(Edge(0, op), Edge(1, op), combine), Block(Edge(2, op), Edge(0, "identity"))
    cell = Cell((first, second), (2, 3))
    return Genotype(cell, cell)


def random_genotype(seed, output="concat"):
    rng = random.Random(seed)

    def cell():
        blocks = []
        for states in range(2, 6):
            left, right = (Edge(rng.randrange(states), rng.choice(sorted(OPS))) for _ in range(2))
            blocks.append(Block(left, right, rng.choice(sorted(COMBINES))))
        outputs = rng.sample(range(5), 1 if output == "separate" else 2)
        return Cell(tuple(blocks), (*sorted(outputs), 5), 2, output)

    return Genotype(cell(), cell())


def pictures(network, size, count=2):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, network.config.in_channels, *size, generator=generator)


def graph_of(network):
    return trace(network.config, {key: value.numpy() for key, value in network.state_dict().items()})


def session_of(graph, size, dtype=np.float32, **options):
    """onnxruntime's session of a graph that onnx's checker approves of."""
    model, constants = emit(graph, size, dtype, **options)
    assert write(model, constants, Path("no-file")) == ""
    onnx.checker.check_model(model, full_check=True)
    return plain_session(model.SerializeToString())


def plain_session(model):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def logits_of(session, array):
    return session.run(["logits"], {session.get_inputs()[0].name: np.asarray(array)})[0]


@torch.inference_mode()
def difference(logits, network, images):
    """From torch's logits, of the largest of them."""
    expected = network(images).numpy()
    assert logits.shape == expected.shape and logits.dtype == np.float32 and np.abs(expected).max() > 0.01
    return np.abs(logits - expected).max() / np.abs(expected).max()


def assert_same(graph, network, fixed=(), any_size=()):
    """In onnxruntime the graph gives torch's logits: one of its own for each of the first sizes, one for all others."""
    for size in fixed:
        images = pictures(network, size)
        assert difference(logits_of(session_of(graph, size), images), network, images) <= SAME, size
    session = session_of(graph, None) if any_size else None
    for size in any_size:
        images = pictures(network, size)
        assert difference(logits_of(session, images), network, images) <= SAME, size


def head(value, channels):
    """Nodes that give the mean of each of a map's channels as the logits."""
    weights = {"weight": np.eye(channels, dtype=np.float32), "bias": np.zeros(channels, np.float32)}
    return Node("mean", Mean(), (value,)), Node(OUTPUT, Linear(), ("mean",), weights)
