"""Pictures of cells in the manner of the NASNet paper's figures: inputs below, output above. Imports no torch.

A cell is laid out in rows (Sugiyama's layered drawing). Row 0 holds the inputs, each block stands above everything
it reads, and a state that is read further up passes the rows between in slots of its own. So a line is either
upright beside the boxes of a row or in the channel between two rows, and never crosses a box.
"""

import os
import re
from pathlib import Path
from typing import Any

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, PathPatch
from matplotlib.path import Path as Curve

from .errors import ZooError
from .files import atomic_file
from .genotype import Cell, Genotype

Node = tuple[int, int]  # (state, row): where a state is made, passes by, or leaves the cell

# Lengths are pixels of the picture at its natural size: the published cells are about 900 wide and less.
BOX, BOX_HEIGHT, PILL_HEIGHT, STEP = 45, 36, 18, 14  # STEP: from the op boxes up to the pill that combines them
PAIR = 2 * BOX + 4
ROW_HEIGHT = BOX_HEIGHT + STEP + PILL_HEIGHT
INPUT, OUTPUT, SLOT, GAP = 106, 66, 2, 13  # widths of an input, a separate output and a passing line; between nodes
END_HEIGHT, MARGIN, CELL_GAP = 24, 18, 40  # END_HEIGHT: of inputs and outputs
BLOCKS_PER_ROW = 5
SWEEPS = 40

# Tints of Okabe and Ito's palette for colour-blind readers; they differ in lightness too.
INK, LINE, PASSING = "#22303C", "#51626F", "#A3B0BA"
SEPARABLE, POOLING, IDENTITY, OTHER = "#93CDF2", "#F8D06B", "#F3F3F0", "#DE9CC4"
LEGEND = {"separable convolution": SEPARABLE, "pooling": POOLING, "identity": IDENTITY, "other convolution": OTHER}
WORDS = {"sep conv": "sep", "dil conv": "dil", "dil sep conv": "dil sep", "conv dilated": "dil conv"}
WORDS |= {"avg pool": "avg", "max pool": "max", "bottleneck": "bneck"}
COMBINES = {"add_layer_norm": "add + LN", "add_instance_norm": "add + IN"}
STYLE = {"font.family": "sans-serif", "svg.fonttype": "none", "svg.hashsalt": "nasnet_zoo"}


def draw_genotype(genotype: Genotype, path: str | os.PathLike[str], *, title: str | None = None) -> None:
    """Draws the normal and the reduction cell side by side, or one cell if they are equal, as .svg or .png.

    The same genotype and title give the same bytes with the same matplotlib. Blocks that no output depends on are
    pale. Raises ZooError if the suffix is another one or the file cannot be written.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in (".svg", ".png"):
        raise ZooError(f"Cannot draw to {os.fspath(path)}: the picture's name must end in .svg or .png.")
    cells = {"Normal cell": genotype.normal, "Reduction cell": genotype.reduction}
    if genotype.normal == genotype.reduction:
        cells = {"Normal and reduction cell (equal)": genotype.normal}
    # The user's own matplotlib settings must not change the picture.
    with matplotlib.style.context(["default", STYLE]), atomic_file(path) as temporary:
        figure = _figure([(caption, _Layout(cell)) for caption, cell in cells.items()], title)
        metadata: dict[str, Any] = {"Date": None} if suffix == ".svg" else {}
        figure.savefig(temporary, format=suffix[1:], dpi=200, metadata=metadata)


class _Layout:
    """Where everything in a cell stands: `x` of each node's middle, and the height that each row starts at."""

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
        last = list(self.row_of)  # the highest row that each state is seen in
        for block, row in zip(cell.blocks, self.row_of[cell.inputs :], strict=True):
            for edge in (block.left, block.right):
                last[edge.state] = max(last[edge.state], row - 1)
        for state in cell.outputs:
            last[state] = self.top
        self.rows: list[list[Node]] = [
            [(state, row) for state in range(cell.num_states) if self.row_of[state] <= row <= last[state]]
            for row in range(self.top + 1)
        ]
        if cell.inputs == 2:
            self.rows[0].reverse()  # the previous state left of the current one: time runs to the right
        self.links: list[tuple[Node, Node]] = []
        for state, row in (node for nodes in self.rows[1:] for node in nodes):
            self.links += [((read, row - 1), (state, row)) for read in self._reads(state, row)]

        self._arrange()
        self.left = min(self.x[node] - self.width(node) / 2 for node in self.x)
        self.right = max(self.x[node] + self.width(node) / 2 for node in self.x)
        # A channel is the higher the further its lines run sideways.
        spread = [0.0] * self.top
        for low, high in self.links:
            spread[low[1]] = max(spread[low[1]], abs(self.x[low] - self.x[high]))
        self.channels = [30 + min(0.2 * dx, 70) for dx in spread]

    def _reads(self, state: int, row: int) -> list[int]:
        if row > self.row_of[state]:
            return [state]
        block = self.cell.blocks[state - self.cell.inputs]
        return [block.left.state, block.right.state]

    def width(self, node: Node) -> float:
        state, row = node
        if row == 0:
            return INPUT
        if row == self.top:
            return OUTPUT if self.cell.output == "separate" else SLOT
        return PAIR if row == self.row_of[state] else SLOT

    def height(self, row: int) -> float:
        return END_HEIGHT if row in (0, self.top) else ROW_HEIGHT

    def _arrange(self) -> None:
        """Sets `x` and the order in the rows: sweeps towards the neighbours' mean, of which the best is kept."""
        below: dict[Node, list[Node]] = {node: [] for nodes in self.rows for node in nodes}
        above: dict[Node, list[Node]] = {node: [] for node in below}
        for low, high in self.links:
            below[high].append(low)
            above[low].append(high)
        self.x = {}
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
        """Sets `x` nearest to the wishes (least squares) without overlap: isotonic regression, by pooling."""
        shift, pools = 0.0, []  # a pool: the mean of its wishes, its nodes and their shifts
        for i, node in enumerate(nodes):
            if i:
                shift += (self.width(nodes[i - 1]) + self.width(node)) / 2 + GAP
            pools.append((wish[node] - shift, [(node, shift)]))
            while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
                (a, first), (b, second) = pools[-2:]
                mean = (a * len(first) + b * len(second)) / (len(first) + len(second))
                pools[-2:] = [(mean, first + second)]
        for mean, members in pools:
            for node, offset in members:
                self.x[node] = mean + offset

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
    tallest = max(natural)
    width = sum(cell.right - cell.left for _, cell in cells) + CELL_GAP * (len(cells) - 1) + 2 * MARGIN
    inner, width = width, max(width, 620.0)  # room for the legend
    bottom, head = MARGIN + 58, 44 if title else 10
    height = bottom + tallest + 34 + head
    figure = Figure(figsize=(width / 100, height / 100), facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(0, height))
    axes.set_axis_off()
    if title:
        _text(axes, width / 2, height - 26, title, size=17, weight="bold")
    x = MARGIN + (width - inner) / 2
    for (caption, cell), own in zip(cells, natural, strict=True):
        # Both cells get the same height, so that inputs and outputs line up.
        cell.channels = [channel + (tallest - own) / len(cell.channels) for channel in cell.channels]
        _draw_cell(axes, cell, x - cell.left, bottom)
        x += cell.right - cell.left
        _text(axes, x - (cell.right - cell.left) / 2, bottom - 22, caption, size=13, weight="bold")
        x += CELL_GAP
    for index, (name, colour) in enumerate(LEGEND.items()):
        x = width / 2 + (index - 2) * 146
        _box(axes, x + 8, MARGIN + 4, 16, 12, colour)
        _text(axes, x + 22, MARGIN + 4, name, size=10.5, ha="left")
    return figure


def _draw_cell(axes: Axes, layout: _Layout, dx: float, dy: float) -> None:
    cell, x = layout.cell, {node: position + dx for node, position in layout.x.items()}
    base = [dy]
    for row, channel in enumerate(layout.channels):
        base.append(base[-1] + layout.height(row) + channel)
    live = {cell.inputs + index for index in cell.live_blocks()} | set(range(cell.inputs))

    # Lines: from a node up to a box of a block, to the next slot of the same state, or to the output.
    lines: dict[Node, list[tuple[float, Node]]] = {node: [] for node in x}
    boxes: list[tuple[float, Node, str]] = []
    for row, nodes in enumerate(layout.rows[1:], 1):
        for state, _ in nodes:
            node = (state, row)
            if row > layout.row_of[state]:
                lines[state, row - 1].append((x[node], node))
                continue
            block = cell.blocks[state - cell.inputs]
            edges = sorted((block.left, block.right), key=lambda edge: x[edge.state, row - 1])  # fewer crossings
            for edge, side in zip(edges, (-1, 1), strict=True):
                at = x[node] + side * (PAIR - BOX) / 2
                boxes.append((at, node, edge.op))
                lines[edge.state, row - 1].append((at, node))
    for (state, row), targets in lines.items():
        start = base[row] + layout.height(row)
        if 0 < row < layout.top and row > layout.row_of[state]:
            _line(axes, x[state, row], base[row], x[state, row], start, PASSING)
        step = min(8.0, (INPUT - 24) / max(len(targets) - 1, 1)) if row == 0 else 0.0
        for index, (at, (user, upper)) in enumerate(sorted(targets)):
            foot = x[state, row] + (index - (len(targets) - 1) / 2) * step
            colour = PASSING if user == state else LINE
            _line(axes, foot, start, at, base[upper], colour, 1.0 if user in live else 0.3)

    for at, (state, row), op in boxes:
        alpha = 1.0 if state in live else 0.3
        _line(axes, at, base[row] + BOX_HEIGHT, x[state, row], base[row] + BOX_HEIGHT + STEP + 4, LINE, alpha)
        label, colour = _op_label(op)
        _box(axes, at, base[row] + BOX_HEIGHT / 2, BOX, BOX_HEIGHT, colour, label, alpha=alpha)
    for state, block in enumerate(cell.blocks, cell.inputs):
        row, label = layout.row_of[state], COMBINES.get(block.combine, block.combine)
        middle, alpha = base[row] + ROW_HEIGHT - PILL_HEIGHT / 2, 1.0 if state in live else 0.3
        _box(axes, x[state, row], middle, 16 + 6.2 * len(label), PILL_HEIGHT, INK, label, "white", PILL_HEIGHT / 2, alpha)

    names = ("h[i] current", "h[i-1] previous") if cell.output == "concat" else ()
    for state in range(cell.inputs):
        name = names[state] if names else f"input {state}"
        _box(axes, x[state, 0], base[0] + END_HEIGHT / 2, INPUT, END_HEIGHT, "white", name, radius=END_HEIGHT / 2)
    middle = base[layout.top] + END_HEIGHT / 2
    if cell.output == "separate":
        for index, state in enumerate(cell.outputs):
            _box(axes, x[state, layout.top], middle, OUTPUT, END_HEIGHT, "white", f"output {index}", radius=12)
        return
    ends = [x[node] for node in layout.rows[layout.top]]
    left, right = min(ends) - 30, max(ends) + 30
    _box(axes, (left + right) / 2, middle, right - left, END_HEIGHT, INK, "concat", "white")
    _line(axes, (left + right) / 2, middle + 12, (left + right) / 2, middle + 30, LINE)


def _op_label(op: str) -> tuple[str, str]:
    """An op's name in two short lines, and the colour of its family."""
    sizes = " ".join(re.findall(r"\d+x\d+", op))
    words = " ".join(word for word in op.split("_") if not re.fullmatch(r"\d+x\d+", word))
    colour = IDENTITY
    if "sep" in words or words == "dil conv":  # DARTS' dil_conv is separable too
        colour = SEPARABLE
    elif "pool" in words:
        colour = POOLING
    elif "conv" in words or "bottleneck" in words:
        colour = OTHER
    return f"{WORDS.get(words, words)}\n{sizes}".strip(), colour


def _line(axes: Axes, x0: float, y0: float, x1: float, y1: float, colour: str, alpha: float = 1.0) -> None:
    """An S-shaped line that leaves and arrives upright."""
    middle = (y0 + y1) / 2
    curve = Curve([(x0, y0), (x0, middle), (x1, middle), (x1, y1)], [Curve.MOVETO] + [Curve.CURVE4] * 3)
    axes.add_patch(PathPatch(curve, facecolor="none", edgecolor=colour, linewidth=1.0, alpha=alpha, zorder=1))


def _box(
    axes: Axes,
    x: float,
    y: float,
    width: float,
    height: float,
    fill: str,
    label: str = "",
    colour: str = INK,
    radius: float = 4,
    alpha: float = 1.0,
) -> None:
    """A rounded box around (x, y) with a label in it."""
    shape = f"round,pad=0,rounding_size={radius}"
    corner = (x - width / 2, y - height / 2)
    box = FancyBboxPatch(corner, width, height, shape, facecolor=fill, edgecolor=INK, linewidth=0.8, alpha=alpha)
    axes.add_patch(box).set_zorder(2)
    _text(axes, x, y, label, color=colour, alpha=alpha)


def _text(axes: Axes, x: float, y: float, text: str, size: float = 10, **style: Any) -> None:
    """Text of a size in pixels, around (x, y)."""
    options = {"ha": "center", "va": "center_baseline" if "\n" not in text else "center", "color": INK, "zorder": 3}
    axes.text(x, y, text, fontsize=size * 0.72, parse_math=False, **(options | style))
