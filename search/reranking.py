"""Trains the best children for longer, before one is transferred (NASNet paper, section 4.1: the best 250)."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nasnet_zoo.arch.checks import read_json
from nasnet_zoo.errors import DataError, SearchError
from nasnet_zoo.util.files import atomic_file, locked

from .children.base import Child, Task, context_of, run_task
from .children.settings import TrainedChildSettings
from .children.table import make_child
from .driver import child_seed
from .fleet.base import limit_threads
from .folder import best_record, check_context
from .history import read_history
from .records import Record
from .rewards import MAX_REWARD

RERANK, BEST_RERANKED = "rerank-{}.json", "reranked-best.json"


@dataclass(frozen=True)
class Reranked:
    """`children`, the best first, have the `reward` of the search and the `accuracy` after the longer training.
    `tau` is Kendall's rank correlation between the two, None if it is undefined, and `p` is its p-value. `failed` gives
    the reason for each child, by number, that has no accuracy; the next call trains these again."""

    children: list[dict[str, Any]]
    failed: dict[int, str]
    epochs: int
    tau: float | None
    p: float | None


def rerank(
    folder: str | Path,
    count: int,
    *,
    epochs: int,
    data: str | None = None,
    device: str = "cpu",
    child: Child | None = None,
    check: Callable[[Any], None] = lambda architecture: None,
    on_child: Callable[[int, int], None] = lambda done, of: None,
) -> Reranked:
    """Trains the best distinct architectures of a finished or running search for longer.

    Each is trained with a seed of its own, which depends on the search's seed, the child's number and `epochs`, and is
    not the one of the search: its luck there is not carried over. It is measured on the same held-out pictures.

    The results are kept in the run folder's rerank-EPOCHS.json after each child. The best child is written to
    reranked-best.json, in the form of best.json. After an interruption, or with a larger `count`, the next call trains
    only the children that have no result yet.

    Args:
        folder: the run folder of the search.
        count: how many architectures, at least two.
        epochs: how long each is trained.
        data: the folder that holds the search's data, if they are elsewhere now.
        device: where the children are trained.
        child: used instead of the search's child.
        check: called with each architecture before the first is trained; what it raises ends the call, because it is
            not known yet which will be the best.
        on_child: called with (children done, children in all).

    Returns:
        The children in their new order, and how well it agrees with the order in the search.

    Raises:
        SearchError: if the search has fewer architectures with a result than `count`, or does not train its children.
        JournalError: if the folder holds no search that can be read, or the data are others than the search's.
        DataError: if the data or an earlier result cannot be read.
        ZooError: if another process is reranking the same search.
    """
    if count < 2:
        raise SearchError(f"to rerank {count} of the cells says nothing about their order: take at least two")
    folder = Path(folder)
    history = read_history(folder)
    best = distinct_best(history.finished, count)
    if len(best) < count:
        raise SearchError(
            f"{folder} has {len(best)} distinct cells with a result, fewer than the {count} to rerank: take at most "
            f"that many, at least two, or let the search run longer"
        )
    settings = history.config.child
    if not isinstance(settings, TrainedChildSettings):
        raise SearchError(f"the children of {folder} were {settings.summary()}, so none of them can be trained longer")
    recipe = replace(settings.recipe, epochs=epochs)
    longer = replace(settings, data=data or settings.data, seconds=None, latency=0, max_latency_ms=None, recipe=recipe)
    for record in best:
        check(history.space.decode(record.tokens))
    child = child or make_child(longer.completed(), history.space)
    check_context(folder, history.context, context_of(child))
    if settings.threads:  # those of the search: rewards may depend on them, and a busy machine is far slower with more
        limit_threads(settings.threads)
    child.prepare(device)
    path, failed = folder / RERANK.format(epochs), {}
    with locked(path, timeout=1.0):
        done = _known(path)
        for place, record in enumerate(best):
            on_child(place, len(best))
            if record.hash in done:
                done[record.hash] |= best_record(history.config, history.space, record)  # whatever the file says
                continue
            architecture = history.space.decode(record.tokens)
            # With the search's seed, first weights and order would be those that were good luck there.
            task = Task(record.child, architecture, child_seed(history.config.seed, record.child, epochs))
            result = run_task(child, task, device)
            if result.status != "done":
                failed[record.child] = f"{result.status}: {(result.message or 'no more is known').splitlines()[-1]}"
                continue
            entry = best_record(history.config, history.space, record)
            longer_training = {"seed": task.seed, "accuracy": result.metrics["accuracy"], "longer": result.metrics}
            done[record.hash] = entry | longer_training
            _write(path, {"epochs": epochs, "children": list(done.values())})
        on_child(len(best), len(best))
        chosen = {record.hash for record in best} & done.keys()
        if len(chosen) < 2:
            first = next(iter(failed))
            raise SearchError(f"only {len(chosen)} of the cells can be trained (child {first}: {failed[first]})")
        children = sorted((done[key] for key in chosen), key=lambda entry: (-entry["accuracy"], entry["child"]))
        tau, p = _kendall([(float(entry["reward"]), float(entry["accuracy"])) for entry in children])
        others = [entry for key, entry in done.items() if key not in chosen]  # kept, because they took long to train
        _write(path, {"epochs": epochs, "tau": tau, "p": p, "children": children, "others": others})
        _write(folder / BEST_RERANKED, children[0])
    return Reranked(children, failed, epochs, tau, p)


def distinct_best(finished: list[Record], count: int) -> list[Record]:
    """The best child of each of the `count` best architectures, by hash."""
    best: dict[str, Record] = {}
    for record in finished:
        if record.status == "done" and (record.hash not in best or record.reward > best[record.hash].reward):
            best[record.hash] = record
    return sorted(best.values(), key=lambda record: (-record.reward, record.child))[:count]


def _known(path: Path) -> dict[str, dict[str, Any]]:
    """What earlier calls with the same number of epochs have trained, by hash."""
    if not path.is_file():
        return {}
    try:
        value = read_json(path, "list of reranked cells", DataError)
        entries = [*value["children"], *value.get("others", ())]
        for entry in entries:
            _check_entry(entry)
    except (DataError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} cannot be read ({error}): delete it to train these children anew") from error
    return {entry["hash"]: entry for entry in entries}


def _check_entry(entry: Any) -> None:
    """Raises ValueError if a reranked cell has no hash, number, reward or accuracy, or one of the wrong type."""
    for key, kinds in {"hash": (str,), "child": (int,), "reward": (int, float), "accuracy": (int, float)}.items():
        value = entry[key]
        if type(value) not in kinds or not isinstance(value, str) and not abs(value) <= MAX_REWARD:
            raise ValueError(f"{key} is {repr(value)[:60]}")


def _write(path: Path, value: dict[str, Any]) -> None:
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def _kendall(pairs: list[tuple[float, float]]) -> tuple[float | None, float | None]:
    from scipy.stats import kendalltau

    if len({short for short, _ in pairs}) < 2 or len({long for _, long in pairs}) < 2:
        return None, None  # all values are equal, so there is no order to compare
    tau, p = kendalltau(*zip(*pairs))
    return float(tau), float(p)
