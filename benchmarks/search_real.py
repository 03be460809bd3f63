"""A real search with real children on CIFAR-10, small enough for a CPU: PPO's controller against random search with
the same child seeds, and a permutation test between the rewards of their last 100 children.

    python benchmarks/search_real.py --data DIR [--folder runs/real] [--children 320] [--only ppo]

Two searches of 320 children take about half an hour on two cores if each is started with --only in a process of its
own; the call without it then only compares. Interrupted, it goes on.
"""

import argparse

import numpy as np
import torch
from common import write

from nasnet_zoo.search import ChildSettings, ControllerSettings, SearchConfig, SpaceSettings, run
from nasnet_zoo.search.history import read_history
from nasnet_zoo.train.recipe import Recipe

LAST = 100
# Three blocks per cell, one normal cell per stage, 8 filters, 16 px, one epoch of 2,000 pictures: a few seconds each.
CHILD = dict(filters=8, cells=1, stem=2.0, side=16, pictures=2000, validation=2000, calibration=256)
RECIPE = Recipe(1, 50, 0.1, warmup_epochs=0.2, pad=2)
# Chosen on simulated rewards (additive over decisions, with these children's spread and noise), not on this search.
CONTROLLER = ControllerSettings(learning_rate=0.01, normalise=True)


def config(searcher: str, arguments: argparse.Namespace) -> SearchConfig:
    return SearchConfig(
        f"{arguments.folder}/{searcher}",
        SpaceSettings("nasnet", blocks=3),
        searcher,
        CONTROLLER,
        child=ChildSettings(data=arguments.data, recipe=RECIPE, **CHILD),
        children=arguments.children,
    )


def rewards(folder: str) -> np.ndarray:
    """Every child's reward, in the order in which they finished."""
    return np.array([record.reward for record in read_history(folder).finished])


def permutation_test(a: np.ndarray, b: np.ndarray, rounds: int = 100_000, seed: int = 0) -> float:
    """The share of random relabellings in which mean(a) - mean(b) is at least as large as it is (one-sided)."""
    rng, both, observed = np.random.default_rng(seed), np.concatenate([a, b]), a.mean() - b.mean()
    reached = 0
    for _ in range(rounds):
        rng.shuffle(both)
        reached += both[: len(a)].mean() - both[len(a) :].mean() >= observed - 1e-12
    return (reached + 1) / (rounds + 1)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True)
    parser.add_argument("--folder", default="runs/real")
    parser.add_argument("--children", type=int, default=320)
    parser.add_argument("--only", choices=("ppo", "random"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for searcher in [arguments.only] if arguments.only else ["ppo", "random"]:
        run(config(searcher, arguments))
    if arguments.only:
        return
    found = {searcher: rewards(f"{arguments.folder}/{searcher}") for searcher in ("ppo", "random")}
    last = {searcher: values[-LAST:] for searcher, values in found.items()}
    p = permutation_test(last["ppo"], last["random"])
    for searcher, values in found.items():
        tail = last[searcher]
        print(
            f"{searcher}: {len(values)} children, last {LAST}: mean {tail.mean():.4f}, best of all {values.max():.4f}"
        )
    print(f"permutation test, PPO's last {LAST} against random's: p = {p:.5f}")
    record = {s: {"mean": v.mean(), "deviation": v.std(), "best": found[s].max()} for s, v in last.items()}
    write("search_real", {"children": arguments.children, "last": LAST, **record, "p": p})


if __name__ == "__main__":
    main()
