"""The state of a training in its folder."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..errors import CheckpointError
from ..util.files import atomic_file
from ..weights.checkpoint import os_errors
from .recipe import Recipe


@dataclass(frozen=True)
class Epoch:
    """What one epoch came to: mean training loss, and top-1 on the validation pictures or None."""

    epoch: int
    epochs: int
    loss: float
    accuracy: float | None


class TrainingState:
    """The state of a training in its folder: `state.safetensors` (weights, momenta, history in the header)."""

    def __init__(self, network, optimizer, recipe: Recipe, seed: int, folder: str | Path | None) -> None:
        self.network, self.optimizer = network, optimizer
        self.path = None if folder is None else Path(folder) / "state.safetensors"
        identity = {"network": network.config.to_json(), "recipe": asdict(recipe), "seed": seed}
        self.identity = json.dumps(identity, sort_keys=True)

    def parameters(self) -> dict[str, Tensor]:
        return dict(self.network.named_parameters())

    def keep(self, history: list[Epoch]) -> None:
        if self.path is None:
            return
        tensors = {f"network.{key}": value for key, value in self.network.state_dict().items()}
        for name, parameter in self.parameters().items():
            momentum = self.optimizer.state[parameter].get("momentum_buffer")
            if momentum is not None:
                tensors[f"momentum.{name}"] = momentum
        metadata = {"training": self.identity, "history": json.dumps([asdict(epoch) for epoch in history])}
        tensors = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(self.path) as temporary, os_errors(temporary):
            save_file(tensors, temporary, metadata=metadata)

    def resume(self) -> list[Epoch]:
        if self.path is None or not self.path.exists():
            return []
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self.path, "pt") as file:
                metadata = file.metadata() or {}
            tensors = load_file(self.path)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{self.path} is damaged ({error}): delete it to start over") from error
        if metadata.get("training") != self.identity:
            raise CheckpointError(
                f"{self.path} belongs to a training with another network, recipe or seed: choose another folder, "
                f"or delete it to start over"
            )
        take = {key.removeprefix("network."): value for key, value in tensors.items() if key.startswith("network.")}
        self.network.load_state_dict(take)
        for name, parameter in self.parameters().items():
            if f"momentum.{name}" in tensors:
                momentum = torch.empty_like(parameter).copy_(tensors[f"momentum.{name}"])
                self.optimizer.state[parameter]["momentum_buffer"] = momentum
        return [Epoch(**epoch) for epoch in json.loads(metadata["history"])]
