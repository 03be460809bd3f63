"""Compares an exported graph with its network, in each of onnxruntime's providers that works here."""

import copy
import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from nasnet_zoo.arch.cost import network_cost
from nasnet_zoo.data.images import ImageSource, prepare, resized
from nasnet_zoo.errors import ExportError, out_of_memory
from nasnet_zoo.networks.network import eval_mode

from .folder import GRAPH, read_export
from .metadata import Metadata
from .precisions import PRECISIONS
from .providers import LONG, SHORT, choose, say
from .session import Session

if TYPE_CHECKING:
    from nasnet_zoo.networks.planned import PlannedNetwork

MULTIPLY_ADDS = 60e9  # how much to compute: this decides the number of pictures, within the limits
FEWEST, MOST = 2, 32
RANKED = 16  # the least number of real pictures, if there are any, where not every best class has to be the same
BATCH_SIZE, BATCH_MULTIPLY_ADDS = 4, 20e9  # at most, both: maps are memory too


@dataclass(frozen=True)
class Check:
    """How a provider's logits compare with torch's float32 ones on `pictures`, real or made up: the largest difference
    over the largest logit, and the share of pictures whose best class is the same."""

    provider: str
    version: str
    relative_error: float
    top1_agreement: float
    pictures: int
    real: bool


def verify(network: "PlannedNetwork", folder: str | Path, images: Sequence[ImageSource] = ()) -> tuple[Check, ...]:
    """A Check for each provider that works here; raises ExportError if one differs by more than its precision
    allows."""
    import onnxruntime

    model = Path(folder) / GRAPH
    data = read_export(model).metadata
    weight = network.classifier.weight
    # The graph is compared with the float32 weights, without half precision and without a GPU's TF32.
    if weight.dtype != torch.float32 or weight.device.type != "cpu":
        network = copy.deepcopy(network).float().cpu()
    batches, largest = [], 0.0
    with enough_memory(data.name, "verifying"):
        for picture, array in _inputs(network, data, images):
            reference, most = _reference(network, picture)
            batches.append((array, reference))
            largest = max(largest, most)
    row = PRECISIONS.row(data.precision)
    if not largest <= row.largest:  # a CPU computes in float32 and would not notice
        raise ExportError(
            f"the maps of {data.name} reach {largest:.3g}, and {np.dtype(row.dtype)} holds {row.largest:g} at most: "
            f"export it in fp32"
        )
    give_back_memory()
    checks = []
    for provider in [SHORT[name] for name in choose(None, data.precision)]:
        session = Session(folder, [provider])
        if session.provider != provider:  # the session has said that it does not work here
            continue
        try:
            with enough_memory(data.name, "verifying"):
                pairs = [(session.run(array), reference) for array, reference in batches]
        except ExportError:
            if provider == "cpu":
                raise
            say(f"{provider} has too little memory free to verify {data.name} there")
            continue
        if session.provider != provider:  # it failed in a run, and the CPU took its place
            continue
        checks.append(_compare(pairs, provider, onnxruntime.__version__, bool(images)))
        _judge(checks[-1], data, model)
    return tuple(checks)


@contextmanager
def enough_memory(name: str, doing: str) -> Iterator[None]:
    """Raises ExportError if any library runs out of memory inside the block."""
    try:
        yield
    except Exception as error:
        if not out_of_memory(error):
            raise
        raise ExportError(f"{doing} {name} needs more memory than there is: choose a smaller size") from error


def give_back_memory() -> None:
    """Returns freed memory to the system. glibc would keep it, and after large weights or maps that is as much as
    onnxruntime needs next."""
    with suppress(OSError, AttributeError):  # other C libraries know no malloc_trim
        ctypes.CDLL(None).malloc_trim(0)


def _inputs(
    network: "PlannedNetwork", data: Metadata, images: Sequence[ImageSource]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Batches of (what torch takes, what the graph takes), in several sizes if the graph takes any.

    If there are no pictures, smooth random ones are used, which cover a network's range better than noise."""
    height, width = data.preprocess.size
    each = network_cost(network.config, (height, width)).multiply_adds
    fewest = RANKED if images and PRECISIONS.row(data.precision).agreement < 1 else FEWEST
    count = int(min(max(MULTIPLY_ADDS / each, fewest), MOST))
    batch = int(min(max(BATCH_MULTIPLY_ADDS / each, 1), BATCH_SIZE))
    rng = np.random.default_rng(0)
    sizes = [(height, width)] if data.fixed else [(height, width), (height + 1, width), (height + 3, width + 6)]
    for size in sizes:
        preprocess = replace(data.preprocess, size=size)
        sources = list(images[:count]) or [_made_up(size, rng) for _ in range(count)]
        for start in range(0, len(sources), batch):
            some = sources[start : start + batch]
            if data.channels not in (1, 3):
                picture = rng.normal(size=(len(some), data.channels, *size)).astype(np.float32)
                yield picture, picture
            elif data.pixels:
                whole = replace(preprocess, crop=1.0, resize="squash")
                array = np.stack([resized(source, preprocess, data.channels) for source in some])
                plain = array[..., 0] if data.channels == 1 else array
                yield np.stack([prepare(pixels, whole, data.channels) for pixels in plain]), array
            else:
                picture = np.stack([prepare(source, preprocess, data.channels) for source in some])
                yield picture, picture


def _made_up(size: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    coarse = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC)


def _reference(network: "PlannedNetwork", pictures: np.ndarray) -> tuple[np.ndarray, float]:
    """(torch's float32 logits, the largest value in any map that a fused graph has too)."""
    largest = [0.0]

    def note(module: torch.nn.Module, inputs: object, output: torch.Tensor) -> None:
        largest.append(float(output.abs().max()))

    # The output of a pointwise or dense convolution does not exist in the graph: its batch norm is folded into it.
    layers = (module for module in network.modules() if not list(module.children()))
    kept = [layer for layer in layers if not isinstance(layer, torch.nn.Conv2d) or layer.groups > 1]
    hooks = [layer.register_forward_hook(note) for layer in kept]
    try:
        with eval_mode(network), torch.inference_mode():
            for index, state in network.maps(network.checked(torch.from_numpy(pictures))):
                largest.append(float(state.raw.abs().max()))  # sums are no layer's
                if index == network.plan.output:
                    logits = network.forward_head(state.raw).numpy()
    finally:
        for hook in hooks:
            hook.remove()
    return logits, max(largest)


def _compare(pairs: list[tuple[np.ndarray, np.ndarray]], provider: str, version: str, real: bool) -> Check:
    logits, reference = (np.concatenate(arrays) for arrays in zip(*pairs))
    largest = np.abs(reference).max() or 1.0  # a classifier of zeros gives zeros
    error = float(np.abs(logits - reference).max() / largest)
    agreement = float((logits.argmax(1) == reference.argmax(1)).mean())
    return Check(provider, version, error, agreement, len(logits), real)


def _judge(check: Check, data: Metadata, where: Path) -> None:
    precision = PRECISIONS.row(data.precision)
    limit = precision.limit(check.provider)
    agrees = check.top1_agreement >= precision.agreement or not check.real
    if not check.relative_error <= limit or not agrees:  # a NaN fails too
        raise ExportError(
            f"{where.name} is wrong in onnxruntime {check.version} on {LONG[check.provider]}: its logits differ from "
            f"torch's by {check.relative_error:.2g} of the largest (at most {limit:g} in {data.precision}), and "
            f"{check.top1_agreement:.0%} of the best classes are the same{precision.advice or _advice(check.provider)}"
        )


def _advice(provider: str) -> str:
    return "; set NVIDIA_TF32_OVERRIDE=0, or TensorRT rounds to ten bits" if provider == "tensorrt" else ""
