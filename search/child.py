"""What a child is to the engine: a function of an architecture and a seed, run by a worker. Imports no torch."""

import os
import socket
import time
import traceback
from dataclasses import dataclass, field
from typing import Any, Protocol

from nasnet_zoo.errors import ZooError

FAILURES = ("nan", "oom", "timeout", "error", "lost")


class ChildFailure(Exception):
    """A child that cannot have metrics, for one of the reasons in FAILURES."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Child(Protocol):
    """Idempotent: a child that was lost is simply run again. Must pickle before `prepare`."""

    def prepare(self, device: str) -> None:
        """Loads, once per worker, what all children share."""

    def __call__(self, architecture: Any, seed: int) -> dict[str, Any]:
        """The metrics, which fit into JSON, "accuracy" (0 to 1) among them. Raises ChildFailure."""


@dataclass(frozen=True)
class Task:
    """One run of a child."""

    child: int
    architecture: Any
    seed: int
    seconds: float | None = None  # after which a fleet that can may end it


@dataclass(frozen=True)
class Result:
    """How a task ended: `status` is "done" or one of FAILURES; "lost" means that the worker went away."""

    child: int
    status: str
    metrics: dict[str, Any] = field(default_factory=dict)
    message: str = ""
    seconds: float = 0.0
    worker: str = ""


def run_task(child: Child, task: Task, worker: str) -> Result:
    """Runs a child and says how it ended, whatever happens to it. A ZooError is the user's to mend and passes."""
    start = time.monotonic()
    try:
        metrics, status, message = child(task.architecture, task.seed), "done", ""
    except ChildFailure as failure:
        metrics, status, message = {}, failure.kind, str(failure)
    except ZooError:
        raise
    except Exception as error:
        memory = isinstance(error, MemoryError) or "memory" in str(error).lower() and isinstance(error, RuntimeError)
        metrics, status = {}, "oom" if memory else "error"
        message = "".join(traceback.format_exception(error)[-3:]).strip()[-2000:]
    return Result(task.child, status, metrics, message, time.monotonic() - start, worker)


def worker_name(device: str) -> str:
    return f"{socket.gethostname()}:{os.getpid()}:{device}"
