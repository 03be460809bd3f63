"""The settings of children whose own files import torch: of those that are trained."""

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Self

from nasnet_zoo.arch.checks import MAX_CHANNELS
from nasnet_zoo.arch.config import NetworkConfig
from nasnet_zoo.arch.kinds import Sizing, get_kind, kind_of
from nasnet_zoo.arch.preprocess import TORCH_IMAGENET, Preprocess
from nasnet_zoo.data.labels import as_label_set, with_classes
from nasnet_zoo.errors import ConfigError
from nasnet_zoo.training.recipe import Recipe

from .base import BaseChildSettings

MAX_BATCH = 4096  # of a latency


@dataclass(frozen=True)
class TrainedChildSettings(BaseChildSettings):
    """How a child is trained (NASNet paper, appendix A.2: N = 2, 20 epochs on 45,000 pictures).

    `filters` and `cells` are F and N, `stem` times F is the stem's width, and `side` is that of the pictures in pixels.
    The child learns from `pictures`, and its reward is measured on `validation` others; `split_seed` says which. Before
    that, batch norm's statistics are computed again on `calibration` pictures (precise batch norm); 0 for none.
    `whiten` normalises each picture by its own mean and deviation instead of the data's.

    With a `latency` above 0, the untrained child's latency is measured on its device, for one picture and for a batch
    of that many: the metrics latency_ms and latency_batch_ms. A child that takes longer than `max_latency_ms` for one
    is rejected before it is trained. The latency of another device says nothing, so that a search has to stay on
    devices of one kind; and other work on the device disturbs it.
    """

    filters: int = 32
    cells: int = 2
    stem: float = 3.0
    side: int = 32
    pictures: int = 45_000
    validation: int = 5_000
    split_seed: int = 0
    calibration: int = 1024
    whiten: bool = False
    latency: int = 0
    max_latency_ms: float | None = None
    recipe: Recipe = field(default_factory=lambda: Recipe(20))

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.filters <= MAX_CHANNELS or self.cells < 1 or self.stem <= 0:
            raise ConfigError("child: filters and cells must be at least 1 and stem above 0")
        if not 8 <= self.side <= 256:
            raise ConfigError(f"child: side {self.side} is not between 8 and 256 pixels")
        if self.calibration < 0:
            raise ConfigError("child: calibration must not be negative")
        if not 0 <= self.latency <= MAX_BATCH:
            raise ConfigError(f"child: latency {self.latency} is a batch's size, up to {MAX_BATCH}; 0 measures none")
        if self.max_latency_ms is not None and not (self.latency and self.max_latency_ms > 0):
            raise ConfigError(
                "child: max_latency_ms has to be above 0, and needs latency, a batch's size: 32 for instance"
            )

    def network(self, architecture: Any, kind: str | None) -> NetworkConfig:
        sizing = Sizing(self.cells, self.filters, "cifar10", self.side, stem=self.stem)
        config: NetworkConfig = get_kind(kind or kind_of(architecture)).sized(architecture, sizing)
        whitened = Preprocess(config.preprocess.size, per_image=True)
        return replace(config, preprocess=whitened) if self.whiten else config

    def training_epochs(self) -> int:
        return self.recipe.epochs

    def _summary(self, data: str) -> str:
        epochs = f"{self.recipe.epochs} epochs" if self.recipe.epochs > 1 else "one epoch"
        return f"trained on {self.pictures:,} pictures of {data} for {epochs}"


@dataclass(frozen=True)
class CifarChildSettings(TrainedChildSettings):
    """CIFAR-10's training pictures are shuffled with `split_seed`: the last `validation` are for the reward and the
    first `pictures` for training."""

    task: Literal["cifar10"] = "cifar10"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pictures < 2 or self.validation < 1 or self.pictures + self.validation > 50_000:
            raise ConfigError(
                f"child: pictures {self.pictures} and validation {self.validation} must fit into CIFAR-10's 50,000"
            )

    def summary(self) -> str:
        return self._summary("CIFAR-10")


@dataclass(frozen=True)
class FolderChildSettings(TrainedChildSettings):
    """The pictures of a user's own in the folder `data`, in class folders as a training reads them: see OwnPictures.

    `pictures` and `validation` of 0 are as many as there are. `labels` are the names of the classes in their order;
    they and the numbers come from the data when a search begins.
    """

    task: Literal["folders"] = "folders"
    pictures: int = 0
    validation: int = 0
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "labels", tuple(self.labels))
        if self.pictures < 0 or self.validation < 0:
            raise ConfigError("child: pictures and validation must not be negative; 0 is all there are")

    def completed(self) -> Self:
        from .own_pictures import OwnPictures  # imports Pillow

        there = self if self.data is None else replace(self, data=os.path.abspath(self.data))
        if self.labels:
            return there
        found = OwnPictures(self.data)
        pictures, validation = found.counts(self.pictures, self.validation)
        if pictures < self.recipe.batch_size:
            raise ConfigError(
                f"child: {pictures} pictures are fewer than a batch of {self.recipe.batch_size}: give a smaller one, "
                f"child.recipe.batch_size"
            )
        return replace(there, pictures=pictures, validation=validation, labels=found.labels)

    @property
    def preprocess(self) -> Preprocess:
        """The middle of a picture, cut square and brought to `side`: their shapes may be of all kinds."""
        size = self.side, self.side
        plain = Preprocess(size, per_image=True) if self.whiten else replace(TORCH_IMAGENET, size=size, crop=1.0)
        return replace(plain, resize="shortest")

    def network(self, architecture: Any, kind: str | None) -> NetworkConfig:
        config = super().network(architecture, kind)
        return with_classes(replace(config, preprocess=self.preprocess), labels=as_label_set(self.completed().labels))

    def summary(self) -> str:
        return self._summary(f"{Path(self.data or '').name} ({len(self.labels)} classes)")

    def data_record(self) -> dict[str, Any]:
        return {"data": self.data, "labels": list(self.labels)}


@dataclass(frozen=True)
class RecipeChildSettings(BaseChildSettings):
    """One network, trained with fresh weights by recipes that differ (Zoph & Le 2016, section 4.1: the small grid after
    the search). `config` is the network's in JSON, `recipe` what the grid changes, and `hold_out` how many of the
    training pictures of `data` the accuracy is measured on; the test pictures are not read. `labels` is a file of the
    classes' names. Every training has the same `seed`, so that they differ in nothing but their recipes."""

    task: Literal["recipes"] = "recipes"
    config: dict[str, Any] = field(default_factory=dict, hash=False)
    recipe: Recipe = field(default_factory=lambda: Recipe(20))
    hold_out: int = 5_000
    labels: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.hold_out < 1:
            raise ConfigError(f"child: hold_out {self.hold_out} pictures are none to measure on: give at least one")

    def completed(self) -> Self:
        if not self.config:
            raise ConfigError("child: the task recipes needs the config of a network: let `nasnet-zoo tune` set it")
        NetworkConfig.from_json(self.config)
        return self

    def training_epochs(self) -> int:
        return self.recipe.epochs

    def summary(self) -> str:
        data = Path(self.data or "cifar10").name
        return f"one network, trained on {data} without {self.hold_out:,} of its pictures by different recipes"
