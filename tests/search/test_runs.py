"""Whole searches: a seed gives the same one, whatever stops it on the way, and failures are told and survived."""

import json
import logging
import math
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from contextlib import closing
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from toy_children import DatalessChild

from nasnet_zoo.errors import ConfigError, DataError, JournalError, SearchError
from nasnet_zoo.search import (
    ChildSettings,
    ControllerSettings,
    EvolutionSettings,
    FailureSettings,
    FleetSettings,
    SearchConfig,
    SpaceSettings,
    get_space,
    read_search_config,
    run,
)
from nasnet_zoo.search.children.base import BrokenDevice, ChildFailure, Result, Task, run_task
from nasnet_zoo.search.driver import Driver, child_seed
from nasnet_zoo.search.fleet.base import Fleet
from nasnet_zoo.search.fleet.table import make_fleet
from nasnet_zoo.search.journal import Journal, pack_state, read_events
from nasnet_zoo.search.searchers.table import SEARCHERS, make_searcher
from nasnet_zoo.util.files import locked

try:
    import resource
except ImportError:  # Windows
    resource = None

SPACE = get_space("nasbench201")
ANY_SEARCHER = pytest.mark.parametrize("searcher", SEARCHERS)


def accuracy(architecture: str) -> float:
    """In percent: every 3x3 convolution is good, every edge that is missing bad."""
    return 40 + 8.5 * architecture.count("nor_conv_3x3") - 5 * architecture.count("none")


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> str:
    """A table of all cells."""
    path = tmp_path_factory.mktemp("table") / "table.csv"
    rows = ["cellstr,cifar10-val,cifar10-test"]
    for tokens in product(range(5), repeat=6):
        cell = SPACE.decode(tokens)
        rows.append(f"{cell},{accuracy(cell)},{accuracy(cell) - 1}")
    path.write_text("\n".join(rows) + "\n")
    return str(path)


@pytest.fixture(autouse=True)
def without_report(request, monkeypatch):
    """Reports take a second each, and have tests of their own."""
    if "report" not in request.node.name:
        monkeypatch.setattr("nasnet_zoo.search.report.report.write_report", lambda *arguments: None)


class Child:
    """Accuracies made of the architecture and the seed. `events` maps the number of a call to what it raises, or
    returns instead of metrics; what was asked is in `calls`."""

    def __init__(self, events: dict[int, object] | None = None) -> None:
        self.events, self.calls = events or {}, []

    def prepare(self, device: str) -> None:
        pass

    def __call__(self, architecture: str, seed: int) -> dict:
        self.calls.append((architecture, seed))
        event = self.events.get(len(self.calls))
        if isinstance(event, BaseException):
            raise event
        return {"accuracy": accuracy(architecture) / 100 + seed % 1000 / 1e4} if event is None else event


class Untouched(Child):
    """A child that nobody may want anything of."""

    def prepare(self, device: str) -> None:
        raise AssertionError("a worker was started")


def config(folder: Path, **changes) -> SearchConfig:
    defaults = dict(
        space=SpaceSettings("nasbench201"),
        child=ChildSettings("nasbench201"),
        controller=ControllerSettings(hidden=8, learning_rate=0.02, batch=6),
        evolution=EvolutionSettings(8, 3),
        children=30,
    )
    return SearchConfig(str(folder), **defaults | changes)


def searched(configured: SearchConfig, child=None, fleet=None) -> Driver:
    """Runs a search to its end; the driver, for what it knows."""
    seen = []
    run(configured, child=child or Child(), fleet=fleet, on_change=seen.append)
    return seen[-1]


def history(driver: Driver) -> list:
    """The children in the order in which they finished, without what the clock says."""
    records = [replace(driver.records[child], seconds=0.0, attempts=0) for child in driver.finished]
    return [(r.tokens, r.notes, r.status, r.reward, r.metrics, r.served) for r in records]


def events(folder: Path, kind: str) -> list:
    return [event for event in read_events(folder / "journal.sqlite")[1] if event.kind == kind]


# What a search leaves


@ANY_SEARCHER
def test_a_search_over_a_table(table, tmp_path, searcher):
    configured = config(tmp_path, searcher=searcher, child=ChildSettings("nasbench201", table), children=60)
    best_seen = []

    def look(driver: Driver) -> None:
        """best.json is current whenever anything has happened."""
        if driver.best is None:
            assert not (tmp_path / "best.json").exists()
        else:
            best_seen.append(json.loads((tmp_path / "best.json").read_text()))
            assert best_seen[-1]["child"] == driver.best.child

    result = run(configured, on_change=look)
    finished = events(tmp_path, "finished")
    assert result.children == len(finished) == 60
    rewards = [event.body["reward"] for event in finished]
    assert result.best.reward == max(rewards) == pytest.approx(accuracy(result.architecture) / 100)
    assert result.best.child == finished[rewards.index(max(rewards))].child  # of several alike, the first
    assert result.architecture == SPACE.decode(result.best.tokens)
    assert best_seen[-1] == {
        "kind": None,
        "architecture": result.architecture,
        "space": "nasbench201",
        "tokens": list(result.best.tokens),
        "hash": SPACE.hash(result.architecture),
        "child": result.best.child,
        "reward": result.best.reward,
        "metrics": {"accuracy": result.best.reward, "test_accuracy": pytest.approx(result.best.reward - 0.01)},
    }
    assert [best["reward"] for best in best_seen] == sorted(best["reward"] for best in best_seen)
    assert read_search_config(tmp_path / "config.json") == configured


def test_a_search_for_cells_leaves_a_genotype_a_report_and_events(tmp_path):
    class CellChild(Child):
        def __call__(self, genotype, seed: int) -> dict:
            return {"accuracy": seed % 1000 / 1000}

    configured = SearchConfig(str(tmp_path), SpaceSettings("nds-enas", blocks=2), children=5, reward="accuracy-cubed")
    result = run(configured, child=CellChild())
    best = json.loads((tmp_path / "best.json").read_text())
    assert best["reward"] == best["metrics"]["accuracy"] ** 3
    assert (best["kind"], best["architecture"]["style"]) == ("cell", "nds")
    assert best["architecture"] == result.architecture.to_json()
    assert "<svg" in (tmp_path / "report.html").read_text()


def scalars(folder: Path) -> EventAccumulator:
    accumulator = EventAccumulator(str(folder / "tensorboard"))
    accumulator.Reload()
    return accumulator


def test_tensorboard_tells_the_whole_search_after_an_interruption_too(tmp_path):
    configured = config(tmp_path, searcher="ppo")
    with pytest.raises(KeyboardInterrupt):
        run(configured, child=Child({17: KeyboardInterrupt()}))
    driver = searched(configured)
    assert len(list((tmp_path / "tensorboard").iterdir())) == 1
    log = scalars(tmp_path)
    rewards = log.Scalars("child/reward")
    assert [event.step for event in rewards] == list(range(30))
    expected = [driver.records[child].reward for child in driver.finished]
    assert [event.value for event in rewards] == pytest.approx(expected)
    assert [event.step for event in log.Scalars("policy/entropy")] == [6, 12, 18, 24, 30]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_events_that_cannot_be_written_are_no_reason_to_stop(tmp_path, caplog):
    class Vandal(Child):
        def __call__(self, architecture: str, seed: int) -> dict:
            shutil.rmtree(tmp_path / "tensorboard", ignore_errors=True)
            return super().__call__(architecture, seed)

    with caplog.at_level(logging.WARNING, "nasnet_zoo"):
        assert len(searched(config(tmp_path), Vandal()).finished) == 30
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == [
        f"no more TensorBoard events can be written to {tmp_path / 'tensorboard'}"
    ]
    shutil.rmtree(tmp_path / "tensorboard", ignore_errors=True)
    (tmp_path / "tensorboard").write_text("in the way")
    assert len(searched(config(tmp_path, children=31), Vandal()).finished) == 31


def test_a_finished_search_returns_at_once(tmp_path):
    result = run(config(tmp_path), child=Child())
    count = len(read_events(tmp_path / "journal.sqlite")[1])
    again = run(config(tmp_path), child=Untouched())
    assert again == result
    assert len(read_events(tmp_path / "journal.sqlite")[1]) == count + 1  # the session


@ANY_SEARCHER
def test_a_finished_search_can_be_given_more_children(tmp_path, searcher):
    first = searched(config(tmp_path, searcher=searcher))
    child = Child()
    longer = searched(config(tmp_path, searcher=searcher, children=45), child)
    assert len(child.calls) == 15
    assert history(longer)[:30] == history(first) and len(history(longer)) == 45
    assert read_search_config(tmp_path / "config.json").children == 45


# What a search leaves that fails before its first child


def files(folder: Path) -> dict[str, bytes | None]:
    """Everything below a folder, hidden files too: what is in each file, None for a folder."""
    paths = sorted(folder.rglob("*"))
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in paths}


class Broken(Child):
    def prepare(self, device: str) -> None:
        raise DataError("there are no data here: fetch them")


@pytest.mark.parametrize("before", [{}, {"runs": None}, {"runs": None, "runs/a": None, "runs/a/notes.txt": b"mine"}])
@pytest.mark.parametrize("child", [Broken(), Child({1: "no metrics"}), Child({1: DataError("gone")})])
def test_a_search_that_fails_before_its_first_child_leaves_nothing(tmp_path, child, before):
    for name, content in before.items():
        (tmp_path / name).mkdir() if content is None else (tmp_path / name).write_bytes(content)
    child.calls.clear()
    with pytest.raises((DataError, SearchError)):
        run(config(tmp_path / "runs" / "a"), child=child)
    assert files(tmp_path) == before


def test_workers_that_cannot_begin_leave_nothing(tmp_path):
    fleet = make_fleet(FleetSettings("processes", ("cpu",)), DatalessChild(str(tmp_path)))
    with pytest.raises(DataError, match="no data"):
        run(config(tmp_path / "runs" / "a"), child=Untouched(), fleet=fleet)
    assert not (tmp_path / "runs").exists()


def test_a_search_that_cannot_be_resumed_is_left_as_it_was(tmp_path, table):
    configured = config(tmp_path, child=ChildSettings("nasbench201", table), children=5)
    run(configured)
    before, records = files(tmp_path), read_events(tmp_path / "journal.sqlite")[1]
    elsewhere = ChildSettings("nasbench201", str(tmp_path / "nowhere.csv"))
    with pytest.raises(DataError, match="nowhere"):
        run(replace(configured, child=elsewhere, children=9))
    after = files(tmp_path)
    assert {name for name in after if "tfevents" not in name} == {name for name in before if "tfevents" not in name}
    assert all(after[name] == before[name] for name in ("config.json", "best.json"))
    assert [event for event in read_events(tmp_path / "journal.sqlite")[1] if event.kind == "finished"] == [
        event for event in records if event.kind == "finished"
    ]
    assert run(replace(configured, children=9)).children == 9


def test_a_search_that_is_interrupted_or_fails_later_is_kept(tmp_path):
    for folder, calls, error, finished in (("a", 1, KeyboardInterrupt(), 0), ("b", 2, DataError("gone"), 1)):
        with pytest.raises(type(error)):
            run(config(tmp_path / folder), child=Child({calls: error}))
        assert len(events(tmp_path / folder, "finished")) == finished
        assert run(read_search_config(tmp_path / folder / "config.json"), child=Child()).children == 30


# The same search, whatever happens


@ANY_SEARCHER
def test_the_same_seed_gives_the_same_search(tmp_path, searcher):
    child, again, other = Child(), Child(), Child()
    first = searched(config(tmp_path / "a", searcher=searcher, seed=3), child)
    assert history(searched(config(tmp_path / "b", searcher=searcher, seed=3), again)) == history(first)
    assert again.calls == child.calls
    assert history(searched(config(tmp_path / "c", searcher=searcher, seed=4), other)) != history(first)
    assert [seed for _, seed in child.calls] == [child_seed(3, i) for i in range(30)]


@ANY_SEARCHER
def test_the_first_children_do_not_depend_on_how_many_there_are(tmp_path, searcher):
    """Neither in a search of its own nor in one that is given more later; no number but 30 fills its last batch."""
    whole = searched(config(tmp_path / "whole", searcher=searcher))
    for children in (1, 7, 20):
        configured = config(tmp_path / f"{children}", searcher=searcher, children=children)
        assert history(searched(configured)) == history(whole)[:children]
        longer = searched(replace(configured, children=30))
        assert history(longer) == history(whole)
        assert pack_state(longer.searcher.state_dict()) == pack_state(whole.searcher.state_dict())


@ANY_SEARCHER
def test_an_interrupted_search_is_the_uninterrupted_one(tmp_path, searcher):
    whole = searched(config(tmp_path / "whole", searcher=searcher))
    configured = config(tmp_path / "cut", searcher=searcher)
    for calls in (1, 4, 2, 7, 1):  # the calls at which it is interrupted, counted from the last interruption
        with pytest.raises(KeyboardInterrupt):
            run(configured, child=Child({calls: KeyboardInterrupt()}))
    resumed = searched(configured)
    assert history(resumed) == history(whole)
    assert pack_state(resumed.searcher.state_dict()) == pack_state(whole.searcher.state_dict())
    assert [event.body["attempt"] for event in events(tmp_path / "cut", "started")].count(2) == 5 - 1


def copy_of(journal: Path, folder: Path, last: int | None = None, snapshot: bool = True) -> Path:
    """The journal as it was after the event `last`, perhaps without the searcher's state."""
    folder.mkdir()
    with closing(sqlite3.connect(journal)) as source, closing(sqlite3.connect(folder / "journal.sqlite")) as target:
        source.backup(target)
        with target:
            if last is not None:
                target.execute("DELETE FROM events WHERE id > ?", (last,))
                target.execute("DELETE FROM snapshot WHERE event > ?", (last,))
            if not snapshot:
                target.execute("DELETE FROM snapshot")
    return folder


@ANY_SEARCHER
@pytest.mark.parametrize("repeats", ["serve", "train"])
def test_a_search_goes_on_from_any_event_of_its_journal(tmp_path, searcher, repeats):
    """What a crash leaves is what was committed before."""
    configured = config(tmp_path / "whole", searcher=searcher, repeats=repeats, children=20)
    whole = searched(configured)
    committed = [  # proposals are committed together
        event.id
        for event in read_events(tmp_path / "whole" / "journal.sqlite")[1]
        if event.kind != "proposed" or event.body["place"] == event.body["of"] - 1
    ]
    for last in random.Random(0).sample(committed, 4):
        folder = copy_of(tmp_path / "whole" / "journal.sqlite", tmp_path / str(last), last)
        assert history(searched(replace(configured, folder=str(folder)))) == history(whole), last


@ANY_SEARCHER
def test_a_replay_from_the_first_event_gives_the_state_that_was_kept(tmp_path, searcher):
    configured = config(tmp_path / "whole", searcher=searcher, children=32)  # two short of a batch of six
    searched(configured)
    states = []
    for snapshot in (True, False):
        folder = copy_of(tmp_path / "whole" / "journal.sqlite", tmp_path / f"{snapshot}", snapshot=snapshot)
        with closing(Journal.open_existing(folder / "journal.sqlite")) as journal:
            assert (journal.state() is not None) == snapshot
            driver = Driver(configured, SPACE, make_searcher(configured, SPACE), journal)
            states.append(pack_state(driver.searcher.state_dict()))
    assert states[0] == states[1] != pack_state(make_searcher(configured, SPACE).state_dict())


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_signals_end_a_search_and_lose_nothing(tmp_path, name):
    number = getattr(signal, name)

    class Terminated(Child):
        def __call__(self, architecture: str, seed: int) -> dict:
            if len(self.calls) == 9:
                os.kill(os.getpid(), number)
            return super().__call__(architecture, seed)

    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt):
        run(config(tmp_path / "a"), child=Terminated())
    assert signal.getsignal(number) == before
    assert len(events(tmp_path / "a", "finished")) == 9 and len(events(tmp_path / "a", "stopped")) == 1
    assert history(searched(config(tmp_path / "a"))) == history(searched(config(tmp_path / "b")))


@pytest.mark.skipif(resource is None, reason="needs POSIX limits")
def test_a_full_disk_stops_a_search_and_loses_nothing(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    configured = config(tmp_path / "a", searcher="random")
    resource.setrlimit(resource.RLIMIT_FSIZE, (120_000, limits[1]))
    try:
        with pytest.raises(JournalError, match="run the same command again"):
            run(configured, child=Child())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert 0 < len(events(tmp_path / "a", "finished")) < 30
    assert history(searched(configured)) == history(searched(config(tmp_path / "b", searcher="random")))


def test_seeds_of_children():
    assert child_seed(0, 0) == child_seed(0, 0) == 60700446022636373  # for ever: journals depend on it
    assert len({child_seed(0, 0), child_seed(0, 0, 3), child_seed(0, 0, 40), child_seed(0, 1, 40)}) == 4
    seeds = {child_seed(seed, child) for seed in range(30) for child in range(30)}
    assert len(seeds) == 900 and all(0 <= seed < 2**56 for seed in seeds)


# Repeats


@pytest.mark.parametrize("searcher", ["random", "ppo"])
@pytest.mark.parametrize("repeats", ["serve", "train"])
def test_a_collapsed_policy_ends(tmp_path, searcher, repeats):
    child = Child()
    space = SpaceSettings("nasbench201", ops=("nor_conv_3x3",))
    driver = searched(config(tmp_path, space=space, searcher=searcher, repeats=repeats), child)
    assert len(driver.finished) == 30
    if repeats == "serve":
        assert len(child.calls) == 1
        first = driver.records[0]
        assert all(r.metrics == first.metrics and r.reward == first.reward for r in driver.records)
        assert [r.served for r in driver.records] == [None, *[0] * 29]
        assert sum(r.seconds for r in driver.records[1:]) == 0
    else:
        assert len({seed for _, seed in child.calls}) == 30  # trained again, each time with another seed
        assert all(r.served is None for r in driver.records)
    if searcher == "ppo":
        assert [len(event.body["children"]) for event in events(tmp_path, "updated")] == [6] * 5


def test_the_same_function_is_served_whatever_its_tokens(tmp_path):
    class CellChild(Child):
        def __call__(self, genotype, seed: int) -> dict:
            self.calls.append((genotype.canonical_hash, seed))
            return {"accuracy": seed % 1000 / 1000}

    child = CellChild()
    space = SpaceSettings("nds-enas", blocks=1, ops=("identity", "max_pool_3x3"))
    driver = searched(SearchConfig(str(tmp_path), space, "random", children=150, repeats="serve"), child)
    hashes = [digest for digest, _ in child.calls]
    assert len(set(hashes)) == len(hashes)
    assert len({record.tokens for record in driver.records}) > len(hashes)
    accuracies = {record.hash: driver.records[record.child].metrics for record in driver.records if not record.served}
    assert all(record.metrics == accuracies[record.hash] for record in driver.records)


FEW = SpaceSettings("nasbench201", ops=("none", "nor_conv_3x3"))  # 64 cells: many repeats


class ShuffledFleet(Fleet):
    """Seven workers whose results come in any order, several at once; now and then one is lost."""

    capacity = 7

    def __init__(self, child: Child, seed: int, losses: float = 0.0) -> None:
        self.child, self.rng, self.losses = child, random.Random(seed), losses
        self.tasks: list[Task] = []
        self.ended: Counter[int] = Counter()

    def start(self) -> None:
        self.tasks = []

    def close(self) -> None:
        pass

    def submit(self, task: Task) -> None:
        assert task.child not in [other.child for other in self.tasks]
        self.tasks.append(task)
        assert len(self.tasks) <= self.capacity

    def next_done(self, timeout: float) -> list[Result]:
        assert self.tasks, "the driver waits for nothing"
        self.rng.shuffle(self.tasks)
        done = [self.tasks.pop() for _ in range(self.rng.randint(0, min(3, len(self.tasks))))]
        return [self._result(task) for task in done]

    def _result(self, task: Task) -> Result:
        if self.rng.random() < self.losses:
            return Result(task.child, "lost", message="the worker went away")
        self.ended[task.child] += 1
        return run_task(self.child, task, "somewhere")


@pytest.mark.parametrize("searcher", ["ppo", "evolution"])
@pytest.mark.parametrize("repeats", ["serve", "train"])
@pytest.mark.parametrize("losses", [0.0, 0.3])
def test_results_in_any_order_are_neither_lost_nor_doubled(tmp_path, searcher, repeats, losses):
    for seed in range(2):
        child = Child()
        fleet = ShuffledFleet(child, seed, losses)
        configured = config(
            tmp_path / str(seed),
            space=FEW,
            searcher=searcher,
            repeats=repeats,
            children=100,
            failures=FailureSettings(attempts=50),
            seed=seed,
        )
        driver = searched(configured, child, fleet)
        assert sorted(driver.finished) == list(range(100)) != driver.finished
        finished = {event.child: event.body for event in events(tmp_path / str(seed), "finished")}
        assert len(finished) == 100 and set(fleet.ended.values()) == {1}
        for record in driver.records:
            assert record.status == "done"
            if record.served is None:
                architecture = driver.space.decode(record.tokens)
                assert record.metrics == Child()(architecture, child_seed(seed, record.child))
            else:
                leader = driver.records[record.served]
                assert leader.hash == record.hash and leader.served is None
                assert record.metrics == leader.metrics and record.reward == leader.reward
        trained = sum(record.served is None for record in driver.records)
        assert trained == len(child.calls)
        assert trained == (len({record.hash for record in driver.records}) if repeats == "serve" else 100)
        learned = [child for event in events(tmp_path / str(seed), "updated") for child in event.body["children"]]
        batch = driver.searcher.batch
        assert learned == driver.finished[: 100 // batch * batch]


@pytest.mark.parametrize("repeats", ["serve", "train"])
def test_results_in_any_order_survive_interruptions(tmp_path, repeats):
    configured = config(tmp_path, space=FEW, repeats=repeats, children=100, searcher="random")
    finished: dict[int, dict] = {}
    for seed in range(8):
        child = Child({seed + 1: KeyboardInterrupt()})
        with pytest.raises(KeyboardInterrupt):
            run(configured, child=child, fleet=ShuffledFleet(child, seed, 0.1))
        now = {event.child: event.body for event in events(tmp_path, "finished")}
        assert now.items() >= finished.items()
        finished = now
    child = Child()
    driver = searched(configured, child, ShuffledFleet(child, 99))
    assert sorted(driver.finished) == list(range(100))
    assert all(driver.records[child].metrics == body["metrics"] for child, body in finished.items())


@pytest.mark.parametrize("action", ["floor", "skip", "retry"])
def test_repeats_of_a_child_that_fails_are_tried_for_themselves(tmp_path, action):
    class Moody(Child):
        def __call__(self, architecture: str, seed: int) -> dict:
            self.calls.append((architecture, seed))
            if seed % 3:
                raise ChildFailure("nan", "the loss is nan")
            return {"accuracy": 0.5}

    child = Moody()
    failures = FailureSettings(nan=action, attempts=2, stop=1000)
    space = SpaceSettings("nasbench201", ops=("none", "skip_connect"))
    configured = config(tmp_path, space=space, searcher="random", repeats="serve", children=200, failures=failures)
    driver = searched(configured, child, ShuffledFleet(child, 0))
    assert sorted(driver.finished) == list(range(200))
    attempts = Counter(seed for _, seed in child.calls)
    for record in driver.records:
        seed = child_seed(0, record.child)
        if record.served is not None:
            leader = driver.records[record.served]
            assert (record.status, record.hash, attempts[seed]) == ("done", leader.hash, 0)
        elif seed % 3:
            assert (record.status, attempts[seed]) == ("nan", 2 if action == "retry" else 1)
        else:
            assert (record.status, attempts[seed]) == ("done", 1)


# Failures


FAILURES = {
    "nan": ChildFailure("nan", "the loss is nan"),
    "oom": MemoryError("too much"),
    "timeout": ChildFailure("timeout", "not done after 3 s"),
    "error": ValueError("a bug"),
}


@pytest.mark.parametrize("kind", FAILURES)
def test_a_failed_child_gets_the_floor_and_counts(tmp_path, kind):
    failures = FailureSettings(floor=0.05)
    driver = searched(config(tmp_path, failures=failures), Child({3: FAILURES[kind]}))
    record = driver.records[2]
    assert (record.status, record.reward, record.metrics, record.attempts) == (kind, 0.05, {}, 1)
    assert str(FAILURES[kind]) in record.message
    assert len(driver.finished) == 30
    assert 2 in events(tmp_path, "updated")[0].body["children"]


def test_a_skipped_child_counts_and_is_hidden_from_the_searcher(tmp_path):
    driver = searched(config(tmp_path, failures=FailureSettings(error="skip")), Child({3: FAILURES["error"]}))
    assert (driver.records[2].status, driver.records[2].reward) == ("error", None)
    assert len(driver.finished) == 30
    learned = [child for event in events(tmp_path, "updated") for child in event.body["children"]]
    assert learned == [0, 1, *range(3, 25)]  # four batches of six; five wait for a sixth


@pytest.mark.parametrize(("failing", "status"), [((3,), "done"), ((3, 4), "done"), ((3, 4, 5), "error")])
def test_a_child_is_tried_again_up_to_its_attempts(tmp_path, failing, status):
    child = Child(dict.fromkeys(failing, FAILURES["error"]))
    driver = searched(config(tmp_path, failures=FailureSettings(error="retry", attempts=3, floor=0.0)), child)
    assert len(set(child.calls[2 : 2 + len(failing)])) == 1  # the same architecture, with the same seed
    record = driver.records[2]
    assert (record.status, record.attempts) == (status, min(len(failing) + 1, 3))
    assert record.reward == (0.0 if status == "error" else pytest.approx(record.metrics["accuracy"]))
    assert [event.body["attempt"] for event in events(tmp_path, "started") if event.child == 2] == [1, 2, 3][
        : record.attempts
    ]
    assert len(driver.finished) == 30


def test_a_failure_is_worth_as_much_as_the_worst_of_the_last_hundred(tmp_path):
    failing = {1: FAILURES["nan"], 4: FAILURES["error"], 130: FAILURES["oom"]}
    driver = searched(config(tmp_path, children=130), Child(failing))
    rewards = [record.reward for record in driver.records]
    assert rewards[0] is None  # nothing has been seen yet, so that the searcher is not told
    assert rewards[3] == min(rewards[1:3]) and rewards[129] == min(rewards[29:129]) > min(rewards[1:])
    assert history(searched(config(tmp_path, children=130), Untouched())) == history(driver)


def test_failures_in_a_row_stop_the_search_with_the_cause(tmp_path):
    configured = config(tmp_path, failures=FailureSettings(stop=4))
    bugs = dict.fromkeys((2, 3, 4, 6, 7, 8, 9), FAILURES["error"])  # the fifth works: three in a row, then four
    child = Child(bugs)
    with pytest.raises(SearchError, match=r"the last 4 children failed \(error: ValueError: a bug\): mend the cause"):
        run(configured, child=child)
    assert len(child.calls) == 9 == len(events(tmp_path, "finished"))
    mended = Child()
    driver = searched(configured, mended)
    assert len(mended.calls) == 21 and len(driver.finished) == 30
    assert Counter(record.status for record in driver.records) == {"done": 23, "error": 7}


def test_a_search_without_a_single_result(tmp_path):
    child = Child(dict.fromkeys(range(1, 6), FAILURES["nan"]))
    with pytest.raises(SearchError, match="none of the 5 children in .* has a result: see .*report.html"):
        run(config(tmp_path, children=5), child=child)
    assert not (tmp_path / "best.json").exists()


class Deadly(Child):
    """Kills its driver when the architecture is one of those given: what a full memory does, without the mess."""

    def __init__(self, deadly: set[str]) -> None:
        super().__init__()
        self.deadly = deadly

    def __call__(self, architecture: str, seed: int) -> dict:
        if architecture in self.deadly:
            raise Death
        return super().__call__(architecture, seed)


class Death(BaseException):
    """The end of a process, played in the test's own: nothing of the driver runs after it."""


def dies(monkeypatch, configured: SearchConfig, child: Child, fleet: Fleet | None = None) -> None:
    """A session whose driver is killed by a child."""
    written = Journal.add

    def add(self, kind: str, *arguments, **body) -> int:
        if kind == "stopped":
            raise JournalError("a dead process writes nothing")
        return written(self, kind, *arguments, **body)

    with monkeypatch.context() as patched, pytest.raises(Death):
        patched.setattr(Journal, "add", add)
        run(configured, child=child, fleet=fleet)


def third_cell(folder: Path, searcher: str = "random") -> str:
    """What child 2 of a search with this config is."""
    return SPACE.decode(searched(config(folder, searcher=searcher)).records[2].tokens)


@pytest.mark.parametrize(
    ("failures", "deaths", "reward"),
    [
        (FailureSettings(floor=0.0), 3, 0.0),
        (FailureSettings(attempts=5, floor=0.1), 5, 0.1),
        (FailureSettings(lost="floor", floor=0.0), 1, 0.0),
        (FailureSettings(lost="skip"), 1, None),
    ],
)
def test_a_child_that_kills_its_driver_is_given_up(tmp_path, monkeypatch, failures, deaths, reward):
    child = Deadly({third_cell(tmp_path / "alive")})
    configured = config(tmp_path / "run", searcher="random", failures=failures)
    for death in range(deaths):
        dies(monkeypatch, configured, child)
        assert len(events(tmp_path / "run", "finished")) == 2, death
    driver = searched(configured, child)
    assert Counter(record.status for record in driver.records) == {"done": 29, "lost": 1}
    lost = driver.records[2]
    assert (lost.status, lost.reward, lost.attempts) == ("lost", reward, deaths)
    assert lost.message == f"the driver died while it was trained, in attempt {deaths}"
    assert [e.body["attempt"] for e in events(tmp_path / "run", "started") if e.child == 2] == [*range(1, deaths + 1)]
    again = searched(configured, Untouched())  # and it is so for ever
    assert history(again) == history(driver)


def test_a_child_killed_less_often_is_trained_as_if_nothing_had_been(tmp_path, monkeypatch):
    whole = searched(config(tmp_path / "alive", searcher="ppo"))
    child = Deadly({SPACE.decode(whole.records[2].tokens)})
    configured = config(tmp_path / "run", searcher="ppo")
    for _ in range(2):
        dies(monkeypatch, configured, child)
    resumed = searched(configured)
    assert history(resumed) == history(whole) and resumed.records[2].attempts == 3


def test_an_interruption_is_not_the_childs_fault(tmp_path):
    configured = config(tmp_path, searcher="random")
    for _ in range(7):
        with pytest.raises(KeyboardInterrupt):
            run(configured, child=Child({1: KeyboardInterrupt()}))
    assert len(events(tmp_path, "stopped")) == 7
    driver = searched(configured)
    assert {record.status for record in driver.records} == {"done"}
    assert (driver.records[0].attempts, driver.records[0].tries) == (8, 1)


def test_failures_and_deaths_count_together_over_all_sessions(tmp_path, monkeypatch):
    cell = third_cell(tmp_path / "alive")
    configured = config(tmp_path / "run", searcher="random", failures=FailureSettings(error="retry", attempts=4))

    class Doomed(Child):
        """Fails, then kills its driver, then is interrupted, then fails for good."""

        ends = [ValueError("a bug"), Death(), KeyboardInterrupt(), ValueError("a bug"), ValueError("a bug")]

        def __call__(self, architecture: str, seed: int) -> dict:
            if architecture == cell:
                raise self.ends.pop(0)
            return super().__call__(architecture, seed)

    child = Doomed()
    dies(monkeypatch, configured, child)
    with pytest.raises(KeyboardInterrupt):
        run(configured, child=child)
    driver = searched(configured, child)
    record = driver.records[2]
    assert (record.status, record.attempts, record.tries, child.ends) == ("error", 5, 4, [])


@pytest.mark.parametrize("repeats", ["serve", "train"])
def test_a_driver_that_dies_takes_one_attempt_of_each_child_in_hand(tmp_path, monkeypatch, repeats):
    configured = config(tmp_path, space=FEW, searcher="random", repeats=repeats, children=60)
    killer = {SPACE.decode(tokens) for tokens in product((0,), (0, 3), (0,), (0, 3), (0, 3), (0, 3))}
    for seed in range(3):
        child = Deadly(killer)
        dies(monkeypatch, configured, child, ShuffledFleet(child, seed))
    tries = Counter(event.child for event in events(tmp_path, "started"))
    finished = {event.child for event in events(tmp_path, "finished")}
    driver = searched(configured)
    assert sorted(driver.finished) == list(range(60))
    for record in driver.records:
        gone = record.child not in finished and tries[record.child] >= 3
        assert record.status == ("lost" if gone else "done")


def test_a_child_that_breaks_the_device_counts_as_if_it_had_killed_the_driver(tmp_path):
    class Breaking(Child):
        def __call__(self, architecture: str, seed: int) -> dict:
            if architecture == cell:
                raise BrokenDevice("the GPU can compute no more in this process")
            return super().__call__(architecture, seed)

    cell = third_cell(tmp_path / "whole")
    configured = config(tmp_path / "run", searcher="random")
    for _ in range(3):
        with pytest.raises(BrokenDevice):
            run(configured, child=Breaking())
    assert searched(configured, Breaking()).records[2].status == "lost"


KILLS_ITSELF = """
import os, signal, sys
from nasnet_zoo.search import ChildSettings, SearchConfig, SpaceSettings, run

class Child:
    def prepare(self, device): pass
    def __call__(self, architecture, seed):
        if seed == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
        return {"accuracy": seed % 1000 / 1000}

space, child = SpaceSettings("nasbench201"), ChildSettings("nasbench201")
run(SearchConfig(sys.argv[1], space, "random", child=child, children=6), child=Child())
"""


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
def test_a_driver_that_is_really_killed_by_its_child(tmp_path):
    command = [sys.executable, "-c", KILLS_ITSELF, str(tmp_path), str(child_seed(0, 1))]
    assert [subprocess.run(command).returncode for _ in range(4)] == [-signal.SIGKILL] * 3 + [0]
    statuses = {event.child: event.body["status"] for event in events(tmp_path, "finished")}
    assert statuses == dict.fromkeys(range(6), "done") | {1: "lost"}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_reward_that_is_no_number_is_a_failure(tmp_path, value):
    driver = searched(config(tmp_path), Child({3: {"accuracy": value}}))
    record, worst = driver.records[2], min(driver.records[0].reward, driver.records[1].reward)
    assert (record.status, record.reward, record.message) == ("nan", worst, f"its reward is {value}")
    assert len(driver.finished) == 30 and driver.best is not record
    assert history(searched(config(tmp_path)))[3:] == history(driver)[3:]  # and can be read again


NO_METRICS = "which is no dict of metrics that fits into JSON: mend the child"


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ({"loss": 1.0}, "needs the metric 'accuracy' of what child 2 returned, {'loss': 1.0}: mend the child"),
        ({}, "needs the metric 'accuracy' of what child 2 returned, {}: mend the child"),
        ({"accuracy": [0.5]}, "the reward accuracy cannot be made (float() argument"),
        ({"accuracy": "high"}, "the reward accuracy cannot be made (could not convert string"),
        ({"accuracy": None}, "the reward accuracy cannot be made"),
        (0.93, f"child 2 returned 0.93, {NO_METRICS}"),
        ([("accuracy", 0.9)], f"child 2 returned [('accuracy', 0.9)], {NO_METRICS}"),
        ({"accuracy": 0.9, "shape": {3, 4}}, f"child 2 returned {{'accuracy': 0.9, 'shape': {{3, 4}}}}, {NO_METRICS}"),
        ({"accuracy": torch.tensor(0.9)}, f"child 2 returned {{'accuracy': tensor(0.9000)}}, {NO_METRICS}"),
        ({("a", 1): 0.9}, NO_METRICS),
        ({"accuracy": 0.9, "losses": "x" * 1000 + "\n"} | {"set": set()}, f"xxx, {NO_METRICS}"),
    ],
)
def test_metrics_that_make_no_reward(tmp_path, returned, message):
    with pytest.raises(SearchError) as told:
        run(config(tmp_path), child=Child({3: returned}))
    assert message in str(told.value) and "\n" not in str(told.value) and len(str(told.value)) < 500
    assert len(events(tmp_path, "finished")) == 2
    assert len(searched(config(tmp_path)).finished) == 30


# What cannot be


def test_another_config_in_the_folder(tmp_path):
    searched(config(tmp_path))
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir() if file.is_file()}
    other = config(tmp_path, seed=1, controller=ControllerSettings(hidden=9, learning_rate=0.02, batch=6))
    with pytest.raises(JournalError) as told:
        run(other, child=Untouched())
    assert str(told.value) == (
        f"{tmp_path} holds a search with another config (controller.hidden 8 there, 9 here; seed 0 there, 1 here): "
        f"use its own, or another folder"
    )
    many = SearchConfig(str(tmp_path), searcher="random", children=30, seed=2)
    with pytest.raises(JournalError, match="and [0-9]+ more"):
        run(many, child=Untouched())
    assert before == {file.name: file.read_bytes() for file in tmp_path.iterdir() if file.is_file()}


def test_where_and_how_long_a_search_runs_may_change(tmp_path, table):
    searched(config(tmp_path / "a"))
    (tmp_path / "a").rename(tmp_path / "b")
    elsewhere = config(
        tmp_path / "b",
        fleet=FleetSettings(devices=("cpu",), threads=1),
        child=ChildSettings("nasbench201", table),
        children=31,
    )
    assert len(searched(elsewhere).finished) == 31


def test_another_driver_in_the_folder(tmp_path):
    with (
        locked(tmp_path / "journal.sqlite"),
        pytest.raises(JournalError, match="another process is running the search in .*: wait for it, or end it"),
    ):
        run(config(tmp_path), child=Untouched())
    assert len(searched(config(tmp_path)).finished) == 30


def test_a_damaged_journal(tmp_path):
    searched(config(tmp_path))
    with closing(sqlite3.connect(tmp_path / "journal.sqlite")) as connection, connection:
        connection.execute("UPDATE events SET body = '{\"status\": \"done\"}' WHERE kind = 'finished' AND child = 3")
    with pytest.raises(JournalError, match="journal.sqlite is damaged .event 15, finished, reward.*nothing in it"):
        run(config(tmp_path), child=Untouched())
    (tmp_path / "journal.sqlite").write_bytes(b"not a journal")
    with pytest.raises(JournalError, match="not a database"):
        run(config(tmp_path), child=Untouched())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: SearchConfig("x", children=0), "0 children; a search needs at least one"),
        (lambda: SearchConfig("x", reward="speed"), "there is no reward 'speed'; there are accuracy, accuracy-cubed"),
        (lambda: SearchConfig("x", searcher="luck"), "there is no searcher 'luck'; there are ppo, reinforce, evol"),
        (lambda: SearchConfig("x", repeats="never"), "unknown repeats 'never'; choose one of serve, train"),
        (lambda: SearchConfig("x", seed=2**64), "seed 18446744073709551616"),
        (lambda: run(SearchConfig("x", SpaceSettings("nasbench201"))), "of the task cifar10 cannot .* nasbench201 can"),
        (lambda: run(SearchConfig("x", child=ChildSettings("nasbench201"))), "task nasbench201 cannot .* folders can"),
        (lambda: SearchConfig("x", format_version=1), "format_version 1; leave it out, or say 2"),
        (lambda: FleetSettings(per_device=-1), "-1 workers per device"),
        (lambda: SearchConfig("x", fleet=FleetSettings("slurm")), "no fleet 'slurm'; there are inline, processes, ray"),
        (lambda: SearchConfig("x", controller=EvolutionSettings()), "controller must be ControllerSettings, not Evol"),
        (lambda: FailureSettings(nan="cry"), "failures: unknown nan 'cry'; choose one of floor, retry, skip"),
        (lambda: FailureSettings(attempts=0), "failures: attempts and stop must be at least 1"),
        (lambda: EvolutionSettings(5, 6), "evolution: sample 6 must lie between 1 and population 5"),
        (lambda: ControllerSettings(batch=0), "controller: hidden, batch and epochs must be at least 1"),
        (lambda: ControllerSettings(hidden=10**7), "controller: hidden 10000000 is more than the 10000 units"),
        (lambda: ControllerSettings(initial=-1.0), "controller: .* initial must not be negative"),
        (lambda: ControllerSettings(baseline_decay=1.0), "controller: baseline_decay must lie in"),
        (lambda: ChildSettings("imagenet"), "there is no child 'imagenet'; there are cifar10, folders, nasb"),
        (lambda: ChildSettings(pictures=45_000, validation=5_001), "child: .* must fit into CIFAR-10's 50,000"),
        (lambda: ChildSettings(side=4), "child: side 4 is not between 8 and 256 pixels"),
        (lambda: ChildSettings(calibration=-1), "child: calibration must not be negative"),
        (lambda: ChildSettings(filters=0), "child: filters and cells must be at least 1"),
    ],
)
def test_impossible_configs(wrong, message):
    with pytest.raises(ConfigError, match=message):
        wrong()


def test_a_space_that_does_not_exist(tmp_path):
    with pytest.raises(ConfigError, match="there is no space 'nasnet-z'; there are nasnet, "):
        run(config(tmp_path, space=SpaceSettings("nasnet-z"), child=ChildSettings()), child=Untouched())
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not valid JSON"),
        ("[" * 100_000, "is not valid JSON"),
        ("[]", "a search config is a JSON object"),
        ("{}", "search config, folder: Field required"),
        (
            '{"folder": "x", "child": {"task": "cifar10", "recipe": {"epochs": 1, "batchsize": 9}}}',
            "search config, child.recipe.batchsize: there is no such field; did you mean batch_size",
        ),
        ('{"folder": "x", "chidren": 3}', "search config, chidren: there is no such field; did you mean children"),
        ('{"folder": "x", "space": {"block": 3}}', "search config, space.block: "),
        ('{"folder": "x", "controller": {"units": 3}}', "search config, controller.units: "),
        ('{"folder": "x", "evolution": {"size": 3}}', "search config, evolution.size: "),
        ('{"folder": "x", "child": {"epochs": 3}}', "search config, child.epochs: "),
        ('{"folder": "x", "child": {"recipe": {"epochs": 3, "rate": 1}}}', "search config, child.recipe.rate: "),
        ('{"folder": "x", "child": {"recipe": {}}}', "search config, child.recipe.epochs: Field required"),
        ('{"folder": "x", "failures": {"nans": "skip"}}', "search config, failures.nans: "),
        ('{"folder": "x", "fleet": {"gpus": 3}}', "search config, fleet.gpus: "),
        ('{"folder": "x", "children": "3"}', "search config, children: Input should be a valid integer"),
        ('{"folder": "x", "children": true}', "search config, children: Input should be a valid integer"),
        ('{"folder": "x", "controller": {"learning_rate": NaN}}', "search config, controller.learning_rate: "),
        ('{"folder": "x", "searcher": "luck"}', "there is no searcher 'luck'; there are ppo, reinforce"),
        ('{"folder": "x", "fleet": null}', "search config, fleet: "),
        ('{"folder": "x", "children": 0}', "0 children; a search needs at least one"),
        ('{"folder": "x", "child": {"recipe": {"epochs": 0}}}', "recipe: epochs is 0, and must be at least 1"),
    ],
)
def test_configs_that_are_no_configs(tmp_path, text, message):
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(ConfigError) as told:
        read_search_config(path)
    assert str(told.value).startswith(str(path)) and message in str(told.value) and "\n" not in str(told.value)


def test_config_files_that_cannot_be_read(tmp_path):
    with pytest.raises(ConfigError, match="cannot read .*none.json: No such file"):
        read_search_config(tmp_path / "none.json")
    (tmp_path / "large.json").write_bytes(b" " * (2**20 + 1))
    with pytest.raises(ConfigError, match="large.json is larger than 1048576 bytes, which no search config is"):
        read_search_config(tmp_path / "large.json")
    (tmp_path / "latin.json").write_bytes(b'{"folder": "\xff"}')
    with pytest.raises(ConfigError, match="latin.json is not valid JSON"):
        read_search_config(tmp_path / "latin.json")


def test_a_config_survives_its_file(tmp_path):
    configured = config(
        tmp_path, failures=FailureSettings(nan="skip", floor=-1), fleet=FleetSettings("processes", ("cuda:0", "cpu"), 3)
    )
    assert SearchConfig.from_json(json.loads(json.dumps(configured.to_json()))) == configured


@pytest.mark.parametrize("wrong", ["missing", "not the official ones"])
def test_pictures_that_are_not_there(tmp_path, wrong):
    folder = tmp_path / "data"
    (folder / "cifar-10-batches-py").mkdir(parents=True)
    if wrong == "missing":
        (folder / "cifar-10-batches-py").rmdir()
    else:
        (folder / "cifar-10-batches-py" / "data_batch_1").write_bytes(b"no pictures")
    configured = SearchConfig(str(tmp_path / "run"), SpaceSettings("nds-enas", blocks=1), children=3)
    configured = replace(configured, child=ChildSettings(data=str(folder)))
    with pytest.raises(DataError, match=r"cifar-10-python.tar.gz.*download=True"):
        run(configured)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("bytes_", "message"),
    [
        (None, "cannot read the table .*: No such file"),
        (b"cell,val\nx,1\n", "has no columns cellstr, cifar10-val and cifar10-test: it is not such a table"),
        (b"", "has no columns"),
        (b"cellstr,cifar10-val,cifar10-test\nx,1\n", "is damaged"),
        (b"cellstr,cifar10-val,cifar10-test\nx,1,high\n", "is damaged"),
        (b"\xff\xfe\x00", "is damaged"),
        (b'cellstr,cifar10-val,cifar10-test\n"' + b"x" * 200_000, "is damaged"),
    ],
)
def test_tables_that_are_no_tables(tmp_path, bytes_, message):
    path = tmp_path / "table.csv"
    if bytes_ is not None:
        path.write_bytes(bytes_)
    with pytest.raises(DataError, match=message):
        run(config(tmp_path / "run", child=ChildSettings("nasbench201", str(path))))


def test_a_search_without_a_table_goes_on_when_it_has_one(tmp_path, table):
    with pytest.raises(DataError, match="needs a table: name its CSV file with --data"):
        run(config(tmp_path))
    result = run(config(tmp_path, child=ChildSettings("nasbench201", table)))
    assert result.children == 30


def test_a_cell_that_is_not_in_the_table(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("cellstr,cifar10-val,cifar10-test\n")
    with pytest.raises(SearchError, match="the table has no cell"):
        run(config(tmp_path / "run", child=ChildSettings("nasbench201", str(path))))
