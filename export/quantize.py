"""int8 graphs: static quantisation in onnxruntime's QDQ form, per channel, calibrated on real pictures."""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from .emit import SHARE, write

TYPES = ["Conv", "Gemm", "Add", "Mul", "Relu", "Concat", "MaxPool", "GlobalAveragePool"]
SHARE_STEP = 1 / 16  # the factors of 3 x 3 windows at an edge are 1.5, 2.25, 3, 4.5 and 9


def quantize(
    model: onnx.ModelProto,
    constants: dict[str, np.ndarray],
    pictures: Iterable[np.ndarray],
    batch_size: int,
    folder: Path,
) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """(model, its constants) with convolutions, sums, pools and the classifier in int8, weights included. The given
    model must have been emitted as quantizable.

    `pictures` are inputs of the graph, one by one; `folder` is for temporary files. Weights have seven bits: on x86
    processors without VNNI the sum of two products of eight bits would overflow.
    """
    from onnxruntime.quantization import QDQQuantizer, QuantType, create_calibrator
    from onnxruntime.quantization.quant_utils import load_model_with_shape_infer

    plain = folder / "plain.onnx"
    write(model, constants, plain)
    onnx.save(model, plain)
    with _quiet():
        calibrator = create_calibrator(plain, TYPES, str(folder / "augmented.onnx"))
        calibrator.collect_data(_Reader(model.graph.input[0].name, _batches(pictures, batch_size)))
        ranges = calibrator.compute_data()
        del calibrator
        _share_ranges(model, ranges)
        shares = {name for node in model.graph.node for name in node.input if name.endswith(SHARE)}
        exact = dict(scale=np.array(SHARE_STEP, np.float32), zero_point=np.array(0, np.uint8))
        quantizer = QDQQuantizer(
            load_model_with_shape_infer(plain),  # writes into this folder; else the system's would be used
            per_channel=True,
            reduce_range=True,
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QUInt8,
            tensors_range=ranges,
            nodes_to_quantize=[],
            nodes_to_exclude=[node.name for node in model.graph.node if _stays_float(node)],
            op_types_to_quantize=TYPES,
            extra_options={
                "TensorQuantOverrides": {name: [exact] for name in shares},
                "OpTypesToExcludeOutputQuantization": ["Gemm"],  # logits past those of the calibration would be cut
            },
        )
        quantizer.quantize_model()
    quantizer.model.topological_sort()
    quantized = quantizer.model.model
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in quantized.graph.initializer}
    del quantized.graph.initializer[:]
    return quantized, constants


def _stays_float(node: onnx.NodeProto) -> bool:
    """Whether a node normalises, or counts the pixels in a pool's windows."""
    if node.op_type == "Mul":
        return not any(name.endswith(SHARE) for name in node.input)
    return node.output[0].endswith(".covered")


def _share_ranges(model: onnx.ModelProto, ranges: Any) -> None:
    """Gives the parts of a concatenation the range of the whole, so that they are only copied. Gives the sum of an
    average pool the range of the average, so that it is rounded only once if no window is cut off. A maximum has its
    input's range anyway."""
    same: dict[str, list[str]] = {}
    for node in model.graph.node:
        if node.op_type in ("Concat", "MaxPool") or (node.op_type == "Mul" and not _stays_float(node)):
            names = [name for name in (*node.input, *node.output) if name in ranges and not name.endswith(SHARE)]
            joined = sorted({member for name in names for member in same.get(name, [name])})
            same |= dict.fromkeys(joined, joined)
    rectified = {name for node in model.graph.node if node.op_type == "Relu" for name in node.output}
    for names in same.values():
        lowest, highest = zip(*(ranges[name].range_value for name in names))
        if min(lowest) < 0 and rectified & set(names):
            continue  # quantisation to a range that begins at zero does the ReLU
        for name in names:
            ranges[name] = type(ranges[name])(lowest=np.min(lowest), highest=np.max(highest))


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences onnxruntime's advice to preprocess the graph, which has been done."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)


class _Reader:
    """The pictures in batches, as onnxruntime's calibration asks for them."""

    def __init__(self, entry: str, batches: Iterator[np.ndarray]) -> None:
        self.entry, self.batches = entry, batches

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self.batches, None)
        return None if batch is None else {self.entry: batch}


def _batches(pictures: Iterable[np.ndarray], size: int) -> Iterator[np.ndarray]:
    remaining = iter(pictures)
    while batch := list(islice(remaining, size)):
        yield np.stack(batch)
