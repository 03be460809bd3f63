"""Batches of pictures that lie on the device, augmented there."""

from collections.abc import Iterator
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from ..arch.preprocess import Preprocess
from ..data.cifar import Pictures
from ..data.images import statistics
from .distributed import share
from .recipe import Recipe

ERASED = (0.02, 1 / 3), (0.3, 10 / 3)  # random erasing's shares of the area and aspects (Zhong et al. 2017)
LOG_ASPECTS = torch.tensor(ERASED[1]).log().tolist()


def normalized(images: Tensor, preprocess: Preprocess) -> Tensor:
    """uint8 (n, 3 or 1, h, w) to float32, as Preprocess says."""
    mean, std = _statistics(preprocess, images.shape[1], images.device)
    images = (images / 255).sub_(mean).div_(std)  # in place: batches are large
    if preprocess.per_image:
        deviation, mean = torch.std_mean(images, (1, 2, 3), correction=0, keepdim=True)
        images.sub_(mean).div_(deviation.clamp(min=images[0].numel() ** -0.5))
    return images


@cache
def _statistics(preprocess: Preprocess, channels: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """`statistics` as float32 (1, channels or 1, 1, 1) on a device: copied for each batch, a GPU would be waited for
    twice."""
    with torch.inference_mode(False):  # whoever asks first may be evaluating, and others train
        mean, std = (
            torch.tensor(values, device=device).view(1, -1, 1, 1) for values in statistics(preprocess, channels)
        )
    return mean, std


class Draws:
    """Random numbers for each picture of a batch. Every process draws those of the whole batch and keeps its share, so
    that a picture's do not depend on how many processes there are."""

    def __init__(self, count: int, generator: torch.Generator) -> None:
        self.count, self.generator = count, generator
        self.mine = share(count)

    def integers(self, high: int) -> Tensor:
        """One below `high` for each of this process's pictures, int64 (n,)."""
        return torch.randint(high, (self.count,), generator=self.generator, device=self.generator.device)[self.mine]

    def uniform(self, low: float = 0.0, high: float = 1.0) -> Tensor:
        """One for each of this process's pictures, float32 (n,)."""
        drawn = torch.rand(self.count, generator=self.generator, device=self.generator.device)
        return low + drawn[self.mine] * (high - low)


def augmented(images: Tensor, recipe: Recipe, draws: Draws) -> Tensor:
    """Each picture padded or enlarged, cropped at random to its old size and flipped at random: (n, c, h, w)."""
    n, _, height, width = images.shape
    device, pad = images.device, recipe.pad
    padded = F.pad(images, (pad, pad, pad, pad))
    if recipe.enlarge:
        size = (height + 2 * pad, width + 2 * pad)
        # On a GPU torch interpolates no bytes.
        padded = F.interpolate(images.float(), size, mode="bilinear").round().clamp(0, 255).to(images.dtype)
    rows = draws.integers(2 * pad + 1).view(n, 1, 1) + torch.arange(height, device=device).view(1, height, 1)
    columns = torch.arange(width, device=device).expand(n, width)
    if recipe.flip:
        columns = torch.where(draws.integers(2).bool().view(n, 1), columns.flip(1), columns)
    columns = (draws.integers(2 * pad + 1).view(n, 1) + columns).view(n, 1, width)
    batch = torch.arange(n, device=device).view(n, 1, 1)
    return padded.permute(0, 2, 3, 1)[batch, rows, columns].permute(0, 3, 1, 2)


def blanked(images: Tensor, recipe: Recipe, draws: Draws) -> Tensor:
    """Normalised pictures with a square cut out of each (cutout), and a rectangle of some (random erasing): what is
    blanked gets the mean, which is 0."""
    height, width = images.shape[2:]
    if recipe.cutout:
        top = draws.integers(height) - recipe.cutout // 2
        left = draws.integers(width) - recipe.cutout // 2
        side = torch.full_like(top, recipe.cutout)
        images = images.masked_fill(_inside(images, top, left, side, side), 0.0)
    if recipe.erase:
        least, most = ERASED[0]
        area = draws.uniform(least, most) * height * width
        aspect = draws.uniform(*LOG_ASPECTS).exp()
        tall = (area * aspect).sqrt().round().clamp(1, height).long()
        wide = (area / aspect).sqrt().round().clamp(1, width).long()
        top = (draws.uniform() * (height - tall + 1)).long()
        left = (draws.uniform() * (width - wide + 1)).long()
        erased = (draws.uniform() < recipe.erase).view(-1, 1, 1, 1)
        images = images.masked_fill(_inside(images, top, left, tall, wide) & erased, 0.0)
    return images


def _inside(images: Tensor, top: Tensor, left: Tensor, tall: Tensor, wide: Tensor) -> Tensor:
    """(n, 1, height, width): which pixels lie in each picture's rectangle."""
    down = torch.arange(images.shape[2], device=images.device) - top.view(-1, 1)
    right = torch.arange(images.shape[3], device=images.device) - left.view(-1, 1)
    rows = (down >= 0) & (down < tall.view(-1, 1))
    columns = (right >= 0) & (right < wide.view(-1, 1))
    return (rows.unsqueeze(2) & columns.unsqueeze(1)).unsqueeze(1)


def mixed(images: Tensor, labels: Tensor, recipe: Recipe, classes: int, draws: Draws) -> tuple[Tensor, Tensor]:
    """A batch whose pictures are mixed with those of the batch in reverse order (mixup), or have a rectangle of theirs
    (cutmix), one share for all of them; the labels are then probabilities (n, classes)."""
    if not (recipe.mixup or recipe.cutmix):
        return images, labels
    drawn = torch.rand(4, generator=draws.generator, device=draws.generator.device).tolist()
    cut = recipe.cutmix > 0 and (not recipe.mixup or drawn[0] < 0.5)
    share = _beta(recipe.cutmix if cut else recipe.mixup, drawn[1])
    targets = F.one_hot(labels, classes).float()
    if cut:
        height, width = images.shape[2:]
        tall, wide = round(height * (1 - share) ** 0.5), round(width * (1 - share) ** 0.5)
        middle, centre = int(drawn[2] * height), int(drawn[3] * width)
        rows = slice(max(middle - tall // 2, 0), max(middle - tall // 2 + tall, 0))
        columns = slice(max(centre - wide // 2, 0), max(centre - wide // 2 + wide, 0))
        patch = images.flip(0)[:, :, rows, columns]
        images = images.clone()
        images[:, :, rows, columns] = patch
        share = 1 - patch.shape[2] * patch.shape[3] / (height * width)
    else:
        images = images.lerp(images.flip(0), 1 - share)
    return images, targets.lerp(targets.flip(0), 1 - share)


def _beta(alpha: float, uniform: float) -> float:
    """The value of a Beta(alpha, alpha) distribution below which a share `uniform` of it lies."""
    from scipy.stats import beta

    return float(beta.ppf(uniform, alpha, alpha))


def epoch_batches(
    pictures: Pictures, recipe: Recipe, preprocess: Preprocess, generator: torch.Generator, side: int, classes: int = 0
) -> Iterator[tuple[Tensor, Tensor]]:
    """This process's share of one epoch in random order, in full batches: (images, labels), augmented and normalised,
    `side` pixels high. `classes` is needed for mixed labels."""
    order = torch.randperm(len(pictures), generator=generator, device=pictures.labels.device)
    size = recipe.batch_size
    for start in range(0, len(order) - size + 1, size):
        draws = Draws(size, generator)
        indices = order[start : start + size][draws.mine]
        images = augmented(pictures.images[indices], recipe, draws)
        yield finished(images, pictures.labels[indices], recipe, preprocess, draws, side, classes)


def finished(
    images: Tensor,
    labels: Tensor,
    recipe: Recipe,
    preprocess: Preprocess,
    draws: Draws,
    side: int,
    classes: int,
) -> tuple[Tensor, Tensor]:
    """What is done to a batch of bytes at last, on the device: normalised, blanked, at its side, mixed."""
    images = blanked(normalized(images, preprocess), recipe, draws)
    if side != images.shape[2]:
        images = F.interpolate(images, (side, side), mode="bilinear", antialias=True)
    return mixed(images, labels, recipe, classes, draws)
