"""Pictures by what a user names, and labelled pictures from folders, for evaluation."""

import csv
import glob
import os
import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path

from ..errors import DataError, ImageError
from .images import ImageSource
from .labels import wnids

SUFFIXES = {
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".avif", ".bmp", ".gif", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".tga"),
}
Labelled = Sequence[tuple[ImageSource, int]]


def pictures_in(folder: str | Path) -> list[Path]:
    """The pictures of a folder and its subfolders, by their suffixes, sorted; nothing that is hidden."""
    found = []
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(place, name) for name in files if not name.startswith(".") and is_picture(Path(place, name))]
    return sorted(found)


def is_picture(path: str | Path) -> bool:
    """Whether a file has a picture's suffix. A pipe or a device is none: reading it may never end. A link to what has
    gone is one, for its reader to tell."""
    picture = os.path.splitext(path)[1].lower() in SUFFIXES
    return picture and (os.path.isfile(path) or not os.path.exists(path))


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
    folder = Path(data)
    if not os.path.isdir(folder):  # False, unlike Path's, for a name that is too long
        if "://" in str(data):
            raise DataError(f"{data} is an address, and addresses are not fetched: download it and name the folder")
        raise DataError(f"there is no folder {folder}: name one with a subfolder of pictures per class, or cifar10")
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
    subfolders = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if labels is None:
        names = [path.name for path in subfolders]
        if len(subfolders) != num_classes:
            raise DataError(
                f"{folder} has {len(subfolders)} subfolders, and the network {num_classes} classes without names: it "
                f"needs a subfolder for each class, in their order, or a labels.csv"
            )
        numbered = sorted(names, key=int) if all(name.isdecimal() for name in names) else names
        classes = [numbered.index(name) for name in names]
    else:
        classes = _classes([path.name for path in subfolders], labels, folder)
    return [(path, label) for subfolder, label in zip(subfolders, classes) for path in pictures_in(subfolder)]


def _classes(names: Iterable[str], labels: Sequence[str], folder: Path) -> list[int]:
    """The class of each subfolder, by its name: a label, a WordNet id, or a label but for case, spaces, hyphens and
    underscores."""
    exact, loose = _positions(labels), _positions([_plain(label) for label in labels])
    exact |= _positions(wnids(labels) or ())
    classes = []
    for name in names:
        found = exact.get(name) or loose.get(_plain(name), [])
        if len(found) != 1:
            near = get_close_matches(_plain(name), loose, 1)
            hint = f" ({labels[loose[near[0]][0]]} is one)" if near else ""
            ways = "or write a labels.csv of files and class indices"
            if found:
                raise DataError(
                    f"{folder}/{name} may be {len(found)} of the network's classes: name it as the label is, {ways}"
                )
            known = " or their WordNet ids (n01440764)" if wnids(labels) else ""
            raise DataError(
                f"{folder}/{name} is the name of none of the network's {len(labels)} classes{hint}: name subfolders "
                f"after the labels{known}, {ways}"
            )
        classes += found
    return classes


def _positions(names: Iterable[str]) -> dict[str, list[int]]:
    """Where each name is in a sequence."""
    positions: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        positions.setdefault(name, []).append(index)
    return positions


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name.casefold()).strip()
