"""What several seeds of a search say together: mean learning curves and figures with their intervals.

Imports no torch.
"""

import os
from functools import partial
from typing import Any

import numpy as np
from scipy.stats import t

from . import charts
from .others import LAST, Group, Others, Search, grouped
from .render import number

LEVEL = 0.95  # of the intervals
POINTS = 400  # of a learning curve; a chart has no more pixels to show


def over_seeds(groups: list[Group]) -> dict[str, Any] | None:
    """The learning curves and the figures of groups of searches; None if no group has two."""
    if all(len(group.searches) == 1 for group in groups) or not len(groups[0].searches[0].points):
        return None
    window = charts.window(max(len(search.points) for group in groups for search in group.searches))
    curves = [(group, *found) for group in groups if (found := learning_curves(group.searches, window))]
    equal = min(len(search.points) for group in groups for search in group.searches)
    return {
        "window": window,
        "chart": _chart(curves, window) if curves else None,
        "legend": [(f"line {group.colour}", group.name) for group, *_ in curves],
        "banded": charts.BANDED,
        "level": f"{LEVEL:.0%}",
        "equal": equal,
        "last": min(LAST, equal),
        "rows": [_figures(group, equal) for group in groups],
    }


def figures(folder: str | os.PathLike[str]) -> tuple[int, list[dict[str, Any]]]:
    """What the report of a search says of it and of the searches beside it: how many children are its "last", and for
    each searcher its `name`, how many `seeds`, and over them the `mean`, the mean of the `last` and the `best` with
    intervals of LEVEL. Raises JournalError for a folder without a search."""
    search = Search.read(folder)
    groups = grouped(search, Others.read(search, None, None))
    equal = min(len(each.points) for group in groups for each in group.searches)
    return min(LAST, equal), [_figures(group, equal) for group in groups] if equal else []


def learning_curves(searches: list[Search], window: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Numbers of children finished (points), and each search's mean of the last `window` rewards by then (searches,
    points), as far as all have some; searches with fewer rewards are left out. None if nothing is left."""
    long = [search.points.T for search in searches if len(search.points) >= window]
    if not long:
        return None
    first, last = max(places[window - 1] for places, _ in long), min(places[-1] for places, _ in long)
    if first > last:
        return None
    grid = np.unique(np.linspace(first, last, POINTS).astype(int))
    means = [(places, charts.running_mean(rewards, window)) for places, rewards in long]
    return grid, np.array([mean[np.searchsorted(places, grid, "right") - window] for places, mean in means])


def interval(values: np.ndarray) -> tuple[Any, Any]:
    """The mean over the first axis, and half the width of its interval by Student's t distribution: nan for one."""
    count = len(values)
    mean = values.mean(axis=0)
    if count == 1:
        return mean, np.full_like(mean, np.nan)
    return mean, t.ppf((1 + LEVEL) / 2, count - 1) * values.std(axis=0, ddof=1) / count**0.5


def _chart(curves: list[tuple[Group, np.ndarray, np.ndarray]], window: int) -> Any:
    lines = [(grid, each, *interval(each), group.light) for group, grid, each in curves]
    said = [f"{group.name} ends at {number(float(line[2][-1]))}" for (group, *_), line in zip(curves, lines)]
    alt = f"Learning curves, means of {window} children, of all seeds: the mean of {', that of '.join(said)}."
    bands = [mean + sign * half for _, each, mean, half, _ in lines if len(each) >= charts.BANDED for sign in (-1, 1)]
    limits = charts.usual_range(np.concatenate([*(each.ravel() for _, _, each in curves), *bands]))
    return charts.alone(charts.Plot("seeds", alt, partial(charts.seeds_chart, groups=lines, limits=limits)))


def _figures(group: Group, equal: int) -> dict[str, Any]:
    """Means over seeds of three figures of the first `equal` children, with their intervals, and how much the mean of
    the last of these deviates from seed to seed."""
    first = [search.rewards[:equal] for search in group.searches]
    figures = np.array([[x.mean(), x[-LAST:].mean(), x.max()] for x in first])
    cells = [number(mean) + _plus_minus(half) for mean, half in zip(*interval(figures))]
    deviation = number(figures[:, 1].std(ddof=1)) if len(first) > 1 else "one seed"
    return dict(name=group.name, seeds=len(first), deviation=deviation) | dict(zip(("mean", "last", "best"), cells))


def _plus_minus(half: float) -> str:
    return f"\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}{number(half)}" if np.isfinite(half) else ""
