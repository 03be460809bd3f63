"""Long-lived worker processes on this machine, several per device if that pays."""

import multiprocessing
import os
import sys
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from typing import Any

from nasnet_zoo.errors import SearchError, ZooError

from ..children.base import BrokenDevice, Child, Report, Result, Task, run_task, worker_name
from .base import MAX_DEATHS, Fleet, hung, limit_threads


@dataclass
class _Worker:
    process: Any
    connection: Connection
    lifeline: Connection  # is closed when the driver ends, in whatever way
    device: str
    prepared: bool = False
    task: Task | None = None
    since: float = 0.0  # when it began with the task, in monotonic seconds

    @property
    def name(self) -> str:
        return worker_name(self.device, self.process.pid)


class ProcessFleet(Fleet):
    """One process per entry of `devices`. A worker that dies is replaced, and its task is reported lost."""

    def __init__(self, child: Child, devices: list[str], threads: int) -> None:
        self.child, self.devices, self.threads = child, devices, threads
        self.workers: list[_Worker] = []
        self.waiting: deque[Task] = deque()  # submitted, but given to no worker yet
        self.deaths = 0  # since the last result
        self.excluded: set[str] = set()

    @property
    def capacity(self) -> int:
        return len(self.workers) - len(self.excluded)

    @property
    def places(self) -> set[str]:
        return {self._place(index) for index in range(len(self.workers))} - self.excluded

    def _place(self, index: int) -> str:
        return f"{self.devices[index]}, worker {index}"

    def start(self) -> None:
        for device in self.devices:
            self.workers.append(self._spawn(device))

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
        self.waiting.append(task)
        self._deal()

    def _deal(self) -> None:
        """Gives the waiting tasks to the workers that have none."""
        for index, worker in enumerate(self.workers):
            if self.waiting and worker.task is None and self._place(index) not in self.excluded:
                worker.task, worker.since = self.waiting.popleft(), time.monotonic()
                with suppress(OSError):  # it has died; next_done reports the task lost
                    worker.connection.send(worker.task)

    def next_done(self, timeout: float) -> list[Result]:
        end = time.monotonic() + timeout
        while True:
            results = [
                replace(result, place=self._place(index))
                for index in range(len(self.workers))
                for result in self._look(index)
            ]
            self._deal()
            if results or time.monotonic() >= end:
                return results
            watched = [x for worker in self.workers for x in (worker.connection, worker.process.sentinel)]
            wait(watched, min(max(end - time.monotonic(), 0), 1.0))

    def _look(self, index: int) -> list[Result]:
        """The results that a worker has sent since the last call. A worker that has died is replaced."""
        worker, results = self.workers[index], []
        alive = worker.process.is_alive()  # asked before reading, so that all that a dead worker sent has arrived
        try:
            while worker.connection.poll():
                message = worker.connection.recv()
                if isinstance(message, ZooError):
                    raise message
                if message is None:  # the worker is prepared, and only now begins its first task
                    worker.prepared, worker.since = True, time.monotonic()
                elif isinstance(message, Report):
                    worker.connection.send(self.decide(message))
                else:
                    worker.task, self.deaths = None, 0
                    results.append(message)
        except (EOFError, OSError):
            worker.process.join(5)
            alive = worker.process.is_alive()
        if worker.task and worker.prepared and (result := hung(worker.task, worker.since, worker.name)):
            worker.process.kill()
            worker.process.join()
            self._renew(index)
            return [*results, result]
        if alive:
            return results
        self._count_death(worker)
        self._renew(index)
        if worker.task:
            message = f"its worker died with exit code {worker.process.exitcode}"
            seconds = time.monotonic() - worker.since
            results.append(Result(worker.task.child, "lost", message=message, seconds=seconds, worker=worker.name))
        return results

    def _count_death(self, worker: _Worker) -> None:
        self.deaths += 1
        if self.deaths > MAX_DEATHS * len(self.devices):
            raise SearchError(
                f"{self.deaths} workers died one after another (the last, on {worker.device}, with exit code "
                f"{worker.process.exitcode}): see what they print, and try fewer of them per device or --fleet inline"
            )

    def _renew(self, index: int) -> None:
        worker = self.workers[index]
        worker.connection.close()
        worker.lifeline.close()
        self.workers[index] = self._spawn(worker.device)

    def close(self) -> None:
        for worker in self.workers:
            worker.process.kill()
        for worker in self.workers:
            worker.process.join()
            worker.connection.close()
            worker.lifeline.close()
        self.workers = []
        self.waiting.clear()


def _work(connection: Connection, lifeline: Connection, child: Child, device: str, threads: int) -> None:
    """A worker's main function: prepares once, then runs tasks until the driver is gone."""
    threading.Thread(target=_die_with_the_driver, args=(lifeline,), daemon=True).start()

    def decide(report: Report) -> bool:
        connection.send(report)
        goes_on: bool = connection.recv()
        return goes_on

    try:
        limit_threads(threads)
        child.prepare(device)
        connection.send(None)
        while True:
            connection.send(run_task(child, connection.recv(), worker_name(device), decide))
    except BrokenDevice as error:  # the fleet replaces this process, and its child is trained again
        print(f"nasnet-zoo: {error}", file=sys.stderr, flush=True)
        os._exit(1)
    except ZooError as error:
        connection.send(error)
    except (EOFError, OSError, KeyboardInterrupt):
        pass


def _die_with_the_driver(lifeline: Connection) -> None:
    try:
        lifeline.recv()
    except (EOFError, OSError):
        os._exit(1)
