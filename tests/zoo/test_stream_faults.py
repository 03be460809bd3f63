"""What goes wrong while pictures are read: broken and vanishing files, workers that die, too little shared memory, and
the interrupts that a terminal sends to all processes."""

import dataclasses
import json
import logging
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import warnings
from contextlib import closing

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

import nasnet_zoo
from nasnet_zoo.arch.preprocess import Preprocess
from nasnet_zoo.errors import DataError, TrainingError
from nasnet_zoo.training.loop import train
from nasnet_zoo.training.recipe import Recipe
from nasnet_zoo.training.stream import Key, Samples, Stream
from nasnet_zoo.training.tasks.classify import Classify

COUNT, BATCH = 40, 4
PREPROCESS = Preprocess((8, 8))
RECIPE = Recipe(3, batch_size=BATCH, crop="inception", brightness=0.2)
linux = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="processes are killed otherwise there")


@pytest.fixture
def pictures(tmp_path):
    """Files of noise in five classes; their names sort as their numbers."""
    return written(tmp_path)


def written(folder, count=COUNT):
    generator, made = np.random.default_rng(0), []
    for number in range(count):
        noise = generator.integers(0, 256, (10, 12, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{number:03}.png")
        made.append((str(folder / f"{number:03}.png"), number * 5 // count))
    return made


def spoilt(pictures, numbers):
    """Breaks some files, each in another way; their paths."""
    ways = (b"", b"no picture", b"\x89PNG\r\n\x1a\n" + bytes(20), None)
    for number in numbers:
        path, way = pictures[number][0], ways[number % len(ways)]
        if way is None:
            os.unlink(path)
        else:
            with open(path, "wb") as file:
                file.write(way)
    return {pictures[number][0] for number in numbers}


def epochs(task, numbers=(0, 1)):
    """(pictures, labels) of so many epochs of a task."""
    with closing(task):
        batches = [batch for number in numbers for batch in task.batches(number, torch.Generator().manual_seed(number))]
    images, labels = zip(*batches)
    return torch.cat(images), torch.cat(labels)


def told(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


# Broken files


@pytest.mark.parametrize("workers", [0, 2])
def test_broken_files_are_told_once_and_replaced(pictures, caplog, workers):
    broken = spoilt(pictures, (0, 7, 14, 39))
    images, labels = epochs(Classify(pictures, RECIPE, PREPROCESS, workers=workers))
    assert sorted(told(caplog)) == [f"{path} cannot be read as a picture and is left out" for path in sorted(broken)]
    assert len(images) == 2 * COUNT and labels.min() >= 0
    # In place of one stands the next; that of the last in a class is of another class, and that of the last of all the
    # first that can be read.
    assert labels.bincount(minlength=5).tolist() == [16, 18, 16, 16, 14]


@pytest.mark.parametrize("workers", [1, 2])
def test_replacements_do_not_depend_on_workers(pictures, workers):
    spoilt(pictures, (1, 2, 3, 20))
    expected = epochs(Classify(pictures, RECIPE, PREPROCESS, workers=0))
    found = epochs(Classify(pictures, RECIPE, PREPROCESS, workers=workers))
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, expected))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("count", [10, 11])
def test_more_than_ten_broken_files_are_too_many(pictures, caplog, workers, count):
    broken = spoilt(pictures, range(0, 2 * count, 2))
    task = Classify(pictures, RECIPE, PREPROCESS, workers=workers)
    if count == 10:
        assert len(epochs(task)[0]) == 2 * COUNT and len(told(caplog)) == 10
        return
    with pytest.raises(DataError, match=r"^11 of 40 pictures cannot be read, .*: mend or replace them$") as error:
        epochs(task)
    assert any(path in str(error.value) for path in broken) and "\n" not in str(error.value)


def test_of_many_pictures_one_in_a_hundred_may_be_broken(tmp_path, caplog):
    black = np.zeros((2, 2, 3), np.uint8)
    wrong = np.zeros((2, 2), np.float32)  # no picture
    for count in (15, 16):
        pictures = [(wrong if number % 100 < 1 or number == 1 and count == 16 else black, 0) for number in range(1500)]
        task = Classify(pictures, dataclasses.replace(RECIPE, batch_size=100), PREPROCESS, workers=0)
        if count == 15:
            assert len(epochs(task, [0])[0]) == 1500
        else:
            with pytest.raises(DataError, match="16 of 1500 pictures cannot be read"):
                epochs(task, [0])


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("count", [BATCH, COUNT])
def test_where_no_file_can_be_read_the_sentence_names_one(tmp_path, workers, count):
    pictures = written(tmp_path, count)
    broken = spoilt(pictures, range(count))
    with pytest.raises(DataError, match="cannot be read: mend or replace them$") as error:
        epochs(Classify(pictures, RECIPE, PREPROCESS, workers=workers))
    assert any(path in str(error.value) for path in broken) and "\n" not in str(error.value)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_picture_that_disappears_during_a_training(pictures, caplog, workers):
    task = Classify(pictures, RECIPE, PREPROCESS, workers=workers)
    before = epochs(task, [0])
    assert not told(caplog)
    os.unlink(pictures[12][0])
    after = epochs(task, [0])
    assert told(caplog) == [f"{pictures[12][0]} cannot be read as a picture and is left out"]
    changed = (before[0] != after[0]).flatten(1).any(1)
    assert changed.sum() == 1 and torch.equal(before[1], after[1])


def small_network():
    return nasnet_zoo.create("nasnet-a-cifar", filters=4, stem_channels=8, stages=(1, 1, 1), num_classes=10)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_accuracy_is_that_of_the_pictures_that_can_be_read(pictures, caplog, workers):
    network, broken = small_network(), spoilt(pictures, (0, 5, 22))
    network.classifier.bias.data[:5] = torch.arange(500, 0, -100)  # the first class always, then those of the others

    def measured(held_out):
        with closing(Classify(pictures, RECIPE, network.config.preprocess, held_out, workers=workers)) as task:
            return task.evaluate(network), task.evaluate(network)

    first, again = measured(pictures)
    assert sorted(told(caplog)) == [f"{path} cannot be read as a picture and is left out" for path in sorted(broken)]
    assert first == again == measured([(path, label) for path, label in pictures if path not in broken])[0]
    assert first == {"top1": 6 / 37, "top5": 1.0}  # of the eight pictures of the first class two are broken


@pytest.mark.parametrize("workers", [0, 2])
def test_an_accuracy_of_no_picture_is_none(tmp_path, workers):
    pictures = written(tmp_path, 5)
    spoilt(pictures, range(5))
    task = Classify(pictures, RECIPE, small_network().config.preprocess, pictures, workers=workers)
    with closing(task), pytest.raises(DataError, match="none of the pictures to measure on can be read"):
        task.evaluate(small_network())


def test_a_broken_file_of_any_name_is_told(tmp_path, caplog):
    """Also where no encoding can write it: in a log, for instance."""
    pictures = written(tmp_path)
    name = os.path.join(str(tmp_path), os.fsdecode(b"caf\xe9 \xff.png"))
    with open(name, "wb") as file:
        file.write(b"no picture")
    epochs(Classify([*pictures[:-1], (name, 4)], RECIPE, PREPROCESS, workers=1), [0])
    said = os.path.join(str(tmp_path), r"caf\udce9 \udcff.png")
    assert told(caplog) == [f"{said} cannot be read as a picture and is left out"]


def test_reading_warns_of_nothing(pictures):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for recipe in (RECIPE, Recipe(1, batch_size=BATCH), Recipe(1, batch_size=BATCH, enlarge=True)):
            for size in (8, 10):
                preprocess = Preprocess((size, size), resize="shortest", antialias=size == 8)
                epochs(Classify(pictures, recipe, preprocess, pictures, workers=0), [0])


# Workers that die


def killed(task, number):
    """Begins an epoch, ends a worker with a signal, and reads on until that is found out."""
    before = {process.pid for process in multiprocessing.active_children()}
    batches = task.batches(0, torch.Generator().manual_seed(0))
    next(batches)
    workers = [process for process in multiprocessing.active_children() if process.pid not in before]
    assert len(workers) == 2
    os.kill(workers[0].pid, number)
    workers[0].join()
    for _ in batches:
        pass


@linux
@pytest.mark.parametrize("number", ["SIGKILL", "SIGBUS"])
def test_a_worker_that_dies_is_one_sentence(pictures, number, capfd):
    """Raised where its batch is waited for, and nowhere else; afterwards the pictures can be read again."""
    handler, before = signal.getsignal(signal.SIGCHLD), {*multiprocessing.active_children()}
    task = Classify(pictures, RECIPE, PREPROCESS, workers=2)
    with pytest.raises(TrainingError, match="^a process that reads pictures failed .*try fewer workers$") as error:
        killed(task, getattr(signal, number))
    assert "\n" not in str(error.value) and signal.getsignal(signal.SIGCHLD) == handler
    assert {*multiprocessing.active_children()} <= before  # the other worker is not kept by the error
    assert "Traceback" not in capfd.readouterr().err
    expected = epochs(Classify(pictures, RECIPE, PREPROCESS, workers=0))
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(epochs(task), expected))


@linux
def test_too_little_shared_memory_is_one_sentence(pictures, capfd):
    """A limit of the size of files is one of shared memory, too."""
    import resource

    task = Classify(pictures, RECIPE, Preprocess((200, 200)), workers=2)
    before, limits = {*multiprocessing.active_children()}, resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, limits[1]))
    try:
        with pytest.raises(TrainingError, match="File too large.*shared memory.*try fewer workers$") as error:
            epochs(task)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(error.value) and {*multiprocessing.active_children()} <= before
    assert len(epochs(task)[0]) == 2 * COUNT


class Mistaken(Samples):
    """Their reading shows a mistake in the program, and none of the user's."""

    def _made(self, key, index):
        raise RuntimeError("size mismatch")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_mistake_in_the_program_stays_one(pictures, workers):
    stream = Stream(pictures, RECIPE, PREPROCESS, 3, workers)
    stream.samples = Mistaken(**vars(stream.samples))
    said = ""
    try:
        list(stream.batches([[Key(0)]], torch.device("cpu")))
    except RuntimeError as error:
        said = str(error)
        error.__traceback__ = None  # pytest.raises would keep it, and with it the worker
    assert "size mismatch" in said


def test_workers_end_with_the_training_whatever_holds_the_task(pictures):
    """A traceback does, in a notebook."""
    network, before = small_network(), {*multiprocessing.active_children()}
    task = Classify(pictures, RECIPE, network.config.preprocess, pictures, workers=2)

    def stop(epoch, step, steps):
        assert len({*multiprocessing.active_children()} - before) == (2 if epoch == 0 else 4)
        if (epoch, step) == (1, 2):
            raise ValueError

    with pytest.raises(ValueError) as error:
        train(network, task, RECIPE, measure=True, on_step=stop)
    assert error.traceback and {*multiprocessing.active_children()} <= before
    assert len(task.evaluate(network)) == 2  # with new ones


# Interrupts

SCRIPT = """
import sys
import torch
import nasnet_zoo
from nasnet_zoo.training.loop import train
from nasnet_zoo.training.recipe import Recipe
from nasnet_zoo.training.tasks.classify import Classify
from nasnet_zoo.data.classes import class_folders

torch.set_num_threads(1)
folder, run = sys.argv[1], sys.argv[2] or None
network = nasnet_zoo.create("nasnet-a-cifar", filters=4, stem_channels=8, stages=(1, 1, 1), num_classes=2)
recipe = Recipe(3, batch_size=4, crop="inception")
task = Classify(class_folders(folder).train, recipe, network.config.preprocess, workers=2)


def on_step(epoch, step, steps):
    if (epoch, step) == (0, 3):
        print("in step 3", flush=True)
        sys.stdin.readline()
    if (epoch, step) == (0, 4):
        print("went on", flush=True)


try:
    train(network, task, recipe, folder=run, on_step=on_step)
except KeyboardInterrupt:
    print("interrupted", flush=True)
    sys.exit(3)
"""


@linux
@pytest.mark.parametrize("number, kept", [("SIGINT", True), ("SIGINT", False), ("SIGTERM", True)])
def test_an_interrupt_of_all_processes_ends_the_training_with_its_step(tmp_path, number, kept):
    """As Ctrl-C in a terminal, or a scheduler, sends it to the training and its workers."""
    for name in ("cat", "dog"):
        (tmp_path / "data" / name).mkdir(parents=True)
        written(tmp_path / "data" / name, 20)
    run = tmp_path / "run"
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "data"), str(run) if kept else ""]
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with subprocess.Popen(command, start_new_session=True, **pipes) as process:
        try:
            assert process.stdout.readline() == "in step 3\n"
            os.killpg(process.pid, getattr(signal, number))
            out, err = process.communicate("\n", timeout=120)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    assert (out, err, process.returncode) == ("interrupted\n", "", 3)
    assert (run / "state.safetensors").exists() == kept
    if kept:
        with safe_open(run / "state.safetensors", "pt") as file:
            assert json.loads(file.metadata()["steps"]) == 3


# A long path to the folder for temporary files

READS = """
import sys, tempfile
from pathlib import Path
import torch
from nasnet_zoo.arch.preprocess import Preprocess
from nasnet_zoo.training.recipe import Recipe
from nasnet_zoo.training.tasks.classify import Classify
pictures = [(str(path), 0) for path in sorted(Path(sys.argv[1]).glob("*.png"))]
task = Classify(pictures, Recipe(1, batch_size=4), Preprocess((8, 8)), workers=1)
try:
    print(len(list(task.batches(0, torch.Generator()))), len(tempfile.gettempdir()))
except Exception as error:
    print(type(error).__name__, error)
task.close()
"""


@linux
@pytest.mark.skipif(sys.platform != "linux", reason="the limit is another one there")
@pytest.mark.parametrize("length", [75, 76])
def test_the_path_for_temporary_files_may_be_as_long_as_sockets_allow(pictures, tmp_path, length):
    """Beyond that workers would wait for ever."""
    above = tempfile.mkdtemp(dir="/tmp")
    try:
        folder = os.path.join(above, "x" * (length - len(above) - 1))
        os.mkdir(folder)
        command = [sys.executable, "-c", READS, str(tmp_path)]
        done = subprocess.run(command, env={**os.environ, "TMPDIR": folder}, capture_output=True, text=True)
    finally:
        shutil.rmtree(above)
    if length == 75:
        assert done.stdout == f"{COUNT // BATCH} 75\n", done.stderr
    else:
        assert done.stdout.startswith("ConfigError the folder for temporary files has too long a path"), done.stderr
