"""Random search: the baseline."""

import random
from collections.abc import Sequence
from typing import Any

from ..spaces.base import Space
from .base import Observation, Proposal, _rng_state, _set_rng_state


class RandomSearch:
    """Uniform over token sequences: the baseline."""

    batch = 20  # nothing is learned; a larger batch only means fewer snapshots

    def __init__(self, space: Space, seed: int) -> None:
        self.space, self.rng = space, random.Random(seed)

    def propose(self, n: int) -> list[Proposal]:
        return [Proposal(self.space.sample(self.rng)) for _ in range(n)]

    def observe(self, observations: Sequence[Observation]) -> dict[str, float]:
        return {}

    def state_dict(self) -> dict[str, Any]:
        return {"rng": _rng_state(self.rng)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        _set_rng_state(self.rng, state["rng"])
