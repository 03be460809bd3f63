"""A search's rewards beside those of its baselines, as plain data. Imports no torch."""

import os
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from markupsafe import Markup
from scipy.stats import mannwhitneyu

from ..history import History, read_history
from ..searchers.table import SEARCHERS, searcher_sections
from ..spaces.base import FixedSpace
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
    paint = partial(paint, window=window, limits=limits)
    sizes = {"wide": (928, 360), "narrow": (400, 300)}  # one of them is seen, depending on the screen's width

    curves = [(rewards, charts.SEARCH, "-"), (recent, charts.SEARCH, charts.DASHED)]
    curves += [(other.rewards, charts.BASELINE, "-") for other in others]
    medians = f"Distribution of rewards. The median is {number(np.median(rewards))} for {name}" + (
        f" and {number(np.median(pooled))} for {versus}." if others else "."
    )
    distribution = partial(charts.distribution_chart, curves=curves, limits=limits)
    return {
        "name": name,
        "versus": versus,
        "window": window,
        "children": len(rewards),
        "recent": len(recent),
        "last": LAST,
        "failed": len(failed),
        "below": int((rewards < limits[0]).sum()),
        "over_time": {key: charts.chart(key, alt, size, paint) for key, size in sizes.items()},
        "distribution": charts.chart("distribution", medians, charts.HALF, distribution),
        "chance": beats(recent, pooled) if others else None,
        "entropy": _entropy(search.history),
    } | _comparison(search, others)


def together(others: list[Search]) -> str:
    """What the baselines are called together; nothing if there are none."""
    names = {other.name for other in others}
    return names.pop() if len(names) == 1 else "the baselines" if names else ""


def _entropy(history: History) -> Markup | None:
    points = [(place, values["policy/entropy"]) for place, values in history.updates if "policy/entropy" in values]
    if not points or not isinstance(history.space, FixedSpace):
        return None
    children, entropy = zip(*points)
    uniform = float(np.mean([np.log(decision.outcomes) for decision in history.space.decisions]))
    alt = f"The policy's entropy goes from {number(entropy[0])} to {number(entropy[-1])} nats per decision."
    paint = partial(charts.entropy_chart, children=children, entropy=entropy, uniform=uniform)
    return charts.chart("entropy", alt, charts.HALF, paint)


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
