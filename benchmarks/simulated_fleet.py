"""Workers on a simulated clock, so that a search with a thousand of them can be watched on one core."""

import heapq
import time
from collections.abc import Callable

from nasnet_zoo.search.children.base import Child, Result, Task, run_task
from nasnet_zoo.search.fleet.base import Fleet


class SimulatedFleet(Fleet):
    """A child takes `seconds(task)` of the simulated clock, which stands still while its result is computed and moves
    with the real one while the driver works: a driver that is slow leaves workers idle, as it would in earnest.

    `clock` is the simulated time, and `spans` has the (start, end) of every task on it.
    """

    def __init__(self, child: Child, workers: int, seconds: Callable[[Task], float]) -> None:
        self.child, self.workers, self.seconds = child, workers, seconds
        self.clock, self.mark = 0.0, time.perf_counter()
        self.spans: list[tuple[float, float]] = []
        self.ends: list[tuple[float, int, Task]] = []

    @property
    def capacity(self) -> int:
        return self.workers

    def start(self) -> None:
        self.child.prepare("cpu")
        self.mark = time.perf_counter()

    def submit(self, task: Task) -> None:
        self._charge()
        end = self.clock + self.seconds(task)
        self.spans.append((self.clock, end))
        heapq.heappush(self.ends, (end, task.child, task))

    def next_done(self, timeout: float) -> list[Result]:
        self._charge()
        results = []
        if self.ends:
            self.clock = max(self.clock, self.ends[0][0])  # the driver waits for the first
        while self.ends and self.ends[0][0] <= self.clock:
            _, _, task = heapq.heappop(self.ends)
            results.append(run_task(self.child, task, "simulated"))
        self.mark = time.perf_counter()
        return results

    def close(self) -> None:
        self.ends = []

    def busy(self, until: float) -> float:
        """The share of the workers' time that was spent on tasks, from the start to `until`."""
        return sum(min(end, until) - start for start, end in self.spans if start < until) / (self.workers * until)

    def _charge(self) -> None:
        now = time.perf_counter()
        self.clock += now - self.mark
        self.mark = now
