"""A search's rewards beside those of its baselines, as plain data. Imports no torch."""

import os
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from scipy.stats import mannwhitneyu

from ..history import History, read_history
from ..searchers.table import SEARCHERS, searcher_sections
from . import charts
from .render import number

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


def results(search: Search, others: list[Search]) -> dict[str, Any] | None:
    """Rewards over time and their distributions, with the baselines' beside them."""
    if not len(search.points):
        return None
    name, rewards = search.name, search.rewards
    recent, versus = rewards[-LAST:], together(others)
    pooled = np.concatenate([other.rewards for other in others]) if others else np.empty(0)
    limits = charts.usual_range(np.concatenate([rewards, pooled]))

    failed = [place for place, record in enumerate(search.history.finished, 1) if record.status != "done"]
    place, best = search.points[rewards.argmax()]
    alt = (
        f"Reward against children finished. The first {LAST} have a mean of {number(rewards[:LAST].mean())}, the last "
        f"{LAST} one of {number(rewards[-LAST:].mean())}; the best, {number(best)}, came as number {place:.0f}."
    )
    window = charts.window(len(rewards))
    baselines = [other.points for other in others]
    paint = partial(charts.reward_chart, points=search.points, failed=failed, baselines=baselines)
    over_time = charts.Plot("reward", alt, partial(paint, window=window, limits=limits))

    curves = [(rewards, charts.SEARCH, "-")]
    curves += [(recent, charts.SEARCH, charts.DASHED)] if len(rewards) > LAST else []  # else the same line again
    curves += [(other.rewards, charts.BASELINE, "-") for other in others]
    medians = f"Distribution of rewards. The median is {number(np.median(rewards))} for {name}" + (
        f" and {number(np.median(pooled))} for {versus}." if others else "."
    )
    distribution = charts.Plot(
        "distribution", medians, partial(charts.distribution_chart, curves=curves, limits=limits)
    )
    return {
        "name": name,
        "versus": versus,
        "window": window,
        "children": len(rewards),
        "recent": len(recent),
        "last": LAST,
        "failed": len(failed),
        "below": int((rewards < limits[0]).sum()),
        "over_time": charts.alone(over_time),
        "legend": legend(name, len(rewards), versus, [len(other) for other in baselines], window, len(failed)),
        "distribution": charts.alone(distribution),
        "chance": beats(recent, pooled) if others else None,
    } | _comparison(search, others)


def legend(name: str, children: int, versus: str, others: list[int], window: int, failed: int) -> list[tuple[str, str]]:
    """The signs in the picture of rewards over time and what they mean; of lines, those that are long enough to see.
    `children` and `others` are how many children with rewards the search and each of its baselines have."""
    entries = [("dot search", f"a child of {name}", True)]
    lines = [("search", "", children), ("baseline", f"{versus}, ", max(others, default=0))]
    for whose, prefix, length in lines:
        entries.append((f"line {whose}", f"{prefix}mean of {window}", length > window))
        entries.append((f"dash {whose}", f"{prefix}best so far", length > 1))
    entries.append(("tick failed", "failed; counted in no mean", failed > 0))
    return [(sign, text) for sign, text, there in entries if there]


def together(others: list[Search]) -> str:
    """What the baselines are called together; nothing if there are none."""
    names = {other.name for other in others}
    return names.pop() if len(names) == 1 else "the baselines" if names else ""


def _comparison(search: Search, others: list[Search]) -> dict[str, Any]:
    """The figures behind the curves, for each search: the mean reward, the mean of the last children, the best, and the
    best among the first children, as many as every search has."""
    equal = min(len(one.points) for one in (search, *others))
    rows = []
    for one in (search, *others):
        x = one.rewards
        figures = [x.mean(), x[-LAST:].mean(), x.max(), x[:equal].max()]
        rows.append({"name": one.name, "children": len(x), "figures": figures, "folder": one.folder})
    return {"equal": equal, "comparison": rows}


def conditions(search: Search, others: list[Search]) -> list[str]:
    """The settings that differ between a baseline's children and the search's."""
    mine, notes = search.history.config.identity(), []
    own = {"searcher", "seed", *searcher_sections()}
    for other in others:
        theirs = other.history.config.identity()
        keys = [key for key in sorted(mine.keys() | theirs.keys()) if mine.get(key) != theirs.get(key)]
        keys = [key for key in keys if key.split(".")[0] not in own]
        said = "; ".join(f"{key} is {theirs.get(key)!r} there, {mine.get(key)!r} here" for key in keys)
        notes += [f"{other.folder}: {said}"] if keys else []
    return notes


def beats(mine: np.ndarray, theirs: np.ndarray) -> float:
    """The probability that one drawn from `mine` is above one drawn from `theirs`; ties count half."""
    return float(mannwhitneyu(mine, theirs, method="asymptotic").statistic / (len(mine) * len(theirs)))
