"""Measuring a network: accuracy on labelled pictures, and precise batch-norm statistics before it."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
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


@dataclass(frozen=True, eq=False)
class Measured:
    """What a network of so many `classes` took labelled pictures for: `truth` and `predicted` are their classes, int64
    (n,), `top5` the share, from 0 to 1, of those whose class is among the five most probable."""

    truth: Tensor
    predicted: Tensor
    classes: int
    top5: float

    @property
    def top1(self) -> float:
        """The share of the pictures whose class is the most probable."""
        return (self.truth == self.predicted).sum().item() / len(self.truth)

    @property
    def confusion(self) -> np.ndarray:
        """How many pictures of each class (rows) were taken for each class (columns): int64 (classes, classes)."""
        counts = np.zeros((self.classes, self.classes), dtype=np.int64)
        np.add.at(counts, (self.truth.cpu().numpy(), self.predicted.cpu().numpy()), 1)
        return counts


def measure(
    network: ImageNetwork | Classifier,
    pictures: Pictures | Labelled,
    batch_size: int,
    on_batch: Callable[[int, int], None] | None = None,
) -> Measured:
    """What a network, or an exported graph's Session, takes pictures for: those that are already of its size, or files,
    which it prepares itself.

    Raises DataError if there are none, and ImageError, naming it, for a file that cannot be used.
    """
    if not len(pictures):
        raise DataError("there is no picture to measure on: give some")
    if isinstance(pictures, Pictures) and isinstance(network, torch.nn.Module):
        with eval_mode(network):
            return _measured(_of_tensors(network, pictures, batch_size), len(pictures), on_batch)
    if isinstance(pictures, Pictures):
        images = pictures.images.permute(0, 2, 3, 1).cpu().numpy()
        pictures = list(zip(images, pictures.labels.tolist()))
    return _measured(_of_files(network, pictures, batch_size), len(pictures), on_batch)


def evaluate(
    network: ImageNetwork | Classifier,
    pictures: Pictures,
    batch_size: int = 250,
    on_batch: Callable[[int, int], None] | None = None,
) -> tuple[float, float]:
    """Top-1 and top-5 accuracy, each from 0 to 1, on pictures that are already of the network's size: see `measure`."""
    measured = measure(network, pictures, batch_size, on_batch)
    return measured.top1, measured.top5


def evaluate_folder(
    network: Classifier,
    pictures: Labelled,
    batch_size: int = 32,
    on_batch: Callable[[int, int], None] | None = None,
) -> tuple[float, float]:
    """Top-1 and top-5 accuracy, each from 0 to 1, on labelled files: see `measure`."""
    measured = measure(network, pictures, batch_size, on_batch)
    return measured.top1, measured.top5


def _of_tensors(network: ImageNetwork, pictures: Pictures, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The logits and labels of each batch."""
    pictures = pictures.to(next(network.parameters()).device)
    for images, labels in zip(pictures.images.split(batch_size), pictures.labels.split(batch_size)):
        yield network(normalized(images, network.config.preprocess)), labels


def _of_files(network: Classifier, pictures: Labelled, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The same of files."""
    labels = torch.tensor([label for _, label in pictures])
    inputs = prepared(network, (image for image, _ in pictures), batch_size)
    for batch, part in zip(inputs, labels.split(batch_size)):
        for error in batch:
            if isinstance(error, ImageError):
                raise error
        yield torch.from_numpy(logits(network, batch)), part


@torch.inference_mode()
def _measured(
    batches: Iterable[tuple[Tensor, Tensor]], count: int, on_batch: Callable[[int, int], None] | None
) -> Measured:
    """What comes of the logits and labels of `count` pictures. On a GPU nothing waits for it before the end."""
    truth, predicted, hits, done, classes = [], [], [], 0, 0
    for scores, labels in batches:
        classes = scores.shape[1]
        top = scores.topk(min(5, classes), 1).indices
        truth.append(labels)
        predicted.append(top[:, 0])
        hits.append((top == labels.unsqueeze(1)).any(1).sum())
        done += len(labels)
        if on_batch is not None:
            on_batch(done, count)
    return Measured(torch.cat(truth), torch.cat(predicted), classes, torch.stack(hits).sum().item() / count)
