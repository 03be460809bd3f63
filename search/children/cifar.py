"""The child that is trained: a small network of the proposed cells on a part of CIFAR-10's training pictures
(NASNet paper, section 3.2 and appendix A.2)."""

import math
import time
from typing import Any

import torch

from nasnet_zoo.arch.cells import CellScale
from nasnet_zoo.arch.config import NetworkConfig, Preprocess
from nasnet_zoo.data.cifar import Pictures, cifar10_pictures
from nasnet_zoo.models import CIFAR10
from nasnet_zoo.networks.build import build
from nasnet_zoo.training.evaluate import calibrate, evaluate
from nasnet_zoo.training.loop import Epoch, train

from .base import ChildFailure
from .settings import CifarChildSettings


class CifarChild:
    """Trains an architecture by the one training loop and measures it on pictures held back from the training."""

    def __init__(self, settings: CifarChildSettings, style: str) -> None:
        self.settings, self.style = settings, style
        self.training: Pictures | None = None

    def config(self, architecture: Any) -> NetworkConfig:
        """The network of an architecture at the child's scale."""
        settings = self.settings
        stem = max(round(settings.filters * settings.stem), 2)
        scale = CellScale("cifar", stem, settings.filters, (settings.cells,) * 3, style=self.style, bn_eps=1e-5)
        whitened = Preprocess((settings.side, settings.side), per_image=True)
        plain = Preprocess((settings.side, settings.side), CIFAR10.mean, CIFAR10.std)
        return NetworkConfig(architecture, scale, whitened if settings.whiten else plain, 10, labels="cifar10")

    def prepare(self, device: str) -> None:
        """Puts the pictures on the device, as bytes; raises DataError."""
        if self.training is not None:
            return
        settings = self.settings
        pictures = cifar10_pictures(settings.data, train=True)
        order = torch.randperm(len(pictures), generator=torch.Generator().manual_seed(settings.split_seed))
        if settings.side != pictures.images.shape[2]:
            side = (settings.side, settings.side)
            images = torch.nn.functional.interpolate(pictures.images, side, mode="bilinear", antialias=True)
            pictures = Pictures(images, pictures.labels)
        self.training = pictures.subset(order[: settings.pictures]).to(device)
        self.validation = pictures.subset(order[-settings.validation :]).to(device)
        self.device = device

    def __call__(self, architecture: Any, seed: int) -> dict[str, Any]:
        settings, start = self.settings, time.monotonic()
        torch.manual_seed(seed)
        network = build(self.config(architecture)).to(self.device)

        def on_step(epoch: int, step: int, steps: int) -> None:
            if settings.seconds is not None and time.monotonic() - start > settings.seconds:
                raise ChildFailure("timeout", f"not done after {settings.seconds:g} s, in epoch {epoch + 1}")

        def on_epoch(epoch: Epoch) -> None:
            if not math.isfinite(epoch.loss):
                raise ChildFailure("nan", f"the loss of epoch {epoch.epoch} is {epoch.loss}")

        history = train(network, self.training, settings.recipe, seed=seed, on_step=on_step, on_epoch=on_epoch)
        if settings.calibration:
            calibrate(network, self.training.subset(torch.arange(min(settings.calibration, len(self.training)))))
        top1, top5 = evaluate(network, self.validation)
        parameters = sum(parameter.numel() for parameter in network.parameters())
        losses = [round(epoch.loss, 5) for epoch in history]
        return {"accuracy": top1, "top5": top5, "losses": losses, "parameters": parameters}
