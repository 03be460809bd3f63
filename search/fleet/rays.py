"""Ray actors on a cluster whose nodes may come and go, or on this machine.

The fleet checks the cluster's nodes every few seconds and keeps as many workers on each as there is room for. A worker
has at most one task, so when a node goes, only the tasks that were running there are lost.
"""

import itertools
import math
import os
import queue
import signal
import socket
import sys
import threading
import time
from collections import Counter, deque
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from nasnet_zoo.errors import SearchError, ZooError

from ..children.base import BrokenDevice, Child, Report, Result, Task, run_task, worker_name
from .base import MAX_DEATHS, Fleet, FleetSettings, cores, hung, limit_threads

# Ray reads these when it is imported: it must send no statistics, and must not copy the working directory to the
# workers, as it does under `uv run`.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
try:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
except ImportError as error:
    raise SearchError("the fleet ray needs Ray: pip install 'nasnet-zoo[cluster]'") from error

LOOK_SECONDS = 3.0  # between two checks of the cluster's nodes
PATIENCE_SECONDS = 20.0  # without workers, before a message says so
REACH_SECONDS = 10.0
OBJECT_STORE_BYTES = 128 << 20  # of a local Ray, whose default is a third of the memory; here only the child is in it


@dataclass(eq=False)
class _Worker:
    actor: Any
    node: str
    place: str  # of the worker that stands there now, and of those that follow it
    pending: Any  # the reference of its running call, or None
    name: str = ""  # host, process and device, once it is prepared
    prepared: bool = False
    task: Task | None = None
    since: float = 0.0  # when it began with the task, in monotonic seconds


class RayFleet(Fleet):
    """Joins the cluster at RAY_ADDRESS, which `ray job submit` sets, or starts a Ray on this machine.

    Workers run on GPUs, `per_device` of them on each, or on CPUs, `per_device` on each node. `devices` ("cuda" or
    "cpu") says which; if it is empty, the first nodes decide. A node whose workers cannot be prepared, or die again and
    again, is no longer used, and stderr says so. If it was the last node, its error is raised.
    """

    def __init__(self, child: Child, settings: FleetSettings) -> None:
        if settings.devices not in ((), ("cuda",), ("cpu",)):
            raise SearchError(
                f"the fleet ray takes the device cuda or cpu, not {', '.join(settings.devices)}: Ray deals out those "
                f"of each node (CUDA_VISIBLE_DEVICES limits what it sees)"
            )
        self.child, self.settings = child, settings
        self.resource = {(): None, ("cuda",): "GPU", ("cpu",): "CPU"}[settings.devices]
        self.workers: list[_Worker] = []
        self.waiting: deque[Task] = deque()  # submitted, but given to no worker yet
        self.nodes: dict[str, dict[str, Any]] = {}  # those alive, by id, as ray.nodes describes them
        self.deaths: Counter[str] = Counter()  # by node, since its last result
        self.left_out: set[str] = set()
        self.next_look = 0.0
        self.idle_since = 0.0
        self.connected = False  # by this fleet
        self.excluded: set[str] = set()

    @property
    def capacity(self) -> int:
        return sum(worker.prepared and worker.place not in self.excluded for worker in self.workers)

    @property
    def places(self) -> set[str]:
        return {worker.place for worker in self.workers} - self.excluded

    def start(self) -> None:
        local = self._start_ray()
        self.child_reference = ray.put(self.child)
        self.idle_since = time.monotonic()
        self._follow_cluster()
        if local and not self.workers:
            threads = f" with {self.settings.threads} cores" if self.settings.threads else ""
            raise SearchError(
                f"Ray finds no {self.resource or 'CPU'} on this machine for a worker{threads}: set the fleet's device "
                f"and threads to what there is, or RAY_ADDRESS to a cluster's address"
            )

    def _start_ray(self) -> bool:
        """Joins or starts a Ray, unless the caller has done so. Returns whether one was started."""
        if ray.is_initialized():
            return False
        address = os.environ.get("RAY_ADDRESS", "local")
        local = address == "local"
        options = {"num_cpus": cores(), "object_store_memory": OBJECT_STORE_BYTES} if local else {}
        handler = signal.getsignal(signal.SIGTERM)
        try:
            _see_if_reachable(address)
            ray.init(address, include_dashboard=False, log_to_driver=False, logging_level="error", **options)
        except Exception as error:  # Ray raises plain ones too
            if local:
                raise SearchError(f"cannot start Ray on this machine: {_short(error)}") from error
            raise SearchError(
                f"cannot join the Ray cluster at {address}: {_short(error)}; see that RAY_ADDRESS is right, and set "
                f"RAY_AUTH_MODE=token if the cluster wants one"
            ) from error
        finally:
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, handler)  # Ray installs a handler of its own
        self.connected = True
        return local

    def _follow_cluster(self) -> list[Result]:
        """Starts workers where there is room, and removes those whose node has gone."""
        self.next_look = time.monotonic() + LOOK_SECONDS
        self.nodes = {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}
        results = [
            r for w in list(self.workers) if w.node not in self.nodes for r in self._lose(w, "its node has gone")
        ]
        if self.resource is None:
            offered = set().union(*(node["Resources"] for node in self.nodes.values()))
            self.resource = "GPU" if "GPU" in offered else "CPU" if "CPU" in offered else None
        for node in self.nodes.keys() - self.left_out:
            for _ in range(self._room(node) - sum(worker.node == node for worker in self.workers)):
                self.workers.append(self._spawn(node))
        return results

    def _room(self, node: str) -> int:
        """How many workers fit on a node."""
        amount = int(self.nodes[node]["Resources"].get(self.resource, 0))
        if self.resource == "GPU":
            return amount * self._per_device
        room = amount // max(self.settings.threads, 1)
        return min(self.settings.per_device or room, room)

    @property
    def _per_device(self) -> int:
        """Workers on a GPU."""
        return self.settings.per_device or 1

    def _spawn(self, node: str) -> _Worker:
        share = max(int(self.nodes[node]["Resources"].get("CPU", 1)) // self._room(node), 1)
        threads = self.settings.threads or share
        if self.resource == "GPU":
            # Ray counts in ten-thousandths; rounded up, the last worker would not fit on the GPU.
            options = {"num_gpus": math.floor(1e4 / self._per_device) / 1e4, "num_cpus": 0}
        else:
            options = {"num_cpus": threads}
        actor = _Actor.options(**options, scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote()
        device = "cuda" if self.resource == "GPU" else "cpu"
        taken = {worker.place for worker in self.workers}
        free = (f"{self._host(node)} ({node[:8]}), worker {number}" for number in itertools.count())
        place = next(place for place in free if place not in taken)
        return _Worker(actor, node, place, actor.prepare.remote(self.child_reference, device, threads))

    def submit(self, task: Task) -> None:
        self.waiting.append(task)
        self._deal()

    def _deal(self) -> None:
        """Gives the waiting tasks to the workers that are prepared and have none."""
        for worker in self.workers:
            if self.waiting and worker.prepared and worker.task is None and worker.place not in self.excluded:
                worker.task, worker.since = self.waiting.popleft(), time.monotonic()
                worker.pending = worker.actor.run.remote(worker.task)

    def next_done(self, timeout: float) -> list[Result]:
        end = time.monotonic() + timeout
        before = self.capacity
        while True:
            results = self._look(min(max(end - time.monotonic(), 0), 1.0))
            if time.monotonic() >= self.next_look:
                results += self._follow_cluster()
            self._deal()
            self._say_if_idle()
            if results or self.capacity > before or time.monotonic() >= end:
                return results

    def _look(self, seconds: float) -> list[Result]:
        """The results that have come from the workers, after at most `seconds`."""
        pending = [worker.pending for worker in self.workers if worker.pending]
        if not pending:
            time.sleep(seconds)
            return []
        ray.wait(pending, timeout=seconds)
        ready = set(ray.wait(pending, num_returns=len(pending), timeout=0)[0])
        results: list[Result] = []
        for worker in list(self.workers):
            if worker.pending in ready and worker in self.workers:  # it may have been lost with another's node
                results += self._collect(worker)
            elif worker.task and (result := hung(worker.task, worker.since, worker.name)):
                self._end(worker)
                results.append(replace(result, place=worker.place))
        return results

    def _collect(self, worker: _Worker) -> list[Result]:
        try:
            answer = ray.get(worker.pending)
        except ray.exceptions.RayError as error:
            return self._bury(worker, _short(error))
        if isinstance(answer, ZooError):
            return self._leave_out(worker.node, answer)
        if isinstance(answer, Report):
            worker.pending = worker.actor.go_on.remote(self.decide(answer))
            return []
        worker.pending = None
        if not worker.prepared:
            worker.prepared, worker.name = True, answer
            return []
        worker.task, self.deaths[worker.node] = None, 0
        return [replace(answer, place=worker.place)]

    def _bury(self, worker: _Worker, why: str) -> list[Result]:
        """Removes a worker that died; the next check of the cluster replaces it if its node is still there."""
        self.deaths[worker.node] += 1
        results = self._lose(worker, why)
        if self.deaths[worker.node] > MAX_DEATHS * self._room(worker.node):
            results += self._leave_out(worker.node, SearchError(f"its workers died one after another, the last: {why}"))
        return results

    def _leave_out(self, node: str, error: ZooError) -> list[Result]:
        self.left_out.add(node)
        results = [r for w in list(self.workers) if w.node == node for r in self._lose(w, str(error))]
        if not self.workers:
            raise error
        print(f"{self._host(node)} is left out: {error}", file=sys.stderr, flush=True)
        return results

    def _lose(self, worker: _Worker, why: str) -> list[Result]:
        """Ends a worker; its task, if it had one, is lost."""
        self._end(worker)
        if not worker.task:
            return []
        seconds = time.monotonic() - worker.since
        gone = Result(worker.task.child, "lost", message=why, seconds=seconds, worker=worker.name)
        return [replace(gone, place=worker.place)]

    def _end(self, worker: _Worker) -> None:
        ray.kill(worker.actor)  # a worker that hangs or cannot be reached would keep its share of the device
        self.workers.remove(worker)

    def _host(self, node: str) -> str:
        return self.nodes[node]["NodeManagerHostname"] if node in self.nodes else "a node that has gone"

    def _say_if_idle(self) -> None:
        """Says on stderr, once, that there have been no workers for a while; not at once, as a cluster may be
        starting."""
        now = time.monotonic()
        if any(worker.prepared for worker in self.workers):
            self.idle_since = now
        elif now - self.idle_since > PATIENCE_SECONDS:
            self.idle_since = math.inf
            room = f"{len(self.nodes)} nodes, with room for {len(self.workers)} workers"
            print(f"waiting for workers: the Ray cluster has {room}", file=sys.stderr, flush=True)

    def close(self) -> None:
        for worker in list(self.workers):
            self._end(worker)
        self.waiting.clear()
        if self.connected:
            ray.shutdown()
            self.connected = False


@ray.remote  # never restarted or retried by Ray: a restarted one would not be prepared, and the policy is the driver's
class _Actor:
    """A worker. A ZooError is returned, because Ray wraps those that are raised.

    A task with rungs runs in a thread, so that a call can return each of its reports and the next one bring the answer:
    to the fleet a child that waits for one is a worker like any other, which may be lost at any time.
    """

    def prepare(self, child: Child, device: str, threads: int) -> ZooError | str:
        """The worker's name, in which the device is the node's: in the process every GPU is "cuda"."""
        given = ray.get_gpu_ids() if device == "cuda" else ()
        self.child, self.name = child, worker_name(f"cuda:{given[0]}" if given else device)
        try:
            limit_threads(threads)
            child.prepare(device)
        except ZooError as error:
            return error
        return self.name

    def run(self, task: Task) -> Report | Result | ZooError:
        """Runs a task until it ends or reports."""
        if not task.rungs:
            return self._run(task)
        self.said: queue.SimpleQueue[Report | Result | ZooError] = queue.SimpleQueue()
        self.answers: queue.SimpleQueue[bool] = queue.SimpleQueue()
        threading.Thread(target=self._talk, args=(task,), daemon=True).start()
        return self.said.get()

    def go_on(self, answer: bool) -> Report | Result | ZooError:
        """Answers a report, and lets the task run on until it ends or reports again."""
        self.answers.put(answer)
        return self.said.get()

    def _talk(self, task: Task) -> None:
        try:
            self.said.put(self._run(task))
        except BaseException:  # as in the main thread, where it ends the process
            os._exit(1)

    def _decide(self, report: Report) -> bool:
        self.said.put(report)
        return self.answers.get()

    def _run(self, task: Task) -> Result | ZooError:
        try:
            return run_task(self.child, task, self.name, self._decide)
        except BrokenDevice:
            os._exit(1)  # the fleet replaces this process, and its child is trained again
        except ZooError as error:
            return error


def _see_if_reachable(address: str) -> None:
    """Raises OSError or ValueError if nothing answers at HOST:PORT; Ray itself would try for many minutes."""
    if ":" in address and "://" not in address:
        parts = urlsplit(f"//{address}")
        socket.create_connection((parts.hostname, parts.port), REACH_SECONDS).close()


def _short(error: Exception) -> str:
    """The last line of Ray's long messages."""
    lines = str(error).strip().splitlines()
    return lines[-1].strip()[:300] if lines else type(error).__name__
