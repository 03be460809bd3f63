"""The picture of a confusion matrix: which classes a network takes for which."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.ticker import MaxNLocator, PercentFormatter

from ..errors import ConfigError
from ..util.charts import AMBER, BLUE, GRID, INK, MUTED, chart
from .mistakes import most_frequent

# What matplotlib writes, without what needs TeX or is no format that others read.
FORMATS = sorted({f".{name}" for name in FigureCanvasBase.filetypes} - {".pgf", ".raw", ".rgba"})
NUMBERED, NAMED = 20, 60  # up to so many classes have numbers in their cells, and cells with names beside them
PAIRS = 20  # of mistakes that are listed beside the matrix of more classes
LONGEST = 28  # characters of a name
PALEST = 0.05  # the least share of mistakes that gets the full colour: a network that hardly errs should look so


def check_drawable(path: str | os.PathLike[str]) -> None:
    """Raises ConfigError if no confusion matrix can be drawn to `path`, before the work that gives one."""
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise ConfigError(f"cannot draw to {path}: give a name that ends in {', '.join(FORMATS[:-1])} or {FORMATS[-1]}")
    folder = path.absolute().parent
    if not folder.is_dir():
        raise ConfigError(f"cannot draw to {path}: there is no folder {folder}; make it, or name another one")
    if path.is_dir():
        raise ConfigError(f"cannot draw to {path}: it is a folder; give another name")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError(f"cannot draw to {path}: {folder} may not be written to; name another folder")


def draw_confusion(confusion: np.ndarray, names: Sequence[str], path: str | os.PathLike[str]) -> None:
    """Draws the matrix with each row as shares of its class's pictures, without the classes that occur nowhere.

    Few classes are cells, the hits blue on a scale to 100 per cent, the mistakes amber on one of their own, or they
    would hardly be seen. Of many classes each mistake is a dot, and the most frequent ones are listed. Raises ZooError
    if the file cannot be written.
    """
    names = [name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…" for name in names]
    kept = np.flatnonzero(confusion.sum(0) + confusion.sum(1))
    few = len(kept) <= NAMED
    if len(kept) <= NUMBERED:
        side, beside = 2.5 + 0.5 * len(kept), 0.0  # inches: of the matrix with its names, and of what is beside it
    elif few:
        side, beside = 4 + 0.16 * len(kept), 1.4
    else:
        side, beside = 10.0, 3.6
    with chart(path, (side + beside, side)) as figure:
        if few:
            axes = figure.subplots()
            _cells(axes, _shares(confusion[np.ix_(kept, kept)]), [names[index] for index in kept])
        else:
            axes, text = figure.subplots(1, 2, width_ratios=(side, beside))
            _dots(axes, _shares(confusion))
            _list(text, confusion, names)
        axes.spines[:].set(visible=True, color=GRID)
        axes.tick_params(length=0)
        axes.set(xlabel="taken for" if few else "taken for (a dot's area is the share of the class)", ylabel="class")
        pictures, accuracy = confusion.sum(), np.trace(confusion) / confusion.sum()
        title = f"{pictures:,} pictures of {np.count_nonzero(confusion.sum(1)):,} classes: top-1 {accuracy:.2%}"
        figure.suptitle(title, x=0.01, ha="left", size=11, weight="bold")


def _shares(confusion: np.ndarray) -> np.ndarray:
    """Of each class's pictures; a class without any has zeros."""
    return confusion / np.maximum(confusion.sum(1, keepdims=True), 1)


def _cells(axes: Axes, shares: np.ndarray, names: Sequence[str]) -> None:
    numbered = len(names) <= NUMBERED
    size, turn = (10, dict(rotation=45, ha="right", rotation_mode="anchor")) if numbered else (8, dict(rotation=90))
    axes.set_xticks(range(len(names)), names, size=size, **turn)
    axes.set_yticks(range(len(names)), names, size=size)
    right = np.eye(len(names), dtype=bool)
    most = max(shares[~right].max(initial=0), PALEST)
    for where, colour, full, word in ((right, BLUE, 1, "right"), (~right, AMBER, most, "taken for another class")):
        colours = LinearSegmentedColormap.from_list(word, ["white", colour])
        cells = axes.imshow(np.ma.masked_where(~where, shares), colours, vmin=0, vmax=full, interpolation="nearest")
        if not numbered:
            bar = axes.figure.colorbar(cells, ax=axes, shrink=0.3, aspect=25, pad=0.01, format=PercentFormatter(1, 0))
            bar.locator = MaxNLocator(5, steps=[1, 2, 5, 10])
            bar.outline.set_visible(False)
            bar.set_label(word)
    for (row, column), share in np.ndenumerate(shares if numbered else shares[:0]):
        if share:
            dark = share > 0.6 * (1 if row == column else most)
            text = "100%" if share == 1 else f"{share:.1%}"
            axes.text(column, row, text, ha="center", va="center", size=8, color="white" if dark else INK)


def _dots(axes: Axes, shares: np.ndarray) -> None:
    """Every mistake as a dot whose area is its share: a cell of very many would be too small to be seen."""
    last = len(shares) - 1
    wrong = shares * ~np.eye(len(shares), dtype=bool)
    rows, columns = np.nonzero(wrong)
    axes.plot([0, last], [0, last], color=BLUE, lw=0.8, alpha=0.5)
    area = max(160, 40_000 / len(shares))
    axes.scatter(columns, rows, area * wrong[rows, columns], color=AMBER, alpha=0.6, lw=0, rasterized=True)
    room = 0.5 + 0.01 * last
    axes.set(xlim=(-room, last + room), ylim=(last + room, -room), aspect="equal")


def _list(axes: Axes, confusion: np.ndarray, names: Sequence[str]) -> None:
    """The most frequent mistakes, as text."""
    axes.set_axis_off()
    lines = [("the most frequent mistakes", "pictures, and their share of the class")]
    for index, mistake in most_frequent(confusion, PAIRS):
        lines.append(
            (f"{names[index]} → {names[mistake.index]}", f"{mistake.pictures:,} pictures, {mistake.share:.1%}")
        )
    for place, (text, numbers) in enumerate(lines):
        y = 1 - place / (PAIRS + 1)
        weight = "normal" if place else "bold"
        axes.text(0, y, text, va="top", size=9, weight=weight, transform=axes.transAxes)
        axes.text(0, y - 0.018, numbers, va="top", size=8, color=MUTED, transform=axes.transAxes)
