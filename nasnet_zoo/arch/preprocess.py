"""How pictures are prepared for a network, and the preprocessings in use, with their means and deviations."""

from dataclasses import dataclass
from typing import Literal

from ..errors import ConfigError
from .checks import check_fields


@dataclass(frozen=True)
class Preprocess:
    """From a picture to the network's input: cut the middle, resize, scale to [0, 1], normalise.

    `crop` is the fraction of the height and width that is kept. With `resize` "squash" that middle is brought to
    `size` (height, width) without keeping its aspect, as TF-slim does; with "shortest" it is first cut square. With
    `per_image` each picture is normalised by its own mean and deviation after that (TensorFlow's "whitening"; the
    deviation counts as at least 1 / sqrt(values)), as the children of the NASNet search were.
    """

    size: tuple[int, int]
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)
    crop: float = 1.0
    resize: Literal["squash", "shortest"] = "squash"
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    antialias: bool = True
    per_image: bool = False

    def __post_init__(self) -> None:
        check_fields(self, "preprocess")
        for name in ("size", "mean", "std"):  # lists would make it another preprocessing, and one without a hash
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if min(self.size) < 1 or max(self.size) > 1 << 14:
            raise ConfigError(f"preprocess: size {self.size} is not between 1 and {1 << 14} pixels")
        if len(self.mean) != len(self.std) or not self.mean or min(self.std) <= 0:
            raise ConfigError("preprocess: mean and std need one entry per channel, and every std above zero")
        if not 0 < self.crop <= 1:
            raise ConfigError(f"preprocess: crop {self.crop} is not a fraction between 0 and 1")


# TF-slim's inception preprocessing at evaluation.
INCEPTION = Preprocess((224, 224), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), crop=0.875, resize="squash", antialias=False)
# The mean and deviation of ImageNet's pictures, and how torchvision and the DARTS family prepare them.
TORCH_IMAGENET = Preprocess((224, 224), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), crop=0.875, resize="shortest")
CIFAR10 = Preprocess((32, 32), (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
