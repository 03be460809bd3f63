"""The settings of searchers whose own file imports torch."""

from dataclasses import dataclass
from typing import Literal

from nasnet_zoo.arch.checks import check_fields
from nasnet_zoo.errors import ConfigError

MAX_HIDDEN = 10_000


@dataclass(frozen=True)
class ControllerSettings:
    """Settings of the controller and its training. The defaults are the paper's, except PPO's clip and epochs, which it
    does not give.

    `baseline` is what is subtracted from rewards: "reward-average", a moving average of them in which the old value has
    the weight `baseline_decay` at each reward (the paper's), or "batch-mean", the mean of the batch. `ratio` is what
    PPO's `clip` limits: the ratio of each "decision" to the policy that made it, or that of the whole "sequence".
    `normalise` divides advantages by their deviation within the batch.

    Searches of the first version have the baseline "batch-average", which moves once per batch, and the "sequence".
    """

    hidden: int = 100
    learning_rate: float = 3.5e-4
    entropy_weight: float = 1e-5
    baseline_decay: float = 0.95
    batch: int = 20
    clip: float = 0.2
    epochs: int = 5
    initial: float = 0.1
    normalise: bool = False
    baseline: Literal["reward-average", "batch-mean", "batch-average"] = "reward-average"
    ratio: Literal["decision", "sequence"] = "decision"

    def __post_init__(self) -> None:
        check_fields(self, "controller")
        if min(self.hidden, self.batch, self.epochs) < 1 or self.learning_rate <= 0 or not 0 < self.clip < 1:
            raise ConfigError(
                "controller: hidden, batch and epochs must be at least 1, learning_rate above 0 and clip in (0, 1)"
            )
        if self.hidden > MAX_HIDDEN:
            raise ConfigError(f"controller: hidden {self.hidden} is more than the {MAX_HIDDEN} units that make sense")
        if not 0 <= self.baseline_decay < 1 or min(self.entropy_weight, self.initial) < 0:
            raise ConfigError(
                "controller: baseline_decay must lie in [0, 1) and entropy_weight and initial must not be negative"
            )
