"""PPO, REINFORCE and evolution against random search on the real accuracies of 15,625 NAS-Bench-201 cells: 500
evaluations each, many seeds; searches see the validation column and are judged by the test accuracy of the cell with
the best validation accuracy. Mann-Whitney's U test, one-sided, against random's.

    python benchmarks/search_tabular.py --table FILE.csv [--seeds 50]
    python benchmarks/search_tabular.py --table FILE.csv --choose      the grid behind the preset, on CIFAR-100

The preset `tabular` was chosen with --choose, on the CIFAR-100 columns alone; the figures are those of CIFAR-10 and
ImageNet16-120, whose columns nothing was chosen on.
"""

import argparse
from dataclasses import replace

import numpy as np
import torch
from common import RESULTS, write
from scipy.stats import mannwhitneyu

from nasnet_zoo.search.children.nasbench import read_table
from nasnet_zoo.search.config import SearchConfig
from nasnet_zoo.search.presets import preset
from nasnet_zoo.search.searchers.base import Observation
from nasnet_zoo.search.searchers.table import make_searcher

SEARCHERS = ("random", "evolution", "ppo", "reinforce")
SETS = {"cifar10": "CIFAR-10", "imagenet": "ImageNet16-120"}  # the table's columns, and what is in them


def search(config: SearchConfig, table: dict[str, tuple[float, float]]) -> tuple[float, np.ndarray]:
    """(test accuracy of the cell with the best validation accuracy, the best validation accuracy after each child)."""
    space = config.space.space()
    searcher = make_searcher(config, space)
    seen: list[tuple[float, float]] = []
    while len(seen) < config.children:
        proposals = searcher.propose(min(searcher.batch, config.children - len(seen)))
        results = [table[space.decode(proposal.tokens)] for proposal in proposals]
        searcher.observe([Observation(p, validation / 100) for p, (validation, _) in zip(proposals, results)])
        seen += results
    return max(seen)[1], np.maximum.accumulate([validation for validation, _ in seen])


def runs(config: SearchConfig, table, seeds: range) -> tuple[np.ndarray, np.ndarray]:
    found = [search(replace(config, seed=seed), table) for seed in seeds]
    return np.array([test for test, _ in found]), np.array([curve for _, curve in found])


def choose(path: str) -> None:
    """Prints a grid of learning rates, epochs with clips of one of the ratios, and weights of the entropy, with
    evolution beside it, on CIFAR-100 and with seeds that the figures do not use."""
    table, base = read_table(path, "cifar100"), preset("tabular")
    configs = {"evolution": replace(base, searcher="evolution")}
    for rate in (1e-2, 2e-2):
        for ratio, epochs, clip in (
            ("decision", 1, 0.2),
            ("decision", 2, 0.2),
            ("decision", 3, 0.3),
            ("decision", 5, 0.2),
            ("sequence", 2, 0.2),
            ("sequence", 5, 0.2),
        ):
            for entropy in (0.05, 0.1, 0.2, 0.3):
                given = dict(learning_rate=rate, epochs=epochs, clip=clip, ratio=ratio, entropy_weight=entropy)
                name = f"ppo, learning rate {rate:g}, {epochs} epochs, clip {clip:g} per {ratio}, entropy {entropy:g}"
                configs[name] = replace(base, controller=replace(base.controller, **given))
    for name, config in configs.items():
        tests, _ = runs(config, table, range(1000, 1060))
        print(f"{name}: {tests.mean():.3f} +- {tests.std() / len(tests) ** 0.5:.3f}", flush=True)


def plot(curves: dict[str, np.ndarray], best: float) -> None:
    """docs/search-tabular.png: the best validation accuracy so far, mean and standard error over seeds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for name, values in curves.items():
        x, mean, error = np.arange(1, values.shape[1] + 1), values.mean(0), values.std(0) / len(values) ** 0.5
        axes.plot(x, mean, label=name)
        axes.fill_between(x, mean - error, mean + error, alpha=0.2)
    axes.axhline(best, color="grey", linewidth=0.8, linestyle=":")
    axes.set(xlabel="evaluations", ylabel="best validation accuracy so far, %", ylim=(81.5, best + 0.2))
    axes.legend(frameon=False)
    figure.savefig(RESULTS.parents[1] / "docs" / "search-tabular.png", dpi=110)


def compare(path: str, which: str, seeds: range) -> tuple[dict[str, dict[str, float]], dict[str, np.ndarray], float]:
    """(each searcher's figures, the curves behind them, the best validation accuracy of the table)."""
    table, base = read_table(path, which), preset("tabular")
    configs = {name: replace(base, searcher=name) for name in SEARCHERS}
    configs["ppo, the paper's preset"] = replace(base, controller=preset("nasnet-paper").controller)
    found: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    record = {}
    for name, config in configs.items():
        tests, _ = found[name] = runs(config, table, seeds)
        p = mannwhitneyu(tests, found["random"][0], alternative="greater").pvalue
        record[name] = {"mean": tests.mean(), "error": tests.std() / len(tests) ** 0.5, "best": tests.max(), "p": p}
        figures = f"test {tests.mean():.3f} +- {record[name]['error']:.3f}, best {tests.max():.2f}, p = {p:.2g}"
        print(f"{which}, {name}: {figures}", flush=True)
    best = max(table.values())
    record["best of the table"] = {"validation": best[0], "test": max(test for _, test in table.values())}
    return record, {name: curves for name, (_, curves) in found.items()}, best[0]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--table", required=True)
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--choose", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.choose:
        choose(arguments.table)
        return
    record = {}
    for which, name in SETS.items():
        record[name], curves, best = compare(arguments.table, which, range(arguments.seeds))
        if which == "cifar10":
            plot(curves, best)
    write("search_tabular", {"seeds": arguments.seeds, "evaluations": preset("tabular").children, **record})


if __name__ == "__main__":
    main()
