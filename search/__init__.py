"""Searches for cells: spaces, searchers, children, fleets and the journal (installed as nasnet_zoo.search).

    from nasnet_zoo.search import SearchConfig, run
    result = run(SearchConfig("runs/first"))

Importing this package imports no torch.
"""

from .children.table import CHILDREN, ChildSettings
from .config import FailureSettings, SearchConfig, read_search_config
from .fleet.base import FleetSettings
from .fleet.table import FLEETS
from .reranking import Reranked, rerank
from .rewards import REWARDS
from .rows import read_children
from .runner import SearchResult, run
from .scaling import Target, transfer
from .searchers.evolution import EvolutionSettings
from .searchers.settings import ControllerSettings
from .searchers.table import SEARCHERS
from .spaces.table import SPACES, SpaceSettings, get_space

__all__ = [
    "CHILDREN",
    "FLEETS",
    "REWARDS",
    "SEARCHERS",
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
    "read_children",
    "read_search_config",
    "rerank",
    "run",
    "transfer",
]
