"""`write_report`: what a search did, on one page that needs no network and no other file. Imports no torch."""

import os
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from html import escape
from pathlib import Path

import numpy as np

from nasnet_zoo.arch.kinds import get_kind
from nasnet_zoo.util.files import atomic_file

from ..folder import REPORT
from ..history import History, duration, read_history
from ..records import Record
from ..searchers.table import SEARCHERS, searcher_sections
from ..spaces.base import Space
from . import charts
from .page import as_json, details, figure, number, page, scroll, table, tiles

LAST = 100  # children that stand for what the searcher has come to
WINDOWS, LEAST = 40, 20  # of children for the shares of ops: at most so many, of at least so many children each
TOP, DRAWN = 10, 3  # cells in the table, and of these in drawings
HALF = (440, 320)  # CSS pixels of a chart that stands beside another, or alone on a phone


def write_report(folder: str | os.PathLike[str], baseline: Sequence[str | os.PathLike[str]] = ()) -> Path:
    """Writes report.html into the run folder of a search, which may be running, and returns its path.

    `baseline` names the run folders of another searcher, random as a rule, to compare it with: one per seed.
    Raises JournalError or ConfigError if a folder holds no search that can be read.
    """
    search = _Search.read(folder)
    others = [_Search.read(other) for other in baseline]
    config = search.history.config
    header = _headline(search, [other for other in others if len(other.points)])
    sections = {
        "Reward": _rewards(search, [other for other in others if len(other.points)]) + _conditions(search, others),
        "What was tried": _tried(search.history),
        "Best cells": _best(search.history),
        "Cost": _cost(search.history),
        "Failures": _failures(search.history),
        "Settings": details("config.json", as_json(config.to_json())),
    }
    path = Path(folder) / REPORT
    with atomic_file(path) as temporary:
        title = escape(f"Search for cells: {config.space.name}, {search.name}")
        temporary.write_text(page(title, header, sections), encoding="utf-8")
    return path


@dataclass(frozen=True)
class _Search:
    """A history, and of its children that have metrics the `points` (place among the finished, reward)."""

    folder: str
    history: History
    points: np.ndarray

    @classmethod
    def read(cls, folder: str | os.PathLike[str]) -> "_Search":
        history = read_history(folder)
        finished = enumerate(history.finished, 1)
        points = [(place, r.reward) for place, r in finished if r.status == "done" and np.isfinite(r.reward)]
        return cls(os.fspath(folder), history, np.array(points, dtype=float).reshape(-1, 2))

    @property
    def name(self) -> str:
        return SEARCHERS.row(self.history.config.searcher).name

    @property
    def rewards(self) -> np.ndarray:
        return self.points[:, 1]


def _headline(search: _Search, others: list[_Search]) -> str:
    history, config = search.history, search.history.config
    finished = len(history.finished)
    in_hand = sum(1 for record in history.records if record.attempts and not record.finished)
    status = "Finished." if finished >= config.children else f"Not finished: {in_hand} children in hand."
    size = history.space.size
    size = f"{size:,}" if size < 10**6 else f"about 10<sup>{len(str(size)) - 1}</sup>"
    task = escape(config.child.summary())
    intro = (
        f"<p>{status} The space {escape(config.space.name)} has {size} "
        f"sequences of {len(history.space.decisions)} decisions. Each child is one of them, {task}; its reward is the "
        f"{escape(config.reward)} on validation pictures, not what its cells reach when they are trained in full.</p>"
    )
    distinct, served = len({r.hash for r in history.finished}), sum(r.served is not None for r in history.finished)
    note = f"of {config.children:,}; {distinct:,} distinct" + (f", {served:,} from the journal" if served else "")
    rows = [("children", f"{finished:,}", note)]
    if len(search.points):
        place, reward = search.points[search.rewards.argmax()]
        rows.append(("best reward", number(reward), f"child {history.finished[int(place) - 1].child}"))
        beside = f"{_versus(others)} {number(np.mean([x.rewards[-LAST:].mean() for x in others]))}" if others else ""
        mean = number(search.rewards[-LAST:].mean())
        rows.append((f"mean, last {min(LAST, len(search.points))}", mean, beside))
    per_hour = f"{3600 * finished / history.seconds:,.0f} children per hour" if history.seconds else ""
    sessions = f" in {history.sessions} sessions" if history.sessions > 1 else ""
    rows.append(("time", duration(history.seconds), per_hour + sessions))
    hours = history.device_seconds / 3600
    rows.append(("cost", f"{hours:,.0f}" if hours >= 10 else f"{hours:.2g}", "device-hours"))
    kinds = Counter(record.status for record in history.finished if record.status != "done")
    said = ", ".join(f"{count} {escape(kind)}" for kind, count in kinds.most_common())
    rows.append(("failed", f"{kinds.total():,}", said))
    return intro + tiles(rows)


def _rewards(search: _Search, others: list[_Search]) -> str:
    """Rewards over time and their distributions, with the baselines' beside them."""
    if not len(search.points):
        return "<p>No child has a result yet.</p>"
    name, rewards = search.name, search.rewards
    versus = _versus(others)
    pooled = np.concatenate([other.rewards for other in others]) if others else np.empty(0)
    limits = charts.usual_range(np.concatenate([rewards, pooled]))

    failed = [place for place, record in enumerate(search.history.finished, 1) if record.status != "done"]
    place, best = search.points[rewards.argmax()]
    alt = (
        f"Reward against children finished. The first {LAST} have a mean of {number(rewards[:LAST].mean())}, the last "
        f"{LAST} one of {number(rewards[-LAST:].mean())}; the best, {number(best)}, came as number {place:.0f}."
    )
    window = charts.window(len(rewards))
    baselines = [other.points for other in others]
    paint = partial(charts.reward_chart, points=search.points, failed=failed, baselines=baselines)
    paint = partial(paint, window=window, limits=limits)
    sizes = {"wide": (928, 360), "narrow": (400, 300)}  # one of them is seen, depending on the screen's width
    both = "".join(f"<div class={key}>{charts.chart(key, alt, size, paint)}</div>" for key, size in sizes.items())
    mean = f"mean of {window}"
    legend = [("dot search", f"a child of {name}"), ("line search", mean), ("dash search", "best so far")]
    legend += [("line baseline", f"{versus}, {mean}"), ("dash baseline", f"{versus}, best so far")] if others else []
    legend += [("tick failed", "failed; counted in no mean")] if failed else []
    below = int((rewards < limits[0]).sum())
    note = f"{below:,} of the {len(rewards):,} children of {name} lie below the picture." if below else ""
    over_time = figure(both, note, legend)

    recent = rewards[-LAST:]
    curves = [(rewards, charts.SEARCH, "-"), (recent, charts.SEARCH, charts.DASHED)]
    curves += [(other.rewards, charts.BASELINE, "-") for other in others]
    alt = f"Distribution of rewards. The median is {number(np.median(rewards))} for {name}" + (
        f" and {number(np.median(pooled))} for {versus}." if others else "."
    )
    svg = charts.chart("distribution", alt, HALF, partial(charts.distribution_chart, curves=curves, limits=limits))
    legend = [("line search", f"{name}, all"), ("dash search", f"{name}, the last {len(recent)}")]
    legend += [("line baseline", versus)] if others else []
    note = "The share of children with at most that reward: the further to the right, the better."
    if others:
        chance = beats(recent, pooled)
        note += f" One of the last {len(recent)} of {name} is above one of {versus} with probability {chance:.2f}."
    pair = figure(svg, note, legend) + _entropy(search.history)
    return f"{over_time}<div class=pair>{pair}</div>{_comparison(search, others)}"


def _versus(others: list[_Search]) -> str:
    """What the baselines are called together."""
    return others[0].name if len({other.name for other in others}) == 1 else "the baselines"


def _entropy(history: History) -> str:
    points = [(place, values["policy/entropy"]) for place, values in history.updates if "policy/entropy" in values]
    if not points:
        return ""
    children, entropy = zip(*points)
    uniform = float(np.mean([np.log(decision.choices) for decision in history.space.decisions]))
    alt = f"The policy's entropy goes from {number(entropy[0])} to {number(entropy[-1])} nats per decision."
    paint = partial(charts.entropy_chart, children=children, entropy=entropy, uniform=uniform)
    note = "A policy that has no preference has the entropy of the dashed line; one at 0 proposes a single cell."
    return figure(charts.chart("entropy", alt, HALF, paint), note, [("line search", "entropy of the policy")])


def _comparison(search: _Search, others: list[_Search]) -> str:
    """The figures behind the curves."""
    if not others:
        return ""
    equal = min(len(one.points) for one in (search, *others))
    heads = ["search", "children", "mean", f"mean of the last {LAST}", "best", f"best of the first {equal:,}", "folder"]
    rows = []
    for one in (search, *others):
        x = one.rewards
        figures = [number(value) for value in (x.mean(), x[-LAST:].mean(), x.max(), x[:equal].max())]
        rows.append([one.name, f"{len(x):,}", *figures, f"<code>{escape(one.folder)}</code>"])
    return table("Rewards of the children that have metrics", heads, rows)


def _conditions(search: _Search, others: list[_Search]) -> str:
    """A warning if a baseline's children were not treated like the search's."""
    mine, notes = search.history.config.identity(), []
    own = {"searcher", "seed", *searcher_sections()}
    for other in others:
        theirs = other.history.config.identity()
        keys = [key for key in sorted(mine.keys() | theirs.keys()) if mine.get(key) != theirs.get(key)]
        keys = [key for key in keys if key.split(".")[0] not in own]
        said = "; ".join(f"{key} is {theirs.get(key)!r} there, {mine.get(key)!r} here" for key in keys)
        notes += [f"<li>{escape(f'{other.folder}: {said}')}</li>"] if keys else []
    return f"<p>The comparison is not between equals:</p><ul>{''.join(notes)}</ul>" if notes else ""


def _tried(history: History) -> str:
    """The shares of the ops over time, for each kind of cell."""
    space, places = history.space, op_places(history.space) if hasattr(history.space, "ops") else {}
    windows = min(WINDOWS, len(history.records) // LEAST)
    if not places or windows < 2:
        return ""
    tokens = np.array([record.tokens for record in history.records])
    edges = np.linspace(0, len(tokens), windows + 1).astype(int)
    families = list(charts.FAMILIES)
    order = sorted(range(len(space.ops)), key=lambda op: families.index(charts.op_label(space.ops[op])[1]))
    pictures, rows = [], []
    for index, (cell, decisions) in enumerate(places.items()):
        counted = op_shares(tokens[:, decisions], edges, len(space.ops))
        shares = {space.ops[op]: counted[:, op] for op in order}
        commonest = sorted(shares, key=lambda op: -shares[op][-1])
        top = ", ".join(f"{op} {shares[op][-1]:.0%}" for op in commonest[:3])
        alt = escape(f"{cell}: at the end the commonest ops are {top}; the table below has all of them.")
        paint = partial(charts.ops_chart, x=(edges[1:] + edges[:-1]) / 2, shares=shares)
        svg = charts.chart(f"ops{index}", alt, HALF, paint, right=130)
        pictures.append(f"<div><h3>{cell}</h3>{figure(svg)}</div>")
        rows += [[cell, escape(op), f"{shares[op][0]:.1%}", f"{shares[op][-1]:.1%}"] for op in commonest]
    size = len(tokens) // windows
    heads = ["cell", "op", f"first {size} children", f"last {size}"]
    return (
        f"<p>How often each op was proposed, in windows of {size} children.</p>"
        f"<div class=pair>{''.join(pictures)}</div>{details('As a table', table('Shares of the ops', heads, rows))}"
    )


def op_places(space: Space) -> dict[str, list[int]]:
    """Which decisions choose an op, for each kind of cell of a space."""
    places: dict[str, list[int]] = {}
    for index, decision in enumerate(space.decisions):
        cell, _, rest = decision.name.partition(".")
        if rest.endswith(".op"):
            places.setdefault(f"{cell.capitalize()} cell", []).append(index)
        elif not rest:  # an edge of NAS-Bench-201
            places.setdefault("Cell", []).append(index)
    return places


def op_shares(tokens: np.ndarray, edges: Sequence[int], ops: int) -> np.ndarray:
    """Each op's part of the tokens (children, decisions) between one edge and the next: (windows, ops)."""
    counts = [np.bincount(tokens[start:end].ravel(), minlength=ops) for start, end in zip(edges, edges[1:])]
    return np.array([count / count.sum() for count in counts])


def _best(history: History) -> str:
    """The best cells, each once, as a table and in drawings."""
    alike: dict[str, list[Record]] = {}
    for record in history.finished:
        if record.status == "done" and np.isfinite(record.reward):
            alike.setdefault(record.hash, []).append(record)
    leaders = [max(records, key=lambda record: record.reward) for records in alike.values()]
    leaders = sorted(leaders, key=lambda record: -record.reward)[:TOP]
    if not leaders:
        return ""
    space, first = history.space, leaders[0].metrics
    metrics = [key for key in first if isinstance(first[key], int | float) and first[key] != leaders[0].reward][:4]
    heads = ["", "child", "reward", "children like it", "their mean", *map(escape, metrics)]
    rows = []
    for place, record in enumerate(leaders, 1):
        rewards = [like.reward for like in alike[record.hash]]
        cell = " ".join(map(str, record.tokens)) if space.kind else str(space.decode(record.tokens))
        row = [str(place), str(record.child), number(record.reward), str(len(rewards)), number(np.mean(rewards))]
        row += [escape(number(record.metrics.get(key, float("nan")))) for key in metrics]
        rows.append([*row, f"<code>{escape(cell)}</code>", f"<code>{escape(record.hash[:16])}</code>"])
    heads += ["tokens" if space.kind else "cell", "hash"]
    note = "<p>The best of many owes something to luck: where a cell was tried several times, look at the mean.</p>"
    drawings = [_drawing(space, record, place) for place, record in enumerate(leaders[:DRAWN], 1)] if space.kind else []
    return note + table(f"The best {len(rows)} cells", heads, rows) + "".join(drawings)


def _drawing(space: Space, record: Record, place: int) -> str:
    architecture = space.decode(record.tokens)
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "cell.svg"
        get_kind(space.kind).draw(architecture, picture)
        text = picture.read_text(encoding="utf-8")
    alt = f"Drawing of the cells of child {record.child}"
    svg = charts.inline_svg(text, f"cell{place}", f"{alt}; the JSON below says the same.", {})
    heading = f"<h3>{place}. Child {record.child}, reward {number(record.reward)}</h3>"
    return heading + scroll(svg, alt, "drawing") + details("As JSON", as_json(space.to_json(architecture)))


def _cost(history: History) -> str:
    seconds = [r.seconds for r in history.finished if r.status == "done" and r.served is None]
    if not seconds:
        return ""
    if max(seconds) < 0.1:
        return "<p>No child took more than 0.1 s.</p>"
    middle, most = np.quantile(seconds, [0.5, 0.95])
    text = f"Half of the children with metrics took up to {duration(middle)}, 95 % up to {duration(most)}."
    again = sum(max(record.attempts - 1, 0) for record in history.records)
    text += f" {again:,} further attempts were lost or failed." if again else ""
    return figure(charts.chart("cost", text, HALF, partial(charts.cost_chart, seconds=seconds)), text)


def _failures(history: History) -> str:
    if not history.finished:
        return ""
    failed = [record for record in history.finished if record.status != "done"]
    rows = []
    for kind, count in Counter(record.status for record in failed).most_common():
        last = [record for record in failed if record.status == kind][-1]
        lines = last.message.strip().splitlines() or ["no message"]
        said = escape(lines[-1][:200])
        said = details(said, f"<pre>{escape(last.message)}</pre>") if len(lines) > 1 else said
        rows.append([escape(kind), f"{count:,}", f"{count / len(history.finished):.1%}", str(last.child), said])
    heads = ["kind", "children", "share", "last child", "its message"]
    return table("Children that failed", heads, rows) if rows else "<p>No child failed.</p>"


def beats(mine: np.ndarray, theirs: np.ndarray) -> float:
    """The probability that one drawn from `mine` is above one drawn from `theirs`; ties count half."""
    ordered = np.sort(theirs)
    below, up_to = np.searchsorted(ordered, mine, "left"), np.searchsorted(ordered, mine, "right")
    return float((below + up_to).mean() / 2 / len(theirs))
