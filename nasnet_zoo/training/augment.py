"""Pictures that stay on the device as uint8 and are augmented there."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from ..arch.preprocess import Preprocess
from ..data.cifar import Pictures
from .recipe import Recipe


def normalized(images: Tensor, preprocess: Preprocess) -> Tensor:
    """uint8 (n, 3, h, w) to float32, as Preprocess says."""
    mean = torch.tensor(preprocess.mean, device=images.device).view(1, -1, 1, 1)
    std = torch.tensor(preprocess.std, device=images.device).view(1, -1, 1, 1)
    images = (images.float() / 255 - mean) / std
    if preprocess.per_image:
        deviation, mean = torch.std_mean(images, (1, 2, 3), correction=0, keepdim=True)
        images = (images - mean) / deviation.clamp(min=images[0].numel() ** -0.5)
    return images


def augmented(images: Tensor, recipe: Recipe, generator: torch.Generator) -> Tensor:
    """Each picture padded or enlarged, cropped at random to its old size, flipped at random and with a random square
    cut out: (n, c, h, w)."""
    n, _, height, width = images.shape
    device, pad = images.device, recipe.pad

    def draw(high: int) -> Tensor:
        return torch.randint(high, (n,), generator=generator, device=device)

    padded = F.pad(images, (pad, pad, pad, pad))
    if recipe.enlarge:
        size = (height + 2 * pad, width + 2 * pad)
        # On a GPU torch interpolates no bytes.
        padded = F.interpolate(images.float(), size, mode="bilinear").round().clamp(0, 255).to(images.dtype)
    rows = draw(2 * pad + 1).view(n, 1, 1) + torch.arange(height, device=device).view(1, height, 1)
    columns = torch.arange(width, device=device).expand(n, width)
    if recipe.flip:
        columns = torch.where(draw(2).bool().view(n, 1), columns.flip(1), columns)
    columns = (draw(2 * pad + 1).view(n, 1) + columns).view(n, 1, width)
    batch = torch.arange(n, device=device).view(n, 1, 1)
    out = padded.permute(0, 2, 3, 1)[batch, rows, columns].permute(0, 3, 1, 2)
    if recipe.cutout:
        top = draw(height).view(n, 1, 1) - recipe.cutout // 2
        left = draw(width).view(n, 1, 1) - recipe.cutout // 2
        down = torch.arange(height, device=device).view(1, height, 1) - top
        right = torch.arange(width, device=device).view(1, 1, width) - left
        inside = (down >= 0) & (down < recipe.cutout) & (right >= 0) & (right < recipe.cutout)
        out = out * ~inside.unsqueeze(1)
    return out


def epoch_batches(
    pictures: Pictures, recipe: Recipe, preprocess: Preprocess, generator: torch.Generator, side: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch in random order, in full batches: (images, labels), augmented and normalised, `side` pixels high."""
    order = torch.randperm(len(pictures), generator=generator, device=pictures.labels.device)
    size = min(recipe.batch_size, len(pictures))
    for start in range(0, len(order) - size + 1, size):
        indices = order[start : start + size]
        images = normalized(augmented(pictures.images[indices], recipe, generator), preprocess)
        if side != images.shape[2]:
            images = F.interpolate(images, (side, side), mode="bilinear", antialias=True)
        yield images, pictures.labels[indices]
