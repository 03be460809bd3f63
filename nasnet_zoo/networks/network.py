"""What every network of the zoo can do, whatever its kind."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from ..arch.config import NetworkConfig
from ..data.classify import predict
from ..data.images import ImageSource, Transform, prepare
from ..data.labels import label_names
from ..data.prediction import Prediction
from ..errors import ConfigError, ImageError
from .layers import initialize


class Network(nn.Module):
    """A torch module that knows its config.

    `progress` (0-d tensor, 0 to 1) is how much of a training is done. It lies in a tensor so that a captured step
    reads what it is now.
    """

    progress: Tensor

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("progress", torch.ones((), device="cpu"), persistent=False)

    def regularize(self, *, drop_path_keep: float, dropout: float) -> None:
        """Sets what a recipe wants of the network itself; a network that has no such thing takes no notice."""


class ImageNetwork(Network):
    """A network that classifies pictures, and knows how they are prepared for it, and its labels.

    A subclass sets `classifier`, `aux` (a module with a `classifier`, or None), `num_features`, `feature_strides`,
    `feature_channels` and `minimum_size`, and implements `forward` and `features`.
    """

    classifier: nn.Linear
    aux: nn.Module | None
    num_features: int
    feature_strides: tuple[int, ...]
    feature_channels: tuple[int, ...]
    minimum_size: int

    @property
    def transform(self) -> Callable[..., Tensor]:
        """PIL image -> float32 tensor (channels, height, width), as the network was trained to see it."""
        return Transform(self.config.preprocess, self.config.in_channels)

    @property
    def labels(self) -> tuple[str, ...] | None:
        """The class names in the order of the logits, or None if they are not known."""
        return label_names(self.config)

    @property
    def trained(self) -> bool:
        """Whether predictions can mean anything: a training moves the classifier's biases away from the zeros that
        `create` and `reset_classifier` begin with."""
        bias = getattr(self.classifier, "bias", None)
        return bias is None or bool(bias.any())

    def predict(
        self,
        images: ImageSource | Iterable[ImageSource],
        k: int = 5,
        batch_size: int = 32,
        errors: Literal["raise", "return"] = "raise",
    ) -> list[Prediction] | list[list[Prediction] | ImageError] | ImageError:
        """The k most probable classes of one image or of each of several.

        Args:
            images: whatever `data.images.open_image` takes, or a list or another iterable of it.
            k: how many classes; more than there are gives all.
            batch_size: how many pictures are computed at a time.
            errors: what an image that cannot be used does: "raise" its ImageError, or "return" it in the place of its
                predictions, so that the other images are answered.

        Returns:
            The predictions, the most probable first: a list for one image, a list of lists for several.

        Raises:
            ImageError: naming the image that cannot be used.
            ConfigError: for a k or batch_size below 1, or a network that takes no pictures.
            SessionError: for a batch that needs more memory than there is.
        """
        return predict(self, images, k, batch_size, errors, ConfigError)

    def prepare(self, image: ImageSource) -> np.ndarray:
        """`transform` as an array: a picture as `run` takes it, float32 (channels, height, width)."""
        return prepare(image, self.config.preprocess, self.config.in_channels)

    @torch.inference_mode()
    def run(self, array: np.ndarray) -> np.ndarray:
        """Logits, float32 (batch, classes), of a batch of prepared pictures, computed in eval mode; as Session.run."""
        weight = next(self.parameters())
        with eval_mode(self):
            return self(torch.from_numpy(array).to(weight.device, weight.dtype)).float().cpu().numpy()

    def reset_classifier(self, num_classes: int) -> None:
        """A new classifier for `num_classes` classes with fresh weights; the auxiliary head's too if there is one."""
        self.config = dataclasses.replace(self.config, num_classes=num_classes, labels=None)
        for head in (self, self.aux):
            if head is not None:
                old = head.classifier
                options = dict(device=old.weight.device, dtype=old.weight.dtype)
                head.classifier = nn.Linear(old.in_features, num_classes, **options)
                initialize(head.classifier)

    def features(self, x: Tensor) -> list[Tensor]:
        """The last map at each stride of `feature_strides`; `feature_channels` are their widths."""
        raise NotImplementedError

    def checked(self, x: Tensor) -> Tensor:
        """x, or a ConfigError if it is not a batch of maps that this network can take."""
        channels, least = self.config.in_channels, self.minimum_size
        if x.dim() != 4 or x.shape[1] != channels or x.shape[2] < least or x.shape[3] < least:
            raise ConfigError(
                f"this network takes (batch, {channels}, height, width) of at least {least} x {least} pixels, "
                f"not {tuple(x.shape)}: resize the picture, or use network.transform"
            )
        return x


@contextmanager
def eval_mode(network: nn.Module) -> Iterator[None]:
    """Everything in eval mode inside the block; afterwards each module is in the mode that it was in."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
