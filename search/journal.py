"""The journal: every event of a search in one SQLite file, written by the driver alone, so that nothing is lost.

Events are only added, never changed. Each update of the searcher also saves its state in the same transaction, in place
of the one before; the events after it can be replayed. Imports no torch until a state is packed.
"""

import json
import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from nasnet_zoo.arch.checks import parse_json
from nasnet_zoo.errors import JournalError, first_line
from nasnet_zoo.util.files import atomic_file

FORMAT_VERSION = 1
KINDS = {"session", "proposed", "started", "reported", "finished", "updated", "stopped", "excluded", "included"}
NETWORK_FILE_SYSTEMS = {
    *("nfs", "nfs4", "cifs", "smb3", "smbfs", "lustre", "gpfs", "beegfs", "ceph", "9p", "afs"),
    *("fuse.glusterfs", "fuse.sshfs"),
}

_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE events (id INTEGER PRIMARY KEY, time REAL NOT NULL, kind TEXT NOT NULL, child INTEGER, body TEXT NOT NULL);
CREATE UNIQUE INDEX once ON events (kind, child) WHERE kind IN ('proposed', 'finished');
CREATE TABLE snapshot (id INTEGER PRIMARY KEY CHECK (id = 0), event INTEGER NOT NULL, state BLOB NOT NULL);
"""


@dataclass(frozen=True)
class Event:
    """`kind` is "session" (a driver starts; context, what has changed), "proposed" (child, tokens, hash, notes, batch),
    "started" (child, attempt), "reported" (child, epoch, metrics, reward, whether it goes on), "finished" (child,
    status, metrics, reward, ...), "updated" (the children the searcher observed), "stopped" (the driver ends, but not
    because of the children that have started and not finished), "excluded" (a place of the fleet gets no more children,
    because those failed there) or "included" (it does again, because they failed elsewhere too)."""

    id: int
    time: float
    kind: str
    child: int | None
    body: dict[str, Any]


class Journal:
    """An open journal. `create` writes a new one, `open_existing` opens one that exists. Both raise JournalError, as
    does every later read or write that fails."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path, self._connection = path, connection

    @classmethod
    def create(cls, path: str | Path, meta: dict[str, Any]) -> "Journal":
        path = Path(path)
        rows = {"format_version": FORMAT_VERSION, **meta}
        with _explained(path):
            with atomic_file(path) as temporary, closing(sqlite3.connect(temporary)) as connection:
                connection.execute("PRAGMA journal_mode = OFF")  # the file appears complete or not at all
                connection.executescript(_SCHEMA)
                connection.executemany("INSERT INTO meta VALUES (?, ?)", [(k, json.dumps(v)) for k, v in rows.items()])
                connection.commit()
        return cls.open_existing(path)

    @classmethod
    def open_existing(cls, path: str | Path) -> "Journal":
        path = Path(path)
        if not path.is_file():
            raise JournalError(f"there is no journal {path}: name the folder of a search, or start one")
        journal = cls(path, _connect(path))
        try:
            journal._check()
            journal._make_durable()
        except BaseException:
            journal.close()
            raise
        return journal

    def _check(self) -> None:
        """Raises JournalError if the file is damaged or another version wrote it; changes nothing in it."""
        with _explained(self.path), _decoded(self.path):
            problem = self._connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if problem != "ok":
            raise JournalError(f"{self.path} is damaged ({_line(problem)}): {_SALVAGE}")
        if strange := self._strange():
            raise JournalError(_strange_journal(self.path, strange))

    def _strange(self) -> str | None:
        """What shows that no nasnet_zoo wrote the file, or another version of it; None if nothing does."""
        with _explained(self.path):
            # They would run at every reading or writing of the events, and could lose them or never end.
            query = "SELECT type, name FROM sqlite_master WHERE type IN ('trigger', 'view') OR sql LIKE '%VIRTUAL%'"
            active = self._connection.execute(query).fetchone()
        if active is not None:
            return f"the {active[0]} {_line(active[1])}, which no journal has"
        version = self.meta().get("format_version")
        if version != FORMAT_VERSION:
            return f"format {_line(version)}, this nasnet_zoo reads {FORMAT_VERSION}"
        with _explained(self.path):
            kinds = {str(kind) for (kind,) in self._connection.execute("SELECT DISTINCT kind FROM events")} - KINDS
        return f"events that this nasnet_zoo does not know ({_line(', '.join(sorted(kinds)))})" if kinds else None

    def _make_durable(self) -> None:
        """Sets SQLite's options so that committed events survive a power cut."""
        with _explained(self.path):
            if os.access(self.path.parent, os.W_OK):
                self._connection.execute(f"PRAGMA journal_mode = {'DELETE' if on_network(self.path) else 'WAL'}")
            self._connection.execute("PRAGMA synchronous = FULL")

    def meta(self) -> dict[str, Any]:
        with _explained(self.path), _decoded(self.path):
            return {key: parse_json(value) for key, value in self._connection.execute("SELECT key, value FROM meta")}

    @contextmanager
    def transaction(self) -> Iterator["Journal"]:
        """Either all events that are added inside are on the disk when the block ends, or none of them."""
        with _explained(self.path), _transaction(self._connection):
            yield self

    def add(self, kind: str, child: int | None = None, **body: Any) -> int:
        """Adds an event, inside a transaction, and returns its id."""
        row = (time.time(), kind, child, json.dumps(body))
        entered = self._connection.execute("INSERT INTO events (time, kind, child, body) VALUES (?, ?, ?, ?)", row)
        return cast(int, entered.lastrowid)  # None before the first INSERT alone

    def keep_state(self, event: int, state: dict[str, Any]) -> None:
        """Replaces the saved state of the searcher by its state after `event`, inside a transaction."""
        self._connection.execute("INSERT OR REPLACE INTO snapshot VALUES (0, ?, ?)", (event, pack_state(state)))

    def state(self) -> tuple[int, dict[str, Any]] | None:
        """The id of the event after which the last state was saved, and the state."""
        with _explained(self.path):
            row = self._connection.execute("SELECT event, state FROM snapshot").fetchone()
        with _decoded(self.path):
            return None if row is None else (row[0], unpack_state(row[1]))

    @contextmanager
    def intact(self) -> Iterator[None]:
        """For code that takes over what the journal says: whatever goes wrong in it, the journal is damaged. What a
        searcher saved is known to the searcher alone, so that nothing else can check it."""
        try:
            yield
        except JournalError:
            raise
        except Exception as error:
            raise damaged(self.path, first_line(error)) from error

    def events(self, kind: str | None = None) -> list[Event]:
        """All events, or those of a kind, in order."""
        query = "SELECT id, time, kind, child, body FROM events WHERE kind = ?1 OR ?1 IS NULL ORDER BY id"
        with _explained(self.path), _decoded(self.path):
            rows = self._connection.execute(query, (kind,)).fetchall()
            return [Event(number, at, name, child, parse_json(body)) for number, at, name, child, body in rows]

    def close(self) -> None:
        self._connection.close()


def read_events(path: str | Path) -> tuple[dict[str, Any], list[Event]]:
    """The meta values and events of a journal, for a reader that is not the driver."""
    with closing(Journal.open_existing(path)) as journal:
        return journal.meta(), journal.events()


def refuse_another_version(path: str | Path) -> None:
    """Raises JournalError if another version wrote the journal, and changes nothing: SQLite may write to a file that it
    opens, so it gets a copy. A file that is damaged or being written raises nothing here; opening it later does."""
    path, strange = Path(path), None
    with suppress(OSError, JournalError), tempfile.TemporaryDirectory() as folder:
        for file in (path, path.with_name(f"{path.name}-wal")):
            if file.is_file():
                shutil.copy(file, folder)
        copy = Path(folder, path.name)
        with closing(Journal(copy, _connect(copy))) as journal:
            strange = journal._strange()
    if strange:
        raise JournalError(_strange_journal(path, strange))


def pack_state(state: dict[str, Any]) -> bytes:
    """A searcher's state as safetensors: tensors as they are, everything else as JSON in the header."""
    from safetensors.torch import save
    from torch import Tensor

    tensors = {key: value.contiguous() for key, value in state.items() if isinstance(value, Tensor)}
    rest = {key: value for key, value in state.items() if key not in tensors}
    return save(tensors, {"state": json.dumps(rest)})


def unpack_state(blob: Any) -> dict[str, Any]:
    """The state that `pack_state` packed; raises ValueError, KeyError or SafetensorError if it did not."""
    from safetensors.torch import load

    if not isinstance(blob, bytes):
        raise ValueError(f"the searcher's state is {type(blob).__name__}, not bytes")
    tensors = load(blob)
    length = int.from_bytes(blob[:8], "little")
    header = parse_json(blob[8 : 8 + length].decode())
    rest = parse_json(header.get("__metadata__", {})["state"])
    if not isinstance(rest, dict):
        raise ValueError(f"the searcher's state is {type(rest).__name__}, not a dict")
    return {**tensors, **rest}


def on_network(path: Path, mounts: str = "/proc/mounts") -> bool:
    """Whether `path` is on a network file system, where SQLite's write-ahead log must not be used."""
    try:
        lines = Path(mounts).read_text(encoding="utf-8").splitlines()
    except OSError:
        return str(path.absolute()).startswith("\\\\")  # not Linux: this finds at least Windows's network paths
    points = [(fields[1].replace("\\040", " "), fields[2]) for line in lines if len(fields := line.split()) > 2]
    above = [(point, kind) for point, kind in points if path.resolve().is_relative_to(point)]
    innermost = sorted(above, key=lambda mount: len(mount[0]))[-1:]  # the last mount at a point hides the others
    return any(kind in NETWORK_FILE_SYSTEMS for _, kind in innermost)


def _strange_journal(path: Path, strange: str) -> str:
    return f"{path} has {strange}: use the nasnet_zoo that wrote it, or another folder"


_SALVAGE = (
    "copy the folder, run `sqlite3 journal.sqlite .recover | sqlite3 recovered.sqlite` in the copy and put "
    "recovered.sqlite in its place, or start in another folder"
)


def _connect(path: Path) -> sqlite3.Connection:
    with _explained(path):
        if os.access(path.parent, os.W_OK):
            return sqlite3.connect(path, isolation_level=None, timeout=30, check_same_thread=False)
        # To read a file with a write-ahead log, SQLite writes files beside it, unless the file is opened as immutable.
        mode = "mode=ro" if path.with_name(f"{path.name}-wal").exists() else "immutable=1"
        return sqlite3.connect(f"{path.absolute().as_uri()}?{mode}", uri=True, isolation_level=None, timeout=30)


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    try:
        connection.execute("BEGIN IMMEDIATE")
        yield
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turns SQLite's and the system's errors into one sentence."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        reason = _line(error)
        if "full" in reason:
            advice = "free some space, then run the same command again: the search continues where it stopped"
        elif "disk I/O" in reason:
            advice = "see that the disk works and has space, then run the same command again: the search continues"
        elif any(sign in reason for sign in ("malformed", "not a database", "no such table", "decode", "corrupt")):
            advice = _SALVAGE
        else:
            advice = "see that the folder can be written and that no other program holds the file"
        raise JournalError(f"the journal {path} cannot be used ({reason}): {advice}") from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise JournalError(f"the journal {path} cannot be used ({reason}): choose another folder") from error


@contextmanager
def _decoded(path: Path) -> Iterator[None]:
    """Turns errors of JSON and safetensors about a damaged value into one sentence."""
    from safetensors import SafetensorError

    try:
        yield
    except (ValueError, KeyError, SafetensorError) as error:
        raise damaged(path, error) from error


def damaged(path: Path, what: Any) -> JournalError:
    """The error about a journal with a value that is not what it should be."""
    return JournalError(f"the journal {path} is damaged ({_line(what)}), and nothing in it was changed: {_SALVAGE}")


def _line(text: Any) -> str:
    """A short form of SQLite's message about a damaged file, which may be long because it quotes the file."""
    return " ".join(str(text).split())[:200]
