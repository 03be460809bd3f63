"""The network in the package: it loads offline, is small, and is as good as its config and the card say."""

import json
from pathlib import Path

import pytest
import torch
from family_card import card

import nasnet_zoo
from nasnet_zoo.data.cifar import cifar10_pictures
from nasnet_zoo.data.labels import example_pictures
from nasnet_zoo.registry import MODELS
from nasnet_zoo.training.evaluate import evaluate

ROOT = Path(__file__).resolve().parents[2]
NAME = "nasnet-a-cifar-small"
FOLDER = ROOT / "nasnet_zoo" / "assets" / NAME
IMAGES = example_pictures("cifar10")


@pytest.fixture(scope="module")
def network():
    return nasnet_zoo.load(NAME, local_files_only=True)


def test_it_is_small_and_float16():
    from safetensors import safe_open

    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= 8e6
    with safe_open(FOLDER / "model.safetensors", "pt") as file:
        assert {str(file.get_tensor(key).dtype) for key in file.keys()} == {"torch.float16"}  # noqa: SIM118


def test_its_config_is_the_tables(network):
    assert network.config == MODELS[NAME].config


def test_it_knows_most_of_the_pictures(network):
    assert len(IMAGES) >= 5
    right = [network.predict(path)[0].label == path.stem for path in IMAGES]
    assert sum(right) >= len(right) - 2


def test_its_recipe_is_recorded():
    weights = json.loads((FOLDER / "config.json").read_text())["weights"]
    assert weights["recipe"]["name"] and weights["recipe"]["epochs"] > 0
    assert 0.5 < weights["accuracy"]["cifar10_test_top1"] < 1


def test_the_readme_and_the_card_state_its_accuracy():
    accuracy = json.loads((FOLDER / "config.json").read_text())["weights"]["accuracy"]
    stated = f"{100 * accuracy['cifar10_test_top1']:.2f}"
    assert f"{stated} %" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert stated in (ROOT / "MODEL_CARD.md").read_text(encoding="utf-8")


def test_the_card_is_not_stale():
    assert (ROOT / "MODEL_CARD.md").read_text(encoding="utf-8") == card()


@pytest.mark.slow
def test_its_accuracy_on_all_test_pictures(network, cifar10):
    accuracy = json.loads((FOLDER / "config.json").read_text())["weights"]["accuracy"]
    top1, top5 = evaluate(network, cifar10_pictures(cifar10, train=False))
    assert (top1, top5) == pytest.approx((accuracy["cifar10_test_top1"], accuracy["cifar10_test_top5"]), abs=3e-4)


def test_a_part_of_the_test_pictures(network, cifar10):
    accuracy = json.loads((FOLDER / "config.json").read_text())["weights"]["accuracy"]["cifar10_test_top1"]
    part = cifar10_pictures(cifar10, train=False).subset(torch.arange(500))
    assert evaluate(network, part)[0] == pytest.approx(accuracy, abs=0.06)  # four standard deviations
