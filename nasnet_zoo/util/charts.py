"""How charts look, and how one is written. Imports matplotlib, so whoever may never draw imports this late."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import matplotlib.style
from matplotlib.figure import Figure

from .files import atomic_file

INK, MUTED, GRID = "#1b2733", "#5a6a77", "#dfe5ea"
BLUE, AMBER, PLUM = "#0a69ad", "#b45309", "#84316a"  # which stay apart for colour-blind readers
STYLE = {
    "font.family": "sans-serif",
    "font.size": 10,
    "svg.fonttype": "none",
    "svg.hashsalt": "nasnet_zoo",
    "text.parse_math": False,  # a class may have a dollar in its name
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
}


@contextmanager
def chart(path: str | os.PathLike[str], size: tuple[float, float]) -> Iterator[Figure]:
    """A figure of about so many inches, to be drawn in the block; then it is written, in the format of the suffix.

    Raises ZooError if the file cannot be written.
    """
    # The user's own matplotlib settings must not change the picture.
    with matplotlib.style.context(["default", STYLE]), atomic_file(path) as temporary:
        figure = Figure(figsize=size, facecolor="white", layout="constrained")
        yield figure
        suffix = os.path.splitext(path)[1]
        figure.savefig(temporary, format=suffix[1:].lower(), dpi=160, bbox_inches="tight", pad_inches=0.15)
