"""`--hold-out`: pictures of the training's to choose by, and the test pictures read once, when all is done."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from toy_training import CONFIG, cifar10, paint, record, refused, trained

import nasnet_zoo
from nasnet_zoo.data.sets import DataSet, find_data, with_held_out
from nasnet_zoo.errors import DataError
from nasnet_zoo.training import run as training_run
from nasnet_zoo.training.evaluate import evaluate
from nasnet_zoo.training.history import spent
from nasnet_zoo.training.state import Epoch

TRAIN = ("train", "-m", "net/config.json", "-o", "run", "--set", "sizes=[]", "--epochs", 2)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("nasnet_zoo.data.sets.cifar10_pictures", cifar10)
    nasnet_zoo.save(nasnet_zoo.create(CONFIG), "net")
    paint(tmp_path / "fruit")
    return tmp_path


def colours():
    return DataSet("CIFAR-10", cifar10(), cifar10(train=False), "cifar10", "cifar10_test")


def test_the_parts_share_nothing_and_are_the_same_each_time():
    data, again = with_held_out(colours(), 10), with_held_out(colours(), 10)
    assert (len(data.train), len(data.val), len(data.test)) == (54, 10, 30)
    assert torch.equal(data.val.images, again.val.images) and torch.equal(data.train.images, again.train.images)
    every = torch.cat([data.train.images, data.val.images]).flatten(1)
    assert len(every.unique(dim=0)) == len(cifar10().images.flatten(1).unique(dim=0)) == 64
    assert (data.measured, data.tested) == ("held_out", "cifar10_test")
    assert data.val.labels.bincount(minlength=10).max() <= 3
    order = {image.numpy().tobytes(): place for place, image in enumerate(cifar10().images)}
    kept = [order[image.numpy().tobytes()] for image in data.train.images]
    assert kept == sorted(kept)


def test_folders_have_their_pictures_held_out_too(here):
    data = with_held_out(find_data("fruit"), 6)
    assert (len(data.train), len(data.val), len(data.test)) == (12, 6, 6)
    assert {path for path, _ in data.train}.isdisjoint(path for path, _ in data.val)
    assert data.tested == "val" and data.unmeasured == []
    assert [sum(label == index for _, label in data.val) for index in range(3)] == [2, 2, 2]
    assert len({label for _, label in with_held_out(find_data("fruit"), 15).train}) == 3


@pytest.mark.parametrize("count", [-1, 55, 64, 1000])
def test_what_the_data_cannot_spare(count):
    with pytest.raises(DataError, match=f"{count} of the 64 training pictures .* cannot be.*: give at most 54"):
        with_held_out(colours(), count)


def test_the_test_pictures_are_read_once(here, run, measured):
    out = trained(run, *TRAIN, "--hold-out", 10)
    assert measured == [10, 10, 30]
    assert "on CIFAR-10's test pictures" in out and "best" in out
    network = nasnet_zoo.load("run/checkpoint")
    top1, top5 = evaluate(network, cifar10(train=False))
    accuracy = record("run/checkpoint", "config.json")["weights"]["accuracy"]
    assert accuracy["cifar10_test_top1"] == pytest.approx(top1) and accuracy["cifar10_test_top5"] == pytest.approx(top5)
    assert set(accuracy) == {"held_out_top1", "held_out_top5", "cifar10_test_top1", "cifar10_test_top5"}
    assert "cifar10_test_top1" not in record("run/best", "config.json")["weights"]["accuracy"]
    assert f"top-1 {top1:.2%}" in out


def test_with_none_held_out_all_are_learned_and_some_of_them_watched(here, run, measured):
    data = with_held_out(colours(), 0)
    assert (len(data.train), len(data.val), len(data.test), data.measured) == (64, 64, 30, "seen")
    out = trained(run, *TRAIN, "--hold-out", 0)
    assert measured == [64, 64, 30] and not Path("run/best").exists()
    accuracy = record("run/checkpoint", "config.json")["weights"]["accuracy"]
    assert list(accuracy) == ["seen_top1", "seen_top5", "cifar10_test_top1", "cifar10_test_top5"]
    assert "on CIFAR-10's test pictures" in out and "best " not in out.replace("no best epoch is kept", "")
    assert "nothing is held out: the accuracies on the way are those on 64 pictures that are learned from" in out
    assert "top1" in Path("run/history.csv").read_text()


def test_a_training_that_goes_on_keeps_what_it_held_out(here, run, measured):
    trained(run, *TRAIN, "--hold-out", 10)
    measured.clear()
    trained(run, "train", "-o", "run", "--epochs", 3)
    assert measured == [10, 30] and record("run")["hold_out"] == 10 and record("run")["pictures"] == [54, 10]
    said = refused(run, "train", "-o", "run", "--epochs", 4, "--hold-out", 20)
    assert said.startswith("run holds a training with --hold-out 10: leave it away to go on")


def test_the_same_command_does_not_read_the_test_pictures_again(here, run, measured):
    out = trained(run, *TRAIN, "--hold-out", 10)
    before = Path("run/checkpoint/config.json").read_bytes()
    measured.clear()
    assert trained(run, *TRAIN, "--hold-out", 10).splitlines()[-2:] == out.splitlines()[-2:]
    assert measured == [] and Path("run/checkpoint/config.json").read_bytes() == before


def test_what_was_learned_is_kept_whatever_comes_of_the_test_pictures(here, run):
    for path in Path("fruit/val").rglob("*.png"):
        path.write_bytes(b"damaged")
    command = "train", "-m", "net/config.json", "-o", "run", "--data", "fruit", "--hold-out", 3, "--epochs", 1
    assert "none of the pictures to measure on can be read" in refused(run, *command)
    accuracy = record("run/checkpoint", "config.json")["weights"]["accuracy"]
    assert set(accuracy) == {"held_out_top1", "held_out_top5"}
    paint(here / "fruit")
    trained(run, "train", "-o", "run")
    assert "val_top1" in record("run/checkpoint", "config.json")["weights"]["accuracy"]


def test_pictures_that_came_later_are_no_part_of_it(here, run):
    command = "train", "-m", "net/config.json", "-o", "run", "--data", "fruit", "--hold-out", 3, "--epochs", 1
    trained(run, *command)
    (here / "fruit/train/kiwi/new.png").write_bytes((here / "fruit/train/kiwi/0.png").read_bytes())
    said = refused(run, "train", "-o", "run", "--epochs", 2)
    assert "fruit has other pictures than when the training in run began, of which some were held out" in said


def test_a_record_that_says_nonsense(here, run):
    trained(run, *TRAIN, "--hold-out", 10)
    told = record("run")
    Path("run/training.json").write_text(json.dumps(told | {"hold_out": "4"}))
    assert "run/training.json is no record of a training" in refused(run, "train", "-o", "run")


def test_a_training_without_it_cannot_get_it_later(here, run):
    trained(run, *TRAIN)
    for count in (0, 10):
        said = refused(run, "train", "-o", "run", "--hold-out", count)
        assert said.startswith("run holds a training without --hold-out: leave it away to go on")


def test_data_without_pictures_to_test_on(here, run):
    for path in Path("fruit/val").rglob("*.png"):
        path.unlink()
    for path in [*Path("fruit/val").iterdir(), Path("fruit/val")]:
        path.rmdir()
    said = refused(run, "train", "-m", "net/config.json", "-o", "run", "--data", "fruit", "--hold-out", 3)
    assert said == (
        "fruit has no pictures to test on, because a part of the training's is held out already: add a folder val with "
        "others"
    )


def test_what_a_checkpoint_says_of_its_training(here, run, monkeypatch):
    monkeypatch.setattr(training_run, "device_name", lambda device: f"the {device}")
    monkeypatch.chdir(here / "fruit")
    trained(run, "train", "-m", "../net/config.json", "-o", "../run", "--data", ".", "--epochs", 2)
    training = record("../run/checkpoint", "config.json")["weights"]["training"]
    assert training["data"] == "fruit" and training["pictures"] == 18
    assert training["devices"] == [f"the cpu, torch {torch.__version__}"]
    assert training["seconds"] > 0 and training["pictures_per_second"] > 0
    assert str(here) not in json.dumps(record("../run/checkpoint", "config.json"))
    monkeypatch.setattr(training_run, "device_name", lambda device: "another one")
    trained(run, "train", "-o", "../run")  # which does nothing
    assert record("../run/checkpoint", "config.json")["weights"]["training"]["devices"] == training["devices"]
    trained(run, "train", "-o", "../run", "--epochs", 3)
    devices = record("../run/checkpoint", "config.json")["weights"]["training"]["devices"]
    assert devices == [*training["devices"], f"another one, torch {torch.__version__}"]


def test_a_name_of_a_recipe_in_an_older_record_tells_no_path(here, run):
    trained(run, *TRAIN)
    told = record("run")
    Path("run/training.json").write_text(json.dumps(told | {"recipe": told["recipe"] | {"name": "/home/a/r.json"}}))
    trained(run, "train", "-o", "run", "--epochs", 3)
    assert record("run/checkpoint", "config.json")["weights"]["recipe"]["name"] == "r.json"


def test_time_spent_counts_an_interrupted_epoch_whole():
    whole = Epoch(1, 2, 0.5, seconds=10.0, pictures=100)
    half = dataclasses.replace(whole, epoch=2, seconds=5.0, pictures=50)
    assert spent([whole, half], 100) == {"seconds": 20.0, "pictures_per_second": 10.0}
    assert spent([Epoch(1, 2, 0.5), whole], 100) == {}  # the first version timed nothing
