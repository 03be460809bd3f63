"""What a controller's updates said of its policy, as charts. Imports no torch."""

from functools import partial
from typing import Any, NamedTuple

import numpy as np

from ..history import History
from ..spaces.base import FixedSpace
from . import charts
from .render import number


class Panel(NamedTuple):
    """A chart of statistics that stand on one axis: each has a name, what it is called, and its colour's name."""

    name: str
    lines: tuple[tuple[str, str, str], ...]
    axis: str
    caption: str


PANELS = (
    Panel(
        "entropy",
        (("policy/entropy", "entropy of the policy", "search"),),
        "nats per decision",
        "A policy that has no preference has the entropy of the dashed line; one at 0 proposes a single cell.",
    ),
    Panel(
        "baseline",
        (("policy/reward", "mean reward of a batch", "search"), ("policy/baseline", "baseline", "ink")),
        "reward",
        "A child above the baseline makes its decisions likelier, one below it less likely. A baseline that lags far "
        "behind the mean calls almost every child good or bad.",
    ),
    Panel(
        "clipped",
        (("policy/clipped", "clipped decisions", "search"),),
        "share of the decisions",
        "Where PPO's clip held the policy back. A large share means large steps, or results that come late.",
    ),
    Panel(
        "kl",
        (("policy/kl", "distance to the policy that proposed", "search"),),
        "nats per decision",
        "How far the policy was, after its update, from the one that had proposed the children (Kullback-Leibler).",
    ),
)


def policy(history: History) -> list[tuple[Any, str, list[tuple[str, str]]]] | None:
    """The charts of the statistics that the searcher gave, each with its caption and its legend; None if none."""
    shown = [(panel, plot) for panel in PANELS if (plot := _plot(history, panel))]
    pictures = charts.row(*(plot for _, plot in shown))
    legends = [[(f"line {colour}", text) for _, text, colour in panel.lines] for panel, _ in shown]
    return [(picture, panel.caption, legend) for picture, (panel, _), legend in zip(pictures, shown, legends)] or None


def _plot(history: History, panel: Panel) -> charts.Plot | None:
    """The panel's chart; None if a statistic is missing, as in journals of earlier versions and other searchers."""
    uniform = None
    if panel.name == "entropy":
        if not isinstance(history.space, FixedSpace):
            return None  # what is decided changes, and the entropy of no preference with it
        uniform = float(np.mean([np.log(decision.outcomes) for decision in history.space.decisions]))
    lines, said = [], []
    for name, text, colour in panel.lines:
        points = [(place, values[name]) for place, values in history.updates if np.isfinite(values.get(name, np.nan))]
        if not points:
            return None
        children, values = zip(*points)
        lines.append((children, values, charts.COLOURS[colour][0]))
        said.append(f"{text} from {number(values[0])} to {number(values[-1])}")
    alt = f"The policy's updates, in {panel.axis}: {' and '.join(said)}."
    return charts.Plot(panel.name, alt, partial(charts.policy_chart, lines=lines, label=panel.axis, uniform=uniform))
