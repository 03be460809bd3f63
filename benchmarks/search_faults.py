"""What a search loses when it is killed: nothing that was finished.

    python benchmarks/search_faults.py [--kills 100] [--parts inline processes ray nodes resume]

takes an hour on two cores; each part replaces its figures in the results.

Searches of short toy children on the real engine (PPO on the space nasnet) get SIGKILL at seeded random moments, the
driver or a worker, and are started again until they are done. After every death the journal is compared with what it
said before and with what the driver had reported as finished; at the end with what the children really are worth.
Then nodes of a Ray cluster are added and removed in mid-search, and a search of 20,000 children is resumed. Linux.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nasnet_zoo.search import FailureSettings, FleetSettings, SearchConfig, run
from nasnet_zoo.search.children.base import Result, Task
from nasnet_zoo.search.driver import Driver, child_seed
from nasnet_zoo.search.fleet.base import Fleet
from nasnet_zoo.search.journal import Event, read_events
from nasnet_zoo.search.searchers.table import make_searcher

EARLY, EARLY_SECONDS = 0.2, 8.0  # so many of the drivers' deaths come within so long after the start
GONE_SECONDS = 300.0  # by then a dead driver's processes must be gone, on a busy machine too
AGENTS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent", "ray/dashboard/agent.py", "runtime_env/agent/main.py")
PARTS = ("inline", "processes", "ray", "nodes", "resume")
CHILDREN, LONG = 300, 20_000
NODE_CHANGES = 20

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"


@dataclass
class ToyChild:
    """Takes 10 to 50 ms. Each worker leaves a file with its process id as name in `folder` when it is prepared."""

    folder: str

    def prepare(self, device: str) -> None:
        Path(self.folder, str(os.getpid())).touch()

    def __call__(self, architecture: Any, seed: int) -> dict[str, Any]:
        accuracy = toy_accuracy(architecture, seed)
        time.sleep(0.01 + 0.04 * accuracy)
        return {"accuracy": accuracy}


def toy_accuracy(architecture: Any, seed: int) -> float:
    return int.from_bytes(hashlib.sha256(f"{architecture}/{seed}".encode()).digest()[:4]) / 2**32


@dataclass(frozen=True)
class Search:
    """A search of toy children in `folder`, and what its journal has said."""

    folder: Path
    kind: str
    children: int
    seed: int = 0

    @property
    def config(self) -> SearchConfig:
        fleet = FleetSettings(self.kind, ("cpu",), per_device=1 if self.kind == "inline" else 2, threads=1)
        failures = FailureSettings(attempts=1000)  # the kills are not the children's fault, however many hit the same
        folder = str(self.folder / "run")
        return SearchConfig(folder, children=self.children, failures=failures, fleet=fleet, seed=self.seed)

    def drive(self) -> None:
        """The driver's process: runs the search, and writes down on the side what it takes for finished."""
        reported: int | None = None
        with (self.folder / "reported").open("a", buffering=1) as report:

            def changed(driver: Driver) -> None:
                nonlocal reported
                if reported is None:
                    reported = len(driver.finished)  # those before were reported by the drivers before
                for child in driver.finished[reported:]:
                    report.write(json.dumps([child, driver.records[child].reward]) + "\n")
                reported = len(driver.finished)

            run(self.config, child=ToyChild(str(self.folder / "workers")), on_change=changed)

    def start(self, **environment: str) -> subprocess.Popen:
        (self.folder / "workers").mkdir(parents=True, exist_ok=True)
        command = [sys.executable, __file__, "--drive", str(self.folder), self.kind, str(self.children), str(self.seed)]
        with (self.folder / "log").open("a") as log:
            return subprocess.Popen(command, env=os.environ | environment, stdout=log, stderr=log)

    def reported(self) -> list[str]:
        path = self.folder / "reported"
        return path.read_text().splitlines() if path.exists() else []

    def comes_on(self, driver: subprocess.Popen, children: int, seconds: float = 1800.0) -> bool:
        """Waits until the driver has reported so many more; False if it ends or the time is over before."""
        target, end = len(self.reported()) + children, time.monotonic() + seconds
        while len(self.reported()) < target:
            if driver.poll() is not None or time.monotonic() > end:
                return False
            time.sleep(0.005)
        return True

    def workers(self) -> list[int]:
        return sorted(pid for pid in map(int, os.listdir(self.folder / "workers")) if is_running(pid))

    def events(self, driver: subprocess.Popen | None = None) -> list[Event]:
        """Those in the journal, read beside a driver that runs; that of a dead one is copied, so that its recovery is
        left to the next driver."""
        if driver and driver.poll() is None:
            return read_events(self.folder / "run" / "journal.sqlite")[1]
        with tempfile.TemporaryDirectory() as copy:
            for file in (self.folder / "run").glob("journal.sqlite*"):
                if not file.name.endswith("-shm"):
                    shutil.copy(file, copy)
            path = Path(copy, "journal.sqlite")
            return read_events(path)[1] if path.exists() else []

    def check(self, seen: dict[int, Event], driver: subprocess.Popen | None = None) -> dict[int, Event]:
        """The finished children by number; what an earlier look saw or a driver reported must be among them."""
        reported = [json.loads(line) for line in self.reported()]
        events = [event for event in self.events(driver) if event.kind == "finished"]
        finished = {event.child: event for event in events}
        assert len(events) == len(finished), "a child was counted twice"
        assert all(finished.get(child) == event for child, event in seen.items()), "a finished child was lost"
        for child, reward in reported:
            assert child in finished and finished[child].body["reward"] == reward, "a reported child was lost"
        return finished

    def check_end(self) -> None:
        """The journal of a search that is done: every child once, worth what it is worth, and learned from once."""
        events = self.events()
        proposed = {event.child: tuple(event.body["tokens"]) for event in events if event.kind == "proposed"}
        finished = self.check({})
        assert set(proposed) == set(finished) == set(range(self.children))
        space = self.config.space.space()
        for child, event in finished.items():
            worth = toy_accuracy(space.decode(proposed[child]), child_seed(self.seed, child))
            assert (event.body["status"], event.body["reward"]) == ("done", worth), event
        learned = [child for event in events if event.kind == "updated" for child in event.body["children"]]
        assert len(learned) == len(set(learned)), "a child was learned from twice"
        assert len(learned) == self.children - self.children % self.config.controller.batch, len(learned)
        best = json.loads((self.folder / "run" / "best.json").read_text())
        assert best["reward"] == max(event.body["reward"] for event in finished.values())

    def sequence(self) -> list[tuple[list[int], float]]:
        """(tokens, reward) in the order in which the children were finished."""
        events = self.events()
        tokens = {event.child: event.body["tokens"] for event in events if event.kind == "proposed"}
        return [(tokens[event.child], event.body["reward"]) for event in events if event.kind == "finished"]

    def failed(self) -> str:
        return f"{self.folder} failed:\n" + (self.folder / "log").read_text()[-2000:]


def kill_searches(kind: str, kills: int, children: int, folder: Path, seed: int = 0) -> dict[str, Any]:
    """Searches with a fleet of the kind, one after another, until there were so many kills; what happened."""
    rng = random.Random(f"{kind}/{seed}")
    killed: Counter[str] = Counter()
    searches, gone = 0, list[float]()
    while killed.total() < kills:
        search = Search(folder / f"{kind}-{searches}", kind, children, searches)
        seen: dict[int, Event] = {}
        while (driver := search.start()) and kill_now_and_then(search, driver, kills, killed, rng, gone):
            seen = search.check(seen)
        assert driver.wait() == 0, search.failed()
        search.check(seen)
        search.check_end()
        if kind == "inline":
            whole = Search(folder / f"{kind}-{searches}-whole", kind, children, searches)
            assert whole.start().wait() == 0, whole.failed()
            assert whole.sequence() == search.sequence(), "the kills changed the search"
        searches += 1
        print(f"{kind}: {dict(killed)} killed in {searches} searches", flush=True)
    return {
        "drivers_killed": killed["driver"],
        "workers_killed": killed["worker"],
        "searches": searches,
        "children": searches * children,
        "seconds_until_a_dead_drivers_processes_are_gone": {"median": statistics.median(gone), "max": max(gone)},
    }


def kill_now_and_then(
    search: Search, driver: subprocess.Popen, kills: int, killed: Counter[str], rng: random.Random, gone: list[float]
) -> bool:
    """Kills workers until it kills the driver (True), or until the search is done or there were enough (False)."""
    early = rng.random() < EARLY
    while killed.total() < kills:
        victim = "driver" if early or search.kind == "inline" else rng.choice(["driver", "worker"])
        if early:
            time.sleep(rng.uniform(0, EARLY_SECONDS))
        elif not search.comes_on(driver, rng.randint(1, 40)):
            return False
        time.sleep(rng.uniform(0, 0.1))
        if victim == "driver":
            family = descendants(driver.pid)
            driver.kill()
            if driver.wait() != -signal.SIGKILL:  # it was done a moment before
                return False
            killed["driver"] += 1
            gone.append(seconds_until_gone(family))
            return True
        if workers := search.workers():
            os.kill(rng.choice(workers), signal.SIGKILL)
            killed["worker"] += 1
    return False


def change_nodes(changes: int, children: int, folder: Path, seed: int = 0) -> dict[str, Any]:
    """A search on a Ray cluster whose nodes, none to two of one core each, come and go; what happened."""
    from ray.cluster_utils import Cluster

    rng = random.Random(f"nodes/{seed}")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": 2**27})
    search = Search(folder / "nodes", "ray", children)
    driver = search.start(RAY_ADDRESS=cluster.address)
    nodes: list[Any] = []
    happened: Counter[str] = Counter()
    seen: dict[int, Event] = {}
    while (happened.total() < changes or not nodes) and driver.poll() is None:
        if not nodes or len(nodes) < 2 and rng.random() < 0.5:
            nodes.append(cluster.add_node(num_cpus=1, object_store_memory=2**27))
            happened["nodes_added"] += 1
        else:
            graceful = rng.random() < 0.5
            cluster.remove_node(nodes.pop(rng.randrange(len(nodes))), allow_graceful=graceful)
            happened["nodes_removed"] += 1
        search.comes_on(driver, rng.randint(1, 40), rng.uniform(5, 20))
        seen = search.check(seen, driver)
    assert driver.wait() == 0, search.failed()
    cluster.shutdown()
    search.check(seen)
    search.check_end()
    started = sum(event.kind == "started" for event in search.events())
    return dict(happened) | {"children": children, "children_lost_with_a_node_and_trained_again": started - children}


class InstantFleet(Fleet):
    """Answers a whole batch at once, and remembers when it got its first task."""

    capacity = 20

    def __init__(self) -> None:
        self.results: list[Result] = []
        self.first: tuple[float, float] | None = None

    def start(self) -> None: ...

    def submit(self, task: Task) -> None:
        self.first = self.first or now()
        accuracy = toy_accuracy(task.architecture, task.seed)
        self.results.append(Result(task.child, "done", {"accuracy": accuracy}, "", 60.0, "host:1:cuda:0"))

    def next_done(self, timeout: float) -> list[Result]:
        results, self.results = self.results, []
        return results

    def close(self) -> None: ...


def now() -> tuple[float, float]:
    return time.time(), time.process_time()


def resume(folder: Path, children: int) -> None:
    """Goes on with a search, in a process of its own; says when it began and when it submitted its first child."""
    import torch.utils.tensorboard  # noqa: F401  what is imported is no part of a resume

    config, fleet = Search(folder, "inline", children).config, InstantFleet()
    make_searcher(config, config.space.space())  # imports the rest
    begin = now()
    run(config, child=ToyChild(str(folder)), fleet=fleet)
    print(json.dumps([begin, fleet.first]))


def resume_long(folder: Path, children: int = LONG, times: int = 3) -> dict[str, Any]:
    """How long a search of so many children takes to go on."""
    folder.mkdir()
    run(Search(folder, "inline", children).config, child=ToyChild(str(folder)), fleet=InstantFleet())
    size = (folder / "run" / "journal.sqlite").stat().st_size
    wall, cpu, whole = [], [], []
    for i in range(times):
        command = [sys.executable, __file__, "--resume", str(folder), str(children + 20 * (i + 1))]
        start = time.time()
        out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        begin, first = json.loads(out.splitlines()[-1])
        wall.append(round(first[0] - begin[0], 2))
        cpu.append(round(first[1] - begin[1], 2))
        whole.append(round(first[0] - start, 2))
    return {
        "children": children,
        "journal_mib": round(size / 2**20, 1),
        "seconds_from_run_to_the_first_new_child": wall,
        "of_them_cpu_seconds": cpu,
        "seconds_with_the_start_of_python_and_the_imports": whole,
    }


def parent_of(pid: int) -> int | None:
    """The parent of a process that runs, else None."""
    try:
        state, parent, *_ = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return int(parent) if state != "Z" else None


def is_running(pid: int) -> bool:
    return parent_of(pid) is not None


def descendants(pid: int) -> set[int]:
    """The processes below a process, but for two of Ray's own, which notice after about a minute that they may go."""
    parents = {int(name): parent_of(int(name)) for name in os.listdir("/proc") if name.isdigit()}
    family, size = {pid}, 0
    while len(family) > size:
        size = len(family)
        family |= {child for child, parent in parents.items() if parent in family}
    return {child for child in family - {pid} if not any(agent in name_of(child) for agent in AGENTS)}


def name_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def seconds_until_gone(processes: set[int]) -> float:
    start = time.monotonic()
    while living := [name_of(pid) for pid in processes if is_running(pid)]:
        assert time.monotonic() - start < GONE_SECONDS, f"a dead driver's processes live on: {living}"
        time.sleep(0.02)
    return round(time.monotonic() - start, 2)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS)
    parser.add_argument("--drive", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--resume", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.drive:
        folder, kind, children, seed = arguments.drive
        return Search(Path(folder), kind, int(children), int(seed)).drive()
    if arguments.resume:
        return resume(Path(arguments.resume[0]), int(arguments.resume[1]))
    from common import RESULTS, machine, write

    path = RESULTS / "search_faults.json"
    for part in arguments.parts:
        folder = Path(tempfile.mkdtemp(prefix=f"faults-{part}-"))  # stays if something is wrong
        if part == "nodes":
            figures = change_nodes(NODE_CHANGES, 3 * CHILDREN, folder)
        elif part == "resume":
            figures = resume_long(folder / "long")
        else:
            figures = kill_searches(part, arguments.kills, CHILDREN, folder)
        shutil.rmtree(folder)
        print(part, json.dumps(figures, indent=1), flush=True)
        record = json.loads(path.read_text()) if path.exists() else {}
        record.pop("machine", None)
        write("search_faults", record | {part: {"machine": machine(), **figures}})  # parts may be of other machines


if __name__ == "__main__":
    main()
