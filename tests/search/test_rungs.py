"""Rungs: who goes on and who is stopped, whatever stops the search on the way, and what is said about it."""

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from report_page import Page
from run_folders import write_folder
from simulated_fleet import SimulatedFleet
from test_runs import SPACE, Child, Death, config, copy_of, dies, events, history, searched
from toy_search import LearningChild, toy_config
from typer.testing import CliRunner

from nasnet_zoo.cli import search as cli_search  # noqa: F401 - registers its commands
from nasnet_zoo.cli.app import app
from nasnet_zoo.errors import ConfigError, JournalError, SearchError
from nasnet_zoo.search import (
    ChildSettings,
    FailureSettings,
    RungSettings,
    SearchConfig,
    SpaceSettings,
    read_children,
    read_search_config,
    run,
)
from nasnet_zoo.search.children.base import ChildFailure, Report, Reports, Result, Stopped, Task, can_report, run_task
from nasnet_zoo.search.driver import child_seed
from nasnet_zoo.search.fleet.base import Fleet
from nasnet_zoo.search.journal import pack_state
from nasnet_zoo.search.report.report import write_report
from nasnet_zoo.search.rungs import Rungs, on_line

EPOCHS = 6
RUNGS = RungSettings((1, 3), keep=0.5, least=3)
SEARCHERS = pytest.mark.parametrize("searcher", ["ppo", "evolution", "random"])


@pytest.fixture(autouse=True)
def without_report(request, monkeypatch):
    """Reports take a second each."""
    if "report_page" not in request.node.name:
        monkeypatch.setattr("nasnet_zoo.search.report.report.write_report", lambda *arguments: None)


def curve(architecture: str, seed: int, epoch: int) -> float:
    """The accuracy after so many of EPOCHS: from below, by a slope of the child's own."""
    end = Child()(architecture, seed)["accuracy"]
    return end - (0.2 + seed % 97 / 500) * (1 - epoch / EPOCHS)


class Learner(Child):
    """Reports after every epoch, and raises `error` in the `last` epoch that it trains. `steps` has all of them:
    (seed, epoch)."""

    def __init__(self, last: int | None = None, error: BaseException | None = None) -> None:
        super().__init__()
        self.last, self.error, self.steps = last, error, []

    def __call__(self, architecture: str, seed: int, report: Reports) -> dict:
        self.calls.append((architecture, seed))
        for epoch in range(1, EPOCHS + 1):
            self.steps.append((seed, epoch))
            if len(self.steps) == self.last:
                raise self.error
            report(epoch, {"accuracy": curve(architecture, seed, epoch), "epochs": epoch})
        return {"accuracy": curve(architecture, seed, EPOCHS)}


def with_rungs(folder: Path, **changes) -> SearchConfig:
    return config(folder, **{"rungs": RUNGS, **changes})


def check_journal(folder: Path) -> Counter:
    """Every answer in a finished search's journal is the rule's, is said once and is kept to; how many were stopped
    after how many epochs."""
    reports, told = {epoch: [] for epoch in RUNGS.epochs}, {}
    for event in events(folder, "reported"):
        body, before = event.body, reports[event.body["epoch"]]
        ranked = sorted([*before, body["reward"]], reverse=True)
        place = ranked.index(body["reward"])
        assert body["goes_on"] == (len(ranked) < RUNGS.least or place < RUNGS.keep * len(ranked))
        before.append(body["reward"])
        assert told.setdefault(event.child, {}).setdefault(body["epoch"], body) is body
    stopped = Counter()
    for event in events(folder, "finished"):
        if event.body.get("served") is not None:
            continue
        answers = told[event.child]
        if event.body["status"] == "stopped":
            last = max(answers)
            assert event.body["stopped"] == last and not answers[last]["goes_on"]
            assert event.body["metrics"] == answers[last]["metrics"]
            stopped[last] += 1
        else:
            assert all(answer["goes_on"] for answer in answers.values())
            assert answers.keys() == reports.keys() or event.body["status"] != "done"
    return stopped


# The rule


def test_who_goes_on():
    rungs = Rungs(RungSettings((1,), keep=0.4, least=3))
    # (reward, how many are better, how many there are with it): two always go on, then those with fewer than 0.4 of all
    course = [
        (0.5, 0, 1),
        (0.4, 1, 2),
        (0.3, 2, 3),
        (0.45, 1, 4),
        (0.45, 1, 5),
        (0.44, 3, 6),
        (0.46, 1, 7),
        (0.1, 7, 8),
    ]
    course += [(0.45, 2, 9), (0.44, 5, 10), (0.445, 5, 11), (0.45, 2, 12)]
    for child, (reward, better, reports) in enumerate(course):
        goes_on = reports < 3 or better < 0.4 * reports
        assert goes_on == (child not in (2, 5, 7, 9, 10))
        assert rungs.goes_on(1, reward) == goes_on, child
        assert rungs.answer(child, 1) is None
        rungs.enter(child, 1, reward, goes_on)
        assert rungs.answer(child, 1) == goes_on


def test_equal_children_all_go_on():
    rungs = Rungs(RungSettings((2,), keep=0.1, least=1))
    for child in range(30):
        assert rungs.goes_on(2, 0.5)
        rungs.enter(child, 2, 0.5, True)
    assert not rungs.goes_on(2, 0.49)


def test_the_line_is_of_the_last_hundred():
    rungs = Rungs(RungSettings((1,)))
    for child in range(300):
        rungs.enter(child, 1, 0.2, True)
        rungs.trained(child, 0.3 if child < 200 else 0.7)
    rungs.enter(300, 1, 0.1, False)
    assert rungs.expected(300) == pytest.approx(0.6)


def test_each_rung_is_by_itself():
    rungs = Rungs(RungSettings((1, 3), keep=0.5, least=2))
    for child, reward in enumerate((0.8, 0.9)):
        rungs.enter(child, 1, reward, True)
    assert not rungs.goes_on(1, 0.1) and rungs.goes_on(3, 0.1)


def test_the_line_through_pairs():
    assert on_line([], 0.3) == 0.3
    assert on_line([(0.2, 0.5), (0.4, 0.9)], 0.1) == pytest.approx(0.1 + 0.4)  # few: what they gained
    straight = [(x / 10, 0.2 + 0.5 * x / 10) for x in range(10)]
    assert on_line(straight, 0.05) == pytest.approx(0.225)
    assert on_line([(x, 1 - y) for x, y in straight], 0.05) == pytest.approx(1 - 0.425)  # no slope below 0: the mean
    assert on_line([(x, 9 * y) for x, y in straight], 0.0) == pytest.approx(9 * 0.425 - 0.45)  # nor above 1
    assert on_line([(0.5, 0.7)] * 12, 0.4) == pytest.approx(0.6)
    assert on_line([(place * 1e-200, 0.7) for place in range(12)], 0.0) == pytest.approx(0.7)


def test_what_a_stopped_child_would_be_worth():
    rungs = Rungs(RungSettings((1, 3)))
    for child, reward in enumerate((0.1, 0.2, 0.3)):
        rungs.enter(child, 1, reward, child > 0)
    assert rungs.expected(0) == 0.1  # nobody has gone further yet
    rungs.enter(1, 3, 0.5, True)
    rungs.enter(2, 3, 0.5, False)
    assert rungs.expected(0) == pytest.approx(0.1 + (0.3 + 0.2) / 2)
    rungs.trained(1, 0.9)
    rungs.trained(7, 5.0)  # it reported nothing
    assert rungs.expected(0) == pytest.approx(0.1 + 0.25 + 0.4) and rungs.expected(2) == pytest.approx(0.9)


@pytest.mark.parametrize("wrong", [(0, 2), (1, 1)])
def test_a_report_that_cannot_be(wrong):
    rungs = Rungs(RungSettings((1,)))
    rungs.enter(1, 1, 0.5, True)
    with pytest.raises(ValueError, match=r"child \d cannot report after \d epochs: (it has before|there is no such)"):
        rungs.enter(*wrong, 0.5, True)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: RungSettings((0,)), "rungs: epochs 0 must be at least 1, and each more than the one before"),
        (lambda: RungSettings((3, 1)), "rungs: epochs 3, 1 must"),
        (lambda: RungSettings((1, 1)), "rungs: epochs 1, 1 must"),
        (lambda: RungSettings((1,), keep=0.0), r"rungs: keep 0.0 does not lie between 0 and 1"),
        (lambda: RungSettings((1,), keep=1.0), r"rungs: keep 1.0 does not"),
        (lambda: RungSettings((1,), keep=float("nan")), r"rungs: keep"),
        (lambda: RungSettings((1,), least=0), "rungs: least 0 must be at least 1"),
        (lambda: RungSettings((1.5,)), "rungs: epochs"),
        (
            lambda: SearchConfig("x", rungs=RungSettings((5, 20))),
            "a rung after 20 epochs, where .* trained for 20: give",
        ),
        (lambda: SearchConfig.from_json({"folder": "x", "rungs": {"epochs": "1"}}), "search config, rungs.epochs"),
        (lambda: SearchConfig.from_json({"folder": "x", "rungs": {"every": 1}}), "search config, rungs.every"),
    ],
)
def test_impossible_settings(wrong, message):
    with pytest.raises(ConfigError, match=message):
        wrong()


def test_a_child_that_cannot_report_is_refused_at_the_start(tmp_path):
    for child in (Child(), None):
        with pytest.raises(ConfigError, match=r"rungs need children that report on the way, and those here \(nasben"):
            run(with_rungs(tmp_path / "run"), child=child)
    assert not any(tmp_path.iterdir())
    assert can_report(Learner()) and can_report(lambda architecture, seed, report: {}) and not can_report(Child())


# Searches


@SEARCHERS
def test_a_search_with_rungs(tmp_path, searcher):
    child = Learner()
    driver = searched(with_rungs(tmp_path, searcher=searcher, children=120), child)
    stopped = check_journal(tmp_path)
    assert stopped[1] >= 10 and stopped[3] >= 5
    by_status = Counter(record.status for record in driver.records)
    assert by_status == {"done": 120 - stopped.total(), "stopped": stopped.total()} and len(driver.finished) == 120
    trained = Counter(seed for seed, _ in child.steps)
    for record in driver.records:
        seed, architecture = child_seed(0, record.child), SPACE.decode(record.tokens)
        assert trained[seed] == (record.rung or EPOCHS)
        if record.status == "done":
            assert record.reward == curve(architecture, seed, EPOCHS)
        else:
            assert record.metrics == {"accuracy": curve(architecture, seed, record.rung), "epochs": record.rung}
            assert record.metrics["accuracy"] <= record.reward < record.metrics["accuracy"] + 0.4
    done = [record for record in driver.records if record.status == "done"]
    assert driver.best is max(done, key=lambda record: record.reward)
    assert json.loads((tmp_path / "best.json").read_text())["child"] == driver.best.child
    learned = [child for event in events(tmp_path, "updated") for child in event.body["children"]]
    assert learned == driver.finished[: 120 // driver.searcher.batch * driver.searcher.batch]  # stopped ones too


def test_a_stopped_child_is_never_the_best(tmp_path):
    """However much those that went on have gained: here the first ones gain a lot, and the later ones nothing."""

    class Slower(Child):
        def __call__(self, architecture: str, seed: int, report: Reports) -> dict:
            self.calls.append(seed)
            first = len(self.calls) <= 2
            report(1, {"accuracy": 0.3 if first else 0.2})
            return {"accuracy": 0.9 if first else 0.1}

    driver = searched(with_rungs(tmp_path, rungs=RungSettings((1,), keep=0.1, least=3), children=12), Slower())
    assert [record.status for record in driver.records] == ["done"] * 2 + ["stopped"] * 10
    assert driver.records[2].reward == pytest.approx(0.2 + 0.6) and driver.best.child == 0


def test_without_rungs_reports_change_nothing(tmp_path):
    class Same(Child):
        def __call__(self, architecture: str, seed: int) -> dict:
            return {"accuracy": curve(architecture, seed, EPOCHS)}

    assert history(searched(config(tmp_path / "a"), Learner())) == history(searched(config(tmp_path / "b"), Same()))
    assert not events(tmp_path / "a", "reported")


def test_rewards_that_are_no_numbers_are_not_ranked(tmp_path):
    class Broken(Child):
        def __call__(self, architecture: str, seed: int, report: Reports) -> dict:
            self.calls.append(seed)
            accuracy = float("nan") if len(self.calls) % 2 else 0.5
            report(1, {"accuracy": accuracy})
            return {"accuracy": accuracy}

    driver = searched(with_rungs(tmp_path, children=10), Broken())
    assert [record.status for record in driver.records] == ["nan", "done"] * 5
    assert len(events(tmp_path, "reported")) == 5


@pytest.mark.parametrize("metrics", [{"loss": 1.0}, 0.5, {"accuracy": {1}}])
def test_reports_that_are_no_metrics(tmp_path, metrics):
    def child(architecture: str, seed: int, report: Reports) -> dict:
        report(1, metrics)
        return {"accuracy": 0.5}

    child.prepare = lambda device: None
    with pytest.raises(SearchError, match="of what child 0 returned|child 0 returned .* no dict of metrics"):
        run(with_rungs(tmp_path), child=child)


def test_a_child_that_goes_on_in_spite_of_it_has_stopped_all_the_same(tmp_path):
    class Stubborn(Learner):
        def __call__(self, architecture: str, seed: int, report: Reports) -> dict:
            try:
                return super().__call__(architecture, seed, report)
            except Stopped:
                return {"accuracy": 0.99}

    whole = searched(with_rungs(tmp_path / "a"), Learner())
    assert history(searched(with_rungs(tmp_path / "b"), Stubborn())) == history(whole)


def test_repeats_get_the_result_of_a_stopped_child_too(tmp_path):
    space = SpaceSettings("nasbench201", ops=("none", "nor_conv_3x3"))  # 64 cells
    child = Learner()
    configured = with_rungs(tmp_path, space=space, searcher="random", repeats="serve", children=100)
    driver = searched(configured, child)
    check_journal(tmp_path)
    served = [record for record in driver.records if record.served is not None]
    assert {record.status for record in served} == {"done", "stopped"}
    for record in served:
        leader = driver.records[record.served]
        assert (record.status, record.reward, record.metrics, record.rung) == (
            *(leader.status, leader.reward, leader.metrics, leader.rung),
        )
    assert len(child.calls) == len({record.hash for record in driver.records})
    assert history(searched(configured, Learner())) == history(driver)


# Whatever stops a search


@SEARCHERS
def test_an_interrupted_search_is_the_uninterrupted_one(tmp_path, searcher):
    whole = searched(with_rungs(tmp_path / "whole", searcher=searcher, children=40), Learner())
    configured = with_rungs(tmp_path / "cut", searcher=searcher, children=40)
    for last in (1, 2, 5, 9, 14, 20, 4):  # before, after and between reports
        with pytest.raises(KeyboardInterrupt):
            run(configured, child=Learner(last, KeyboardInterrupt()))
    resumed = searched(configured, Learner())
    assert history(resumed) == history(whole)
    assert pack_state(resumed.searcher.state_dict()) == pack_state(whole.searcher.state_dict())
    assert check_journal(tmp_path / "cut") == check_journal(tmp_path / "whole")


@pytest.mark.parametrize("moment", ["told to stop", "told to go on"])
def test_a_driver_that_dies_when_it_has_answered(tmp_path, monkeypatch, moment):
    """A child that was told to stop is not trained again; one that may go on hears so again."""

    class Deadly(Learner):
        def __call__(self, architecture: str, seed: int, report: Reports) -> dict:
            try:
                report(1, {"accuracy": curve(architecture, seed, 1), "epochs": 1})
            except Stopped:
                if moment == "told to stop":
                    raise Death from None
                raise
            if moment == "told to go on" and len(self.calls) == 3:
                raise Death
            return super().__call__(architecture, seed, report)

    whole = searched(with_rungs(tmp_path / "whole", searcher="random"), Learner())
    configured = with_rungs(tmp_path / "run", searcher="random")
    for _ in range(2):
        dies(monkeypatch, configured, Deadly())
    child = Learner()
    resumed = searched(configured, child)
    assert history(resumed) == history(whole) and check_journal(tmp_path / "run") == check_journal(tmp_path / "whole")
    attempts = Counter(event.child for event in events(tmp_path / "run", "started"))
    twice = [record for record in resumed.records if attempts[record.child] > 1]
    assert not any(record.rung == 1 for record in twice) and bool(twice) == (moment == "told to go on")


@SEARCHERS
def test_a_search_goes_on_from_any_event_of_its_journal(tmp_path, searcher):
    configured = with_rungs(tmp_path / "whole", searcher=searcher, children=24)
    whole = searched(configured, Learner())
    committed = [event.id for kind in ("reported", "finished", "started") for event in events(tmp_path / "whole", kind)]
    for last in random.Random(1).sample(committed, 6):
        folder = copy_of(tmp_path / "whole" / "journal.sqlite", tmp_path / str(last), last)
        assert history(searched(replace(configured, folder=str(folder)), Learner())) == history(whole), last


def test_a_child_that_is_trained_again_hears_the_same(tmp_path):
    """It may report something else then, on another machine; what it first reported counts."""

    class Different(Learner):
        def __call__(self, architecture: str, seed: int, report: Reports) -> dict:
            self.calls.append(seed)
            again = self.calls.count(seed) > 1
            report(1, {"accuracy": 0.0 if again else 0.5})
            if not again:
                raise ChildFailure("error", "the machine is taken away")
            return {"accuracy": 0.7}

    failures = FailureSettings(error="retry", stop=1000)
    driver = searched(with_rungs(tmp_path, failures=failures, children=12), Different())
    assert {record.status for record in driver.records} == {"done"}
    reports = events(tmp_path, "reported")
    assert len(reports) == 12 and all(event.body["goes_on"] and event.body["reward"] == 0.5 for event in reports)


class LosingFleet(Fleet):
    """Of those that were told to stop, it loses every worker before it can say so."""

    capacity = 3

    def __init__(self, child: Child) -> None:
        self.child, self.tasks = child, []

    def start(self) -> None: ...

    def close(self) -> None: ...

    def submit(self, task: Task) -> None:
        self.tasks.append(task)

    def next_done(self, timeout: float) -> list[Result]:
        result = run_task(self.child, self.tasks.pop(), "somewhere", self.decide)
        return [replace(result, status="lost", message="gone") if result.status == "stopped" else result]


def test_a_worker_that_is_lost_after_it_was_told_to_stop(tmp_path):
    child = Learner()
    driver = searched(with_rungs(tmp_path, searcher="random", children=40), child, LosingFleet(child))
    assert check_journal(tmp_path).total() > 10 and len(child.calls) == 40
    assert {record.status for record in driver.records} == {"done", "stopped"}
    assert all(not record.message for record in driver.records)


class DeafFleet(LosingFleet):
    def next_done(self, timeout: float) -> list[Result]:
        return [run_task(self.child, self.tasks.pop(), "somewhere")]


def test_a_fleet_that_carries_no_reports_says_so(tmp_path):
    child = Learner()
    with pytest.raises(SearchError, match="this fleet does not carry the reports that rungs need"):
        run(with_rungs(tmp_path), child=child, fleet=DeafFleet(child))


def test_a_thousand_children_on_simulated_workers(tmp_path):
    """Nobody waits for a generation: workers are as busy as without rungs."""
    child = Learner()
    fleet = SimulatedFleet(child, 50, lambda task: random.Random(task.seed).uniform(60, 100), epochs=EPOCHS)
    driver = searched(with_rungs(tmp_path, searcher="random", children=1000), child, fleet)
    stopped = check_journal(tmp_path)
    assert 350 < stopped[1] < 650 and 150 < stopped[3] < 350
    assert len(driver.finished) == 1000
    last = max(start for start, _ in fleet.spans)
    assert fleet.busy(last) > 0.97


KILLED = """
import sys, time
from nasnet_zoo.search import FailureSettings, FleetSettings, RungSettings, run
from toy_search import LearningChild, toy_config

class Slow(LearningChild):
    def __call__(self, architecture, seed, report):
        time.sleep(0.01)
        return super().__call__(architecture, seed, report)

if __name__ == "__main__":
    changes = dict(rungs=RungSettings((2, 4)), failures=FailureSettings(attempts=1000))
    run(toy_config(sys.argv[1], 300, fleet=FleetSettings("inline", ("cpu",)), **changes), child=Slow())
"""


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
def test_kills_change_no_answer(tmp_path):
    helpers = str(Path(__file__).parents[1] / "helpers")
    environment = os.environ | {"PYTHONPATH": helpers}
    said: list[tuple] = []
    for kill in (40, 120, None):
        driver = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path / "run")], env=environment)
        end = time.monotonic() + 300
        while driver.poll() is None and kill is not None:
            assert time.monotonic() < end
            if (tmp_path / "run" / "journal.sqlite").exists() and len(events(tmp_path / "run", "reported")) > kill:
                driver.kill()
            time.sleep(0.01)
        assert driver.wait() == (0 if kill is None else -signal.SIGKILL)
        now = [(event.child, event.body) for event in events(tmp_path / "run", "reported")]
        assert now[: len(said)] == said
        said = now
    whole = toy_config(tmp_path / "whole", 300, rungs=RungSettings((2, 4)))
    run(whole, child=LearningChild())
    assert said == [(event.child, event.body) for event in events(tmp_path / "whole", "reported")]
    ends = [
        [(event.child, event.body["status"], event.body["reward"]) for event in events(tmp_path / name, "finished")]
        for name in ("run", "whole")
    ]
    assert ends[0] == ends[1]


# What is said


def test_rungs_are_a_part_of_what_a_search_is(tmp_path):
    searched(with_rungs(tmp_path / "a", children=5), Learner())
    assert read_search_config(tmp_path / "a" / "config.json").rungs == RUNGS
    with pytest.raises(JournalError, match=r"another config \(rungs.epochs \[1, 3\] there, \[1\] here\)"):
        run(with_rungs(tmp_path / "a", rungs=replace(RUNGS, epochs=(1,))), child=Learner())
    with pytest.raises(JournalError, match="rungs.epochs"):
        run(config(tmp_path / "a"), child=Learner())


def test_rows_of_stopped_children(tmp_path):
    run(toy_config(tmp_path, 20, rungs=RungSettings((2, 4))), child=LearningChild())
    rows = read_children(tmp_path)
    assert {row["stopped"] for row in rows} == {None, 2, 4}
    assert all((row["stopped"] is None) == (row["status"] == "done") for row in rows)
    finished = {event.child: event.body for event in events(tmp_path, "finished")}
    for row in rows:
        body = finished[row["child"]]
        assert (row["status"], row["reward"], row["metrics"]) == (body["status"], body["reward"], body["metrics"])
    result = CliRunner().invoke(app, ["report", str(tmp_path), "--csv"], catch_exceptions=False)
    table = list(csv.DictReader(StringIO(result.stdout, newline="")))
    assert [line["stopped"] for line in table] == [
        "" if row["stopped"] is None else str(row["stopped"]) for row in rows
    ]
    front = CliRunner().invoke(app, ["report", str(tmp_path), "--pareto"], catch_exceptions=False).stdout
    on_front = [int(line["child"]) for line in csv.DictReader(StringIO(front))]
    assert on_front and all(rows[child]["stopped"] is None for child in on_front)


def test_the_report_page_says_what_was_stopped_and_saved(tmp_path):
    done = {"status": "done", "reward": 0.5, "metrics": {"accuracy": 0.5}}
    stopped = [
        {"status": "stopped", "stopped": epoch, "reward": 0.9, "metrics": {"accuracy": 0.2}} for epoch in (1, 1, 4)
    ]
    failed = {"status": "nan", "reward": 0.1, "metrics": {}}
    settings = SearchConfig("s", SpaceSettings("nasnet", blocks=2), children=9, rungs=RungSettings((1, 4)))
    folder = write_folder(tmp_path, settings, [done, *stopped, done, failed, done | {"served": 0}])
    page = Page(write_report(folder))
    share = f"{(19 + 19 + 16) / (5 * 20):.0%}"
    assert f"stopped early 3 {share} of the epochs saved" in page.text() and "failed 1 1 nan" in page.text()
    assert "best reward 0.5000" in page.text()
    sentence = (
        f"3 children fell behind and were stopped early (2 after 1 epoch, 1 after 4 epochs), which saved {share} of"
    )
    assert sentence in page.text("cost") and "stopped" not in page.text("failures")


def test_the_report_page_of_a_search_without_rungs_says_nothing_of_them(tmp_path):
    settings = SearchConfig("s", SpaceSettings("nasnet", blocks=2), children=9)
    done = {"status": "done", "reward": 0.5, "metrics": {"accuracy": 0.5}}
    assert "stopped early" not in Page(write_report(write_folder(tmp_path, settings, [done, done]))).text()


def test_rungs_on_the_command_line(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr("nasnet_zoo.search.several.run", lambda config, **options: seen.append(config) or 1 / 0)
    options = ["search", str(tmp_path / "a"), "--preset", "quick", "--set", "child.recipe.epochs=9"]
    with pytest.raises(ZeroDivisionError):
        CliRunner().invoke(app, [*options, "--rungs", "1,3", "--set", "rungs.keep=0.25"], catch_exceptions=False)
    assert seen[0].rungs == RungSettings((1, 3), keep=0.25)
    with pytest.raises(ConfigError, match="--rungs 1,b: write numbers of epochs with commas between"):
        CliRunner().invoke(app, [*options, "--rungs", "1,b"], catch_exceptions=False)
    with pytest.raises(ConfigError, match="a rung after 9 epochs"):
        CliRunner().invoke(app, [*options, "--rungs", "1,9"], catch_exceptions=False)


def test_a_report_after_other_epochs_costs_nothing():
    heard: list[Report] = []
    report = Reports(7, (2, 5), lambda said: heard.append(said) or True)
    for epoch in range(1, 7):
        report(epoch, {"accuracy": epoch / 10})
    assert heard == [Report(7, 2, {"accuracy": 0.2}), Report(7, 5, {"accuracy": 0.5})]
    with pytest.raises(Stopped):
        Reports(7, (2,), lambda said: False)(2, {"accuracy": 0.2})


def test_a_child_of_a_table_has_no_epochs():
    assert ChildSettings("nasbench201").training_epochs() is None and ChildSettings().training_epochs() == 20
