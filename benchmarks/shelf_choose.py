"""How the network that is shipped was chosen: the speed of each way to train it, and short runs on a held-back part.

    python benchmarks/shelf_choose.py speed  --data DIR                 pictures per second; idle machine, ten minutes
    python benchmarks/shelf_choose.py choose --data DIR [--only NAME ...]     a quarter of an hour a run, resumed

A run learns from the first 20,000 of CIFAR-10's training pictures and is measured on the last 5,000 of them; the test
pictures are not read. "shipped" is the network that was chosen, the others differ from it in what their names say:
fewer cells a stage, but wider ones, of as many parameters; another learning rate; NASNet-A's cells in their place, with
as many multiply-adds.
"""

import argparse
import json
import statistics
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from common import add_options, in_a_sentence, machine, results, write

import nasnet_zoo
from nasnet_zoo.arch.config import NetworkConfig
from nasnet_zoo.arch.cost import network_cost
from nasnet_zoo.arch.genotypes import GENOTYPES
from nasnet_zoo.data.cifar import Pictures, load_cifar10
from nasnet_zoo.registry import MODELS
from nasnet_zoo.search import Target, transfer
from nasnet_zoo.training.history import spent
from nasnet_zoo.training.loop import train
from nasnet_zoo.training.recipe import Recipe
from nasnet_zoo.training.tasks.classify import Classify

ROOT = Path(__file__).parents[1]
RUNS = ROOT / "runs" / "shelf-choose"
PARAMETERS = 1e6
LEARNED, HELD_BACK = 20_000, 5_000
TIMED_STEPS = 8

BASE = Recipe(8, 128, 0.2, label_smoothing=0.1, sizes=((0, 16), (4, 24), (7, 32)))
SHIPPED = MODELS["quick-ppo-cifar"].config


def cells(count: int) -> NetworkConfig:
    """The widest network of the shipped one's cell with so many normal cells per stage and a million parameters."""
    return transfer(SHIPPED.architecture, Target(parameters=PARAMETERS, cells=count), stem="cifar", auxiliary=False)


def nasnet_a() -> NetworkConfig:
    """NASNet-A as wide as the shipped network, and as deep as its multiply-adds allow: to 1.7 per cent."""
    return replace(SHIPPED, architecture=GENOTYPES["NASNet-A"], scale=replace(SHIPPED.scale, stages=(6, 5, 5)))


RUN = {  # name: (network, recipe)
    "shipped": (SHIPPED, BASE),
    "NASNet-A": (nasnet_a(), BASE),
    "rate 0.1": (SHIPPED, replace(BASE, learning_rate=0.1)),
    "rate 0.4": (SHIPPED, replace(BASE, learning_rate=0.4)),
    "one cell": (cells(1), BASE),
    "four cells": (cells(4), BASE),
}
WAYS = {  # name: (threads, changes of the recipe)
    "float32": (2, {}),
    "one thread": (1, {}),
    "not channels_last": (2, {"channels_last": False}),
    "batch 32": (2, {"batch_size": 32}),
    "24 px": (2, {"sizes": ((0, 24),)}),
    "16 px": (2, {"sizes": ((0, 16),)}),
    "bfloat16": (2, {"precision": "bfloat16"}),
    "compiled": (2, {"compile": True}),
}


def choose(pictures: Pictures, names: list[str], rehearse: bool) -> None:
    count = len(pictures)
    held_back = pictures.subset(torch.arange(count - (200 if rehearse else HELD_BACK), count))
    learned = pictures.subset(torch.arange(256 if rehearse else LEARNED))
    path = results(rehearse) / "shelf_choose.json"
    for name in names or RUN:
        config, recipe = RUN[name]
        torch.manual_seed(0)
        network = nasnet_zoo.create(config)
        task = Classify(learned, recipe, config.preprocess, held_back)
        folder = None if rehearse else RUNS / name.replace(" ", "-")
        done = train(network, task, recipe, folder=folder, on_epoch=partial(print, name, flush=True))
        cost = network_cost(config)
        record = {"accuracy": task.evaluate(network)["top1"], **spent(done, task.steps * recipe.batch_size)}
        record |= {"parameters": cost.parameters, "multiply_adds": cost.multiply_adds, "losses": [e.loss for e in done]}
        record |= {"precision": recipe.precision, "threads": torch.get_num_threads(), "machine": machine()}
        print(name, record["accuracy"], flush=True)
        known = json.loads(path.read_text()) if path.exists() else {}
        known.pop("machine", None)
        write("shelf_choose", {**known, name: record}, rehearse)


def speed(pictures: Pictures, names: list[str], rehearse: bool) -> None:
    found: dict[str, dict[str, float]] = {}
    for run in ("shipped", "NASNet-A"):
        config, _ = RUN[run]
        for name, (threads, changes) in WAYS.items():
            torch.set_num_threads(threads)
            recipe = replace(BASE, epochs=1, sizes=(), **changes)
            torch.manual_seed(0)
            network = nasnet_zoo.create(config)
            marks: list[float] = []
            some = pictures.subset(torch.arange(recipe.batch_size * (TIMED_STEPS + 3)))
            task = Classify(some, recipe, config.preprocess)
            train(network, task, recipe, on_step=partial(_mark, marks))
            steps = [after - before for before, after in zip(marks[2:], marks[3:])]
            found.setdefault(run, {})[name] = recipe.batch_size / statistics.median(steps)
            print(f"{run:10} {name:20} {found[run][name]:6.0f} pictures/s", flush=True)
    write("shelf_speed", {"pictures_per_second": found}, rehearse)


def _mark(marks: list[float], *place: int) -> None:
    marks.append(time.perf_counter())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("speed", "choose"))
    parser.add_argument("--only", nargs="*", default=[], choices=RUN, metavar="NAME", help="some of the runs")
    parser.add_argument("--data", required=True)
    add_options(parser)
    arguments = parser.parse_args()
    pictures = load_cifar10(arguments.data, train=True)
    {"speed": speed, "choose": choose}[arguments.part](pictures, arguments.only, arguments.rehearse)


if __name__ == "__main__":
    in_a_sentence(main)
