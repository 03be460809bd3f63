"""Measuring a network: accuracy on labelled pictures, and precise batch-norm statistics before it."""

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from ..data.cifar import Pictures
from ..data.classify import Classifier, logits, prepared
from ..data.folders import Labelled
from ..errors import DataError, ImageError
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
    network: ImageNetwork | Classifier,
    pictures: Pictures,
    batch_size: int = 250,
    on_batch: Callable[[int, int], None] | None = None,
) -> tuple[float, float]:
    """Top-1 and top-5 accuracy, each from 0 to 1, of a network, or of an exported graph's Session, on pictures that are
    already of its size.

    Raises DataError if there are none.
    """
    if not isinstance(network, torch.nn.Module):
        images = pictures.images.permute(0, 2, 3, 1).cpu().numpy()
        return evaluate_folder(network, list(zip(images, pictures.labels.tolist())), batch_size, on_batch)
    pictures = pictures.to(next(network.parameters()).device)

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for images, labels in zip(pictures.images.split(batch_size), pictures.labels.split(batch_size)):
            yield network(normalized(images, network.config.preprocess)), labels

    with eval_mode(network):
        return _accuracy(batches(), len(pictures), on_batch)


def evaluate_folder(
    network: Classifier,
    pictures: Labelled,
    batch_size: int = 32,
    on_batch: Callable[[int, int], None] | None = None,
) -> tuple[float, float]:
    """Top-1 and top-5 accuracy, 0 to 1, of a network, or of an exported graph's Session, on labelled files, which it
    prepares itself.

    Raises DataError if there are none, and ImageError, naming it, for one that cannot be used.
    """
    labels = torch.tensor([label for _, label in pictures])

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        inputs = prepared(network, (image for image, _ in pictures), batch_size)
        for batch, part in zip(inputs, labels.split(batch_size)):
            for error in batch:
                if isinstance(error, ImageError):
                    raise error
            yield torch.from_numpy(logits(network, batch)), part

    return _accuracy(batches(), len(pictures), on_batch)


@torch.inference_mode()
def _accuracy(
    batches: Iterable[tuple[Tensor, Tensor]], count: int, on_batch: Callable[[int, int], None] | None
) -> tuple[float, float]:
    """Top-1 and top-5 accuracy on `count` pictures, from their logits and labels."""
    if not count:
        raise DataError("there is no picture to measure on: give some")
    hits, done = torch.zeros(2, dtype=torch.int64), 0
    for scores, labels in batches:
        top = scores.topk(min(5, scores.shape[1]), 1).indices == labels.unsqueeze(1)
        hits = hits.to(top.device) + torch.stack([top[:, 0].sum(), top.any(1).sum()])
        done += len(labels)
        if on_batch is not None:
            on_batch(done, count)
    return hits[0].item() / count, hits[1].item() / count
