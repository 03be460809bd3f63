"""Fusions that gain nothing on a CPU (docs/deploy.md has by how much they are slower); a GPU may differ.

They are functions from a graph to a graph, as those of export/fuse.py are. benchmarks/inference.py measures them.
"""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from nasnet_zoo.export.fuse import Fusion
from nasnet_zoo.export.graph import Add, Concat, Conv, Graph, Node, Slice


def merge_pointwise(graph: Graph) -> Graph:
    """1x1 convolutions of the same map and stride become one, whose output is cut up."""
    return _merged(graph, lambda op: op.pointwise)


def batch_depthwise(graph: Graph) -> Graph:
    """Depthwise convolutions of the same map with the same window become one of several outputs per channel."""
    return _merged(graph, lambda op: op.depthwise)


def _merged(graph: Graph, wanted: Callable[[Conv], bool]) -> Graph:
    groups: dict[tuple, list[Node]] = defaultdict(list)
    for node in graph:
        if isinstance(node.op, Conv) and wanted(node.op):
            groups[node.inputs, replace(node.op, c_out=1), *node.weights].append(node)
    first = {group[0].name: group for group in groups.values() if len(group) > 1}
    others = {node.name for group in first.values() for node in group[1:]}
    nodes = []
    for node in graph:
        if node.name in others:
            continue
        group = first.get(node.name)
        if group is None:
            nodes.append(node)
            continue
        counts = [member.op.c_out for member in group]
        weights = {key: np.concatenate([member.weights[key] for member in group]) for key in node.weights}
        if node.op.groups > 1:  # there the outputs of a channel lie side by side
            order = np.arange(sum(counts)).reshape(len(group), -1).T.reshape(-1)
            weights = {key: value[order] for key, value in weights.items()}
            cuts = [Slice(index, sum(counts), len(group)) for index in range(len(group))]
        else:
            ends = np.cumsum(counts).tolist()
            cuts = [Slice(end - count, end) for count, end in zip(counts, ends)]
        whole = f"{node.name}.merged"
        nodes.append(Node(whole, replace(node.op, c_out=sum(counts)), node.inputs, weights))
        nodes += [Node(member.name, cut, (whole,)) for member, cut in zip(group, cuts)]
    return graph.with_nodes(nodes)


def join_pointwise(graph: Graph) -> Graph:
    """The sum of two 1x1 convolutions becomes one of both inputs side by side."""
    nodes, uses = graph.by_name, graph.uses
    result = []
    for node in graph:
        sides = [nodes.get(name) for name in node.inputs]
        if isinstance(node.op, Add) and all(side and uses[side.name] == 1 and _plain(side) for side in sides):
            left, right = sides
            both = f"{node.name}.both"
            weight = np.concatenate([left.weights["weight"], right.weights["weight"]], 1)
            bias = left.weights["bias"] + right.weights["bias"]
            op = replace(left.op, c_in=left.op.c_in + right.op.c_in)
            result.append(Node(both, Concat(), left.inputs + right.inputs))
            node = Node(node.name, op, (both,), {"weight": weight, "bias": bias})
        result.append(node)
    return graph.with_nodes(result)


def _plain(node: Node) -> bool:
    return isinstance(node.op, Conv) and node.op.pointwise and node.op.stride == (1, 1) and "bias" in node.weights


UNPROVEN: tuple[Fusion, ...] = (join_pointwise, merge_pointwise, batch_depthwise)
