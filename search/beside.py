"""The searches beside which a search's report shows it: named once, remembered in the run folder. Imports no torch."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from nasnet_zoo.arch.checks import read_json
from nasnet_zoo.errors import ConfigError
from nasnet_zoo.util.files import atomic_file

from .folder import BESIDE

KEYS = "baseline", "seeds"  # searches by other searchers, and the same search with other seeds


def remembered(folder: str | os.PathLike[str]) -> dict[str, list[Path]]:
    """The run folders that were named last, by KEYS. None if no file says so: anybody may have changed it."""
    try:
        value = read_json(Path(folder) / BESIDE, "list of searches")
    except ConfigError:
        value = None
    value = value if isinstance(value, dict) else {}
    lists = {key: value.get(key, []) for key in KEYS}
    if not all(isinstance(names, list) and all(map(_is_path, names)) for names in lists.values()):
        return {key: [] for key in KEYS}
    return {key: [_place(folder, name) for name in names] for key, names in lists.items()}


def remember(folder: str | os.PathLike[str], named: Mapping[str, Sequence[Path]]) -> None:
    """Writes the named run folders into the run folder of a search, if other ones were there; raises ZooError."""
    path = Path(folder) / BESIDE
    text = json.dumps({key: [_name(folder, other) for other in named[key]] for key in KEYS}, indent=1) + "\n"
    with suppress(OSError, UnicodeDecodeError):
        if path.read_text(encoding="utf-8") == text:
            return
    if any(named.values()) or path.exists():
        with atomic_file(path) as temporary:
            temporary.write_text(text, encoding="utf-8")


def distinct(folders: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """The folders, each once, whatever ways to it were named."""
    return list({Path(folder).resolve(): Path(folder) for folder in folders}.values())


def _is_path(name: object) -> bool:
    try:
        return isinstance(name, str) and b"\0" not in os.fsencode(name)
    except UnicodeEncodeError:
        return False


def _name(folder: str | os.PathLike[str], other: Path) -> str:
    """How a run folder is written: as seen from the search's folder, so that both can be moved together."""
    with suppress(ValueError):  # on another drive
        return Path(os.path.relpath(other.resolve(), Path(folder).resolve())).as_posix()
    return str(other.resolve())


def _place(folder: str | os.PathLike[str], name: str) -> Path:
    """Where a run folder is that is written so, as a user would type it."""
    place = Path(os.path.normpath(Path(folder).resolve() / name))
    with suppress(ValueError):
        return place.relative_to(Path.cwd())
    return place
