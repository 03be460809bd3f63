"""Trains a network for CIFAR-10 in the time there is, in several calls and on several machines, and measures it once.

    python benchmarks/weights.py --data DIR --minutes 8                  NASNet-A (6 @ 768), 3.3 million parameters
    python benchmarks/weights.py --data DIR --minutes 8 --cell Quick-PPO  the project's own cell, as many multiply-adds

First some steps are timed, which gives the number of epochs that the time has room for; then it is one training, whose
accuracy on some training pictures is measured after every epoch. Its folder, runs/weights, has the state, the plan and
float16 weights; the same command goes on from there, also after a kill. Every two minutes, and when it stops, all this
is copied to $OUT (or else runs/weights/out), in pieces of at most 15 MiB with an index. When the training is over, the
test pictures are looked at, once; benchmarks/weights_curve.py draws the result. Exits with 3 if the time was too short.

In two calls of eight and three minutes, the second one perhaps on another machine:

    bash benchmarks/gpu.sh weights --minutes 8 --data DIR -- --plan-minutes 10.5
    bash benchmarks/gpu.sh weights --minutes 3 --data DIR -- --continue FOLDER

The plan is for both calls, less half a minute in which the second one starts. FOLDER, a whole path, holds what the
first call left in $OUT; on the same machine, where runs/weights is still there, --continue is not needed. Other options
of the first call (--cell, --hold-back, ...) are the second one's too. Then the float16 checkpoint is in the pieces that
the last call left: cat weights-state.*.0* | tar x weights
"""

import argparse
import json
import os
import signal
import time
from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from common import INCOMPLETE, Clock, add_options, in_a_sentence, machine, write
from weights_copies import ACCURACY, PLAN, TIMES, WEIGHTS, Copies, take_over
from weights_rehearsal import rehearse

import nasnet_zoo
from nasnet_zoo.arch.cells import cifar
from nasnet_zoo.arch.checks import read_json
from nasnet_zoo.arch.config import NetworkConfig
from nasnet_zoo.arch.cost import network_cost
from nasnet_zoo.arch.genotype import Genotype
from nasnet_zoo.arch.genotypes import GENOTYPES
from nasnet_zoo.data.cifar import Pictures, load_cifar10
from nasnet_zoo.errors import CheckpointError, ConfigError, TrainingError, first_line
from nasnet_zoo.networks.network import ImageNetwork
from nasnet_zoo.training.evaluate import evaluate
from nasnet_zoo.training.loop import train
from nasnet_zoo.training.recipe import Recipe
from nasnet_zoo.training.state import Epoch, has_state, kept_epochs
from nasnet_zoo.training.tasks.classify import Classify
from nasnet_zoo.util.files import atomic_file

NAMES = {"NASNet-A": "weights", "Quick-PPO": "weights_quick"}  # of a cell's folder, record and pieces
TIMED_STEPS = 40
ROOM = 0.9  # of the time that is left: an epoch is not always as long as the timed steps say, and states are kept
WATCHED = 2000  # training pictures on which the accuracy is measured as the training goes
WIDEST = 512  # filters, for the cell that is to cost as much as NASNet-A
SEED = 0


def network_config(cell: str, cells: int, filters: int) -> NetworkConfig:
    """NASNet-A with so many cells in each of three stages and so many filters, or another cell with as many cells and
    the filters with which its multiply-adds are nearest to NASNet-A's."""

    def of(genotype: Genotype, filters: int) -> NetworkConfig:
        return cifar(genotype, filters, (cells,) * 3, 3 * filters)

    wanted = of(GENOTYPES["NASNet-A"], filters)
    if cell == "NASNet-A":
        return wanted
    genotype, cost = GENOTYPES[cell], network_cost(wanted).multiply_adds

    def off(filters: int) -> int:
        return network_cost(of(genotype, filters)).multiply_adds - cost

    above = 2 + bisect_left(range(2, WIDEST), 0, key=off)
    return of(genotype, min((max(above - 1, 2), above), key=lambda filters: abs(off(filters))))


def recipe_of(epochs: int, batch: int, learning_rate: float) -> Recipe:
    """A short training's: no drop path, which wants hundreds of epochs."""
    ways = dict(label_smoothing=0.1, cutout=8, precision="auto")
    return Recipe(epochs, batch, learning_rate, warmup_epochs=min(2.0, epochs / 4), weight_decay=5e-4, **ways)


def parted(pictures: Pictures, hold_back: int) -> tuple[Pictures, Pictures]:
    """(the pictures that are trained, those on which the accuracy is measured meanwhile): so many that are held back,
    or else some of those that are trained."""
    if not 0 <= hold_back < len(pictures):
        raise ConfigError(f"--hold-back {hold_back} must be from 0 to {len(pictures) - 1}: there are {len(pictures)}")
    order = torch.randperm(len(pictures), generator=torch.Generator().manual_seed(SEED))
    watched = pictures.subset(order[: hold_back or WATCHED])
    return (pictures.subset(order[hold_back:]) if hold_back else pictures), watched


def epoch_seconds(network: ImageNetwork, task: Classify) -> float:
    """Seconds of an epoch and its measuring once all is warm. It trains the network a little."""
    marks: list[float] = []

    def mark() -> None:
        if next(network.parameters()).is_cuda:
            torch.cuda.synchronize()
        marks.append(time.perf_counter())

    def on_step(epoch: int, done: int, steps: int) -> None:
        if done in (steps - TIMED_STEPS, steps):
            mark()

    recipe = recipe_of(1, task.recipe.batch_size, task.recipe.learning_rate)
    some = task.pictures.subset(torch.arange(recipe.batch_size * 2 * TIMED_STEPS) % len(task.pictures))
    train(network, Classify(some, recipe, network.config.preprocess), recipe, on_step=on_step)
    for _ in range(2):  # the first one warms up
        mark()
        task.evaluate(network)
    mark()
    return (marks[1] - marks[0]) / TIMED_STEPS * task.steps + marks[-1] - marks[-2]


def read_plan(path: Path, given: dict[str, int | None]) -> int | None:
    """The planned epochs of the training that a folder holds, None if it holds none. Raises CheckpointError for a
    damaged plan, and ConfigError if what is given is not as it was planned."""
    if not path.exists():
        return None
    plan = read_json(path, "plan", CheckpointError)
    if not isinstance(plan, dict) or any(type(plan.get(name)) is not int for name in given):
        raise CheckpointError(f"{path} is no plan of a training: delete its folder to start over")
    for name, value in given.items():
        if value is not None and value != plan[name]:
            raise ConfigError(
                f"{path} has {name} {plan[name]}, not {value}: leave the option as it was, or choose another --folder"
            )
    return plan["epochs"]


class Times:
    """Seconds that a training has taken in all calls, so far and up to the end of each epoch. Work that a kill has
    undone counts from when it was last written down."""

    def __init__(self, path: Path, epochs: int) -> None:
        self.path, self.start, self.before, self.epochs = path, time.monotonic(), 0.0, []
        if path.exists():
            kept = read_json(path, "times", CheckpointError)
            try:
                self.before, self.epochs = float(kept["spent"]), [float(each) for each in kept["epochs"][:epochs]]
            except (LookupError, TypeError, ValueError) as error:
                raise CheckpointError(
                    f"{path} holds no times of a training: delete its folder to start over"
                ) from error
        if len(self.epochs) < epochs:
            raise CheckpointError(f"{path} knows too few of {epochs} epochs: delete its folder to start over")

    @property
    def spent(self) -> float:
        return self.before + time.monotonic() - self.start

    def epoch_ended(self, epoch: Epoch) -> None:
        self.epochs.append(self.spent)
        self.write()

    def write(self) -> None:
        write_json(self.path, {"spent": self.spent, "epochs": self.epochs})


def write_json(path: Path, value: Any) -> None:
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(value) + "\n", encoding="utf-8")


def trained(
    network: ImageNetwork, task: Classify, folder: Path, times: Times, copies: Copies, clock: Clock
) -> list[Epoch]:
    """Trains the network to the end of its recipe. Raises KeyboardInterrupt if it was stopped or its time is over, and
    TrainingError if the GPU fails; what there is of it is in the folder and copied then."""
    recipe, stopped = task.recipe, False
    watched = f"{len(task.held_out):,} training pictures"

    def keep() -> None:
        times.write()
        copies.try_to_bring()

    def on_step(epoch: int, done: int, steps: int) -> None:
        nonlocal stopped
        if copies.due:
            keep()
        if clock.left < 0 and not stopped:
            stopped = True
            signal.raise_signal(signal.SIGTERM)  # after which the training keeps its state and ends

    def on_epoch(epoch: Epoch) -> None:
        done = f"epoch {epoch.epoch} of {recipe.epochs}: loss {epoch.loss:.4f}"
        print(f"{done}, {100 * epoch.metrics['top1']:.2f} % of {watched}, {times.epochs[-1]:.0f} s", flush=True)

    tell = dict(on_step=on_step, on_epoch=on_epoch, before_keep=times.epoch_ended)
    try:
        return train(network, task, recipe, seed=SEED, folder=folder, measure=True, keep_seconds=copies.SECONDS, **tell)
    except RuntimeError as error:
        if not of_gpu(error):
            raise
        raise TrainingError(
            f"the GPU has failed ({first_line(error)}): the same command goes on from the last state, in {folder}"
        ) from error
    finally:
        if copies.new:  # not of a training that was refused
            keep()


def of_gpu(error: RuntimeError) -> bool:
    """Whether an error of torch is one of the GPU, its driver or its libraries."""
    return isinstance(error, torch.AcceleratorError) or any(name in str(error) for name in ("CUDA", "cuDNN"))


def tested(folder: Path, data: str, pictures: int | None, device: str) -> dict[str, float]:
    """The accuracy of the folder's float16 weights on the test pictures, which are not read if it is known."""
    if (folder / ACCURACY).exists():
        return read_json(folder / ACCURACY, "accuracy", CheckpointError)
    test = first_of(load_cifar10(data, train=False), pictures)
    network = nasnet_zoo.load(folder / WEIGHTS, device=device)
    accuracy = dict(zip(("cifar10_test_top1", "cifar10_test_top5"), evaluate(network, test)))
    write_json(folder / ACCURACY, accuracy)
    return accuracy


def first_of(pictures: Pictures, count: int | None) -> Pictures:
    return Pictures(pictures.images[:count], pictures.labels[:count])


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="the folder that holds CIFAR-10")
    parser.add_argument("--cell", choices=NAMES, default="NASNet-A")
    parser.add_argument("--cells", type=int, default=6, help="in each of the three stages")
    parser.add_argument("--filters", type=int, default=32, help="of NASNet-A; another cell has what costs as much")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--learning-rate", type=float, default=0.2)
    parser.add_argument("--hold-back", type=int, default=0, help="training pictures only to measure the accuracy on")
    parser.add_argument("--epochs", type=int, help="instead of as many as there is time for")
    parser.add_argument("--plan-minutes", type=float, help="time that all calls have together; by default --minutes")
    parser.add_argument("--continue", type=Path, dest="source", help="the folder with the pieces of another machine")
    parser.add_argument("--folder", type=Path, help="of the training")
    parser.add_argument("--pictures", type=int, help="a trial with so few; its record goes to runs/rehearsal")
    add_options(parser)
    parser.set_defaults(minutes=8.0)
    return parser.parse_args(arguments)


def main() -> None:
    arguments = options()
    if arguments.rehearse:
        rehearse(arguments.data)
        return
    clock, name = Clock(arguments.minutes), NAMES[arguments.cell]
    planned = clock if arguments.plan_minutes is None else Clock(arguments.plan_minutes)
    folder = arguments.folder or Path("runs") / name
    out = Path(os.environ.get("OUT") or folder / "out")
    if arguments.source is not None and has_state(folder):
        print(f"{folder} has a state: {arguments.source} is not read", flush=True)
    elif arguments.source is not None:
        take_over(arguments.source, folder, f"{name}-state")

    device = "cuda" if torch.cuda.is_available() else "cpu"
    pictures = first_of(load_cifar10(arguments.data, train=True), arguments.pictures).to(device)
    learned, watched = parted(pictures, arguments.hold_back)
    config = network_config(arguments.cell, arguments.cells, arguments.filters)

    def created() -> ImageNetwork:
        torch.manual_seed(SEED)
        return nasnet_zoo.create(config).to(device)

    def task_of(epochs: int) -> Classify:
        recipe = recipe_of(epochs, arguments.batch, arguments.learning_rate)
        return Classify(learned, recipe, config.preprocess, watched)

    given = {"hold_back": arguments.hold_back, "epochs": arguments.epochs}
    epochs = read_plan(folder / PLAN, given)
    if epochs is None:
        epochs = arguments.epochs
        if epochs is None:
            seconds = epoch_seconds(created(), task_of(1))
            epochs = max(1, int(ROOM * planned.left / seconds))
            print(f"an epoch takes {seconds:.2f} s, and there is time for {epochs}", flush=True)
        write_json(folder / PLAN, {**given, "epochs": epochs})
    task, network, done = task_of(epochs), created(), len(kept_epochs(folder))
    if has_state(folder):
        print(f"goes on after epoch {done} of {epochs}", flush=True)
    metadata = {"recipe": {**vars(task.recipe), "seed": SEED}, "machine": machine()}
    times, copies = Times(folder / TIMES, done), Copies(folder, out, f"{name}-state", config, metadata)
    try:
        history = trained(network, task, folder, times, copies, clock)
    except KeyboardInterrupt:
        print(f"stopped after epoch {len(kept_epochs(folder))} of {epochs}: the same command goes on", flush=True)
        raise SystemExit(INCOMPLETE) from None
    copies.bring()  # the float16 weights that are measured
    accuracy = tested(folder, arguments.data, arguments.pictures, device)
    copies.bring(accuracy=accuracy)

    curve = [
        {"epoch": each.epoch, "loss": each.loss, "accuracy": each.metrics["top1"], "seconds": seconds}
        for each, seconds in zip(history, times.epochs)
    ]
    cost, spent = network_cost(config), sum(each.seconds for each in history)
    held_back = "held back" if arguments.hold_back else "without augmentation"
    record = {
        "cell": arguments.cell,
        "scale": vars(config.scale),
        "parameters": cost.parameters,
        "multiply_adds": cost.multiply_adds,
        "device": device,
        "seconds": times.epochs[-1],
        "pictures_per_second": sum(each.pictures for each in history) / spent,
        "accuracy": accuracy,
        "recipe": vars(task.recipe),
        "curve_of": f"{len(watched):,} training pictures, {held_back}",
        "curve": curve,
    }
    write(name, record, rehearse=arguments.pictures is not None)
    print(f"{cost.parameters / 1e6:.2f} M parameters, {curve[-1]['seconds']:.0f} s: ", end="")
    print(f"{100 * accuracy['cifar10_test_top1']:.2f} % of the test pictures", flush=True)


if __name__ == "__main__":
    in_a_sentence(main)
