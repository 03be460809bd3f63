"""A whole training: from a network, the name of data and a recipe to a run folder with checkpoints."""

import json
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ..arch.config import read_config
from ..data.cifar import Pictures
from ..data.sets import SEEN, DataSet, find_data
from ..errors import ConfigError, DataError, TrainingError, ZooError, first_line, out_of_memory
from ..lookup import CONFIG, STATE, TRAINING
from ..networks.network import ImageNetwork, Network
from ..util.arguments import checked
from ..util.environment import device_name
from ..util.files import atomic_file, check_replaceable, check_run_folder, locked
from ..weights.cards import write_card
from ..weights.checkpoint import OWN, save
from .distributed import anywhere, first, world
from .history import History, best_of, spent
from .loop import train as train_task
from .recipe import Recipe
from .recipes import find_recipe
from .state import Epoch, has_state, kept_epochs
from .tasks.base import Task
from .tasks.classify import Classify, as_labelled

log = logging.getLogger("nasnet_zoo")

CHECKPOINT, BEST, EPOCHS = "checkpoint", "best", "epochs"  # of a run folder
OWN_FILES = (STATE, TRAINING, CHECKPOINT)  # by which a run folder is known


@checked
def train(
    network: Network,
    task: Task | str | Path,
    recipe: Recipe | str | Path,
    *,
    seed: int = 0,
    folder: str | Path | None = None,
    measure: bool | None = None,
    workers: int | None = None,
    keep_seconds: float | None = None,
    on_step: Callable[[int, int, int], None] | None = None,
    on_loss: Callable[[float], None] | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> list[Epoch]:
    """Trains a network in place, on its device, and leaves it in eval mode, however it ends.

        network = nasnet_zoo.load("nasnet-a-mobile", labels=["cat", "dog"])
        nasnet_zoo.train(network, "photos", "finetune", on_epoch=print)

    Batch norms that are in eval mode while the network is in training mode, or `frozen`, and parameters that need no
    gradient, stay as they are. With a `folder` the state is kept there after every epoch, every few minutes, and when
    Ctrl-C or SIGTERM stops the training, which ends with the step that it is at. A call with the same network, recipe
    and seed goes on from there and draws the same random numbers as one that was never stopped; a recipe with more
    epochs goes on for longer.

    Args:
        network: what is trained. With the recipe's `ema_decay` it has the average of its weights afterwards.
        task: "cifar10", a folder of class folders (with `train` and `val` in it, or a tenth is held out), whose names
            are the network's labels; or batches, loss and measure of your own (training.tasks).
        recipe: a Recipe, a recipe's name or a JSON file.
        seed: of every random number from here on; the first weights are the caller's.
        folder: where the state is kept, or None.
        measure: whether the network is measured after every epoch; by default if the data are named.
        workers: how many processes read files; the cores less one, at most 8, if None.
        keep_seconds: how long at most the state in the folder lies behind; 5 minutes if None.
        on_step: called with (epoch, steps done in it, steps of an epoch).
        on_loss: called now and then with the mean loss of the epoch so far.
        on_epoch: called with what each epoch came to.

    Returns:
        What each epoch came to, those of earlier calls included.

    Raises:
        TrainingError: where the loss is no number any more, and the folder holds the last good state; or for too little
            memory.
        CheckpointError: if the folder holds another training, or a damaged one.
        ConfigError: for a recipe that the network cannot follow.
        DataError: for data that are not there or do not fit the network.
    """
    recipe, named = find_recipe(recipe), isinstance(task, (str, Path))
    if isinstance(task, (str, Path)):
        if not isinstance(network, ImageNetwork):
            raise ConfigError(f"{task} has pictures, and {type(network).__name__} is no network for them: give a task")
        task = classify(network, find_data(task, network.labels), recipe, workers)
    options = dict(on_step=on_step, on_loss=on_loss, on_epoch=on_epoch, keep_seconds=keep_seconds)
    measure = named if measure is None else measure
    with _alone_in(folder), _memory_told(recipe):
        return train_task(network, task, recipe, seed=seed, folder=folder, measure=measure, **options)


def _alone_in(folder: str | Path | None) -> AbstractContextManager[None]:
    """Two trainings in one folder would undo each other; and one that cannot write there ends before it begins."""
    return locked(Path(folder) / "training", timeout=0) if folder is not None and first() else nullcontext()


@contextmanager
def _memory_told(recipe: Recipe) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        parts = f" in {recipe.accumulate} parts" if recipe.accumulate > 1 else ""
        raise TrainingError(
            f"there is not enough memory for steps of {recipe.batch_size} pictures{parts} ({first_line(error)}): give "
            f"a smaller batch_size, or have it computed in more parts with accumulate"
        ) from error


def classify(network: ImageNetwork, data: DataSet, recipe: Recipe, workers: int | None = None) -> Classify:
    """The task of a network on data, which lie on its device where they can. Raises DataError for other classes."""
    config = network.config
    if len(data.names) != config.num_classes:
        raise DataError(
            f"{data.name} has {len(data.names)} classes and the network {config.num_classes}: give it those with "
            f"network.reset_classifier(labels=...), or use `nasnet-zoo finetune`"
        )
    train, val = data.train, data.val
    device = next(network.parameters()).device
    if isinstance(train, Pictures) and isinstance(val, Pictures):
        if config.in_channels == 3 and tuple(train.images.shape[2:]) == tuple(config.preprocess.size):
            train, val = train.to(device), val.to(device)
        else:
            train, val = as_labelled(train), as_labelled(val)
    options = dict(classes=config.num_classes, channels=config.in_channels, workers=workers)
    return Classify(train, recipe, config.preprocess, val, **options)


class Outcome(NamedTuple):
    """What a training came to: its epochs, and the metrics on the pictures that are measured once, if there are any."""

    epochs: list[Epoch]
    tested: dict[str, float]


@dataclass(frozen=True)
class Run:
    """A training in a run folder.

    The folder gets `state.safetensors`, history.csv, curve.png, TensorBoard's events, `best` (the checkpoint of the
    epoch with the best accuracy), and at the end `checkpoint` (that of the last one). With `keep` above 1 the
    checkpoints of so many best epochs are in `epochs`. `record` is written to training.json as it is, for who goes on.
    """

    folder: Path
    recipe: Recipe
    recipe_name: str
    seed: int
    record: dict[str, Any]
    keep: int = 1
    workers: int | None = None
    keep_seconds: float | None = None

    def perform(
        self,
        network: ImageNetwork,
        data: DataSet,
        on_step: Callable[[int, int, int], None] | None = None,
        on_loss: Callable[[float], None] | None = None,
        on_epoch: Callable[[Epoch], None] | None = None,
    ) -> Outcome:
        """Trains the network on the data, or goes on with it; see `train` for what it raises."""
        task = classify(network, data, self.recipe, self.workers)
        with _alone_in(self.folder), _memory_told(self.recipe):
            epochs = kept_epochs(self.folder)
            history = History(self.folder, best=data.measured != SEEN)
            write_record = cache(self._write_record)

            @cache
            def note_device() -> None:
                devices = self.record.setdefault("devices", [])
                if (here := _computed_on(network)) not in devices:
                    devices.append(here)

            def step_done(*place: int) -> None:
                note_device()
                write_record()  # not before: a call that is refused says nothing of the training that is here
                if on_step is not None:
                    on_step(*place)

            def epoch_done(epoch: Epoch) -> None:
                epochs.append(epoch)
                if first():
                    history.epoch(epochs)
                    if data.measured != SEEN:
                        self._keep_best(network, data, epochs)

            options = dict(seed=self.seed, folder=self.folder, measure=True, keep_seconds=self.keep_seconds)
            tell = dict(on_step=step_done, on_loss=on_loss, on_epoch=on_epoch, before_keep=epoch_done)
            try:
                done = train_task(network, task, self.recipe, **options, **tell)
            finally:
                history.close()
                if first() and not has_state(self.folder):
                    (self.folder / TRAINING).unlink(missing_ok=True)  # of what did not come to anything
            write_record()
            tested = self._known(data, done[-1])
            known = not anywhere([not tested])[0]  # to all processes, which see the folder at other moments
            if first() and not known:  # what was learned is kept, whatever comes of the test pictures
                self._save(network, data, done, CHECKPOINT)
            if data.test is not None and not known:
                tested = self._tested(network, replace(data, val=data.test))
                if first():
                    self._save(network, data, done, CHECKPOINT, tested)
        return Outcome(done, tested)

    def _known(self, data: DataSet, last: Epoch) -> dict[str, float]:
        """What the checkpoint of that epoch says of the test pictures, which are then not read again."""
        path = self.folder / CHECKPOINT / CONFIG
        if data.test is None or not path.is_file():
            return {}
        try:
            _, weights = read_config(path)
        except ZooError:
            return {}
        accuracy, start = weights.get("accuracy"), f"{data.tested}_"
        if weights.get("epoch") != last.epoch or not isinstance(accuracy, dict):
            return {}
        return {key.removeprefix(start): value for key, value in accuracy.items() if key.startswith(start)}

    def _tested(self, network: ImageNetwork, data: DataSet) -> dict[str, float]:
        task = classify(network, data, self.recipe, self.workers)
        try:
            return task.evaluate(network)
        finally:
            task.close()

    def _write_record(self) -> None:
        if not first():
            return
        with atomic_file(self.folder / TRAINING) as temporary:
            temporary.write_text(json.dumps(self.record, indent=1) + "\n", encoding="utf-8")

    def _keep_best(self, network: ImageNetwork, data: DataSet, epochs: list[Epoch]) -> None:
        last = epochs[-1]
        if best_of(epochs) == last:
            try:
                check_replaceable(self.folder / BEST, OWN)
            except ZooError as error:  # somebody has put a file there, which is no reason to lose an epoch
                log.warning("the training goes on without the checkpoint of its best epoch: %s", error)
            else:
                self._save(network, data, epochs, BEST)
        if self.keep > 1:
            name = next(iter(last.metrics))
            measured = [epoch for epoch in epochs if name in epoch.metrics]  # the first version did not measure them
            best = sorted(measured, key=lambda epoch: (-epoch.metrics[name], epoch.epoch))[: self.keep]
            if last in best:
                self._save(network, data, epochs, f"{EPOCHS}/{last.epoch}")
            for path in (self.folder / EPOCHS).glob("*"):
                if path.name.isdecimal() and int(path.name) not in {epoch.epoch for epoch in best}:
                    shutil.rmtree(path)

    def _save(
        self, network: ImageNetwork, data: DataSet, epochs: list[Epoch], name: str, tested: Mapping[str, float] = {}
    ) -> None:
        last = epochs[-1]
        accuracy = {f"{data.measured}_{metric}": value for metric, value in last.metrics.items()}
        accuracy |= {f"{data.tested}_{metric}": value for metric, value in tested.items()}
        record = {"name": self.recipe_name, "seed": self.seed, **asdict(self.recipe)}
        batch = self.recipe.batch_size
        training = {
            "data": Path(data.name).resolve().name,  # a path would tell who trained it
            "pictures": len(data.train),
            **spent(epochs, len(data.train) // batch * batch),
            "devices": self.record.get("devices", []),
        }
        save(network, self.folder / name, recipe=record, epoch=last.epoch, accuracy=accuracy, training=training)
        write_card(self.folder / name, self.folder.resolve().name)


def _computed_on(network: ImageNetwork) -> str:
    """What the training computes on here, in words."""
    processes = f", {world()} processes" if world() > 1 else ""
    return f"{device_name(str(next(network.parameters()).device))}{processes}, torch {torch.__version__}"


def check_folder(folder: str | Path) -> None:
    """Raises ZooError if a folder holds something and no training, or the checkpoints could not be written there."""
    check_run_folder(folder, OWN_FILES, "training")
    for name in (CHECKPOINT, BEST):
        check_replaceable(Path(folder) / name, OWN)
