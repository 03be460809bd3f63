"""The interface of a fleet, as the driver uses it."""

import os
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from nasnet_zoo.errors import ConfigError

from ..children.base import Report, Result, Task

MAX_DEATHS = 5  # of workers in a row without a result between; more are no longer an accident
GRACE_SECONDS = 30.0  # a child stops itself when its time is over; this is for a child that hangs


@dataclass(frozen=True)
class FleetSettings:
    """Where children are trained: `kind` is a row of table.py. `devices` are torch's names; if empty, every GPU, or the
    CPU if there is none. Each device has `per_device` workers; 0 stands for one on a GPU, and on a CPU for as many as
    its cores have room for.

    `threads` is how many cores a worker uses on a CPU (0: an equal share). In a search's config it is 0: there the
    child's settings have the number, and one that is given here is moved there.
    """

    kind: str = "inline"
    devices: tuple[str, ...] = ()
    per_device: int = 0
    threads: int = 0

    def __post_init__(self) -> None:
        if self.per_device < 0 or self.threads < 0:
            raise ConfigError(
                f"fleet: {self.per_device} workers per device with {self.threads} threads; neither can be below 0"
            )


class Fleet(ABC):
    """Workers that run tasks. Used as a context manager, which starts and stops them.

    `capacity` is how many tasks it can run at a time; it may change while the fleet runs. A task that is submitted when
    no worker is free, because all are busy or start or have just died, waits for one. Every submitted task gives
    exactly one result, in any order; if its worker goes away, the result has the status "lost".

    A fleet of several places tells them, and which of them each result comes from, so that one where every child fails
    can be left out. Its `excluded` places get no tasks; the driver decides which they are.

    A child that reports waits until the fleet has asked `decide`, the driver's, whether it goes on, in the driver's own
    process: within `next_done`, as a rule.
    """

    excluded: set[str]
    decide: Callable[[Report], bool] = staticmethod(lambda report: True)

    @property
    @abstractmethod
    def capacity(self) -> int: ...

    @property
    def places(self) -> set[str]:
        """The places that get tasks, by name; none if the fleet does not tell them."""
        return set()

    @abstractmethod
    def submit(self, task: Task) -> None: ...

    @abstractmethod
    def next_done(self, timeout: float) -> list[Result]:
        """Waits at most `timeout` seconds for a task to finish; returns the results of all that have, perhaps none."""

    def __enter__(self) -> "Fleet":
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *error) -> None:
        self.close()

    @abstractmethod
    def start(self) -> None: ...

    @abstractmethod
    def close(self) -> None:
        """Ends all workers at once; their unfinished tasks are lost."""


def devices_of(settings: FleetSettings) -> tuple[str, ...]:
    """The devices of the settings, or all GPUs, or the CPU if there is none."""
    if settings.devices:
        return settings.devices
    import torch

    return tuple(f"cuda:{i}" for i in range(torch.cuda.device_count())) or ("cpu",)


def workers_on(device: str, settings: FleetSettings) -> int:
    """How many workers a device has: as set, or one on a GPU, and on a CPU as many as have room."""
    return settings.per_device or (max(cores() // max(settings.threads, 1), 1) if device == "cpu" else 1)


def threads_of(settings: FleetSettings, workers: int) -> int:
    """How many cores each of so many workers uses: as set, or an equal share of those that this process may use."""
    return settings.threads or max(cores() // workers, 1)


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def limit_threads(threads: int) -> None:
    """Limits this process's torch to a share of the cores, without importing torch for a child that does not need
    it."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)
    else:
        os.environ["OMP_NUM_THREADS"] = str(threads)


def hung(task: Task, since: float, worker: str) -> Result | None:
    """The result of a task that has run for so long that it must be hanging, else None."""
    seconds = time.monotonic() - since
    if task.seconds is None or seconds <= 1.5 * task.seconds + GRACE_SECONDS:
        return None
    return Result(task.child, "timeout", message="it hung and was killed", seconds=seconds, worker=worker)
