"""A training's state and float16 weights where a machine's files come back from, and on another machine again."""

import io
import tarfile
import time
from pathlib import Path
from typing import Any

import torch
from pieces import read_pieces, write_pieces
from safetensors.torch import load_file

from nasnet_zoo.arch.config import NetworkConfig
from nasnet_zoo.errors import CheckpointError, ZooError
from nasnet_zoo.lookup import STATE
from nasnet_zoo.training.state import kept_epochs
from nasnet_zoo.util.files import atomic_folder
from nasnet_zoo.weights.checkpoint import write_checkpoint

PLAN, TIMES, ACCURACY, WEIGHTS = "plan.json", "times.json", "accuracy.json", "weights"
FILES = (STATE, PLAN, TIMES, ACCURACY, WEIGHTS)  # of a training's folder, as far as they are there
MOST_PIECES = 4  # with the index and the results a machine gives back few files more


class Copies:
    """Copies of a training's folder, each one whole, as the pieces NAME.*.000, ... with the index NAME.json.

    The weights are read from the state's file: they belong to that state, and a GPU that has died need not be asked.
    """

    SECONDS = 120.0  # between two states, and between two copies

    def __init__(self, folder: Path, out: Path, name: str, config: NetworkConfig, metadata: dict[str, Any]) -> None:
        self.folder, self.out, self.name, self.config, self.metadata = folder, out, name, config, metadata
        self.copied, self.time = self._stamp(), time.monotonic()

    @property
    def new(self) -> bool:
        """Whether there is a state that was not there at the beginning and is not copied."""
        return self._stamp() != self.copied

    @property
    def due(self) -> bool:
        """Whether it is time to copy."""
        return time.monotonic() - self.time >= self.SECONDS and self.new

    def try_to_bring(self) -> None:
        """Copies the folder; where that fails, the training goes on."""
        try:
            self.bring()
        except ZooError as error:
            print(f"the training goes on without a new copy in {self.out}: {error}", flush=True)

    def bring(self, **more: Any) -> None:
        """Copies the folder, with the weights of its state; the checkpoint gets its metadata and some `more`."""
        self.time, stamp, problem = time.monotonic(), self._stamp(), None
        try:
            self._save_weights(more)
        except CheckpointError as error:  # numbers that float16 cannot hold, which is no reason to lose the state
            problem = error
        pieces = write_pieces(packed(self.folder), self.out, self.name)
        if len(pieces) > MOST_PIECES:
            print(f"{self.out} has {len(pieces)} pieces of the state: more than a machine may give back", flush=True)
        self.copied = stamp
        if problem is not None:
            raise problem

    def _save_weights(self, more: dict[str, Any]) -> None:
        tensors = load_file(self.folder / STATE)
        weights = {key.removeprefix("network."): value for key, value in tensors.items() if key.startswith("network.")}
        metadata = {**self.metadata, "epoch": len(kept_epochs(self.folder)), **more}
        write_checkpoint(weights, self.config, self.folder / WEIGHTS, torch.float16, **metadata)

    def _stamp(self) -> int:
        """Another one for every state; 0 if there is none."""
        path = self.folder / STATE
        return path.stat().st_mtime_ns if path.exists() else 0


def packed(folder: Path) -> bytes:
    """A training's folder as a tar archive."""
    memory = io.BytesIO()
    with tarfile.open(fileobj=memory, mode="w") as archive:
        for name in FILES:
            if (folder / name).exists():
                archive.add(folder / name, name)
    return memory.getvalue()


def take_over(source: Path, folder: Path, name: str) -> None:
    """Makes a training's folder from the copy in another one; CheckpointError if it is not whole."""
    data = read_pieces(source, name)
    with atomic_folder(folder, FILES) as temporary:
        try:
            with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
                archive.extractall(temporary, filter="data")
        except tarfile.TarError as error:
            raise CheckpointError(f"the pieces in {source} hold no training ({error}): name another folder") from error
        if missing := [each for each in (STATE, PLAN, TIMES) if not (temporary / each).is_file()]:
            raise CheckpointError(f"the pieces in {source} hold no {missing[0]}: name another folder")
