"""Searches for cells: spaces, searchers, children, fleets and the journal (installed as nasnet_zoo.search).

    from nasnet_zoo.search import SearchConfig, run
    result = run(SearchConfig("runs/first"))

Importing this package imports no torch.
"""

from .config import (
    ChildSettings,
    ControllerSettings,
    EvolutionSettings,
    FailureSettings,
    FleetSettings,
    SearchConfig,
    SpaceSettings,
    read_search_config,
)
from .reranking import Reranked, rerank
from .runner import SearchResult, run
from .scaling import Target, transfer
from .spaces.table import SPACES, get_space

__all__ = [
    "SPACES",
    "ChildSettings",
    "ControllerSettings",
    "EvolutionSettings",
    "FailureSettings",
    "FleetSettings",
    "Reranked",
    "SearchConfig",
    "SearchResult",
    "SpaceSettings",
    "Target",
    "get_space",
    "read_search_config",
    "rerank",
    "run",
    "transfer",
]
