"""Rewards: functions of a child's metrics, by name. Imports no torch."""

from collections.abc import Callable
from typing import Any

REWARDS: dict[str, Callable[[dict[str, Any]], float]] = {
    "accuracy": lambda metrics: metrics["accuracy"],
    # Zoph & Le 2016, section 4.1, cube the best of the last five epochs; a child here is measured at its end alone.
    "accuracy-cubed": lambda metrics: metrics["accuracy"] ** 3,
}
