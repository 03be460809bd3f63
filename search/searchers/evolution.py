"""Regularized evolution (Real et al. 2018)."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nasnet_zoo.errors import ConfigError

from ..spaces.base import Space, Tokens
from .base import Observation, Proposal, _rng_state, _set_rng_state


@dataclass(frozen=True)
class EvolutionSettings:
    """Regularized (ageing) evolution's (Real et al. 2018, section 3): P and S."""

    population: int = 100
    sample: int = 25

    def __post_init__(self) -> None:
        if not 1 <= self.sample <= self.population:
            raise ConfigError(f"evolution: sample {self.sample} must lie between 1 and population {self.population}")


class Evolution:
    """Regularized evolution: the best of a random sample of the living is mutated, and the oldest dies.

    A mutation changes one decision to another of its choices: a hidden state, an op or a combination.
    """

    batch = 1

    def __init__(self, space: Space, settings: EvolutionSettings, seed: int) -> None:
        self.space, self.settings, self.rng = space, settings, random.Random(seed)
        self.population: list[tuple[Tokens, float]] = []  # the oldest first
        self.proposed = 0

    def propose(self, n: int) -> list[Proposal]:
        return [self._propose() for _ in range(n)]

    def _propose(self) -> Proposal:
        self.proposed += 1
        if self.proposed <= self.settings.population or not self.population:
            return Proposal(self.space.sample(self.rng))
        sample = self.rng.sample(self.population, min(self.settings.sample, len(self.population)))
        return Proposal(self._mutated(max(sample, key=lambda member: member[1])[0]))

    def _mutated(self, parent: Tokens) -> Tokens:
        open_decisions = [i for i in range(len(parent)) if self.space.next(parent[:i]).choices > 1]
        if not open_decisions:
            return parent
        index = self.rng.choice(open_decisions)
        choices = [c for c in range(self.space.next(parent[:index]).choices) if c != parent[index]]
        return (*parent[:index], self.rng.choice(choices), *parent[index + 1 :])

    def observe(self, observations: Sequence[Observation]) -> dict[str, float]:
        self.population += [(o.proposal.tokens, o.reward) for o in observations]
        self.population = self.population[-self.settings.population :]
        rewards = [reward for _, reward in self.population]
        return {"population/mean": sum(rewards) / len(rewards), "population/best": max(rewards)}

    def state_dict(self) -> dict[str, Any]:
        population = [[list(tokens), reward] for tokens, reward in self.population]
        return {"rng": _rng_state(self.rng), "population": population, "proposed": self.proposed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        _set_rng_state(self.rng, state["rng"])
        self.population = [(tuple(tokens), reward) for tokens, reward in state["population"]]
        self.proposed = state["proposed"]
