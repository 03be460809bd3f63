"""CIFAR-10: finds or downloads it, checks it, and reads it as tensors."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..arch.config import NetworkConfig
from ..errors import ConfigError, DataError
from ..util.environment import cache_root, offline
from ..util.files import atomic_folder, locked
from .labels import label_set


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
    """Raises ConfigError for a network that does not fit CIFAR-10's pictures and classes."""
    if config.num_classes != 10:
        raise ConfigError(f"CIFAR-10 has 10 classes and this network {config.num_classes}: choose one with 10")
    size, channels = config.preprocess.size, config.in_channels
    if size != (32, 32) or channels != 3:
        raise ConfigError(
            f"CIFAR-10's pictures are of 32 x 32 pixels in 3 channels, and this network takes {size[0]} x {size[1]} in "
            f"{channels}: choose one for them, as `nasnet-zoo list` shows"
        )


def in_classes_of(pictures: Pictures, labels: Sequence[str] | None) -> Pictures:
    """CIFAR-10's pictures with their classes' places in a network's labels; as they are if it has none. Raises
    ConfigError if the labels are others than CIFAR-10's."""
    names = label_set("cifar10")
    if labels is None or tuple(labels) == names:
        return pictures
    if sorted(labels) != sorted(names):
        raise ConfigError(
            f"CIFAR-10's classes are {', '.join(names)}, and the network has others ({', '.join(labels[:3])}, ...): "
            f"choose other data, or let `nasnet-zoo finetune` adapt the network"
        )
    return Pictures(pictures.images, torch.tensor([labels.index(name) for name in names])[pictures.labels])


CIFAR_FOLDER = "cifar-10-batches-py"


def cifar10_folder() -> Path:
    """The folder that holds CIFAR-10: NASNET_ZOO_DATA, ./data or the cache, to which it is downloaded if necessary.

    Raises DataError, saying how to get it.
    """
    cached, own = cache_root() / "data", Path(os.environ.get("NASNET_ZOO_DATA") or "data")
    for folder in (own, cached):
        if (folder / CIFAR_FOLDER).is_dir():
            return folder
    how = f"put {CIFAR_FOLDER} (from cifar-10-python.tar.gz) into a folder and name it with --data or NASNET_ZOO_DATA"
    if offline():
        raise DataError(f"CIFAR-10 is neither in {own} nor in {cached}, and downloads are switched off: {how}")
    from torchvision.datasets import CIFAR10

    with locked(cached / CIFAR_FOLDER):
        if not (cached / CIFAR_FOLDER).is_dir():  # otherwise another process fetched it while this one waited
            with atomic_folder(cached / CIFAR_FOLDER) as temporary:
                try:
                    CIFAR10(str(temporary), download=True)  # checks the archive's MD5
                except (OSError, RuntimeError) as error:
                    raise DataError(f"CIFAR-10 cannot be downloaded ({error}): {how}") from error
                for path in (temporary / CIFAR_FOLDER).iterdir():
                    path.rename(temporary / path.name)
                (temporary / CIFAR_FOLDER).rmdir()
                (temporary / CIFAR10.filename).unlink()
    return cached


def cifar10_pictures(folder: str | Path | None, train: bool) -> Pictures:
    """CIFAR-10 from a folder, or from where `cifar10_folder` finds it."""
    return load_cifar10(cifar10_folder() if folder is None else folder, train)
