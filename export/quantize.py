"""int8 graphs: static quantisation in onnxruntime's QDQ form, per channel, calibrated on real pictures."""

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import onnx

from .emit import write

BATCH_SIZE = 16


def quantize(
    model: onnx.ModelProto, constants: dict[str, np.ndarray], pictures: Iterable[np.ndarray], folder: Path
) -> onnx.ModelProto:
    """The model with convolutions, sums, pools and the classifier in int8, weights included.

    `pictures` are what the graph takes, one by one; `folder` is for files in passing. Weights have seven bits: on x86
    processors without VNNI the sum of two products of eight bits does not fit where it is kept.
    """
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.batches = _batches(pictures)

        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(self.batches, None)
            return None if batch is None else {model.graph.input[0].name: batch}

    plain, quantized = folder / "plain.onnx", folder / "quantized.onnx"
    write(model, constants, plain)
    onnx.save(model, plain)
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # it advises a preprocessing that the graph has had
    try:
        quantize_static(
            *(plain, quantized, Reader()),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            op_types_to_quantize=["Conv", "Gemm", "Add", "Concat", "MaxPool", "AveragePool", "GlobalAveragePool"],
        )
        return onnx.load(quantized)
    finally:
        root.setLevel(level)


def _batches(pictures: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    batch = []
    for picture in pictures:
        batch.append(picture)
        if len(batch) == BATCH_SIZE:
            yield np.stack(batch)
            batch = []
    if batch:
        yield np.stack(batch)
