"""All children of a search as rows, for CSV, JSON and data frames. Imports no torch."""

import csv
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO, TypedDict

from .config import SearchConfig
from .costs import child_cost
from .driver import child_seed
from .history import read_history
from .records import Record
from .spaces.base import Space

NETWORK_COSTS = "parameters", "multiply_adds"  # which a network has, whatever its child measures


class ChildRow(TypedDict):
    """One child of a search; see read_children."""

    child: int
    seed: int
    status: str
    message: str | None
    reward: float | None
    metrics: dict[str, Any]
    parameters: int | None
    multiply_adds: int | None
    seconds: float | None
    worker: str | None
    device: str | None
    attempts: int
    served: int | None
    stopped: int | None
    time: float | None
    space: str
    kind: str | None
    hash: str
    tokens: list[int]
    architecture: Any


def read_children(folder: str | Path) -> list[ChildRow]:
    """All children of a search, which may be running, in the order in which they were proposed. Changes nothing.

    A row has these keys; what is not known (yet) is None:

    - `child`, its number, and `seed`, its own;
    - `status`: "proposed", "started", "done", "stopped" (at a rung) or the kind of its failure ("nan", "oom",
      "timeout", "error", "lost", "rejected"), and `message`, the reason for a failure;
    - `reward`, and `metrics`, what the child returned;
    - `parameters` and `multiply_adds`, as the child returned them, or else of the network that a child of the search's
      config is; None if it is none;
    - `seconds`, how long it took; `worker` (host:process:device) and `device`, where; `attempts`, how often it was
      started; `served`, the child whose result it got because it has the same architecture; `stopped`, after how many
      epochs it was stopped: its metrics are then those of that moment, and its reward what it was expected to be worth
      in the end; `time`, when it finished, in seconds since 1970;
    - `space`, `kind` (None for cells that are only looked up), `hash`, equal for equal architectures, `tokens` and
      `architecture`, as in best.json.

    Args:
        folder: the run folder of the search.

    Returns:
        One row for each child.

    Raises:
        JournalError: if the folder holds no search that can be read.
        ConfigError: if its config.json cannot be read.
    """
    history = read_history(folder)
    return [_row(history.config, history.space, record) for record in history.records]


def _row(config: SearchConfig, space: Space, record: Record) -> ChildRow:
    costs, architecture = costs_of(config, space, record), space.decode(record.tokens)
    return ChildRow(
        child=record.child,
        seed=child_seed(config.seed, record.child),
        status=record.status or ("started" if record.attempts else "proposed"),
        message=record.message or None,
        reward=record.reward,
        metrics=record.metrics,
        parameters=costs["parameters"],
        multiply_adds=costs["multiply_adds"],
        seconds=record.seconds if record.finished else None,
        worker=record.worker or None,
        device=record.worker.split(":", 2)[-1] or None,
        attempts=record.attempts,
        served=record.served,
        stopped=record.rung,
        time=record.time if record.finished else None,
        space=config.space.name,
        kind=space.kind,
        hash=record.hash,
        tokens=list(record.tokens),
        architecture=space.to_json(architecture),
    )


def costs_of(config: SearchConfig, space: Space, record: Record) -> dict[str, Any]:
    """NETWORK_COSTS as the child returned them, or else of the network that it is, in milliseconds; or None."""
    said = {name: record.metrics[name] for name in NETWORK_COSTS if name in record.metrics}
    cost = child_cost(config.child, space, space.decode(record.tokens)) if len(said) < len(NETWORK_COSTS) else None
    return {name: getattr(cost, name, None) for name in NETWORK_COSTS} | said


def write_csv(rows: Sequence[ChildRow], file: TextIO) -> None:
    """Writes rows of read_children as CSV: a column `metrics.NAME` for each metric, tokens separated by spaces, and
    lists and objects as JSON."""
    metrics = [f"metrics.{name}" for name in {name: None for row in rows for name in row["metrics"]}]
    head = [name for key in ChildRow.__annotations__ for name in (metrics if key == "metrics" else [key])]
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(head)
    for row in rows:
        flat = {**row, **{f"metrics.{name}": value for name, value in row["metrics"].items()}}
        flat["tokens"] = " ".join(map(str, row["tokens"]))
        writer.writerow([json.dumps(v) if isinstance(v := flat.get(name), dict | list) else v for name in head])


def strict(value: Any) -> Any:
    """The value with None for numbers that JSON does not have: a metric may be nan."""
    if isinstance(value, dict):
        return {key: strict(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return list(map(strict, value))
    return None if isinstance(value, float) and not math.isfinite(value) else value
