"""The table of searchers: one row each."""

from collections.abc import Callable

from ..config import SearchConfig
from ..spaces.base import Space
from .base import Searcher
from .evolution import Evolution
from .random import RandomSearch


def _controller(config: SearchConfig, space: Space, ppo: bool) -> Searcher:
    from .controller import Controller

    return Controller(space, config.controller, config.seed, ppo)


SEARCHERS: dict[str, Callable[[SearchConfig, Space], Searcher]] = {
    "ppo": lambda config, space: _controller(config, space, ppo=True),
    "reinforce": lambda config, space: _controller(config, space, ppo=False),
    "evolution": lambda config, space: Evolution(space, config.evolution, config.seed),
    "random": lambda config, space: RandomSearch(space, config.seed),
}


def make_searcher(config: SearchConfig, space: Space) -> Searcher:
    """The searcher of a config, freshly seeded."""
    return SEARCHERS[config.searcher](config, space)
