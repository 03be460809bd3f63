"""What the driver knows of a fleet."""

import os
import sys
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass

from nasnet_zoo.errors import ConfigError

from ..children.base import Result, Task

MAX_DEATHS = 5  # of a worker, in a row and without a result between, before it is no accident any more
GRACE_SECONDS = 30.0  # a child ends itself when its time is over; this is for one that hangs


@dataclass(frozen=True)
class FleetSettings:
    """Where children are trained: `kind` is a row of table.py. `devices` are torch's names; empty for every GPU, or the
    CPU where there is none. Each has `per_device` workers; `threads` is how many cores a worker takes on a CPU (0: an
    equal share)."""

    kind: str = "inline"
    devices: tuple[str, ...] = ()
    per_device: int = 1
    threads: int = 0

    def __post_init__(self) -> None:
        if self.per_device < 1 or self.threads < 0:
            raise ConfigError(f"fleet: {self.per_device} workers per device; a search needs at least one")


class Fleet(ABC):
    """Workers that run tasks. Used as a context manager, which starts and stops them.

    `capacity` is how many tasks it can have in hand; it may change while it runs. Every submitted task gives exactly
    one result, in whatever order; a worker that goes away gives the status "lost".
    """

    @property
    @abstractmethod
    def capacity(self) -> int: ...

    @abstractmethod
    def submit(self, task: Task) -> None: ...

    @abstractmethod
    def next_done(self, timeout: float) -> list[Result]:
        """Waits until at least one task is done, at most `timeout` seconds; all that are done, or none."""

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
        """Ends all workers at once; what they were doing is lost."""


def devices_of(settings: FleetSettings) -> tuple[str, ...]:
    """The settings' devices, or every GPU that there is, or the CPU."""
    if settings.devices:
        return settings.devices
    import torch

    return tuple(f"cuda:{i}" for i in range(torch.cuda.device_count())) or ("cpu",)


def threads_of(settings: FleetSettings, devices: tuple[str, ...]) -> int:
    """How many cores a worker takes: as set, or an equal share of those that this process may use."""
    return settings.threads or max(cores() // (len(devices) * settings.per_device), 1)


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def limit_threads(threads: int) -> None:
    """Keeps this process's torch to a share of the cores, without importing it for a child that needs none."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)
    else:
        os.environ["OMP_NUM_THREADS"] = str(threads)


def hung(task: Task, since: float, worker: str) -> Result | None:
    """The result of a task that has been running for so long that it must hang, else None."""
    seconds = time.monotonic() - since
    if task.seconds is None or seconds <= 1.5 * task.seconds + GRACE_SECONDS:
        return None
    return Result(task.child, "timeout", message="it hung and was killed", seconds=seconds, worker=worker)
