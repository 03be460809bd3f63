"""Several searches as one: a search, the same with other seeds, and baselines of the same budget, one after another."""

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from nasnet_zoo.errors import ConfigError

from .beside import distinct, remember, remembered
from .children.base import Child
from .config import SearchConfig
from .driver import Driver
from .folder import refuse_another, whole
from .presets import changed
from .runner import SearchResult, run
from .searchers.table import SEARCHERS
from .watch import Reporter

OnChange = Callable[[Driver], None]


@dataclass(frozen=True)
class Part:
    """One of several searches. `key` is what it is in the report of the first: "seeds" or "baseline"."""

    config: SearchConfig
    key: str

    @property
    def title(self) -> str:
        return f"{SEARCHERS.row(self.config.searcher).name}, seed {self.config.seed}, in {self.config.folder}"


def parts(config: SearchConfig, baseline: Sequence[str] = (), seeds: int = 1) -> list[Part]:
    """The searches by the config's searcher and by those named in `baseline`, each with as many seeds, from the
    config's on. All searchers' first seeds come first, so that there is something to compare early. The folders are the
    config's for itself, and FOLDER-seed1, FOLDER-random, FOLDER-random-seed1 and so on for the others.

    Raises ConfigError for a searcher that is not there or the config's own, and for fewer seeds than one.
    """
    if seeds < 1:
        raise ConfigError(f"search: {seeds} seeds are too few: give 1 or more")
    for name in baseline:
        SEARCHERS.row(name)
        if name == config.searcher:
            raise ConfigError(f"search: {name} is the search's own searcher: name another baseline, or more seeds")
    found, folder = [], whole(Path(config.folder))
    for seed in range(config.seed, config.seed + seeds):
        end = f"-seed{seed}" if seed != config.seed else ""
        found.append(Part(replace(config, seed=seed, folder=f"{folder}{end}" if end else config.folder), "seeds"))
        for name in dict.fromkeys(baseline):
            changes = {"searcher": name, "seed": seed, "folder": f"{folder}-{name}{end}"}
            found.append(Part(changed(config, changes), "baseline"))
    return found


def run_several(
    config: SearchConfig,
    *,
    baseline: Sequence[str] = (),
    seeds: int = 1,
    child: Child | None = None,
    beside: Sequence[str | os.PathLike[str]] | None = None,
    watched: Callable[[Part], AbstractContextManager[OnChange]] = lambda part: nullcontext(lambda driver: None),
) -> list[SearchResult]:
    """Runs the searches of `parts`, each as `run` does; those that were finished before are not run again. The report
    of the first shows the others beside it, with intervals over the seeds.

    Args:
        config: the first search.
        baseline: the searchers that get the same number of children, random as a rule.
        seeds: how many seeds each searcher gets.
        child: used instead of the config's child.
        beside: run folders of searches that are there, which the report shows as baselines too, beside those that were
            named before.
        watched: a context for each search while it runs, which gives what is called with its driver.

    Returns:
        The results, in the order of `parts`.

    Raises:
        As `run` does.
    """
    config = config if child is not None else replace(config, child=config.child.completed())
    several = parts(config, baseline, seeds)
    for part in several[1:]:
        refuse_another(part.config)
    if beside is not None:
        beside = distinct([*remembered(config.folder)["baseline"], *beside])
    results: list[SearchResult] = []
    for part in several:
        with watched(part) as on_change:
            there = None if results else beside
            results.append(run(part.config, child=child, baseline=there, on_change=on_change))
        if len(results) > 1:
            _show(config, part)
    return results


def _show(config: SearchConfig, part: Part) -> None:
    """Writes the first search's report with a part beside it."""
    named = remembered(config.folder)
    named[part.key] = distinct([*named[part.key], Path(part.config.folder)])
    remember(config.folder, named)
    Reporter(Path(config.folder), None).write()  # a report that cannot be written ends no search
