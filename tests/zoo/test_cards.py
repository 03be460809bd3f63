"""The card that a checkpoint gets: what is known of the weights, and nothing else."""

import json
import re
from pathlib import Path

import pytest
import torch
from toy_training import CONFIG, cifar10, record, trained

import nasnet_zoo
from nasnet_zoo.arch.config import read_config
from nasnet_zoo.errors import CheckpointError, ConfigError
from nasnet_zoo.registry import MODELS
from nasnet_zoo.training.recipes import find_recipe
from nasnet_zoo.weights.cards import MADE, card, write_card

TRAINED = {
    "sha256": "ab" * 32,
    "epoch": 30,
    "recipe": {"name": "cifar-cpu", "seed": 3, "epochs": 30, "sizes": [[0, 16]]},
    "accuracy": {"held_out_top1": 0.5, "cifar10_test_top1": 0.91234, "cifar10_test_top5": 0.9971},
    "training": {
        "data": "CIFAR-10",
        "pictures": 45000,
        "seconds": 7000.0,
        "pictures_per_second": 214.3,
        "devices": ["a processor, 1 thread, torch 2.14", "another, torch 2.15"],
    },
}


def table(text):
    rows = [line.strip("| ").split(" | ", 1) for line in text.splitlines() if line.startswith("| ")]
    return [tuple(row) for row in rows if len(row) == 2 and row[0] != "---"]


def test_it_says_what_the_config_says():
    rows = table(card(MODELS["quick-ppo-cifar"].config, TRAINED, "mine", "float16"))
    assert rows == [
        ("network", MODELS["quick-ppo-cifar"].description),
        ("size", "0.91 M parameters, 141.6 M multiply-adds for a picture of 32 x 32 px"),
        ("classes", "10: airplane, automobile, bird, cat, deer, dog, frog, horse, ship, truck"),
        ("accuracy", "top-1 50.00% on pictures held out from the training"),
        ("accuracy", "top-1 91.23%, top-5 99.71% on CIFAR-10's 10,000 test pictures"),
        ("training", "30 epochs of 45,000 pictures of CIFAR-10, recipe cifar-cpu, seed 3"),
        ("time", "1.9 h, 214 pictures per second"),
        ("machine", "a processor, 1 thread, torch 2.14; then another, torch 2.15"),
        ("weights", f"float16, SHA-256 `{'ab' * 32}`"),
    ]


@pytest.mark.parametrize(
    "weights",
    [
        {},
        {"recipe": 3, "accuracy": [1], "training": "much", "sha256": "`x`"},
        {"training": {"pictures": "many", "seconds": "x", "pictures_per_second": 3, "devices": {}}},
        {"training": {"seconds": float("nan"), "pictures_per_second": 3.0}, "accuracy": {"val_top1": float("nan")}},
        {"training": {"seconds": True, "pictures_per_second": True, "devices": []}, "accuracy": {"val_top1": "1"}},
    ],
)
def test_what_is_not_known_is_not_said(weights):
    text = card(CONFIG, weights, "x")
    assert [key for key, _ in table(text)] == ["network", "size", "classes", "weights"][: len(table(text))]
    assert len(table(text)) >= 3 and "SHA" not in text and "nan" not in text.replace("nasnet", "")
    assert "license" not in text and "<details>" not in text


def test_the_recipe_in_it_is_one_that_a_training_takes(tmp_path):
    recipe = find_recipe("cifar-cpu")
    weights = {"recipe": {"name": "cifar-cpu", "seed": 0, **json.loads(json.dumps(vars(recipe)))}}
    text = card(CONFIG, weights, "x")
    (tmp_path / "recipe.json").write_text(text.split("```json\n")[1].split("```")[0])
    assert find_recipe(tmp_path / "recipe.json") == recipe


def test_names_and_labels_cannot_break_out_of_it():
    network = nasnet_zoo.create(CONFIG, labels=["a | b", "c\nd", *map(str, range(8))])
    weights = {
        "origin": "<script>\n| ![x](http://a.b/t.png) [y](http://a.b) `z`",
        "recipe": {"name": "](http://c.d)", "seed": "**"},
        "training": {"pictures": 3},
        "accuracy": {"<b>_top1": 0.5},
    }
    text = card(network.config, weights, "one\n# two")
    told = text.split("```")[0]
    assert "# one \\# two" in text.splitlines()
    assert not re.search(r"(?<!\\)[<\[`*]", told.split("# one")[1])
    assert [key for key, _ in table(told)] == ["network", "size", "classes", "accuracy", "training", "origin"]
    assert "a \\| b, c d" in text


def test_every_training_writes_one(tmp_path, monkeypatch, run):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("nasnet_zoo.data.sets.cifar10_pictures", cifar10)
    nasnet_zoo.save(nasnet_zoo.create(CONFIG), "net")
    trained(run, "train", "-m", "net/config.json", "-o", "run", "--epochs", 1, "--set", "sizes=[]", "--hold-out", 8)
    text = Path("run/checkpoint/README.md").read_text()
    weights = record("run/checkpoint", "config.json")["weights"]
    assert "# run" in text.splitlines() and weights["sha256"] in text and "recipe cifar-quick, seed 0" in text
    assert f"top-1 {weights['accuracy']['cifar10_test_top1']:.2%}" in text and "float32" in text
    assert "on pictures held out" in Path("run/best/README.md").read_text()
    first = text
    trained(run, "train", "-o", "run", "--epochs", 2)
    assert Path("run/checkpoint/README.md").read_text() != first
    Path("run/checkpoint/README.md").write_text("mine")
    trained(run, "train", "-o", "run", "--epochs", 3)
    assert Path("run/checkpoint/README.md").read_text() == "mine"


def test_a_card_that_is_made_again_is_the_same(tmp_path):
    torch.manual_seed(0)
    nasnet_zoo.save(nasnet_zoo.create(CONFIG), tmp_path / "net", "float16")
    first = write_card(tmp_path / "net").read_text()
    assert MADE in first and "# net" in first.splitlines() and "float16" in first
    assert write_card(tmp_path / "net").read_text() == first
    assert first == card(*read_config(tmp_path / "net" / "config.json"), "net", "float16")


def test_a_card_does_not_outlive_its_weights(tmp_path):
    network = nasnet_zoo.create(CONFIG)
    nasnet_zoo.save(network, tmp_path / "net")
    write_card(tmp_path / "net")
    nasnet_zoo.save(network, tmp_path / "net", "float16")
    assert not (tmp_path / "net" / "README.md").exists()
    (tmp_path / "net" / "README.md").write_text("mine")
    nasnet_zoo.save(network, tmp_path / "net")
    assert write_card(tmp_path / "net").read_text() == "mine"


def test_folders_that_are_no_checkpoint(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot read the config .*config\.json"):
        write_card(tmp_path)
    nasnet_zoo.save(nasnet_zoo.create(CONFIG), tmp_path / "net")
    (tmp_path / "net" / "model.safetensors").write_bytes(b"no")
    with pytest.raises(CheckpointError, match="is no file of weights that can be read"):
        write_card(tmp_path / "net")
