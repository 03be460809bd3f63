"""The run folder of a search: the names of its files, its lock, and best.json."""

import json
import platform
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from nasnet_zoo import __version__
from nasnet_zoo.arch.checks import read_json
from nasnet_zoo.errors import BusyError, ConfigError, JournalError, ZooError
from nasnet_zoo.lookup import BEST, CONFIG, JOURNAL
from nasnet_zoo.util.files import atomic_file, locked

from .bodies import check_event
from .config import MAY_CHANGE, SearchConfig
from .journal import Journal, refuse_another_version
from .records import Record
from .spaces.base import Space

REPORT, EVENTS = "report.html", "tensorboard"
BESIDE = "report.json"  # the searches that the report shows beside its own


def read_config(folder: Path) -> SearchConfig:
    """The config of the search in a run folder; raises ConfigError, or JournalError if another version wrote it."""
    value = read_json(folder / CONFIG, "search config")
    try:
        return SearchConfig.from_json(value)
    except ConfigError as error:
        raise JournalError(
            f"{folder / CONFIG} is of another nasnet_zoo ({error}): use the one that wrote it, or another folder"
        ) from error


def refuse_newer(folder: Path) -> None:
    """Raises JournalError if a later version wrote into the run folder; changes nothing in it."""
    if (folder / JOURNAL).is_file():
        refuse_another_version(folder / JOURNAL)
    if (folder / CONFIG).is_file():
        read_config(folder)


def refuse_another(config: SearchConfig) -> None:
    """Raises JournalError if the config's folder holds another search."""
    refuse_newer(Path(config.folder))
    path = Path(config.folder) / JOURNAL
    if path.is_file():
        with closing(Journal.open_existing(path)) as journal:
            _check_identity(journal, config)


def whole(folder: Path) -> Path:
    """A folder with a name that can be added to, which . and .. have not."""
    return folder.resolve() if folder.name in ("", "..") else folder


def open_journal(config: SearchConfig, context: dict[str, str] | None = None) -> tuple[Journal, dict[str, Any]]:
    """The journal of the config's folder, created if there is none, and what its next "session" event is to say; raises
    JournalError if it belongs to another search. `context` is the child's."""
    folder, context = Path(config.folder), context or {}
    path, changed = folder / JOURNAL, {}
    if not path.is_file():
        journal = Journal.create(path, {"identity": config.identity()})
    else:
        journal = Journal.open_existing(path)
        try:
            _check_context(journal, context)  # first: of other data, settings differ that were made of them
            _check_identity(journal, config)
            if (folder / CONFIG).is_file():
                changed = _differences(read_config(folder).flat(), config.flat())
        except ZooError:
            journal.close()
            raise
    session = dict(host=platform.node(), python=platform.python_version(), version=__version__)
    return journal, session | {"context": context, "changed": changed}


def write_config(config: SearchConfig) -> None:
    """Writes the config into its run folder."""
    with atomic_file(Path(config.folder) / CONFIG) as temporary:
        temporary.write_text(json.dumps(config.to_json(), indent=1) + "\n", encoding="utf-8")


def _check_identity(journal: Journal, config: SearchConfig) -> None:
    folder = journal.path.parent
    try:
        there = SearchConfig.from_identity(journal.meta().get("identity", {})).identity()
    except ConfigError as error:
        raise JournalError(
            f"{journal.path} is of another nasnet_zoo ({error}): use the one that wrote it, or another folder"
        ) from error
    different = _differences(there, config.identity())
    different = {key: values for key, values in different.items() if not key.startswith(MAY_CHANGE)}
    if different.get("child.threads", (1, 1))[0] == 0:  # the first version's journals do not say how many there were
        del different["child.threads"]
    said = [f"{key} {repr(a)[:60]} there, {b!r} here" for key, (a, b) in different.items()]
    if said:
        more = f" and {len(said) - 4} more" if len(said) > 4 else ""
        raise JournalError(
            f"{folder} holds a search with another config ({'; '.join(said[:4])}{more}): use its own, or another folder"
        )


def _check_context(journal: Journal, context: dict[str, str]) -> None:
    for event in journal.events("session"):
        with journal.intact():
            check_event(event)
        check_context(journal.path.parent, event.body.get("context", {}), context)


def check_context(folder: Path, there: dict[str, str], here: dict[str, str]) -> None:
    """Raises JournalError where a child's context is another one than that of the search in the folder."""
    for name, digest in there.items():
        if here.get(name, digest) != digest:
            raise JournalError(
                f"{folder} holds a search whose children had another {name} ({digest[:12]} there, {here[name][:12]} "
                f"here): name the same, or another folder"
            )


def _differences(before: dict[str, Any], now: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """(before, now) of every key whose value differs."""
    keys = sorted(before.keys() | now.keys())
    return {key: (before.get(key), now.get(key)) for key in keys if before.get(key) != now.get(key)}


def best_record(config: SearchConfig, space: Space, record: Record) -> dict[str, Any]:
    """The content of best.json: enough to build, transfer, draw and reproduce the cell."""
    architecture = space.decode(record.tokens)
    return {
        "kind": space.kind,
        "architecture": space.to_json(architecture),
        "space": config.space.name,
        "tokens": list(record.tokens),
        "hash": record.hash,
        "child": record.child,
        "reward": record.reward,
        "metrics": record.metrics,
        **config.child.data_record(),
    }


@contextmanager
def alone(folder: Path, begun: Callable[[], bool]) -> Iterator[None]:
    """Locks the run folder, so that no second driver can use it. If the block raises an Exception before `begun()`, the
    folder is then as it was before, except that a journal that it held has one more session."""
    folders = [path for path in (folder, *folder.parents) if not path.exists()]
    lock = [path for path in [folder / f".{JOURNAL}.lock"] if not path.exists()]
    with ExitStack() as after, ExitStack() as stack:
        try:
            stack.enter_context(locked(folder / JOURNAL, timeout=1.0))
        except BusyError:
            raise JournalError(f"another process is running the search in {folder}: wait for it, or end it") from None
        before = {path: path.read_bytes() for path in (folder / CONFIG, folder / BESIDE) if path.is_file()}
        new = [path for path in (folder / name for name in (CONFIG, BEST, REPORT, BESIDE, EVENTS)) if not path.exists()]
        if not (folder / JOURNAL).exists():  # else the files beside it may hold a part of it
            new += [folder / f"{JOURNAL}{end}" for end in ("", "-wal", "-shm")]
        try:
            yield
        except Exception:
            if not begun():
                _remove(new)
                for path, content in before.items():
                    with atomic_file(path) as temporary:
                        temporary.write_bytes(content)
                after.callback(_remove, [*lock, *folders])  # Windows does not remove a lock that is held
            raise


def _remove(paths: list[Path]) -> None:
    """Removes what is there of run files and run folders; a folder of something else's files stays."""
    for path in paths:
        with suppress(OSError):
            if path.name == EVENTS:
                shutil.rmtree(path)
            elif path.is_dir():
                path.rmdir()
            else:
                path.unlink()
