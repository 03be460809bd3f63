"""Rewrites of a graph that do not change its outputs and make it faster to compute.

Each is a function from a graph to a graph. FUSIONS are those that make onnxruntime faster, in their order.
docs/deploy.md has the gain of each. Those that were tried and did not help are in benchmarks/unproven_fusions.py.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np

from .graph import INPUT, OUTPUT, Add, Concat, Conv, Graph, Linear, Mean, Node, Norm, Op, Pool, Relu, Zero

Fusion = Callable[[Graph], Graph]


def fold_batch_norm(graph: Graph) -> Graph:
    """Batch norm after a convolution, or after the two halves of a factorized reduction, becomes part of it."""
    nodes, uses = graph.by_name, graph.uses
    for node in graph:
        if not (isinstance(node.op, Norm) and node.op.over == "batch") or uses[node.inputs[0]] > 1:
            continue
        before = nodes[node.inputs[0]]
        parts = before.inputs if isinstance(before.op, Concat) else (before.name,)
        widths = [conv.c_out for part in parts if isinstance(conv := nodes[part].op, Conv) and uses[part] == 1]
        if len(widths) < len(parts):
            continue
        weights = {key: value.astype(np.float64) for key, value in node.weights.items()}
        scale = weights["weight"] / np.sqrt(weights["running_var"] + node.op.eps)
        shift = weights["bias"] - weights["running_mean"] * scale
        start = 0
        for part, width in zip(parts, widths):
            own = slice(start, start + width)
            nodes[part] = replace(nodes[part], weights=_scaled(nodes[part], scale[own], shift[own]))
            start += width
        nodes[node.name] = replace(before, name=node.name)
        if len(parts) == 1:
            nodes[node.name] = replace(nodes[parts[0]], name=node.name)
    return graph.with_nodes(nodes.values())


def _scaled(conv: Node, scale: np.ndarray, shift: np.ndarray) -> dict[str, np.ndarray]:
    bias = conv.weights.get("bias", 0) * scale + shift
    weight = conv.weights["weight"] * scale[:, None, None, None]
    return {"weight": weight.astype(np.float32), "bias": bias.astype(np.float32)}


def drop_zeros(graph: Graph) -> Graph:
    """A sum of which one side is zero is the other side."""
    nodes: list[Node] = []
    names: dict[str, str] = {}
    zeros: set[str] = set()
    for node in graph:
        node = node.renamed(names)
        if isinstance(node.op, Zero):
            zeros.add(node.name)
        if isinstance(node.op, Add) and zeros & set(node.inputs):
            left, right = node.inputs
            names[node.name] = left if right in zeros else right
        else:
            nodes.append(node)
    return graph.with_nodes(nodes)


def relu_before_concat(graph: Graph) -> Graph:
    """The ReLU of a concatenation becomes the concatenation of ReLUs, if nothing reads it without the ReLU. onnxruntime
    computes them together with the sums and convolutions before, and some exist already for the cell's operations."""
    nodes, readers = graph.by_name, graph.readers
    result = []
    for node in graph:
        before = nodes.get(node.inputs[0])
        rectified = all(isinstance(reader.op, Relu) for reader in readers[node.inputs[0]])
        if isinstance(node.op, Relu) and before is not None and isinstance(before.op, Concat) and rectified:
            parts = tuple(f"{node.name}.{i}" for i in range(len(before.inputs)))
            result += [Node(part, Relu(), (value,)) for part, value in zip(parts, before.inputs)]
            node = Node(node.name, Concat(), parts)
        result.append(node)
    return graph.with_nodes(result)


def share(graph: Graph) -> Graph:
    """Equal operations without weights on the same inputs are done once: ReLUs, pools, sums and concatenations."""
    done: dict[tuple[Op, tuple[str, ...]], str] = {}
    names: dict[str, str] = {}
    nodes = []
    for node in graph:
        node = node.renamed(names)
        key = (node.op, node.inputs)
        if node.weights or node.name == OUTPUT:
            nodes.append(node)
        elif key in done:
            names[node.name] = done[key]
        else:
            done[key] = node.name
            nodes.append(node)
    return graph.with_nodes(nodes)


def double_in_weights(graph: Graph) -> Graph:
    """A map that is added to itself, such as two equal pools, is read once; the weights that read it are doubled."""
    readers = graph.readers

    def absorbed(name: str) -> bool:
        return all(
            isinstance(reader.op, Linear)
            or (isinstance(reader.op, Conv) and (reader.op.groups == 1 or reader.op.depthwise))
            or (isinstance(reader.op, (Relu, Concat, Pool, Mean)) and absorbed(reader.name))
            for reader in readers[name]
        )

    sums = (node for node in graph if isinstance(node.op, Add) and node.inputs[0] == node.inputs[1])
    twice = {node.name: node.inputs[0] for node in sums if absorbed(node.name)}
    factors = {INPUT: np.ones(graph.in_channels, np.float32)}  # true value / value in the new graph, by channel
    channels, nodes = graph.channels(), []
    for node in graph:
        each, weights = [factors[name] for name in node.inputs], dict(node.weights)
        if node.name in twice:
            factors[node.name] = 2 * each[0]
            continue
        match node.op:
            case Concat():
                factors[node.name] = np.concatenate(each)
            case Relu() | Pool() | Mean():
                factors[node.name] = each[0]
            case _:
                factors[node.name] = np.ones(channels[node.name], np.float32)
        if each[0].max() > 1 and isinstance(node.op, (Conv, Linear)):
            shape = [1] * weights["weight"].ndim
            shape[0 if isinstance(node.op, Conv) and node.op.groups > 1 else 1] = -1  # where the inputs' channels lie
            weights["weight"] = weights["weight"] * each[0].reshape(shape)
        nodes.append(replace(node.renamed(twice), weights=weights))
    return graph.with_nodes(nodes)


def pad_channels(graph: Graph, multiple: int = 16) -> Graph:
    """Every convolution gets channels of zeros up to a multiple. onnxruntime's blocked layout has sixteen channels per
    block on CPUs with AVX-512, else eight, and onnxruntime leaves that layout at each concatenation that does not fit.
    Its int8 kernels for depthwise convolutions compute the remaining channels one by one. The graph is not changed if
    maps that are added would need their zeros at different places."""
    layouts = _layouts(graph, multiple)
    if layouts is None:
        return graph
    nodes = []
    for node in graph:
        op, weights = node.op, dict(node.weights)
        where, width = layouts[node.name]
        if isinstance(op, Conv):
            weights = {key: _spread(value, where, width, 0) for key, value in weights.items()}
            if op.depthwise:
                op = replace(op, c_in=width, c_out=width, groups=width)
            else:
                weights["weight"] = _spread(weights["weight"], *layouts[node.inputs[0]], 1)
                op = replace(op, c_in=layouts[node.inputs[0]][1], c_out=width)
        elif isinstance(op, Linear):
            weights["weight"] = _spread(weights["weight"], *layouts[node.inputs[0]], 1)
        nodes.append(replace(node, op=op, weights=weights))
    return graph.with_nodes(nodes)


Layout = tuple[tuple[int, ...], int]  # the new places of a map's channels, and the new number of channels


def _layouts(graph: Graph, multiple: int) -> dict[str, Layout] | None:
    """A layout for every value, the same for maps that are added and for channel-by-channel operations; None if there
    is no such layout."""
    same: dict[str, str] = {}

    def root(name: str) -> str:
        while name in same:
            name = same[name]
        return name

    for node in graph:
        match node.op:
            case Conv(depthwise=False, groups=1) | Concat() | Linear():
                pass
            case Add() | Relu() | Pool() | Mean() | Conv(depthwise=True):
                for name in node.inputs:
                    if root(name) != root(node.name):
                        same[root(name)] = root(node.name)
            case _:
                return None
    joined: dict[str, list[Node]] = defaultdict(list)
    for node in graph:
        if isinstance(node.op, Concat):
            joined[root(node.name)].append(node)
    channels, found = graph.channels(), {root(INPUT): (tuple(range(graph.in_channels)), graph.in_channels)}
    found[OUTPUT] = (tuple(range(channels[OUTPUT])), channels[OUTPUT])

    def layout(name: str) -> Layout:
        name = root(name)
        if name not in found:
            count = channels[name]
            wanted = {_side_by_side([layout(part) for part in node.inputs]) for node in joined[name]}
            wanted = wanted or {(tuple(range(count)), -(-count // multiple) * multiple)}
            found[name] = wanted.pop()
            if wanted:
                raise _NoLayout
        return found[name]

    try:
        return {name: layout(name) for name in channels}
    except _NoLayout:
        return None


class _NoLayout(Exception):
    """Maps that are added have their channels at different places."""


def _side_by_side(parts: list[Layout]) -> Layout:
    where, start = [], 0
    for places, width in parts:
        where += [place + start for place in places]
        start += width
    return tuple(where), start


def _spread(values: np.ndarray, places: tuple[int, ...], width: int, axis: int) -> np.ndarray:
    """`values` with their entries along an axis at these places of `width`, zeros elsewhere."""
    if len(places) == width:
        return values
    shape = list(values.shape)
    shape[axis] = width
    result = np.zeros(shape, values.dtype)
    result[(slice(None),) * axis + (list(places),)] = values
    return result


FUSIONS: tuple[Fusion, ...] = (
    *(fold_batch_norm, drop_zeros, share, relu_before_concat, share),
    *(double_in_weights, pad_channels),
)


def fuse(graph: Graph, fusions: Iterable[Fusion] = FUSIONS) -> Graph:
    """The graph after these rewrites, in their order."""
    for fusion in fusions:
        graph = fusion(graph)
    return graph
