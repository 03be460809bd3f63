"""Regularized evolution (Real et al. 2018)."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nasnet_zoo.errors import ConfigError

from ..spaces.base import Choice, Decision, Space, Tokens
from .base import Observation, Proposal, checked_count, chosen_elsewhere, rng_state, set_rng_state, stage_note


@dataclass(frozen=True)
class EvolutionSettings:
    """The settings of regularized (ageing) evolution (Real et al. 2018, section 3): P and S."""

    population: int = 100
    sample: int = 25

    def __post_init__(self) -> None:
        if not 1 <= self.sample <= self.population:
            raise ConfigError(f"evolution: sample {self.sample} must lie between 1 and population {self.population}")


class Evolution:
    """Regularized evolution: the best of a random sample of the population is mutated, and the oldest is removed. Until
    the population is complete, proposals are random.

    A mutation changes one decision: a choice (of a hidden state, an op or a combination) to another value, or a subset
    in one element. If that changes which decisions come after it, or if the search has reached another stage, decisions
    that the parent also has keep their values, and the others are random.
    """

    batch = 1

    def __init__(self, space: Space, settings: EvolutionSettings, seed: int) -> None:
        self.space, self.settings, self.rng = space, settings, random.Random(seed)
        self.population: list[Observation] = []  # the oldest first
        self.proposed = 0

    def propose(self, n: int) -> list[Proposal]:
        return [self._propose() for _ in range(n)]

    def _propose(self) -> Proposal:
        stage = self.space.stage(self.proposed)
        self.proposed += 1
        if len(self.population) < self.settings.population:
            return Proposal(self.space.sample(self.rng, stage), stage_note(stage))
        sample = self.rng.sample(self.population, self.settings.sample)
        parent = max(sample, key=lambda member: member.reward).proposal
        return Proposal(self._mutated(parent, stage), stage_note(stage))

    def _mutated(self, parent: Proposal, stage: int) -> Tokens:
        decisions, tokens = self.space.along(parent.tokens, parent.stage), list(parent.tokens)
        if places := [place for place, decision in enumerate(decisions) if decision.outcomes > 1]:
            place = self.rng.choice(places)
            tokens[place] = self._changed(tokens[place], decisions[place])
        inherited: dict[str, list[int]] = {}  # by name, in order if there are several
        for token, decision in zip(tokens, decisions):
            inherited.setdefault(decision.name, []).append(token)

        def decide(decision: Decision) -> int:
            kept = inherited.get(decision.name)
            token = kept.pop(0) if kept else decision.outcomes
            return token if token < decision.outcomes else self.rng.randrange(decision.outcomes)

        return self.space.walk(decide, stage)

    def _changed(self, token: int, decision: Decision) -> int:
        if isinstance(decision, Choice):
            return self.rng.choice([other for other in range(decision.choices) if other != token])
        return token ^ 1 << self.rng.randrange(decision.choices)

    def proposal(self, tokens: Tokens) -> Proposal:
        return chosen_elsewhere(self.space, tokens)

    def observe(self, observations: Sequence[Observation]) -> dict[str, float]:
        self.population = [*self.population, *observations][-self.settings.population :]
        rewards = [member.reward for member in self.population]
        return {"population/mean": sum(rewards) / len(rewards), "population/best": max(rewards)}

    def state_dict(self) -> dict[str, Any]:
        population = [[list(m.proposal.tokens), m.reward, m.proposal.notes] for m in self.population]
        return {"rng": rng_state(self.rng), "population": population, "proposed": self.proposed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        set_rng_state(self.rng, state["rng"])
        # The first version kept no notes: it had none.
        self.population = [
            Observation(Proposal(tuple(tokens), *notes), reward) for tokens, reward, *notes in state["population"]
        ]
        for member in self.population:
            self.space.along(member.proposal.tokens, member.proposal.stage)
            if not abs(member.reward) < math.inf:
                raise ValueError(f"{member.reward} is no reward")
        self.proposed = checked_count(state["proposed"])
