"""The child that is trained on a part of CIFAR-10's training pictures."""

import torch

from nasnet_zoo.data.cifar import Pictures, cifar10_pictures

from .settings import CifarChildSettings
from .trained import TrainedChild


class CifarChild(TrainedChild[CifarChildSettings]):
    def pictures(self) -> tuple[Pictures, Pictures]:
        settings = self.settings
        pictures = cifar10_pictures(settings.data, train=True)
        order = torch.randperm(len(pictures), generator=torch.Generator().manual_seed(settings.split_seed))
        parts = order[: settings.pictures], order[-settings.validation :]
        training, validation = (_resized(pictures.subset(part), settings.side) for part in parts)
        return training, validation


def _resized(pictures: Pictures, side: int) -> Pictures:
    if side == pictures.images.shape[2]:
        return pictures
    images = torch.nn.functional.interpolate(pictures.images, (side, side), mode="bilinear", antialias=True)
    return Pictures(images, pictures.labels)
