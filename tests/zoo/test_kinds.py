"""A kind that stands in one file of the tests goes through everything that cells go through."""

import json

import pytest
import tiny_kind
import torch
from family_card import card
from PIL import Image
from tiny_kind import PlainNet, PlainScale

import nasnet_zoo
from nasnet_zoo.arch import layers
from nasnet_zoo.arch.config import NetworkConfig
from nasnet_zoo.arch.cost import network_cost
from nasnet_zoo.arch.kinds import KINDS, get_kind, register_kind
from nasnet_zoo.arch.preprocess import CIFAR10
from nasnet_zoo.data.cifar import Pictures
from nasnet_zoo.errors import ConfigError, ZooError
from nasnet_zoo.export import Session, to_onnx
from nasnet_zoo.export.trace import NODES, Tracer
from nasnet_zoo.networks.build import build
from nasnet_zoo.networks.layers import MODULES, make_layer
from nasnet_zoo.registry import MODELS, ModelInfo, Published
from nasnet_zoo.search import SPACES, ChildSettings, SearchConfig, SpaceSettings, Target, transfer
from nasnet_zoo.search import run as search
from nasnet_zoo.search.spaces.base import Choice, FixedSpace
from nasnet_zoo.search.spaces.table import SpaceEntry
from nasnet_zoo.training.evaluate import calibrate, evaluate
from nasnet_zoo.training.recipe import Recipe
from nasnet_zoo.training.tasks.classify import Classify


@pytest.fixture
def plain():
    tiny_kind.drawn.clear()
    tiny_kind.register()
    yield NetworkConfig(PlainNet(2), PlainScale(8), CIFAR10, 5)
    del KINDS["plain"]


def pictures(n=40):
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(5, (n,), generator=generator)
    base = torch.randint(256, (5, 3, 1, 1), generator=generator)[labels]
    noise = torch.randint(-30, 30, (n, 3, 32, 32), generator=generator)
    return Pictures((base + noise).clamp(0, 255).to(torch.uint8), labels)


def test_its_config_is_written_read_and_hashed(plain):
    value = json.loads(json.dumps(plain.to_json()))
    again = NetworkConfig.from_json(value)
    assert again == plain and again.kind == "plain" and again.hash == "plain-2-3"
    assert NetworkConfig.from_json({key: value[key] for key in value if key != "kind"}) == plain  # by its form
    for scale, word in (({"width": "8"}, "width"), ({"filters": 8, "width": 8}, "filters"), ({}, "width")):
        with pytest.raises(ConfigError, match=f"scale, {word}"):
            NetworkConfig.from_json(value | {"scale": scale})


def test_it_is_created_counted_and_resized(plain):
    network = nasnet_zoo.create(plain, repeats=2)
    assert network.config.scale == PlainScale(8, 2)
    cost = network_cost(network.config)
    assert cost.parameters == sum(p.numel() for p in network.parameters())
    assert all(value.is_meta for value in build(plain, empty=True).state_dict().values())
    assert set(network.state_dict()) >= {"body.0.down.conv.weight", "body.1.residual_1.cross.bias", "classifier.bias"}
    assert (network.feature_strides, network.feature_channels) == ((2, 4), (8, 8))
    assert [tuple(m.shape[1:]) for m in network.features(torch.zeros(1, 3, 32, 40))] == [(8, 16, 20), (8, 8, 10)]
    x = torch.randn(2, 3, 32, 40)
    assert torch.equal(network.forward_head(network.forward_features(x)), network(x))
    with pytest.raises(ConfigError, match="8 x 8"):
        network(torch.zeros(1, 3, 7, 8))
    network.reset_classifier(3)
    assert network(torch.zeros(2, 3, 16, 16)).shape == (2, 3) and network.config.num_classes == 3


def test_it_is_trained_calibrated_and_evaluated(plain, tmp_path):
    torch.manual_seed(0)
    network, recipe = nasnet_zoo.create(plain), Recipe(6, 10, 0.1, warmup_epochs=0.0, pad=2, drop_path_keep=0.9)
    task = Classify(pictures(), recipe, plain.preprocess, pictures())
    history = nasnet_zoo.train(network, task, recipe, folder=tmp_path)
    assert len(history) == 6 and history[-1].loss < history[0].loss / 2
    calibrate(network, pictures())
    assert evaluate(network, pictures())[0] == task.evaluate(network)["top1"] > 0.8


def test_it_is_saved_loaded_exported_and_predicts_the_same(plain, tmp_path, run):
    torch.manual_seed(0)
    network = build(plain).eval()
    nasnet_zoo.save(network, tmp_path / "net")
    again = nasnet_zoo.load(tmp_path / "net")
    report = to_onnx(again, tmp_path / "onnx", name="plain", size="any")
    assert report.checks[0].relative_error < 1e-5
    x = torch.randn(2, 3, 24, 32)
    with torch.inference_mode():
        expected = network(x)
    assert torch.equal(again(x), expected)
    assert torch.allclose(torch.from_numpy(Session(tmp_path / "onnx").run(x.numpy())), expected, atol=1e-5)
    assert nasnet_zoo.load(tmp_path / "net", num_classes=3, in_channels=1)(torch.zeros(1, 1, 16, 16)).shape == (1, 3)
    Image.new("RGB", (20, 20)).save(tmp_path / "picture.png")
    said = run("predict", tmp_path / "picture.png", "-m", tmp_path / "net", "--device", "cpu", "--json")[1]
    assert len(json.loads(said)[0]["top"]) == 5


class PlainSpace(FixedSpace):
    """Depths and kernels of plain networks."""

    kind = "plain"
    decisions = (Choice("depth", 3), Choice("kernel", 3))

    def __init__(self, name):
        self.name = name

    def decode(self, tokens):
        depth, kernel = self.check(tokens)
        return PlainNet(1 + depth, 1 + 2 * kernel)

    def encode(self, net):
        return net.depth - 1, net.kernel // 2

    def to_json(self, net):
        return get_kind(self.kind).write(net)

    def hash(self, net):
        return get_kind(self.kind).hash(net)


def test_it_is_searched_for_trained_reported_and_transferred(plain, tmp_path, run, monkeypatch):
    """By the children that train cells, on pictures made up: from tokens to a network of the size that is wanted."""
    monkeypatch.setitem(SPACES, "plain", SpaceEntry("plain networks", PlainSpace))
    monkeypatch.setattr("nasnet_zoo.search.children.cifar.cifar10_pictures", lambda *arguments, **options: pictures(80))
    child = ChildSettings(filters=4, cells=1, side=16, pictures=40, validation=40, calibration=20, recipe=Recipe(1, 20))
    config = SearchConfig(str(tmp_path / "run"), SpaceSettings("plain"), "evolution", child=child, children=6)
    found = search(config)
    assert found.children == 6 and isinstance(found.architecture, PlainNet)
    assert tiny_kind.drawn and found.architecture in tiny_kind.drawn  # the report draws the best
    best = json.loads((tmp_path / "run" / "best.json").read_text())
    assert (best["kind"], best["architecture"]) == ("plain", get_kind("plain").write(found.architecture))
    code, out, err = run("transfer", tmp_path / "run", "--params", "20k", "--stem", "cifar", "--json")
    assert code == 0 and NetworkConfig.from_json(json.loads(out)).architecture == found.architecture, err


def test_it_is_transferred_in_code_and_on_the_command_line(plain, tmp_path, run):
    config = transfer(PlainNet(3), Target(parameters=20_000), stem="cifar")
    assert 19_000 <= network_cost(config).parameters <= 20_000 and config.kind == "plain"
    (tmp_path / "best.json").write_text(json.dumps({"kind": "plain", "architecture": {"depth": 3, "kernel": 3}}))
    code, out, err = run("transfer", tmp_path / "best.json", "--params", "20k", "--stem", "cifar", "--json")
    assert code == 0 and NetworkConfig.from_json(json.loads(out)) == config, err
    bare = tmp_path / "bare.json"
    bare.write_text(json.dumps({"depth": 3, "kernel": 3}))
    assert run("transfer", bare, "--params", "20k", "--stem", "cifar", "-o", tmp_path / "net")[0] == 0
    assert nasnet_zoo.load(tmp_path / "net").config == config


def test_it_is_listed_shown_and_drawn(plain, tmp_path, run, monkeypatch):
    row = ModelInfo("plain", plain, "two layers", "", Published("nobody"))
    monkeypatch.setitem(MODELS, "plain", row)
    assert "width 8" in run("info", "plain")[1] and "plain" in run("list")[1]
    assert f"{row.cost.parameters:,}" in card()
    nasnet_zoo.save(build(plain), tmp_path / "net")
    assert run("draw", tmp_path / "net", "-o", tmp_path / "cells.svg")[0] == 0
    assert tiny_kind.drawn == [plain.architecture]


def test_every_layer_type_has_a_module_and_nodes():
    types = {layer for layer in vars(layers).values() if isinstance(layer, type) and issubclass(layer, layers.Layer)}
    types.remove(layers.Layer)
    assert len(types) == 8 and types <= set(MODULES) and types <= set(NODES)


def test_a_layer_type_without_a_module_or_nodes_is_one_sentence():
    class Unknown(layers.Layer):
        pass

    with pytest.raises(ConfigError, match="the layer type Unknown has no module: add it to networks.layers.MODULES"):
        make_layer(Unknown("x"), 1e-3)
    with pytest.raises(ConfigError, match="the layer type Unknown has no nodes: add it to export.trace.NODES"):
        Tracer(1e-3, {}).layer("x", Unknown("x"), "image")


def test_a_kind_is_registered_once(plain):
    with pytest.raises(ConfigError, match="the kind 'plain' is registered already"):
        register_kind("plain", get_kind("cell"))


@pytest.mark.parametrize("value", [{"depth": 9, "kernel": 3}, {"depth": 2}, [], None, 3])
def test_what_is_no_architecture_is_one_sentence(plain, tmp_path, run, value):
    path = tmp_path / "bad.json"
    path.write_text(json.dumps({"kind": "plain", "architecture": value}))
    code, out, err = run("draw", path, "-o", tmp_path / "x.svg")
    assert code == 2 and err.startswith(f"nasnet-zoo: {path}: ") and len(err.splitlines()) == 1
    path.write_text(json.dumps(value))
    code, out, err = run("draw", path, "-o", tmp_path / "x.svg")
    assert code == 2 and len(err.splitlines()) == 1 and not (tmp_path / "x.svg").exists()


def test_an_architecture_of_no_kind():
    with pytest.raises(ZooError, match="a str is the architecture of no kind"):
        NetworkConfig("abc", PlainScale(8), CIFAR10, 5)
    with pytest.raises(ConfigError, match="unknown kind 'plain'; this nasnet_zoo has cell"):
        NetworkConfig.from_json(
            {
                "format_version": 2,
                "kind": "plain",
                "architecture": {},
                "scale": {},
                "preprocess": {},
                "num_classes": 2,
            }
        )
