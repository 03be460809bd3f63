"""Pictures of cells in the style of the NASNet paper's figures: inputs below, output above. Imports no torch.

A cell is laid out in rows (Sugiyama's layered drawing). Row 0 holds the inputs, and each block is above everything
that it reads. A state that is read further up has a slot of its own in each row between. So a line is either
vertical beside the boxes of a row or in the channel between two rows, and never crosses a box.
"""

import os
import re
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, PathPatch
from matplotlib.path import Path as Curve
from scipy.optimize import isotonic_regression

from ...errors import ZooError
from ...util.files import atomic_file
from ..genotype import Cell, Genotype

Node = tuple[int, int]  # (state, row): where a state is made, passes through a row, or leaves the cell
Size = tuple[float, float]  # width, height

# Lengths are pixels of the picture at its natural size: the published cells are 470 to 1030 wide.
BOX, BOX_HEIGHT, PILL_HEIGHT, STEP = 46, 36, 18, 14  # STEP: from the op boxes up to the pill that combines them
PAIR = 2 * BOX + 4
ROW_HEIGHT = BOX_HEIGHT + STEP + PILL_HEIGHT
INPUT, NUMBERED, CONCAT, SLOT = 106, 66, 24, 2  # widths of ends; of what a line takes of the concat bar, and in a row
GAP, CELL_GAP, MARGIN = 12, 36, 18
END_HEIGHT = 24  # of inputs and outputs
BLOCKS_PER_ROW = 5
SWEEPS = 40

# Tints of Okabe and Ito's palette for colour-blind readers; they differ in lightness too.
INK, LINE, LEAVING = "#22303C", "#51626F", "#9FADB8"  # LEAVING: a line that only the output reads
SEPARABLE, POOLING, IDENTITY, OTHER = "#93CDF2", "#F8D06B", "#F3F3F0", "#DE9CC4"
LEGEND = {"separable convolution": SEPARABLE, "pooling": POOLING, "identity": IDENTITY, "other convolution": OTHER}
PALE = 0.35  # the opacity of blocks that no output depends on
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


class _Layout:
    """The positions in a cell: `x` of each node's middle, and the height of the `channels` between rows."""

    def __init__(self, cell: Cell) -> None:
        self.cell = cell
        self.row_of = [0] * cell.inputs  # per state
        for block in cell.blocks:
            row = 1 + max(self.row_of[edge.state] for edge in (block.left, block.right))
            while self.row_of.count(row) >= BLOCKS_PER_ROW:
                row += 1
            self.row_of.append(row)
        self.top = 1 + max(self.row_of)

        # The nodes row by row, and the links from each node to those it leads to in the next row.
        self.last_read = list(self.row_of)  # per state, the highest row that a block reads it from
        for block, row in zip(cell.blocks, self.row_of[cell.inputs :], strict=True):
            for edge in (block.left, block.right):
                self.last_read[edge.state] = max(self.last_read[edge.state], row - 1)
        last = [self.top if state in cell.outputs else row for state, row in enumerate(self.last_read)]
        self.rows: list[list[Node]] = [
            [(state, row) for state in range(cell.num_states) if self.row_of[state] <= row <= last[state]]
            for row in range(self.top + 1)
        ]
        if cell.inputs == 2:
            self.rows[0].reverse()  # the previous state left of the current one: time runs to the right
        self.links: list[tuple[Node, Node]] = []
        for state, row in (node for nodes in self.rows[1:] for node in nodes):
            reads = [state]  # by itself, one row below
            if row == self.row_of[state]:
                reads = [edge.state for edge in cell.blocks[state - cell.inputs][:2]]
            self.links += [((read, row - 1), (state, row)) for read in reads]

        self._arrange()
        self.left = min(self.x[node] - self.width(node) / 2 for node in self.x)
        self.right = max(self.x[node] + self.width(node) / 2 for node in self.x)
        # The further the lines of a channel run sideways, the higher it is.
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

    def _arrange(self) -> None:
        """Sets `x` and the order in the rows: sweeps towards the neighbours' mean, of which the best is kept."""
        below: dict[Node, list[Node]] = {node: [] for nodes in self.rows for node in nodes}
        above: dict[Node, list[Node]] = {node: [] for node in below}
        for low, high in self.links:
            weight = 4 if low[0] == high[0] else 1  # states that only pass through should go straight
            below[high] += [low] * weight
            above[low] += [high] * weight
        self.x: dict[Node, float] = {}
        for nodes in self.rows:
            self._place(nodes, dict.fromkeys(nodes, 0.0))
        best, best_cost = (self.x, self.rows), float("inf")
        for sweep in range(SWEEPS):
            upwards, settling = sweep % 2 == 0, sweep >= SWEEPS // 2
            for row in range(self.top + 1) if upwards else range(self.top, -1, -1):
                wish = {}
                for node in self.rows[row]:
                    near = below[node] if upwards else above[node]
                    near = below[node] + above[node] if settling or not near else near
                    wish[node] = sum(self.x[other] for other in near) / len(near) if near else self.x[node]
                if row > 0 and not settling:  # the inputs keep their order
                    self.rows[row] = sorted(self.rows[row], key=wish.__getitem__)
                self._place(self.rows[row], wish)
            if (cost := self._cost()) < best_cost:
                best, best_cost = (dict(self.x), [list(nodes) for nodes in self.rows]), cost
        self.x, self.rows = best

    def _place(self, nodes: list[Node], wish: dict[Node, float]) -> None:
        """Sets `x` as near to the wishes as possible (least squares) without overlap. After the minimum distances are
        subtracted, this is a regression in which the values must not decrease."""
        shifts = [0.0]
        for left, right in pairwise(nodes):
            shifts.append(shifts[-1] + (self.width(left) + self.width(right)) / 2 + GAP)
        rest = isotonic_regression([wish[node] - shift for node, shift in zip(nodes, shifts)]).x
        self.x.update(zip(nodes, (rest + shifts).tolist()))

    def _cost(self) -> float:
        """Crossings first, then how far the lines run sideways."""
        length = sum(abs(self.x[low] - self.x[high]) for low, high in self.links)
        crossings = 0
        for i, (a, b) in enumerate(self.links):
            for c, d in self.links[:i]:
                crossings += a[1] == c[1] and (self.x[a] - self.x[c]) * (self.x[b] - self.x[d]) < 0
        return 60 * crossings + length


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
    """The colour mixed with white. Transparency would let the lines behind show through."""
    return tuple(1 - alpha * (1 - part) for part in to_rgb(colour))


def _line(axes: Axes, x0: float, y0: float, x1: float, y1: float, colour: str, alpha: float = 1.0) -> None:
    """A line that starts and ends vertically, S-shaped if necessary."""
    middle = (y0 + y1) / 2
    curve = Curve([(x0, y0), (x0, middle), (x1, middle), (x1, y1)], [Curve.MOVETO] + [Curve.CURVE4] * 3)
    style = {"facecolor": "none", "edgecolor": _fade(colour, alpha), "linewidth": 1.0, "capstyle": "round"}
    axes.add_patch(PathPatch(curve, zorder=alpha, **style))  # the pale ones below the others


def _box(
    axes: Axes, x: float, y: float, size: Size, fill: str, label: str = "", radius: float = 4, alpha: float = 1.0
) -> None:
    """A rounded box around (x, y) with a label in it."""
    shape, corner = f"round,pad=0,rounding_size={radius}", (x - size[0] / 2, y - size[1] / 2)
    face, edge = _fade(fill, alpha), _fade(INK, alpha)
    axes.add_patch(FancyBboxPatch(corner, *size, shape, linewidth=0.8, zorder=2, facecolor=face, edgecolor=edge))
    _text(axes, x, y, label, color="white" if fill == INK else _fade(INK, alpha))


def _text(axes: Axes, x: float, y: float, text: str, size: float = 10, **style: Any) -> None:
    """Text of a size in pixels, around (x, y)."""
    style = {"ha": "center", "va": "center" if "\n" in text else "center_baseline", "color": INK, "zorder": 3} | style
    axes.text(x, y, text, fontsize=size * 0.72, parse_math=False, **style)  # 100 pixels are 72 points
