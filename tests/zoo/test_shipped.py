"""The networks in the package: they load offline, are small, and are as good as their configs and cards say."""

import json
from pathlib import Path

import pytest
import torch
from family_card import card

import nasnet_zoo
from nasnet_zoo.cli.app import SHIPPED
from nasnet_zoo.data.cifar import cifar10_pictures
from nasnet_zoo.data.labels import example_pictures
from nasnet_zoo.errors import ConfigError
from nasnet_zoo.registry import MODELS
from nasnet_zoo.training.evaluate import evaluate
from nasnet_zoo.training.recipes import find_recipe
from nasnet_zoo.weights.cards import card as card_of

ROOT = Path(__file__).resolve().parents[2]
ASSETS = ROOT / "nasnet_zoo" / "assets"
IMAGES = example_pictures("cifar10")
NAMES = [model.name for model in MODELS.values() if any(source.form == "package" for source in model.weights)]


@pytest.fixture(scope="module", params=NAMES)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def network(name):
    return nasnet_zoo.load(name, local_files_only=True)


@pytest.fixture(scope="module")
def weights(name):
    """What the config says of the weights."""
    return json.loads((ASSETS / name / "config.json").read_text())["weights"]


def test_the_commands_take_one_of_them_where_none_is_named():
    assert SHIPPED in NAMES


def test_together_they_are_small_and_nothing_else_is_there():
    assert sum(path.stat().st_size for name in NAMES for path in (ASSETS / name).iterdir()) <= 15e6
    assert sorted(path.parent.name for path in ASSETS.glob("*/*.safetensors")) == sorted(NAMES)


def test_it_is_small_and_float16(name):
    from safetensors import safe_open

    assert sum(path.stat().st_size for path in (ASSETS / name).iterdir()) <= 8e6
    with safe_open(ASSETS / name / "model.safetensors", "pt") as file:
        assert {str(file.get_tensor(key).dtype) for key in file.keys()} == {"torch.float16"}  # noqa: SIM118


def test_its_config_is_the_tables(name, network):
    assert network.config == MODELS[name].config


def test_its_recipe_is_the_one_of_that_name(name, weights):
    """So the command that docs/shelf.md shows is the one that trained it."""
    recipe = find_recipe(ASSETS / name / "config.json")
    assert recipe == find_recipe(weights["recipe"]["name"], {"precision": "float32"})
    assert name != SHIPPED or weights["recipe"]["name"] == "cifar-cpu"
    assert weights["recipe"]["epochs"] > 0 and 0.5 < weights["accuracy"]["cifar10_test_top1"] < 1


def test_it_knows_most_of_the_pictures(network):
    right = [network.predict(path)[0].label == path.stem for path in IMAGES]
    assert sum(right) >= len(right) - 2


def test_the_best_one_knows_every_picture_of_the_readme():
    network = nasnet_zoo.load(SHIPPED, local_files_only=True)
    assert len(IMAGES) == 8
    assert [network.predict(path)[0].label for path in IMAGES] == [path.stem for path in IMAGES]


def test_the_best_one_is_the_one_that_the_commands_take():
    accuracy = {
        name: json.loads((ASSETS / name / "config.json").read_text())["weights"]["accuracy"]["cifar10_test_top1"]
        for name in NAMES
    }
    assert max(accuracy, key=accuracy.get) == SHIPPED and accuracy[SHIPPED] > 0.89


def test_the_readme_and_the_card_state_its_accuracy(name, weights):
    stated = f"{100 * weights['accuracy']['cifar10_test_top1']:.2f}"
    assert f"{stated} %" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert stated in (ROOT / "MODEL_CARD.md").read_text(encoding="utf-8")


def test_the_best_one_has_a_card_of_its_own():
    folder = ASSETS / SHIPPED
    weights = json.loads((folder / "config.json").read_text())["weights"]
    text = card_of(MODELS[SHIPPED].config, weights, SHIPPED, "float16")
    assert (folder / "README.md").read_text(encoding="utf-8") == text
    for row in ("network", "accuracy", "training", "time", "machine"):
        assert f"| {row} |" in text


def test_the_card_of_all_is_not_stale():
    assert (ROOT / "MODEL_CARD.md").read_text(encoding="utf-8") == card()


def test_the_tool_that_ships_weights(tmp_path, monkeypatch, cifar10):
    """From a training's folder to the assets: float16, with the accuracy of what is stored, and a card."""
    import ship

    few = cifar10_pictures(cifar10, train=False).subset(torch.arange(64))
    monkeypatch.setattr(ship, "cifar10_pictures", lambda folder, train: few)
    network = nasnet_zoo.load("nasnet-a-cifar-small", dtype="float32")
    nasnet_zoo.save(network, tmp_path / "run" / "checkpoint", accuracy={"seen_top1": 1.0}, epoch=3)
    folder = ship.ship(tmp_path / "run", None, tmp_path / "assets")
    record = json.loads((folder / "config.json").read_text())["weights"]
    assert folder.name == "nasnet-a-cifar-small" and record["license"] == "apache-2.0" and record["epoch"] == 3
    assert record["accuracy"] == {
        f"cifar10_test_{key}": round(value, 4) for key, value in zip(("top1", "top5"), evaluate(network, few))
    }
    assert 'license: "apache-2.0"' in (folder / "README.md").read_text()
    nasnet_zoo.save(nasnet_zoo.create("nasnet-a-cifar-small", filters=4), tmp_path / "other" / "checkpoint")
    with pytest.raises(ConfigError, match="of no model of the zoo"):
        ship.ship(tmp_path / "other", None, tmp_path / "assets")
    assert [path.name for path in (tmp_path / "assets").iterdir()] == ["nasnet-a-cifar-small"]


@pytest.mark.slow
def test_its_accuracy_on_all_test_pictures(network, weights, cifar10):
    accuracy = weights["accuracy"]
    top1, top5 = evaluate(network, cifar10_pictures(cifar10, train=False))
    assert (top1, top5) == pytest.approx((accuracy["cifar10_test_top1"], accuracy["cifar10_test_top5"]), abs=3e-4)


def test_a_part_of_the_test_pictures(network, weights, cifar10):
    part = cifar10_pictures(cifar10, train=False).subset(torch.arange(500))
    accuracy = weights["accuracy"]["cifar10_test_top1"]
    assert evaluate(network, part)[0] == pytest.approx(accuracy, abs=0.06)  # three and a half standard deviations
