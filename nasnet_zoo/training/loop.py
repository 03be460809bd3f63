"""The one training loop: the order of things, and nothing else. What is learned is a task's, how a recipe's."""

import logging
import math
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from ..errors import TrainingError
from ..networks.layers import Chain
from ..networks.network import Network
from ..util.arguments import checked
from ..util.interrupts import deferred_interrupts
from .optim import make_optimizer, schedule
from .recipe import Recipe
from .state import Epoch, TrainingState
from .step import TrainingStep
from .tasks.base import Task

CHECK_STEPS = 100  # between two looks at the loss, each of which waits for the device

log = logging.getLogger("nasnet_zoo")


@checked
def train(
    network: Network,
    task: Task,
    recipe: Recipe,
    *,
    seed: int = 0,
    folder: str | Path | None = None,
    on_step: Callable[[int, int, int], None] | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> list[Epoch]:
    """Trains a network in place, on its device, and leaves it in eval mode.

    Batch norms that are in eval mode while the network is in training mode, or `frozen`, stay as they are. With a
    `folder` the state is kept there after every epoch, every few minutes, and when Ctrl-C or SIGTERM stops the
    training, which ends with the step that it is at. A call with the same network, recipe and seed goes on from there
    and draws the same random numbers as one that was never stopped; a recipe with more epochs goes on for longer.

    Args:
        network: what is trained.
        task: batches, loss and measure; see training.tasks.
        recipe: how it is trained.
        seed: of every random number from here on; the first weights are the caller's.
        folder: where the state is kept, or None.
        on_step: called with (epoch, steps done in it, steps of an epoch).
        on_epoch: called with what each epoch came to.

    Returns:
        What each epoch came to, those of earlier calls included.

    Raises:
        TrainingError: where the loss is no number any more; the folder holds the last good state.
        CheckpointError: if the folder holds another training, or a damaged one.
    """
    prepare(network, recipe)
    optimizer, rate = make_optimizer(network, recipe)
    step = TrainingStep(network, optimizer, task, recipe)
    state = TrainingState(network, optimizer, recipe, seed, folder)
    state.resume(task.steps)
    if not network.training:
        network.train()
    device = next(network.parameters()).device
    with deferred_interrupts(folder is not None) as interrupted:
        for epoch in range(len(state.history), recipe.epochs):
            # Each epoch has its own seed, so that a resumed training draws what an uninterrupted one would have.
            torch.manual_seed((seed * 100_003 + epoch) % 2**63)
            generator = torch.Generator(device=device).manual_seed((seed * 100_003 + epoch + 1) % 2**63)
            total, start = state.begin(epoch)
            for index, batch in enumerate(task.batches(epoch, generator)):
                if index < start:
                    continue  # done before an interruption; drawing it has moved the generator as it did then
                if index == start:
                    state.restore_random()
                done = epoch + index / task.steps
                rate.fill_(schedule(recipe, done))
                network.progress.fill_(done / recipe.epochs)
                total += step(*batch)
                if on_step is not None:
                    on_step(epoch, index + 1, task.steps)
                if (index + 1) % CHECK_STEPS == 0:
                    _check(total, epoch, folder)
                if (state.due or interrupted()) and index + 1 < task.steps:
                    _check(total, epoch, folder)
                    state.keep(index + 1, total)
                if interrupted() and index + 1 < task.steps:
                    raise KeyboardInterrupt
            _check(total, epoch, folder)
            state.history.append(Epoch(epoch + 1, recipe.epochs, float(total) / task.steps))
            state.keep(0, torch.zeros_like(total))
            if on_epoch is not None:
                on_epoch(state.history[-1])
            if interrupted():
                raise KeyboardInterrupt
    network.eval()
    return state.history


def prepare(network: Network, recipe: Recipe) -> None:
    """Sets up a network as a recipe wants it."""
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.momentum = recipe.bn_momentum
    network.regularize(drop_path_keep=recipe.drop_path_keep, dropout=recipe.dropout)
    if recipe.channels_last:
        network.to(memory_format=torch.channels_last)
    use_separable(network, recipe.separable if recipe.channels_last else "torch")


def use_separable(network: Network, way: str) -> None:
    """Sets how the network computes its separable convolutions in training: Recipe's `separable`."""
    on_gpu = next(network.parameters()).is_cuda
    run = None
    if way == "fused" or (way == "auto" and on_gpu and find_spec("triton")):
        from . import separable  # Triton comes with torch on Linux alone

        run = separable.run_fused if way == "fused" else separable.run
        log.info("separable convolutions: by the fused kernels %s", "always" if way == "fused" else "where faster")
    elif on_gpu:
        log.info("separable convolutions: by torch, layer by layer")
    for module in network.modules():
        if isinstance(module, Chain):
            module.separable = run


def _check(total: Tensor, epoch: int, folder: str | Path | None) -> None:
    """Raises TrainingError if the sum of an epoch's losses is no number any more."""
    if not math.isfinite(float(total)):
        # In the same folder they would be another training, and refused.
        kept = f" in another folder; {folder} has the state before that" if folder is not None else ""
        raise TrainingError(
            f"the loss is {float(total):g} in epoch {epoch + 1}: try a lower learning rate or another seed{kept}"
        )
