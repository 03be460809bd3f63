"""Checkpoints as trainings save them, converted to checkpoint folders."""

import argparse
import json
import logging
import os
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from changed_networks import logits_in_eager, small_network
from torch import nn
from torch.optim.swa_utils import AveragedModel

import nasnet_zoo
from nasnet_zoo.errors import CheckpointError
from nasnet_zoo.networks.build import build
from nasnet_zoo.weights.foreign import convert_file, read_pth
from nasnet_zoo.weights.training_checkpoint import unwrapped


@pytest.fixture
def network():
    return small_network()


def prefixed(network, prefix):
    return {prefix + key: value for key, value in network.state_dict().items()}


def converted(content, network, folder, name="model.pth.tar"):
    """(The entry that was taken, the network that was loaded.)"""
    path = folder / name
    torch.save(content, path)
    entry = convert_file(path, network.config, folder / "out")
    return entry, nasnet_zoo.load(folder / "out", verify=True)


def assert_same(found, network):
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(logits_in_eager(found, x), logits_in_eager(network, x))
    assert found.config == network.config and found.labels == network.labels


@pytest.mark.parametrize(
    "name", ["model.pth", "model.pth.tar", "last.ckpt", "best.pt", "pytorch_model.bin", "checkpoint.tar"]
)
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "old format"])
def test_whatever_the_files_name(name, zipped, network, tmp_path):
    torch.save({"state_dict": network.state_dict()}, tmp_path / name, _use_new_zipfile_serialization=zipped)
    assert convert_file(tmp_path / name, network.config, tmp_path / "out") == "state_dict"
    assert_same(nasnet_zoo.load(tmp_path / "out"), network)
    record = json.loads((tmp_path / "out" / "config.json").read_text())["weights"]
    assert (record["origin"], record["origin_form"], record["origin_entry"]) == (name, "nasnet_zoo", "state_dict")


PREFIXES = [
    "",
    "module.",
    "_orig_mod.",
    "module._orig_mod.",
    "_orig_mod.module.",
    "model.",
    "network.",
    "model._orig_mod.",
]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_whatever_the_wrappers(prefix, network, tmp_path):
    _, found = converted(prefixed(network, prefix), network, tmp_path)
    assert_same(found, network)


def test_parts_that_were_compiled(network, tmp_path):
    state = {key.replace("stem.0.", "stem.0._orig_mod."): value for key, value in network.state_dict().items()}
    assert_same(converted(state, network, tmp_path)[1], network)


def test_weights_beside_other_modules_keep_their_names():
    state = {"model.stem.weight": torch.zeros(1), "criterion.weight": torch.zeros(1)}
    assert unwrapped(state) == state


@pytest.mark.parametrize("entry", ["state_dict", "model", "model_state_dict", "network", "state_dict_ema", "model_ema"])
def test_whatever_the_entry(entry, network, tmp_path):
    content = {"epoch": 3, entry: network.state_dict(), "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]}}
    taken, found = converted(content, network, tmp_path)
    assert taken == entry
    assert_same(found, network)


@pytest.mark.parametrize(("plain", "averaged"), [("state_dict", "state_dict_ema"), ("model", "model_ema")])
def test_averages_are_preferred_and_said(plain, averaged, network, tmp_path, run, caplog):
    average = AveragedModel(network)
    with torch.no_grad():
        for parameter in average.module.parameters():
            parameter.mul_(0.5)
    content = {plain: network.state_dict(), averaged: average.state_dict()}
    assert "n_averaged" in content[averaged]
    with caplog.at_level(logging.INFO, "nasnet_zoo"):
        taken, found = converted(content, network, tmp_path)
    assert taken == averaged and f"the weights are its {averaged}" in caplog.text
    assert_same(found, average.module)
    nasnet_zoo.save(network, tmp_path / "like")
    command = ("convert", tmp_path / "model.pth.tar", "-m", tmp_path / "like", "-o", tmp_path / "other")
    code, out, err = run(*command)
    assert code == 0 and f"the averaged weights, the file's {averaged}" in out, err
    taken, found = converted({**content, averaged: None}, network, tmp_path)
    assert taken == plain
    assert_same(found, network)


def averaged_state(network, by=0.5):
    return {key: value * by for key, value in network.state_dict().items()}


def with_state(network, state):
    found = build(network.config).eval()
    found.load_state_dict(state)
    return found


@pytest.mark.parametrize(
    ("path", "taken"),
    [
        (("ema", "module"), "ema.module"),
        (("ema", "state_dict"), "ema.state_dict"),
        (("model_ema", "model"), "model_ema.model"),
    ],
)
@pytest.mark.parametrize("plain", ["model", "state_dict"])
def test_averages_one_level_down_are_preferred_and_said(path, taken, plain, network, tmp_path, run):
    average = averaged_state(network)
    content = {plain: network.state_dict(), path[0]: {path[1]: average, "decay": 0.99}}
    found = converted(content, network, tmp_path)
    assert found[0] == taken
    assert_same(found[1], with_state(network, average))
    nasnet_zoo.save(network, tmp_path / "like")
    code, out, err = run("convert", tmp_path / "model.pth.tar", "-m", tmp_path / "like", "-o", tmp_path / "other")
    assert code == 0 and f"the averaged weights, the file's {taken}" in out, err


@pytest.mark.parametrize("ema", ["shadow_params", None], ids=["torch_ema", "a list"])
def test_averages_without_names_are_passed_over_and_said(ema, network, tmp_path, caplog):
    shadow = [parameter.detach() * 0.5 for parameter in network.parameters()]
    content = {"model": network.state_dict(), "ema": {ema: shadow, "decay": 0.99, "num_updates": 4} if ema else shadow}
    taken, found = converted(content, network, tmp_path)
    assert taken == "model" and "the averages in its ema are passed over" in caplog.text
    assert_same(found, network)


@pytest.mark.parametrize("ema", [0.99, True, torch.tensor(0.99), {"decay": 0.99}], ids=str)
def test_settings_of_an_average_are_no_averages(ema, network, tmp_path, caplog):
    assert converted({"model": network.state_dict(), "ema": ema}, network, tmp_path)[0] == "model"
    assert not caplog.records


def test_weights_two_levels_down(network, tmp_path):
    taken, found = converted({"model": {"state_dict": network.state_dict()}, "epoch": 1}, network, tmp_path)
    assert taken == "model.state_dict"
    assert_same(found, network)


def test_a_state_dict_with_numbers_beside_the_tensors(network, tmp_path):
    content = {**network.state_dict(), "epoch": 3, "best": np.float64(0.9), "arch": "nasnet"}
    assert_same(converted(content, network, tmp_path)[1], network)


@pytest.mark.parametrize("prefix", ["model.", "net.module.", "model._orig_mod."])
@pytest.mark.parametrize("entry", ["state_dict", None])
def test_other_modules_of_a_lightning_module_are_passed_over_and_said(prefix, entry, network, tmp_path, caplog):
    state = {**prefixed(network, prefix), "criterion.weight": torch.ones(7), "criterion.scale": torch.ones(1)}
    taken, found = converted({entry: state} if entry else state, network, tmp_path)
    plain = prefix.replace("_orig_mod.", "")
    assert taken == (f"{entry}." if entry else "") + plain[:-1]
    assert f"begin with '{plain}'; 2 of {len(state)} tensors do not, and are passed over" in caplog.text
    assert_same(found, network)


@pytest.mark.parametrize(
    ("plain", "ema"),
    [
        ("model.", "ema."),
        ("model.", "ema.module."),
        ("model.", "ema_model."),
        ("", "model_ema.module."),
        ("ema.online_model.", "ema.ema_model."),
    ],
)
def test_the_averages_of_a_lightning_module_are_preferred_and_said(plain, ema, network, tmp_path, caplog):
    average = averaged_state(network)
    state = prefixed(network, plain) | {ema + key: value for key, value in average.items()}
    state |= {"ema.n_averaged": torch.tensor(3), "criterion.weight": torch.ones(7)}
    taken, found = converted({"state_dict": state}, network, tmp_path)
    assert taken == "state_dict." + ema[:-1] and f"begin with '{ema}'" in caplog.text
    assert_same(found, with_state(network, average))


def test_averages_of_the_parameters_alone_do_not_hide_the_network(network, tmp_path):
    state = prefixed(network, "model.") | {f"ema.{key}": value * 0 for key, value in network.named_parameters()}
    taken, found = converted({"state_dict": state}, network, tmp_path)
    assert taken == "state_dict.model"
    assert_same(found, network)


def refused(content, network, folder, name="model.pth"):
    """The sentence with which a conversion ends."""
    with pytest.raises(CheckpointError) as caught:
        converted(content, network, folder, name)
    assert not (folder / "out").exists() and "\n" not in str(caught.value) and len(str(caught.value)) < 500
    return str(caught.value).replace(str(folder), "")


@pytest.mark.parametrize("missing", [("classifier.bias", "classifier.weight"), ("classifier.bias",)])
@pytest.mark.parametrize("beside", [{}, {"criterion.weight": torch.ones(7)}], ids=["alone", "beside another module"])
def test_a_network_without_its_classifier_is_told_what_helps(missing, beside, network, tmp_path):
    state = {key: value for key, value in network.state_dict().items() if key not in missing}
    said = refused({f"net.{key}": value for key, value in state.items()} | beside, network, tmp_path)
    assert f"model.pth lacks {' and '.join(missing)}, and convert needs the whole network" in said
    assert "nasnet_zoo.create(NAME, num_classes=N) by load_state_dict(state, strict=False)" in said
    made = nasnet_zoo.create(network.config, num_classes=7)
    made.load_state_dict(state, strict=False)
    nasnet_zoo.save(made, tmp_path / "saved")
    x = torch.randn(2, 3, 32, 32)
    found = nasnet_zoo.load(tmp_path / "saved")
    assert torch.equal(found.forward_features(x), network.eval().forward_features(x))


@pytest.mark.parametrize("dtype", [torch.int8, torch.int64, torch.bool])
def test_integers_are_no_weights(dtype, network, tmp_path):
    said = refused({key: value.to(dtype) for key, value in network.state_dict().items()}, network, tmp_path)
    assert f"model.pth has stem.0.conv.weight as {dtype}, and weights are floating-point numbers" in said


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(value, network, tmp_path):
    state = network.state_dict()
    key = list(state)[3]
    state[key][-1] = value
    state["classifier.bias"][0] = value
    assert f"model.pth holds {key} with values that are no finite numbers" in refused(state, network, tmp_path)


@pytest.mark.parametrize("wrap", [lambda network: network, nn.DataParallel, lambda network: {"model": network}])
def test_a_pickled_network_is_told_how_to_save_it(wrap, network, tmp_path):
    said = refused(wrap(network), network, tmp_path)
    assert "which is not read: to unpickle an object, or a whole network, runs code" in said
    assert "save network.state_dict() alone, or use nasnet_zoo.save(network, folder)" in said
    assert "download" not in said


def test_a_real_tar_is_told(network, tmp_path):
    torch.save(network.state_dict(), tmp_path / "model.pth")
    with tarfile.open(tmp_path / "real.pth.tar", "w") as archive:
        archive.add(tmp_path / "model.pth", "model.pth")
    with pytest.raises(CheckpointError, match=r"real.pth.tar is a tar archive: unpack it, and convert the file in it"):
        convert_file(tmp_path / "real.pth.tar", network.config, tmp_path / "out")


def test_what_a_training_keeps_beside_the_weights(network, tmp_path):
    arguments = argparse.Namespace(lr=0.1, out=Path("runs"), nested=argparse.Namespace(best=np.float64(3)))
    optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9)
    sum(parameter.sum() for parameter in network.parameters()).backward()
    optimizer.step()
    content = {
        "epoch": 3,
        "arch": "nasnet",
        "state_dict": nn.DataParallel(network).state_dict(),
        "optimizer": optimizer.state_dict(),
        "args": arguments,
        "best": np.float32(93.5),
        "curve": np.arange(4.0),
        "path": tmp_path,
    }
    _, found = converted(content, network, tmp_path)
    assert_same(found, network)


def test_a_lightning_checkpoint(network, tmp_path):
    content = {
        "epoch": 1,
        "global_step": 12,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": prefixed(network, "model."),
        "loops": {"fit_loop": {"state_dict": {}}},
        "callbacks": {"ModelCheckpoint{'monitor': None}": {"best_model_score": torch.tensor(0.5)}},
        "optimizer_states": [{"state": {}, "param_groups": []}],
        "lr_schedulers": [],
        "hparams_name": "kwargs",
        "hyper_parameters": {"lr": 0.1},
    }
    assert_same(converted(content, network, tmp_path, "epoch=1-step=12.ckpt")[1], network)


def test_safetensors_with_prefixes(network, tmp_path):
    safetensors.torch.save_file(prefixed(network, "module."), tmp_path / "model.safetensors")
    convert_file(tmp_path / "model.safetensors", network.config, tmp_path / "out")
    assert_same(nasnet_zoo.load(tmp_path / "out"), network)


def test_the_classifier_says_how_many_classes(network, tmp_path):
    config = network.config
    network.reset_classifier(3)
    state = nn.SyncBatchNorm.convert_sync_batchnorm(network).half().state_dict()
    path = tmp_path / "model.pth"
    torch.save(state, path)
    convert_file(path, config, tmp_path / "out")
    found = nasnet_zoo.load(tmp_path / "out")
    assert found.config.num_classes == 3 and found.labels is None
    assert torch.equal(found.classifier.weight, network.classifier.weight.float())


def test_a_head_for_the_training_alone_is_left_out(tmp_path):
    network = nasnet_zoo.create("nasnet-a-cifar-small", filters=4, stem_channels=6, stages=(1, 1), aux_size=(16, 16))
    plain = nasnet_zoo.create("nasnet-a-cifar-small", filters=4, stem_channels=6, stages=(1, 1))
    torch.save(network.state_dict(), tmp_path / "model.pth")
    convert_file(tmp_path / "model.pth", plain.config, tmp_path / "out")
    assert_same(nasnet_zoo.load(tmp_path / "out"), plain_of(network, plain))


def plain_of(network, plain):
    plain.load_state_dict({k: v for k, v in network.state_dict().items() if not k.startswith("aux.")})
    return plain.eval()


def test_another_network_is_told(network, tmp_path):
    other = build(small_network(in_channels=1).config)
    with pytest.raises(CheckpointError, match=r"model.pth.tar does not fit its config.*stem.0.conv.weight"):
        converted(other.state_dict(), network, tmp_path)
    assert not (tmp_path / "out").exists()


def test_the_shipped_network_as_the_command_takes_it(run, tmp_path):
    network = nasnet_zoo.load("nasnet-a-cifar-small")
    torch.save(
        {"state_dict": prefixed(network, "module."), "args": argparse.Namespace(a=1)}, tmp_path / "model.pth.tar"
    )
    code, out, err = run("convert", tmp_path / "model.pth.tar", "-m", "nasnet-a-cifar-small", "-o", tmp_path / "out")
    assert code == 0 and "the file's state_dict" in out and "averaged" not in out, err
    assert_same(nasnet_zoo.load(tmp_path / "out"), network)


class Hostile:
    """Unpickling this makes a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


class Tool(Hostile):
    """The same by a module that torch does not block by name."""

    def __reduce__(self):
        return Path.mkdir, (self.path,)


@pytest.mark.parametrize("kind", [Hostile, Tool])
@pytest.mark.parametrize("place", ["args", "state_dict", "inside args"])
def test_a_hostile_object_is_refused_and_not_run(kind, place, network, tmp_path):
    proof = tmp_path / "proof"
    pickle.loads(pickle.dumps(kind(proof)))
    proof.rmdir()  # it would be made, if it were unpickled
    value = argparse.Namespace(out=kind(proof)) if place == "inside args" else kind(proof)
    content = {"state_dict": network.state_dict(), place.split()[-1]: value}
    with pytest.raises(CheckpointError, match=r"model.pth.tar is not a state_dict that can be read safely") as caught:
        converted(content, network, tmp_path)
    assert not proof.exists() and not (tmp_path / "out").exists() and "\n" not in str(caught.value)


def test_what_is_passed_over_is_never_made(tmp_path, monkeypatch):
    """A namespace in a file fills no namespace: nothing of it is read."""
    torch.save({"state_dict": {"a": torch.zeros(1)}, "args": argparse.Namespace(x=1)}, tmp_path / "a.pth")
    before = set(torch.serialization.get_safe_globals())
    monkeypatch.setattr(argparse.Namespace, "__init__", lambda *_, **__: pytest.fail("it was made"))
    monkeypatch.setattr(argparse.Namespace, "__setstate__", lambda *_: pytest.fail("it was filled"), raising=False)
    assert read_pth(tmp_path / "a.pth")[1] == "state_dict"
    assert set(torch.serialization.get_safe_globals()) == before


class Odd:
    pass


def test_what_is_not_read_is_named(tmp_path):
    torch.save({"state_dict": {"a": torch.zeros(1)}, "odd": Odd()}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"it holds \S*test_training_checkpoints.Odd, which is not read"):
        read_pth(tmp_path / "a.pth")


@pytest.mark.parametrize(
    "value",
    [torch.zeros(2, device="meta"), torch.eye(2).to_sparse(), {"a": torch.zeros(2)}, "text"],
    ids=["meta", "sparse", "nested", "text"],
)
def test_what_is_no_weight_is_told(value, tmp_path):
    torch.save({"state_dict": {"a": value}, "lr": 0.1}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"does not hold a state_dict of tensors \(it has state_dict, lr\)"):
        read_pth(tmp_path / "a.pth")
