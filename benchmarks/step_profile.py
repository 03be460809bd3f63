"""Where a training step's time on a GPU goes: its kernels, its operations by shape, and single layers by memory layout.

    python benchmarks/step_profile.py [--filters 32 --cells 2 --batch 512]      results/step_profile_gpu.txt

Times are those that the kernels take on the device, without the time between them; the single layers' are of one pass
forward and one backward. The last table has each shape of separable convolution by torch and by the fused kernels, as
replays of a captured graph.
"""

import argparse
import random
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from common import Clock, add_options, machine, results
from smoke import Shape, kernel_shapes
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from training_speed import OneBatch

import nasnet_zoo
from nasnet_zoo.arch.ops import separable
from nasnet_zoo.networks.layers import Chain, State, averaged
from nasnet_zoo.training.optim import make_optimizer, set_rate
from nasnet_zoo.training.prepare import prepare
from nasnet_zoo.training.recipe import Recipe
from nasnet_zoo.training.step import TrainingStep
from nasnet_zoo.training.tasks.classify import Classify
from nasnet_zoo.util.files import atomic_file

ROWS = 25
RUNS = 3


def device_events(run: Callable[[], Any], shapes: bool = False) -> Any:
    """The profile of RUNS runs after two others."""
    for _ in range(2):
        run()
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
    with profile(activities=activities, record_shapes=shapes) as found:
        for _ in range(RUNS):
            run()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
    return found


def milliseconds(event: Any) -> float:
    """An event's own time in one run: the device's, or where there is none the CPU's."""
    return (event.self_device_time_total if torch.cuda.is_available() else event.self_cpu_time_total) / 1e3 / RUNS


def kernels_of(found: Any) -> list[Any]:
    """The events of the device, whose time the operations above them have too; where there is none, all."""
    events = found.key_averages()
    if torch.cuda.is_available():
        return [e for e in events if e.device_type == DeviceType.CUDA and not getattr(e, "is_user_annotation", False)]
    return list(events)


def whole_step(filters: int, cells: int, count: int, device: str) -> list[str]:
    torch.manual_seed(0)
    batch = torch.randn(count, 3, 32, 32, device=device), torch.randint(10, (count,), device=device)
    scale = dict(filters=filters, stages=(cells,) * 3, stem_channels=3 * filters)
    network = nasnet_zoo.create("nasnet-a-cifar", **scale).to(device)
    recipe = Recipe(1, count, 0.01, capture="off", precision="auto")
    prepare(network, recipe)
    optimizer = make_optimizer(network, recipe)
    set_rate(optimizer, recipe.learning_rate)
    task: Classify = OneBatch(batch, recipe, 1)
    step = TrainingStep(network.train(), optimizer, task, recipe)
    found = device_events(lambda: step(*batch), shapes=True)
    kernels = kernels_of(found)
    total, number = sum(map(milliseconds, kernels)), sum(event.count for event in kernels) // RUNS
    lines = [f"NASNet-A, {filters} filters, {cells} cells a stage, {count} pictures: {total:.1f} ms, {number} events"]
    by_shape = found.key_averages(group_by_input_shape=True)
    for events in (kernels, [event for event in by_shape if event.key.startswith("aten::")]):
        for event in sorted(events, key=milliseconds, reverse=True)[:ROWS]:
            shape = str(event.input_shapes)[:80] if event.input_shapes else ""
            lines.append(f"  {milliseconds(event):8.3f} ms {event.count // RUNS:5d} x {event.key[:100]} {shape}")
    return lines


def sorts_of_layer(channels: int, device: str) -> dict[str, Callable[[torch.Tensor], torch.Tensor]]:
    three, five = (torch.randn(channels, 1, k, k, device=device).bfloat16().requires_grad_() for k in (3, 5))
    point = torch.randn(channels, channels, 1, 1, device=device).bfloat16().requires_grad_()
    mean, var, weight, bias = (torch.ones(channels, device=device) for _ in range(4))
    norm = mean, var, weight.requires_grad_(), bias.requires_grad_()
    return {
        "depthwise 3x3": lambda x: F.conv2d(x, three, padding=1, groups=channels),
        "depthwise 5x5": lambda x: F.conv2d(x, five, padding=2, groups=channels),
        "pointwise": lambda x: F.conv2d(x, point),
        "average pool": lambda x: F.avg_pool2d(x, 3, 1, 1, count_include_pad=False),
        "average pool as a convolution": lambda x: averaged(x, 3, 1, (1, 1)),
        "max pool": lambda x: F.max_pool2d(x, 3, 1, 1),
        "batch norm": lambda x: F.batch_norm(x, *norm, True, 0.1, 1e-5),
        "ReLU": F.relu,
        "sum": lambda x: x + x,
    }


def layers(count: int, channels: int, side: int, device: str) -> list[str]:
    """One layer of each sort, on maps of one shape, in each layout."""
    lines = []
    for layout in (torch.channels_last, torch.contiguous_format):
        x = torch.randn(count, channels, side, side, device=device).bfloat16().contiguous(memory_format=layout)
        for name, layer in sorts_of_layer(channels, device).items():
            microseconds = 1e3 * sum(map(milliseconds, kernels_of(device_events(partial(there_and_back, layer, x)))))
            kind = str(layout).removeprefix("torch.")
            lines.append(f"  {microseconds:8.0f} us {name}, {count} x {channels} x {side} x {side}, bfloat16, {kind}")
    return lines


def there_and_back(layer: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> None:
    y = layer(x.detach().requires_grad_())
    y.backward(y.detach())


def norms_backward(count: int, channels: int, side: int, device: str) -> list[str]:
    """Batch norm's backward pass, in float32 and bfloat16, over a gradient of its own and over a view into that of a
    concatenation of six maps."""
    lines = []
    for dtype in (torch.float32, torch.bfloat16):
        norm = torch.nn.BatchNorm2d(channels).to(device)
        x, whole = (torch.randn(count, wide * channels, side, side, device=device).to(dtype) for wide in (1, 6))
        x, whole = (each.contiguous(memory_format=torch.channels_last) for each in (x, whole))
        y = norm(x.requires_grad_())
        view = whole[:, channels : 2 * channels]
        for name, gradient in (("its own", view.clone()), ("a view", view)):
            run = partial(torch.autograd.grad, y, x, gradient, retain_graph=True)
            microseconds = 1e3 * sum(map(milliseconds, kernels_of(device_events(run))))
            kind = str(dtype).removeprefix("torch.")
            shape = f"{count} x {channels} x {side} x {side}, {kind}"
            lines.append(f"  {microseconds:8.0f} us batch norm backward, the gradient {name}, {shape}")
    return lines


def separable_convolution(shape: Shape, device: str) -> str:
    """By torch and by the fused kernels, forward and backward."""
    from nasnet_zoo.training.separable import run_fused

    made = separable(shape.kernel, shape.channels, shape.out_channels, shape.stride, 1, shape.dilation)
    chain = Chain(made, 1e-3).to(device, memory_format=torch.channels_last)
    x = torch.randn(shape.images, shape.channels, shape.side, shape.side, device=device).bfloat16()
    x = x.to(memory_format=torch.channels_last)

    def run() -> None:
        leaf = x.detach().requires_grad_()
        with torch.autocast(device, torch.bfloat16):
            y = chain(State(leaf))
        y.backward(y.detach())

    took = []
    for chain.separable in (None, run_fused):
        took.append(replayed(run) if device == "cuda" else 0.0)
    return f"  torch {took[0]:.3f} ms, fused {took[1]:.3f} ms: {shape}"


def replayed(run: Callable[[], None]) -> float:
    """Milliseconds of a run as trainings do it: captured as a CUDA graph."""
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    times = []
    for _ in range(10):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--filters", type=int, default=32)
    parser.add_argument("--cells", type=int, default=2)
    parser.add_argument("--batch", type=int, default=512)
    add_options(parser)
    arguments = parser.parse_args()
    clock, device = Clock(arguments.minutes), "cuda" if torch.cuda.is_available() else "cpu"
    filters, cells, count = arguments.filters, arguments.cells, arguments.batch
    if arguments.rehearse:
        filters, cells, count = 4, 1, 2
    shapes = list(kernel_shapes(filters, 32, count)) if device == "cuda" else []
    random.Random(0).shuffle(shapes)
    parts: list[Callable[[], list[str]]] = [
        lambda: whole_step(filters, cells, count, device),
        lambda: layers(count, filters, 32, device),
        lambda: layers(count, 4 * filters, 8, device),
        lambda: norms_backward(count, filters, 32, device) + norms_backward(count, 4 * filters, 8, device),
        *(lambda shape=shape: [separable_convolution(shape, device)] for shape in shapes),
    ]
    said = [machine()]
    for part in parts:
        if clock.over("the rest"):
            break
        lines = part()
        print("\n".join(lines), flush=True)
        said += lines
        with atomic_file(results(arguments.rehearse) / f"step_profile{'_gpu' * (device == 'cuda')}.txt") as temporary:
            temporary.write_text("\n".join(said) + "\n", encoding="utf-8")
    clock.finish()


if __name__ == "__main__":
    main()
