"""What the driver knows of a fleet."""

import os
from abc import ABC, abstractmethod

from ..child import Result, Task
from ..config import FleetSettings


class Fleet(ABC):
    """Workers that run tasks. Used as a context manager, which starts and stops them.

    `capacity` is how many tasks it can have in hand; it may change while it runs. Every submitted task gives exactly
    one result, in whatever order, unless it is cancelled; a worker that goes away gives the status "lost".
    """

    @property
    @abstractmethod
    def capacity(self) -> int: ...

    @abstractmethod
    def submit(self, task: Task) -> None: ...

    @abstractmethod
    def next_done(self, timeout: float) -> list[Result]:
        """Waits until at least one task is done, at most `timeout` seconds; all that are done, or none."""

    @abstractmethod
    def cancel(self, child: int) -> None:
        """Forgets a task: it gives no result. One that is running may run on."""

    def __enter__(self) -> "Fleet":
        self.start()
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
    if settings.threads:
        return settings.threads
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = 1 if settings.kind == "inline" else len(devices) * settings.per_device
    return max(cores // workers, 1)
