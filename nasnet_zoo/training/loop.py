"""The one training loop: the order of things, and nothing else. What is learned is a task's, how a recipe's."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch
from torch import Tensor

from ..errors import CheckpointError, ConfigError, TrainingError
from ..networks.network import Network
from ..util.arguments import checked
from ..util.interrupts import deferred_interrupts
from .distributed import anywhere, rank, same_everywhere, step_seed, world
from .optim import make_optimizer, schedule, set_rate
from .prepare import Phases, prepare
from .recipe import Recipe
from .state import Epoch, TrainingState, elsewhere
from .step import TrainingStep
from .tasks.base import Batch, Task

LOOK_STEPS = 100  # between two looks at the loss, each of which waits for the device
LOOK_SECONDS = 5.0  # or, where steps are slow, so long


@checked
def train(
    network: Network,
    task: Task,
    recipe: Recipe,
    *,
    seed: int = 0,
    folder: str | Path | None = None,
    measure: bool = False,
    keep_seconds: float | None = None,
    on_step: Callable[[int, int, int], None] | None = None,
    on_loss: Callable[[float], None] | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
    before_keep: Callable[[Epoch], None] | None = None,
) -> list[Epoch]:
    """Trains a network in place, on its device, and leaves it in eval mode, however it ends.

    Batch norms that are in eval mode while the network is in training mode, or `frozen`, and parameters that need no
    gradient, stay as they are. With a `folder` the state is kept there after every epoch, every few minutes, and when
    Ctrl-C or SIGTERM stops the training, which ends with the step that it is at. A call with the same network, recipe
    and seed goes on from there and draws the same random numbers as one that was never stopped; a recipe with more
    epochs goes on for longer. In each of several processes (training.distributed) the same call trains one network
    together with the others.

    Args:
        network: what is trained. With the recipe's `ema_decay` it has the average of its weights afterwards.
        task: batches, loss and measure; see training.tasks.
        recipe: how it is trained.
        seed: of every random number from here on; the first weights are the caller's.
        folder: where the state is kept, or None.
        measure: whether the task's `evaluate` is asked after every epoch.
        keep_seconds: how long at most the state in the folder lies behind; 5 minutes if None.
        on_step: called with (epoch, steps done in it, steps of an epoch).
        on_loss: called now and then with the mean loss of the epoch so far.
        on_epoch: called with what each epoch came to, while the network is in training mode.
        before_keep: likewise, before the state says that the epoch is done: what it writes is there whenever that is.

    Returns:
        What each epoch came to, those of earlier calls included.

    Raises:
        TrainingError: where the loss is no number any more; the folder holds the last good state.
        CheckpointError: if the folder holds another training, or a damaged one.
        ConfigError: for a recipe that the network or the processes cannot follow.
    """
    parts = world() * recipe.accumulate
    if recipe.batch_size % parts or recipe.batch_size < 2 * parts:  # batch norm has nothing to do with one picture
        raise ConfigError(
            f"batch_size {recipe.batch_size} cannot be shared equally by {world()} processes in {recipe.accumulate} "
            f"parts of at least 2: give one that is a multiple of {parts}, from {2 * parts} on"
        )
    phases = Phases(network, recipe)
    prepare(network, recipe)
    optimizer = make_optimizer(network, recipe)
    state = TrainingState(network, optimizer, recipe, seed, folder, keep_seconds)
    state.resume(task.steps)
    if not same_everywhere(state.done):
        raise CheckpointError(
            f"the processes found different states in {folder}: wait until all machines see the same files there, and "
            f"start them again"
        )
    average = state.average
    device = next(network.parameters()).device
    step = phase = None
    with phases, _closed(task), _good_weights(state), deferred_interrupts(folder is not None) as interrupted:
        for epoch in range(len(state.history), recipe.epochs):
            if phase != (phase := phases.begin(epoch)):
                step = TrainingStep(network, optimizer, task, recipe)
            # Each epoch has its own seed, so that a resumed training draws what an uninterrupted one would have.
            torch.manual_seed((seed * 100_003 + epoch) % 2**63)
            generator = torch.Generator(device=device).manual_seed((seed * 100_003 + epoch + 1) % 2**63)
            total, start = state.begin(epoch)
            began, look, pictures = time.monotonic(), _Look(start), 0
            for index, batch in _from(start, task.batches(epoch, generator)):
                if index == start:
                    state.restore_random()
                if world() > 1:
                    torch.manual_seed(step_seed(seed, epoch, index, rank()))
                done = epoch + index / task.steps
                set_rate(optimizer, schedule(recipe, done))
                network.progress.fill_(done / recipe.epochs)
                loss = step(*batch)
                total += loss
                if average is not None:
                    average.update(epoch * task.steps + index + 1)
                pictures += len(batch[0]) * world()
                if on_step is not None:
                    on_step(epoch, index + 1, task.steps)
                look.seen(index, loss)
                stop, due, looks = anywhere([interrupted(), state.due, look.due])
                last = index + 1 == task.steps
                if looks or due or stop or last:
                    look.check(total, epoch, folder)
                    if on_loss is not None:
                        on_loss(float(total) / (index + 1))
                if (due or stop) and not last:
                    state.keep(index + 1, total)
                if stop and not last:
                    raise KeyboardInterrupt
            seconds, rate = time.monotonic() - began, schedule(recipe, epoch + 1 - 1 / task.steps)
            with average.applied() if average is not None else nullcontext():
                metrics = {name: float(value) for name, value in task.evaluate(network).items()} if measure else {}
                mean = float(total) / task.steps
                ended = Epoch(epoch + 1, recipe.epochs, mean, metrics, rate, seconds, pictures)
                if before_keep is not None:
                    before_keep(ended)
            state.history.append(ended)
            state.keep(0, torch.zeros_like(total))
            if on_epoch is not None:
                with average.applied() if average is not None else nullcontext():
                    on_epoch(ended)
            if any(anywhere([interrupted()])):
                raise KeyboardInterrupt
    return state.history


class _Look:
    """When to look at the loss, and in which step it went wrong."""

    def __init__(self, start: int) -> None:
        self.last, self.time, self.losses = start - 1, time.monotonic(), []

    def seen(self, index: int, loss: Tensor) -> None:
        self.index = index
        self.losses.append(loss.clone())

    @property
    def due(self) -> bool:
        return len(self.losses) >= LOOK_STEPS or time.monotonic() - self.time > LOOK_SECONDS

    def check(self, total: Tensor, epoch: int, folder: str | Path | None) -> None:
        """Raises TrainingError if the sum of an epoch's losses is no number any more."""
        if not math.isfinite(float(total)):
            losses = torch.stack(self.losses).tolist()
            wrong = next((place for place, loss in enumerate(losses) if not math.isfinite(loss)), len(losses) - 1)
            raise TrainingError(
                f"the loss is {losses[wrong]:g} in step {self.last + 2 + wrong} of epoch {epoch + 1}: try a lower "
                f"learning rate or another seed{elsewhere(folder)}"
            )
        self.last, self.time, self.losses = self.index, time.monotonic(), []


def _from(start: int, batches: Iterator[Batch]) -> Iterator[tuple[int, Batch]]:
    """An epoch's batches from a step on, with their numbers. Those before were done by an earlier call: a task that can
    skips them; of others they are drawn, which moves the generator as it did then."""
    if start and hasattr(batches, "skip"):
        batches.skip(start)
        yield from enumerate(batches, start)
        return
    for index, batch in enumerate(batches):
        if index >= start:
            yield index, batch


@contextmanager
def _closed(task: Task) -> Iterator[None]:
    """However the training ends, a task that has processes of its own ends them."""
    try:
        yield
    finally:
        if hasattr(task, "close"):
            task.close()


@contextmanager
def _good_weights(state: TrainingState) -> Iterator[None]:
    """However the training ends, its network has the average of its weights if there is one, and if they are no numbers
    any more the last good ones that were kept."""
    try:
        yield
    except TrainingError:
        state.restore_weights()
        raise
    finally:
        if state.average is not None:
            state.average.swap()
