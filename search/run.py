"""`run`: a whole search in its run folder, new or gone on with."""

import json
import logging
import os
import platform
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nasnet_zoo.errors import JournalError, SearchError, ZooError
from nasnet_zoo.files import atomic_file, locked

from .child import Child
from .config import SearchConfig
from .driver import Driver, Record
from .fleet import Fleet, make_fleet
from .journal import Journal
from .searchers import make_searcher
from .space import Space

CONFIG, JOURNAL, BEST, REPORT, EVENTS = "config.json", "journal.sqlite", "best.json", "report.html", "tensorboard"
REPORT_SECONDS, REPORT_SHARE = 60.0, 0.01  # between two reports, and what they may take of the driver's time

log = logging.getLogger("nasnet_zoo")


@dataclass(frozen=True)
class SearchResult:
    """A finished search: `best` is the child with the highest reward, its architecture that of the space."""

    folder: Path
    best: Record
    architecture: Any
    children: int


def run(
    config: SearchConfig,
    *,
    child: Child | None = None,
    fleet: Fleet | None = None,
    baseline: Sequence[str | os.PathLike[str]] = (),
    on_change: Callable[[Driver], None] = lambda driver: None,
) -> SearchResult:
    """Searches until `config.children` children are finished, and returns the best.

    The folder `config.folder` gets config.json, the journal, TensorBoard events, report.html, new every minute or
    so, and, always current, best.json. If it holds a search with the same config, that goes on, and a child that was
    being trained is trained again. `child` and `fleet` replace those of the config; `baseline` names the run folders
    of other searches that the report compares it with. Raises a ZooError: JournalError if the folder holds another
    search or a damaged one or another process works on it, ConfigError, DataError, SearchError. KeyboardInterrupt and
    SIGTERM end it at once and lose nothing.
    """
    folder = Path(config.folder)
    space = config.space.space()
    child = child or make_child(config, space)
    fleet = fleet or make_fleet(config.fleet, child)
    reporter = _Reporter(folder, baseline)
    with _alone(folder):
        journal = open_journal(config)
        try:
            searcher = make_searcher(config, space)
            with _EventLog(folder) as events:
                watcher = _Watcher(folder, config, space, events, reporter, on_change)
                driver = Driver(config, space, searcher, journal, watcher.changed, events.update)
                with reporter:
                    watcher.changed(driver)
                    if len(driver.finished) < config.children:
                        with _terminable(), fleet:
                            driver.run(fleet)
        finally:
            journal.close()
    if driver.best is None:
        raise SearchError(f"none of the {len(driver.finished)} children in {folder} has a result: see report.html")
    return SearchResult(folder, driver.best, space.decode(driver.best.tokens), len(driver.finished))


def make_child(config: SearchConfig, space: Space) -> Child:
    """The child of a config's task."""
    if config.child.task == "nasbench201":
        from .tables import TableChild

        return TableChild(config.child)
    from .cifar import CifarChild

    return CifarChild(config.child, space.style)


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
        "style": getattr(space, "style", None),
        "tokens": list(record.tokens),
        "hash": record.hash,
        "child": record.child,
        "reward": record.reward,
        "metrics": record.metrics,
    }


class _Reporter:
    """Writes report.html now and then, and in the end. One that fails is a warning, and never ends a search."""

    def __init__(self, folder: Path, baseline: Sequence[str | os.PathLike[str]]) -> None:
        from .history import read_history

        self.folder, self.baseline = folder, baseline
        self.due = time.monotonic() + REPORT_SECONDS
        for other in baseline:
            read_history(other)  # what cannot be read is told at the start

    def __enter__(self) -> "_Reporter":
        return self

    def __exit__(self, kind: type[BaseException] | None, *error) -> None:
        if kind is None or issubclass(kind, Exception):  # whoever interrupts it does not want to wait
            self.write()

    def changed(self) -> None:
        if time.monotonic() >= self.due:
            self.write()

    def write(self) -> None:
        from .report import write_report

        start = time.monotonic()
        try:
            write_report(self.folder, self.baseline)
        except Exception as error:
            log.warning("%s could not be written: %s", self.folder / REPORT, error)
        end = time.monotonic()
        self.due = end + max(REPORT_SECONDS, (end - start) / REPORT_SHARE)


class _Watcher:
    """Keeps best.json, the events and the report current and passes on what happens."""

    def __init__(
        self,
        folder: Path,
        config: SearchConfig,
        space: Space,
        events: "_EventLog",
        reporter: _Reporter,
        on_change: Callable[[Driver], None],
    ) -> None:
        self.folder, self.config, self.space = folder, config, space
        self.events, self.reporter, self.on_change = events, reporter, on_change
        self.written: int | None = None
        self.logged = 0

    def changed(self, driver: Driver) -> None:
        best = driver.best
        if best is not None and best.child != self.written:
            with atomic_file(self.folder / BEST) as temporary:
                record = best_record(self.config, self.space, best)
                temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
            self.written = best.child
        for place in range(self.logged, len(driver.finished)):
            self.events.child(place, driver.records[driver.finished[place]])
        self.logged = len(driver.finished)
        self.on_change(driver)
        self.reporter.changed()


class _EventLog:
    """TensorBoard events. A resumed search writes its earlier children again, so that one file tells all. What cannot
    be written is a warning, once, and never ends a search."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / EVENTS
        self.writer: Any = None

    def __enter__(self) -> "_EventLog":
        from torch.utils.tensorboard import SummaryWriter

        with self._optional():
            self.folder.mkdir(parents=True, exist_ok=True)
            for old in self.folder.glob("events.*"):
                old.unlink()
            # A search that goes on writes thousands of events at once, and shall not wait for the disk.
            self.writer = SummaryWriter(str(self.folder), max_queue=100_000, flush_secs=30)
        return self

    def __exit__(self, *error) -> None:
        with self._optional():
            if self.writer is not None:
                self.writer.close()

    def child(self, place: int, record: Record) -> None:
        if record.reward is not None:
            self._add("child/reward", record.reward, place)
        if record.seconds:
            self._add("child/seconds", record.seconds, place)

    def update(self, children: int, statistics: dict[str, float]) -> None:
        for name, value in statistics.items():
            self._add(name, value, children)

    def _add(self, name: str, value: float, step: int) -> None:
        with self._optional():
            if self.writer is not None:
                self.writer.add_scalar(name, value, step)

    @contextmanager
    def _optional(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.writer = None
            log.warning("no more TensorBoard events can be written to %s: %s", self.folder, error.strerror or error)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
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


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM, which clusters send before they take a machine away, ends the search like Ctrl-C."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(signum, frame):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
