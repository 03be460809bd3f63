"""From pictures of one's own to an exported network: a small search on class folders, its best cell at a size that is
asked for, trained on the same pictures, and written as a graph.

    python benchmarks/search_own_data.py --data DIR [--folder runs/own] [--children 60] [--epochs 10]
                                         [--child-madds 2e6] [--madds 20e6]

The settings are the preset `quick`'s with regularized evolution, as far as the data have so many pictures. A child that
needs more multiply-adds than --child-madds loses reward in proportion: exponents 0 and -1 of MnasNet's form. The
network has the CIFAR stem at 32 px. Interrupted, the script goes on; a child takes some seconds on one core, and the
training most of the rest. It writes the first and the last children's cost against the target, the best cells'
multiply-adds as children and at full size, where the target is --madds, and the accuracies on the same validation
pictures, which chose the cell: they are above what new pictures would give.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from common import write

import nasnet_zoo
from nasnet_zoo.arch.cost import network_cost
from nasnet_zoo.data.labels import as_label_set, with_classes
from nasnet_zoo.export import to_onnx
from nasnet_zoo.lookup import BEST, read_architecture
from nasnet_zoo.search import SearchConfig, Target, run, transfer
from nasnet_zoo.search.history import read_history
from nasnet_zoo.search.own_data import for_own_data
from nasnet_zoo.search.presets import changed, preset
from nasnet_zoo.search.reranking import distinct_best
from nasnet_zoo.training.recipes import find_recipe

CELLS = 5  # the best, whose costs are shown
GROUP = 20  # children, the first and the last
SIDE = 32


def search_config(data: str, folder: Path, children: int, madds: float) -> SearchConfig:
    """The search, with the preset's numbers of pictures or as many as there are."""
    changes = {"folder": str(folder), "child.data": data, "children": children, "searcher": "evolution"}
    changes |= {"cost.measure": "multiply_adds", "cost.target": madds, "cost.exponent": 0.0, "cost.beyond": -1.0}
    changes, notes = for_own_data(preset("quick"), changes)
    print(*notes, sep="\n", flush=True)
    return changed(preset("quick"), changes)


def costs(folder: Path, madds: float) -> list[dict[str, float]]:
    """Of the best cells, the best first: the reward, and multiply-adds as the search's child and at the target."""
    history = read_history(folder)
    found = []
    for record in distinct_best(history.finished, CELLS):
        cell = history.space.decode(record.tokens)
        child = network_cost(history.config.child.network(cell, history.space.kind)).multiply_adds
        whole = network_cost(transfer(cell, Target(madds), stem="cifar", size=SIDE)).multiply_adds
        costs = {"child": child, "network": whole, "share": whole / madds}
        found.append({"reward": record.reward, "accuracy": record.metrics["accuracy"]} | costs)
    return found


def against_target(folder: Path) -> dict[str, dict[str, float]]:
    """Of the first children, which are random, and of the last: the mean of their cost's share of the search's target,
    how many are above it, and their mean accuracy."""
    history = read_history(folder)
    metrics = [record.metrics for record in history.finished if record.status == "done"]
    found = {}
    for name, part in (("first", metrics[:GROUP]), ("last", metrics[-GROUP:])):
        shares = np.array([each["multiply_adds"] for each in part]) / history.config.cost.target
        accuracy = float(np.mean([each["accuracy"] for each in part]))
        found[name] = {"share": float(shares.mean()), "above": int((shares > 1).sum()), "accuracy": accuracy}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="class folders, or train/ and val/ with them")
    parser.add_argument("--folder", type=Path, default=Path("runs/own"))
    parser.add_argument("--children", type=int, default=60)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--child-madds", type=float, default=2e6, help="multiply-adds of a child, the search's target")
    parser.add_argument("--madds", type=float, default=20e6, help="multiply-adds of the transferred network")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    search, trained, graph = (arguments.folder / name for name in ("search", "trained", "graph"))

    result = run(search_config(arguments.data, search, arguments.children, arguments.child_madds))
    best = read_architecture(search / BEST)
    config = transfer(best.architecture, Target(arguments.madds), kind=best.kind, stem="cifar", size=SIDE)
    torch.manual_seed(0)
    network = nasnet_zoo.create(with_classes(config, labels=as_label_set(best.labels)))
    recipe = find_recipe("scratch", {"epochs": arguments.epochs})
    epochs = nasnet_zoo.train(network, best.data, recipe, folder=trained, workers=1, on_epoch=print)
    report = to_onnx(network, graph)

    history, cells = read_history(search), costs(search, arguments.madds)
    shares = against_target(search)
    for name, row in shares.items():
        said = "{share:.0%} of the target on average, {above} above it, accuracy {accuracy:.2%}".format(**row)
        print(f"the {name} {GROUP} children: {said}")
    for cell in cells:
        print("reward {reward:.4f}: {child:,} as a child, {network:,} at full size, {share:.1%}".format(**cell))
    cost, top1 = network_cost(network.config), epochs[-1].metrics["top1"]
    print(
        f"{len(best.labels)} classes: the best child has {result.best.metrics['accuracy']:.2%}, the network {top1:.2%}"
    )
    child = history.config.child
    record = {
        "data": {"classes": len(best.labels), "pictures": child.pictures, "validation": child.validation},
        "search": {"children": result.children, "seconds": history.seconds, "best": result.best.reward},
        "child target": arguments.child_madds,
        "against the target": shares,
        "target": arguments.madds,
        "cells": cells,
        "network": {"multiply_adds": cost.multiply_adds, "parameters": cost.parameters},
        "training": {"epochs": len(epochs), "seconds": sum(epoch.seconds for epoch in epochs), "top1": top1},
        "graph": {"nodes": report.nodes, "relative_error": max(check.relative_error for check in report.checks)},
    }
    write("search_own_data", record)


if __name__ == "__main__":
    main()
