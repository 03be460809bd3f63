"""The progress of a running search: a live table on a terminal, an occasional line in a log. Imports no torch."""

import time
from collections import Counter

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from nasnet_zoo.util.progress import Pace, duration

from .driver import Driver

MEAN_OF = 20
TABLE_SECONDS, LINE_SECONDS = 0.25, 60.0  # between two tables, and between two lines


class Progress:
    """Shows a search while it is open: `with Progress() as progress: run(config, on_change=progress.changed)`."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        self.live = Live(console=self.console, auto_refresh=False) if self.console.is_terminal else None
        self.counted = 0  # finished children that are in `failed`, `served` and `stopped`
        self.failed: Counter[str] = Counter()
        self.served = self.stopped = 0
        self.first: tuple[float, int] | None = None  # when this session began, and what was finished then
        self.pace = Pace(LINE_SECONDS if self.live is None else TABLE_SECONDS)

    def __enter__(self) -> "Progress":
        if self.live is not None:
            self.live.start()
        return self

    def __exit__(self, *error) -> None:
        if self.live is not None:
            self.live.stop()

    def changed(self, driver: Driver) -> None:
        """Shows the search's present state, unless that was done a moment ago."""
        if not self.pace.due("done" if driver.evaluated >= driver.config.children else "running"):
            return
        now = time.monotonic()
        if self.first is None:
            self.first = now, driver.evaluated
        rows = self._rows(driver, now)
        if self.live is None:
            self.console.print(", ".join(f"{name} {value}" for name, value in rows), soft_wrap=True, highlight=False)
        else:
            self.live.update(self._table(driver, rows), refresh=True)

    def _rows(self, driver: Driver, now: float) -> list[tuple[str, str]]:
        finished, children = driver.evaluated, driver.config.children
        for child in driver.finished[self.counted :]:
            record = driver.records[child]
            self.failed.update([record.status] if record.failed and record.status != "rejected" else [])
            self.served += record.served is not None
            self.stopped += record.status == "stopped"
        self.counted = len(driver.finished)
        rows = [("children", f"{finished:,} of {children:,}"), ("running", f"{len(driver.running):,}")]
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in self.failed.most_common())
        rows.append(("failed", f"{self.failed.total():,}" + (f" ({kinds})" if kinds else "")))
        if driver.rejected:
            rows.append(("rejected", f"{driver.rejected:,}"))
        if self.stopped:
            rows.append(("stopped", f"{self.stopped:,}"))
        if self.served:
            rows.append(("from the journal", f"{self.served:,}"))
        if rewards := _last_rewards(driver):
            rows.append(("reward", f"{sum(rewards) / len(rewards):.4f} (mean of the last {len(rewards)})"))
        if driver.best is not None:
            rows.append(("best", f"{driver.best.reward:.4f} (child {driver.best.child})"))
        if "policy/entropy" in driver.statistics:
            rows.append(("entropy", f"{driver.statistics['policy/entropy']:.3f} nats per decision"))
        start, before = self.first
        if finished > before:
            rate = (finished - before) / max(now - start, 1e-9)
            rows.append(("speed", f"{3600 * rate:,.0f} children per hour"))
            if finished < children:
                rows.append(("time left", duration((children - finished) / rate)))
        return rows

    def _table(self, driver: Driver, rows: list[tuple[str, str]]) -> Table:
        table = Table.grid(padding=(0, 2))
        table.add_column(style="bold", no_wrap=True)
        table.add_column(overflow="fold")
        table.add_row("search", ProgressBar(driver.config.children, driver.evaluated, width=40))
        for row in rows:
            table.add_row(*row)
        return table


def _last_rewards(driver: Driver) -> list[float]:
    """The rewards of the last children that have metrics."""
    rewards: list[float] = []
    for child in reversed(driver.finished):
        record = driver.records[child]
        if record.status == "done":
            rewards.append(record.reward)
            if len(rewards) == MEAN_OF:
                break
    return rewards
