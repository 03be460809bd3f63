"""Toy children for the tests of the search. In a module of their own, because workers must be able to import them."""

import hashlib
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from nasnet_zoo.errors import DataError
from nasnet_zoo.search.children.base import ChildFailure, Reports


@dataclass
class ToyChild:
    """Does what the architecture, a word, says; any other has an accuracy made of it and the seed.

    Each worker leaves a file with its process id as name in `folder` when it is prepared.
    """

    folder: str

    def prepare(self, device: str) -> None:
        Path(self.folder, str(os.getpid())).touch()

    def __call__(self, architecture: str, seed: int, report: Reports) -> dict:
        match architecture:
            case "nan" | "timeout":
                raise ChildFailure(architecture, f"it is a {architecture}")
            case "memory":
                raise MemoryError("no memory")
            case "cuda memory":
                raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
            case "bug":
                raise ValueError("a bug in the child")
            case "data":
                raise DataError("the data went away")
            case "illegal access":
                raise_cuda_error_for_good()
            case "die":
                os.kill(os.getpid(), signal.SIGKILL)
            case "report":
                for epoch in range(1, 5):
                    report(epoch, {"accuracy": epoch / 10, "worker": os.getpid()})
            case "sleep" | "sleep long":
                time.sleep(600 if architecture == "sleep long" else 2)
        return {"accuracy": toy_accuracy(architecture, seed)}


def raise_cuda_error_for_good() -> None:
    """What an illegal access on a GPU does to a process: its torch, in which a GPU is feigned, works no more."""
    import torch

    def fails(*arguments):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    torch.cuda.is_initialized, torch.cuda.synchronize = (lambda: True), fails
    fails()


def toy_accuracy(architecture: object, seed: int) -> float:
    return int.from_bytes(hashlib.sha256(f"{architecture}/{seed}".encode()).digest()[:4]) / 2**32


class DatalessChild(ToyChild):
    def prepare(self, device: str) -> None:
        raise DataError("there are no data here: fetch them")


class CrashingChild(ToyChild):
    def prepare(self, device: str) -> None:
        super().prepare(device)
        os._exit(3)


class BrokenChild(ToyChild):
    def prepare(self, device: str) -> None:
        super().prepare(device)
        raise ImportError("no module named flux")
