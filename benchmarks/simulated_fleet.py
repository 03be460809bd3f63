"""Workers on a simulated clock, so that a search with a thousand of them can be watched on one core."""

import heapq
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from nasnet_zoo.search.children.base import Child, Report, Result, Task, run_task
from nasnet_zoo.search.fleet.base import Fleet

AT_ONCE = 0.1  # seconds until a child on a bad worker has failed


class SimulatedFleet(Fleet):
    """A child takes `seconds(task)` of the simulated clock, which stands still while its result is computed and moves
    with the real one while the driver works: a driver that is slow leaves workers idle, as it would in earnest.

    `bad` are workers on which every child that begins after that moment of the clock fails at once. A child that
    reports, and is of so many `epochs`, does so at its moment in between. `clock` is the simulated time, and `spans`
    has the (start, end) of every task on it.
    """

    def __init__(
        self,
        child: Child,
        workers: int,
        seconds: Callable[[Task], float],
        bad: dict[int, float] | None = None,
        epochs: int = 1,
    ) -> None:
        self.child, self.workers, self.seconds, self.bad, self.epochs = child, workers, seconds, bad or {}, epochs
        self.clock, self.mark = 0.0, time.perf_counter()
        self.spans: list[tuple[float, float]] = []
        self.events: list[tuple[float, int, _Running]] = []  # a heap: (when it ends or reports next, child, ...)
        self.waiting: deque[Task] = deque()
        self.free = list(range(workers))  # a heap
        self.excluded: set[str] = set()

    @property
    def capacity(self) -> int:
        return self.workers - len(self.excluded)

    @property
    def places(self) -> set[str]:
        return {place(worker) for worker in range(self.workers)} - self.excluded

    def start(self) -> None:
        self.child.prepare("cpu")
        self.mark = time.perf_counter()

    def submit(self, task: Task) -> None:
        self._charge()
        self.waiting.append(task)
        self._deal()

    def _deal(self) -> None:
        out = []
        while self.waiting and self.free:
            worker = heapq.heappop(self.free)
            if place(worker) in self.excluded:
                out.append(worker)
                continue
            task = self.waiting.popleft()
            if self.clock >= self.bad.get(worker, float("inf")):
                failed = Result(task.child, "oom", message="out of memory", worker=place(worker))
                self._until_next(_Running(worker, self.clock, AT_ONCE, deque(), failed))
                continue
            reports: deque[Report] = deque()  # computed as if it went on, and heard when their moment has come
            result = run_task(self.child, task, place(worker), partial(_kept, reports))
            self._until_next(_Running(worker, self.clock, self.seconds(task), reports, result))
        for worker in out:
            heapq.heappush(self.free, worker)

    def _until_next(self, running: "_Running") -> None:
        share = running.reports[0].epoch / self.epochs if running.reports else 1.0
        heapq.heappush(self.events, (running.start + share * running.seconds, running.result.child, running))

    def next_done(self, timeout: float) -> list[Result]:
        self._charge()
        self._deal()
        results = []
        if self.events:
            self.clock = max(self.clock, self.events[0][0])  # the driver waits for the first
        while self.events and self.events[0][0] <= self.clock:
            moment, _, running = heapq.heappop(self.events)
            result = running.result
            if running.reports:
                if self.decide(running.reports.popleft()):
                    self._until_next(running)
                    continue
                result = replace(result, status="stopped", metrics={})
            heapq.heappush(self.free, running.worker)
            self.spans.append((running.start, moment))
            results.append(result)
        self.mark = time.perf_counter()
        return [replace(result, place=result.worker) for result in results]

    def close(self) -> None:
        self.events = []

    def busy(self, until: float) -> float:
        """The share of the workers' time that was spent on tasks, from the start to `until`."""
        return sum(min(end, until) - start for start, end in self.spans if start < until) / (self.workers * until)

    def _charge(self) -> None:
        now = time.perf_counter()
        self.clock += now - self.mark
        self.mark = now


def _kept(reports: deque[Report], report: Report) -> bool:
    reports.append(report)
    return True


@dataclass
class _Running:
    """A task on a worker: when it began, how long it takes in all, what it has still to report, and how it ends."""

    worker: int
    start: float
    seconds: float
    reports: deque[Report]
    result: Result


def place(worker: int) -> str:
    return f"simulated, worker {worker}"
