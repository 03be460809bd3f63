"""Searchers that learn nothing by gradient: random search and regularized evolution. Imports no torch.

A searcher is pure: it knows no files, processes or clocks. It proposes token sequences and observes what they were
worth, in whatever order results come, and its whole state, random numbers included, can be taken and put back.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from .config import EvolutionSettings
from .space import Space, Tokens


@dataclass(frozen=True)
class Proposal:
    """A token sequence to try. `notes` is what the searcher wants back with the result; it must fit into JSON."""

    tokens: Tokens
    notes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Observation:
    """What a proposal was worth."""

    proposal: Proposal
    reward: float


class Searcher(Protocol):
    """`batch` is how many observations it takes at a time."""

    batch: int

    def propose(self, n: int) -> list[Proposal]: ...

    def observe(self, observations: Sequence[Observation]) -> dict[str, float]:
        """Learns; returns statistics for the log."""

    def state_dict(self) -> dict[str, Any]:
        """Everything that later proposals depend on: tensors, and values that fit into JSON."""

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


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


def _rng_state(rng: random.Random) -> list[Any]:
    version, words, gauss = rng.getstate()
    return [version, list(words), gauss]


def _set_rng_state(rng: random.Random, state: list[Any]) -> None:
    version, words, gauss = state
    rng.setstate((version, tuple(words), gauss))
