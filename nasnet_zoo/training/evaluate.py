"""Measuring a network: accuracy on labelled pictures, and precise batch-norm statistics before it."""

from collections.abc import Callable

import torch

from ..arch.config import Preprocess
from ..data.cifar import Pictures
from ..data.folders import Labelled
from ..data.images import Transform
from ..networks.layers import BatchNorm
from ..networks.network import Network
from .augment import normalized


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


@torch.inference_mode()
def evaluate_folder(
    network: Network,
    pictures: Labelled,
    batch_size: int = 32,
    on_batch: Callable[[int, int], None] | None = None,
) -> tuple[float, float]:
    """Top-1 and top-5 accuracy, 0 to 1, of a network in eval mode on labelled files, prepared by its transform."""
    transform = Transform(network.config.preprocess, network.config.in_channels)
    first = next(network.parameters())
    hits = torch.zeros(2, dtype=torch.int64)
    for start in range(0, len(pictures), batch_size):
        batch = pictures[start : start + batch_size]
        images = torch.stack([transform(path) for path, _ in batch]).to(first.device, first.dtype)
        labels = torch.tensor([label for _, label in batch]).unsqueeze(1)
        top = network(images).topk(min(5, network.config.num_classes), 1).indices.cpu() == labels
        hits += torch.stack([top[:, 0].sum(), top.any(1).sum()])
        if on_batch is not None:
            on_batch(start + len(batch), len(pictures))
    return hits[0].item() / len(pictures), hits[1].item() / len(pictures)
