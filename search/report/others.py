"""The searches beside which a report shows its own: read, grouped, and what differs between them. Imports no torch."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nasnet_zoo.errors import ConfigError, ZooError
from nasnet_zoo.lookup import typed

from ..beside import distinct, remember, remembered
from ..history import History, read_history
from ..searchers.table import SEARCHERS, searcher_sections
from . import charts

LAST = 100  # children that represent what the searcher has learned


@dataclass(frozen=True)
class Search:
    """A history, and the `points` (place among the finished, reward) of its children that have metrics."""

    folder: str
    history: History
    points: np.ndarray

    @classmethod
    def read(cls, folder: str | os.PathLike[str]) -> "Search":
        history = read_history(folder)
        finished = enumerate(history.finished, 1)
        points = [(place, r.reward) for place, r in finished if r.status == "done" and np.isfinite(r.reward)]
        return cls(os.fspath(folder), history, np.array(points, dtype=float).reshape(-1, 2))

    @property
    def name(self) -> str:
        return SEARCHERS.row(self.history.config.searcher).name

    @property
    def rewards(self) -> np.ndarray:
        return self.points[:, 1]


@dataclass(frozen=True)
class Group:
    """Searches by one searcher, each with a seed of its own; `colour` is a name in charts.COLOURS."""

    name: str
    colour: str
    searches: list[Search]

    @property
    def light(self) -> str:
        return charts.COLOURS[self.colour][0]

    @property
    def recent(self) -> np.ndarray:
        """The last rewards of each search, together."""
        return np.concatenate([search.rewards[-LAST:] for search in self.searches])

    @property
    def rewards(self) -> np.ndarray:
        return np.concatenate([search.rewards for search in self.searches])


@dataclass(frozen=True)
class Others:
    """The searches beside which a report shows its own, and sentences on those that could not be read."""

    baseline: list[Search]
    seeds: list[Search]
    left_out: list[str]

    @classmethod
    def read(
        cls,
        search: Search,
        baseline: Sequence[str | os.PathLike[str]] | None,
        seeds: Sequence[str | os.PathLike[str]] | None,
    ) -> "Others":
        """Reads the searches in the named folders, or in those that were named before where that is None; what was
        named is remembered. Raises JournalError or ConfigError for a named folder that cannot be used; one that was
        named before is then left out."""
        before = remembered(search.folder)
        named = {"baseline": baseline, "seeds": seeds}
        folders = {key: before[key] if paths is None else distinct(paths) for key, paths in named.items()}
        found: dict[str, list[Search]] = {"baseline": [], "seeds": []}
        left_out = []
        for key, paths in folders.items():
            for path in paths:
                try:
                    found[key].append(_read_beside(search, path, key))
                except (ZooError, OSError) as error:
                    if named[key] is not None:
                        raise
                    left_out.append(f"{path} was named before with --{key}, and is left out: {error}.")
        if baseline is not None or seeds is not None:  # others may name more meanwhile, which a plain report must keep
            given = {key: folders[key] for key, paths in named.items() if paths is not None}
            remember(search.folder, remembered(search.folder) | given)
        return cls(found["baseline"], found["seeds"], left_out)


def _read_beside(search: Search, folder: Path, key: str) -> Search:
    if folder.resolve() == Path(search.folder).resolve():
        raise ConfigError(f"{folder} is the run folder of the report itself: name others with --{key}")
    other = Search.read(folder)
    if key == "seeds" and other.name != search.name:
        raise ConfigError(f"{folder} holds a search by {other.name}, not by {search.name}: name it with --baseline")
    return other


def grouped(search: Search, others: Others) -> list[Group]:
    """The search with its other seeds, and the baselines by their searcher; without searches that have no results."""
    names: dict[str, list[Search]] = {}
    for other in others.baseline:
        name = f"{other.name}, baseline" if other.name == search.name else other.name
        names.setdefault(name, []).extend([other] if len(other.points) else [])
    seeds = [other for other in others.seeds if len(other.points)]
    baselines = [(name, searches) for name, searches in names.items() if searches]
    colours = [charts.BASELINES[place % len(charts.BASELINES)] for place in range(len(baselines))]
    return [
        Group(search.name, "search", [search, *seeds]),
        *(Group(name, colour, searches) for colour, (name, searches) in zip(colours, baselines)),
    ]


def conditions(search: Search, others: Others) -> list[str]:
    """What differs between searches and should not, and which of them are no further samples."""
    settings = {"searcher", *searcher_sections()}
    notes: list[str] = []
    for other in others.seeds:
        notes += _differences(other, search, "here", lambda section: section != "seed")
    first: dict[str, Search] = {}  # of each group of baselines
    for other in others.baseline:
        notes += _differences(other, search, "here", lambda section: section not in {"seed", *settings})
        like = first.setdefault(other.name, other)
        notes += _differences(other, like, f"in {like.folder}", lambda section: section in settings)
    known: list[Search] = []
    for one in (search, *others.seeds, *others.baseline):
        alike = [there for there in known if there.history.config.identity() == one.history.config.identity()]
        notes += [f"{one.folder}: the same search as in {alike[0].folder}, with the same seed"] if alike else []
        known.append(one)
    return notes


def _differences(other: Search, like: Search, where: str, matters: Callable[[str], bool]) -> list[str]:
    """A sentence on the settings in sections that matter, if some differ."""
    theirs, mine = other.history.config.identity(), like.history.config.identity()
    keys = [key for key in sorted(mine.keys() | theirs.keys()) if mine.get(key) != theirs.get(key)]
    said = [
        f"{key} is {theirs.get(key)!r} there, {mine.get(key)!r} {where}" for key in keys if matters(key.split(".")[0])
    ]
    return [f"{other.folder}: {'; '.join(said)}"] if said else []


def hint(search: Search, others: Others) -> str | None:
    """The command that makes a baseline, if there is none and one would tell something."""
    if others.baseline or others.left_out or search.history.config.searcher == "random":
        return None
    return f"nasnet-zoo search {typed(search.folder)} --baseline random"
