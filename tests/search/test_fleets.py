"""Every fleet keeps the same promises: tasks in, results out, failures told apart, dead workers replaced."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from toy_children import BrokenChild, CrashingChild, DatalessChild, ToyChild, toy_accuracy

from nasnet_zoo.errors import ConfigError, DataError, JournalError, SearchError, ZooError
from nasnet_zoo.search.children.base import Report, Result, Task, run_task
from nasnet_zoo.search.config import FleetSettings
from nasnet_zoo.search.fleet import base
from nasnet_zoo.search.fleet.base import Fleet
from nasnet_zoo.search.fleet.table import make_fleet

HELPERS = Path(__file__).resolve().parents[1] / "helpers"
KINDS = ["inline", "processes", "ray"]
PATIENCE = 300  # seconds, after which something hangs: far more than anything here takes on a busy machine
posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")


def make(kind: str, child: ToyChild, workers: int = 2) -> Fleet:
    return make_fleet(FleetSettings(kind, ("cpu",), 1 if kind == "inline" else workers, threads=1), child)


@pytest.fixture(scope="module")
def cluster():
    """One Ray cluster for all tests, of one node; its workers find the toy children by PYTHONPATH."""
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(HELPERS), prepend=os.pathsep)
        patch.setattr("nasnet_zoo.search.fleet.rays.LOOK_SECONDS", 0.2)
        try:
            cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 5, "object_store_memory": 2**27})
        except Exception as error:  # Ray gives itself 30 s, which a machine that is busy otherwise may not have
            pytest.skip(f"Ray does not start here: {error}")
        ray.init(cluster.address, log_to_driver=False)
        yield cluster
        ray.shutdown()
        cluster.shutdown()


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    if request.param == "ray":
        request.getfixturevalue("cluster")
    return request.param


@pytest.fixture(scope="module")
def folder(kind, tmp_path_factory):
    return tmp_path_factory.mktemp(kind)


@pytest.fixture(scope="module")
def fleet(kind, folder):
    """A fleet of toy children that the tests share, since a worker takes seconds to start."""
    with make(kind, ToyChild(str(folder))) as fleet:
        yield fleet


def gather(fleet: Fleet, words: list[str], seconds: dict[str, float] = {}) -> list[Result]:  # noqa: B006
    """The results of the words, in their order; given to the fleet as the driver does, within its capacity. `seconds`
    limits the time of some of the words."""
    waiting = [Task(child, word, seed=7, seconds=seconds.get(word)) for child, word in enumerate(words)]
    results: dict[int, Result] = {}
    running, end = 0, time.monotonic() + PATIENCE
    while len(results) < len(words):
        assert time.monotonic() < end, f"only {results} after {PATIENCE} s"
        while waiting and running < fleet.capacity:
            fleet.submit(waiting.pop(0))
            running += 1
        for result in fleet.next_done(0.5):
            assert result.child not in results
            results[result.child] = result
            running -= 1
    return [results[child] for child in range(len(words))]


@pytest.fixture
def asked(fleet):
    """What the fleet has asked of its driver since; `asked.answer` says what it hears."""
    asked = Asked()
    fleet.decide = asked
    yield asked
    del fleet.decide


class Asked(list):
    def __call__(self, report: Report) -> bool:
        self.append(report)
        return self.answer(report)

    def answer(self, report: Report) -> bool:
        return True


def reported(fleet: Fleet, words: list[str], rungs: tuple[int, ...] = (1, 3)) -> list[Result]:
    """The results of the words, all of which are submitted at once, with rungs."""
    for child, word in enumerate(words):
        fleet.submit(Task(child, word, seed=7, rungs=rungs))
    results: dict[int, Result] = {}
    wait_for(lambda: results.update({r.child: r for r in fleet.next_done(0.5)}) or len(results) == len(words))
    return [results[child] for child in range(len(words))]


def wait_for(condition) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"still not so after {PATIENCE} s"
        time.sleep(0.05)


def alive(folder: Path) -> set[int]:
    """The workers that were prepared with this folder and run."""
    return {int(path.name) for path in folder.iterdir() if running(int(path.name))}


def running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat")
    return not state.exists() or state.read_text().rpartition(")")[2].split()[0] != "Z"


def test_results(fleet):
    words = [f"cell {i}" for i in range(9)]
    start = time.monotonic()
    results = gather(fleet, words)
    elapsed = time.monotonic() - start
    assert [result.status for result in results] == ["done"] * 9
    assert [result.metrics for result in results] == [{"accuracy": toy_accuracy(word, 7)} for word in words]
    assert all(result.worker.endswith(":cpu") and 0 <= result.seconds < elapsed for result in results)


def test_failures_are_told_apart(fleet):
    words = {"nan": "nan", "timeout": "timeout", "memory": "oom", "cuda memory": "oom", "bug": "error", "fine": "done"}
    results = gather(fleet, list(words))
    assert [result.status for result in results] == list(words.values())
    assert results[0].message == "it is a nan" and results[5].message == ""
    assert "toy_children.py" in results[4].message and results[4].message.endswith("ValueError: a bug in the child")


def test_children_report_and_go_on(fleet, asked):
    results = reported(fleet, ["report", "cell", "report", "report"])
    assert [result.status for result in results] == ["done"] * 4
    assert [result.metrics for result in results] == [
        {"accuracy": toy_accuracy(word, 7)} for word in ("report", "cell", "report", "report")
    ]
    for child in (0, 2, 3):
        own = [report for report in asked if report.child == child]
        assert [(report.epoch, report.metrics["accuracy"]) for report in own] == [(1, 0.1), (3, 0.3)]
    assert len(asked) == 6


def test_children_that_report_are_stopped(fleet, asked):
    asked.answer = lambda report: report.child == 1 or report.child == 2 and report.epoch == 1
    results = reported(fleet, ["report"] * 4)
    assert [result.status for result in results] == ["stopped", "done", "stopped", "stopped"]
    assert all(not result.message and result.worker.endswith(":cpu") for result in results)
    assert sorted((report.child, report.epoch) for report in asked) == [(0, 1), (1, 1), (1, 3), (2, 1), (2, 3), (3, 1)]
    assert [result.status for result in gather(fleet, ["a", "nan", "b"])] == ["done", "nan", "done"]


def test_failures_between_reports(fleet, asked):
    statuses = [result.status for result in reported(fleet, ["bug", "memory", "nan", "report"])]
    assert statuses == ["error", "oom", "nan", "done"]


@posix
def test_a_worker_that_dies_while_it_waits_for_an_answer(kind, fleet, asked):
    if kind == "inline":
        pytest.skip("its worker is the driver")

    def kill(report: Report) -> bool:
        if report.child == 0:
            os.kill(report.metrics["worker"], signal.SIGKILL)
            wait_for(lambda: not running(report.metrics["worker"]))
        return True

    asked.answer = kill
    results = reported(fleet, ["report", "report", "a"])
    assert [result.status for result in results] == ["lost", "done", "done"]


def test_an_error_of_the_driver_when_it_is_asked(kind, tmp_path):
    with make(kind, ToyChild(str(tmp_path)), 1) as fleet:

        def decide(report: Report) -> bool:
            raise JournalError("the disk is full")

        fleet.decide = decide
        with pytest.raises(JournalError, match="the disk is full"):
            reported(fleet, ["report"])


def test_a_place_that_is_left_out_gets_no_more_tasks(kind, fleet):
    if kind == "inline":
        assert fleet.places == set()  # there is no other to compare with
        return
    wait_for(lambda: [fleet.next_done(0.1), fleet.capacity == 2][1])
    first, second = sorted(fleet.places)
    assert {result.place for result in gather(fleet, ["sleep", "sleep"])} == {first, second}
    fleet.excluded = {first}
    assert (fleet.places, fleet.capacity) == ({second}, 1)
    results = gather(fleet, ["a", "bug", "b", "c"])
    assert [(result.status, result.place) for result in results] == [
        ("done", second),
        ("error", second),
        ("done", second),
        ("done", second),
    ]
    fleet.excluded = set()
    assert {result.place for result in gather(fleet, ["sleep", "sleep"])} == {first, second}


@posix
def test_a_dead_worker_is_replaced_and_its_task_lost(kind, fleet):
    if kind == "inline":
        pytest.skip("its worker is the driver")
    results = gather(fleet, ["die", "a", "die", "b", "c"])
    assert [result.status for result in results] == ["lost", "done", "lost", "done", "done"]
    assert "died" in results[0].message
    assert results[0].place in fleet.places  # where another stands now


def test_a_worker_whose_gpu_computes_no_more_is_replaced(kind, fleet):
    """It would fail every child that it is given."""
    if kind == "inline":
        pytest.skip("its worker is the driver")
    results = gather(fleet, ["a", "illegal access", "b", "c", "d"])
    assert [result.status for result in results] == ["done", "lost", "done", "done", "done"]


def test_the_driver_ends_when_its_own_gpu_computes_no_more(monkeypatch, tmp_path):
    import torch

    for name in ("is_initialized", "synchronize"):
        monkeypatch.setattr(torch.cuda, name, getattr(torch.cuda, name))  # the child changes them
    child = ToyChild(str(tmp_path))
    with make_fleet(FleetSettings("inline", ("cpu",)), child) as fleet, pytest.raises(SearchError) as caught:
        gather(fleet, ["illegal access"])
    assert "can compute no more in this process (CUDA error: an illegal memory access" in str(caught.value)


def test_an_illegal_memory_access_is_not_too_little_memory():
    def child(architecture, seed):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    assert run_task(child, Task(0, "a", 1), "here").status == "error"


@pytest.mark.parametrize("device", ["cuda:99", "gpu", "meta"])
@pytest.mark.parametrize("where", ["inline", "processes"])
def test_a_device_that_is_not_there(where, device):
    with pytest.raises(ZooError, match=f"the device '{device}' is not there"):
        make_fleet(FleetSettings(where, (device,)), ToyChild("."))


@pytest.mark.parametrize("settings", [dict(per_device=2), dict(devices=("cpu", "cpu"))])
def test_inline_has_one_worker_and_says_so(settings):
    with pytest.raises(ConfigError, match="choose --fleet processes"):
        make_fleet(FleetSettings("inline", **settings), ToyChild("."))


@posix
def test_what_is_submitted_while_workers_die_and_start_waits_for_one(kind, fleet, folder):
    """More tasks at once than there are workers, all of which have just been killed."""
    if kind != "inline":
        for pid in alive(folder):
            os.kill(pid, signal.SIGKILL)
    for child in range(5):
        fleet.submit(Task(child, f"cell {child}", 7))
    results: list[Result] = []
    wait_for(lambda: results.extend(fleet.next_done(0.5)) or len(results) >= 5)
    assert sorted(result.child for result in results) == list(range(5))
    assert {result.status for result in results} <= {"done", "lost"}
    assert sum(result.status == "lost" for result in results) <= 2  # those that dead workers were given


@posix
def test_workers_killed_from_outside(kind, fleet, folder):
    if kind == "inline":
        pytest.skip("its worker is the driver")
    wait_for(lambda: fleet.next_done(0.1) or fleet.capacity == 2 == len(alive(folder)))
    fleet.submit(Task(0, "sleep long", 7))
    fleet.submit(Task(1, "sleep long", 7))
    assert fleet.next_done(0.3) == []
    for pid in alive(folder):
        os.kill(pid, signal.SIGKILL)
    results: list[Result] = []
    wait_for(lambda: results.extend(fleet.next_done(0.5)) or len(results) == 2)
    assert {(result.child, result.status) for result in results} == {(0, "lost"), (1, "lost")}
    assert [result.status for result in gather(fleet, ["a", "b", "c"])] == ["done"] * 3


def test_a_hung_task_times_out(kind, fleet, monkeypatch):
    if kind == "inline":
        pytest.skip("its worker is the driver")
    monkeypatch.setattr(base, "GRACE_SECONDS", 1.0)
    results = gather(fleet, ["sleep long", "a"], seconds={"sleep long": 0.2})
    assert [result.status for result in results] == ["timeout", "done"]
    assert results[0].message == "it hung and was killed" and 1.3 < results[0].seconds < 600  # it would sleep for 600


def test_the_users_errors_come_through(kind, tmp_path):
    with pytest.raises(DataError, match="no data here"), make(kind, DatalessChild(str(tmp_path)), 1) as fleet:
        gather(fleet, ["a"])


@posix
@pytest.mark.parametrize("child", [CrashingChild, BrokenChild])
def test_workers_that_only_die_end_the_search(kind, tmp_path, monkeypatch, child):
    if kind == "inline":
        pytest.skip("its worker is the driver")
    monkeypatch.setattr(f"nasnet_zoo.search.fleet.{'rays' if kind == 'ray' else kind}.MAX_DEATHS", 1)
    with pytest.raises(SearchError, match="died one after another") as caught, make(kind, child(str(tmp_path)), 1) as f:
        gather(f, ["a"] * 9)
    assert len(list(tmp_path.iterdir())) == 2
    if kind == "ray" and child is BrokenChild:
        assert "no module named flux" in str(caught.value)


DRIVER = """
import signal, sys, time
from toy_children import ToyChild
from nasnet_zoo.search.children.base import Task
from nasnet_zoo.search.config import FleetSettings
from nasnet_zoo.search.fleet.table import make_fleet
if __name__ == "__main__":
    folder, kind, word = sys.argv[1:]
    with make_fleet(FleetSettings(kind, ("cpu",), 2, threads=1), ToyChild(folder)) as fleet:
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL  # Ray's is not left there
        while fleet.capacity < 2:
            fleet.next_done(1)
        fleet.decide = lambda report: time.sleep(600)
        fleet.submit(Task(0, word, 7, rungs=(1,)))
        while True:
            fleet.next_done(600)
"""


@posix
@pytest.mark.parametrize("word", ["sleep long", "report"])
@pytest.mark.parametrize("kind", ["processes", pytest.param("ray", marks=pytest.mark.slow)])
def test_workers_die_with_their_driver(kind, word, tmp_path):
    """One of them computes, or waits for an answer."""
    environment = os.environ | {"PYTHONPATH": str(HELPERS)}
    if kind == "ray":
        pytest.importorskip("ray")
        environment.pop("RAY_ADDRESS", None)
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, str(tmp_path), kind, word], env=environment)
    try:
        wait_for(lambda: len(alive(tmp_path)) == 2 or driver.poll() is not None)
        time.sleep(0.5)
        assert driver.poll() is None
    finally:
        driver.kill()
        driver.wait()
    wait_for(lambda: not alive(tmp_path))


@pytest.mark.slow
def test_ray_nodes_come_and_go(cluster, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("nasnet_zoo.search.fleet.rays.PATIENCE_SECONDS", 0.0)
    settings = FleetSettings("ray", ("cpu",), per_device=2, threads=3)  # the head, with 5 cores, has room for one
    with make_fleet(settings, ToyChild(str(tmp_path))) as fleet:
        wait_for(lambda: fleet.next_done(0.2) or fleet.capacity == 1)
        assert capsys.readouterr().err.count("waiting for workers: the Ray cluster has 1 nodes") == 1
        node = cluster.add_node(num_cpus=7, object_store_memory=2**27)
        wait_for(lambda: fleet.next_done(0.2) or fleet.capacity == 3)
        for child in range(3):
            fleet.submit(Task(child, "sleep long", 7))
        cluster.remove_node(node, allow_graceful=False)
        lost: list[Result] = []
        wait_for(lambda: lost.extend(fleet.next_done(0.5)) or len(lost) == 2)
        assert [result.status for result in lost] == ["lost", "lost"]
        assert fleet.capacity == 1


@pytest.mark.slow
def test_ray_shares_gpus(cluster, tmp_path):
    node = cluster.add_node(num_cpus=3, num_gpus=1, object_store_memory=2**27)  # pretended: the toys do not use it
    with make_fleet(FleetSettings("ray", per_device=6), ToyChild(str(tmp_path))) as fleet:
        wait_for(lambda: fleet.next_done(0.2) or fleet.capacity == 6)
        assert all(result.worker.endswith(":cuda:0") for result in gather(fleet, ["a", "b", "c"]))
    cluster.remove_node(node)


def test_ray_says_what_it_cannot_do(cluster, tmp_path, monkeypatch):
    with pytest.raises(SearchError, match="takes the device cuda or cpu, not cuda:0"):
        make_fleet(FleetSettings("ray", ("cuda:0",)), ToyChild(str(tmp_path)))
    fleet = make_fleet(FleetSettings("ray"), ToyChild(str(tmp_path)))
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(SearchError, match="cannot join the Ray cluster at 127.0.0.1:1: .*refused"), fleet:
        pass
    monkeypatch.delitem(sys.modules, "nasnet_zoo.search.fleet.rays")
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SearchError, match=r"pip install 'nasnet-zoo\[cluster\]'"):
        make_fleet(FleetSettings("ray"), ToyChild(str(tmp_path)))
