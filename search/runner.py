"""`run`: a whole search in its run folder, new or gone on with."""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nasnet_zoo.errors import SearchError

from .children.base import Child, context_of
from .children.table import make_child
from .config import SearchConfig
from .driver import Driver
from .fleet.base import Fleet
from .fleet.table import make_fleet
from .folder import alone, open_journal, refuse_newer
from .records import Record
from .searchers.table import make_searcher
from .watch import EventLog, Reporter, Watcher


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
    search or a damaged one or another process works on it, ConfigError, DataError, SearchError. KeyboardInterrupt,
    SIGTERM and SIGHUP end it at once and lose nothing.
    """
    folder = Path(config.folder)
    space = config.space.space()
    child = child or make_child(config.child, space)
    fleet = fleet or make_fleet(config.fleet, child)
    reporter = Reporter(folder, baseline)
    context = context_of(child)
    refuse_newer(folder)  # before the lock, which is a file in it
    with alone(folder):
        journal = open_journal(config, context)
        try:
            searcher = make_searcher(config, space)
            with EventLog(folder) as events:
                watcher = Watcher(folder, config, space, events, reporter, on_change)
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


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM, which clusters send before they take a machine away, and SIGHUP, which a terminal sends that is closed,
    end the search like Ctrl-C."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(signum, frame):
        raise KeyboardInterrupt

    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:
        if before[number] is not signal.SIG_IGN:  # as nohup has it
            signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, before[number])
