"""Pictures that stay on the device as uint8 and are augmented there."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ..config import NetworkConfig, Preprocess
from ..errors import ConfigError, DataError
from .recipe import Recipe


@dataclass(frozen=True)
class Pictures:
    """`images` uint8 (n, 3, height, width) and `labels` int64 (n,), both on one device."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device | str) -> "Pictures":
        return Pictures(self.images.to(device), self.labels.to(device))

    def subset(self, indices: Tensor) -> "Pictures":
        indices = indices.to(self.labels.device)
        return Pictures(self.images[indices], self.labels[indices])


def load_cifar10(folder: str | Path, train: bool) -> Pictures:
    """CIFAR-10's 50,000 training or 10,000 test pictures from a folder that holds `cifar-10-batches-py`.

    Raises DataError, saying how to get the data, if they are not there or not the official ones (by MD5).
    """
    from torchvision.datasets import CIFAR10

    how = (
        "unpack the official cifar-10-python.tar.gz there, or run "
        f"torchvision.datasets.CIFAR10({str(folder)!r}, download=True) once"
    )
    if not (Path(folder) / CIFAR10.base_folder).is_dir():
        raise DataError(f"there is no {CIFAR10.base_folder} in {folder}: {how}")
    try:
        data = CIFAR10(str(folder), train=train)  # checks every file's MD5 before it unpickles it
    except (RuntimeError, OSError, ValueError, KeyError, EOFError) as error:
        raise DataError(f"{folder} does not hold the official CIFAR-10 ({error}): {how}") from error
    return Pictures(torch.from_numpy(data.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(data.targets))


def check_cifar10(config: NetworkConfig) -> None:
    """ConfigError for a network that CIFAR-10's pictures, as they are, are not for."""
    if config.num_classes != 10:
        raise ConfigError(f"CIFAR-10 has 10 classes and this network {config.num_classes}: choose one with 10")
    size, channels = config.preprocess.size, config.in_channels
    if size != (32, 32) or channels != 3:
        raise ConfigError(
            f"CIFAR-10's pictures are of 32 x 32 pixels in 3 channels, and this network takes {size[0]} x {size[1]} in "
            f"{channels}: choose one for them, as `nasnet-zoo list` shows"
        )


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
