"""From a graph to an ONNX model, node by node."""

import hashlib
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from nasnet_zoo.arch.layers import same_padding
from nasnet_zoo.arch.preprocess import Preprocess
from nasnet_zoo.data.images import statistics
from nasnet_zoo.errors import ExportError

from .graph import INPUT, OUTPUT, Add, Concat, Conv, Graph, Linear, Mean, Node, Norm, Pool, Relu, Slice, Zero

OPSET, IR_VERSION = 17, 8  # onnxruntime 1.15 reads these; no older one was tried

PIXELS, PROBABILITIES, CLASSES = "pixels", "probabilities", "classes"
EXTERNAL_BYTES = 64 << 20  # larger weights are in a file of their own, which is mapped, not parsed
SMALL_BYTES = 1024  # shapes and the like stay in the graph, where shape inference needs them
HALF_MAX = 65504.0  # float16's largest number
SHARE = ".share"  # suffix of the factors that correct an average for its padding
PAGE = 4096  # the offset of a mapping must be a multiple of this

Size = tuple[int, int]


def emit(
    graph: Graph,
    size: Size | None,
    dtype: type[np.floating] = np.float32,
    preprocess: Preprocess | None = None,
    top: int = 5,
    quantizable: bool = False,
) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """(model, its constants) that computes `graph` in `dtype` for pictures of `size` (height, width), of any if None.

    Input `image`, float32 (batch, channels, height, width); output `logits`, float32 (batch, classes); any batch. With
    `preprocess` the input is `pixels`, uint8 (batch, height, width, channels), normalised as it says, and beside the
    logits come the `top` best classes: `probabilities`, float32, and `classes`, int64 (batch, top).

    With a fixed size the padding is explicit. If the padding of an average pool differs between two sides, the graph
    also has the pixel counts of its windows: averages with unequal padding are wrong in onnxruntime's CUDA provider
    before the fix of its pull request 29631. A `quantizable` graph has these counts at every average pool, because in
    int8 onnxruntime's convolution is much faster than its average pool.
    """
    emitter = _Emitter(graph, size, np.dtype(dtype), quantizable)
    return emitter.model(preprocess, top), emitter.constants


def write(model: onnx.ModelProto, constants: Mapping[str, np.ndarray], path: Path) -> str:
    """Writes the model with its constants; large ones go into a file beside it. Returns that file's SHA-256, or "" if
    there is none."""
    external = sum(array.nbytes for array in constants.values()) > EXTERNAL_BYTES
    data, digest = path.with_name(path.name + ".data"), hashlib.sha256()
    offset = 0
    opened: AbstractContextManager[IO[bytes] | None] = open(data, "wb") if external else nullcontext()
    with opened as file:
        for name, array in constants.items():
            if file is None or array.nbytes < SMALL_BYTES:
                model.graph.initializer.append(numpy_helper.from_array(array, name))
                continue
            gap = bytes(-offset % PAGE)
            for part in (gap, array.data.cast("B")):
                file.write(part)
                digest.update(part)
            tensor = TensorProto(name=name, dims=array.shape, data_location=TensorProto.EXTERNAL)
            tensor.data_type = helper.np_dtype_to_tensor_dtype(array.dtype)
            offset += len(gap)
            for key, value in (("location", data.name), ("offset", offset), ("length", array.nbytes)):
                tensor.external_data.add(key=key, value=str(value))
            offset += array.nbytes
            model.graph.initializer.append(tensor)
    return digest.hexdigest() if external else ""


class _Emitter:
    def __init__(self, graph: Graph, size: Size | None, dtype: np.dtype, quantizable: bool) -> None:
        self.graph, self.size, self.dtype, self.quantizable = graph, size, dtype, quantizable
        self.channels = graph.channels()
        self.sizes: dict[str, Size | None] = {INPUT: size}
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, np.ndarray] = {}

    def model(self, preprocess: Preprocess | None, top: int) -> onnx.ModelProto:
        channels, size = self.graph.in_channels, self.size or ("height", "width")
        if preprocess is None:
            inputs = [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ("batch", channels, *size))]
        else:
            inputs = [helper.make_tensor_value_info(PIXELS, TensorProto.UINT8, ("batch", *size, channels))]
            self.normalise(preprocess)
        names = {}
        if self.dtype != np.float32:
            names = {INPUT: f"{INPUT}.{self.dtype}", OUTPUT: f"{OUTPUT}.{self.dtype}"}
            self.node("Cast", names[INPUT], INPUT, to=helper.np_dtype_to_tensor_dtype(self.dtype))
        for node in self.graph:
            self.sizes[node.name] = self.size_of(node)
            self.emit(node, names.get(node.name, node.name), [names.get(name, name) for name in node.inputs])
        if names:
            self.node("Cast", OUTPUT, names[OUTPUT], to=TensorProto.FLOAT)
        outputs = [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ("batch", self.channels[OUTPUT]))]
        if preprocess is not None:
            top = min(top, self.channels[OUTPUT])
            count = self.constant("top", np.array([top]))
            softmax = self.node("Softmax", "softmax", OUTPUT, axis=1)
            self.nodes.append(helper.make_node("TopK", [softmax, count], [PROBABILITIES, CLASSES], "top_k", axis=1))
            outputs.append(helper.make_tensor_value_info(PROBABILITIES, TensorProto.FLOAT, ("batch", top)))
            outputs.append(helper.make_tensor_value_info(CLASSES, TensorProto.INT64, ("batch", top)))
        made = helper.make_graph(self.nodes, "nasnet_zoo", inputs, outputs)
        opset = helper.make_opsetid("", OPSET)
        return helper.make_model(made, opset_imports=[opset], ir_version=IR_VERSION, producer_name="nasnet_zoo")

    def normalise(self, preprocess: Preprocess) -> None:
        """From pixels to the network's input, in the steps of images.prepare, so that the numbers are the same."""
        figures = zip(("mean", "std"), statistics(preprocess, self.graph.in_channels))
        mean, std = (self.constant(key, value) for key, value in figures)
        value = self.node("Cast", "pixels.float", PIXELS, to=TensorProto.FLOAT)
        value = self.node("Div", "pixels.unit", value, self.constant("white", np.full(1, 255, np.float32)))
        value = self.node("Div", "pixels.scaled", self.node("Sub", "pixels.centred", value, mean), std)
        if preprocess.per_image:
            axes = dict(axes=[1, 2, 3], keepdims=1)
            mean = self.node("ReduceMean", "picture.mean", value, **axes)
            value = self.node("Sub", "picture.centred", value, mean)
            square = self.node("Mul", "picture.square", value, value)
            std = self.node("Sqrt", "picture.std", self.node("ReduceMean", "picture.variance", square, **axes))
            height, width = cast(Size, self.size)  # pixels come in one
            size = self.graph.in_channels * height * width
            least = self.constant("picture.least", np.full(1, size**-0.5, np.float32))
            value = self.node("Div", "picture.scaled", value, self.node("Max", "picture.divisor", std, least))
        self.node("Transpose", INPUT, value, perm=[0, 3, 1, 2])

    def node(self, kind: str, name: str, *inputs: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [name], name, **attributes))
        return name

    def constant(self, name: str, values: np.ndarray) -> str:
        self.constants[name] = np.ascontiguousarray(values)
        return name

    def weight(self, name: str, values: np.ndarray) -> str:
        if self.dtype == np.float16 and np.abs(values).max(initial=0) > HALF_MAX:
            reached = f"{name} reaches {np.abs(values).max():.3g}"
            raise ExportError(f"{reached}, and float16 holds {HALF_MAX:g} at most: export the network in fp32")
        return self.constant(name, values.astype(self.dtype, copy=False))

    def size_of(self, node: Node) -> Size | None:
        before = self.sizes.get(node.inputs[0])
        if before is None:
            return None
        match node.op:
            case Conv(kernel=kernel, stride=stride, dilation=dilation, padding="valid"):
                height, width = ((n - (k - 1) * dilation - 1) // s + 1 for n, k, s in zip(before, kernel, stride))
            case Conv(stride=stride):
                height, width = (-(-n // s) for n, s in zip(before, stride))
            case Pool(stride=step) | Zero(stride=step):
                height, width = (-(-n // step) for n in before)
            case _:
                return before
        return height, width

    def emit(self, node: Node, name: str, inputs: list[str]) -> None:
        match node.op:
            case Conv() as op:
                self.conv(op, node, name, inputs[0])
            case Pool() as op:
                self.pool(op, node, name, inputs[0])
            case Norm() as op:
                self.norm(op, node, name, inputs[0])
            case Relu():
                self.node("Relu", name, *inputs)
            case Add():
                self.node("Add", name, *inputs)
            case Concat():
                self.node("Concat", name, *inputs, axis=1)
            case Slice(start, stop, step):
                self.slice(name, inputs[0], start, stop, axis=1, step=step)
            case Zero() as op:
                self.zero(op, node, name, inputs[0])
            case Mean():
                self.node("Flatten", name, self.node("GlobalAveragePool", f"{name}.map", *inputs), axis=1)
            case Linear():
                weights = [self.weight(f"{name}.{key}", node.weights[key]) for key in ("weight", "bias")]
                self.node("Gemm", name, *inputs, *weights, transB=1)

    def slice(self, name: str, value: str, start: int, stop: int, axis: int = 0, step: int = 1) -> str:
        bounds = [self.constant(f"{name}.{i}", np.array([bound])) for i, bound in enumerate((start, stop, axis, step))]
        return self.node("Slice", name, value, *bounds)

    def padding(self, node: Node, kernel: Size, stride: Size) -> dict[str, Any]:
        """The attributes for SAME padding of windows of these sizes; see ops.same_padding."""
        if all(s == 1 and k % 2 == 1 for k, s in zip(kernel, stride)):
            return {"pads": [k // 2 for k in kernel] * 2}
        size = self.sizes[node.inputs[0]]
        if size is None:
            return {"auto_pad": "SAME_UPPER"}
        before, after = zip(*(same_padding(*window) for window in zip(size, kernel, stride)))
        return {"pads": [*before, *after]}

    def conv(self, op: Conv, node: Node, name: str, value: str) -> None:
        weight, dilation = node.weights["weight"], op.dilation
        height, width = ((k - 1) * dilation + 1 for k in op.kernel)
        padding = {} if op.padding == "valid" else self.padding(node, (height, width), op.stride)
        if dilation > 1 and "auto_pad" in padding:  # onnxruntime does not accept auto_pad with dilations
            wide = np.zeros((*weight.shape[:2], height, width), weight.dtype)
            wide[:, :, ::dilation, ::dilation] = weight
            weight, dilation = wide, 1
        inputs = [value, self.weight(f"{node.name}.weight", weight)]
        if "bias" in node.weights:
            inputs.append(self.weight(f"{node.name}.bias", node.weights["bias"]))
        attributes = dict(kernel_shape=weight.shape[2:], strides=op.stride, group=op.groups, dilations=[dilation] * 2)
        self.node("Conv", name, *inputs, **attributes, **padding)

    def pool(self, op: Pool, node: Node, name: str, value: str) -> None:
        window, stride = (op.kernel, op.kernel), (op.stride, op.stride)
        attributes = dict(kernel_shape=window, strides=stride)
        padding = self.padding(node, window, stride)
        if op.mode == "max":
            self.node("MaxPool", name, value, **attributes, **padding)
            return
        pads = padding.get("pads")
        if not self.quantizable and pads is not None and pads[:2] == pads[2:]:
            self.node("AveragePool", name, value, **attributes, pads=pads, count_include_pad=0)
            return
        channels = self.channels[node.inputs[0]]
        tap = np.float32(1 / op.kernel**2)
        kernel = self.weight(f"{name}.kernel", np.full((channels, 1, *window), tap))
        whole = self.node("Conv", f"{name}.sum", value, kernel, group=channels, **attributes, **padding)
        self.node("Mul", name, whole, self.shares(node, name, value, window, stride, padding))

    def shares(self, node: Node, name: str, value: str, window: Size, stride: Size, padding: dict[str, Any]) -> str:
        """k * k over the number of pixels in each window, (1, 1, height, width)."""
        size = self.sizes[node.inputs[0]]
        if size is not None:
            counts = []
            for n, k, s in zip(size, window, stride):
                starts = np.arange(-(-n // s)) * s - same_padding(n, k, s)[0]
                counts.append(np.minimum(starts + k, n) - np.maximum(starts, 0))
            return self.weight(name + SHARE, np.float32(window[0] * window[1]) / np.outer(*counts)[None, None])
        shape = self.node("Concat", f"{name}.shape", self.ones(name), self.size_value(name, value), axis=0)
        one = numpy_helper.from_array(np.ones(1, self.dtype))
        map_ = self.node("ConstantOfShape", f"{name}.ones", shape, value=one)
        kernel = self.weight(f"{name}.ones.kernel", np.full((1, 1, *window), np.float32(1 / window[0] ** 2)))
        covered = self.node("Conv", f"{name}.covered", map_, kernel, kernel_shape=window, strides=stride, **padding)
        return self.node("Reciprocal", name + SHARE, covered)

    def ones(self, name: str) -> str:
        return self.constant(f"{name}.one_one", np.ones(2, np.int64))

    def size_value(self, name: str, value: str) -> str:
        """(height, width) of a map as an int64 tensor."""
        return self.slice(f"{name}.size", self.node("Shape", f"{name}.whole_shape", value), 2, 4)

    def norm(self, op: Norm, node: Node, name: str, value: str) -> None:
        weights = node.weights
        if op.over != "layer":
            kind = "BatchNormalization" if op.over == "batch" else "InstanceNormalization"
            names = [self.weight(f"{node.name}.{key}", array) for key, array in weights.items()]
            self.node(kind, name, value, *names, epsilon=op.eps)
            return
        # The norm of one channel that is all of them.
        flat = self.node("Reshape", f"{name}.flat", value, self.constant(f"{name}.one", np.array([0, 1, -1])))
        plain = [self.weight(f"{name}.unit.{i}", np.full(1, i, np.float32)) for i in (1, 0)]
        normed = self.node("InstanceNormalization", f"{name}.normed", flat, *plain, epsilon=op.eps)
        shape = self.node("Shape", f"{name}.shape", value)
        normed = self.node("Reshape", f"{name}.map", normed, shape)
        scale, shift = (self.weight(f"{name}.{key}.map", weights[key][:, None, None]) for key in weights)
        self.node("Add", name, self.node("Mul", f"{name}.scaled", normed, scale), shift)

    def zero(self, op: Zero, node: Node, name: str, value: str) -> None:
        batch = self.slice(f"{name}.batch", self.node("Shape", f"{name}.whole_shape", value), 0, 1)
        channels = self.constant(f"{name}.channels", np.array([op.channels]))
        size = self.sizes[node.name]
        if size is not None:
            after = self.constant(f"{name}.size", np.array(size))
        else:  # (n + stride - 1) / stride
            shape = self.slice(f"{name}.map_size", f"{name}.whole_shape", 2, 4)
            more = self.constant(f"{name}.more", np.array([op.stride - 1]))
            stride = self.constant(f"{name}.stride", np.array([op.stride]))
            after = self.node("Div", f"{name}.size", self.node("Add", f"{name}.upper", shape, more), stride)
        shape = self.node("Concat", f"{name}.shape", batch, channels, after, axis=0)
        self.node("ConstantOfShape", name, shape, value=numpy_helper.from_array(np.zeros(1, self.dtype)))
