"""Names of classes in a file that a user wrote. Imports no torch."""

from dataclasses import dataclass
from pathlib import Path
from unicodedata import normalize

from ..arch.checks import read_json
from ..errors import DataError


@dataclass(frozen=True)
class LabelFile:
    """What a user calls the classes of a data set: the names in the classes' order, or the name of each folder.

    These are not the labels of a network, which fix the order of its outputs: names without an order of their own are
    for the folders in theirs.
    """

    path: Path
    names: tuple[str, ...] | dict[str, str]


def read_labels(path: str | Path) -> LabelFile:
    """The names in a file: a text file with one name a line, or a JSON file (.json) with a list of names or with an
    object of folders and their names.

    Raises DataError for a file that cannot be read, or is none of these.
    """
    path = Path(path)
    names = _from_json(path) if path.suffix.lower() == ".json" else _from_lines(path)
    if not names:
        raise DataError(f"{path} has no names in it: write one for each class")
    return LabelFile(path, names)


def _from_json(path: Path) -> tuple[str, ...] | dict[str, str]:
    value = read_json(path, "list of labels", DataError)
    names = list(value.values()) if isinstance(value, dict) else value
    if not isinstance(names, list) or not all(isinstance(name, str) and name.strip() for name in names):
        raise DataError(
            f"{path} is no list of names: write a JSON list with a text for each class, or an object with a text for "
            f"each folder"
        )
    if isinstance(value, dict):
        return {normalize("NFC", folder): _clean(name) for folder, name in value.items()}
    return tuple(map(_clean, names))


def _from_lines(path: Path) -> tuple[str, ...]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as problem:
        raise DataError(
            f"cannot read the labels {path}: {problem.strerror}; name a text file with one name a line"
        ) from problem
    except ValueError as problem:
        raise DataError(f"{path} is no text in UTF-8 ({problem}): save it as one") from problem
    names = [_clean(line) for line in text.rstrip().split("\n")] if text.strip() else []
    if "" in names:
        raise DataError(f"{path}, line {names.index('') + 1} is empty: write the name of a class there, or delete it")
    return tuple(names)


def _clean(name: str) -> str:
    """Accented letters are one character, as they are typed, and not two, as macOS writes them in names of files."""
    return normalize("NFC", name.strip())
