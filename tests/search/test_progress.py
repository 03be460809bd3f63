import re
from io import StringIO
from types import SimpleNamespace

import pytest
from rich.console import Console

from nasnet_zoo.search import progress
from nasnet_zoo.search.progress import Progress
from nasnet_zoo.search.records import Record


class Search:
    """As much of a driver as is looked at; `finish` adds finished children. A clock comes with it."""

    def __init__(self, children: int, monkeypatch) -> None:
        self.config = SimpleNamespace(children=children)
        self.records, self.finished, self.running = [], [], set()
        self.best, self.statistics, self.now, self.rejected = None, {}, 1000.0, 0
        monkeypatch.setattr(progress.time, "monotonic", lambda: self.now)

    @property
    def evaluated(self) -> int:
        return len(self.finished) - self.rejected

    def finish(self, status: str, reward: float = 0.0, served: int | None = None) -> None:
        record = Record(len(self.records), (0,), "h", status=status, reward=reward, served=served)
        self.finished.append(record.child)
        self.records.append(record)
        if status == "done" and (self.best is None or reward > self.best.reward):
            self.best = record


@pytest.fixture
def search(monkeypatch):
    return Search(100, monkeypatch)


def shown(progress: Progress) -> list[str]:
    return progress.console.file.getvalue().splitlines()


def to(terminal: bool, width: int = 80) -> Console:
    return Console(file=StringIO(), force_terminal=terminal, width=width)


def test_a_line_says_how_the_search_stands(search):
    with Progress(to(terminal=False)) as progress:
        search.finish("done", 0.9)  # before this session
        progress.changed(search)
        for place in range(25):
            search.finish("done", place / 100)
        search.finish("nan")
        search.finish("oom", reward=None)
        search.finish("nan")
        for _ in range(12):
            search.finish("stopped", 0.99)
        search.finish("done", 0.5, served=3)
        search.running = {30, 31}
        search.statistics = {"policy/entropy": 1.23456}
        search.now += 3600
        progress.changed(search)
    mean = (sum(range(6, 25)) / 100 + 0.5) / 20
    assert shown(progress) == [
        "children 1 of 100, running 0, failed 0, reward 0.9000 (mean of the last 1), best 0.9000 (child 0)",
        f"children 42 of 100, running 2, failed 3 (2 nan, 1 oom), stopped 12, from the journal 1, reward {mean:.4f} "
        "(mean of the last 20), best 0.9000 (child 0), entropy 1.235 nats per decision, speed 41 children per hour, "
        "time left 85 min",
    ]


def test_lines_are_rare_but_the_last_one_comes(search):
    with Progress(to(terminal=False)) as progress:
        for _ in range(100):
            search.finish("done", 0.5)
            search.now += 1.0
            progress.changed(search)
    counts = [re.match(r"children (\d+) of 100", line)[1] for line in shown(progress)]
    assert counts == ["1", "61", "100"]


def test_the_table_is_drawn_at_most_four_times_a_second(search):
    with Progress(to(terminal=True)) as progress:
        for _ in range(100):
            search.finish("done", 0.5)
            search.now += 0.01
            progress.changed(search)
    counts = re.findall(r"(\d+) of 100", "\n".join(shown(progress)))
    assert len(counts) <= 7 and counts[-1] == "100"


@pytest.mark.parametrize("width", [80, 30])
def test_the_table_has_a_row_for_each_figure(search, width):
    search.finish("done", 0.75)
    search.finish("timeout")
    with Progress(to(terminal=True, width=width)) as progress:
        progress.changed(search)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", "\n".join(shown(progress)))
    for name in ("search", "children", "running", "failed", "reward", "best"):
        assert re.search(rf"^{name} ", text, re.MULTILINE), name
    assert "2 of 100" in text and "1 (1 timeout)" in text


def test_a_search_without_results(search):
    with Progress(to(terminal=True)) as progress:
        progress.changed(search)
    assert "0 of 100" in "\n".join(shown(progress))
