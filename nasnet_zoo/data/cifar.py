"""CIFAR-10: finds or downloads it, checks it, and reads it as tensors."""

import os
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..arch.config import NetworkConfig
from ..errors import ConfigError, DataError
from ..util.environment import cache_root, offline
from ..util.files import atomic_folder, locked, read_checked
from .labels import label_set

CIFAR_FOLDER = "cifar-10-batches-py"
# The files for training (True) and for testing, with their MD5 as torchvision has them, which takes long to import.
FILES = {
    True: {
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    },
    False: {"test_batch": "40351d587109b95175f43aff81a1287e"},
}


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
    how = (
        "unpack the official cifar-10-python.tar.gz there, or run "
        f"torchvision.datasets.CIFAR10({str(folder)!r}, download=True) once"
    )
    if not (Path(folder) / CIFAR_FOLDER).is_dir():
        raise DataError(f"there is no {CIFAR_FOLDER} in {folder}: {how}")
    try:
        files = [read_checked(Path(folder) / CIFAR_FOLDER / name, md5) for name, md5 in FILES[train].items()]
    except (OSError, ValueError) as error:
        raise DataError(f"{folder} does not hold the official CIFAR-10 ({error}): {how}") from error
    batches = [pickle.loads(file, encoding="latin1") for file in files]  # which are those that were published
    images = np.concatenate([batch["data"] for batch in batches]).reshape(-1, 3, 32, 32)
    return Pictures(torch.from_numpy(images), torch.tensor([label for batch in batches for label in batch["labels"]]))


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
