"""Pictures by what a user names, and labelled pictures from folders, for evaluation."""

import csv
import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from operator import attrgetter
from pathlib import Path

from ..errors import DataError, ImageError
from .images import ImageSource
from .matching import matched

SUFFIXES = {
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".avif", ".bmp", ".gif", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".tga"),
}
Labelled = Sequence[tuple[ImageSource, int]]


def pictures_in(folder: str | Path) -> list[Path]:
    """The pictures of a folder and its subfolders, by their suffixes, sorted; nothing that is hidden."""
    return [Path(path) for path in picture_files(os.fspath(folder))]


def picture_files(folder: str) -> Iterator[str]:
    """`pictures_in` as texts, for data sets of millions: one look at each folder, and none at an ordinary file."""
    try:
        with os.scandir(folder) as entries:
            inside = sorted(entries, key=attrgetter("name"))
    except OSError:  # a folder that may not be read, or has gone meanwhile
        return
    for entry in inside:
        if hidden(entry.name):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from picture_files(entry.path)
        elif _has_suffix(entry.name) and (entry.is_file(follow_symlinks=False) or is_picture(entry.path)):
            yield entry.path


def hidden(name: str) -> bool:
    """Whether a file or folder of this name is none of the user's: it begins with a dot, or macOS put it into an
    archive."""
    return name.startswith(".") or name == "__MACOSX"


def is_picture(path: str | Path) -> bool:
    """Whether a file has a picture's suffix. A pipe or a device is none: reading it may never end. A link to what has
    gone is one, for its reader to tell."""
    return _has_suffix(path) and (os.path.isfile(path) or not os.path.exists(path))


def _has_suffix(path: str | Path) -> bool:
    return os.path.splitext(path)[1].lower() in SUFFIXES


def named_pictures(name: str) -> list[str]:
    """The pictures that a name stands for: a folder's, those that match a pattern such as `photos/*.jpg`, or itself.

    Raises ImageError if a folder or a pattern gives none.
    """
    if not os.path.lexists(name):
        name = os.path.expanduser(name)
    if os.path.isdir(name):
        if found := pictures_in(name):
            return [str(path) for path in found]
        raise ImageError(f"there is no picture in the folder {name}: name one that has some, or the files themselves")
    if not glob.has_magic(name) or os.path.lexists(name) or "://" in name:
        return [name]
    found = {}  # in order, each once: `**` matches a folder and what is in it
    for match in sorted(glob.glob(name, recursive=True)):
        found |= dict.fromkeys(map(str, pictures_in(match)) if os.path.isdir(match) else [match] * is_picture(match))
    if not found:
        raise ImageError(f"no picture matches {name}: name files, folders or another pattern")
    return list(found)


def labelled_folder(data: str | Path, labels: Sequence[str] | None, num_classes: int) -> Labelled:
    """The pictures of a folder, each with its class: from a `labels.csv` of (file, class index), or from subfolders.
    Subfolders are named after the labels, or for ImageNet's classes after their WordNet ids (n01440764). If the network
    has no labels, there are as many subfolders as classes, in the classes' order. What is hidden is left out.

    Raises DataError.
    """
    folder = checked_folder(data)
    table = folder / "labels.csv"
    pictures = _from_table(table) if table.is_file() else _from_subfolders(folder, labels, num_classes)
    wrong = [path for path, label in pictures if not 0 <= label < num_classes]
    if not pictures or wrong:
        if wrong:
            problem = f"{wrong[0].name} has a class the network does not have"
        elif any(map(is_picture, folder.iterdir())):
            problem = "its pictures lie directly in it"
        else:
            problem = "it has no pictures"
        raise DataError(
            f"{folder} cannot be used: {problem}; it needs a subfolder of pictures per class or a labels.csv"
        )
    return pictures


def checked_folder(data: str | Path) -> Path:
    """The folder of a data set that a user named. Raises DataError if there is none."""
    if not os.path.isdir(data):  # False, unlike Path's, for a name that is too long
        if "://" in str(data):
            raise DataError(f"{data} is an address, and addresses are not fetched: download it and name the folder")
        if os.path.exists(data):
            raise DataError(f"{data} is no folder: unpack it if it is an archive, and name the folder")
        raise DataError(f"there is no folder {data}: name one with a subfolder of pictures per class, or cifar10")
    return Path(data)


def subfolders(folder: Path) -> list[str]:
    """The names of the folders in a folder, sorted, and of links to folders; nothing that is hidden. Raises DataError
    if it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if not hidden(entry.name) and entry.is_dir())
    except OSError as error:
        raise DataError(f"cannot read the folder {folder}: {error.strerror}; check who may read it") from error


def in_order(names: Iterable[str]) -> list[str]:
    """The names of the classes' folders in the order of the classes: sorted, and as numbers if all are."""
    names = sorted(names)
    return sorted(names, key=int) if all(name.isdecimal() for name in names) else names


def _from_table(table: Path) -> list[tuple[Path, int]]:
    try:
        rows = list(csv.reader(table.read_text(encoding="utf-8-sig").splitlines()))
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{table} is not a table of comma-separated values: {error}") from error
    pictures = []
    for line, row in enumerate(rows, 1):
        if len(row) >= 2 and row[1].strip().isdecimal():
            pictures.append((table.parent / row[0], int(row[1])))
        elif row and (line > 1 or os.path.isfile(table.parent / row[0])):  # otherwise it is the heading
            raise DataError(f"{table}, line {line}: expected a file and a class index, got {row[:3]}")
    missing = [path for path, _ in pictures if not os.path.isfile(path)]
    if missing:
        raise DataError(
            f"{table} names {len(pictures)} pictures, and {len(missing)} of them are not there, the first being "
            f"{missing[0]}: put them there or take their lines out"
        )
    return pictures


def _from_subfolders(folder: Path, labels: Sequence[str] | None, num_classes: int) -> list[tuple[Path, int]]:
    names = subfolders(folder)
    if labels is not None:
        otherwise = ", or write a labels.csv of files and class indices"
        classes: Sequence[int] = matched(names, labels, folder, otherwise=otherwise)
    elif len(names) == num_classes:
        names, classes = in_order(names), range(num_classes)
    else:
        raise DataError(
            f"{folder} has {len(names)} subfolders, and the network {num_classes} classes without names: it needs a "
            f"subfolder for each class, in their order, or a labels.csv"
        )
    return [(path, label) for name, label in zip(names, classes) for path in pictures_in(folder / name)]
