"""Random search: the baseline."""

import random
from collections.abc import Sequence
from typing import Any

from ..spaces.base import Space, Tokens
from .base import Observation, Proposal, checked_count, chosen_elsewhere, rng_state, set_rng_state


class RandomSearch:
    """Every decision uniform over its outcomes: the baseline."""

    batch = 20  # nothing is learned; a larger batch only means fewer snapshots

    def __init__(self, space: Space, seed: int) -> None:
        self.space, self.rng = space, random.Random(seed)
        self.proposed = 0

    def propose(self, n: int) -> list[Proposal]:
        return [self._propose() for _ in range(n)]

    def _propose(self) -> Proposal:
        stage = self.space.stage(self.proposed)
        self.proposed += 1
        return Proposal(self.space.sample(self.rng, stage))

    def proposal(self, tokens: Tokens) -> Proposal:
        return chosen_elsewhere(self.space, tokens)

    def observe(self, observations: Sequence[Observation]) -> dict[str, float]:
        return {}

    def state_dict(self) -> dict[str, Any]:
        return {"rng": rng_state(self.rng), "proposed": self.proposed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        set_rng_state(self.rng, state["rng"])
        # The first version's states have none: its spaces had no stages.
        self.proposed = checked_count(state.get("proposed", 0))
