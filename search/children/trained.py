"""The child that is trained: a small network of the proposed cells (NASNet paper, section 3.2 and appendix A.2)."""

import copy
import time
from abc import ABC, abstractmethod
from typing import Any, Generic, TypeVar

import torch

from nasnet_zoo.arch.config import NetworkConfig
from nasnet_zoo.arch.cost import network_cost
from nasnet_zoo.data.cifar import Pictures
from nasnet_zoo.errors import TrainingError
from nasnet_zoo.networks.build import build
from nasnet_zoo.networks.network import Network
from nasnet_zoo.training.evaluate import calibrate
from nasnet_zoo.training.loop import train
from nasnet_zoo.training.state import Epoch
from nasnet_zoo.training.tasks.classify import Classify
from nasnet_zoo.util.environment import device_name

from .base import ChildFailure, Reports
from .latency import latency_ms
from .settings import TrainedChildSettings

NO_REPORTS = Reports()
Settings = TypeVar("Settings", bound=TrainedChildSettings)


class TrainedChild(ABC, Generic[Settings]):
    """Trains an architecture with the common training loop and measures it on pictures held out from the training. A
    subclass says which pictures."""

    def __init__(self, settings: Settings, kind: str) -> None:
        self.settings, self.kind = settings, kind
        self.training: Pictures | None = None

    @abstractmethod
    def pictures(self) -> tuple[Pictures, Pictures]:
        """What children learn from and what they are measured on, of the settings' side. Raises DataError."""

    def config(self, architecture: Any) -> NetworkConfig:
        """The network of an architecture at the child's scale."""
        return self.settings.network(architecture, self.kind)

    def prepare(self, device: str) -> None:
        """Puts the pictures on the device, as bytes; raises DataError."""
        if self.training is not None:
            return
        training, validation = self.pictures()
        self.training, self.validation, self.device = training.to(device), validation.to(device), device

    def __call__(self, architecture: Any, seed: int, report: Reports = NO_REPORTS) -> dict[str, Any]:
        settings, start = self.settings, time.monotonic()
        torch.manual_seed(seed)
        network = build(self.config(architecture)).to(self.device)
        latency = self._latency(network)

        def on_step(epoch: int, step: int, steps: int) -> None:
            if settings.seconds is not None and time.monotonic() - start > settings.seconds:
                raise ChildFailure("timeout", f"not done after {settings.seconds:g} s, in epoch {epoch + 1}")

        losses: list[float] = []

        def on_epoch(done: Epoch) -> None:
            losses.append(round(done.loss, 5))
            if done.epoch in report.epochs:  # a copy, because measuring changes batch norm's statistics
                report(done.epoch, self._measured(copy.deepcopy(network), task, losses) | latency)

        preprocess, classes = network.config.preprocess, network.config.num_classes
        task = Classify(self.training, settings.recipe, preprocess, self.validation, classes=classes)
        try:
            train(network, task, settings.recipe, seed=seed, on_step=on_step, on_epoch=on_epoch)
        except TrainingError as error:
            raise ChildFailure("nan", str(error)) from error
        return self._measured(network, task, losses) | latency

    def _latency(self, network: Network) -> dict[str, Any]:
        """The metrics of latency, if they are wanted; raises ChildFailure for a child that takes too long."""
        batch, most = self.settings.latency, self.settings.max_latency_ms
        if not batch:
            return {}
        one = round(latency_ms(network, 1, self.device), 5)
        found = {"latency_ms": one, "latency_device": device_name(self.device)}
        if most is not None and one > most:
            raise ChildFailure("rejected", f"{one:.3g} ms for a picture, and {most:g} are the most", found)
        return found | {"latency_batch_ms": round(latency_ms(network, batch, self.device), 5)}

    def _measured(self, network: Network, task: Classify, losses: list[float]) -> dict[str, Any]:
        """The metrics of a network as it is now, whose batch norms get new statistics."""
        if self.settings.calibration:
            calibrate(network, self.training.subset(torch.arange(min(self.settings.calibration, len(self.training)))))
        measured = task.evaluate(network)
        cost = network_cost(network.config)
        accuracies = {"accuracy": measured["top1"], "top5": measured["top5"]}
        return accuracies | {
            "losses": list(losses),
            "parameters": cost.parameters,
            "multiply_adds": cost.multiply_adds,
        }
