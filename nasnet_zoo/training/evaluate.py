"""Measuring a network: accuracy on labelled pictures, and precise batch-norm statistics before it."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from ..data.cifar import Pictures
from ..data.folders import Labelled
from ..errors import DataError
from ..networks.network import ImageNetwork, eval_mode
from .augment import normalized


@torch.no_grad()
def calibrate(network: ImageNetwork, pictures: Pictures, batch_size: int = 256) -> None:
    """Precise batch norm: every running mean and variance becomes that of these pictures, under the weights as they
    are, in place of a moving average over weights that have changed since (Radosavovic et al. 2020).

    Norms that are frozen keep theirs, and everything its mode: nothing but batch norms is in training mode meanwhile.
    """
    if not len(pictures):
        raise DataError("there is no picture to calibrate batch norms on: give some")
    norms = [
        module for module in network.modules() if isinstance(module, _BatchNorm) and not is_frozen(module, network)
    ]
    momenta = [norm.momentum for norm in norms]
    try:
        with eval_mode(network):
            for norm in norms:
                norm.train()
            for start in range(0, len(pictures), batch_size):
                images = pictures.images[start : start + batch_size]
                for norm in norms:
                    norm.momentum = len(images) / (start + len(images))  # the average over all pictures so far
                network(normalized(images, network.config.preprocess))
    finally:
        for norm, momentum in zip(norms, momenta):
            norm.momentum = momentum


def is_frozen(norm: _BatchNorm, network: torch.nn.Module) -> bool:
    """Whether a batch norm is not to learn: marked as frozen, or in eval mode in a network that is in training mode."""
    return getattr(norm, "frozen", False) or (network.training and not norm.training)


def evaluate(
    network: ImageNetwork,
    pictures: Pictures,
    batch_size: int = 250,
    on_batch: Callable[[int, int], None] | None = None,
) -> tuple[float, float]:
    """Top-1 and top-5 accuracy, each from 0 to 1, on pictures that are already of the network's size.

    Raises DataError if there are none.
    """

    def batch(part: slice) -> tuple[Tensor, Tensor]:
        return normalized(pictures.images[part], network.config.preprocess), pictures.labels[part]

    return _accuracy(network, len(pictures), batch, batch_size, on_batch)


def evaluate_folder(
    network: ImageNetwork,
    pictures: Labelled,
    batch_size: int = 32,
    on_batch: Callable[[int, int], None] | None = None,
) -> tuple[float, float]:
    """Top-1 and top-5 accuracy, 0 to 1, of a network on labelled files, prepared by its transform.

    Raises DataError if there are none.
    """
    transform, first = network.transform, next(network.parameters())

    def batch(part: slice) -> tuple[Tensor, Tensor]:
        images = torch.stack([transform(path) for path, _ in pictures[part]])
        labels = torch.tensor([label for _, label in pictures[part]], device=first.device)
        return images.to(first.device, first.dtype), labels

    return _accuracy(network, len(pictures), batch, batch_size, on_batch)


@torch.inference_mode()
def _accuracy(
    network: ImageNetwork,
    count: int,
    batch: Callable[[slice], tuple[Tensor, Tensor]],
    batch_size: int,
    on_batch: Callable[[int, int], None] | None,
) -> tuple[float, float]:
    """Top-1 and top-5 accuracy on `count` pictures; `batch` gives the network's input and the labels of a part."""
    if not count:
        raise DataError("there is no picture to measure on: give some")
    hits = torch.zeros(2, dtype=torch.int64, device=next(network.parameters()).device)
    with eval_mode(network):
        for start in range(0, count, batch_size):
            images, labels = batch(slice(start, start + batch_size))
            top = network(images).topk(min(5, network.config.num_classes), 1).indices == labels.unsqueeze(1)
            hits += torch.stack([top[:, 0].sum(), top.any(1).sum()])
            if on_batch is not None:
                on_batch(start + len(labels), count)
    return hits[0].item() / count, hits[1].item() / count
