"""The picture of a training: its metrics, loss and learning rate, epoch by epoch."""

import math
import os
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from ..util.charts import AMBER, BLUE, INK, MUTED, PLUM, chart
from .state import Epoch

FEW_POINTS = 40  # up to here a line shows its points
LEAST_RANGE = 10  # per cent that the metrics' panel shows
ROUND = [1, 2, 5, 10]  # the steps between the numbers on an axis, times a power of ten
WIDE_RANGE = 20  # a loss that falls further than by this factor needs a logarithmic axis


def draw_curve(epochs: Sequence[Epoch], best: Epoch | None, path: str | os.PathLike[str]) -> None:
    """Draws one or more epochs; `best` is the one to be marked. Raises ZooError if the file cannot be written."""
    metrics = dict.fromkeys(name for epoch in epochs for name in epoch.metrics)
    heights = {"metrics": 4, "loss": 3, "rate": 1}
    if not metrics:
        del heights["metrics"]
    with chart(path, (8, 1 + 0.7 * sum(heights.values()))) as figure:
        panels: dict[str, Axes] = figure.subplot_mosaic(
            [[name] for name in heights], sharex=True, height_ratios=list(heights.values())
        )
        for axes in panels.values():
            axes.grid(lw=0.8)
        if metrics:
            _metrics(panels["metrics"], epochs, list(metrics), best)
        _loss(panels["loss"], epochs)
        _line(panels["rate"], epochs, [epoch.learning_rate for epoch in epochs], color=MUTED, lw=1.2)
        panels["rate"].set(ylabel="learning\nrate", xlabel="epoch")
        panels["rate"].set_ylim(bottom=0)
        panels["rate"].yaxis.set_major_locator(MaxNLocator(2, steps=ROUND))
        room = max(0.5, 0.01 * len(epochs))
        panels["rate"].set_xlim(epochs[0].epoch - room, epochs[-1].epoch + room)
        panels["rate"].xaxis.set_major_locator(MaxNLocator(12, integer=True, min_n_ticks=1, steps=ROUND))
        figure.align_ylabels()
        figure.suptitle(_title(epochs[-1]), x=0.01, ha="left", size=11, color=INK, weight="bold")


def _title(last: Epoch) -> str:
    measured = [f"{name} {value:.2%}" for name, value in last.metrics.items()]
    return ", ".join([f"epoch {last.epoch} of {last.epochs}: loss {last.loss:.3f}", *measured])


def _metrics(axes: Axes, epochs: Sequence[Epoch], names: Sequence[str], best: Epoch | None) -> None:
    colours = [BLUE, AMBER, PLUM]
    for place, name in enumerate(names):
        values = [100 * epoch.metrics.get(name, math.nan) for epoch in epochs]
        _line(axes, epochs, values, color=colours[place % 3], label=name, ls=["-", "--", ":"][place // 3 % 3])
    if best is not None:
        first = next(iter(best.metrics))
        value = 100 * best.metrics[first]
        label = f"best {first} {value:.2f} in epoch {best.epoch}"
        axes.plot(best.epoch, value, "o", ms=10, mew=1.5, mfc="none", mec=BLUE, label=label, clip_on=False)
    low, high = axes.get_ylim()
    lack = max(LEAST_RANGE - (high - low), 0)  # or a single epoch, and noise, would fill the panel
    axes.set(ylim=(low - lack / 2, min(high + lack / 2, max(axes.dataLim.y1, 100.5))), ylabel="per cent")
    axes.legend(edgecolor="none", framealpha=0.85, labelcolor=INK)


def _loss(axes: Axes, epochs: Sequence[Epoch]) -> None:
    losses = [epoch.loss for epoch in epochs]
    _line(axes, epochs, losses, color=INK)
    if 0 < WIDE_RANGE * min(losses) < max(losses):
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_locator(NullLocator())
    elif min(losses) >= 0:
        axes.set_ylim(bottom=0)
    axes.set_ylabel("training loss")


def _line(axes: Axes, epochs: Sequence[Epoch], values: Sequence[float], lw: float = 1.8, **style) -> None:
    points = [(epoch.epoch, value) for epoch, value in zip(epochs, values) if math.isfinite(value)]
    axes.plot(*zip(*points), marker="o" if len(epochs) <= FEW_POINTS else "", ms=3.5, lw=lw, **style)
