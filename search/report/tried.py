"""What a search proposed: the ops of its cells over time, which states they read, and how results are combined.

Imports no torch.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from ..history import History
from ..spaces.base import Choice, FixedSpace
from . import charts

WINDOWS, LEAST = 40, 20  # at most 40 windows, of at least 20 children each
TITLES = {"op": "op", "state": "state read", "combine": "combination"}


class Shares(NamedTuple):
    """What is chosen (an op, a state, a combination) in a kind of cell: the names of the choices, their shares
    (windows, choices), and what uniform decisions would give (choices)."""

    cell: str
    what: str
    names: list[str]
    counted: np.ndarray
    uniform: np.ndarray


def tried(history: History) -> dict[str, Any] | None:
    """The shares of ops over time, and of states and combinations at the start and at the end."""
    space, windows = history.space, min(WINDOWS, len(history.records) // LEAST)
    if not isinstance(space, FixedSpace) or windows < 2:
        return None
    tokens = np.array([record.tokens for record in history.records])
    edges = np.linspace(0, len(tokens), windows + 1).astype(int)
    ops = _of_all_cells(space, "op", tokens, edges)
    states = _of_all_cells(space, "state", tokens, edges)
    combines = _of_all_cells(space, "combine", tokens, edges)
    if not ops and not states:
        return None
    middles = (edges[1:] + edges[:-1]) / 2
    op_plots = [_over_time(f"ops{place}", each, middles) for place, each in enumerate(ops)]
    wiring = [[state, *(c for c in combines if c.cell == state.cell)] for state in states]
    wiring_plots = [_first_and_last(f"wiring{place}", each) for place, each in enumerate(wiring)]
    return {
        "window": len(tokens) // windows,
        "ops": list(zip((each.cell for each in ops), charts.row(*op_plots))),
        "combined": bool(combines),
        "wiring": list(zip((each.cell for each in states), charts.row(*wiring_plots))),
        "shares": [row for each in (*ops, *states, *combines) for row in _rows(each)],
    }


def _of_all_cells(space: FixedSpace, what: str, tokens: np.ndarray, edges: np.ndarray) -> list[Shares]:
    names = {"op": "ops", "combine": "combines"}  # a space's attributes
    result = []
    for cell, decisions in places(space, what).items():
        choices = [space.decisions[decision].choices for decision in decisions]
        named = list(map(str, getattr(space, names[what], ()) if what in names else range(max(choices))))
        if len(named) != max(choices):
            continue  # the space does not say what its choices are
        # Early decisions of a cell have fewer states to choose from than late ones.
        uniform = np.mean([np.arange(len(named)) < count for count in choices] / np.array(choices)[:, None], axis=0)
        result.append(Shares(cell, what, named, shares(tokens[:, decisions], edges, len(named)), uniform))
    return result


def places(space: FixedSpace, what: str) -> dict[str, list[int]]:
    """Which decisions choose an "op", a "state" or how to "combine", for each kind of cell of a space."""
    found: dict[str, list[int]] = {}
    for index, decision in enumerate(space.decisions):
        cell, _, rest = decision.name.partition(".")
        if isinstance(decision, Choice) and rest.endswith(f".{what}"):
            found.setdefault(f"{cell.capitalize()} cell", []).append(index)
        elif isinstance(decision, Choice) and not rest and what == "op":  # an edge of NAS-Bench-201
            found.setdefault("Cell", []).append(index)
    return found


def shares(tokens: np.ndarray, edges: Sequence[int], choices: int) -> np.ndarray:
    """Each choice's part of the tokens (children, decisions) between one edge and the next: (windows, choices)."""
    counts = [np.bincount(tokens[start:end].ravel(), minlength=choices) for start, end in zip(edges, edges[1:])]
    return np.array([count / count.sum() for count in counts])


def _over_time(identity: str, ops: Shares, middles: np.ndarray) -> charts.Plot:
    families = list(charts.FAMILIES)
    order = sorted(range(len(ops.names)), key=lambda op: families.index(charts.op_label(ops.names[op])[1]))
    paint = partial(charts.ops_chart, x=middles, shares={ops.names[op]: ops.counted[:, op] for op in order})
    top = ", ".join(f"{name} {last:.0%}" for name, _, last, _ in _ranked(ops)[:3])
    alt = f"{ops.cell}: at the end the commonest ops are {top}; the table below has all of them."
    return charts.Plot(identity, alt, paint, right=130)


def _first_and_last(identity: str, groups: list[Shares]) -> charts.Plot:
    choices = [_choices(group) for group in groups]
    said = "; ".join(f"{name} {first:.0%} and {last:.0%}" for group in choices for name, first, last, _ in group)
    alt = f"{groups[0].cell}: the shares of states and combinations among the first children and the last: {said}."
    label = "state read" + (", and combination" if len(groups) > 1 else "")
    return charts.Plot(identity, alt, partial(charts.shares_chart, groups=choices, label=label))


def _choices(shares: Shares) -> list[tuple[str, float, float, float]]:
    """Each choice's name, its share of the first and of the last window, and what uniform decisions would give."""
    return list(zip(shares.names, shares.counted[0], shares.counted[-1], shares.uniform))


def _ranked(shares: Shares) -> list[tuple[str, float, float, float]]:
    return sorted(_choices(shares), key=lambda choice: -choice[2])


def _rows(shares: Shares) -> list[tuple[str, str, str, float, float, float]]:
    choices = _ranked(shares) if shares.what == "op" else _choices(shares)
    return [(shares.cell, TITLES[shares.what], *choice) for choice in choices]
