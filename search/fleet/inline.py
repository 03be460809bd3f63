"""One child after another in the driver's own process: reproducible, and enough for one device."""

from collections import deque

from ..children.base import Child, Result, Task, run_task, worker_name
from .base import Fleet, limit_threads


class InlineFleet(Fleet):
    """`threads` 0 leaves torch's number of threads as it is."""

    capacity = 1

    def __init__(self, child: Child, device: str, threads: int = 0) -> None:
        self.child, self.device, self.threads = child, device, threads
        self.tasks: deque[Task] = deque()

    def start(self) -> None:
        if self.threads:
            limit_threads(self.threads)
        self.child.prepare(self.device)

    def submit(self, task: Task) -> None:
        self.tasks.append(task)

    def next_done(self, timeout: float) -> list[Result]:
        if not self.tasks:
            return []
        return [run_task(self.child, self.tasks.popleft(), worker_name(self.device), self.decide)]

    def close(self) -> None:
        self.tasks.clear()
