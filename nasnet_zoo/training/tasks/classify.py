"""Classifying pictures that lie on the device as bytes."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from ...arch.preprocess import Preprocess
from ...data.cifar import Pictures
from ...errors import DataError
from ...networks.network import Network
from ..augment import epoch_batches
from ..evaluate import evaluate
from ..recipe import Recipe
from .base import Batch


class Classify:
    """Cross-entropy on augmented pictures, the auxiliary head's too where the network has one; judged on `held_out`.

    Args:
        pictures: what to learn from, on the network's device.
        recipe: its batch size, augmentation, label smoothing and weight of the auxiliary loss.
        preprocess: how the network wants its pictures.
        held_out: what `evaluate` measures on, of the network's own size; None if it is not to be asked.

    Raises:
        DataError: if there is nothing to learn from.
    """

    def __init__(
        self, pictures: Pictures, recipe: Recipe, preprocess: Preprocess, held_out: Pictures | None = None
    ) -> None:
        if not len(pictures):
            raise DataError("there is no picture to train on: name data that hold some")
        self.pictures, self.recipe, self.preprocess, self.held_out = pictures, recipe, preprocess, held_out
        self.steps = max(len(pictures) // recipe.batch_size, 1)

    def batches(self, epoch: int, generator: torch.Generator) -> Iterator[Batch]:
        side = self.recipe.side(epoch, self.pictures.images.shape[2])
        return epoch_batches(self.pictures, self.recipe, self.preprocess, generator, side)

    def loss(self, network: Network, *batch: Tensor) -> Tensor:
        images, labels = batch
        out = network(images)
        logits, auxiliary = out if isinstance(out, tuple) else (out, None)
        loss = F.cross_entropy(logits, labels, label_smoothing=self.recipe.label_smoothing)
        if auxiliary is None:
            return loss
        aside = F.cross_entropy(auxiliary, labels, label_smoothing=self.recipe.label_smoothing)
        return loss + self.recipe.aux_weight * aside

    def evaluate(self, network: Network) -> dict[str, float]:
        if self.held_out is None:
            raise DataError("this task was given no pictures to measure on: give it some as held_out")
        top1, top5 = evaluate(network, self.held_out)
        return {"top1": top1, "top5": top5}
