"""The run folder of a search: its names, its lock, and what is written there."""

import json
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nasnet_zoo.errors import JournalError, ZooError
from nasnet_zoo.util.files import atomic_file, locked

from .config import SearchConfig
from .journal import Journal
from .records import Record
from .spaces.base import Space

CONFIG, JOURNAL, BEST, REPORT, EVENTS = "config.json", "journal.sqlite", "best.json", "report.html", "tensorboard"


def open_journal(config: SearchConfig) -> Journal:
    """The journal of the config's folder, made if there is none; JournalError if it is another search's."""
    folder = Path(config.folder)
    path = folder / JOURNAL
    identity = config.identity()
    if not path.is_file():
        journal = Journal.create(path, {"identity": identity})
    else:
        journal = Journal.open_existing(path)
        found = journal.meta().get("identity", {})
        different = [key for key in sorted(found.keys() | identity.keys()) if found.get(key) != identity.get(key)]
        if different:
            journal.close()
            said = "; ".join(f"{key} {found.get(key)!r} there, {identity.get(key)!r} here" for key in different[:4])
            more = f" and {len(different) - 4} more" if len(different) > 4 else ""
            raise JournalError(
                f"{folder} holds a search with another config ({said}{more}): use its own, or another folder"
            )
    with journal.transaction():
        journal.add("session", None, host=platform.node(), python=platform.python_version())
    with atomic_file(folder / CONFIG) as temporary:
        temporary.write_text(json.dumps(config.to_json(), indent=1) + "\n", encoding="utf-8")
    return journal


def best_record(config: SearchConfig, space: Space, record: Record) -> dict[str, Any]:
    """What best.json says: enough to build, transfer, draw and reproduce the cell."""
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
    }


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Holds the run folder against a second driver."""
    lock = locked(folder / JOURNAL, timeout=1.0)
    try:
        lock.__enter__()
    except ZooError as error:
        if "Another process" not in str(error):
            raise
        raise JournalError(f"another process is running the search in {folder}: wait for it, or end it") from None
    try:
        yield
    finally:
        lock.__exit__(None, None, None)
