"""Labelled pictures from folders, for evaluation."""

import csv
from collections.abc import Sequence
from pathlib import Path

from ..errors import DataError

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm", ".gif", ".tif", ".tiff"}
Labelled = list[tuple[Path, int]]


def labelled_folder(folder: str | Path, labels: Sequence[str] | None, num_classes: int) -> Labelled:
    """The pictures of a folder, each with its class: from a `labels.csv` of (file, class index), or from subfolders.
    Subfolders are named after the labels; or there are as many as classes, and their sorted order is that of the
    classes.

    Raises DataError.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}: name one with a subfolder of pictures per class, or cifar10")
    table = folder / "labels.csv"
    pictures = _from_table(table) if table.is_file() else _from_subfolders(folder, labels, num_classes)
    wrong = [path for path, label in pictures if not 0 <= label < num_classes]
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
        elif row and (line > 1 or (table.parent / row[0]).is_file()):  # otherwise it is the heading
            raise DataError(f"{table}, line {line}: expected a file and a class index, got {row[:3]}")
    return pictures


def _from_subfolders(folder: Path, labels: Sequence[str] | None, num_classes: int) -> Labelled:
    subfolders = sorted(path for path in folder.iterdir() if path.is_dir())
    names = {label: index for index, label in enumerate(labels or ())}
    if all(path.name in names for path in subfolders):
        classes = {path: names[path.name] for path in subfolders}
    elif len(subfolders) == num_classes:
        classes = {path: index for index, path in enumerate(subfolders)}
    else:
        raise DataError(
            f"{folder} has {len(subfolders)} subfolders, which are neither named after the network's "
            f"{num_classes} classes nor as many as there are classes"
        )
    return [
        (path, label)
        for subfolder, label in classes.items()
        for path in sorted(subfolder.rglob("*"))
        if path.suffix.lower() in SUFFIXES
    ]
