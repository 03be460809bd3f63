"""What a training leaves for its user to look at: the table, the picture, TensorBoard's events; and never an end."""

import csv
import logging
import math
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from nasnet_zoo.training.history import CURVE, EVENTS, TABLE, History, best_of

try:
    import resource
except ImportError:  # Windows
    resource = None


@dataclass(frozen=True)
class Done:
    """An epoch as the loop reports it."""

    epoch: int
    epochs: int = 9
    loss: float = 1.5
    metrics: Mapping[str, float] = field(default_factory=dict)
    learning_rate: float = 0.025
    seconds: float = 2.0
    pictures: int = 3000


def epochs(*top1):
    return [Done(i, loss=1 / i, metrics={} if value is None else {"top1": value}) for i, value in enumerate(top1, 1)]


def table(folder):
    with open(folder / TABLE, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def logged(folder):
    """The (step, value) pairs of every scalar that TensorBoard finds in the folder, and when they were."""
    events = EventAccumulator(str(folder / EVENTS)).Reload()
    scalars = {tag: events.Scalars(tag) for tag in events.Tags()["scalars"]}
    return {tag: [(e.step, pytest.approx(e.value)) for e in each] for tag, each in scalars.items()}, scalars


def test_every_epoch_is_a_row(tmp_path):
    done = [
        Done(1, loss=2.3456789, metrics={"top1": 0.5, "top5": 0.875}),
        Done(2, pictures=0),
        Done(3, metrics={"top1": 0.6125}, learning_rate=math.nan, seconds=0.0),
    ]
    History(tmp_path).epoch(done)
    assert (tmp_path / TABLE).read_text() == (
        "epoch,loss,top1,top5,learning_rate,seconds,pictures_per_second\n"
        "1,2.34568,0.5,0.875,0.025,2,1500\n"
        "2,1.5,,,0.025,2,\n"
        "3,1.5,0.6125,,,0,\n"
    )


def test_tensorboard_shows_every_epoch_once_although_a_training_was_resumed(tmp_path):
    done = epochs(0.2, None, 0.5, 0.4)
    first = History(tmp_path)
    for count in (1, 2):
        first.epoch(done[:count])  # and it is killed
    resumed = History(tmp_path)
    for count in (3, 4):
        resumed.epoch(done[:count])
    resumed.close()
    values, events = logged(tmp_path)
    assert values.keys() == {"loss", "top1", "learning_rate", "seconds", "pictures_per_second"}
    assert values["loss"] == [(1, 1), (2, 1 / 2), (3, 1 / 3), (4, 1 / 4)]
    assert values["top1"] == [(1, 0.2), (3, 0.5), (4, 0.4)]
    assert values["pictures_per_second"] == [(i, 1500) for i in (1, 2, 3, 4)]
    times = [event.wall_time for event in events["loss"]]
    assert times[2] - times[0] == pytest.approx(4, abs=0.01)  # two epochs of 2 s, though written at once
    assert len(table(tmp_path)) == 4


@pytest.mark.parametrize("top1", [[0.1], [None, None], [0.1, None, 0.9], [0.3] * 600, [math.nan, 0.0]], ids=len)
def test_the_curve_can_be_drawn_of_any_training(tmp_path, top1, caplog):
    history = History(tmp_path)
    history.epoch(epochs(*top1))
    assert caplog.text == ""
    with Image.open(tmp_path / CURVE) as picture:
        assert picture.width > 1000


def test_the_curve_is_drawn_after_the_first_epoch_and_at_the_end(tmp_path):
    history = History(tmp_path)
    history.epoch(epochs(0.2))
    first = (tmp_path / CURVE).read_bytes()
    for count in (2, 3):
        history.epoch(epochs(0.2, 0.3, 0.4)[:count])
    assert (tmp_path / CURVE).read_bytes() == first  # so soon it would take more than its share of the time
    history.close()
    last = (tmp_path / CURVE).read_bytes()
    assert last != first
    (tmp_path / CURVE).unlink()
    history.close()
    assert not (tmp_path / CURVE).exists()  # there was nothing new


def test_nothing_is_written_or_imported_before_the_first_epoch(tmp_path):
    code = (
        "import sys; from nasnet_zoo.training.history import History; History(sys.argv[1]).close(); "
        "print(sorted({'matplotlib', 'tensorboard'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "new"], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n" and not (tmp_path / "new").exists()


@pytest.mark.skipif(resource is None, reason="needs POSIX limits")
def test_a_full_disk_is_one_warning_and_what_was_missed_is_made_up_for(tmp_path, caplog):
    history = History(tmp_path)
    history.epoch(epochs(0.1))
    before = (tmp_path / TABLE).read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))
    try:
        for count in (2, 3):
            history.epoch(epochs(0.1, 0.2, 0.3)[:count])
        history.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    (warning,) = caplog.records
    assert warning.levelno == logging.WARNING and "history.csv could not be written" in warning.getMessage()
    assert "\n" not in warning.getMessage() and (tmp_path / TABLE).read_bytes() == before
    history.epoch(epochs(0.1, 0.2, 0.3, 0.4))
    history.close()
    assert len(table(tmp_path)) == 4 and [step for step, _ in logged(tmp_path)[0]["loss"]] == [1, 2, 3, 4]
    assert {path.name for path in tmp_path.iterdir()} == {TABLE, EVENTS, CURVE}


@pytest.mark.parametrize("taken", [TABLE, EVENTS, CURVE])
def test_one_file_that_cannot_be_written_keeps_no_other_back(tmp_path, caplog, taken):
    """Something else has the name: a folder, or a file where a folder should be."""
    (tmp_path / taken).touch() if taken == EVENTS else (tmp_path / taken).mkdir()
    history = History(tmp_path)
    history.epoch(epochs(0.1))
    history.epoch(epochs(0.1, 0.2))
    history.close()
    assert len(caplog.records) == 1 and taken in caplog.text
    if taken != TABLE:
        assert len(table(tmp_path)) == 2
    if taken != EVENTS:
        assert logged(tmp_path)[0]["top1"] == [(1, 0.1), (2, 0.2)]
    if taken != CURVE:
        assert (tmp_path / CURVE).is_file()


def test_the_best_epoch_is_that_of_the_first_metric():
    assert best_of([]) is None and best_of(epochs(None, None)) is None
    assert best_of(epochs(0.2, 0.7, None, 0.7, 0.1)).epoch == 2
    assert best_of(epochs(math.nan, 0.1)).epoch == 2
    mixed = [Done(1, metrics={"top1": 0.5, "top5": 0.9}), Done(2, metrics={"top5": 0.95, "top1": 0.4})]
    assert best_of(mixed).epoch == 1
