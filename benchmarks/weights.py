"""Trains a NASNet-A for CIFAR-10 on all 50,000 training pictures in the time there is, and measures it once.

    python benchmarks/weights.py --data DIR [--minutes 8] [--cells 6 --filters 32 --batch 256]

First some steps are timed, which gives the number of epochs that the time has room for; then it is one training. What
it has learned is in $OUT/weights, or else in the folder, as a float16 checkpoint every two minutes; the state lies in
the folder, and the same command goes on from there. The test pictures are looked at once, when the training is over.
"""

import argparse
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import torch
from common import Clock, add_options, machine, write

import nasnet_zoo
from nasnet_zoo.data.cifar import Pictures, load_cifar10
from nasnet_zoo.networks.network import ImageNetwork
from nasnet_zoo.training.evaluate import evaluate
from nasnet_zoo.training.loop import train
from nasnet_zoo.training.recipe import Recipe
from nasnet_zoo.training.state import Epoch
from nasnet_zoo.training.tasks.classify import Classify
from nasnet_zoo.util.files import atomic_file

SAVE_SECONDS = 120.0
TIMED_STEPS = 40
ROOM = 0.93  # of the time that is left: an epoch is not always as long as the timed steps say
SEED = 0


def recipe_of(epochs: int, batch: int, learning_rate: float) -> Recipe:
    """A short training's: no drop path, which wants hundreds of epochs."""
    ways = dict(label_smoothing=0.1, cutout=8, precision="auto")
    return Recipe(epochs, batch, learning_rate, warmup_epochs=min(2.0, epochs / 4), weight_decay=5e-4, **ways)


def step_seconds(network: ImageNetwork, pictures: Pictures, recipe: Recipe) -> float:
    """Seconds of a step once all is warm. It trains the network a little."""
    marks: list[float] = []

    def mark(epoch: int, done: int, steps: int) -> None:
        if done in (steps - TIMED_STEPS, steps):
            if pictures.images.is_cuda:
                torch.cuda.synchronize()
            marks.append(time.perf_counter())

    some = pictures.subset(torch.arange(recipe.batch_size * 2 * TIMED_STEPS) % len(pictures))
    train(network, Classify(some, recipe, network.config.preprocess), recipe, on_step=mark)
    return (marks[1] - marks[0]) / TIMED_STEPS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--cells", type=int, default=6, help="in each of the three stages")
    parser.add_argument("--filters", type=int, default=32)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--learning-rate", type=float, default=0.2)
    parser.add_argument("--folder", type=Path, default=Path("runs/weights"))
    add_options(parser)
    parser.set_defaults(minutes=8.0)
    arguments = parser.parse_args()
    clock, device = Clock(arguments.minutes), "cuda" if torch.cuda.is_available() else "cpu"
    pictures, test = (load_cifar10(arguments.data, train=part).to(device) for part in (True, False))
    if arguments.rehearse:
        device, arguments.cells, arguments.filters, arguments.batch = "cpu", 1, 4, 4
        pictures, test = (Pictures(each.images[:400].cpu(), each.labels[:400].cpu()) for each in (pictures, test))
        arguments.folder = arguments.folder.with_name("weights-rehearsal")
        shutil.rmtree(arguments.folder, ignore_errors=True)
    folder = arguments.folder
    out = (Path(os.environ["OUT"]) if os.environ.get("OUT") else folder) / "weights"
    scale = dict(filters=arguments.filters, stages=(arguments.cells,) * 3, stem_channels=3 * arguments.filters)

    def created() -> ImageNetwork:
        torch.manual_seed(SEED)
        return nasnet_zoo.create("nasnet-a-cifar", **scale).to(device)

    plan = folder / "plan.json"
    if plan.exists():
        epochs = json.loads(plan.read_text(encoding="utf-8"))["epochs"]
    else:
        seconds = step_seconds(created(), pictures, recipe_of(1, arguments.batch, arguments.learning_rate))
        epoch_seconds = seconds * (len(pictures) // arguments.batch)
        epochs = 2 if arguments.rehearse else max(1, int(ROOM * clock.left / epoch_seconds))
        print(f"{arguments.batch / seconds:.0f} pictures/s, an epoch in {epoch_seconds:.2f} s: {epochs} epochs")
        with atomic_file(plan) as temporary:
            temporary.write_text(json.dumps({"epochs": epochs}), encoding="utf-8")
    recipe, network = recipe_of(epochs, arguments.batch, arguments.learning_rate), created()
    metadata: dict[str, Any] = {"recipe": {**vars(recipe), "seed": SEED}, "machine": machine()}
    saved = time.monotonic()

    def ended(epoch: Epoch) -> None:
        nonlocal saved
        print(f"epoch {epoch.epoch} of {epochs}: loss {epoch.loss:.4f}, {epoch.seconds:.1f} s", flush=True)
        if time.monotonic() - saved > SAVE_SECONDS:
            nasnet_zoo.save(network, out, "float16", **metadata)
            saved = time.monotonic()

    task = Classify(pictures, recipe, network.config.preprocess)
    history = train(network, task, recipe, seed=SEED, folder=folder, keep_seconds=SAVE_SECONDS, on_epoch=ended)
    accuracy = dict(zip(("cifar10_test_top1", "cifar10_test_top5"), evaluate(network, test)))
    nasnet_zoo.save(network, out, "float16", accuracy=accuracy, **metadata)
    curve = [{"epoch": each.epoch, "loss": each.loss, "seconds": each.seconds} for each in history]
    spent = sum(each.seconds for each in history)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    record = {"scale": scale, "parameters": parameters, "device": device, "seconds": spent, "accuracy": accuracy}
    record["pictures_per_second"] = sum(each.pictures for each in history) / spent
    write("weights", {**record, "recipe": vars(recipe), "curve": curve}, arguments.rehearse)
    print(f"{parameters / 1e6:.2f} M parameters, {spent:.0f} s: {100 * accuracy['cifar10_test_top1']:.2f} %")


if __name__ == "__main__":
    main()
