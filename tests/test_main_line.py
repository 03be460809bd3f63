"""The main line, a command each: a cell is found, made a network, trained, measured and exported, and predicts. What it
is, what its classes are called and what its weights are stays the same all the way."""

import json

import numpy as np
import torch

import nasnet_zoo
from nasnet_zoo.data.cifar import Pictures
from nasnet_zoo.data.labels import example_pictures, label_set
from nasnet_zoo.export import Session
from nasnet_zoo.export.exporter import _digest
from nasnet_zoo.lookup import find_architecture, find_config
from nasnet_zoo.search import ChildSettings, SearchConfig, SpaceSettings
from nasnet_zoo.training.recipe import Recipe
from nasnet_zoo.util.files import sha256_file

SHORT = Recipe(1, batch_size=32, learning_rate=0.1, warmup_epochs=0.2, pad=1)
CHILD = ChildSettings(filters=4, cells=1, stem=2.0, side=12, pictures=96, validation=32, calibration=32, recipe=SHORT)
PLACES = ("nasnet_zoo.data.sets", "nasnet_zoo.data.cifar", "nasnet_zoo.search.children.cifar")


def cifar10(folder=None, train=True):
    """Noise around ten colours, of CIFAR-10's size."""
    labels = torch.arange(128 if train else 40) % 10
    base = torch.randint(256, (10, 3, 1, 1), generator=torch.Generator().manual_seed(0))[labels]
    noise = torch.randint(-40, 40, (len(labels), 3, 32, 32), generator=torch.Generator().manual_seed(int(train) + 1))
    return Pictures((base + noise).clamp(0, 255).to(torch.uint8), labels)


def test_the_main_line(tmp_path, monkeypatch, run):
    monkeypatch.chdir(tmp_path)
    for module in PLACES:
        monkeypatch.setattr(f"{module}.cifar10_pictures", cifar10)
    space = SpaceSettings("nasnet", blocks=2)
    config = SearchConfig("", space=space, searcher="random", children=2, child=CHILD).to_json()
    (tmp_path / "small.json").write_text(json.dumps(config))

    def done(*arguments):
        code, out, err = run(*arguments)
        assert code == 0, err
        return out

    done("search", "found", "--config", "small.json")
    done("transfer", "found", "--stem", "cifar", "-n", 1, "-p", 48, "-o", "net")
    done("train", "-m", "net", "-o", "run", "--epochs", 2)
    measured = done("eval", "-m", "run", "--data", "cifar10")
    done("export", "run", "-o", "graph")
    graph, network = Session("graph"), nasnet_zoo.load("run")

    pictures = example_pictures("cifar10")
    seen, there = graph.predict(pictures, k=10), network.predict(pictures, k=10)
    assert [[each.label for each in one] for one in seen] == [[each.label for each in one] for one in there]
    assert {each.label for each in seen[0]} == {*label_set("cifar10")}
    for labels in (nasnet_zoo.load("net").labels, network.labels, graph.labels):
        assert labels == label_set("cifar10")

    best = json.loads((tmp_path / "found" / "best.json").read_text())
    found = find_architecture("found")
    for config in (find_config("net"), find_config("run"), graph.config):
        assert (config.kind, config.architecture, config.hash) == (found.kind, found.architecture, best["hash"])
    assert found.architecture.to_json() == best["architecture"]

    weights = json.loads((tmp_path / "run" / "checkpoint" / "config.json").read_text())["weights"]
    assert weights["sha256"] == sha256_file("run/checkpoint/model.safetensors")
    state = {key: np.asarray(value) for key, value in network.state_dict().items()}
    assert (graph.metadata.source, graph.metadata.weights_sha256) == ("run", _digest(state))
    assert graph.metadata.trained and f"top-1 {weights['accuracy']['cifar10_test_top1']:.2%}" in measured
