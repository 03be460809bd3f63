"""Stopping what falls behind (rungs), on planted learning curves and in a small real search: what it saves.

    python benchmarks/search_rungs.py [--parts searchers rewards rules]
    python benchmarks/search_rungs.py --real --data DIR [--children 96] [--folder runs/rungs]

A child is worth in the end what search_planted.py has planted, "additive" or "graph", with its spread and noise. After
epoch e of 9 its accuracy is that less its gap times (1 - e / 9) squared. Half of the gap's variance is the
architecture's, so that a searcher can mistake what learns fast for what is good, and half is luck. Its deviation is
such that accuracies after 3 epochs have a rank correlation of about 0.6 with those in the end, after one of 0.4.

Ten workers, whose children take 60 to 100 s on a simulated clock, have the epochs of 320 children in full: cells of
three blocks, the preset `quick`, rungs after 1 and 3 epochs. Figures are means over seeds in deviations of random
architectures from their mean: the worth of the child with the best accuracy, and of the last 100 that were trained to
the end and that were proposed. The parts take 20 minutes on one core:

    searchers   random search, evolution and PPO, with rungs and without, with two spreads of the gap more
    rewards     what a stopped child's reward may be
    rules       how large a share goes on, of how many

`searchers` has seeds from 0 on. The other parts, by which the defaults were chosen, have seeds from 1000 on.

--real is random search with the preset `quick` and 4 epochs, with rungs after 1 and 2: an hour on a busy machine.
"""

import argparse
import heapq
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import RESULTS, write
from scipy.stats import spearmanr
from search_planted import CHOOSE, LONGEST, NOISE, SHORTEST, SPREAD, Worth, planted

from nasnet_zoo.lookup import JOURNAL
from nasnet_zoo.search import FleetSettings, RungSettings, SearchConfig, read_children, run
from nasnet_zoo.search.history import read_history
from nasnet_zoo.search.journal import read_events
from nasnet_zoo.search.presets import preset
from nasnet_zoo.search.report.costs import saved_epochs
from nasnet_zoo.search.rungs import Rung, Rungs
from nasnet_zoo.search.searchers.base import Observation, Proposal
from nasnet_zoo.search.searchers.table import make_searcher

EPOCHS, RUNGS = 9, (1, 3)
END, GAP = 0.6, 0.3  # mean accuracy of random architectures in the end, and how much lower it would be at the start
GAP_SPREAD = 0.092  # deviation of the gap
CHILDREN, WORKERS, LAST = 320, 10, 100
KINDS, SEARCHERS = ("additive", "graph"), ("random", "evolution", "ppo")
SEEDS, CHOOSING = 12, 10  # how many
ELSEWHERE = 500_000  # seeds of what learns fast, far from those of what is good
RECENT = 20  # reports
REAL_EPOCHS, REAL_RUNGS, ORDERS = 4, (1, 2), 10_000
ALL = 0.9999  # the share that goes on, where curves are wanted whole


@dataclass
class Curve:
    """One child: its worth, its accuracy in the end, and how much lower it would be at the start."""

    worth: float
    end: float
    gap: float

    def at(self, epoch: int) -> float:
        return self.end - self.gap * (1 - epoch / EPOCHS) ** 2


@dataclass
class Landscape:
    """What architectures are worth in the end and how slowly they learn, both in deviations of random ones."""

    worth: Worth
    slowness: Worth
    spread: float

    @classmethod
    def plant(cls, kind: str, config: SearchConfig, spread: float) -> "Landscape":
        space = config.space.space()
        slowness = planted("additive", space, ELSEWHERE + config.seed)
        return cls(planted(kind, space, config.seed), slowness, spread)

    def curve(self, proposal: Proposal, rng: random.Random) -> Curve:
        worth = self.worth(proposal.tokens)
        slow = (self.slowness(proposal.tokens) + rng.gauss(0, 1)) / 2**0.5
        return Curve(worth, END + SPREAD * worth + rng.gauss(0, NOISE), GAP + self.spread * slow)


class AtTheRung(Rungs):
    """A stopped child's reward is what it reported."""

    def expected(self, child: int) -> float:
        return self.reported(child)[0].rewards[child]

    def reported(self, child: int) -> list[Rung]:
        """The rung where the child reported last, and those above it."""
        rungs = [*self.rungs.values()]
        return rungs[max(place for place, rung in enumerate(rungs) if child in rung.rewards) :]


class MeanGain(AtTheRung):
    """And what those that went on have gained since on average."""

    def expected(self, child: int) -> float:
        gains = [[there - here for here, there in rung.pairs] for rung in self.reported(child)]
        return super().expected(child) + sum(sum(each) / len(each) for each in gains if each)


class Worst(AtTheRung):
    """Or the lowest of the last hundred that were trained to the end, as for failures."""

    def __init__(self, settings: RungSettings) -> None:
        super().__init__(settings)
        self.ends: list[float] = []

    def trained(self, child: int, reward: float) -> None:
        self.ends.append(reward)

    def expected(self, child: int) -> float:
        return min(self.ends[-100:], default=super().expected(child))


class AmongTheLast(Rungs):
    """Another rule: a child is compared with the last that reported, as a searcher that learns proposes ever better
    children, of which fewer and fewer fall behind all before them."""

    def goes_on(self, epoch: int, reward: float) -> bool:
        last = [*self.rungs[epoch].rewards.values()][1 - RECENT :]
        better, reports = sum(other > reward for other in last), len(last) + 1
        return reports < self.settings.least or better < self.settings.keep * reports


WAYS: dict[str, type[Rungs]] = {
    "its own there": AtTheRung,
    "and the mean gain from there": MeanGain,
    "the lowest of the last hundred": Worst,
    "on the line from rung to rung": Rungs,
}


@dataclass
class Run:
    """A search: of its children, in the order in which they ended, the epochs that it had `spent` by then, the worth,
    whether it was `trained` to the end, and its last accuracy; the worth of all that it `proposed`, in their order."""

    spent: np.ndarray
    worth: np.ndarray
    trained: np.ndarray
    accuracy: np.ndarray
    proposed: np.ndarray

    def best(self, spent: float = np.inf) -> float:
        """The worth of the child with the best accuracy when so many epochs were spent; nan before the first."""
        there = self.trained & (self.spent <= spent)
        return float(self.worth[there][self.accuracy[there].argmax()]) if there.any() else np.nan


def search(config: SearchConfig, landscape: Landscape, way: type[Rungs] = Rungs) -> Run:
    """A search that begins no child any more when it has spent the epochs of CHILDREN."""
    rng, searcher = random.Random(config.seed), make_searcher(config, config.space.space())
    rungs, stops = way(config.rungs), (*config.rungs.epochs, EPOCHS)
    running: list[tuple[float, int, int]] = []  # (when it comes to its next stop, child, the stop's place)
    proposals: list[Proposal] = []
    curves: list[Curve] = []
    speeds: list[float] = []  # seconds of an epoch
    ended: list[tuple[float, float, bool, float]] = []
    seen: list[Observation] = []
    clock, spent = 0.0, 0

    def train(child: int, place: int) -> None:
        nonlocal spent
        epochs = stops[place] - (stops[place - 1] if place else 0)
        spent += epochs
        heapq.heappush(running, (clock + speeds[child] * epochs, child, place))

    while True:
        for proposal in searcher.propose(WORKERS - len(running)) if spent < CHILDREN * EPOCHS else []:
            proposals.append(proposal)
            curves.append(landscape.curve(proposal, rng))
            speeds.append(rng.uniform(SHORTEST, LONGEST) / EPOCHS)
            train(len(curves) - 1, 0)
        if not running:
            break
        clock, child, place = heapq.heappop(running)
        epoch, accuracy = stops[place], curves[child].at(stops[place])
        if epoch < EPOCHS:
            goes_on = rungs.goes_on(epoch, accuracy)
            rungs.enter(child, epoch, accuracy, goes_on)
            if goes_on:
                train(child, place + 1)
                continue
        else:
            rungs.trained(child, accuracy)
        ended.append((spent, curves[child].worth, epoch == EPOCHS, accuracy))
        seen.append(Observation(proposals[child], accuracy if epoch == EPOCHS else rungs.expected(child)))
        if len(seen) == searcher.batch:
            searcher.observe(seen)
            seen = []
    return Run(*map(np.array, zip(*ended)), np.array([curve.worth for curve in curves]))


def searches(
    searcher: str, kind: str, seeds: range, rungs: RungSettings, way: type[Rungs] = Rungs, spread: float = GAP_SPREAD
) -> list[Run]:
    base = replace(preset("quick"), searcher=searcher, rungs=rungs, child=replace(preset("quick").child, recipe=LONG))
    configs = [replace(base, seed=seed) for seed in seeds]
    return [search(config, Landscape.plant(kind, config, spread), way) for config in configs]


LONG = replace(preset("quick").child.recipe, epochs=EPOCHS)


def figures(runs: Sequence[Run]) -> dict[str, float]:
    """Means over searches with their standard errors."""
    values = {
        "best": [run.best() for run in runs],
        "last trained": [run.worth[run.trained][-LAST:].mean() for run in runs],
        "last proposed": [run.proposed[-LAST:].mean() for run in runs],
    }
    found = {}
    for name, each in values.items():
        found |= {name: float(np.mean(each)), f"{name}, error": float(np.std(each, ddof=1) / len(each) ** 0.5)}
    found |= {"children": float(np.mean([len(run.worth) for run in runs]))}
    return found | {"trained to the end": float(np.mean([run.trained.sum() for run in runs]))}


def epochs_until(runs: Sequence[Run], worth: float) -> float | None:
    """The epochs after which the mean over searches of the best so far is as good; None if it never is."""
    for spent in range(0, (CHILDREN + WORKERS) * EPOCHS, 10):
        if np.mean([run.best(spent) for run in runs]) >= worth:
            return spent
    return None


def correlations(seeds: range, spread: float) -> list[float]:
    """Spearman's rank correlations of random children's accuracies at the rungs with those in the end."""
    found = []
    for kind in KINDS:
        for seed in seeds:
            config, rng = replace(preset("quick"), seed=seed), random.Random(seed)
            landscape, space = Landscape.plant(kind, config, spread), config.space.space()
            curves = [landscape.curve(Proposal(space.sample(rng)), rng) for _ in range(1000)]
            ends = [curve.end for curve in curves]
            found.append([spearmanr([curve.at(epoch) for curve in curves], ends).statistic for epoch in RUNGS])
    return [float(value) for value in np.mean(found, axis=0)]


def compare_searchers() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for spread in (GAP_SPREAD, 0.6 * GAP_SPREAD, 1.5 * GAP_SPREAD):
        table = found.setdefault(f"gap {spread:.3f}", {"correlations": correlations(range(4), spread)})
        for kind in KINDS:
            for searcher in SEARCHERS:
                without = searches(searcher, kind, range(SEEDS), RungSettings(), spread=spread)
                with_rungs = searches(searcher, kind, range(SEEDS), RungSettings(RUNGS), spread=spread)
                row = {"without": figures(without), "with": figures(with_rungs)}
                until = epochs_until(with_rungs, row["without"]["best"])
                row["with"]["epochs until as good"] = until
                row["without"]["epochs until as good"] = epochs_until(without, row["without"]["best"])
                table[f"{kind}, {searcher}"] = row
                show(f"gap {spread:.3f}, {kind}, {searcher}", row)
    return found


def compare_rewards() -> dict[str, Any]:
    return _chosen({name: (RungSettings(RUNGS), way) for name, way in WAYS.items()})


def compare_rules() -> dict[str, Any]:
    rules = [(keep, way) for way in (Rungs, AmongTheLast) for keep in (1 / 3, 1 / 2, 2 / 3)]
    names = {Rungs: "all so far", AmongTheLast: f"the last {RECENT}"}
    return _chosen({f"{keep:.0%} of {names[way]}": (RungSettings(RUNGS, keep), way) for keep, way in rules})


def _chosen(rows: dict[str, tuple[RungSettings, type[Rungs]]]) -> dict[str, Any]:
    """By kind of reward, searcher and name of the row."""
    found: dict[str, Any] = {}
    for kind in KINDS:
        for searcher in SEARCHERS:
            found[f"{kind}, {searcher}"] = row = {
                name: figures(searches(searcher, kind, range(CHOOSE, CHOOSE + CHOOSING), *how))
                for name, how in {"without": (RungSettings(), Rungs), **rows}.items()
            }
            show(f"{kind}, {searcher}", row)
    return found


def show(name: str, rows: dict[str, Any]) -> None:
    print(name)
    for row, values in rows.items():
        said = [
            f"{k} {values[k]:.2f} +- {values[f'{k}, error']:.2f}" for k in ("best", "last trained", "last proposed")
        ]
        said.append(f"{values['trained to the end']:.0f} of {values['children']:.0f} trained to the end")
        if values.get("epochs until as good"):
            said.append(f"as good after {values['epochs until as good']:,} epochs")
        print(f"    {row}: {', '.join(said)}", flush=True)


def real(data: str, folder: str, children: int) -> None:
    """Random search on CIFAR-10 with children of REAL_EPOCHS epochs: once so that all go on, once with the default
    rungs. What other orders of the same children would have saved is computed from their curves."""
    quick = preset("quick")
    child = replace(quick.child, data=data, recipe=replace(quick.child.recipe, epochs=REAL_EPOCHS))
    config = replace(quick, searcher="random", child=child, children=children, fleet=FleetSettings("inline"))
    for name, keep in (("all go on", ALL), ("with rungs", RungSettings().keep)):
        run(replace(config, folder=f"{folder}/{name.replace(' ', '-')}", rungs=RungSettings(REAL_RUNGS, keep)))
    whole, stopped = (read_children(f"{folder}/{name}") for name in ("all-go-on", "with-rungs"))
    same = [(a["metrics"], b["metrics"]) for a, b in zip(whole, stopped) if b["status"] == "done"]
    assert all(a == b for a, b in same), "a child that was never stopped is another one with rungs"
    curves = np.array(real_curves(f"{folder}/all-go-on"))
    rng, saved, lost, kept = np.random.default_rng(0), [], [], []
    for _ in range(ORDERS):
        epochs, best = in_order(curves[rng.permutation(len(curves))])
        saved.append(1 - epochs / (REAL_EPOCHS * len(curves)))
        lost.append(curves[:, -1].max() - best)
        kept.append(lost[-1] == 0)
    ends = [row["reward"] for row in stopped if row["status"] == "done"]
    record = {
        "children": children,
        "correlations": [
            float(spearmanr(curves[:, place], curves[:, -1]).statistic) for place in range(len(REAL_RUNGS))
        ],
        "one search": {
            "epochs saved": saved_epochs(read_history(f"{folder}/with-rungs")),
            "best": [float(curves[:, -1].max()), max(ends)],
        },
        "orders": {
            "epochs saved": float(np.mean(saved)),
            "best lost": float(np.mean(lost)),
            "best kept": float(np.mean(kept)),
            "spread": float(curves[:, -1].std()),
        },
    }
    print(json.dumps(record, indent=1))
    write("search_rungs_real", record)


def real_curves(folder: str) -> list[list[float]]:
    """Each child's accuracies at the rungs and in the end."""
    _, events = read_events(Path(folder) / JOURNAL)
    curves: dict[int, list[float]] = {}
    for event in events:
        if event.kind in ("reported", "finished"):
            curves.setdefault(event.child, []).append(event.body["metrics"]["accuracy"])
    return [curves[child] for child in sorted(curves)]


def in_order(curves: np.ndarray) -> tuple[int, float]:
    """(epochs trained, best accuracy in the end) if children with such curves come one after another."""
    rungs, stops = Rungs(RungSettings(REAL_RUNGS)), (*REAL_RUNGS, REAL_EPOCHS)
    epochs, best = 0, 0.0
    for child, curve in enumerate(curves):
        for epoch, accuracy in zip(stops, curve):
            goes_on = epoch == REAL_EPOCHS or rungs.goes_on(epoch, accuracy)
            if epoch < REAL_EPOCHS:
                rungs.enter(child, epoch, accuracy, goes_on)
            if not goes_on:
                break
        epochs += epoch
        best = max(best, accuracy) if epoch == REAL_EPOCHS else best
    return epochs, best


PARTS = {"searchers": compare_searchers, "rewards": compare_rewards, "rules": compare_rules}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--real", action="store_true")
    parser.add_argument("--data")
    parser.add_argument("--folder", default="runs/rungs")
    parser.add_argument("--children", type=int, default=96)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.real:
        real(arguments.data, arguments.folder, arguments.children)
        return
    path = RESULTS / "search_rungs.json"
    record = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for part in arguments.parts:
        print(part)
        record[part] = PARTS[part]()
        write("search_rungs", {key: value for key, value in record.items() if key != "machine"})


if __name__ == "__main__":
    main()
