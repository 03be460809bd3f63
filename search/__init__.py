"""Searches for cells: spaces, searchers, children, fleets and the journal (installed as nasnet_zoo.search).

    from nasnet_zoo.search import SearchConfig, run
    result = run(SearchConfig("runs/first"))

Searching
    run                 runs a search, or resumes one; gives a SearchResult
    run_several         a search with several seeds, and baselines of the same budget
    SearchConfig        a whole search; its parts are SpaceSettings, ControllerSettings, EvolutionSettings,
                        ChildSettings, CostSettings, RungSettings, FleetSettings and FailureSettings
    read_search_config  a SearchConfig from a JSON file
    read_children       all children of a search, running or finished, as rows
    pareto              the children that no other beats in accuracy and in every cost
    rerank              trains a search's best cells for longer; gives a Reranked
    transfer            an architecture as the config of a network whose size a Target gives

Tables: what there is to choose from, by name
    SPACES, get_space   what is searched
    SEARCHERS           what proposes children
    CHILDREN            what a child is trained for
    REWARDS             what its result is worth
    FLEETS              where children run

Importing this package imports no torch.
"""

from nasnet_zoo.util.names import listed

from .children.table import CHILDREN, ChildSettings
from .config import FailureSettings, SearchConfig, read_search_config
from .costs import CostSettings
from .fleet.base import FleetSettings
from .fleet.table import FLEETS
from .fronts import pareto
from .reranking import Reranked, rerank
from .rewards import REWARDS
from .rows import read_children
from .rungs import RungSettings
from .runner import SearchResult, run
from .scaling import Target, transfer
from .searchers.evolution import EvolutionSettings
from .searchers.settings import ControllerSettings
from .searchers.table import SEARCHERS
from .several import run_several
from .spaces.table import SPACES, SpaceSettings, get_space

__dir__ = listed(__name__)

__all__ = [
    "CHILDREN",
    "FLEETS",
    "REWARDS",
    "SEARCHERS",
    "SPACES",
    "ChildSettings",
    "ControllerSettings",
    "CostSettings",
    "EvolutionSettings",
    "FailureSettings",
    "FleetSettings",
    "Reranked",
    "RungSettings",
    "SearchConfig",
    "SearchResult",
    "SpaceSettings",
    "Target",
    "get_space",
    "pareto",
    "read_children",
    "read_search_config",
    "rerank",
    "run",
    "run_several",
    "transfer",
]
