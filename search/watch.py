"""Keeps best.json, TensorBoard's events and the report up to date while a search runs."""

import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nasnet_zoo.errors import ZooError
from nasnet_zoo.util.files import atomic_file

from .beside import distinct, remember, remembered
from .config import SearchConfig
from .driver import Driver
from .folder import BEST, EVENTS, REPORT, best_record
from .history import read_history
from .records import Record
from .spaces.base import Space

log = logging.getLogger("nasnet_zoo")

REPORT_SECONDS, REPORT_SHARE = 60.0, 0.01  # between two reports, and the share of the driver's time that they may take


class Reporter:
    """Writes report.html from time to time, and at the end. A failure is a warning, and never ends a search.

    The report compares the search with `baseline`, or with the searches that were named before if that is None.
    """

    def __init__(self, folder: Path, baseline: Sequence[str | os.PathLike[str]] | None) -> None:
        self.folder, self.baseline = folder, baseline
        self.due = time.monotonic() + REPORT_SECONDS
        for other in baseline or ():
            read_history(other)  # a folder that cannot be read is an error at the start

    def __enter__(self) -> "Reporter":
        if self.baseline is not None:
            try:
                remember(self.folder, remembered(self.folder) | {"baseline": distinct(self.baseline)})
            except ZooError as error:
                log.warning("the report will show no baseline: %s", error)
        return self

    def __exit__(self, kind: type[BaseException] | None, *error) -> None:
        if kind is None or issubclass(kind, Exception):  # a user who interrupts the search does not want to wait
            self.write()

    def changed(self) -> None:
        if time.monotonic() >= self.due:
            self.write()

    def write(self) -> None:
        start = time.monotonic()
        try:
            from .report.report import write_report

            write_report(self.folder)
        except Exception as error:
            log.warning("%s could not be written: %s", self.folder / REPORT, error)
        end = time.monotonic()
        self.due = end + max(REPORT_SECONDS, (end - start) / REPORT_SHARE)


class Watcher:
    """Keeps best.json, the events and the report up to date, and calls `on_change`."""

    def __init__(
        self,
        folder: Path,
        config: SearchConfig,
        space: Space,
        events: "EventLog",
        reporter: Reporter,
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


class EventLog:
    """TensorBoard events. A resumed search writes its earlier children again, so that one file has everything. A
    failure to write is a warning, once, and never ends a search."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / EVENTS
        self.writer: Any = None

    def __enter__(self) -> "EventLog":
        from torch.utils.tensorboard import SummaryWriter

        with self._optional():
            self.folder.mkdir(parents=True, exist_ok=True)
            for old in self.folder.glob("events.*"):
                old.unlink()
            # A resumed search writes thousands of events at once, and must not wait for the disk.
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
