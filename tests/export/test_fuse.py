"""Each fusion of a graph: that the logits stay torch's, and that it does what it says."""

from collections import Counter

import numpy as np
import pytest
import torch
from random_networks import (
    assert_same,
    genotype_of,
    graph_of,
    head,
    logits_of,
    random_network,
    session_of,
)
from unproven_fusions import UNPROVEN, batch_depthwise, join_pointwise, merge_pointwise

from nasnet_zoo.arch.genotype import Block, Cell, Edge, Genotype
from nasnet_zoo.arch.genotypes import GENOTYPES
from nasnet_zoo.export import fuse as fusing
from nasnet_zoo.export.fuse import FUSIONS, fuse
from nasnet_zoo.export.graph import INPUT, Add, Concat, Conv, Graph, Node, Norm, Pool, Relu, Zero

EVERY = (*dict.fromkeys(FUSIONS), *UNPROVEN)


def name_of(value):
    return getattr(value, "__name__", str(value))


def count(graph, kind, wanted=lambda node: True):
    return sum(isinstance(node.op, kind) and wanted(node) for node in graph)


@pytest.fixture(scope="module")
def nasnet():
    torch.manual_seed(0)
    return random_network(GENOTYPES["NASNet-A"])


@pytest.fixture(scope="module")
def darts():
    """With zero operations, loose ends, and DARTS' factorized reductions."""
    torch.manual_seed(0)
    normal = Cell(
        (
            Block(Edge(0, "zero"), Edge(0, "dil_conv_5x5")),
            Block(Edge(1, "avg_pool_3x3"), Edge(1, "avg_pool_3x3")),
            Block(Edge(2, "zero"), Edge(3, "zero")),
            Block(Edge(0, "dil_conv_5x5"), Edge(0, "conv_1x1")),
            Block(Edge(0, "conv_1x1"), Edge(4, "identity")),
        ),
        (2, 3, 5, 6),
    )
    return random_network(Genotype(normal, GENOTYPES["PC-DARTS-ImageNet"].reduction), style="nds")


@pytest.fixture(scope="module", params=["nasnet", "darts"])
def network(request):
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("fusion", EVERY, ids=name_of)
def test_each_fusion_alone_leaves_the_logits(fusion, network):
    graph = graph_of(network)
    assert_same(fusion(graph), network, any_size=[(9, 14)])


@pytest.mark.parametrize("fusion", [fusing.double_in_weights, fusing.pad_channels, *UNPROVEN], ids=name_of)
def test_those_that_need_others_before_them(fusion, network):
    before = simple(graph_of(network))
    graph = fusion(before)
    assert [(node.op, node.inputs) for node in graph] != [(node.op, node.inputs) for node in before]
    assert_same(graph, network, [(9, 14)])


def simple(graph):
    return fuse(graph, (fusing.fold_batch_norm, fusing.drop_zeros, fusing.share))


@pytest.mark.parametrize("fusion", UNPROVEN, ids=name_of)
def test_the_unproven_fusions_after_the_proven_ones(fusion, network):
    assert_same(fusion(fuse(graph_of(network))), network, [(9, 14)])


def test_no_norm_is_left_and_no_convolution_is_added(network):
    graph = graph_of(network)
    folded = fusing.fold_batch_norm(graph)
    assert count(graph, Norm) > 20 and count(folded, Norm) == 0
    assert count(folded, Conv) == count(graph, Conv)
    assert len(folded.nodes) == len(graph.nodes) - count(graph, Norm)


def test_norms_of_layers_and_instances_are_not_folded():
    for combine in ("add_layer_norm", "add_instance_norm"):
        graph = fuse(graph_of(random_network(genotype_of("conv_1x1", combine))))
        assert count(graph, Norm) == 2 + 1 and {n.op.over for n in graph if isinstance(n.op, Norm)} == {combine[4:-5]}


@pytest.mark.parametrize("halves", [False, True])
def test_a_norm_of_a_map_that_others_read_is_not_folded(halves):
    rng = np.random.default_rng(0)
    keys = ("weight", "bias", "running_mean", "running_var")
    before = (
        (conv("map", 3, 4),) if not halves else (conv("a", 3, 2), conv("b", 3, 2), Node("map", Concat(), ("a", "b")))
    )
    norm = Node("norm", Norm(4, 1e-3), ("map",), {key: rng.uniform(1, 2, 4).astype(np.float32) for key in keys})
    graph = Graph((*before, norm, Node("sum", Add(), ("map", "norm")), *head("sum", 4)), 3)
    folded = fusing.fold_batch_norm(graph)
    images = rng.normal(size=(2, 3, 5, 5)).astype(np.float32)
    expected, got = (logits_of(session_of(g, (5, 5)), images) for g in (graph, folded))
    assert count(folded, Norm) == 1 and np.abs(expected - got).max() < 1e-6


def conv(name, c_in, c_out):
    weight = np.random.default_rng(c_out).normal(size=(c_out, c_in, 1, 1)).astype(np.float32)
    return Node(name, Conv(c_in, c_out), (INPUT,), {"weight": weight})


def test_zeros_and_their_sums_are_gone(darts):
    graph = graph_of(darts)
    dropped = fusing.drop_zeros(graph)
    normals = len({step.name.split(".")[1] for step in darts.plan.steps if step.name.startswith("cells.normal")})
    assert count(graph, Zero) == 3 * normals and count(dropped, Zero) == 0
    assert count(graph, Add) - count(dropped, Add) == 3 * normals  # x + 0, 0 + 0, and what has that added to it


def test_zeros_beside_something_stay():
    graph = fusing.drop_zeros(graph_of(random_network(genotype_of("zero", "concat"))))
    assert count(graph, Zero) > 0


def test_a_value_is_rectified_pooled_and_added_once(network):
    graph = graph_of(network)
    shared = fusing.share(graph)
    for kind in (Relu, Pool, Add, Concat):
        keys = Counter((node.op, node.inputs) for node in shared if isinstance(node.op, kind))
        assert keys and max(keys.values()) == 1
    assert count(shared, Relu) < count(graph, Relu) and count(shared, Pool) < count(graph, Pool)
    weighted = [[node.name for node in g if node.weights] for g in (graph, shared)]
    assert weighted[0] == weighted[1]


def test_what_is_added_to_itself_is_doubled_in_the_weights(network):
    def doubled(node):
        return node.inputs[0] == node.inputs[1]

    graph = simple(graph_of(network))
    light = fusing.double_in_weights(graph)
    assert count(graph, Add, doubled) >= 1 and count(light, Add, doubled) == 0
    assert count(light, Pool) == count(graph, Pool)


@pytest.mark.parametrize("combine", ["add", "add_layer_norm"])
def test_a_doubled_map_that_is_added_to_another_stays(combine):
    """avg + avg, which is read by a sum or a norm without weights to double."""
    first = Block(Edge(0, "avg_pool_3x3"), Edge(0, "avg_pool_3x3"), combine)
    cell = Cell((first, Block(Edge(2, "identity"), Edge(1, "identity"))), (2, 3))
    network = random_network(Genotype(cell, cell))
    graph = fuse(graph_of(network))
    assert count(graph, Add, lambda node: node.inputs[0] == node.inputs[1]) > 0
    assert_same(graph, network, [(9, 14)])


def test_no_relu_follows_a_concatenation_that_nothing_else_reads(network):
    graph = graph_of(network)
    moved = fusing.relu_before_concat(graph)
    for g, there in ((graph, True), (moved, False)):
        nodes, readers = g.by_name, g.readers
        late = [
            node
            for node in g
            if isinstance(node.op, Relu)
            and isinstance(getattr(nodes.get(node.inputs[0]), "op", None), Concat)
            and all(isinstance(reader.op, Relu) for reader in readers[node.inputs[0]])
        ]
        assert bool(late) == there


def test_a_concatenation_that_is_also_read_as_it_is_keeps_its_relu():
    nodes = (
        Node("both", Concat(), (INPUT, INPUT)),
        Node("relu", Relu(), ("both",)),
        Node("sum", Add(), ("both", "relu")),
        *head("sum", 6),
    )
    assert fusing.relu_before_concat(Graph(nodes, 3)).nodes == nodes


@pytest.mark.parametrize("multiple", [8, 16])
def test_every_width_is_a_multiple_of_what_a_processor_takes_at_a_time(multiple, network):
    before = fuse(graph_of(network), FUSIONS[:-1])
    assert {node.op.c_out % multiple for node in before if isinstance(node.op, Conv)} != {0}
    graph = fusing.pad_channels(before, multiple)
    convs = [node for node in graph if isinstance(node.op, Conv)]
    assert all(
        node.op.c_out % multiple == 0 and (node.op.c_in % multiple == 0 or INPUT in node.inputs) for node in convs
    )
    assert all(
        node.weights["weight"].shape[0] == node.op.c_out == len(node.weights["bias"])
        for node in convs
        if "bias" in node.weights
    )
    assert_same(graph, network, [(9, 14)])


def test_sums_of_halves_and_wholes_have_their_zeros_at_the_same_places():
    """A factorized reduction's halves are padded each by itself, a 1x1 convolution's output as they are."""
    first, second = Block(Edge(0, "identity"), Edge(1, "conv_1x1")), Block(Edge(0, "conv_1x1"), Edge(1, "identity"))
    cell = Cell((first, second), (2, 3))
    network = random_network(Genotype(cell, cell), style="nds")
    padded = fusing.pad_channels(fusing.fold_batch_norm(graph_of(network)))
    assert {node.op.c_out % 16 for node in padded if isinstance(node.op, Conv)} == {0}
    assert_same(padded, network, [(9, 14)])


def test_widths_stay_where_sums_would_have_their_zeros_at_different_places():
    parts = [conv(name, 3, width) for name, width in zip("abcd", (3, 7, 5, 5))]
    sides = (Node("left", Concat(), ("a", "b")), Node("right", Concat(), ("c", "d")))
    graph = Graph((*parts, *sides, Node("sum", Add(), ("left", "right")), *head("sum", 10)), 3)
    assert fusing.pad_channels(graph) is graph


def test_pointwise_convolutions_of_one_map_are_one(network):
    graph = fuse(graph_of(network), FUSIONS[:-1])
    merged = merge_pointwise(graph)
    keys = Counter((n.inputs, n.op.stride) for n in merged if isinstance(n.op, Conv) and n.op.pointwise)
    assert max(keys.values()) == 1 and count(merged, Conv) < count(graph, Conv)


def test_depthwise_convolutions_of_one_map_and_window_are_one(network):
    def window(node):
        return node.inputs, node.op.kernel, node.op.stride, node.op.dilation

    def windows(graph):
        found = (node for node in graph if isinstance(node.op, Conv) and node.op.groups > 1)
        return Counter(window(node) for node in found if node.op.groups == node.op.c_in)

    graph = fuse(graph_of(network), FUSIONS[:-1])
    batched = batch_depthwise(graph)
    assert max(windows(graph).values()) > 1 and max(windows(batched).values()) == 1
    assert count(batched, Conv) < count(graph, Conv)


def test_sums_of_two_pointwise_convolutions_are_one(network):
    def pair(graph):
        nodes, uses = graph.by_name, graph.uses

        def plain(name):
            op = nodes[name].op
            return uses[name] == 1 and isinstance(op, Conv) and op.pointwise and op.stride == (1, 1)

        return count(graph, Add, lambda node: all(name in nodes and plain(name) for name in node.inputs))

    graph = fuse(graph_of(network), FUSIONS[:-1])
    joined = join_pointwise(graph)
    assert pair(graph) > 0 and pair(joined) == 0
    assert count(graph, Conv) - count(joined, Conv) == count(graph, Add) - count(joined, Add) == pair(graph)


def test_dead_blocks_are_gone():
    block = Block(Edge(0, "sep_conv_3x3"), Edge(1, "sep_conv_3x3"))
    cell = Cell((block, Block(Edge(2, "conv_3x3"), Edge(2, "conv_3x3")), block), (2, 4))
    network = random_network(Genotype(cell, cell))
    graph = graph_of(network)
    assert any(".blocks.1." in node.name for node in graph)
    fused = fuse(graph)
    assert not any(".blocks.1." in node.name for node in fused) and any(".blocks.2." in node.name for node in fused)
    assert_same(fused, network, [(9, 14)])
