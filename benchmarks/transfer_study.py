"""Do cells that are found on CIFAR-10 transfer? Networks of equal multiply-adds on 50 classes of Tiny ImageNet.

    python benchmarks/transfer_study.py --data DIR --tiny DIR    trains what is not trained yet, on one core
    python benchmarks/transfer_study.py --table                  only prints the results so far

`--data` holds CIFAR-10 and `--tiny` Tiny ImageNet's class folders, train/ and val/. Run in several terminals, it shares
the work among them; stopped, the same command goes on. What is in benchmarks/results/transfer_study.json is not
trained again. Eighteen trainings answer the question (six networks, three seeds); then each cell is trained on CIFAR-10
too, and seven more random cells once on both, which gives the correlation.

Every network has the ImageNet stem, two normal cells a stage, and 10 million multiply-adds for a picture of 64 px, to
two percent: the filters are the nearest whole number, and the width of the stem makes up for the rest. On CIFAR-10 it
is 20 million at 32 px, with one cell a stage. Of CIFAR-10's training pictures the first 25,000 are used. The recipe is
one for all, and was tuned for none.
"""

import argparse
import json
import random
import shutil
import statistics
from collections.abc import Iterable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import add_options, in_a_sentence, machine, results, write
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

import nasnet_zoo
from nasnet_zoo.arch.config import NetworkConfig
from nasnet_zoo.arch.cost import network_cost
from nasnet_zoo.arch.genotype import Genotype
from nasnet_zoo.arch.genotypes import GENOTYPES
from nasnet_zoo.arch.kinds import Sizing, get_kind, kind_of
from nasnet_zoo.data.cifar import Pictures, load_cifar10
from nasnet_zoo.data.classes import class_folders
from nasnet_zoo.errors import BusyError, ConfigError
from nasnet_zoo.networks.network import Network
from nasnet_zoo.search.spaces.table import get_space
from nasnet_zoo.training.history import spent
from nasnet_zoo.training.loop import train
from nasnet_zoo.training.recipe import Recipe
from nasnet_zoo.training.tasks.classify import Classify
from nasnet_zoo.util.files import atomic_file, locked

ROOT = Path(__file__).parents[1]
CELLS = ("NASNet-A", "Quick-PPO", "random 0", "random 1", "random 2")
PEER = "ShuffleNetV2"
MORE = tuple(f"random {index}" for index in range(3, 10))
SEEDS = 3
TOLERANCE = 0.02
CLASSES = 50
STEMS = {"tiny": range(20, 45), "cifar10": range(8, 81)}
BUDGETS = {"tiny": 10e6, "cifar10": 20e6}  # multiply-adds
RECIPES = {
    "tiny": Recipe(12, 64, 0.05, label_smoothing=0.1, pad=8, sizes=((0, 32), (6, 48), (10, 64))),
    "cifar10": Recipe(8, 64, 0.05, label_smoothing=0.1, pad=3, sizes=((0, 16), (4, 24), (7, 32))),
}


def genotype(name: str) -> Genotype:
    """A published cell, the one that this project's search found, or a random one of the space of that search."""
    if name in GENOTYPES:
        return GENOTYPES[name]
    space = get_space("nasnet", blocks=3)
    return space.decode(space.sample(random.Random(int(name.split()[1]))))


def config_of(name: str, data: str) -> NetworkConfig:
    """The network of a cell whose multiply-adds are the budget's, within the tolerance.

    Of the stems that make this possible it has the one nearest to the usual width."""
    architecture, budget = genotype(name), BUDGETS[data]
    if data == "tiny":
        sizing = Sizing(2, 16, "imagenet", 64, CLASSES)
    else:
        sizing = Sizing(1, 16, "cifar10", 32, 10)
    config = get_kind(kind_of(architecture)).sized(architecture, sizing)
    best: tuple[float, NetworkConfig] | None = None
    for filters in range(8, 65):
        usual = 32 if data == "tiny" else 3 * filters
        plain = with_widths(config, filters, usual)
        if abs(network_cost(plain).multiply_adds / budget - 1) > 0.25:
            continue
        for stem in STEMS[data]:
            one = with_widths(config, filters, stem)
            off = abs(network_cost(one).multiply_adds / budget - 1)
            if off <= TOLERANCE and (best is None or abs(stem / usual - 1) < best[0]):
                best = abs(stem / usual - 1), one
    assert best is not None, f"no network of {name} has {budget:g} multiply-adds"
    return best[1]


def with_widths(config: NetworkConfig, filters: int, stem: int) -> NetworkConfig:
    return replace(config, scale=replace(config.scale, filters=filters, stem_channels=stem, aux_size=None))


class Peer(Network):
    """torchvision's ShuffleNetV2, as wide as the budget allows. Of the config only the preprocessing is read."""

    def __init__(self, config: NetworkConfig, seed: int) -> None:
        super().__init__(config)
        best = min(range(24, 200, 2), key=lambda width: abs(counted(shuffle_net(width)) - BUDGETS["tiny"]))
        torch.manual_seed(seed)
        self.network = shuffle_net(best)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network(x)


def shuffle_net(width: int) -> torch.nn.Module:
    from torchvision.models import ShuffleNetV2

    return ShuffleNetV2([4, 8, 4], [24, width, 2 * width, 4 * width, 1024], num_classes=CLASSES)


def counted(network: torch.nn.Module) -> float:
    """The multiply-adds of a picture of 64 px."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.eval()(torch.zeros(1, 3, 64, 64))
    network.train()
    return counter.get_total_flops() / 2


def create(name: str, data: str, seed: int) -> tuple[Network, float, int]:
    """(a network with fresh weights, its multiply-adds, its parameters)."""
    torch.manual_seed(seed)
    if name == PEER:
        network: Network = Peer(config_of("NASNet-A", data), seed)
        assert abs(counted(network) / BUDGETS[data] - 1) <= TOLERANCE
        return network, counted(network), sum(parameter.numel() for parameter in network.parameters())
    config = config_of(name, data)
    return nasnet_zoo.create(config), network_cost(config).multiply_adds, network_cost(config).parameters


@cache
def pictures(data: str, folder: str, rehearse: bool) -> tuple[Pictures, Pictures]:
    """What is learned from, and what is measured on: CIFAR-10's test pictures, or Tiny ImageNet's for validation."""
    if data == "cifar10":
        found = load_cifar10(folder, train=True).subset(torch.arange(25_000)), load_cifar10(folder, train=False)
    else:
        both = class_folders(folder)
        found = tuple(_decoded(part[:: 30 if rehearse else 1]) for part in (both.train, both.val))
    return tuple(each.subset(torch.arange(min(128, len(each)))) for each in found) if rehearse else found


def _decoded(labelled: Any) -> Pictures:
    images = np.stack([np.asarray(Image.open(path).convert("RGB")) for path, _ in labelled])
    labels = torch.tensor([label for _, label in labelled])
    return Pictures(torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), labels)


def perform(name: str, data: str, seed: int, folder: str, runs: Path, rehearse: bool) -> None:
    """Trains one network and writes its result, unless that is there or another process is at it."""
    run = runs / f"{data}-{name.replace(' ', '-')}-{seed}"
    result = run.with_suffix(".json")
    try:
        with locked(result, timeout=0.0):
            if (name, data, seed) in trained(runs, rehearse):
                return
            learned, measured = pictures(data, folder, rehearse)
            recipe = replace(RECIPES[data], epochs=1, sizes=((0, 32),)) if rehearse else RECIPES[data]
            network, multiply_adds, parameters = create(name, data, seed)
            task = Classify(learned, recipe, network.config.preprocess, measured)
            said = partial(print, f"{data} {name} {seed}:", flush=True)
            epochs = train(network, task, recipe, seed=seed, folder=run, on_epoch=said)
            record = {"name": name, "data": data, "seed": seed, **task.evaluate(network)}
            record |= {"multiply_adds": multiply_adds, "parameters": parameters}
            record |= spent(epochs, task.steps * recipe.batch_size) | {"losses": [epoch.loss for epoch in epochs]}
            if not isinstance(network, Peer):
                scale = network.config.scale
                record |= {"filters": scale.filters, "stem_channels": scale.stem_channels}
            with atomic_file(result) as temporary:
                temporary.write_text(json.dumps(record | {"machine": machine()}, indent=1) + "\n", encoding="utf-8")
            said(f"{record['top1']:.2%} in {record['seconds']:.0f} s")
    except BusyError:
        return
    with locked(runs / "record"):  # another process may have a result more
        write("transfer_study", summed_up(trained(runs, rehearse).values()), rehearse)


def plan() -> list[tuple[str, str, int]]:
    """(network, data, seed) of every training, the most important first."""
    first = [(name, "tiny", seed) for seed in range(SEEDS) for name in (*CELLS, PEER)]
    second = [(name, "cifar10", 0) for name in CELLS]
    rest = [(name, data, 0) for name in MORE for data in ("tiny", "cifar10")]
    return first + second + rest


def trained(runs: Path, rehearse: bool) -> dict[tuple[str, str, int], dict[str, Any]]:
    """The results so far, of this machine's folder and of the record; ConfigError if that has another recipe."""
    path, found = results(rehearse) / "transfer_study.json", []
    if path.exists():
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["recipes"] != recipes():
            raise ConfigError(f"{path} is of other recipes than the script's: delete it to measure anew")
        found = record["trainings"]
    found += [json.loads(each.read_text(encoding="utf-8")) for each in sorted(runs.glob("*.json"))]
    return {(each["name"], each["data"], each["seed"]): each for each in found}


def recipes() -> dict[str, Any]:
    """The recipes as JSON has them."""
    found: dict[str, Any] = json.loads(json.dumps({data: vars(recipe) for data, recipe in RECIPES.items()}))
    return found


def summed_up(trainings: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The record of the trainings: themselves, and how the ranks of the cells on both data agree."""
    order = {planned: place for place, planned in enumerate(plan())}
    done = sorted(trainings, key=lambda each: order[each["name"], each["data"], each["seed"]])
    first = {(each["name"], each["data"]): each["top1"] for each in done if each["seed"] == 0}
    record: dict[str, Any] = {"recipes": recipes(), "trainings": done}
    for group, names in {"random cells": [*CELLS[2:], *MORE], "all cells": [*CELLS, *MORE]}.items():
        both = [name for name in names if all((name, data) in first for data in BUDGETS)]
        pairs = [[first[name, data] for data in BUDGETS] for name in both]
        if len(pairs) > 2:
            record[group] = correlation(pairs)
    return record


def rows(trainings: list[dict[str, Any]]) -> list[str]:
    """The rows of the table in docs/transfer.md."""
    names = dict.fromkeys(each["name"] for each in trainings)
    return [row(name, [each for each in trainings if each["name"] == name]) for name in names]


def row(name: str, trainings: list[dict[str, Any]]) -> str:
    cells = [name]
    for data in BUDGETS:
        found = [each for each in trainings if each["data"] == data]
        if not found:
            cells += ["", "", ""]
            continue
        top1 = [100 * each["top1"] for each in found]
        spread = f" ± {statistics.stdev(top1):.1f}" if len(top1) > 1 else ""
        size = f"{found[0]['multiply_adds'] / 1e6:.2f} M", f"{found[0]['parameters'] / 1e6:.2f} M"
        cells += [*size, f"{statistics.mean(top1):.1f}{spread}"]
    return f"| {' | '.join(cells)} |"


def correlation(pairs: list[list[float]]) -> dict[str, float]:
    """Kendall's and Spearman's rank correlations of two columns, with their p-values."""
    from scipy.stats import kendalltau, spearmanr

    tau, rho = kendalltau(*zip(*pairs)), spearmanr(*zip(*pairs))
    found = {"cells": len(pairs), "tau": tau.statistic, "tau_p": tau.pvalue, "rho": rho.statistic, "rho_p": rho.pvalue}
    return {key: float(value) for key, value in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="data", help="the folder that holds CIFAR-10")
    parser.add_argument("--tiny", default="tiny-imagenet-50", help="the folder that has train/ and val/")
    parser.add_argument("--table", action="store_true", help="only read what has been trained")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "transfer-study")
    add_options(parser)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.rehearse:
        arguments.runs = arguments.runs.with_name("transfer-rehearsal")
        shutil.rmtree(arguments.runs, ignore_errors=True)
        (results(rehearse=True) / "transfer_study.json").unlink(missing_ok=True)
    arguments.runs.mkdir(parents=True, exist_ok=True)
    if not arguments.table:
        for name, data, seed in plan()[:: 5 if arguments.rehearse else 1]:
            folder = arguments.tiny if data == "tiny" else arguments.data
            perform(name, data, seed, folder, arguments.runs, arguments.rehearse)
    record = summed_up(trained(arguments.runs, arguments.rehearse).values())
    print(*rows(record["trainings"]), sep="\n")
    for group in record.keys() - {"recipes", "trainings"}:
        print(f"{group}: {record[group]}")


if __name__ == "__main__":
    in_a_sentence(main)
