"""A training's step against a plain one on the same network, and both with torch.compile, in the same run.

    python benchmarks/training_speed.py                     three networks, ten minutes on two cores
    python benchmarks/training_speed.py --models NAME ...   zoo names

The plain step is the usual one, as in timm's script: forward, cross-entropy, backward, clip_grad_norm_ and torch's own
SGD with Nesterov momentum. Ours is the loop's, with all that it does in a step: learning rate, drop path's progress,
the look at the loss; "with views" it is as it was before gradients of concatenations became maps of their own. All see
the same prepared batch; networks are channels_last, and on a GPU all compute in bfloat16. They take turns: first those
without torch.compile, on every network, then all. What was measured of other networks on the same machine stays in the
results.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from common import Clock, add_options, machine, results, write

import nasnet_zoo
from nasnet_zoo.data.cifar import Pictures
from nasnet_zoo.networks import layers, planned
from nasnet_zoo.networks.network import ImageNetwork
from nasnet_zoo.training.loop import train
from nasnet_zoo.training.recipe import Recipe
from nasnet_zoo.training.tasks.classify import Classify

Timed = Callable[[int], float]  # seconds of so many steps
BATCHES = {
    "cpu": {"nasnet-a-cifar-small": 128, "nasnet-a-cifar": 32, "nasnet-a-mobile": 16},
    "cuda": {"nasnet-a-cifar-small": 512, "nasnet-a-cifar": 256, "nasnet-a-mobile": 64},
}
SOME_BATCH = 16  # of other networks
RECIPE = Recipe(1, warmup_epochs=0, precision="auto")
WARM = {"cpu": 1, "cuda": 5}  # steps that are not timed; a capture comes after the third
ROUND_SECONDS = {"cpu": 4.0, "cuda": 1.0}  # of one way


class OneBatch(Classify):
    """The same prepared batch in every step, so that only the step is timed."""

    def __init__(self, batch: tuple[torch.Tensor, torch.Tensor], recipe: Recipe, steps: int) -> None:
        pictures = Pictures(torch.zeros(recipe.batch_size, 3, 1, 1, dtype=torch.uint8), batch[1])
        super().__init__(pictures, recipe, nasnet_zoo.Preprocess((1, 1)))
        self.batch, self.steps = batch, steps

    def batches(self, epoch: int, generator: torch.Generator):
        return iter([self.batch] * self.steps)


def ours(network: ImageNetwork, batch: tuple[torch.Tensor, torch.Tensor], compiled: bool) -> Timed:
    """Seconds of so many steps; what happens once in a training is in its first step, which is left out."""
    recipe = replace(RECIPE, batch_size=len(batch[0]), compile=compiled)
    marks: list[float] = []
    warm = WARM[batch[0].device.type]

    def mark(epoch: int, done: int, steps: int) -> None:
        if done in (warm, steps):
            if batch[0].is_cuda:
                torch.cuda.synchronize()
            marks.append(time.perf_counter())

    def steps(count: int) -> float:
        train(network, OneBatch(batch, recipe, warm + count), recipe, on_step=mark)
        return marks[-1] - marks[-2]

    return steps


def plain(network: ImageNetwork, batch: tuple[torch.Tensor, torch.Tensor], compiled: bool) -> Timed:
    images, labels = batch[0].contiguous(memory_format=torch.channels_last), batch[1]
    network.to(memory_format=torch.channels_last).train()
    decayed = [parameter for parameter in network.parameters() if parameter.dim() > 1]
    others = [parameter for parameter in network.parameters() if parameter.dim() <= 1]
    groups = [{"params": decayed, "weight_decay": 5e-4}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=0.01, momentum=0.9, nesterov=True)
    forward = torch.compile(network) if compiled else network
    kind = images.device.type

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(kind, torch.bfloat16, enabled=kind == "cuda"):
            loss = F.cross_entropy(forward(images), labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()

    def steps(count: int) -> float:
        for _ in range(WARM[kind]):
            step()
        if images.is_cuda:
            torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(count):
            step()
        if images.is_cuda:
            torch.cuda.synchronize()
        return time.perf_counter() - start

    return steps


def with_views(network: ImageNetwork, batch: tuple[torch.Tensor, torch.Tensor], compiled: bool) -> Timed:
    """Ours, but that gradients of concatenations are views, as torch.cat's are."""
    run = ours(network, batch, compiled)

    def steps(count: int) -> float:
        with ExitStack() as stack:
            for module in (layers, planned):
                stack.enter_context(patch.object(module, "concatenated", lambda maps: torch.cat(maps, 1)))
            return run(count)

    return steps


class Bench:
    """One network's ways to train; each is begun when it is first asked for."""

    def __init__(self, model: str, device: str, size: int | None) -> None:
        config = nasnet_zoo.info(model).config
        self.model, self.device = model, device
        count = size or BATCHES[device].get(model, SOME_BATCH)
        torch.manual_seed(0)
        images = torch.randn(count, 3, *config.preprocess.size, device=device)
        self.batch = images, torch.randint(config.num_classes, (count,), device=device)
        self.ways: dict[str, Timed] = {}
        self.first: dict[str, float] = {}
        self.seconds: dict[str, float] = {}

    def begin(self, compiled: bool, clock: Clock) -> None:
        ways = {"ours": ours, "plain": plain} | ({} if compiled else {"ours with views": with_views})
        for name, make in ways.items():
            name += " compiled" * compiled
            if clock.over(f"{self.model}, {name}"):
                continue
            way = make(nasnet_zoo.create(self.model).to(self.device), self.batch, compiled)
            start = time.perf_counter()
            self.seconds[name] = way(3) / 3
            self.first[name] = time.perf_counter() - start
            self.ways[name] = way
            print(f"{self.model} {name}: begun in {self.first[name]:.1f} s", flush=True)

    def rounds(self, count: int, clock: Clock) -> dict[str, dict[str, float]]:
        """Steps per second of each way, the median of the rounds and the range, and the median of what it is to the
        plain one of the same round: a machine that others use is not as fast in each."""
        rates: dict[str, list[float]] = {name: [] for name in self.ways}
        steps = {name: max(3, round(ROUND_SECONDS[self.device] / self.seconds[name])) for name in self.ways}
        for number in range(count):
            if number and clock.over(f"more rounds of {self.model}"):
                break
            for name, way in self.ways.items():
                rates[name].append(steps[name] / way(steps[name]))
        found = {
            name: {
                "steps_per_second": statistics.median(each),
                "least": min(each),
                "most": max(each),
                "rounds": len(each),
                "first_seconds": self.first[name],
            }
            for name, each in rates.items()
        }
        for name, row in found.items():
            row["to_plain"] = statistics.median(a / b for a, b in zip(rates[name], rates["plain"]))
            print(
                f"{self.model} {name:15} {row['steps_per_second']:8.3f} steps/s "
                f"({row['least']:.3f} to {row['most']:.3f}), {row['to_plain']:.2f} x plain",
                flush=True,
            )
        return found


def earlier(path: Path) -> dict[str, dict[str, Any]]:
    """What was measured of other networks on this machine, which stays."""
    if not path.exists():
        return {}
    found = json.loads(path.read_text(encoding="utf-8"))
    return found["steps"] if found["machine"] == machine() else {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["nasnet-a-cifar-small", "nasnet-a-cifar", "nasnet-a-mobile"])
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--batch", type=int, help="pictures in a step; by default what fits the model")
    add_options(parser)
    arguments = parser.parse_args()
    clock, device = Clock(arguments.minutes), "cuda" if torch.cuda.is_available() else "cpu"
    models, rounds, size = arguments.models, arguments.rounds, arguments.batch
    if arguments.rehearse:
        models, rounds, size = ["nasnet-a-cifar-small"], 1, 2
    benches = [Bench(model, device, size) for model in models]
    name = "training_speed" if device == "cpu" else "training_speed_gpu"
    record = earlier(results(arguments.rehearse) / f"{name}.json")
    for compiled in (False, True):
        for bench in benches:
            if clock.over(f"{bench.model}{', compiled' * compiled}"):
                continue
            bench.begin(compiled, clock)
            if {"ours", "plain"} <= bench.ways.keys():
                if not compiled:
                    record[bench.model] = {"batch": len(bench.batch[0])}
                record[bench.model]["with compiled" if compiled else "ways"] = bench.rounds(rounds, clock)
                write(name, {"device": device, "steps": record}, arguments.rehearse)
    clock.finish()


if __name__ == "__main__":
    main()
