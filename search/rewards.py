"""Rewards: functions of a child's metrics, one row each. Imports no torch."""

from collections.abc import Callable
from typing import Any, NamedTuple

from nasnet_zoo.util.tables import Table

MAX_REWARD = 1e30  # either way: beyond it the arithmetic of searchers and charts ends


class Reward(NamedTuple):
    title: str
    of: Callable[[dict[str, Any]], float]


REWARDS = Table(
    "reward",
    {
        "accuracy": Reward("the share of the validation pictures that are right", lambda metrics: metrics["accuracy"]),
        # Zoph & Le 2016, section 4.1, cube the best of the last five epochs; a child here is measured at its end alone.
        "accuracy-cubed": Reward("its third power: the better, the steeper", lambda metrics: metrics["accuracy"] ** 3),
    },
)
