"""What every network of the zoo can do, whatever its kind."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from threading import RLock
from typing import Literal, Self, overload

import numpy as np
import torch
from torch import Tensor, nn

from ..arch.config import NetworkConfig
from ..data.classify import Several, predict
from ..data.images import ImageSource, Transform, prepare
from ..data.labels import label_names, with_classes
from ..data.prediction import Prediction
from ..errors import ConfigError, ImageError
from ..util.arguments import checked
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

    def train(self, mode: bool = True) -> Self:
        """torch's `train`. While `predict` or another user of `eval_mode` runs in any thread, it takes effect when the
        last of them has ended."""
        with _lock:
            super().train(mode)
            for module in self.modules():
                if module in _in_eval:
                    _in_eval[module].mode, module.training = module.training, False
        return self

    def regularize(self, *, drop_path_keep: float, dropout: float) -> None:
        """Sets what a recipe wants of the network itself; a network that has no such thing takes no notice."""

    def depths(self) -> dict[str, int]:
        """How deep parameters lie, by their names, in cells from the input; the deepest are the classifier's, and those
        that are not named lie as deep as they."""
        return {}

    def heads(self) -> list[nn.Module]:
        """The layers that belong to the classes, and are made anew for others."""
        return []


class ImageNetwork(Network):
    """A network that classifies pictures, and knows how they are prepared for it, and its labels.

    A subclass sets `classifier`, `aux` (a module with a `classifier`, or None), `num_features`, `feature_strides`,
    `feature_channels` and `minimum_size`, and implements `forward`, `forward_features`, `forward_head` and `features`.
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
        """The class names in the order of the logits, or None if they are not known: another `classifier` put in place
        of the network's may have other classes."""
        names = label_names(self.config)
        outputs = getattr(self.classifier, "out_features", None)
        return names if names is not None and len(names) == outputs else None

    @property
    def trained(self) -> bool:
        """Whether predictions can mean anything: a training moves the classifier's biases away from the zeros that
        `create` and `reset_classifier` begin with."""
        bias = getattr(self.classifier, "bias", None)
        return bias is None or bool(bias.any())

    @overload
    def predict(
        self,
        images: Several,
        k: int = 5,
        batch_size: int = 32,
        errors: Literal["raise"] = "raise",
    ) -> list[list[Prediction]]: ...

    @overload
    def predict(
        self, images: Several, k: int = 5, batch_size: int = 32, *, errors: Literal["return"]
    ) -> list[list[Prediction] | ImageError]: ...

    @overload
    def predict(
        self,
        images: ImageSource,
        k: int = 5,
        batch_size: int = 32,
        errors: Literal["raise"] = "raise",
    ) -> list[Prediction]: ...

    @checked
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

    @checked
    def reset_classifier(self, num_classes: int | None = None, *, labels: str | Sequence[str] | None = None) -> None:
        """A new classifier with fresh weights; the auxiliary head's too if there is one.

        Args:
            num_classes: how many classes; as many as there are labels if None.
            labels: the class names in the order of the logits, or the name of a label set; None if there are none.

        Raises:
            ConfigError: for an impossible number of classes, or labels of another number.
        """
        if num_classes is None and labels is None:
            raise ConfigError("reset_classifier: give the number of classes, or their labels")
        self.config = with_classes(replace(self.config, labels=None), num_classes, labels)
        first = next(self.parameters())  # not the old classifier's, which may be anything by now
        for head in (self, self.aux):
            if head is not None:
                # Drawn in float32, so that a seed gives the same classifier in every precision.
                drawn = torch.promote_types(first.dtype, torch.float32)
                classifier = nn.Linear(head.num_features, self.config.num_classes, device=first.device, dtype=drawn)
                initialize(classifier)
                head.classifier = classifier.to(first.dtype).train(head.training)

    def heads(self) -> list[nn.Module]:
        return [head.classifier for head in (self, self.aux) if head is not None]

    def get_classifier(self) -> nn.Module:
        """The layer that makes logits of `num_features` averages."""
        return self.classifier

    def forward_features(self, x: Tensor) -> Tensor:
        """The last map before it is averaged, (batch, num_features, height, width)."""
        raise NotImplementedError

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """The logits of what `forward_features` gives, or with `pre_logits` what the classifier reads: the averages,
        (batch, num_features)."""
        raise NotImplementedError

    def features(self, x: Tensor, out_indices: Sequence[int] | None = None) -> list[Tensor]:
        """The last map at each stride of `feature_strides`, before any ReLU; `feature_channels` are their widths.

        A side of a map is that of the picture over the stride, rounded up. With the stem of the ImageNet networks of
        NASNet, PNASNet and AmoebaNet, whose first convolution is not padded, it is that of the picture less 2 over the
        stride: 111, 56, 28, 14 and 7 of 224.

        Args:
            x: a batch of pictures, as for `forward`.
            out_indices: which maps, by their place in `feature_strides`, counted from the end if negative; all if None.
                What comes after the last of them is not computed.

        Returns:
            The maps, in the order of `out_indices`.

        Raises:
            ConfigError: for a map that there is not, or pictures that the network cannot take.
        """
        raise NotImplementedError

    def chosen(self, out_indices: Sequence[int] | None) -> list[int]:
        """`out_indices` of `features`, counted from the beginning; raises ConfigError."""
        places = range(len(self.feature_strides))
        try:
            return list(places if out_indices is None else [places[index] for index in out_indices])
        except (IndexError, TypeError):
            raise ConfigError(
                f"out_indices {out_indices}: this network has {len(places)} feature maps, so give several of 0 to "
                f"{places[-1]}"
            ) from None

    def checked(self, x: Tensor) -> Tensor:
        """x, or a ConfigError if it is not a batch of maps that this network can take."""
        channels, least = self.config.in_channels, self.minimum_size
        if not isinstance(x, Tensor) or not x.is_floating_point():
            given = x.dtype if isinstance(x, Tensor) else type(x).__name__
            raise ConfigError(
                f"this network takes a float tensor (batch, {channels}, height, width), not {given}: make one with "
                f"network.transform, or give the pictures to network.predict"
            )
        if x.dim() != 4 or x.shape[1] != channels or x.shape[2] < least or x.shape[3] < least:
            raise ConfigError(
                f"this network takes (batch, {channels}, height, width) of at least {least} x {least} pixels, "
                f"not {tuple(x.shape)}: resize the picture, or use network.transform"
            )
        return x


@dataclass
class _Use:
    """How many are inside `eval_mode` with a module, and the mode that it will have after them."""

    mode: bool
    users: int = 0


_lock = RLock()  # held while modes change, never while a network computes
# By module, because networks and their wrappers share modules; not in the modules, which are copied and pickled.
_in_eval: dict[nn.Module, _Use] = {}


@contextmanager
def eval_mode(network: nn.Module) -> Iterator[None]:
    """Everything in eval mode inside the block; afterwards each module is in the mode that it was in. Several threads
    may be inside at once: the last one to leave puts the modes back."""
    with _lock:
        uses = {module: _in_eval.get(module) or _Use(module.training) for module in network.modules()}
        modes = [use.mode for use in uses.values()]
        network.eval()  # of a network that is in use, this would be what it is to be in afterwards
        for use, mode in zip(uses.values(), modes):
            use.mode, use.users = mode, use.users + 1
        _in_eval.update(uses)
    try:
        yield
    finally:
        with _lock:
            for module, use in uses.items():
                use.users -= 1
                if not use.users:
                    module.training = _in_eval.pop(module).mode
