"""Labelled pictures from folders, for evaluation."""

import csv
import os
from collections.abc import Callable
from pathlib import Path

import torch

from .errors import DataError
from .files import atomic_folder, cache_root, locked
from .images import Transform
from .network import Network
from .train.data import Pictures, load_cifar10

CIFAR_FOLDER = "cifar-10-batches-py"
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm", ".gif", ".tif", ".tiff"}
Labelled = list[tuple[Path, int]]


def cifar10_folder() -> Path:
    """The folder that holds CIFAR-10: NASNET_ZOO_DATA, ./data or the cache, where it is downloaded if need be.

    Raises DataError, saying how to get it.
    """
    cached, own = cache_root() / "data", Path(os.environ.get("NASNET_ZOO_DATA") or "data")
    for folder in (own, cached):
        if (folder / CIFAR_FOLDER).is_dir():
            return folder
    from .download import offline

    how = f"put {CIFAR_FOLDER} (from cifar-10-python.tar.gz) into a folder and name it with --data or NASNET_ZOO_DATA"
    if offline():
        raise DataError(f"CIFAR-10 is neither in {own} nor in {cached}, and downloads are switched off: {how}")
    from torchvision.datasets import CIFAR10

    with locked(cached / CIFAR_FOLDER):
        if not (cached / CIFAR_FOLDER).is_dir():  # else another process has fetched it while this one waited
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


def labelled_folder(folder: str | Path, network: Network) -> Labelled:
    """The pictures of a folder, each with its class: from a `labels.csv` of (file, class index), or from subfolders
    that are named after the network's labels or, if there are as many as classes, stand for them in sorted order.

    Raises DataError.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}: name one with a subfolder of pictures per class, or cifar10")
    table = folder / "labels.csv"
    pictures = _from_table(table) if table.is_file() else _from_subfolders(folder, network)
    wrong = [path for path, label in pictures if not 0 <= label < network.config.num_classes]
    if not pictures or wrong:
        problem = f"{wrong[0].name} has a class the network does not have" if wrong else "it has no pictures"
        raise DataError(
            f"{folder} cannot be used: {problem}; it needs a subfolder of pictures per class or a labels.csv"
        )
    return pictures


def _from_table(table: Path) -> Labelled:
    try:
        rows = list(csv.reader(table.read_text(encoding="utf-8-sig").splitlines()))
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{table} is not a table of comma-separated values: {error}") from error
    pictures = []
    for line, row in enumerate(rows, 1):
        if len(row) >= 2 and row[1].strip().isdecimal():
            pictures.append((table.parent / row[0], int(row[1])))
        elif row and (line > 1 or (table.parent / row[0]).is_file()):  # else it is the heading
            raise DataError(f"{table}, line {line}: expected a file and a class index, got {row[:3]}")
    return pictures


def _from_subfolders(folder: Path, network: Network) -> Labelled:
    subfolders = sorted(path for path in folder.iterdir() if path.is_dir())
    names = {label: index for index, label in enumerate(network.labels or ())}
    if all(path.name in names for path in subfolders):
        classes = {path: names[path.name] for path in subfolders}
    elif len(subfolders) == network.config.num_classes:
        classes = {path: index for index, path in enumerate(subfolders)}
    else:
        raise DataError(
            f"{folder} has {len(subfolders)} subfolders, which are neither named after the network's "
            f"{network.config.num_classes} classes nor as many as they"
        )
    return [
        (path, label)
        for subfolder, label in classes.items()
        for path in sorted(subfolder.rglob("*"))
        if path.suffix.lower() in SUFFIXES
    ]


@torch.inference_mode()
def evaluate_folder(
    network: Network,
    pictures: Labelled,
    batch_size: int = 32,
    on_batch: Callable[[int, int], None] | None = None,
) -> tuple[float, float]:
    """Top-1 and top-5 accuracy, 0 to 1, of a network in eval mode on labelled files, prepared by its transform."""
    transform = Transform(network.config.preprocess, network.config.in_channels)
    first = next(network.parameters())
    hits = torch.zeros(2, dtype=torch.int64)
    for start in range(0, len(pictures), batch_size):
        batch = pictures[start : start + batch_size]
        images = torch.stack([transform(path) for path, _ in batch]).to(first.device, first.dtype)
        labels = torch.tensor([label for _, label in batch]).unsqueeze(1)
        top = network(images).topk(min(5, network.config.num_classes), 1).indices.cpu() == labels
        hits += torch.stack([top[:, 0].sum(), top.any(1).sum()])
        if on_batch is not None:
            on_batch(start + len(batch), len(pictures))
    return hits[0].item() / len(pictures), hits[1].item() / len(pictures)


def cifar10_pictures(folder: str | Path | None, train: bool) -> Pictures:
    """CIFAR-10 from a folder, or from where `cifar10_folder` finds it."""
    return load_cifar10(cifar10_folder() if folder is None else folder, train)
