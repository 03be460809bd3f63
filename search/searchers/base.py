"""Searchers that learn nothing by gradient: random search and regularized evolution. Imports no torch.

A searcher is pure: it knows no files, processes or clocks. It proposes token sequences and observes what they were
worth, in whatever order results come, and its whole state, random numbers included, can be taken and put back.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..spaces.base import Tokens


@dataclass(frozen=True)
class Proposal:
    """A token sequence to try. `notes` is what the searcher wants back with the result; it must fit into JSON."""

    tokens: Tokens
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def stage(self) -> int:
        """The stage of the search in which it was proposed, as `stage_note` has it."""
        stage: int = self.notes.get("stage", 0)
        return stage


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


def stage_note(stage: int) -> dict[str, int]:
    """What a proposal's notes say of its stage; the first one goes without saying."""
    return {"stage": stage} if stage else {}


def _rng_state(rng: random.Random) -> list[Any]:
    version, words, gauss = rng.getstate()
    return [version, list(words), gauss]


def _set_rng_state(rng: random.Random, state: list[Any]) -> None:
    version, words, gauss = state
    rng.setstate((version, tuple(words), gauss))
