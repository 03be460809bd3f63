"""The table of searchers: one row each."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from nasnet_zoo.util.tables import Table

from ..spaces.base import Space, Tokens
from .base import Searcher
from .enqueued import Enqueued
from .evolution import Evolution, EvolutionSettings
from .random import RandomSearch
from .settings import ControllerSettings


class Configured(Protocol):
    """The part of a SearchConfig that concerns its searcher; `settings` are the searcher's own."""

    @property
    def searcher(self) -> str: ...

    @property
    def settings(self) -> Any: ...

    @property
    def enqueue(self) -> Sequence[Tokens]: ...

    @property
    def seed(self) -> int: ...


class SearcherEntry(NamedTuple):
    """`name` is the searcher's name in reports. Its settings, if it has any, are the section `section` of a search's
    config and an argument of SearchConfig with that name; searchers may share a section. `make` takes the space, the
    settings and the seed."""

    name: str
    title: str
    make: Callable[[Space, Any, int], Searcher]
    section: str = ""
    settings: type | None = None


def make_searcher(config: Configured, space: Space) -> Searcher:
    """The searcher of a config, freshly seeded."""
    searcher = SEARCHERS.row(config.searcher).make(space, config.settings, config.seed)
    return Enqueued(searcher, config.enqueue) if config.enqueue else searcher


def searcher_sections() -> dict[str, type]:
    """The sections of a config that belong to searchers, and the types of their settings."""
    return {entry.section: entry.settings for entry in SEARCHERS.values() if entry.settings is not None}


def _ppo(space: Space, settings: ControllerSettings, seed: int) -> Searcher:
    from .controller import Controller  # imports torch

    return Controller(space, settings, seed)


def _reinforce(space: Space, settings: ControllerSettings, seed: int) -> Searcher:
    from .controller import Controller

    return Controller(space, settings, seed, ppo=False)


def _random(space: Space, settings: None, seed: int) -> Searcher:
    return RandomSearch(space, seed)


SEARCHERS = Table(
    "searcher",
    {
        "ppo": SearcherEntry("PPO", "an LSTM trained by PPO, as in the paper", _ppo, "controller", ControllerSettings),
        "reinforce": SearcherEntry(
            "REINFORCE", "the same LSTM trained by REINFORCE", _reinforce, "controller", ControllerSettings
        ),
        "evolution": SearcherEntry(
            "evolution", "regularized evolution: the oldest dies", Evolution, "evolution", EvolutionSettings
        ),
        "random": SearcherEntry("random search", "uniform over the space: the baseline", _random),
    },
)
