"""Pareto fronts: the children of a search that no other beats in accuracy and in every cost. Imports no torch."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO, TypeGuard

import numpy as np
from numpy.typing import ArrayLike

from nasnet_zoo.errors import ConfigError

from .rows import NETWORK_COSTS, ChildRow, read_children

COSTS = "multiply_adds", "parameters"  # of a front, unless others are asked for
LATENCY = "latency"  # so begin the names of metrics that are costs, too


def pareto_front(points: ArrayLike) -> list[int]:
    """The indices, in order, of the points that no other point beats.

    `points` (points, criteria) are to be small in every criterion; give what is to be large with the other sign. A
    point beats another if it is nowhere larger and somewhere smaller: of equal points none beats the other. A point
    with a nan is not on the front, and beats none.
    """
    values = np.asarray(points, dtype=float)
    front: list[int] = []
    if not len(values):
        return front
    for index in np.lexsort(values.T[::-1]).tolist():  # whatever beats a point comes before it
        point, others = values[index], values[front]
        beaten = (others <= point).all(axis=1) & (others < point).any(axis=1)
        if not beaten.any() and not np.isnan(point).any():
            front.append(index)
    return sorted(front)


def pareto(folder: str | Path, costs: Sequence[str] = COSTS) -> list[ChildRow]:
    """The children of a search of which none is beaten: no other is as accurate and as cheap, and better in one of it.

    A child that returned no accuracy counts with its reward. Of equal architectures the first of the best counts.

    Args:
        folder: the run folder of the search, which may be running.
        costs: what is to be small: "multiply_adds", "parameters", or the name of a metric.

    Returns:
        Rows of read_children, the cheapest first.

    Raises:
        JournalError: if the folder holds no search that can be read.
        ConfigError: if its config.json cannot be read, or no child has one of the costs.
    """
    best: dict[str, ChildRow] = {}
    for row in read_children(folder):
        there = best.get(row["hash"])
        if row["status"] == "done" and is_number(accuracy(row)):
            if there is None or accuracy(row) > accuracy(there):
                best[row["hash"]] = row
    rows = list(best.values())
    for name in costs:
        rows_with = [row for row in rows if is_number(cost(row, name))]
        if rows and not rows_with:
            raise ConfigError(f"{folder}: no child has a number as its {name!r}; {_advice(rows)}")
        rows = rows_with
    points = [(-accuracy(row), *(cost(row, name) for name in costs)) for row in rows]
    front = [rows[index] for index in pareto_front(points)]
    return sorted(front, key=lambda row: [cost(row, name) for name in costs])


def _advice(rows: Sequence[ChildRow]) -> str:
    known = [name for name in (*COSTS, *_latencies(rows)) if any(is_number(cost(row, name)) for row in rows)]
    return f"they have {', '.join(known)}" if known else "a child's costs are metrics that it returns"


def accuracy(row: ChildRow) -> Any:
    """What a child returned as its accuracy, or else its reward."""
    return row["metrics"].get("accuracy", row["reward"])


def cost(row: ChildRow, name: str) -> Any:
    """A child's cost of that name; None if it has none."""
    network = {"parameters": row["parameters"], "multiply_adds": row["multiply_adds"]}
    return network[name] if name in network else row["metrics"].get(name)


def is_number(value: Any) -> TypeGuard[float]:
    """Whether one can compute with it: nan, infinite numbers and endless integers are none."""
    return isinstance(value, int | float) and abs(value) < 1e300


def write_front(rows: Sequence[ChildRow], costs: Sequence[str], file: TextIO) -> None:
    """Writes rows of `pareto` as CSV: child, reward, accuracy, the costs and all latencies, hash."""
    columns = list(dict.fromkeys([*NETWORK_COSTS, *costs, *_latencies(rows)]))
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["child", "reward", "accuracy", *columns, "hash"])
    for row in rows:
        costs_of_row = [cost(row, name) for name in columns]
        writer.writerow([row["child"], row["reward"], row["metrics"].get("accuracy"), *costs_of_row, row["hash"]])


def _latencies(rows: Sequence[ChildRow]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row["metrics"] if name.startswith(LATENCY)))
