"""The interface of a searcher, and what several searchers use. Imports no torch.

A searcher has no side effects: it uses no files, processes or clocks. It proposes token sequences and observes their
rewards, in whatever order results come. Its whole state, random numbers included, can be saved and restored.
"""

import random
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

from nasnet_zoo.errors import ConfigError

from ..spaces.base import Space, Tokens


@dataclass(frozen=True)
class Proposal:
    """A token sequence to try. `notes` is returned to the searcher with the result; it must fit into JSON."""

    tokens: Tokens
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def stage(self) -> int:
        """The stage of the search in which it was proposed, from `stage_note`."""
        stage: int = self.notes.get("stage", 0)
        return stage


@dataclass(frozen=True)
class Observation:
    """A proposal and its reward."""

    proposal: Proposal
    reward: float


class Searcher(Protocol):
    """`batch` is how many observations it gets at a time. If it cannot learn without some of the notes, `numbers` names
    those that are a float, or a list of one for each token: they are checked when a search is resumed."""

    batch: int

    def propose(self, n: int) -> list[Proposal]:
        """The next `n` proposals. They do not depend on how many are asked for at a time, so that searches that differ
        in the number of children alone begin with the same ones."""

    def proposal(self, tokens: Tokens) -> Proposal:
        """A proposal of tokens that somebody else has chosen; raises ConfigError if they are not of the space."""

    def observe(self, observations: Sequence[Observation]) -> dict[str, float]:
        """Learns; returns statistics for the log."""

    def state_dict(self) -> dict[str, Any]:
        """Everything that later proposals depend on: tensors, and values that fit into JSON."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned. A state may come from a damaged file: raises an exception of any type
        for one with which it could not go on."""


def chosen_elsewhere(space: Space, tokens: Tokens) -> Proposal:
    """A proposal of tokens that need no other notes than that of the first stage at which they are complete."""
    space.check(tokens)
    for stage in range(space.stages):
        with suppress(ConfigError):
            space.along(tokens, stage)
            return Proposal(tokens, stage_note(stage))
    raise AssertionError("space.check has found a stage")


def stage_note(stage: int) -> dict[str, int]:
    """The note about a proposal's stage; nothing for the first stage."""
    return {"stage": stage} if stage else {}


def rng_state(rng: random.Random) -> list[Any]:
    """The state of a generator, as values that fit into JSON."""
    version, words, gauss = rng.getstate()
    return [version, list(words), gauss]


def set_rng_state(rng: random.Random, state: list[Any]) -> None:
    """Restores what `rng_state` returned."""
    version, words, gauss = state
    rng.setstate((version, tuple(words), gauss))


def checked_count(value: Any) -> int:
    """How often something happened, from a saved state; raises ValueError if that cannot be."""
    if type(value) is not int or value < 0:
        raise ValueError(f"{str(value)[:60]} is no number of proposals")
    return value
