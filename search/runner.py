"""`run`: a whole search in its run folder, new or resumed."""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nasnet_zoo.errors import ConfigError, SearchError

from .children.base import Child, can_report, context_of
from .children.table import make_child
from .config import SearchConfig
from .costs import check_measured, check_reachable
from .driver import Driver
from .fleet.base import Fleet
from .fleet.table import make_fleet
from .folder import JOURNAL, REPORT, alone, open_journal, refuse_newer, write_config
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

    def __repr__(self) -> str:
        best = f"best child {self.best.child} of {self.children}, reward {self.best.reward:.4f}"
        return f"SearchResult({best}, {self.architecture!r}, in {self.folder})"


def run(
    config: SearchConfig,
    *,
    child: Child | None = None,
    fleet: Fleet | None = None,
    baseline: Sequence[str | os.PathLike[str]] | None = None,
    on_change: Callable[[Driver], None] = lambda driver: None,
) -> SearchResult:
    """Searches until `config.children` children are finished.

    Writes into the folder `config.folder`: config.json, the journal, TensorBoard events, report.html (rewritten about
    every minute) and best.json (always current). If the folder holds a search with the same config, that search is
    resumed, and children that were being trained are trained again. KeyboardInterrupt, SIGTERM and SIGHUP end the
    search at once; no finished child is lost.

    Args:
        config: the search.
        child: used instead of the config's child.
        fleet: used instead of the config's fleet.
        baseline: the run folders of other searches, with which the report compares this one; by default those that
            were named before.
        on_change: called with the driver whenever something has happened.

    Returns:
        The best child and its architecture.

    Raises:
        JournalError: if the folder holds another search or a damaged one, or another process works on it.
        ConfigError: for settings that do not fit together.
        DataError: if the child's data are missing or damaged.
        SearchError: if the search cannot start or continue, or no child has a result.
    """
    folder = Path(config.folder)
    space = config.space.space()
    if child is None:
        config = replace(config, child=config.child.completed())
        check_measured(config.cost, config.child)
        child = make_child(config.child, space)
    if config.rungs.epochs and not can_report(child):
        raise ConfigError(
            f"search: rungs need children that report on the way, and those here ({config.child.task}) do not: leave "
            f"rungs.epochs empty, or give the child's __call__ an argument `report`"
        )
    if not (folder / JOURNAL).is_file():
        check_reachable(config.cost, config.child, space, config.seed)
        for tokens in config.enqueue:
            space.check(tokens)
    fleet = fleet or make_fleet(replace(config.fleet, threads=config.child.threads), child)
    reporter = Reporter(folder, baseline)
    context = context_of(child)
    refuse_newer(folder)  # before the lock, which is a file in it
    driver: Driver | None = None
    with alone(folder, lambda: driver is not None and driver.begun):
        journal, session = open_journal(config, context)
        try:
            searcher = make_searcher(config, space)
            with EventLog(folder) as events:
                watcher = Watcher(folder, config, space, events, reporter, on_change)
                driver = Driver(config, space, searcher, journal, watcher.changed, events.update, session)
                write_config(config)
                with reporter:
                    watcher.changed(driver)
                    if driver.evaluated < config.children:
                        with _terminable(), fleet:
                            driver.run(fleet)
        finally:
            journal.close()
    if driver.best is None:
        count = driver.evaluated
        raise SearchError(f"none of the {count} children in {folder} has a result: see {folder / REPORT}")
    return SearchResult(folder, driver.best, space.decode(driver.best.tokens), driver.evaluated)


@contextmanager
def _terminable() -> Iterator[None]:
    """Makes SIGTERM and SIGHUP end the search like Ctrl-C. Clusters send SIGTERM before they take a machine away; a
    terminal sends SIGHUP when it is closed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(signum, frame):
        raise KeyboardInterrupt

    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:
        if before[number] is not signal.SIG_IGN:  # nohup ignores SIGHUP, and that must stay so
            signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, before[number])
