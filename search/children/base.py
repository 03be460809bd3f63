"""The interface of a child: a function of an architecture and a seed, run by a worker. Imports no torch."""

import json
import os
import socket
import sys
import time
import traceback
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

from nasnet_zoo.arch.checks import check_fields
from nasnet_zoo.arch.config import NetworkConfig
from nasnet_zoo.errors import ConfigError, SearchError, ZooError, out_of_memory

MAX_THREADS = 1024
FAILURES = ("nan", "oom", "timeout", "error", "lost", "rejected")


class ChildFailure(Exception):
    """A child that has no metrics, for one of the reasons in FAILURES."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class BrokenDevice(SearchError):
    """A GPU on which this process can no longer compute: the worker has to end, or every child would fail there."""


@dataclass(frozen=True)
class BaseChildSettings:
    """The settings that every child has: `task`, a row of table.py, where its `data` are, the `seconds` after which it
    times out, and the `threads` that it uses on a CPU, on which its reward may depend (0: as many as its fleet has for
    it)."""

    task: str
    data: str | None = None
    seconds: float | None = None
    threads: int = 1

    def __post_init__(self) -> None:
        check_fields(self, "child")
        if self.seconds is not None and self.seconds <= 0:
            raise ConfigError("child: seconds must be above 0")
        if not 0 <= self.threads <= MAX_THREADS:
            raise ConfigError(f"child: threads {self.threads} do not lie between 0 and {MAX_THREADS}")

    def completed(self) -> Self:
        """The settings with what the data say, if they leave anything to them: those that a search begins with. Raises
        a ZooError for data that cannot be used."""
        return self

    def network(self, architecture: Any, kind: str | None) -> NetworkConfig | None:
        """The network that a child of this architecture is, of which reports give the cost; None if it is none."""
        return None

    def summary(self) -> str:
        """What is done with a child, in a report's words: "trained on ..."."""
        return f"evaluated by {self.task}"

    def data_record(self) -> dict[str, Any]:
        """What best.json says of data with classes of their own: where they are ("data") and the names ("labels")."""
        return {}


class Child(Protocol):
    """Idempotent: a child that was lost is simply run again. It must be picklable before `prepare`.

    Its metrics may depend on more than the architecture, the seed and the settings: on data in a file, or on a
    supernet's weights. That is its context. A child that has one has a method `context`: see context_of.
    """

    def prepare(self, device: str) -> None:
        """Loads what all children share (the context), once per worker."""

    def __call__(self, architecture: Any, seed: int) -> dict[str, Any]:
        """The metrics, which fit into JSON, "accuracy" (0 to 1) among them. Raises ChildFailure."""


def context_of(child: Child) -> dict[str, str]:
    """The hashes of a child's context by name, {"table": "9f86d0..."}. A search can be resumed only with the same
    hashes. They are asked for before anything is loaded, and a name that is missing is not compared."""
    return child.context() if hasattr(child, "context") else {}


@dataclass(frozen=True)
class Task:
    """One run of a child."""

    child: int
    architecture: Any
    seed: int
    seconds: float | None = None  # after this time a fleet may end it, if it can


@dataclass(frozen=True)
class Result:
    """How a task ended: `status` is "done" or one of FAILURES; "lost" means that the worker went away. `place` is the
    worker's in its fleet, where another one follows it when it dies; empty if the fleet tells none."""

    child: int
    status: str
    metrics: dict[str, Any] = field(default_factory=dict)
    message: str = ""
    seconds: float = 0.0
    worker: str = ""
    place: str = ""


def run_task(child: Child, task: Task, worker: str) -> Result:
    """Runs a child and returns how it ended, whatever happens. A ZooError is raised, because only the user can correct
    its cause. Raises BrokenDevice if the device can no longer compute after the child's failure."""
    start = time.monotonic()
    try:
        metrics, status, message = child(task.architecture, task.seed), "done", ""
        _check_metrics(task.child, metrics)
    except ChildFailure as failure:
        metrics, status, message = {}, failure.kind, str(failure)
    except ZooError:
        raise
    except Exception as error:
        memory = isinstance(error, (MemoryError, RuntimeError)) and out_of_memory(error)
        metrics, status = {}, "oom" if memory else "error"
        _check_device(error)
        message = "".join(traceback.format_exception(error)[-3:]).strip()[-2000:]
    return Result(task.child, status, metrics, message, time.monotonic() - start, worker)


def _check_metrics(child: int, metrics: Any) -> None:
    """Raises SearchError for metrics that cannot be written into the journal."""
    try:
        fits = isinstance(metrics, dict) and bool(json.dumps(metrics))
    except (TypeError, ValueError, RecursionError):
        fits = False
    if not fits:
        shown = " ".join(repr(metrics).split())[:200]
        raise SearchError(
            f"child {child} returned {shown}, which is no dict of metrics that fits into JSON: mend the child, then "
            f"run the same command again"
        )


def _check_device(error: Exception) -> None:
    """Raises BrokenDevice if the GPU is unusable: after an illegal address, for example, every later call of the
    process on it fails too."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return
    try:
        torch.cuda.synchronize()
    except RuntimeError as broken:
        raise BrokenDevice(
            f"the GPU can compute no more in this process ({str(error).splitlines()[0]}): run the search again, and "
            f"if that comes back, look at the GPU"
        ) from broken


def worker_name(device: str, pid: int | None = None) -> str:
    """host:process:device, of this process unless `pid` names another one."""
    return f"{socket.gethostname()}:{pid or os.getpid()}:{device}"
