"""The settings of children whose own file imports torch."""

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from nasnet_zoo.arch.checks import MAX_CHANNELS
from nasnet_zoo.arch.config import NetworkConfig
from nasnet_zoo.arch.kinds import Sizing, get_kind, kind_of
from nasnet_zoo.arch.preprocess import Preprocess
from nasnet_zoo.errors import ConfigError
from nasnet_zoo.training.recipe import Recipe

from .base import BaseChildSettings


@dataclass(frozen=True)
class CifarChildSettings(BaseChildSettings):
    """How a child is trained (NASNet paper, appendix A.2: N = 2, 20 epochs on 45,000 pictures).

    `filters` and `cells` are F and N, `stem` times F is the stem's width, and `side` is that of the pictures in pixels.
    CIFAR-10's training pictures are shuffled with `split_seed`: the last `validation` are for the reward and the first
    `pictures` for training. Before the evaluation, batch norm's statistics are computed again on `calibration` pictures
    (precise batch norm); 0 for none. `whiten` normalises each picture by its own mean and deviation instead of the
    data's.
    """

    task: Literal["cifar10"] = "cifar10"
    filters: int = 32
    cells: int = 2
    stem: float = 3.0
    side: int = 32
    pictures: int = 45_000
    validation: int = 5_000
    split_seed: int = 0
    calibration: int = 1024
    whiten: bool = False
    recipe: Recipe = field(default_factory=lambda: Recipe(20))

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.filters <= MAX_CHANNELS or self.cells < 1 or self.stem <= 0:
            raise ConfigError("child: filters and cells must be at least 1 and stem above 0")
        if not 8 <= self.side <= 256:
            raise ConfigError(f"child: side {self.side} is not between 8 and 256 pixels")
        if self.pictures < 2 or self.validation < 1 or self.pictures + self.validation > 50_000:
            raise ConfigError(
                f"child: pictures {self.pictures} and validation {self.validation} must fit into CIFAR-10's 50,000"
            )
        if self.calibration < 0:
            raise ConfigError("child: calibration must not be negative")

    def network(self, architecture: Any, kind: str | None) -> NetworkConfig:
        sizing = Sizing(self.cells, self.filters, "cifar10", self.side, stem=self.stem)
        config: NetworkConfig = get_kind(kind or kind_of(architecture)).sized(architecture, sizing)
        whitened = Preprocess(config.preprocess.size, per_image=True)
        return replace(config, preprocess=whitened) if self.whiten else config

    def summary(self) -> str:
        epochs = f"{self.recipe.epochs} epochs" if self.recipe.epochs > 1 else "one epoch"
        return f"trained on {self.pictures:,} pictures of CIFAR-10 for {epochs}"
