"""From a network to an ONNX graph: the trace, each fusion and all of them, and what is emitted, against torch."""

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from random_networks import (
    SAME,
    assert_same,
    difference,
    genotype_of,
    graph_of,
    head,
    logits_of,
    pictures,
    plain_session,
    random_genotype,
    random_network,
    randomised,
    session_of,
)
from unproven_fusions import UNPROVEN

import nasnet_zoo
from nasnet_zoo.arch import ops
from nasnet_zoo.arch.genotype import Genotype
from nasnet_zoo.arch.genotypes import GENOTYPES
from nasnet_zoo.export.emit import emit
from nasnet_zoo.export.fuse import FUSIONS, fuse
from nasnet_zoo.export.graph import INPUT, Conv, Graph, Node, Pool, Relu
from nasnet_zoo.networks import layers
from nasnet_zoo.registry import MODELS

# Whole networks


@pytest.mark.parametrize("name", MODELS)
def test_every_model_is_torchs_network_at_any_size(name):
    native, odd, oblong = MODELS[name].config.preprocess.size, (33, 33), (38, 47)
    network = randomised(nasnet_zoo.create(name, filters=8, stages=(1, 1, 1), stem_channels=6))
    assert_same(fuse(graph_of(network)), network, [oblong], [native, odd, oblong, (40, 32)])


@pytest.mark.parametrize("style", ["slim", "nds"])
@pytest.mark.parametrize("op", ops.OPS)
def test_every_operation(op, style):
    network = random_network(genotype_of(op), style=style)
    assert_same(fuse(graph_of(network)), network, [(9, 14)], [(8, 8), (9, 14)])


@pytest.mark.parametrize("combine", ops.COMBINES)
@pytest.mark.parametrize("op", ["zero", "sep_conv_3x3"])
def test_every_combination(combine, op):
    network = random_network(genotype_of(op, combine))
    assert_same(fuse(graph_of(network)), network, [(9, 14)], [(8, 8), (9, 14)])


@pytest.mark.parametrize("output", ["concat", "separate"])
@pytest.mark.parametrize("seed", range(6))
def test_random_genotypes(seed, output):
    stem, style = ("cifar", "imagenet", "imagenet-nds")[seed % 3], ("slim", "nds")[seed % 2]
    network = random_network(random_genotype(seed, output), stem, style)
    sizes = [(33, 44)] if stem != "cifar" else [(13, 20)]
    graph = graph_of(network)
    assert_same(graph, network, sizes)
    assert_same(fuse(graph), network, sizes, [*sizes, (36, 36)])
    assert_same(fuse(graph, (*FUSIONS[:-1], *UNPROVEN)), network, sizes)


def test_other_channels_in_and_one_class():
    network = random_network(GENOTYPES["NASNet-A"], in_channels=5, num_classes=1)
    assert_same(fuse(graph_of(network)), network, [(12, 9)])


def test_skipping_the_reductions_input():
    network = randomised(nasnet_zoo.create("nasnet-a-large", filters=8, stages=(1, 2, 1), stem_channels=6))
    assert network.config.scale.skip_reduction_input
    assert_same(fuse(graph_of(network)), network, [(35, 32)])


def test_half_precision_is_close_and_finite():
    genotype = Genotype(random_genotype(3).normal, GENOTYPES["NASNet-A"].reduction)
    network = random_network(genotype)
    graph, images = fuse(graph_of(network)), pictures(network, (12, 9))
    for size in ((12, 9), None):
        logits = logits_of(session_of(graph, size, np.float16), images)
        assert np.isfinite(logits).all() and SAME < difference(logits, network, images) < 2e-2


@pytest.mark.slow
def test_torchs_own_exporter_agrees(tmp_path):
    network = random_network(genotype_of("sep_conv_3x3"), stages=(1,))
    images = pictures(network, (9, 12))
    torch.onnx.export(network, (images,), tmp_path / "torch.onnx", dynamo=True, verbose=False, external_data=False)
    session = plain_session((tmp_path / "torch.onnx").read_bytes())
    theirs = session.run(None, {session.get_inputs()[0].name: images.numpy()})[0]
    ours = logits_of(session_of(fuse(graph_of(network)), (9, 12)), images)
    assert np.abs(ours - theirs).max() <= SAME * np.abs(theirs).max()


# Single layers


@pytest.mark.parametrize("quantizable", [True, False], ids=["for int8", "plain"])
@pytest.mark.parametrize("fixed", [True, False], ids=["fixed", "any"])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [2, 3])
@pytest.mark.parametrize("size", [(4, 4), (5, 6), (7, 8), (1, 2)])
def test_averages_at_the_border(size, kernel, stride, fixed, quantizable):
    """One picture per pixel, with that pixel alone: their means say how much each pixel counts."""
    graph = Graph((Node("pool", Pool("avg", kernel, stride), (INPUT,)), *head("pool", 1)), 1)
    images = torch.eye(size[0] * size[1]).reshape(-1, 1, *size)
    expected = layers.SamePool2d("avg", kernel, stride)(images).mean((2, 3)).numpy()
    got = logits_of(session_of(graph, size if fixed else None, quantizable=quantizable), images)
    np.testing.assert_allclose(got, expected, atol=1e-7)


@pytest.mark.parametrize("size", [(4, 4), (5, 5), (5, 6), None], ids=str)
def test_no_average_has_unequal_padding(size):
    """onnxruntime's CUDA provider computes those wrongly; its CPU provider, which the tests have, does not."""
    graph = Graph((Node("pool", Pool("avg", 3, 2), (INPUT,)), *head("pool", 1)), 1)
    pools = [node for node in emit(graph, size)[0].graph.node if node.op_type == "AveragePool"]
    attributes = [{a.name: onnx.helper.get_attribute_value(a) for a in node.attribute} for node in pools]
    assert all("auto_pad" not in each and each["pads"][:2] == each["pads"][2:] for each in attributes)
    assert bool(pools) == (size == (5, 5))


@pytest.mark.parametrize("fixed", [True, False], ids=["fixed", "any"])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [2, 3, 5, 7])
def test_padding_never_wins_a_maximum(kernel, stride, fixed):
    graph = Graph((Node("pool", Pool("max", kernel, stride), (INPUT,)), *head("pool", 2)), 2)
    for size in ((4, 5), (7, 6), (1, 2)):
        images = -torch.rand(3, 2, *size) - 1
        expected = layers.SamePool2d("max", kernel, stride)(images).mean((2, 3)).numpy()
        got = logits_of(session_of(graph, size if fixed else None), images)
        np.testing.assert_allclose(got, expected, rtol=1e-6)


CONVS = [
    ops.Conv("c", 3, 4, (3, 3), (2, 2)),
    ops.Conv("c", 3, 4, (3, 3), (2, 2), dilation=2),
    ops.Conv("c", 3, 4, (3, 3), dilation=2),
    ops.Conv("c", 4, 4, (5, 5), (2, 2), groups=4, dilation=2),
    ops.Conv("c", 4, 4, (7, 7), (2, 2), groups=4),
    ops.Conv("c", 3, 4, (1, 7), (1, 2)),
    ops.Conv("c", 3, 4, (7, 1), (2, 1)),
    ops.Conv("c", 3, 4, (1, 1), (2, 2)),
    ops.Conv("c", 3, 4, (2, 2)),
    ops.Conv("c", 3, 4, (3, 3), (2, 2), valid=True),
]


@pytest.mark.parametrize("fixed", [True, False], ids=["fixed", "any"])
@pytest.mark.parametrize("layer", CONVS, ids=lambda c: f"{c.kernel}-{c.stride}-{c.groups}-{c.dilation}-{c.valid}")
def test_convolutions_pixel_by_pixel(layer, fixed):
    """The logits are the map itself: its pixels, weighted differently, are what the means are of."""
    c_in, c_out, kernel, stride = layer.c_in, layer.c_out, layer.kernel, layer.stride
    groups, dilation, valid = layer.groups, layer.dilation, layer.valid
    for size in ((8, 8), (9, 12), (7, 10)):
        module = layers.make_layer(layer, 1e-3)
        torch.nn.init.normal_(module.weight)
        images = torch.eye(size[0] * size[1]).reshape(-1, 1, *size).expand(-1, c_in, -1, -1).contiguous()
        op = Conv(c_in, c_out, kernel, stride, groups, dilation, "valid" if valid else "same")
        node = Node("conv", op, (INPUT,), {"weight": module.weight.detach().numpy()})
        relu = Node("relu", Relu(), ("conv",))
        graph = Graph((node, relu, *head("relu", c_out)), c_in)
        with torch.inference_mode():
            expected = F.relu(module(images)).mean((2, 3)).numpy()
        got = logits_of(session_of(graph, size if fixed else None), images)
        np.testing.assert_allclose(got, expected, atol=1e-6)
