"""The report's charts, as SVG to stand within a page of HTML, in colours that the page's style sheet decides.

Imports no torch.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from io import StringIO

import matplotlib.style
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from scipy.optimize import isotonic_regression
from scipy.stats import ecdf

from nasnet_zoo.arch.draw.cells import COMBINES, IDENTITY, OTHER, POOLING, SEPARABLE, op_label
from nasnet_zoo.util import charts

from ..fronts import pareto_front

# Drawn in the light colours; in the page each becomes a variable of that name, which has a dark value too. The two
# series' hues stay apart for colour-blind readers.
COLOURS = {
    "ink": (charts.INK, "#e4e9ed"),
    "muted": (charts.MUTED, "#9cabb7"),
    "grid": (charts.GRID, "#33404a"),
    "surface": ("#fdfefe", "#182026"),
    "search": (charts.BLUE, "#62b6f2"),
    "baseline": (charts.AMBER, "#f0a53c"),
    "second": ("#9c2f86", "#e08fd0"),
    "third": ("#2c7a4b", "#6fcf97"),
    "fourth": ("#7a5a3a", "#c9a27c"),
    "failed": ("#b3261e", "#ff8f86"),
}
INK, MUTED, GRID, SURFACE, SEARCH, FAILED = (
    COLOURS[name][0] for name in ("ink", "muted", "grid", "surface", "search", "failed")
)
BASELINES = "baseline", "second", "third", "fourth"  # the colours of groups of other searches
# What the ops of a family get, from first to last, by its tint in drawings of cells.
FAMILIES = {
    SEPARABLE: (SEPARABLE, "#15568a"),
    POOLING: (POOLING, "#a86a00"),
    OTHER: (OTHER, "#84316a"),
    IDENTITY: ("#cbd3d9", "#8796a2"),
}
STYLE = {**charts.STYLE, "font.size": 12, "axes.grid": True}
DASHED = (0, (4, 2))
# CSS pixels of a chart that stands beside another, and of the two of one that stands alone: one of them is seen,
# depending on the screen's width.
HALF, WIDE, NARROW = (440, 320), (928, 340), (400, 300)
MANY_POINTS = 2000  # from here on a cloud of points is a picture of pixels, which is smaller
BANDED = 3  # seeds from which on an interval is drawn: that of two is 25 standard errors wide, and hides the rest
FEW_POINTS = 20  # up to here a line shows its points


@dataclass(frozen=True)
class Plot:
    """A chart that is not drawn yet: see `chart`."""

    name: str
    alt: str
    paint: Callable[[Axes], None]
    right: int = 14


def row(*plots: Plot) -> list[Markup]:
    """The charts, two beside each other. What would be alone in its row fills it."""
    pairs = len(plots) // 2 * 2
    return [*(_drawn(plot, HALF) for plot in plots[:pairs]), *map(alone, plots[pairs:])]


def alone(plot: Plot) -> Markup:
    """A chart as wide as the page, and its narrow twin for a phone."""
    wide, narrow = (
        _drawn(replace(plot, name=f"{plot.name}-{width}"), size) for width, size in (("wide", WIDE), ("narrow", NARROW))
    )
    return Markup('<div class="wide">{}</div><div class="narrow">{}</div>').format(wide, narrow)


def _drawn(plot: Plot, size: tuple[int, int]) -> Markup:
    return chart(plot.name, plot.alt, size, plot.paint, plot.right)


def chart(name: str, alt: str, size: tuple[int, int], paint: Callable[[Axes], None], right: int = 14) -> Markup:
    """The chart that `paint` draws into the axes, as an <svg> of `size` CSS pixels that shrinks with the page; `right`
    pixels are beside the axes. `alt` describes the chart; `name` keeps its ids different from those of other charts."""
    width, height = size
    left, bottom, top = 56, 44, 8
    with matplotlib.style.context(["default", STYLE]):
        figure = Figure(figsize=(width / 72, height / 72), facecolor="none")  # a CSS pixel is a point of matplotlib's
        inner = left / width, bottom / height, (width - left - right) / width, (height - bottom - top) / height
        axes = figure.add_axes(inner, facecolor="none")
        axes.xaxis.get_major_locator().set_params(nbins=max(width // 75, 4))
        axes.xaxis.set_major_formatter("{x:,.6g}")
        paint(axes)
        text = StringIO()
        figure.savefig(text, format="svg", dpi=144, metadata={"Date": None})
    return inline_svg(text.getvalue(), name, alt, {light: f"var(--{key})" for key, (light, _) in COLOURS.items()})


def inline_svg(text: str, name: str, alt: str, colours: dict[str, str]) -> Markup:
    """An SVG file's text as an element of a page: named for readers who cannot see it, without metadata and
    namespaces, with ids of its own, and with colours replaced."""
    body = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    box = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', body)
    body = body[body.index(">") + 1 :]
    body = re.sub(r'(\bid="|xlink:href="#|url\(#)', rf"\g<1>{name}-", body).replace("xlink:href", "href")
    body = re.sub("|".join(colours) or "$^", lambda match: colours[match[0]], body)
    start = Markup('<svg role="img" aria-label="{}" viewBox="{}" style="max-width:{}px">')
    return start.format(alt, box[0][9:-1], box[1]) + Markup(body)


def window(children: int) -> int:
    """How many children a running mean takes: 20, and about a hundredth of very many."""
    return max(20, children // 1000 * 10)


def running_mean(values: Sequence[float], window: int) -> np.ndarray:
    """The mean of each `window` values in a row: shorter than `values` by window - 1."""
    total = np.cumsum(np.concatenate([[0.0], values]))
    return (total[window:] - total[:-window]) / window


def usual_range(values: Sequence[float]) -> tuple[float, float]:
    """Limits for an axis of rewards. A few rewards far below the others would compress the rest into a line, so up to
    one in twenty may be outside."""
    low, some, high = np.quantile(values, [0, 0.05, 1])
    if high - some < 0.5 * (high - low):
        low = some
    margin = 0.04 * (high - low) or 0.01
    return low - margin, high + margin


def reward_chart(
    axes: Axes,
    points: np.ndarray,
    failed: Sequence[int],
    baselines: Sequence[tuple[np.ndarray, str]],
    window: int,
    limits: tuple[float, float],
) -> None:
    """Rewards (place, reward) against the number of children finished: points, running means, the best so far. Of
    baselines, points and colour each, the lines alone."""
    _dots(axes, *points.T)
    for (places, rewards), colour in [*((other.T, colour) for other, colour in baselines), (points.T, SEARCH)]:
        if len(rewards) >= window:
            axes.plot(places[window - 1 :], running_mean(rewards, window), color=colour, lw=2)
        axes.step(places, np.maximum.accumulate(rewards), color=colour, lw=1.2, ls=DASHED, where="post")
    if len(failed):
        axes.plot(
            failed, np.full(len(failed), 0.02), "|", ms=8, mew=1.2, color=FAILED, transform=axes.get_xaxis_transform()
        )
    last = max(place for each in (points[:, 0], failed, *(other[:, 0] for other, _ in baselines)) for place in each)
    room = max(0.5, 0.01 * last)
    axes.set(xlim=(1 - room, last + room), ylim=limits, xlabel="children finished", ylabel="reward")
    _count(axes.xaxis)


def _dots(axes: Axes, x: Sequence[float], y: Sequence[float]) -> None:
    """A point for each child: the fewer, the larger."""
    many = len(x) > MANY_POINTS
    size = min(max(60 / len(x) ** 0.5, 2), 7)
    axes.plot(x, y, "o", ms=size, mew=0, alpha=0.45, color=SEARCH, rasterized=many, zorder=1)


def _count(axis: Axis) -> None:
    """The axis counts something: no fractions."""
    axis.get_major_locator().set_params(integer=True, min_n_ticks=1)


def seeds_chart(
    axes: Axes,
    groups: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, str]],
    limits: tuple[float, float],
) -> None:
    """Learning curves: for each group of searches the numbers of children (points), each search's curve (searches,
    points), the curves' mean, half of its interval's width, and a colour."""
    for places, curves, mean, half, colour in groups:
        if len(curves) > 1:
            axes.plot(places, curves.T, color=colour, lw=0.8, alpha=0.5)
        if len(curves) >= BANDED:
            axes.fill_between(places, mean - half, mean + half, color=colour, alpha=0.15, lw=0)
        axes.plot(places, mean, color=colour, lw=2.2)
    axes.set(xlim=(1, None), ylim=limits, xlabel="children finished", ylabel="reward")
    _count(axes.xaxis)


def distribution_chart(axes: Axes, curves: Sequence[tuple[Sequence[float], str, str]], limits: tuple[float, float]):
    """Distribution functions: values, colour and line style of each."""
    for values, colour, style in curves:
        cdf = ecdf(values).cdf
        x, y = [cdf.quantiles[0], *cdf.quantiles], [0, *cdf.probabilities]
        axes.step(x, y, color=colour, lw=1.8, ls=style, where="post")
    axes.set(xlim=limits, ylim=(0, 1), xlabel="reward", ylabel="share of children up to it")


def policy_chart(
    axes: Axes,
    lines: Sequence[tuple[Sequence[int], Sequence[float], str]],
    label: str,
    uniform: float | None = None,
) -> None:
    """Statistics of a policy, (children finished, values, colour) each, under that of one without preferences."""
    for children, values, colour in lines:
        axes.plot(children, values, color=colour, lw=2, marker="o" if len(children) <= FEW_POINTS else "", ms=4)
    axes.set(xlabel="children finished", ylabel=label)
    if uniform is not None:
        axes.axhline(uniform, color=MUTED, lw=1, ls=DASHED)
        axes.set(ylim=(0, uniform * 1.06))
    _count(axes.xaxis)


def cost_chart(axes: Axes, seconds: Sequence[float]) -> None:
    """How long children took."""
    bins = min(int(2 * len(seconds) ** 0.5) + 1, 30)
    axes.hist(seconds, bins=bins, color=SEARCH, edgecolor=SURFACE, linewidth=0.5)
    axes.set(xlabel="seconds per child", ylabel="children")
    _count(axes.yaxis)


def costs_chart(axes: Axes, costs: Sequence[float], accuracies: Sequence[float], label: str) -> None:
    """How accurate children are against what they cost, and the Pareto front: the best that each cost allows."""
    x, y = np.array(costs), np.array(accuracies)
    _dots(axes, x, y)
    front = pareto_front(np.column_stack([x, -y]))
    front.sort(key=lambda index: x[index])
    axes.step([*x[front], x.max()], [*y[front], y.max()], color=INK, lw=1.4, where="post")
    axes.plot(x[front], y[front], "o", ms=4, mew=0, color=INK)
    axes.set(ylim=usual_range(y), xlabel=label, ylabel="accuracy")


def op_colours(ops: Sequence[str]) -> dict[str, str]:
    """A colour per op: shades of its family's tint in drawings of cells."""
    families: dict[str, list[str]] = {}
    for op in ops:
        families.setdefault(op_label(op)[1], []).append(op)
    colours = {}
    for tint, members in families.items():
        first, last = (np.array(to_rgb(colour)) for colour in FAMILIES[tint])
        for op, part in zip(members, np.linspace(0, 1, len(members))):
            colours[op] = to_hex((1 - part) * first + part * last)
    return colours


def ops_chart(axes: Axes, x: Sequence[float], shares: dict[str, Sequence[float]]) -> None:
    """Each op's share of a cell over time, stacked. The labels at the right give the last shares."""
    colours = op_colours(tuple(shares))
    axes.stackplot(x, *shares.values(), colors=[colours[op] for op in shares], edgecolor=SURFACE, linewidth=0.6)
    axes.set(xlim=(x[0], x[-1]), ylim=(0, 1), xlabel="child", ylabel="share of the ops")
    _count(axes.xaxis)
    last = np.array([values[-1] for values in shares.values()])
    middles = np.cumsum(last) - last / 2
    beside = 1 + 18 / (72 * axes.figure.get_figwidth() * axes.get_position().width)  # 18 pixels to the right
    style = {"xycoords": "axes fraction", "textcoords": "axes fraction", "va": "center", "fontsize": 11, "color": INK}
    for op, share, middle, at in zip(shares, last, middles, apart(middles, 0.062)):
        line = {"arrowstyle": "-", "color": colours[op], "relpos": (0, 0.5), "shrinkA": 0, "shrinkB": 0}
        axes.annotate(f"{label(op)} {share:.0%}", (1, middle), (beside, at), arrowprops=line, **style)


def shares_chart(axes: Axes, groups: Sequence[Sequence[tuple[str, float, float, float]]], label: str) -> None:
    """Groups of choices: (name, share at the start, share at the end, share of uniform decisions) each."""
    choices = [(gap, *choice) for gap, group in enumerate(groups) for choice in group]
    gaps, names, first, last, uniform = zip(*choices)
    x, width = np.arange(len(choices)) + gaps, 0.38
    axes.bar(x - width / 2, first, width, color=MUTED, lw=0)
    axes.bar(x + width / 2, last, width, color=SEARCH, lw=0)
    axes.hlines(uniform, x - 0.45, x + 0.45, color=INK, lw=1.4)
    every = -(-len(choices) // 12)  # of numbers; more than that have no room
    shown = [place for place, name in enumerate(names) if not name.isdigit() or int(name) % every == 0]
    short = [COMBINES.get(names[place], names[place]).replace(" + ", "\n+ ") for place in shown]
    axes.set_xticks(x[shown], short, fontsize=10)
    axes.set(xlim=(x[0] - 0.7, x[-1] + 0.7), ylabel="share")
    axes.set_xlabel(label, labelpad=1)  # names of two lines leave little room
    axes.grid(visible=False, axis="x")


def label(op: str) -> str:
    """An op's name in drawings of cells, on one line."""
    return op_label(op)[0].replace("\n", " ")


def apart(wishes: Sequence[float], gap: float) -> list[float]:
    """Places in 0 to 1, at least `gap` apart, nearest to the ascending wishes (least squares)."""
    gap = min(gap, 1 / len(wishes))
    shifts = gap * np.arange(len(wishes))
    rest = isotonic_regression(np.subtract(wishes, shifts)).x
    return (rest.clip(gap / 2, 1 - gap / 2 - shifts[-1]) + shifts).tolist()
