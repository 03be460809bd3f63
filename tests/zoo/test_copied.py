"""`nasnet-zoo convert` of the project's own checkpoints: the same network in another type, and all that is known."""

import json
from pathlib import Path

import pytest
import torch
from toy_training import CONFIG, refused

import nasnet_zoo
from nasnet_zoo.errors import ConfigError
from nasnet_zoo.weights.checkpoint import copy_checkpoint, read_weights

KNOWN = {"recipe": {"name": "x", "seed": 0}, "accuracy": {"val_top1": 0.5}, "epoch": 3}


@pytest.fixture
def net(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    network = nasnet_zoo.create(CONFIG, labels=[f"class {index}" for index in range(10)])
    nasnet_zoo.save(network, "net", **KNOWN)
    return network


def weights_of(folder):
    return json.loads(Path(folder, "config.json").read_text())["weights"]


def test_in_float16_with_all_that_is_known_and_a_card(net, run):
    code, out, err = run("convert", "net", "-o", "half", "--float16")
    assert (code, out) == (0, "wrote half\n"), err
    known = weights_of("half")
    assert known.pop("sha256") != weights_of("net")["sha256"] and known == KNOWN
    assert {value.dtype for value in read_weights("half/model.safetensors").values()} == {torch.float16}
    loaded = nasnet_zoo.load("half", verify=True)
    assert loaded.labels == net.labels and loaded.config == net.config
    for key, value in loaded.state_dict().items():
        assert torch.equal(value, net.state_dict()[key].half().float()), key
    assert "| weights | float16, SHA-256" in Path("half/README.md").read_text()


def test_as_it_is(net, run):
    assert run("convert", "net", "-o", "copy")[0] == 0
    assert Path("copy/model.safetensors").read_bytes() == Path("net/model.safetensors").read_bytes()
    assert weights_of("copy") == weights_of("net")


def test_a_half_precision_checkpoint_stays_one(net, run):
    nasnet_zoo.save(net, "half", "float16")
    assert run("convert", "half", "-o", "copy")[0] == 0
    assert Path("copy/model.safetensors").read_bytes() == Path("half/model.safetensors").read_bytes()


def test_the_folder_of_a_training(net, run):
    Path("run").mkdir()
    Path("net").rename("run/checkpoint")
    Path("run/training.json").write_text("{}")
    Path("run/state.safetensors").write_bytes(b"")
    assert run("convert", "run", "-o", "copy", "--float16")[0] == 0
    assert weights_of("copy")["epoch"] == 3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("net", "-o", "net"), "net would be replaced by a copy of itself: name another folder"),
        (("net", "-o", "x", "-m", "nasnet-a-cifar"), "net knows its network: leave -m away"),
        (
            ("a.pth", "-o", "x"),
            "a.pth does not say of which network it holds the weights: name a file that is, and its network with -m",
        ),
        (("nowhere", "-o", "x"), "nowhere is not there: name a file that is, and its network with -m"),
        (
            ("net/config.json", "-o", "net"),
            "net would be replaced by a copy of itself: name another folder",
        ),
    ],
)
def test_what_it_cannot_do(arguments, said, net, run):
    Path("a.pth").write_bytes(b"junk")
    before = Path("net/model.safetensors").read_bytes()
    assert refused(run, "convert", *arguments, fast=False) == said
    assert Path("net/model.safetensors").read_bytes() == before and not Path("x").exists()


def test_a_training_that_is_not_done(net, run):
    Path("run").mkdir()
    Path("run/training.json").write_text("{}")
    Path("run/state.safetensors").write_bytes(b"")
    said = refused(run, "convert", "run", "-o", "x", fast=False)
    assert said == "run is a training's run folder, and has no checkpoint yet: `nasnet-zoo train -o run` finishes it"


def test_a_search_is_no_weights(net, run):
    Path("search").mkdir()
    Path("search/best.json").write_text("{}")
    assert "and a file of weights, a checkpoint or a training is needed here" in refused(
        run, "convert", "search", "-o", "x", fast=False
    )


def test_what_a_stranger_has_written_into_the_config(net, run):
    config = json.loads(Path("net/config.json").read_text())
    config["weights"] |= {"dtype": "x", "folder": "y", "network": "z", "state": 1, "training": {"pictures": "many"}}
    Path("net/config.json").write_text(json.dumps(config))
    assert run("convert", "net", "-o", "copy")[0] == 0
    assert weights_of("copy")["training"] == {"pictures": "many"} and "dtype" not in weights_of("copy")


def test_a_damaged_one_is_not_copied(net, run):
    data = bytearray(Path("net/model.safetensors").read_bytes())
    data[-1] ^= 1
    Path("net/model.safetensors").write_bytes(data)
    assert "is damaged: its SHA-256 is" in refused(run, "convert", "net", "-o", "x", fast=False)


def test_a_link_to_itself(net):
    Path("link").symlink_to("net")
    with pytest.raises(ConfigError, match="would be replaced by a copy of itself"):
        copy_checkpoint("net", "link")
