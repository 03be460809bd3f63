"""A real search with real children on CIFAR-10, small enough for a CPU: PPO's controller against random search with
the same child seeds, and a permutation test between the rewards of their last 100 children.

    python benchmarks/search_real.py --data DIR [--folder runs/real] [--only ppo]
    python benchmarks/search_real.py --choose      the simulated rewards behind the preset's learning rate

Two searches of 320 children take about half an hour on two cores if each is started with --only in a process of its
own; the call without it then only compares. Interrupted, it goes on.
"""

import argparse
from dataclasses import replace

import numpy as np
import torch
from common import write
from scipy.stats import permutation_test

from nasnet_zoo.search.config import SearchConfig
from nasnet_zoo.search.history import read_history
from nasnet_zoo.search.presets import preset
from nasnet_zoo.search.runner import run
from nasnet_zoo.search.searchers.base import Observation
from nasnet_zoo.search.searchers.controller import Controller

LAST = 100
# Of 16 random children, each trained twice: mean accuracy, its deviation between cells and between seeds.
MEAN, SPREAD, NOISE = 0.216, 0.033, 0.011


def config(searcher: str, arguments: argparse.Namespace) -> SearchConfig:
    """The preset `quick`, with that searcher."""
    quick = preset("quick")
    child = replace(quick.child, data=arguments.data)
    return replace(quick, folder=f"{arguments.folder}/{searcher}", searcher=searcher, child=child)


def choose(seeds: int = 4) -> None:
    """How far the last 100 of 320 simulated rewards come above the mean, in deviations between cells, for a grid of
    learning rates and batches. A reward is a sum over the decisions, drawn at random, and noise."""
    quick = preset("quick")
    space = quick.space.space()
    for batch in (10, 20):
        for rate in (5e-3, 1e-2, 2e-2):
            gains = []
            for seed in range(seeds):
                rng = np.random.default_rng(seed)
                worth = [rng.normal(size=d.choices) * (0.3 if "state" in d.name else 1) for d in space.decisions]
                scale = SPREAD / sum(w.var() for w in worth) ** 0.5
                controller = Controller(space, replace(quick.controller, batch=batch, learning_rate=rate), seed)
                found: list[float] = []
                while len(found) < quick.children:
                    proposals = controller.propose(batch)
                    sums = [sum(w[t] for w, t in zip(worth, p.tokens)) for p in proposals]
                    batch_rewards = [MEAN + scale * s + rng.normal() * NOISE for s in sums]
                    controller.observe([Observation(p, r) for p, r in zip(proposals, batch_rewards)])
                    found += batch_rewards
                gains.append((np.mean(found[-LAST:]) - MEAN) / SPREAD)
            print(f"batch {batch}, learning rate {rate:g}: {np.mean(gains):.2f} ({np.round(gains, 2)})", flush=True)


def rewards(folder: str) -> np.ndarray:
    """Every child's reward, in the order in which they finished."""
    return np.array([record.reward for record in read_history(folder).finished])


def by_chance(a: np.ndarray, b: np.ndarray, rounds: int = 100_000) -> float:
    """The share of random relabellings in which mean(a) - mean(b) is at least as large as it is (one-sided)."""

    def gain(a: np.ndarray, b: np.ndarray, axis: int) -> np.ndarray:
        return a.mean(axis) - b.mean(axis)

    test = permutation_test((a, b), gain, n_resamples=rounds, batch=10_000, alternative="greater", rng=0)
    return float(test.pvalue)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data")
    parser.add_argument("--folder", default="runs/real")
    parser.add_argument("--only", choices=("ppo", "random"))
    parser.add_argument("--choose", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.choose:
        choose()
        return
    for searcher in [arguments.only] if arguments.only else ["ppo", "random"]:
        run(config(searcher, arguments))
    if arguments.only:
        return
    found = {searcher: rewards(f"{arguments.folder}/{searcher}") for searcher in ("ppo", "random")}
    last = {searcher: values[-LAST:] for searcher, values in found.items()}
    p = by_chance(last["ppo"], last["random"])
    for searcher, values in found.items():
        tail = last[searcher]
        print(
            f"{searcher}: {len(values)} children, last {LAST}: mean {tail.mean():.4f}, best of all {values.max():.4f}"
        )
    print(f"permutation test, PPO's last {LAST} against random's: p = {p:.5f}")
    record = {s: {"mean": v.mean(), "deviation": v.std(), "best": found[s].max()} for s, v in last.items()}
    write("search_real", {"children": len(found["ppo"]), "last": LAST, **record, "p": p})


if __name__ == "__main__":
    main()
