"""What every network of the zoo can do, whatever its kind."""

import dataclasses
from collections.abc import Callable

from torch import Tensor, nn

from ..arch.config import NetworkConfig
from ..data.labels import label_names
from ..errors import ConfigError
from .layers import initialize


class Network(nn.Module):
    """A torch module that knows its config, how pictures are prepared for it, and its labels.

    A kind's network sets `classifier` (nn.Linear), `num_features`, `feature_strides`, `feature_channels` and
    `minimum_size`, and implements `forward` and `features`.
    """

    classifier: nn.Linear
    num_features: int
    feature_strides: tuple[int, ...]
    feature_channels: tuple[int, ...]
    minimum_size: int

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config

    @property
    def transform(self) -> Callable[..., Tensor]:
        """PIL image -> float32 tensor (channels, height, width), as the network was trained to see it."""
        from ..data.images import Transform

        return Transform(self.config.preprocess, self.config.in_channels)

    @property
    def labels(self) -> tuple[str, ...] | None:
        """The class names in the order of the logits, or None if they are not known."""
        return label_names(self.config)

    def predict(self, images, k: int = 5):
        """The k most probable classes of one image or of each in a list; see predict.predict."""
        from .predict import predict

        return predict(self, images, k)

    def reset_classifier(self, num_classes: int) -> None:
        """A new classifier for `num_classes` classes with fresh weights; the auxiliary head's too if there is one."""
        self.config = dataclasses.replace(self.config, num_classes=num_classes, labels=None)
        heads = [self] + ([self.aux] if getattr(self, "aux", None) is not None else [])
        for head in heads:
            old = head.classifier
            options = dict(device=old.weight.device, dtype=old.weight.dtype)
            head.classifier = nn.Linear(old.in_features, num_classes, **options)
            initialize(head.classifier)

    def checked(self, x: Tensor) -> Tensor:
        """x, or a ConfigError if it is not a batch of maps that this network can take."""
        channels, least = self.config.in_channels, self.minimum_size
        if x.dim() != 4 or x.shape[1] != channels or x.shape[2] < least or x.shape[3] < least:
            raise ConfigError(
                f"this network takes (batch, {channels}, height, width) of at least {least} x {least} pixels, "
                f"not {tuple(x.shape)}: resize the picture, or use network.transform"
            )
        return x
