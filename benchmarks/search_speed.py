"""The speed of a child's training against a plain loop on the same architectures in the same run.

    python benchmarks/search_speed.py --data DIR [--filters 16 --cells 1 --pictures 512]     on a CPU
    python benchmarks/search_speed.py --data DIR --paper                                      on a GPU

The plain loop is the usual one: DataLoader with torchvision's transforms in two workers, NCHW, float32, SGD with
Nesterov momentum, `loss.item()` at every step. Ours is the child's: `train` on pictures that lie on the device. Both
see the same number of pictures, in batches of the same size; the first (warm-up) epoch does not count. With --paper,
also what a child of the NASNet search costs (N = 2, F = 32, 20 epochs, 45,000 pictures), what that makes of 20,000,
the share of the memory bandwidth that its activations alone account for, and the accuracy of NASNet-A's own cell.
"""

import argparse
import random
import statistics
import time
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from common import Clock, add_options, write
from torch.utils.data import DataLoader, Subset
from torchvision import transforms
from torchvision.datasets import CIFAR10

from nasnet_zoo.arch.genotypes import GENOTYPES
from nasnet_zoo.networks.build import build
from nasnet_zoo.networks.network import Network
from nasnet_zoo.search import ChildSettings
from nasnet_zoo.search.children.cifar import CifarChild
from nasnet_zoo.search.presets import preset
from nasnet_zoo.search.spaces.table import get_space
from nasnet_zoo.training.loop import train
from nasnet_zoo.training.recipe import Recipe
from nasnet_zoo.training.tasks.classify import Classify


def plain_epoch(network: Network, loader: DataLoader, optimizer: torch.optim.Optimizer, device: str) -> float:
    total = 0.0
    network.train()
    for images, labels in loader:
        images, labels = images.to(device), labels.to(device)
        optimizer.zero_grad()
        loss = F.cross_entropy(network(images), labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
        total += loss.item()
    return total


def plain_seconds(child: CifarChild, architecture, data: str, epochs: int, device: str) -> float:
    """Seconds per epoch of the plain loop, the first one left out."""
    settings, preprocess = child.settings, child.config(architecture).preprocess
    steps = [transforms.RandomCrop(32, settings.recipe.pad), transforms.RandomHorizontalFlip()]
    steps += [transforms.ToTensor(), transforms.Normalize(preprocess.mean, preprocess.std)]
    pictures = Subset(CIFAR10(data, train=True, transform=transforms.Compose(steps)), range(settings.pictures))
    options = dict(shuffle=True, drop_last=True, num_workers=2, persistent_workers=True)
    loader = DataLoader(pictures, settings.recipe.batch_size, **options)
    network = build(child.config(architecture)).to(device)
    optimizer = torch.optim.SGD(network.parameters(), 0.1, 0.9, weight_decay=5e-4, nesterov=True)
    times = []
    for _ in range(epochs + 1):
        start = time.perf_counter()
        plain_epoch(network, loader, optimizer, device)
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def our_seconds(child: CifarChild, architecture, epochs: int, separable: str = "torch") -> float:
    """Seconds per epoch of the child's training, the first one left out."""
    network, marks = build(child.config(architecture)).to(child.device), []
    recipe = replace(child.settings.recipe, epochs=epochs + 1, separable=separable)
    task = Classify(child.training, recipe, network.config.preprocess)
    train(network, task, recipe, on_epoch=lambda epoch: marks.append(time.perf_counter()))
    return statistics.median(b - a for a, b in zip(marks, marks[1:]))


def activation_bytes(network: Network, images: torch.Tensor) -> int:
    """Bytes of all maps that convolutions and batch norms read and write in one forward pass."""
    total = 0

    def count(module, inputs, output) -> None:
        nonlocal total
        total += sum(t.numel() * t.element_size() for t in (*inputs, output))

    kinds = (torch.nn.Conv2d, torch.nn.BatchNorm2d)
    hooks = [m.register_forward_hook(count) for m in network.modules() if isinstance(m, kinds)]
    with torch.no_grad(), torch.autocast(images.device.type, torch.bfloat16):
        network(images)
    for hook in hooks:
        hook.remove()
    return total


def copy_bandwidth(device: str) -> float:
    """Bytes read and written per second by a copy of 1 GiB."""
    source = torch.empty(1 << 30, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    for rounds in (3, 20):
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(rounds):
            target.copy_(source)
        torch.cuda.synchronize()
    return 20 * 2 * source.numel() / (time.perf_counter() - start)


def paper_child(settings: ChildSettings, device: str) -> dict[str, float]:
    """What one child of these settings costs, with NASNet-A's own cell."""
    child, epochs = CifarChild(settings, "cell"), settings.recipe.epochs
    child.prepare(device)
    start = time.perf_counter()
    metrics = child(GENOTYPES["NASNet-A"], 0)
    seconds = time.perf_counter() - start
    network = build(child.config(GENOTYPES["NASNet-A"])).to(device, memory_format=torch.channels_last)
    batch = settings.recipe.batch_size
    moved = 3 * activation_bytes(network, torch.zeros(batch, 3, 32, 32, device=device)) / batch  # backward moves twice
    record = {"epochs": epochs, "seconds": seconds, "accuracy": metrics["accuracy"]}
    record |= {"children_per_hour": 3600 / seconds, "hours_for_20000": 20_000 * seconds / 3600}
    if device.startswith("cuda"):
        rate = moved * settings.pictures * epochs / seconds
        record["bandwidth_share"] = rate / copy_bandwidth(device)
    return record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--filters", type=int, default=16)
    parser.add_argument("--cells", type=int, default=1)
    parser.add_argument("--pictures", type=int, default=512)
    parser.add_argument("--epochs", type=int, default=1, help="timed, after one that is not")
    parser.add_argument("--random", type=int, default=3, help="random architectures beside NASNet-A")
    parser.add_argument("--paper", action="store_true", help="the paper's width and depth, and one whole child of it")
    add_options(parser)
    arguments = parser.parse_args()
    clock, device = Clock(arguments.minutes), "cuda" if torch.cuda.is_available() else "cpu"
    paper = replace(preset("nasnet").child, data=arguments.data)
    if arguments.rehearse:
        device, arguments.filters, arguments.pictures, arguments.random = "cpu", 4, 256, 1
        recipe = replace(paper.recipe, epochs=1)
        paper = replace(paper, pictures=256, validation=256, calibration=0, filters=4, cells=1, recipe=recipe)
    elif arguments.paper:
        arguments.filters, arguments.cells, arguments.pictures = 32, 2, 45_000
    recipe = Recipe(1, 128, 0.1, precision="auto")
    settings = ChildSettings(
        data=arguments.data,
        filters=arguments.filters,
        cells=arguments.cells,
        pictures=arguments.pictures,
        validation=1000,
        recipe=recipe,
    )
    space, rng = get_space("nasnet"), random.Random(0)
    child = CifarChild(settings, space.kind)
    child.prepare(device)
    architectures = {"NASNet-A": GENOTYPES["NASNet-A"]}
    architectures |= {f"random {i}": space.decode(space.sample(rng)) for i in range(arguments.random)}
    record: dict[str, Any] = {key: getattr(arguments, key) for key in ("filters", "cells", "pictures")}
    record |= {"batch": recipe.batch_size, "device": device, "epoch_seconds": {}}
    rows = record["epoch_seconds"]

    def keep() -> None:
        ratios = [row["ratio"] for row in rows.values() if "ratio" in row]
        if ratios:
            record["ratio"] = statistics.geometric_mean(ratios)
        write("search_speed" + ("_gpu" if device == "cuda" else ""), record, arguments.rehearse)

    # The important figures first; whatever there is no time for is left out.
    for name, architecture in architectures.items():
        if clock.over(name):
            continue
        row = rows[name] = {"ours": our_seconds(child, architecture, arguments.epochs)}
        print(f"{name}: ours {row['ours']:.2f} s per epoch", flush=True)
        keep()
        if arguments.paper and "paper" not in record:
            needed = row["ours"] * paper.recipe.epochs * paper.pictures / settings.pictures
            if needed < clock.left:
                record["paper"] = paper_child(paper, device)
                for key, value in record["paper"].items():
                    print(f"the paper's child, {key}: {value:,.4g}", flush=True)
                keep()
            else:
                clock.leave_out(f"the paper's child: it needs about {needed:.0f} s")
        if device == "cuda":  # what the fused separable convolutions are worth
            row["fused"] = our_seconds(child, architecture, arguments.epochs, "fused")
            print(f"{name}: with the fused kernels {row['fused']:.2f} s", flush=True)
            keep()
        if clock.over(f"the plain loop with {name}"):
            continue
        row["plain"] = plain_seconds(child, architecture, arguments.data, arguments.epochs, device)
        row["ratio"] = row["plain"] / row["ours"]
        print(f"{name}: plain {row['plain']:.2f} s per epoch, {row['ratio']:.2f} x", flush=True)
        keep()
    if "ratio" in record:
        print(f"geometric mean: {record['ratio']:.2f} x")
    clock.finish()


if __name__ == "__main__":
    main()
