"""`write_report`: what a search did, on one page that needs no network and no other file. Imports no torch.

This file decides what the page says, as plain data; templates/ decides how it looks.
"""

import json
import os
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nasnet_zoo.arch.kinds import get_kind
from nasnet_zoo.util.files import atomic_file
from nasnet_zoo.util.progress import duration

from ..folder import REPORT
from ..history import History
from ..records import Record
from ..spaces.base import FixedSpace, Space
from . import charts
from .compare import results
from .costs import cost, saved_epochs
from .others import LAST, Group, Others, Search, conditions, grouped, hint
from .policy import policy
from .render import number, render
from .seeds import over_seeds
from .tried import tried

TOP, DRAWN = 10, 6  # cells in the table, and how many of these are drawn
RELOAD_SECONDS = 60  # the page of a running search; it is not written more often


def write_report(
    folder: str | os.PathLike[str],
    baseline: Sequence[str | os.PathLike[str]] | None = None,
    seeds: Sequence[str | os.PathLike[str]] | None = None,
) -> Path:
    """Writes report.html into the run folder of a search, which may be running, and returns its path.

    Args:
        folder: the run folder of the search.
        baseline: run folders of other searchers, random as a rule, to compare it with; one for each seed.
        seeds: run folders of the same search with other seeds.

    What is None is what was named the last time: report.json in the run folder keeps it.

    Raises:
        JournalError: if a folder holds no search that can be read.
        ConfigError: if a config.json cannot be read, or a folder in `seeds` holds a search by another searcher.
    """
    search = Search.read(folder)
    history, config = search.history, search.history.config
    others = Others.read(search, baseline, seeds)
    groups = grouped(search, others)
    text = render(
        title=f"Search for cells: {config.space.name}, {search.name}",
        overview=_overview(search, groups[1:]),
        reward={
            "results": results(groups),
            "seeds": over_seeds(groups),
            "conditions": conditions(search, others),
            "left_out": others.left_out,
            "hint": hint(search, others),
        },
        policy=policy(history),
        tried=tried(history),
        best=_best(history),
        cost=cost(folder, history),
        failures=_failures(history),
        left_out=history.excluded,
        settings=json.dumps(config.to_json(), indent=1),
        reload=None if history.evaluated >= config.children else RELOAD_SECONDS,
        written=time.strftime("%Y-%m-%d at %H:%M %Z"),
    )
    path = Path(folder) / REPORT
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")  # a metric's name is anybody's
    return path


def _overview(search: Search, baselines: list[Group]) -> dict[str, Any]:
    """What was searched, and the main figures: what each one is, its value, and a note."""
    history, config = search.history, search.history.config
    finished = history.evaluated
    distinct, served = len({r.hash for r in history.finished}), sum(r.served is not None for r in history.finished)
    note = f"of {config.children:,}; {distinct:,} distinct" + (f", {served:,} from the journal" if served else "")
    tiles = [("children", f"{finished:,}", note)]
    if len(search.points):
        place, reward = search.points[search.rewards.argmax()]
        tiles.append(("best reward", number(reward), f"child {history.finished[int(place) - 1].child}"))
        means = [(g.name, np.mean([other.rewards[-LAST:].mean() for other in g.searches])) for g in baselines]
        beside = ", ".join(f"{name} {number(mean)}" for name, mean in means)
        mean = number(search.rewards[-LAST:].mean())
        tiles.append((f"mean, last {min(LAST, len(search.points))}", mean, beside))
    per_hour = f"{3600 * finished / history.seconds:,.0f} children per hour" if history.seconds else ""
    sessions = f" in {history.sessions} sessions" if history.sessions > 1 else ""
    tiles.append(("time", duration(history.seconds), per_hour + sessions))
    hours = history.device_seconds / 3600
    if hours >= 0.1:
        tiles.append(("cost", f"{hours:,.0f}" if hours >= 10 else f"{hours:.2g}", "device-hours"))
    else:
        tiles.append(("cost", duration(history.device_seconds), "of a device's time"))
    kinds = Counter(record.status for record in history.finished if record.failed)
    said = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
    tiles.append(("failed", f"{kinds.total():,}", said))
    if stopped := sum(record.status == "stopped" for record in history.finished):
        share = saved_epochs(history)
        tiles.append(("stopped early", f"{stopped:,}", "" if share is None else f"{share:.0%} of the epochs saved"))
    return {
        "finished": finished >= config.children,
        "in_hand": sum(1 for record in history.records if record.attempts and not record.finished),
        "space": config.space.name,
        "size": history.space.size,
        "decisions": len(history.space.decisions) if isinstance(history.space, FixedSpace) else None,
        "task": config.child.summary(),
        "reward": config.reward,
        "tiles": tiles,
    }


def _best(history: History) -> dict[str, Any] | None:
    """The best cells, each once, for a table and in drawings."""
    alike: dict[str, list[Record]] = {}
    for record in history.finished:
        if record.status == "done" and np.isfinite(record.reward):
            alike.setdefault(record.hash, []).append(record)
    leaders = [max(records, key=lambda record: record.reward) for records in alike.values()]
    leaders = sorted(leaders, key=lambda record: -record.reward)[:TOP]
    if not leaders:
        return None
    space, first = history.space, leaders[0].metrics
    metrics = [key for key in first if isinstance(first[key], int | float) and first[key] != leaders[0].reward][:4]
    rows = [
        {
            "child": record.child,
            "reward": record.reward,
            "alike": len(alike[record.hash]),
            "mean": np.mean([like.reward for like in alike[record.hash]]),
            "metrics": [record.metrics.get(key) for key in metrics],
            "cell": None if space.kind else str(space.decode(record.tokens)),
        }
        for record in leaders
    ]
    drawings = [_drawing(space, record, place) for place, record in enumerate(leaders[:DRAWN], 1)] if space.kind else []
    return {"metrics": metrics, "leaders": rows, "drawings": drawings}


def _drawing(space: Space, record: Record, place: int) -> dict[str, Any]:
    """A cell's picture, which is None if its kind draws none, and how else it is written."""
    architecture = space.decode(record.tokens)
    label = f"Drawing of the cells of child {record.child}"
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "cell.svg"
        get_kind(space.kind).draw(architecture, picture)
        text = picture.read_text(encoding="utf-8") if picture.exists() else None
    return {
        "child": record.child,
        "reward": record.reward,
        "svg": text and charts.inline_svg(text, f"cell{place}", f"{label}; the JSON below says the same.", {}),
        "tokens": " ".join(map(str, record.tokens)),
        "hash": record.hash,
        "json": json.dumps(space.to_json(architecture), indent=1),
    }


def _failures(history: History) -> list[dict[str, Any]] | None:
    """The kinds of failures, the commonest first; `message` is there if its last line does not say it all."""
    if not history.finished:
        return None
    failed = [record for record in history.finished if record.failed]
    rows = []
    for kind, count in Counter(record.status for record in failed).most_common():
        last = [record for record in failed if record.status == kind][-1]
        lines = last.message.strip().splitlines() or ["no message"]
        row = {"kind": kind, "count": count, "share": count / len(history.finished), "child": last.child}
        rows.append(row | {"said": lines[-1][:200], "message": last.message if len(lines) > 1 else ""})
    return rows
