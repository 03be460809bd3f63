"""The one training loop: search children, CIFAR-10, ImageNet and fine-tuning call it with different recipes."""

import math
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import torch

from ..data.cifar import Pictures
from ..networks.layers import BatchNorm, Chain
from ..networks.network import Network
from .augment import epoch_batches
from .evaluate import evaluate
from .recipe import Recipe
from .state import Epoch, TrainingState
from .step import TrainingStep


def train(
    network: Network,
    pictures: Pictures,
    recipe: Recipe,
    *,
    seed: int = 0,
    validation: Pictures | None = None,
    folder: str | Path | None = None,
    on_step: Callable[[int, int, int], None] | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> list[Epoch]:
    """Trains `network` in place on its device and returns the history.

    With a `folder` the state is kept there after every epoch, and a call with the same network config, recipe and
    seed goes on where the last one stopped, drawing the same random numbers as if it had not. Calls
    `on_step(epoch, step, steps)` and `on_epoch`. Raises CheckpointError if the folder holds another training.
    """
    device, preprocess = next(network.parameters()).device, network.config.preprocess
    for module in network.modules():
        if isinstance(module, BatchNorm):
            module.momentum = recipe.bn_momentum
    network.dropout.p = recipe.dropout
    network.drop_path_keep = recipe.drop_path_keep
    if recipe.channels_last:
        network.to(memory_format=torch.channels_last)
    use_separable(network, recipe.separable if recipe.channels_last else "torch")
    learning_rate = torch.tensor(0.0, device=device)
    decayed = [p for p in network.parameters() if p.dim() > 1]
    others = [p for p in network.parameters() if p.dim() <= 1]
    optimizer = torch.optim.SGD(
        [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}],
        lr=learning_rate,
        momentum=recipe.momentum,
        nesterov=True,
        fused=True,  # the others read a learning rate that is a tensor back from the device at every step
    )
    step = TrainingStep(network, optimizer, recipe)
    session = TrainingState(network, optimizer, recipe, seed, folder)
    history = session.resume()
    steps = max(len(pictures) // recipe.batch_size, 1)
    for epoch in range(len(history), recipe.epochs):
        # Each epoch has its own seed, so that a resumed training draws what an uninterrupted one would have.
        torch.manual_seed((seed * 100_003 + epoch) % 2**63)
        generator = torch.Generator(device=device).manual_seed((seed * 100_003 + epoch + 1) % 2**63)
        network.train()
        total = torch.zeros((), device=device)
        side = recipe.side(epoch, pictures.images.shape[2])
        for index, (images, labels) in enumerate(epoch_batches(pictures, recipe, preprocess, generator, side)):
            done = epoch + index / steps
            learning_rate.fill_(schedule(recipe, done))
            network.progress.fill_(done / recipe.epochs)
            total += step(images, labels)
            if on_step is not None:
                on_step(epoch, index + 1, steps)
        accuracy = None if validation is None else evaluate(network, validation)[0]
        history.append(Epoch(epoch + 1, recipe.epochs, float(total) / steps, accuracy))
        session.keep(history)
        if on_epoch is not None:
            on_epoch(history[-1])
    network.eval()
    return history


def use_separable(network: Network, way: str) -> None:
    """Sets how the network computes its separable convolutions in training: Recipe's `separable`."""
    on_gpu = next(network.parameters()).is_cuda
    run = None
    if way == "fused" or (way == "auto" and on_gpu and find_spec("triton")):
        from . import separable  # Triton comes with torch on Linux alone

        run = separable.run_fused if way == "fused" else separable.run
    for module in network.modules():
        if isinstance(module, Chain):
            module.separable = run


def schedule(recipe: Recipe, done: float) -> float:
    """The learning rate after `done` epochs: a linear rise, then half a cosine down to zero."""
    if done < recipe.warmup_epochs:
        return recipe.learning_rate * (done + 0.02) / (recipe.warmup_epochs + 0.02)
    part = (done - recipe.warmup_epochs) / max(recipe.epochs - recipe.warmup_epochs, 1e-9)
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * part))
