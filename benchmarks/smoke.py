"""Is what a GPU computes right? A minute of comparisons, each PASS or FAIL with the difference that was measured.

    python benchmarks/smoke.py [--minutes 1]
    python benchmarks/smoke.py --rehearse       on a CPU: what compares nothing there runs through, and says SKIP

A check that fails or breaks does not hide the others. results/smoke.json has them all. `pytest -m gpu` runs the same.
"""

import argparse
import os
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
import torch
from common import INCOMPLETE, Clock, add_options, machine, write

import nasnet_zoo
from nasnet_zoo.arch.config import NetworkConfig
from nasnet_zoo.arch.genotype import Block, Cell, Edge, Genotype
from nasnet_zoo.arch.genotypes import NASNET_A
from nasnet_zoo.data.cifar import Pictures
from nasnet_zoo.export import Session, to_onnx
from nasnet_zoo.export.exporter import write_graph
from nasnet_zoo.export.precisions import PRECISIONS
from nasnet_zoo.export.providers import LONG, preload, provider_options
from nasnet_zoo.networks.build import build
from nasnet_zoo.networks.layers import Chain, SamePool2d, State
from nasnet_zoo.search.children.cifar import CifarChild
from nasnet_zoo.search.presets import preset
from nasnet_zoo.training.augment import epoch_batches
from nasnet_zoo.training.optim import make_optimizer, set_rate
from nasnet_zoo.training.prepare import prepare
from nasnet_zoo.training.recipe import Recipe
from nasnet_zoo.training.step import WARMUP_STEPS, TrainingStep
from nasnet_zoo.training.tasks.classify import Classify

REPLAYS = 4
GRAPH = "nasnet-a-cifar-small"  # nasnet-a-mobile's first run takes 20 s on a GPU, in float16 36
KERNEL_LIMITS = {torch.float32: 1e-3, torch.bfloat16: 0.02}  # of the norm: sums of up to 10^6 terms in another order
WORKERS = 8  # at most, that compile kernels side by side


class Place(NamedTuple):
    """Where the checks run."""

    device: str
    provider: str

    @property
    def is_gpu(self) -> bool:
        return self.device == "cuda"


GPU, CPU = Place("cuda", "cuda"), Place("cpu", "cpu")


class Found(NamedTuple):
    """A check's outcome: the difference, the largest that is right, and why it says nothing on a CPU."""

    difference: float
    limit: float
    void_on_cpu: str = ""


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


# Training


def captured_step(place: Place, precision: str, separable: str, optimizer: str = "sgd") -> Found:
    """Steps as replays of a captured one against the same steps kernel by kernel: the weights after a few of them,
    by how far they are apart of how far they have moved."""
    side, batch_size = (32, 16) if place.is_gpu else (8, 2)
    config = _child_config(NASNET_A, 32, side) if place.is_gpu else _child_config(NASNET_A, 4, side, cells=1)
    separable = separable if place.is_gpu else "torch"
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (batch_size * (WARMUP_STEPS + REPLAYS), 3, side, side), generator=generator)
    pictures = Pictures(images.to(torch.uint8), torch.randint(10, (len(images),), generator=generator))
    pictures = pictures.to(place.device)
    ends: dict[str, torch.Tensor] = {}
    for capture in ("off", "auto"):
        ways = dict(precision=precision, separable=separable, capture=capture)
        recipe = Recipe(1, batch_size, 0.01, optimizer=optimizer, **ways)
        torch.manual_seed(0)
        network = build(config).to(place.device)
        prepare(network, recipe)
        moving = make_optimizer(network, recipe)
        set_rate(moving, recipe.learning_rate)
        step = TrainingStep(network.train(), moving, Classify(pictures, recipe, config.preprocess), recipe)
        start = _weights(network)
        for batch in epoch_batches(pictures, recipe, config.preprocess, torch.Generator(place.device), side):
            step(*batch)
        ends[capture] = _weights(network)
        if place.is_gpu and capture == "auto" and not any(step.graphs.values()):
            raise AssertionError("the step was not captured; the log says why")
    moved = (ends["off"] - start).norm()
    off = float((ends["auto"] - ends["off"]).norm() / moved)
    return Found(off, 0.05, "a CPU captures nothing")


def average_pool(place: Place) -> Found:
    """The pool as a convolution, which bfloat16 maps take on a GPU, against float32's own, forward and backward."""
    x = torch.randn(4, 32, 16, 16, generator=torch.Generator().manual_seed(0))
    results = []
    for dtype in (torch.bfloat16, torch.float32):
        leaf = x.to(place.device, dtype, memory_format=torch.channels_last).requires_grad_()
        y = SamePool2d("avg", 3, 1)(leaf)
        y.backward(y.detach())
        results.append(torch.cat([y.detach().float().flatten(), leaf.grad.float().flatten()]))
    return Found(float((results[0] - results[1]).norm() / results[1].norm()), 0.02)


def _weights(network: torch.nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten().float().cpu() for parameter in network.parameters()])


def _child_config(genotype: Genotype, filters: int, side: int, cells: int = 2) -> NetworkConfig:
    """The paper's child, with another width, depth and size of pictures."""
    settings = replace(preset("nasnet").child, filters=filters, side=side, cells=cells)
    return CifarChild(settings, "cell").config(genotype)


class Shape(NamedTuple):
    """One separable convolution of a child, for a batch."""

    images: int
    channels: int
    side: int
    out_channels: int
    kernel: int
    stride: int
    dilation: int

    def __str__(self) -> str:
        return (
            f"{self.kernel}x{self.kernel}, stride {self.stride}, {self.channels} to {self.out_channels}, {self.side} px"
        )


@cache
def kernel_shapes(filters: int, side: int, images: int) -> tuple[Shape, ...]:
    """Every shape of a separable convolution that a child of the paper's search can have."""
    from nasnet_zoo.training import separable

    kinds = [f"sep_conv_{kernel}x{kernel}" for kernel in (3, 5, 7)]
    blocks = [Block(Edge(0, op), Edge(1, op)) for op in kinds] + [Block(Edge(2, op), Edge(2, op)) for op in kinds]
    cell = Cell(tuple(blocks), tuple(range(2, 2 + len(blocks))))
    network = build(_child_config(Genotype(cell, cell), filters, side, cells=1)).train()
    found = set()

    def note(x, depthwise, pointwise, norm) -> bool:
        (kernel, _), (stride, _), (dilation, _) = depthwise.kernel_size, depthwise.stride, depthwise.dilation
        found.add(Shape(images, x.shape[1], x.shape[2], pointwise.out_channels, kernel, stride, dilation))
        return False

    for module in network.modules():
        if isinstance(module, Chain):
            module.separable = partial(separable._run, wanted=note)
    network(torch.zeros(2, 3, side, side))
    return tuple(sorted(found))


def fused_kernels(shape: Shape, dtype: torch.dtype, place: Place) -> Found:
    """Output, gradients and running statistics of one fused separable convolution against torch's layers."""
    from nasnet_zoo.arch.ops import separable
    from nasnet_zoo.training.separable import run_fused

    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    torch.manual_seed(0)
    layers = separable(shape.kernel, shape.channels, shape.out_channels, shape.stride, 1, shape.dilation)
    chain = Chain(layers, 1e-3).to(place.device).to(memory_format=torch.channels_last).train()
    for parameter in chain.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(shape.images, shape.channels, shape.side, shape.side, device=place.device)
    x = x.to(dtype).contiguous(memory_format=torch.channels_last)
    state, results = {key: value.clone() for key, value in chain.state_dict().items()}, []
    for chain.separable in (run_fused, None):
        chain.load_state_dict(state)
        chain.zero_grad()
        leaf = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
        with torch.autocast(place.device, dtype, enabled=dtype != torch.float32):
            y = chain(State(leaf))
        slope = torch.sin(torch.arange(y.numel(), device=place.device, dtype=torch.float32)).view_as(y)
        y.backward(slope.to(y.dtype))
        statistics = [value for key, value in chain.state_dict().items() if "running" in key]
        values = [y, leaf.grad, *(parameter.grad for parameter in chain.parameters()), *statistics]
        results.append([value.detach().float().clone() for value in values])
    off = max(float((a - b).norm() / b.norm()) for a, b in zip(*results, strict=True))
    return Found(off, KERNEL_LIMITS[dtype])


# Exported graphs


def provider(place: Place, precision: str) -> Found:
    """A graph's logits by the provider against the CPU's of the float32 graph."""
    from inference import logits_of

    x = _pictures()
    expected = logits_of(_graph("fp32"), x, "cpu")
    graph = _graph(precision)
    off = relative(logits_of(graph, x, place.provider, precision).astype(np.float32), expected)
    return Found(off, PRECISIONS.row(precision).limit("cuda"), "both are the CPU" if precision == "fp32" else "")


def bound(place: Place, captured: bool) -> Found:
    """Two batches through memory that is bound once, as captured runs are too, against plain runs of both."""
    graph, batches = _graph("fp32"), [_pictures(), _pictures()[::-1].copy()]
    plain = _session(graph, place, False)
    expected = [plain.run(["logits"], {"image": x})[0] for x in batches]
    session = _session(graph, place, captured)
    binding = session.io_binding()
    taken = onnxruntime.OrtValue.ortvalue_from_numpy(batches[0].copy(), place.device, 0)
    given = onnxruntime.OrtValue.ortvalue_from_shape_and_type(expected[0].shape, np.float32, place.device, 0)
    binding.bind_ortvalue_input("image", taken)
    binding.bind_ortvalue_output("logits", given)
    off = 0.0
    for index in (0, 0, 1, 0, 1):  # the first runs settle and capture; then batches alternate
        taken.update_inplace(batches[index])
        binding.synchronize_inputs()
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        off = max(off, relative(given.numpy(), expected[index]))
    return Found(off, PRECISIONS.row("fp32").limit("cuda"), "a CPU captures nothing" if captured else "")


def pixels(place: Place) -> Found:
    """A graph that takes bytes, by the package's own Session, against the CPU."""
    with tempfile.TemporaryDirectory() as folder:
        to_onnx(nasnet_zoo.load("nasnet-a-cifar-small"), folder, pixels=True)
        x = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
        session = Session(folder, [place.provider])
        assert session.provider == place.provider, "another provider went on in its place"
        off = max(relative(session.run(x[order]), Session(folder, ["cpu"]).run(x[order])) for order in ([0, 1], [3, 2]))
    return Found(off, PRECISIONS.row("fp32").limit("cuda"), "both are the CPU")


def _session(graph: Path, place: Place, captured: bool) -> onnxruntime.InferenceSession:
    options, long = onnxruntime.SessionOptions(), LONG[place.provider]
    options.log_severity_level = 3
    chosen = [(long, provider_options(long, graph, "fp32", captured))]
    session = onnxruntime.InferenceSession(graph, options, providers=chosen, enable_fallback=0)
    assert session.get_providers()[0] == long, f"onnxruntime could not start {long}"
    return session


def _pictures() -> np.ndarray:
    from inference import pictures

    return pictures(nasnet_zoo.info(GRAPH).config.preprocess.size)


@cache
def _folder() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix="smoke-")  # gone with the process


@cache
def _graph(precision: str) -> Path:
    """The file of a graph that takes and gives float32 whatever it computes with."""
    from inference import ruled

    network, folder = ruled(nasnet_zoo.create(GRAPH)), Path(_folder().name) / f"{GRAPH}-{precision}"
    folder.mkdir()
    write_graph(network, folder, precision, network.config.preprocess.size, name=GRAPH, license="", source="")
    return folder / "model.onnx"


# What starts soonest first: a graph's first run takes long on a GPU, in float16 the longest.
CHECKS: dict[str, Callable[[Place], Found]] = {
    "captured step, float32": partial(captured_step, precision="float32", separable="torch"),
    "captured step, bfloat16": partial(captured_step, precision="bfloat16", separable="torch"),
    "captured step, RMSProp": partial(captured_step, precision="float32", separable="torch", optimizer="rmsprop"),
    "captured step, AdamW": partial(captured_step, precision="float32", separable="torch", optimizer="adamw"),
    "average pool": average_pool,
    "CUDA provider, float32": partial(provider, precision="fp32"),
    "IO binding": partial(bound, captured=False),
    "captured run": partial(bound, captured=True),
    "uint8 pixels": pixels,
    "CUDA provider, float16": partial(provider, precision="fp16"),
    "captured step, bfloat16 and fused kernels": partial(captured_step, precision="bfloat16", separable="fused"),
}


def kernel_checks(place: Place) -> dict[str, Callable[[Place], Found]]:
    """A check per shape and dtype. On a CPU Triton's interpreter runs the kernels, so there they are small and few."""
    shapes = kernel_shapes(32, 32, 32) if place.is_gpu else kernel_shapes(4, 8, 2)
    dtypes = (torch.float32, torch.bfloat16) if place.is_gpu else (torch.float32,)
    if not place.is_gpu:
        shapes = tuple(random.Random(0).sample(shapes, 2))
    return {
        f"fused kernels, {str(dtype).removeprefix('torch.')}: {shape}": partial(fused_kernels, shape, dtype)
        for shape in shapes
        for dtype in dtypes
    }


# The run

LATE = {"result": "SKIP", "reason": "no time was left"}


def outcome(check: Callable[[Place], Found], place: Place) -> dict[str, Any]:
    """A row: whatever a check raises is its own failure."""
    start = time.monotonic()
    try:
        found = check(place)
    except Exception as error:
        return {"result": "FAIL", "reason": f"{type(error).__name__}: {error}", "seconds": time.monotonic() - start}
    right = found.difference <= found.limit  # a NaN is not
    reason = found.void_on_cpu if right and not place.is_gpu else ""
    result = "SKIP" if reason else "PASS" if right else "FAIL"
    row = {"result": result, "difference": found.difference, "limit": found.limit}
    return row | ({"reason": reason} if reason else {}) | {"seconds": time.monotonic() - start}


def rows(place: Place, clock: Clock) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every check's row. The kernels of all shapes come last: several processes compile them, and the other checks
    would have to wait for these."""
    for name, check in CHECKS.items():
        yield name, outcome(check, place) if clock.left > 0 else dict(LATE)
    workers = max(1, min(WORKERS, (os.cpu_count() or 1) // 2))
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        try:
            kernels = {name: pool.submit(outcome, check, place) for name, check in kernel_checks(place).items()}
        except Exception as error:
            yield "fused kernels", {"result": "FAIL", "reason": f"{type(error).__name__}: {error}"}
            kernels = {}
        for name, future in kernels.items():
            try:
                yield name, future.result(min(max(clock.left, 0), threading.TIMEOUT_MAX))
            except TimeoutError:
                yield name, dict(LATE)
            except Exception as error:  # its process died
                yield name, {"result": "FAIL", "reason": f"{type(error).__name__}: {error}"}
        if clock.left < 0:
            for process in list(pool._processes.values()):
                process.kill()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    arguments = parser.parse_args()
    clock, place = Clock(arguments.minutes), CPU if arguments.rehearse else GPU
    if place.is_gpu:
        preload(onnxruntime)
    else:
        os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is imported, by the processes of the kernels too
    print(machine(), flush=True)
    kept: dict[str, Any] = {}
    for name, row in rows(place, clock):
        kept[name] = row
        write("smoke", {"checks": kept}, arguments.rehearse)
        measured = f"{row['difference']:.1e} of at most {row['limit']:g}" if "difference" in row else ""
        said = ", ".join(filter(None, [measured, row.get("reason", "")]))
        print(f"{row['result']} {name}: {said}, {row.get('seconds', 0):.1f} s", flush=True)
    failed = [name for name, row in kept.items() if row["result"] == "FAIL"]
    late = [name for name, row in kept.items() if row == LATE]
    print(f"{len(kept)} checks, {len(failed)} failed, {len(late)} not made for want of time")
    sys.exit(1 if failed else INCOMPLETE if late else 0)


if __name__ == "__main__":
    main()
