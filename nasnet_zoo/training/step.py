"""One step of a training, and its capture as a CUDA graph."""

import logging
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..errors import ConfigError, first_line
from ..networks.network import Network
from .distributed import average_, world
from .recipe import Recipe
from .tasks.base import Task

WARMUP_STEPS = 3  # torch's own figure: allocators and autotuners settle, momenta come to be
TOLERANCE = 0.05  # of a step's update, and of the loss: how far a captured step may be from the plain one

log = logging.getLogger("nasnet_zoo")

Shapes = tuple[torch.Size, ...]


class Captured(Protocol):
    """A step that is captured for batches of one shape."""

    def __call__(self, *batch: Tensor) -> Tensor: ...


class TrainingStep:
    """Called with a batch, does one step and returns the detached loss without waiting for it.

    On a GPU the first steps at a batch's shape run as they are; then one is captured, and the rest are replays: a cell
    is hundreds of tiny kernels, and a replay launches them all at once. What changes from step to step, learning
    rate and drop path's progress, lies in tensors that the captured kernels read. A capture's first step is compared
    with the plain one; where they differ, or it fails, every step runs as it is. Recipe's `capture` switches it off.
    """

    def __init__(self, network: Network, optimizer: torch.optim.Optimizer, task: Task, recipe: Recipe) -> None:
        self.network, self.optimizer, self.recipe = network, optimizer, recipe
        self.seen: dict[Shapes, int] = {}
        self.graphs: dict[Shapes, Captured | None] = {}
        self.norms = [norm for norm in network.modules() if isinstance(norm, _BatchNorm) and norm.training]
        self.statistics = [buffer for norm in self.norms for buffer in (norm.running_mean, norm.running_var)]
        self.loss: nn.Module = _Loss(network, task)
        if recipe.compile:
            torch.compiler.reset()  # it would leave the ninth network that one process trains as it is
            self.loss = torch.compile(self.loss, dynamic=False)  # a graph for each of the recipe's sizes
        if world() > 1:
            self.loss = _shared(self.loss)

    def __call__(self, *batch: Tensor) -> Tensor:
        if self.recipe.channels_last:
            batch = tuple(_channels_last(tensor) for tensor in batch)
        device = batch[0].device
        # Never tried: a capture over several processes, or of what torch.compile has made.
        if device.type != "cuda" or self.recipe.capture == "off" or self.recipe.compile or world() > 1:
            return self.compiled(*batch) if self.recipe.compile else self.eager(*batch)
        with torch.cuda.device(device):  # streams, captures and Triton go to the current one
            return self.captured(*batch)

    def compiled(self, *batch: Tensor) -> Tensor:
        """The step as torch.compile has made it; raises ConfigError where it cannot."""
        from torch._dynamo.exc import TorchDynamoException

        try:
            return self.eager(*batch)
        except TorchDynamoException as error:
            raise ConfigError(
                f"torch.compile cannot make this network's step ({first_line(error)}): train it with compile=false"
            ) from error

    def captured(self, *batch: Tensor) -> Tensor:
        """A replay where there is a graph for the batch's shape; on the way there, plain steps."""
        shapes = tuple(tensor.shape for tensor in batch)
        self.seen[shapes] = self.seen.get(shapes, 0) + 1
        if self.seen[shapes] <= WARMUP_STEPS:
            return _aside(self.eager, *batch)
        if shapes not in self.graphs:
            self.graphs[shapes], loss = checked_capture(self, _Graph, *batch)
            return loss
        graph = self.graphs[shapes]
        return self.eager(*batch) if graph is None else graph(*batch)

    def eager(self, *batch: Tensor) -> Tensor:
        """The step, kernel by kernel, part by part."""
        device, parts = batch[0].device.type, self.recipe.accumulate
        half = self.recipe.precision == "bfloat16" or (self.recipe.precision == "auto" and _has_bfloat16(device))
        self.optimizer.zero_grad(set_to_none=True)
        losses = []
        for part, pieces in enumerate(zip(*(t.chunk(parts) if t.dim() else [t] * parts for t in batch))):
            self._momentum(part)
            last = part == parts - 1
            with nullcontext() if last or world() == 1 else self.loss.no_sync():
                with torch.autocast(device, torch.bfloat16, enabled=half):
                    loss = self.loss(*pieces)
                (loss if parts == 1 else loss / parts).backward()
            losses.append(loss.detach())
        if parts > 1:
            for norm in self.norms:
                norm.momentum = self.recipe.bn_momentum
        average_(self.statistics)
        if self.recipe.clip_norm:
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.recipe.clip_norm)
        self.optimizer.step()
        loss = losses[0] if parts == 1 else torch.stack(losses).mean()
        average_([loss])
        return loss

    def _momentum(self, part: int) -> None:
        """Sets batch norms so that after all parts their statistics have moved as far as in one step with the parts'
        mean, which is also what the processes' mean of them comes to."""
        if (parts := self.recipe.accumulate) > 1:
            share = self.recipe.bn_momentum / parts
            for norm in self.norms:
                norm.momentum = share / (1 - share * (parts - 1 - part))


def _has_bfloat16(device: str) -> bool:
    """Whether it computes in bfloat16 itself; GPUs before Ampere do so in float32, and slowly."""
    return device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


class _Loss(nn.Module):
    """A task's loss as a module, which torch.compile and DistributedDataParallel can wrap, whatever the task does with
    the network."""

    def __init__(self, network: Network, task: Task) -> None:
        super().__init__()
        self.network, self.task = network, task

    def forward(self, *batch: Tensor) -> Tensor:
        return self.task.loss(self.network, *batch)


def _shared(loss: nn.Module) -> Any:
    """The loss whose gradients are the mean over all processes. Statistics are averaged by the step: torch would take
    the first process's."""
    device = next(loss.parameters()).device
    devices = [device] if device.type == "cuda" else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch 2.14 renames the option, 2.11 knows no other name
        return nn.parallel.DistributedDataParallel(loss, devices, broadcast_buffers=False, gradient_as_bucket_view=True)


class _Graph:
    """A captured step and the memory that it reads its batch from."""

    def __init__(self, step: TrainingStep, *batch: Tensor) -> None:
        self.batch = tuple(torch.empty_like(tensor) for tensor in batch)
        self.graph = torch.cuda.CUDAGraph()
        step.optimizer.zero_grad(set_to_none=True)  # gradients are to live in the graph's own memory
        with torch.cuda.graph(self.graph):
            self.loss = step.eager(*self.batch)

    def __call__(self, *batch: Tensor) -> Tensor:
        for own, given in zip(self.batch, batch):
            own.copy_(given)
        self.graph.replay()
        return self.loss


def checked_capture(
    step: TrainingStep, capture: Callable[..., Captured], *batch: Tensor
) -> tuple[Captured | None, Tensor]:
    """(a captured step, or None where it cannot be trusted; the loss of this batch's step, which is the plain one).

    Captured and plain, the step is done from the same weights with the same random numbers; which way it went is said
    in one line of the log.
    """
    device, what = batch[0].device, "x".join(map(str, batch[0].shape))
    moved = {"weights": [*step.network.parameters()], "statistics": [*step.network.buffers()]}
    for state in step.optimizer.state.values():
        for name, value in state.items():
            if isinstance(value, Tensor):
                moved.setdefault(f"optimizer's {name}", []).append(value)
    before = _copied(moved)
    random = torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()

    def restore() -> None:
        with torch.no_grad():
            for name, tensors in moved.items():
                for tensor, value in zip(tensors, before[name]):
                    tensor.copy_(value)
        torch.cuda.set_rng_state(random, device) if device.type == "cuda" else torch.set_rng_state(random)

    problem, graph, replayed, loss = "", None, None, None
    try:
        graph = capture(step, *batch)
        restore()
        loss = graph(*batch).clone()
        replayed = _copied(moved)
    except Exception as error:  # whatever torch or a driver says of a capture
        problem = f"it fails ({first_line(error)})"
    restore()
    plain = _aside(step.eager, *batch) if device.type == "cuda" else step.eager(*batch)
    if replayed is not None and loss is not None:
        # Each kind by itself: statistics move so much further than weights that they would hide any error of these.
        off = {
            name: _distance(replayed[name], now) / max(_distance(before[name], now), 1e-30)
            for name, now in moved.items()
        }
        off["loss"] = abs(float(loss) - float(plain)) / max(abs(float(plain)), 1e-30)
        wrong = [f"{name} by {value:.2g}" for name, value in off.items() if not value <= TOLERANCE]  # by NaN as well
        problem = f"it is off in {', '.join(wrong)} of a step" if wrong else ""
    if problem:
        log.warning("steps on batches of %s run as they are, for captured %s", what, problem)
        return None, plain
    log.info("steps on batches of %s are captured", what)
    return graph, plain


def _copied(tensors: dict[str, list[Tensor]]) -> dict[str, list[Tensor]]:
    return {name: [tensor.detach().clone() for tensor in each] for name, each in tensors.items()}


@torch.no_grad()
def _distance(one: list[Tensor], other: list[Tensor]) -> float:
    squares = [(a - b).float().square().sum() for a, b in zip(one, other) if a.is_floating_point()]
    return float(sum(squares)) ** 0.5


def _channels_last(tensor: Tensor) -> Tensor:
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor


def _aside(function: Callable[..., Tensor], *arguments: Tensor) -> Tensor:
    """Runs a function on a stream of its own, as what is captured later must have been."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        result = function(*arguments)
    torch.cuda.current_stream().wait_stream(stream)
    return result
