"""Rewards: functions of a child's metrics, by name. Imports no torch."""

from collections.abc import Callable
from typing import Any

REWARDS: dict[str, Callable[[dict[str, Any]], float]] = {
    "accuracy": lambda metrics: metrics["accuracy"],
    # Zoph & Le 2016, section 4.1: the best of the last five epochs, cubed, here of the accuracies that were measured.
    "accuracy-cubed": lambda metrics: metrics["accuracy"] ** 3,
}
