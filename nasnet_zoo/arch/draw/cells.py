"""Pictures of cells in the manner of the NASNet paper's figures: inputs below, output above. Imports no torch.

A cell is laid out in rows (layout.py) of its states: the inputs in row 0, each block above everything it reads. A line
is either upright beside the boxes of a row or in the channel between two rows.
"""

import os
import re
from pathlib import Path
from typing import Any, Literal

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, PathPatch
from matplotlib.path import Path as Curve

from ...errors import ZooError
from ...util.files import atomic_file
from ..genotype import Cell, Genotype
from .layout import Layered, Node

Size = tuple[float, float]  # width, height

# Lengths are pixels of the picture at its natural size: the published cells are 470 to 1030 wide.
BOX, BOX_HEIGHT, PILL_HEIGHT, STEP = 46, 36, 18, 14  # STEP: from the op boxes up to the pill that combines them
PAIR = 2 * BOX + 4
ROW_HEIGHT = BOX_HEIGHT + STEP + PILL_HEIGHT
INPUT, NUMBERED, CONCAT, SLOT = 106, 66, 24, 2  # widths of ends; of what a line takes of the concat bar, and in a row
CELL_GAP, MARGIN = 36, 18
END_HEIGHT = 24  # of inputs and outputs
BLOCKS_PER_ROW = 5

# Tints of Okabe and Ito's palette for colour-blind readers; they differ in lightness too.
INK, LINE, LEAVING = "#22303C", "#51626F", "#9FADB8"  # LEAVING: a line that only the output reads
SEPARABLE, POOLING, IDENTITY, OTHER = "#93CDF2", "#F8D06B", "#F3F3F0", "#DE9CC4"
LEGEND = {"separable convolution": SEPARABLE, "pooling": POOLING, "identity": IDENTITY, "other convolution": OTHER}
PALE = 0.35  # the strength of what no output depends on
WORDS = {"sep conv": "sep", "dil conv": "dil", "dil sep conv": "dil sep", "conv dilated": "dil conv"}
WORDS |= {"avg pool": "avg", "max pool": "max", "bottleneck": "bneck"}
COMBINES = {"add_layer_norm": "add + LN", "add_instance_norm": "add + IN"}
STYLE = {"font.family": "sans-serif", "svg.fonttype": "none", "svg.hashsalt": "nasnet_zoo"}


def draw_genotype(
    genotype: Genotype,
    path: str | os.PathLike[str],
    *,
    title: str | None = None,
    only: Literal["normal", "reduction"] | None = None,
) -> None:
    """Draws the normal and the reduction cell side by side, or one cell if they are equal or `only` it is wanted, as
    .svg or .png.

    The same genotype and title give the same bytes with the same matplotlib. Blocks that no output depends on are
    pale. Raises ZooError if the suffix is another one or the file cannot be written.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in (".svg", ".png"):
        raise ZooError(f"Cannot draw to {os.fspath(path)}: the picture's name must end in .svg or .png.")
    cells = {"Normal cell": genotype.normal, "Reduction cell": genotype.reduction}
    if genotype.normal == genotype.reduction:
        cells = {"Normal and reduction cell (equal)": genotype.normal}
    if only is not None:
        cells = {f"{only.capitalize()} cell": getattr(genotype, only)}
    # The user's own matplotlib settings must not change the picture.
    with matplotlib.style.context(["default", STYLE]), atomic_file(path) as temporary:
        figure = _figure([(caption, _Layout(cell)) for caption, cell in cells.items()], title)
        metadata: dict[str, Any] = {"Date": None} if suffix == ".svg" else {}
        figure.savefig(temporary, format=suffix[1:], dpi=200, metadata=metadata)


class _Layout(Layered):
    """Where everything in a cell stands, and how high the `channels` between rows are."""

    def __init__(self, cell: Cell) -> None:
        self.cell = cell
        inputs = list(range(cell.inputs))
        if cell.inputs == 2:
            inputs.reverse()  # the previous state left of the current one: time runs to the right
        reads: list[list[int]] = [[] for _ in inputs]
        reads += [[block.left.state, block.right.state] for block in cell.blocks]
        super().__init__(reads, cell.outputs, inputs, BLOCKS_PER_ROW)
        # A channel is the higher the further its lines run sideways.
        spread = [0.0] * self.top
        for low, high in self.links:
            spread[low[1]] = max(spread[low[1]], abs(self.x[low] - self.x[high]))
        self.channels = [30 + min(0.2 * dx, 70) for dx in spread]

    def width(self, node: Node) -> float:
        state, row = node
        if row in (0, self.top) and self.cell.output == "separate":
            return NUMBERED
        if row == 0:
            return INPUT
        if row == self.top:
            return CONCAT
        return PAIR if row == self.row_of[state] else SLOT

    def height(self, row: int) -> float:
        return END_HEIGHT if row in (0, self.top) else ROW_HEIGHT


def _figure(cells: list[tuple[str, _Layout]], title: str | None) -> Figure:
    natural = [sum(cell.channels) + sum(map(cell.height, range(cell.top + 1))) for _, cell in cells]
    legend = _legend([cell.cell for _, cell in cells])
    legend_width = sum(width for _, _, _, width in legend)
    inner = sum(cell.right - cell.left for _, cell in cells) + CELL_GAP * (len(cells) - 1)
    width = max(inner, legend_width) + 2 * MARGIN
    bottom = MARGIN + 56
    height = bottom + max(natural) + (48 if cells[0][1].cell.output == "concat" else MARGIN) + (36 if title else 0)
    figure = Figure(figsize=(width / 100, height / 100), facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(0, height))
    axes.set_axis_off()
    if title:
        _text(axes, width / 2, height - 24, title, size=min(18, 1.5 * width / len(title)), weight="bold")
    x = (width - inner) / 2
    for (caption, cell), own in zip(cells, natural, strict=True):
        # All get the height of the tallest, so that inputs and outputs line up.
        cell.channels = [channel + (max(natural) - own) / len(cell.channels) for channel in cell.channels]
        _draw_cell(axes, cell, x - cell.left, bottom)
        _text(axes, x + (cell.right - cell.left) / 2, bottom - 22, caption, size=13, weight="bold")
        x += cell.right - cell.left + CELL_GAP
    x = (width - legend_width) / 2 + 10
    for name, colour, alpha, entry_width in legend:
        _box(axes, x + 8, MARGIN, (16, 12), colour, alpha=alpha)
        _text(axes, x + 22, MARGIN, name, ha="left")
        x += entry_width
    return figure


def _legend(cells: list[Cell]) -> list[tuple[str, str, float, float]]:
    """What the cells' colours mean, only those they use: name, colour, strength, width."""
    used = {op_label(edge.op)[1] for cell in cells for block in cell.blocks for edge in (block.left, block.right)}
    entries = [(name, colour, 1.0) for name, colour in LEGEND.items() if colour in used]
    if any(len(cell.live_blocks()) < len(cell.blocks) for cell in cells):
        entries.append(("not used by any output", INK, PALE))
    return [(*entry, 46 + 5.6 * len(entry[0])) for entry in entries]


def _draw_cell(axes: Axes, layout: _Layout, dx: float, dy: float) -> None:
    cell, x = layout.cell, {node: position + dx for node, position in layout.x.items()}
    base = [dy]
    for row, channel in enumerate(layout.channels):
        base.append(base[-1] + layout.height(row) + channel)
    live = {cell.inputs + index for index in cell.live_blocks()}
    strength = [1.0 if state < cell.inputs or state in live else PALE for state in range(cell.num_states)]

    # Op boxes, and the lines from each node up to the boxes, slots and outputs in the next row: (x, colour, alpha).
    lines: dict[Node, list[tuple[float, str, float]]] = {node: [] for node in x}
    for state, row in x:
        if row > layout.row_of[state]:
            colour = LINE if row <= layout.last_read[state] else LEAVING
            lines[state, row - 1].append((x[state, row], colour, strength[state]))
            if row < layout.top:
                _line(axes, x[state, row], base[row], x[state, row], base[row] + ROW_HEIGHT, colour, strength[state])
        elif row > 0:
            block, alpha = cell.blocks[state - cell.inputs], strength[state]
            edges = sorted((block.left, block.right), key=lambda edge: x[edge.state, row - 1])  # fewer crossings
            for edge, at in zip(edges, (x[state, row] - (BOX + 4) / 2, x[state, row] + (BOX + 4) / 2), strict=True):
                lines[edge.state, row - 1].append((at, LINE, alpha))
                label, colour = op_label(edge.op)
                _box(axes, at, base[row] + BOX_HEIGHT / 2, (BOX, BOX_HEIGHT), colour, label, alpha=alpha)
                _line(axes, at, base[row] + BOX_HEIGHT, x[state, row], base[row] + BOX_HEIGHT + STEP + 4, LINE, alpha)
            label = COMBINES.get(block.combine, block.combine)
            size, radius = (16 + 6.2 * len(label), PILL_HEIGHT), PILL_HEIGHT / 2
            _box(axes, x[state, row], base[row] + ROW_HEIGHT - radius, size, INK, label, radius, alpha)
    for (state, row), targets in lines.items():
        room = layout.width((state, row)) - 24 if row == 0 else 0  # lines leave an input side by side
        step = min(8, room / max(len(targets) - 1, 1))
        for index, (at, colour, alpha) in enumerate(sorted(targets)):
            foot = x[state, row] + (index - (len(targets) - 1) / 2) * step
            _line(axes, foot, base[row] + layout.height(row), at, base[row + 1], colour, alpha)

    concat, radius = cell.output == "concat", END_HEIGHT / 2
    for state in range(cell.inputs):
        label = ("h[i] current", "h[i-1] previous")[state] if concat else f"input {state}"
        _box(axes, x[state, 0], dy + radius, (layout.width((state, 0)), END_HEIGHT), "white", label, radius)
    middle = base[layout.top] + radius
    if concat:
        centre, width = dx + (layout.left + layout.right) / 2, layout.right - layout.left
        _box(axes, centre, middle, (width, END_HEIGHT), INK, "concat")
        _line(axes, centre, middle + radius, centre, middle + radius + 14, LINE)
        _text(axes, centre, middle + radius + 24, "h[i+1] next")
        return
    for index, state in enumerate(cell.outputs):
        _box(axes, x[state, layout.top], middle, (NUMBERED, END_HEIGHT), "white", f"output {index}", radius)


def op_label(op: str) -> tuple[str, str]:
    """An op's name in at most two short lines, and the colour of its family."""
    sizes = re.findall(r"\d+x\d+", op)
    words = " ".join(word for word in op.split("_") if word not in sizes)
    colour = IDENTITY
    if "sep" in words or words == "dil conv":  # DARTS' dil_conv is separable too
        colour = SEPARABLE
    elif "pool" in words:
        colour = POOLING
    elif "conv" in words or "bottleneck" in words:
        colour = OTHER
    return f"{WORDS.get(words, words)}\n{' '.join(sizes)}".strip(), colour


def _fade(colour: str, alpha: float) -> tuple[float, ...]:
    """Mixed with white, for what is see-through shows the lines behind it."""
    return tuple(1 - alpha * (1 - part) for part in to_rgb(colour))


def _line(axes: Axes, x0: float, y0: float, x1: float, y1: float, colour: str, alpha: float = 1.0) -> None:
    """A line, S-shaped where it has to be, that leaves and arrives upright."""
    middle = (y0 + y1) / 2
    curve = Curve([(x0, y0), (x0, middle), (x1, middle), (x1, y1)], [Curve.MOVETO] + [Curve.CURVE4] * 3)
    style = {"facecolor": "none", "edgecolor": _fade(colour, alpha), "linewidth": 1.0, "capstyle": "round"}
    # The pale ones below the others. add_patch would take twice as long, to find limits that the axes have already.
    axes.add_artist(PathPatch(curve, zorder=alpha, **style))


def _box(
    axes: Axes, x: float, y: float, size: Size, fill: str, label: str = "", radius: float = 4, alpha: float = 1.0
) -> None:
    """A rounded box around (x, y) with a label in it."""
    shape, corner = f"round,pad=0,rounding_size={radius}", (x - size[0] / 2, y - size[1] / 2)
    face, edge = _fade(fill, alpha), _fade(INK, alpha)
    axes.add_artist(FancyBboxPatch(corner, *size, shape, linewidth=0.8, zorder=2, facecolor=face, edgecolor=edge))
    _text(axes, x, y, label, color="white" if fill == INK else _fade(INK, alpha))


def _text(axes: Axes, x: float, y: float, text: str, size: float = 10, **style: Any) -> None:
    """Text of a size in pixels, around (x, y)."""
    style = {"ha": "center", "va": "center" if "\n" in text else "center_baseline", "color": INK, "zorder": 3} | style
    axes.text(x, y, text, fontsize=size * 0.72, parse_math=False, **style)  # 100 pixels are 72 points
