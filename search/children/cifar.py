"""The child that is trained: a small network of the proposed cells on a part of CIFAR-10's training pictures
(NASNet paper, section 3.2 and appendix A.2)."""

import time
from typing import Any

import torch

from nasnet_zoo.arch.config import NetworkConfig
from nasnet_zoo.data.cifar import Pictures, cifar10_pictures
from nasnet_zoo.errors import TrainingError
from nasnet_zoo.networks.build import build
from nasnet_zoo.training.evaluate import calibrate
from nasnet_zoo.training.loop import train
from nasnet_zoo.training.tasks.classify import Classify

from .base import ChildFailure
from .settings import CifarChildSettings


class CifarChild:
    """Trains an architecture with the common training loop and measures it on pictures held out from the training."""

    def __init__(self, settings: CifarChildSettings, kind: str) -> None:
        self.settings, self.kind = settings, kind
        self.training: Pictures | None = None

    def config(self, architecture: Any) -> NetworkConfig:
        """The network of an architecture at the child's scale."""
        return self.settings.network(architecture, self.kind)

    def prepare(self, device: str) -> None:
        """Puts the pictures on the device, as bytes; raises DataError."""
        if self.training is not None:
            return
        settings = self.settings
        pictures = cifar10_pictures(settings.data, train=True)
        order = torch.randperm(len(pictures), generator=torch.Generator().manual_seed(settings.split_seed))
        self.training = _resized(pictures.subset(order[: settings.pictures]), settings.side).to(device)
        self.validation = _resized(pictures.subset(order[-settings.validation :]), settings.side).to(device)
        self.device = device

    def __call__(self, architecture: Any, seed: int) -> dict[str, Any]:
        settings, start = self.settings, time.monotonic()
        torch.manual_seed(seed)
        network = build(self.config(architecture)).to(self.device)

        def on_step(epoch: int, step: int, steps: int) -> None:
            if settings.seconds is not None and time.monotonic() - start > settings.seconds:
                raise ChildFailure("timeout", f"not done after {settings.seconds:g} s, in epoch {epoch + 1}")

        task = Classify(self.training, settings.recipe, network.config.preprocess, self.validation)
        try:
            history = train(network, task, settings.recipe, seed=seed, on_step=on_step)
        except TrainingError as error:
            raise ChildFailure("nan", str(error)) from error
        if settings.calibration:
            calibrate(network, self.training.subset(torch.arange(min(settings.calibration, len(self.training)))))
        measured = task.evaluate(network)
        parameters = sum(parameter.numel() for parameter in network.parameters())
        losses = [round(epoch.loss, 5) for epoch in history]
        return {"accuracy": measured["top1"], "top5": measured["top5"], "losses": losses, "parameters": parameters}


def _resized(pictures: Pictures, side: int) -> Pictures:
    if side == pictures.images.shape[2]:
        return pictures
    images = torch.nn.functional.interpolate(pictures.images, (side, side), mode="bilinear", antialias=True)
    return Pictures(images, pictures.labels)
