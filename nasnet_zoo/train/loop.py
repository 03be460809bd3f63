"""The one training loop: search children, CIFAR-10, ImageNet and fine-tuning call it with different recipes."""

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..checkpoint import os_errors
from ..config import Preprocess
from ..errors import CheckpointError
from ..files import atomic_file
from ..layers import BatchNorm, Chain
from ..network import Network
from .data import Pictures, epoch_batches, normalized
from .recipe import Recipe
from .step import TrainingStep


@dataclass(frozen=True)
class Epoch:
    """What one epoch came to: mean training loss, and top-1 on the validation pictures or None."""

    epoch: int
    epochs: int
    loss: float
    accuracy: float | None


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
    session = _Session(network, optimizer, recipe, seed, folder)
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


@torch.no_grad()
def calibrate(network: Network, pictures: Pictures, batch_size: int = 256) -> None:
    """Precise batch norm: every running mean and variance becomes that of these pictures, under the weights as they
    are, in place of a moving average over weights that have changed since (Radosavovic et al. 2020)."""
    norms = [module for module in network.modules() if isinstance(module, BatchNorm)]
    before, network.drop_path_keep = network.drop_path_keep, 1.0
    momenta = [norm.momentum for norm in norms]
    was_training = network.training
    network.train()
    for start in range(0, len(pictures), batch_size):
        images = pictures.images[start : start + batch_size]
        for norm in norms:
            norm.momentum = len(images) / (start + len(images))  # the average over all pictures so far
        network(normalized(images, network.config.preprocess))
    for norm, momentum in zip(norms, momenta):
        norm.momentum = momentum
    network.drop_path_keep = before
    network.train(was_training)


@torch.inference_mode()
def evaluate(
    network: Network,
    pictures: Pictures,
    batch_size: int = 250,
    on_batch: Callable[[int, int], None] | None = None,
) -> tuple[float, float]:
    """Top-1 and top-5 accuracy, each from 0 to 1, on pictures that are already of the network's size."""
    was_training = network.training
    network.eval()
    preprocess: Preprocess = network.config.preprocess
    hits = torch.zeros(2, dtype=torch.int64, device=pictures.labels.device)
    for start in range(0, len(pictures), batch_size):
        images = normalized(pictures.images[start : start + batch_size], preprocess)
        labels = pictures.labels[start : start + batch_size]
        top = network(images).topk(min(5, network.config.num_classes), 1).indices == labels.unsqueeze(1)
        hits += torch.stack([top[:, 0].sum(), top.any(1).sum()])
        if on_batch is not None:
            on_batch(start + len(labels), len(pictures))
    network.train(was_training)
    return hits[0].item() / len(pictures), hits[1].item() / len(pictures)


class _Session:
    """The state of a training in its folder: `state.safetensors` (weights, momenta, history in the header)."""

    def __init__(self, network, optimizer, recipe: Recipe, seed: int, folder: str | Path | None) -> None:
        self.network, self.optimizer = network, optimizer
        self.path = None if folder is None else Path(folder) / "state.safetensors"
        identity = {"network": network.config.to_json(), "recipe": asdict(recipe), "seed": seed}
        self.identity = json.dumps(identity, sort_keys=True)

    def parameters(self) -> dict[str, Tensor]:
        return dict(self.network.named_parameters())

    def keep(self, history: list[Epoch]) -> None:
        if self.path is None:
            return
        tensors = {f"network.{key}": value for key, value in self.network.state_dict().items()}
        for name, parameter in self.parameters().items():
            momentum = self.optimizer.state[parameter].get("momentum_buffer")
            if momentum is not None:
                tensors[f"momentum.{name}"] = momentum
        metadata = {"training": self.identity, "history": json.dumps([asdict(epoch) for epoch in history])}
        tensors = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(self.path) as temporary, os_errors(temporary):
            save_file(tensors, temporary, metadata=metadata)

    def resume(self) -> list[Epoch]:
        if self.path is None or not self.path.exists():
            return []
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self.path, "pt") as file:
                metadata = file.metadata() or {}
            tensors = load_file(self.path)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{self.path} is damaged ({error}): delete it to start over") from error
        if metadata.get("training") != self.identity:
            raise CheckpointError(
                f"{self.path} belongs to a training with another network, recipe or seed: choose another folder, "
                f"or delete it to start over"
            )
        take = {key.removeprefix("network."): value for key, value in tensors.items() if key.startswith("network.")}
        self.network.load_state_dict(take)
        for name, parameter in self.parameters().items():
            if f"momentum.{name}" in tensors:
                momentum = torch.empty_like(parameter).copy_(tensors[f"momentum.{name}"])
                self.optimizer.state[parameter]["momentum_buffer"] = momentum
        return [Epoch(**epoch) for epoch in json.loads(metadata["history"])]
