"""Classifying pictures: those that lie on the device as bytes, or those that workers read from files."""

from collections.abc import Iterator
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ...arch.preprocess import Preprocess
from ...data.cifar import Pictures
from ...data.folders import Labelled
from ...errors import ConfigError, DataError
from ...networks.network import Network, eval_mode
from ..augment import Draws, epoch_batches, finished
from ..distributed import rank, summed, world
from ..evaluate import evaluate
from ..recipe import Recipe
from ..stream import Epochs, Key, Stream
from .base import Batch

EVALUATED_AT_ONCE = 64  # pictures; an evaluation needs little memory beside the training's


class Classify:
    """Cross-entropy on augmented pictures, the auxiliary head's too where the network has one; judged on `held_out`.

    Args:
        pictures: what to learn from: `Pictures` on the network's device, or (picture, class) pairs, which workers read
            from files and prepare.
        recipe: its batch size, augmentation, label smoothing and weight of the auxiliary loss.
        preprocess: how the network wants its pictures.
        held_out: what `evaluate` measures on, in either form, `Pictures` of the network's own size; None if it is not
            to be asked.
        classes: how many the network has, if the recipe mixes pictures.
        channels: of the network's pictures, if they are read from files.
        workers: how many processes read files; the cores less one, at most 8, if None.

    Raises:
        DataError: if there is nothing to learn from, or less than a batch.
        ConfigError: for a recipe whose augmentation these pictures cannot have.
    """

    def __init__(
        self,
        pictures: Pictures | Labelled,
        recipe: Recipe,
        preprocess: Preprocess,
        held_out: Pictures | Labelled | None = None,
        *,
        classes: int = 0,
        channels: int = 3,
        workers: int | None = None,
    ) -> None:
        if not len(pictures):
            raise DataError("there is no picture to train on: name data that hold some")
        if len(pictures) < recipe.batch_size:
            raise DataError(
                f"a batch has {recipe.batch_size} pictures and the data {len(pictures)}: give a batch_size of at most "
                f"{len(pictures)}"
            )
        if (recipe.mixup or recipe.cutmix) and not classes:
            raise ConfigError("mixup and cutmix need the number of classes: give the task classes=...")
        if recipe.by_picture and isinstance(pictures, Pictures):
            pictures = as_labelled(pictures)
        if not isinstance(pictures, Pictures):
            pictures = Stream(pictures, recipe, preprocess, channels, workers)
        if held_out is not None and not isinstance(held_out, Pictures):
            held_out = Stream(held_out, recipe, preprocess, channels, workers)
        self.pictures, self.recipe, self.preprocess, self.held_out = pictures, recipe, preprocess, held_out
        self.classes = classes
        self.steps = len(pictures) // recipe.batch_size

    def batches(self, epoch: int, generator: torch.Generator) -> Iterator[Batch]:
        recipe, preprocess = self.recipe, self.preprocess
        if isinstance(self.pictures, Pictures):
            side = recipe.side(epoch, self.pictures.images.shape[2])
            return epoch_batches(self.pictures, recipe, preprocess, generator, side, self.classes)
        side = recipe.side(epoch, preprocess.size[0])
        return _Finished(self.pictures, side, generator, preprocess, self.classes)

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
        if isinstance(self.held_out, Pictures):
            mine = self.held_out.subset(torch.arange(rank(), len(self.held_out), world()))
            found = [*evaluate(network, mine), 1.0] if len(mine) else [0.0, 0.0, 1.0]
            hits = torch.tensor(found, dtype=torch.float64) * len(mine)
        else:
            hits = stream_hits(network, self.held_out)
        top1, top5, count = summed(hits).round().tolist()
        if not count:
            raise DataError("none of the pictures to measure on can be read: mend or replace them")
        return {"top1": top1 / count, "top5": top5 / count}

    def close(self) -> None:
        """Ends the processes that read pictures; they begin anew when they are needed."""
        for pictures in (self.pictures, self.held_out):
            if isinstance(pictures, Stream):
                pictures.close()


class _Finished:
    """An epoch of a stream, whose batches get on the device what is done to whole batches."""

    def __init__(
        self, stream: Stream, side: int, generator: torch.Generator, preprocess: Preprocess, classes: int
    ) -> None:
        # Drawn on the CPU whatever the device, so that the order of pictures is the same on all.
        draws = torch.Generator().manual_seed(generator.initial_seed())
        order = torch.randperm(len(stream), generator=draws)
        seed = int(torch.randint(2**40, (), generator=draws))
        self.epochs = Epochs(stream, seed, side, generator.device, order)
        recipe = stream.samples.recipe
        # Its pixels are those of full size, and these pictures are read at their side.
        self.recipe = replace(recipe, cutout=round(recipe.cutout * side / preprocess.size[0]))
        self.side, self.seed = side, seed
        self.preprocess, self.classes, self.step = preprocess, classes, 0
        self.device = generator.device

    def skip(self, steps: int) -> None:
        self.epochs.skip(steps)
        self.step += steps

    def __iter__(self) -> "_Finished":
        return self

    def __next__(self) -> Batch:
        images, labels = next(self.epochs)
        generator = torch.Generator(device=self.device).manual_seed((self.seed * 100_003 + self.step) % 2**63)
        self.step += 1
        draws = Draws(self.recipe.batch_size, generator)
        return finished(images, labels, self.recipe, self.preprocess, draws, self.side, self.classes)


def as_labelled(pictures: Pictures) -> Labelled:
    """Pictures in memory in the form of those that workers read: arrays (height, width, 3) with their classes."""
    images = pictures.images.permute(0, 2, 3, 1).cpu().numpy()
    return list(zip(images, pictures.labels.tolist()))


@torch.inference_mode()
def stream_hits(network: Network, pictures: Stream) -> Tensor:
    """(pictures whose class is the most probable, those whose class is among the first five, all of them), of this
    process's share of those that can be read: float64 on the CPU."""
    device = next(network.parameters()).device
    places = [Key(index) for index in range(rank(), len(pictures), world())]
    order = [places[start : start + EVALUATED_AT_ONCE] for start in range(0, len(places), EVALUATED_AT_ONCE)]
    hits = torch.zeros(3, dtype=torch.int64, device=device)
    with eval_mode(network):
        for images, labels in pictures.batches(order, device):
            scores = network(images)
            top = scores.topk(min(5, scores.shape[1]), 1).indices == labels.unsqueeze(1)
            hits += torch.stack([top[:, 0].sum(), top.any(1).sum(), (labels >= 0).sum()])
    return hits.cpu().double()
