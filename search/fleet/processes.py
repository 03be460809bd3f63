"""Long-lived worker processes on this machine, several per device if that pays."""

import multiprocessing
import os
import threading
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from nasnet_zoo.errors import SearchError, ZooError

from ..child import Child, Result, Task, run_task, worker_name
from .base import Fleet

MAX_DEATHS = 5  # of workers, in a row and without a result between, before it is no accident any more
GRACE_SECONDS = 30.0  # a child ends itself when its time is over; this is for one that hangs


@dataclass
class _Worker:
    process: Any
    connection: Connection
    lifeline: Connection  # closes with the driver, however it ends
    device: str
    task: Task | None = None
    started: float = 0.0


class ProcessFleet(Fleet):
    """One process per entry of `devices`. A worker that dies is replaced, and its task is reported lost."""

    def __init__(self, child: Child, devices: list[str], threads: int) -> None:
        self.child, self.devices, self.threads = child, devices, threads
        self.workers: list[_Worker] = []
        self.cancelled: set[int] = set()
        self.deaths = 0

    @property
    def capacity(self) -> int:
        return len(self.devices)

    def start(self) -> None:
        self.workers = [self._spawn(device) for device in self.devices]

    def _spawn(self, device: str) -> _Worker:
        context = multiprocessing.get_context("spawn")  # a forked CUDA context is unusable
        ours, theirs = context.Pipe()
        held, lifeline = context.Pipe()
        arguments = (theirs, lifeline, self.child, device, self.threads)
        process = context.Process(target=_work, args=arguments, daemon=True)
        process.start()
        theirs.close()
        lifeline.close()
        return _Worker(process, ours, held, device)

    def submit(self, task: Task) -> None:
        worker = next(worker for worker in self.workers if worker.task is None)
        worker.task, worker.started = task, time.monotonic()
        try:
            worker.connection.send(task)
        except OSError:
            pass  # it has died; next_done reports the task lost

    def next_done(self, timeout: float) -> list[Result]:
        end = time.monotonic() + timeout
        while True:
            results = [result for index in range(len(self.workers)) for result in self._look(index)]
            results = [result for result in results if not self._forgotten(result.child)]
            if results or time.monotonic() >= end:
                return results
            watched = [x for worker in self.workers for x in (worker.connection, worker.process.sentinel)]
            wait(watched, min(max(end - time.monotonic(), 0), 1.0))

    def _forgotten(self, child: int) -> bool:
        forgotten = child in self.cancelled
        self.cancelled.discard(child)
        return forgotten

    def _look(self, index: int) -> list[Result]:
        """What has come from a worker since the last look, and its replacement if it has gone."""
        worker, results = self.workers[index], []
        try:
            while worker.connection.poll():
                message = worker.connection.recv()
                if isinstance(message, ZooError):
                    raise message
                results.append(message)
                worker.task, self.deaths = None, 0
        except (EOFError, OSError):
            worker.process.join(5)
        if worker.task is not None and self._overdue(worker):
            worker.process.kill()
            worker.process.join()
            over = time.monotonic() - worker.started
            results.append(Result(worker.task.child, "timeout", message="it hung and was killed", seconds=over))
            worker.task = None
        if not worker.process.is_alive():
            results += self._replace(index)
        return results

    def _overdue(self, worker: _Worker) -> bool:
        limit = worker.task.seconds
        return limit is not None and time.monotonic() - worker.started > 1.5 * limit + GRACE_SECONDS

    def _replace(self, index: int) -> list[Result]:
        worker = self.workers[index]
        code = worker.process.exitcode
        self.deaths += 1
        if self.deaths > MAX_DEATHS:
            raise SearchError(
                f"{self.deaths} workers on {worker.device} died one after another (the last with exit code {code}): "
                f"see what they print, and try fewer of them per device or --fleet inline"
            )
        worker.connection.close()
        worker.lifeline.close()
        self.workers[index] = self._spawn(worker.device)
        if worker.task is None:
            return []
        seconds = time.monotonic() - worker.started
        where = f"{worker.process.pid}:{worker.device}"
        return [Result(worker.task.child, "lost", {}, f"its worker died with exit code {code}", seconds, where)]

    def cancel(self, child: int) -> None:
        self.cancelled.add(child)

    def close(self) -> None:
        for worker in self.workers:
            worker.process.kill()
        for worker in self.workers:
            worker.process.join()
            worker.connection.close()
            worker.lifeline.close()
        self.workers = []


def _work(connection: Connection, lifeline: Connection, child: Child, device: str, threads: int) -> None:
    """A worker's life: prepare once, then run what comes until the driver is gone."""
    threading.Thread(target=_die_with_the_driver, args=(lifeline,), daemon=True).start()
    try:
        limit_threads(threads)
        child.prepare(device)
        while True:
            connection.send(run_task(child, connection.recv(), worker_name(device)))
    except ZooError as error:
        connection.send(error)
    except (EOFError, OSError, KeyboardInterrupt):
        pass


def _die_with_the_driver(lifeline: Connection) -> None:
    try:
        lifeline.recv()
    except (EOFError, OSError):
        os._exit(1)


def limit_threads(threads: int) -> None:
    """Keeps a worker's torch to its share of the cores."""
    import torch

    torch.set_num_threads(threads)
