"""The layered layout of any graph in which things read earlier things (Sugiyama, Tagawa and Toda 1981): who stands in
which row, and where. It knows lengths and no looks."""

from collections.abc import Sequence
from itertools import groupby, pairwise

import numpy as np
from scipy.optimize import isotonic_regression

Node = tuple[int, int]  # (thing, row): where a thing stands, passes by, or leaves at the top

GAP = 12  # between two nodes of a row, in the unit of their widths
SWEEPS = 40
STRAIGHT = 4  # how much more a thing that only passes by pulls at its nodes than one that is read
CROSSING = 60  # the length that a crossing of two lines counts as


class Layered:
    """Where everything stands: `rows` of nodes from left to right, `links` from each node to those it leads to in the
    next row, and `x` of each node's middle.

    Row 0 holds what reads nothing. Everything else stands above all that it reads, at most `per_row` in a row, and what
    is read further up, or is among the `leaving`, passes the rows between in slots of its own. So a line is either
    upright beside the things of a row or between two rows, and never crosses a thing. A subclass says how wide nodes
    are.

    Args:
        reads: what each thing reads; earlier things only.
        leaving: the things that lead to the top row, one node each.
        sources: those that read nothing, from left to right.
        per_row: how many things stand in a row at most, those of row 0 aside.
    """

    def __init__(
        self, reads: Sequence[Sequence[int]], leaving: Sequence[int], sources: Sequence[int], per_row: int
    ) -> None:
        self.row_of: list[int] = []  # per thing
        for read in reads:
            row = 1 + max(self.row_of[thing] for thing in read) if read else 0
            while row and self.row_of.count(row) >= per_row:
                row += 1
            self.row_of.append(row)
        self.top = 1 + max(self.row_of)
        self.last_read = list(self.row_of)  # per thing, the highest row that another reads it from
        for read, row in zip(reads, self.row_of):
            for thing in read:
                self.last_read[thing] = max(self.last_read[thing], row - 1)
        last = [self.top if thing in leaving else row for thing, row in enumerate(self.last_read)]
        self.rows: list[list[Node]] = [
            [(thing, row) for thing in range(len(reads)) if self.row_of[thing] <= row <= last[thing]]
            for row in range(self.top + 1)
        ]
        self.rows[0] = [(thing, 0) for thing in sources]
        self.links: list[tuple[Node, Node]] = []
        for thing, row in (node for nodes in self.rows[1:] for node in nodes):
            below = reads[thing] if row == self.row_of[thing] else (thing,)  # by itself, one row below
            self.links += [((read, row - 1), (thing, row)) for read in below]
        self._arrange()
        self.left = min(self.x[node] - self.width(node) / 2 for node in self.x)
        self.right = max(self.x[node] + self.width(node) / 2 for node in self.x)

    def width(self, node: Node) -> float:
        """How wide a node is."""
        raise NotImplementedError

    def _arrange(self) -> None:
        """Sets `x` and the order in the rows: sweeps towards the neighbours' mean, of which the best is kept."""
        below: dict[Node, list[Node]] = {node: [] for nodes in self.rows for node in nodes}
        above: dict[Node, list[Node]] = {node: [] for node in below}
        for low, high in self.links:
            weight = STRAIGHT if low[0] == high[0] else 1
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
                if row > 0 and not settling:  # the sources keep their order
                    self.rows[row] = sorted(self.rows[row], key=wish.__getitem__)
                self._place(self.rows[row], wish)
            if (cost := self._cost()) < best_cost:
                best, best_cost = (dict(self.x), [list(nodes) for nodes in self.rows]), cost
        self.x, self.rows = best

    def _place(self, nodes: list[Node], wish: dict[Node, float]) -> None:
        """Sets `x` nearest to the wishes (least squares) without overlap: what is left of the wishes after the least
        distances are taken off must not descend."""
        shifts = [0.0]
        for left, right in pairwise(nodes):
            shifts.append(shifts[-1] + (self.width(left) + self.width(right)) / 2 + GAP)
        rest = isotonic_regression([wish[node] - shift for node, shift in zip(nodes, shifts)]).x
        self.x.update(zip(nodes, (rest + shifts).tolist()))

    def _cost(self) -> float:
        """Crossings first, then how far the lines run sideways."""
        length = sum(abs(self.x[low] - self.x[high]) for low, high in self.links)
        crossings = 0
        for _, links in groupby(self.links, lambda link: link[0][1]):  # only lines between the same two rows can cross
            low, high = np.array([[self.x[low], self.x[high]] for low, high in links]).T
            # Two lines cross if one is left of the other below and right of it above.
            crossings += int(((low[:, None] < low) & (high[:, None] > high)).sum())
        return CROSSING * crossings + length
