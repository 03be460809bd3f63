"""A search's rewards beside those of other searches, as plain data. Imports no torch."""

from functools import partial
from typing import Any

import numpy as np
from scipy.stats import mannwhitneyu

from . import charts
from .others import LAST, Group, Search
from .render import number


def results(groups: list[Group]) -> dict[str, Any] | None:
    """Rewards over time and their distributions, with the baselines' beside them."""
    own, *baselines = groups
    search = own.searches[0]
    if not len(search.points):
        return None
    name, rewards = search.name, search.rewards
    recent = rewards[-LAST:]
    limits = charts.usual_range(np.concatenate([group.rewards for group in groups]))

    failed = [place for place, record in enumerate(search.history.finished, 1) if record.failed]
    place, best = search.points[rewards.argmax()]
    alt = (
        f"Reward against children finished. The first {LAST} have a mean of {number(rewards[:LAST].mean())}, the last "
        f"{LAST} one of {number(recent.mean())}; the best, {number(best)}, came as number {place:.0f}."
    )
    window = charts.window(len(rewards))
    beside = [(other.points, group.light) for group in baselines for other in group.searches]
    paint = partial(charts.reward_chart, points=search.points, failed=failed, baselines=beside)
    over_time = charts.Plot("reward", alt, partial(paint, window=window, limits=limits))

    curves = [(rewards, charts.SEARCH, "-")]
    curves += [(recent, charts.SEARCH, charts.DASHED)] if len(rewards) > LAST else []  # else the same line again
    curves += [(other.rewards, group.light, "-") for group in baselines for other in group.searches]
    medians = [f"{number(np.median(group.rewards))} for {group.name}" for group in baselines]
    medians = " and ".join([f"The median is {number(np.median(rewards))} for {name}", *medians])
    distribution = charts.Plot(
        "distribution",
        f"Distribution of rewards. {medians}.",
        partial(charts.distribution_chart, curves=curves, limits=limits),
    )
    equal = min(len(other.points) for group in groups for other in group.searches)
    return {
        "name": name,
        "whose": f"each seed of {name}" if len(own.searches) > 1 else name,
        "baselines": baselines,
        "window": window,
        "children": len(rewards),
        "recent": len(recent),
        "last": LAST,
        "below": int((rewards < limits[0]).sum()),
        "over_time": charts.alone(over_time),
        "legend": legend(name, len(rewards), baselines, window, len(failed)),
        "distribution": charts.alone(distribution),
        "chances": [(group.name, beats(own.recent, group.rewards)) for group in baselines],
        "equal": equal,
        "comparison": [_figures(group.name, other, equal) for group in groups for other in group.searches],
    }


def legend(name: str, children: int, baselines: list[Group], window: int, failed: int) -> list[tuple[str, str]]:
    """The signs in the picture of rewards over time and what they mean; of lines, those that are long enough to see.
    `children` and `failed` are how many children of the search have rewards, and none."""
    entries = [("dot search", f"a child of {name}", True)]
    lines = [("search", "", children)]
    lines += [(g.colour, f"{g.name}, ", max(len(other.points) for other in g.searches)) for g in baselines]
    for whose, prefix, length in lines:
        entries.append((f"line {whose}", f"{prefix}mean of {window}", length > window))
        entries.append((f"dash {whose}", f"{prefix}best so far", length > 1))
    entries.append(("tick failed", "failed; counted in no mean", failed > 0))
    return [(sign, text) for sign, text, there in entries if there]


def _figures(name: str, search: Search, equal: int) -> dict[str, Any]:
    """The figures behind a curve: the mean reward, the mean of the last children, the best, and the best among the
    first children, as many as every search has."""
    x = search.rewards
    figures = [x.mean(), x[-LAST:].mean(), x.max(), x[:equal].max()]
    return {"name": name, "children": len(x), "figures": figures, "folder": search.folder}


def beats(mine: np.ndarray, theirs: np.ndarray) -> float:
    """The probability that one drawn from `mine` is above one drawn from `theirs`; ties count half."""
    return float(mannwhitneyu(mine, theirs, method="asymptotic").statistic / (len(mine) * len(theirs)))
