"""What children cost: their time, and their accuracies against their sizes. Imports no torch."""

import os
from collections import Counter
from functools import partial
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from nasnet_zoo.lookup import typed
from nasnet_zoo.util.progress import duration

from ..children.base import SUCCESSES
from ..fronts import COSTS, LATENCY, is_number
from ..history import History
from ..rows import costs_of
from . import charts

SIZED = 200  # children whose network's cost is computed for the charts
UNITS = (1e9, "billion "), (1e6, "million "), (1e3, "thousand ")
LEGEND = [("dot search", "a child"), ("line ink", "Pareto front")]


def cost(folder: str | os.PathLike[str], history: History) -> dict[str, Any] | None:
    """How long children took, as a sentence and a chart if it was long enough to tell, and how large they are."""
    seconds = [r.seconds for r in history.finished if r.status == "done" and r.served is None]
    if not seconds:
        return None
    against, text = _against_costs(history), "No child took more than 0.1 s."
    plots = [(plot, LEGEND) for plot in against]
    if timed := max(seconds) >= 0.1:
        middle, most = np.quantile(seconds, [0.5, 0.95])
        text = f"Half of the children with metrics took up to {duration(middle)}, 95 % up to {duration(most)}."
        again = sum(max(record.attempts - 1, 0) for record in history.records)
        text += f" {again:,} further attempts were lost or failed." if again else ""
        plots.append((charts.Plot("cost", text, partial(charts.cost_chart, seconds=seconds)), []))
    pictures = charts.row(*(plot for plot, _ in plots))
    figures = [(picture, plot.alt, legend) for picture, (plot, legend) in zip(pictures, plots)]
    text = " ".join(filter(None, ["" if timed else text, _stopped(history)]))
    command = f"nasnet-zoo report {typed(os.fspath(folder))} --pareto" if against else None
    return {"text": text, "figures": figures, "command": command}


def _stopped(history: History) -> str:
    """A sentence on the children that were stopped at rungs; empty if none was."""
    where = Counter(record.rung for record in history.finished if record.rung is not None)
    if not where:
        return ""
    said = ", ".join(f"{count:,} after {epoch} epoch{'s' * (epoch > 1)}" for epoch, count in sorted(where.items()))
    share = saved_epochs(history)
    saved = "" if share is None else f", which saved {share:.0%} of the epochs of all children"
    return f"{where.total():,} children fell behind and were stopped early ({said}){saved}."


def saved_epochs(history: History) -> float | None:
    """The share of the epochs that children were not trained for because they were stopped, of those of all children in
    full, failures and repeats from the journal left out; None where they are not trained by epochs."""
    epochs = history.config.child.training_epochs()
    trained = [r for r in history.finished if r.status in SUCCESSES and r.served is None]
    if epochs is None or not trained:
        return None
    return sum(epochs - record.rung for record in trained if record.rung is not None) / (epochs * len(trained))


def _against_costs(history: History) -> list[charts.Plot]:
    """Accuracies against each cost. If costs must be computed, which takes milliseconds each, of the last children."""
    done = [record for record in history.finished if record.status == "done"]
    shown = done if all(name in record.metrics for record in done for name in COSTS) else done[-SIZED:]
    which = "the last " if len(shown) < len(done) else ""
    said = [record.metrics | costs_of(history.config, history.space, record) for record in shown]
    latencies = dict.fromkeys(name for metrics in said for name in metrics if name.startswith(LATENCY))
    plots = []
    for place, name in enumerate((*COSTS, *latencies)):
        rows = [(metrics.get(name), metrics.get("accuracy"), record.reward) for metrics, record in zip(said, shown)]
        rows = [row for row in rows if all(map(is_number, row))]
        if len({cost for cost, *_ in rows}) > 1:
            plots.append(_against(f"size{place}", name, which, rows))
    return plots


def _against(identity: str, name: str, which: str, rows: list[tuple[float, float, float]]) -> charts.Plot:
    """The chart of the (cost, accuracy, reward) of each child."""
    costs, accuracies, rewards = zip(*rows)
    what, unit, word = name.replace("multiply_adds", "multiply-adds"), 1.0, ""
    if name in COSTS:
        unit, word = next((unit for unit in UNITS if max(costs) >= unit[0]), (unit, word))
    text = f"Accuracy against {what} of {which}{len(rows):,} children."
    if len(set(accuracies)) > 1 and len(set(rewards)) > 1:
        rho, of_reward = (f"{spearmanr(costs, values).statistic:.2f}" for values in (accuracies, rewards))
        text += f" Spearman's rank correlation is {rho}{'' if of_reward == rho else f', with the reward {of_reward}'}."
    scaled = [cost / unit for cost in costs]
    paint = partial(charts.costs_chart, costs=scaled, accuracies=accuracies, label=f"{word}{what}")
    return charts.Plot(identity, text, paint)
