"""A whole training from a recipe's name to a checkpoint folder."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch

from ..arch.config import NetworkConfig
from ..data.cifar import check_cifar10, cifar10_pictures
from ..errors import ConfigError
from ..networks.build import build
from ..util.files import check_replaceable, check_run_folder, locked
from ..weights.checkpoint import OWN, save
from .evaluate import evaluate
from .loop import train
from .recipe import RECIPES
from .state import STATE, Epoch
from .tasks.classify import Classify

CHECKPOINT = "checkpoint"  # in the run folder


def train_cifar10(
    config: NetworkConfig,
    recipe_name: str,
    folder: str | Path,
    data: str | Path | None,
    seed: int,
    device: str,
    on_step: Callable[[int, int, str], None],
) -> tuple[float, float]:
    """Trains on CIFAR-10's 50,000 training pictures, writes `folder/checkpoint` (float16) with the recipe and the
    accuracy on the 10,000 test pictures in its config, and returns that top-1 and top-5.

    Calls `on_step(pictures done, pictures in all, a note)`, in the training and in the measuring after it. Raises
    ConfigError for an unknown recipe or a network that is not for CIFAR-10's pictures, DataError, CheckpointError, and
    ZooError for a folder that is in use or may not be written.
    """
    if recipe_name not in RECIPES:
        raise ConfigError(f"unknown recipe {recipe_name!r}; there are {', '.join(RECIPES)}")
    check_cifar10(config)
    check_run_folder(folder, (STATE, CHECKPOINT), "training")
    check_replaceable(Path(folder) / CHECKPOINT, OWN)
    recipe = RECIPES[recipe_name]
    pictures = cifar10_pictures(data, train=True).to(device)
    test = cifar10_pictures(data, train=False).to(device)
    task = Classify(pictures, recipe, config.preprocess)
    torch.manual_seed(seed)
    network = build(config).to(device)
    note = "starting"

    def step(epoch: int, done: int, steps: int) -> None:
        per_step = min(recipe.batch_size, len(pictures))
        on_step((epoch * steps + done) * per_step, recipe.epochs * steps * per_step, note)

    def epoch_done(epoch: Epoch) -> None:
        nonlocal note
        note = f"epoch {epoch.epoch}/{epoch.epochs}, loss {epoch.loss:.3f}"
        step(epoch.epoch, 0, task.steps)  # the last epoch is followed by no step that would say it

    # Two trainings in one folder would undo each other; and one that cannot write there ends before its first epoch.
    with locked(Path(folder) / "training", timeout=0):
        train(network, task, recipe, seed=seed, folder=folder, on_step=step, on_epoch=epoch_done)
    # The accuracy is that of the float16 weights that are written, not of the float32 ones that are thrown away.
    network.load_state_dict({key: value.half().float() for key, value in network.state_dict().items()})
    top1, top5 = evaluate(network, test, on_batch=lambda done, of: on_step(done, of, "measuring"))
    accuracy = {"cifar10_test_top1": top1, "cifar10_test_top5": top5}
    record = {"name": recipe_name, "seed": seed, **asdict(recipe)}
    save(network, Path(folder) / CHECKPOINT, torch.float16, recipe=record, accuracy=accuracy)
    return top1, top5
