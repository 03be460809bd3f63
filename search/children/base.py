"""The interface of a child: a function of an architecture and a seed, run by a worker. Imports no torch."""

import inspect
import json
import os
import socket
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

from nasnet_zoo.arch.checks import check_fields
from nasnet_zoo.arch.config import NetworkConfig
from nasnet_zoo.errors import ConfigError, SearchError, ZooError, out_of_memory

MAX_THREADS = 1024
SUCCESSES = ("done", "stopped")
FAILURES = ("nan", "oom", "timeout", "error", "lost", "rejected")


class ChildFailure(Exception):
    """A child that has no result, for one of the reasons in FAILURES; `metrics` is what is known of it all the same."""

    def __init__(self, kind: str, message: str, metrics: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.kind, self.metrics = kind, metrics or {}


class Stopped(Exception):
    """What `report` raises in a child that is not to go on."""


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

    def training_epochs(self) -> int | None:
        """For how many epochs a child is trained; None if it is not trained by epochs."""
        return None

    def data_record(self) -> dict[str, Any]:
        """What best.json says of data with classes of their own: where they are ("data") and the names ("labels")."""
        return {}


class Child(Protocol):
    """Idempotent: a child that was lost is simply run again. It must be picklable before `prepare`.

    Its metrics may depend on more than the architecture, the seed and the settings: on data in a file, or on a
    supernet's weights. That is its context. A child that has one has a method `context`: see context_of.

    A child that can be stopped on the way takes a third argument `report`: see Reports.
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
    rungs: tuple[int, ...] = ()  # the epochs after which it is to report


@dataclass(frozen=True)
class Report:
    """What a child was worth after so many epochs, when it had not ended yet."""

    child: int
    epoch: int
    metrics: dict[str, Any]


class Reports:
    """The argument `report` of a child. `report(epoch, metrics)` says what the child is worth after so many epochs, in
    metrics like those that it returns; it raises Stopped if the child is not to go on, which the child lets through.

    Reports after other epochs than those in `report.epochs` have no effect, so there is nothing to measure then. What a
    child returns must not depend on them. `decide` says whether it goes on.
    """

    def __init__(
        self, child: int = 0, epochs: tuple[int, ...] = (), decide: Callable[[Report], bool] = lambda report: True
    ) -> None:
        self.child, self.epochs, self.decide = child, epochs, decide

    def __call__(self, epoch: int, metrics: dict[str, Any]) -> None:
        if epoch in self.epochs:
            _check_metrics(self.child, metrics)
            if not self.decide(Report(self.child, epoch, metrics)):
                raise Stopped


def can_report(child: Child) -> bool:
    """Whether a child takes the argument `report`."""
    return "report" in inspect.signature(child).parameters


@dataclass(frozen=True)
class Result:
    """How a task ended: `status` is "done", "stopped" after a report, or one of FAILURES; "lost" means that the worker
    went away. `place` is the worker's in its fleet, where another one follows it when it dies; empty if the fleet tells
    none."""

    child: int
    status: str
    metrics: dict[str, Any] = field(default_factory=dict)
    message: str = ""
    seconds: float = 0.0
    worker: str = ""
    place: str = ""


def run_task(child: Child, task: Task, worker: str, decide: Callable[[Report], bool] | None = None) -> Result:
    """Runs a child and returns how it ended, whatever happens. `decide` asks the driver whether a child that reports
    goes on. A ZooError is raised, because only the user can correct its cause. Raises BrokenDevice if the device can no
    longer compute after the child's failure."""
    if decide is None and task.rungs:
        raise SearchError("this fleet does not carry the reports that rungs need: leave rungs out, or choose another")
    start, arguments = time.monotonic(), [task.architecture, task.seed]
    if can_report(child):
        arguments.append(Reports() if decide is None else Reports(task.child, task.rungs, decide))
    try:
        metrics, status, message = child(*arguments), "done", ""
        _check_metrics(task.child, metrics)
    except Stopped:
        metrics, status, message = {}, "stopped", ""
    except ChildFailure as failure:
        metrics, status, message = failure.metrics, failure.kind, str(failure)
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
