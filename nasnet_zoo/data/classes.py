"""The data sets that a training reads: folders of pictures, one folder a class. Imports no torch."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from unicodedata import normalize

from ..errors import ConfigError, DataError
from ..util.arguments import check_type
from .folders import Labelled, checked_folder, hidden, in_order, is_picture, picture_files, subfolders
from .label_file import LabelFile
from .labels import imagenet_names
from .matching import matched, matches

TRAIN, VAL = ("train", "training"), ("val", "validation", "valid", "test")  # the first that is there is read
ByClass = dict[str, list[str]]  # the paths of each class's pictures, by the name of its folder


@dataclass(frozen=True)
class ClassFolders:
    """A data set of folders of pictures, one folder a class.

    train, val: (path as a str, index of the class's label) of each picture; `val` has no class that `train` lacks
    labels: the classes' names, by index; those that a network brought may have no pictures
    held_out: whether `val` is a part that was held out, because the data set has none of its own
    """

    train: Labelled
    val: Labelled
    labels: tuple[str, ...]
    held_out: bool

    @property
    def unmeasured(self) -> tuple[str, ...]:
        """The labels that no picture in `val` has: what is measured there says nothing about them."""
        measured = {index for _, index in self.val}
        return tuple(label for index, label in enumerate(self.labels) if index not in measured)


def class_folders(
    folder: str | Path, labels: Sequence[str] | LabelFile | None = None, *, share: float = 0.1
) -> ClassFolders:
    """The data set in a folder: `train` and `val` with a subfolder of pictures for each class, or the classes' folders
    themselves. Their own subfolders are searched too; what is hidden is left out. Nothing is opened.

    Args:
        labels: those of a network, which the folders have to be named after; or a file of names (`read_labels`), which
            may also be for the folders in their order; if None, the folders' names are the labels, or ImageNet's for
            its WordNet ids (n01440764).
        share: how much of each class is held out for `val`, above 0 and below 1, if the data set has no `val`: the same
            pictures on every machine, whatever the other classes are, and never all of a class.

    Raises DataError for a folder that is no such data set, and ConfigError for a share that is none.
    """
    check_type(share, float, "share")
    if not 0 < share < 1:
        raise ConfigError(f"share {share} is not a part of a class: choose one above 0 and below 1, such as 0.1")
    train, val = layout(checked_folder(folder))
    pictures = _training_pictures(train)
    indices, names = _numbered(list(pictures), labels, train)
    index_of = dict(zip(pictures, indices))
    if val is None:
        pictures, measured = _split(pictures, train, share)
    else:
        measured = _validation_pictures(val, pictures, train)

    def labelled(part: ByClass) -> Labelled:
        return [(path, index_of[name]) for name, paths in part.items() for path in paths]

    return ClassFolders(labelled(pictures), labelled(measured), names, val is None)


def layout(data: Path) -> tuple[Path, Path | None]:
    """Where the classes' folders are, and where those for validation are, if anywhere."""
    train, val = _splits(data)
    if train is not None:
        return train, val
    if val is not None and all(name.lower() in VAL for name in subfolders(data)):
        raise DataError(f"{data} has a folder {val.name} and none to train on: call that one train, and put it there")
    return data, None


def measured_folder(data: str | Path) -> str | Path:
    """Where the pictures to measure on are: in the folder for validation beside that to train on, if a folder has both
    as a training's has, else in itself."""
    train, val = _splits(Path(data)) if os.path.isdir(data) else (None, None)
    return data if train is None or val is None else val


def _splits(data: Path) -> tuple[Path | None, Path | None]:
    """A folder's own folders to train and to measure on, as far as it has them."""
    there = {name.lower(): name for name in subfolders(data)}
    train, val = (next((data / there[name] for name in names if name in there), None) for names in (TRAIN, VAL))
    return train, val


def _training_pictures(root: Path) -> ByClass:
    if (root / "labels.csv").is_file() and not subfolders(root):
        raise DataError(
            f"{root} has a labels.csv, which is for `nasnet-zoo eval`: a training needs a subfolder of pictures for "
            f"each class"
        )
    pictures = _by_class(root)
    empty = [name for name, paths in pictures.items() if not paths]
    if len(empty) == len(pictures):
        raise DataError(f"{root} has no pictures: put a subfolder of pictures for each class there")
    if empty:
        raise DataError(
            f"{root} has folders without pictures ({_few(empty)}): put pictures of their classes there, or delete them"
        )
    if len(pictures) == 1:
        (only,) = pictures
        raise DataError(
            f"{root} has one class, {only}, and a training needs two: add another folder of pictures, or name "
            f"{root / only} if that is the data set"
        )
    return pictures


def _validation_pictures(root: Path, trained: ByClass, train: Path) -> ByClass:
    pictures = {name: paths for name, paths in _by_class(root).items() if paths}
    if not pictures:
        raise DataError(f"{root} has no pictures: put a subfolder of pictures for each class there, or delete it")
    if unknown := [name for name in pictures if name not in trained]:
        raise DataError(
            f"{root} has classes that {train} lacks ({_few(unknown)}): name the folders as they are called there, or "
            f"delete them"
        )
    return pictures


def _by_class(root: Path) -> ByClass:
    """The pictures in each subfolder, sorted, by its name in NFC: macOS decomposes what a user typed. In the order of
    the names."""
    folders = subfolders(root)
    if strange := [name for name in folders if name.encode(errors="replace").decode() != name]:
        raise DataError(f"{root}/{ascii(strange[0])[1:-1]} is no name in UTF-8: rename the folder to what it should be")
    if loose := [name for name in os.listdir(root) if not hidden(name) and is_picture(root / name)]:
        raise DataError(
            f"pictures lie directly in {root}, such as {min(loose)}: put each into the subfolder of its class, or move "
            f"them away"
        )
    pictures: ByClass = {}
    for name in folders:
        pictures.setdefault(normalize("NFC", name), []).extend(picture_files(os.path.join(root, name)))
    return {name: pictures[name] for name in in_order(pictures)}


def _numbered(
    names: list[str], labels: Sequence[str] | LabelFile | None, root: Path
) -> tuple[Sequence[int], tuple[str, ...]]:
    """The index of each folder's class, and the labels."""
    in_turn = range(len(names))
    if labels is None:
        return in_turn, _own_labels(names)
    if not isinstance(labels, LabelFile):
        return matched(names, labels, root), tuple(labels)
    given, path = labels.names, labels.path
    if isinstance(given, dict):
        if nameless := [name for name in names if name not in given]:
            raise DataError(f"{path} has no names for folders in {root} ({_few(nameless)}): add them")
        return in_turn, tuple(given[name] for name in names)
    if any(matches(names, given)):
        return matched(names, given, root, path, ", or write a JSON object of folders and names"), given
    if len(given) != len(names):
        raise DataError(
            f"{path} has {len(given)} names, which are not those of the {len(names)} folders in {root}: write one for "
            f"each folder, in the order of the folders"
        )
    return in_turn, given


def _own_labels(names: list[str]) -> tuple[str, ...]:
    """The folders' names; for ImageNet's WordNet ids, whose order is that of its classes, the names of these."""
    imagenet = imagenet_names()
    return tuple(imagenet[name] for name in names) if imagenet.keys() >= set(names) else tuple(names)


def _split(pictures: ByClass, root: Path, share: float) -> tuple[ByClass, ByClass]:
    """The pictures without those that are held out, and these: a share of each class, of at least one picture and never
    of all, chosen by hashes of the paths below the root, which are as good as chance and everywhere the same."""
    start = len(os.path.join(root, ""))

    def rank(path: str) -> bytes:
        below = normalize("NFC", path[start:].replace(os.sep, "/"))
        return sha256(below.encode(errors="surrogatepass")).digest()  # names of files may be no UTF-8

    kept, held = {}, {}
    for name, paths in pictures.items():
        count = min(max(1, round(share * len(paths))), len(paths) - 1)
        chosen = set(sorted(paths, key=rank)[:count])
        kept[name] = [path for path in paths if path not in chosen]
        held[name] = [path for path in paths if path in chosen]
    if not any(held.values()):
        raise DataError(
            f"{root} has one picture of each class, and none to spare for measuring: add pictures, or a folder val "
            f"beside a folder train"
        )
    return kept, held


def _few(names: Sequence[str]) -> str:
    """Names for a sentence: three at most, and how many there are beside them."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
