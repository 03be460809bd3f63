"""What a child's result is worth to the searcher: its reward. Imports no torch."""

from collections import deque
from dataclasses import replace
from typing import Any

from nasnet_zoo.errors import SearchError

from .children.base import Result
from .config import SearchConfig
from .records import Record
from .rewards import MAX_REWARD, REWARDS
from .rungs import Rungs

FLOOR_OF = 100  # the last children, the worst of which is the floor


class Worth:
    """Makes rewards by a search's config: of accuracies and costs, of children that its `rungs` stopped, and of
    failures, from what the children before them were worth."""

    def __init__(self, config: SearchConfig, rungs: Rungs) -> None:
        self.config, self.rungs = config, rungs
        self.recent: deque[float] = deque(maxlen=FLOOR_OF)

    def enter(self, reward: float) -> None:
        """Takes note of the reward of a child that did not fail."""
        self.recent.append(reward)

    def judged(self, result: Result, record: Record) -> Result:
        """The result, as a failure of the kind "nan" if it is done but its reward is no number that can be learned
        from. A child that was told to stop has stopped, in whatever way its worker ended."""
        if record.rung is not None:
            return replace(result, status="stopped", metrics=record.metrics, message="")
        reward = self.reward(result)
        if result.status == "done" and reward is not None and not abs(reward) <= MAX_REWARD:
            return replace(result, status="nan", message=f"its reward is {reward}")
        return result

    def reward(self, result: Result) -> float | None:
        """The reward, or None if the searcher must not see it."""
        if result.status == "done":
            return self.of(result.child, result.metrics)
        if result.status == "stopped":
            return self.rungs.expected(result.child)
        policy = self.config.failures
        if getattr(policy, result.status) == "skip":
            return None
        return min(self.recent, default=None) if policy.floor == "worst" else policy.floor

    def of(self, child: int, metrics: dict[str, Any]) -> float:
        """The reward for metrics of a child; raises SearchError if there is none."""
        try:
            return float(REWARDS[self.config.reward].of(metrics)) * self.config.cost.factor(metrics)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            why = f"needs the metric {error}" if isinstance(error, KeyError) else f"cannot be made ({error})"
            raise SearchError(
                f"the reward {self.config.reward} {why} of what child {child} returned, {str(metrics)[:200]}: mend the "
                f"child, then run the same command again"
            ) from error
