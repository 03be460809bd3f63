"""What the docs quote of a training is what its run folder says."""

import json
from pathlib import Path

import pytest
from shelf_record import record
from toy_training import CONFIG, cifar10, trained
from weights_curve import draw

import nasnet_zoo
from nasnet_zoo.errors import ConfigError


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("nasnet_zoo.data.sets.cifar10_pictures", cifar10)
    nasnet_zoo.save(nasnet_zoo.create(CONFIG), "net")


def test_the_record_of_a_run(here, run):
    trained(run, "train", "-m", "net/config.json", "-o", "run", "--epochs", 3, "--set", "sizes=[]", "--hold-out", 8)
    found = record(Path("run"))
    weights = json.loads(Path("run/checkpoint/config.json").read_text())["weights"]
    assert found["accuracy"] == weights["accuracy"] and found["recipe"]["epochs"] == 3
    assert [each["epoch"] for each in found["curve"]] == [1, 2, 3]
    assert found["curve"][-1]["accuracy"] == pytest.approx(weights["accuracy"]["held_out_top1"])
    assert found["curve"][-1]["seconds"] == pytest.approx(found["seconds"], rel=0.05, abs=0.1)
    assert found["curve_of"] == "on pictures held out from the training"
    draw([found, found], Path("curve.svg"))
    assert Path("curve.svg").read_text().count("<path") > 3


def test_a_checkpoint_that_was_not_trained_here(here):
    Path("run").mkdir()
    Path("net").rename("run/checkpoint")
    with pytest.raises(ConfigError, match="does not say how its weights were trained: name the folder of a training"):
        record(Path("run"))
