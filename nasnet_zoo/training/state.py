"""The state of a training in its folder: everything that a resume needs, whatever the optimiser, at any step."""

import json
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..arch.checks import parse_dataclass, parse_json
from ..arch.config import NetworkConfig
from ..errors import CheckpointError, TrainingError, ZooError, first_line
from ..lookup import STATE
from ..networks.network import Network
from ..networks.plain import without_counters
from ..util.files import atomic_file
from ..weights.checkpoint import os_errors
from .distributed import first
from .optim import Average
from .recipe import FREE, Recipe

FORMAT_VERSION = 2  # 1 kept SGD's momenta alone, and epochs only
KEEP_SECONDS = 300.0  # between two states within an epoch


@dataclass(frozen=True)
class Epoch:
    """What one epoch came to: the mean training loss, what the task's `evaluate` then measured if it was asked, the
    learning rate of its last step; and of the part of it that one call did, the seconds, without the measuring, and the
    pictures."""

    epoch: int
    epochs: int
    loss: float
    metrics: Mapping[str, float] = field(default_factory=dict)
    learning_rate: float = 0.0
    seconds: float = field(default=0.0, compare=False)
    pictures: int = field(default=0, compare=False)

    def __str__(self) -> str:
        measured = "".join(f", {name} {value:.2%}" for name, value in self.metrics.items())
        return f"epoch {self.epoch}/{self.epochs}: loss {self.loss:.4f}{measured}, {self.seconds:.0f} s"


def has_state(folder: str | Path | None) -> bool:
    """Whether a training in the folder has come to its first state."""
    return folder is not None and (Path(folder) / STATE).is_file()


def elsewhere(folder: str | Path | None) -> str:
    """The end of the advice to train otherwise: in the same folder that would be another training, and refused."""
    return f" in another folder; {folder} has the state before that" if has_state(folder) else ""


def kept_epochs(folder: str | Path) -> list[Epoch]:
    """What the epochs of the training in a folder came to; none if there is no state that can be read."""
    try:
        with safe_open(Path(folder) / STATE, "pt") as file:
            return _epochs(parse_json((file.metadata() or {}).get("history")))
    except (SafetensorError, OSError, ValueError, TypeError, AttributeError):
        return []


def _epochs(history: Any) -> list[Epoch]:
    """The epochs of a record, whatever a later version has added to them."""
    known = {each.name for each in fields(Epoch)}
    return [Epoch(**{key: value for key, value in epoch.items() if key in known}) for epoch in history]


class TrainingState:
    """A training's weights, optimiser, place, random numbers and history; with a folder in its `state.safetensors`.

    Keys: `network.*` as in the state_dict, `average.*` likewise, `optimizer.PARAMETER.*`, `random.*`; the header has
    the rest as JSON. Of several processes the first one writes, and all of them read.
    """

    def __init__(
        self,
        network: Network,
        optimizer: torch.optim.Optimizer,
        recipe: Recipe,
        seed: int,
        folder: str | Path | None,
        keep_seconds: float | None = None,
    ) -> None:
        self.network, self.optimizer, self.recipe, self.seed = network, optimizer, recipe, seed
        self.average = Average(network, recipe.ema_decay) if recipe.ema_decay else None
        self.keep_seconds = KEEP_SECONDS if keep_seconds is None else keep_seconds
        self.path = None if folder is None else Path(folder) / STATE
        self.keys = [*network.state_dict()]
        self.parameters = dict(network.named_parameters())
        self.device = next(network.parameters()).device
        self.history: list[Epoch] = []
        self.kept = time.monotonic()
        self._steps_of_epoch = 0
        self._steps, self._total = 0, 0.0  # of the epoch in which an earlier call stopped
        self._random: dict[str, Tensor] = {}

    @property
    def due(self) -> bool:
        """Whether it is time to keep the state within an epoch."""
        return self.path is not None and time.monotonic() - self.kept > self.keep_seconds

    @property
    def done(self) -> tuple[int, int]:
        """(whole epochs, steps of the next one) before this call."""
        return len(self.history), self._steps

    def begin(self, epoch: int) -> tuple[Tensor, int]:
        """(the sum of the losses so far, the steps done) of the epoch that begins or goes on."""
        resumed = epoch == len(self.history) and self._steps
        total = torch.full((), self._total if resumed else 0.0, device=self.device)
        steps, self._steps = (self._steps if resumed else 0), 0
        return total, steps

    def restore_random(self) -> None:
        """Puts torch's random numbers to where they were when the epoch was interrupted, once."""
        random, self._random = self._random, {}
        if "cpu" in random:
            torch.set_rng_state(random["cpu"])
        if "device" in random and self.device.type == "cuda":
            torch.cuda.set_rng_state(random["device"], self.device)

    def keep(self, steps: int, total: Tensor) -> None:
        """Keeps the state after so many `steps` of the epoch that follows those of the history.

        Raises TrainingError, and leaves the state before as it is, if a weight is no number any more.
        """
        if self.path is None:
            return
        if not first():
            self.kept = time.monotonic()
            return
        for name, parameter in self.parameters.items():
            if not parameter.isfinite().all():
                raise TrainingError(
                    f"{name} has values that are no numbers: try a lower learning rate or another seed"
                    f"{elsewhere(self.path.parent)}"
                )
        state = self.network.state_dict()  # which has more while torch's synchronised norms are in place
        tensors = {f"network.{key}": state[key] for key in self.keys}
        if self.average is not None:
            tensors |= {f"average.{key}": value for key, value in self.average.state_dict().items()}
        plain: dict[str, dict[str, Any]] = {}  # of the optimiser's state: what is no tensor, a count of steps say
        for name, parameter in self.parameters.items():
            for key, value in self.optimizer.state.get(parameter, {}).items():
                if isinstance(value, Tensor):
                    tensors[f"optimizer.{name}.{key}"] = value
                else:
                    plain.setdefault(name, {})[key] = value
        if steps:
            tensors["random.cpu"] = torch.get_rng_state()
            if self.device.type == "cuda":
                tensors["random.device"] = torch.cuda.get_rng_state(self.device)
        identity = {"network": self.network.config.to_json(), "recipe": asdict(self.recipe), "seed": self.seed}
        record = {
            "format_version": FORMAT_VERSION,
            "training": identity,
            "history": [asdict(epoch) for epoch in self.history],
            "steps": steps,
            "steps_of_epoch": self._steps_of_epoch,
            "total": float(total),
            "optimizer": plain,
        }
        metadata = {key: json.dumps(value) for key, value in record.items()}
        tensors = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
        with atomic_file(self.path) as temporary, os_errors(temporary):
            save_file(tensors, temporary, metadata=metadata)
        self.kept = time.monotonic()

    def resume(self, steps: int) -> None:
        """Takes over the state in the folder, if there is one, in a training of so many `steps` an epoch. Raises
        CheckpointError, and takes nothing over, if it is another training's or damaged."""
        self._steps_of_epoch = steps
        if self.path is None or not self.path.exists():
            return
        try:
            with safe_open(self.path, "pt") as file:
                record = {key: parse_json(value) for key, value in (file.metadata() or {}).items() if key != "format"}
            tensors = load_file(self.path)
        except (SafetensorError, OSError, ValueError, TypeError, RuntimeError) as error:
            raise CheckpointError(f"{self.path} is damaged ({first_line(error)}): delete it to start over") from error
        version = record.get("format_version", 1)
        if version not in range(1, FORMAT_VERSION + 1):
            raise CheckpointError(
                f"{self.path} has format_version {version}, this nasnet_zoo reads 1 to {FORMAT_VERSION}: use the "
                f"nasnet_zoo that wrote it"
            )
        self._check_identity(record.get("training"))
        if record.get("steps_of_epoch", steps) != steps:
            raise CheckpointError(
                f"{self.path} belongs to a training of {record['steps_of_epoch']} steps an epoch, and this one has "
                f"{steps}: give the data that it began with, or choose another folder"
            )
        try:
            self._take(tensors, record, steps)
        except (LookupError, ArithmeticError, AttributeError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"{self.path} is damaged ({error!r}): delete it to start over") from error

    def restore_weights(self) -> None:
        """Puts the weights in the folder into the network, if there are any: after a step that has spoiled it."""
        if self.path is not None and self.path.exists():
            tensors = load_file(self.path)
            weights = {key[8:]: value for key, value in tensors.items() if key.startswith("network.")}
            self.network.load_state_dict(weights)
            if self.average is not None:
                self.average.load_state_dict({key[8:]: v for key, v in tensors.items() if key.startswith("average.")})

    def _check_identity(self, stored: Any) -> None:
        """CheckpointError unless the stored training is this one, with this version's defaults for what it lacks."""
        try:
            network = NetworkConfig.from_json(stored["network"])
            recipe, seed = parse_dataclass(Recipe, stored["recipe"], "recipe"), stored["seed"]
        except (KeyError, TypeError) as error:
            raise CheckpointError(f"{self.path} holds no training of ours: choose another folder") from error
        except ZooError as error:
            raise CheckpointError(
                f"{self.path} holds a training that this nasnet_zoo does not know ({error}): use the one that wrote it"
            ) from error
        different = ["network"] if network != self.network.config else []
        fixed = replace(recipe, **{name: getattr(self.recipe, name) for name in FREE})
        for name in (each.name for each in fields(Recipe)):
            there, here = getattr(fixed, name), getattr(self.recipe, name)
            different += [f"{name} {there} there and {here} here"] if there != here else []
        different += [f"seed {seed} there and {self.seed} here"] if seed != self.seed else []
        if different:
            raise CheckpointError(
                f"{self.path} belongs to a training with another network, recipe or seed ({', '.join(different)}): "
                f"give what it began with, choose another folder, or delete it to start over"
            )

    def _take(self, tensors: dict[str, Tensor], record: dict[str, Any], steps_of_epoch: int) -> None:
        """Takes over a state, all of which is checked before."""
        history = _epochs(record["history"])
        steps, total = record.get("steps", 0), float(record.get("total", 0.0))
        counts = [steps, *(count for e in history for count in (e.epoch, e.epochs, e.pictures))]
        amounts = [n for e in history for n in (e.loss, e.learning_rate, e.seconds)]
        metrics = [n for e in history for n in e.metrics.values()]  # which a task may be unable to tell: a NaN
        wrong = [n for n in (*amounts, *metrics) if type(n) not in (int, float)]
        if wrong or any(type(n) is not int or n < 0 for n in counts):
            raise ValueError("its history is not one of numbers")
        if not all(map(math.isfinite, (total, *amounts))):
            raise ValueError("its losses are not finite")
        if [epoch.epoch for epoch in history] != [*range(1, len(history) + 1)] or steps and steps >= steps_of_epoch:
            raise ValueError("its history is not one of this training's epochs and steps")
        begun = len(history) + (steps > 0)
        if begun > self.recipe.epochs:
            raise CheckpointError(
                f"{self.path} has {'begun' if steps else 'done'} {begun} epochs, and {self.recipe.epochs} are asked "
                f"for: ask for at least {begun}, or choose another folder"
            )
        weights, random, average = {}, {}, {}
        kept = {name: dict(values) for name, values in record.get("optimizer", {}).items()}
        for key, value in tensors.items():
            group, _, rest = key.partition(".")
            if group == "network":
                weights[rest] = value
            elif group == "average":
                average[rest] = value
            elif group == "random":
                random[rest] = value
            elif group in ("optimizer", "momentum"):  # the latter of version 1
                name, _, part = (rest if group == "optimizer" else f"{rest}.momentum_buffer").rpartition(".")
                parameter = self.parameters[name]
                like = parameter if value.shape == parameter.shape else value.to(self.device)
                kept.setdefault(name, {})[part] = torch.empty_like(like, dtype=value.dtype).copy_(value)
        _check_like(without_counters(weights), without_counters(self.network.state_dict()))
        _check_like(average, {} if self.average is None else self.average.state_dict())
        # torch's optimisers trust their tensors, and would read and write beyond one that is too short.
        for name, values in kept.items():
            tensors = {key: value for key, value in values.items() if isinstance(value, Tensor) and value.dim()}
            _check_like(tensors, dict.fromkeys(tensors, self.parameters[name]))
        for device, value in random.items():
            if device == "cpu" or self.device.type == "cuda":
                torch.Generator("cpu" if device == "cpu" else self.device).set_state(value)  # which checks it
        optimizer = {self.parameters[name]: values for name, values in kept.items()}
        self.network.load_state_dict(weights)
        if self.average is not None:
            self.average.load_state_dict(average)
        for parameter, values in optimizer.items():
            self.optimizer.state[parameter].update(values)
        self.history, self._steps, self._total, self._random = history, steps, total, random


def _check_like(tensors: dict[str, Any], expected: Mapping[str, Tensor]) -> None:
    """Raises ValueError unless these are tensors of the names, shapes and dtypes that are expected."""
    for name in tensors.keys() ^ expected.keys():
        raise ValueError(f"{name} is missing or left over")
    for name, value in tensors.items():
        like = expected[name]
        if not isinstance(value, Tensor) or value.shape != like.shape or value.dtype != like.dtype:
            raise ValueError(f"{name} is not {tuple(like.shape)} of {like.dtype}")
