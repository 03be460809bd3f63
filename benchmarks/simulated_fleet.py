"""Workers on a simulated clock, so that a search with a thousand of them can be watched on one core."""

import heapq
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace

from nasnet_zoo.search.children.base import Child, Result, Task, run_task
from nasnet_zoo.search.fleet.base import Fleet

AT_ONCE = 0.1  # seconds until a child on a bad worker has failed


class SimulatedFleet(Fleet):
    """A child takes `seconds(task)` of the simulated clock, which stands still while its result is computed and moves
    with the real one while the driver works: a driver that is slow leaves workers idle, as it would in earnest.

    `bad` are workers on which every child that begins after that moment of the clock fails at once. `clock` is the
    simulated time, and `spans` has the (start, end) of every task on it.
    """

    def __init__(
        self, child: Child, workers: int, seconds: Callable[[Task], float], bad: dict[int, float] | None = None
    ) -> None:
        self.child, self.workers, self.seconds, self.bad = child, workers, seconds, bad or {}
        self.clock, self.mark = 0.0, time.perf_counter()
        self.spans: list[tuple[float, float]] = []
        self.ends: list[tuple[float, int, int, bool, Task]] = []
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
            fails = self.clock >= self.bad.get(worker, float("inf"))
            end = self.clock + (AT_ONCE if fails else self.seconds(task))
            self.spans.append((self.clock, end))
            heapq.heappush(self.ends, (end, task.child, worker, fails, task))
        for worker in out:
            heapq.heappush(self.free, worker)

    def next_done(self, timeout: float) -> list[Result]:
        self._charge()
        self._deal()
        results = []
        if self.ends:
            self.clock = max(self.clock, self.ends[0][0])  # the driver waits for the first
        while self.ends and self.ends[0][0] <= self.clock:
            _, _, worker, fails, task = heapq.heappop(self.ends)
            heapq.heappush(self.free, worker)
            if fails:
                results.append(Result(task.child, "oom", message="out of memory", worker=place(worker)))
            else:
                results.append(run_task(self.child, task, place(worker)))
        self.mark = time.perf_counter()
        return [replace(result, place=result.worker) for result in results]

    def close(self) -> None:
        self.ends = []

    def busy(self, until: float) -> float:
        """The share of the workers' time that was spent on tasks, from the start to `until`."""
        return sum(min(end, until) - start for start, end in self.spans if start < until) / (self.workers * until)

    def _charge(self) -> None:
        now = time.perf_counter()
        self.clock += now - self.mark
        self.mark = now


def place(worker: int) -> str:
    return f"simulated, worker {worker}"
