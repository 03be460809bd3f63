"""Arguments of wrong types: whatever the public function and the parameter, one sentence that names it."""

import inspect
import typing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from changed_networks import small_network

import nasnet_zoo
from nasnet_zoo.arch.cells import CellScale
from nasnet_zoo.arch.config import NetworkConfig
from nasnet_zoo.arch.genotypes import NASNET_A
from nasnet_zoo.arch.preprocess import Preprocess
from nasnet_zoo.data.cifar import Pictures
from nasnet_zoo.errors import ConfigError, ZooError
from nasnet_zoo.export import Session, to_onnx
from nasnet_zoo.networks.network import ImageNetwork
from nasnet_zoo.search.scaling import Target
from nasnet_zoo.training.recipe import Recipe
from nasnet_zoo.training.tasks.classify import Classify
from nasnet_zoo.util.arguments import described, fits

RECIPE = Recipe(1, batch_size=2)


def good(name, folder):
    """A call that works, as (function, arguments by name)."""
    network = small_network()
    pictures = Pictures(torch.zeros(2, 3, 32, 32, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64))
    task = Classify(pictures, RECIPE, network.config.preprocess)
    picture = np.zeros((4, 4, 3), np.uint8)
    return {
        "info": (nasnet_zoo.info, {"name": "nasnet-a-mobile"}),
        "list_models": (nasnet_zoo.list_models, {}),
        "read_genotype": (nasnet_zoo.read_genotype, {"path": folder / "genotype.json"}),
        "load": (nasnet_zoo.load, {"source": "nasnet-a-cifar-small"}),
        "create": (nasnet_zoo.create, {"name_or_config": network.config}),
        "save": (nasnet_zoo.save, {"network": network, "folder": folder / "net"}),
        "reset_classifier": (network.reset_classifier, {"num_classes": 3}),
        "predict": (network.predict, {"images": picture}),
        "to_onnx": (to_onnx, {"network": network, "path": folder / "graph"}),
        "train": (nasnet_zoo.train, {"network": network, "task": task, "recipe": RECIPE}),
        "transfer": (nasnet_zoo.search.transfer, {"architecture": NASNET_A, "target": Target(parameters=1e6)}),
        "Session": (Session, {"source": folder / "graph"}),
        "Session.predict": (session(folder).predict, {"images": picture}),
    }[name]


def session(folder):
    if not (folder / "graph").exists():
        to_onnx(small_network(), folder / "graph")
    return Session(folder / "graph", ["cpu"])


PUBLIC = {
    "info": nasnet_zoo.info,
    "list_models": nasnet_zoo.list_models,
    "read_genotype": nasnet_zoo.read_genotype,
    "load": nasnet_zoo.load,
    "create": nasnet_zoo.create,
    "save": nasnet_zoo.save,
    "reset_classifier": ImageNetwork.reset_classifier,
    "predict": ImageNetwork.predict,
    "to_onnx": to_onnx,
    "train": nasnet_zoo.train,
    "transfer": nasnet_zoo.search.transfer,
    "Session": Session.__init__,
    "Session.predict": Session.predict,
}
OWN_ERRORS = {"images"}  # a list's pictures each have a sentence of their own


class Other:
    """Nothing that any parameter takes."""

    def __repr__(self):
        return "<other>"


def parameters():
    for name, function in PUBLIC.items():
        hints = typing.get_type_hints(function)
        for parameter in inspect.signature(function).parameters.values():
            stated = hints.get(parameter.name, Any)
            named = parameter.kind is not parameter.VAR_KEYWORD and parameter.name not in ("self", *OWN_ERRORS)
            if named and stated is not Any and not getattr(stated, "_is_protocol", False):
                yield pytest.param(name, parameter.name, stated, id=f"{name}-{parameter.name}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("arguments")
    session(folder)
    return folder


@pytest.mark.parametrize(("name", "parameter", "stated"), list(parameters()))
def test_wrong_types_are_told_in_a_sentence(name, parameter, stated, folder, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    function, arguments = good(name, folder)
    values = [Other(), 2.5, "5", b"5", True, None, [Other()], {}, torch.zeros(2), np.float32(2.5)]
    wrong = [value for value in values if not fits(value, stated)]
    assert len(wrong) >= 5
    for value in wrong:
        with pytest.raises(ConfigError) as caught:
            function(**{**arguments, parameter: value})
        said = str(caught.value)
        assert parameter in said and "\n" not in said and len(said) < 300, said


def test_what_the_checks_leave_out_is_little():
    """Every parameter of the public functions is checked but those that take anything, and protocols."""
    checked = {f"{p.values[0]}.{p.values[1]}" for p in parameters()}
    everything = {f"{name}.{p}" for name, function in PUBLIC.items() for p in inspect.signature(function).parameters}
    assert {name for name in everything - checked if not name.endswith((".self", ".images"))} == {
        "create.scale",
        "save.metadata",
        "transfer.architecture",
    }


@pytest.mark.parametrize("method", ["forward", "features", "forward_features"])
def test_networks_say_what_they_take(method):
    network = small_network().eval()
    picture = torch.zeros(1, 3, 32, 32)
    wrong = {"str": "cat.png", "ndarray": picture.numpy(), "list": [picture], "torch.uint8": picture.byte()}
    for given, x in wrong.items():
        with pytest.raises(ConfigError, match=rf"float tensor \(batch, 3, height, width\), not {given}: make one with"):
            getattr(network, method)(x)
    with torch.autocast("cpu", torch.bfloat16):
        getattr(network, method)(picture.half())
    getattr(network.bfloat16(), method)(picture.bfloat16())


def test_parameters_that_there_are_not_are_told_as_python_does():
    for call, said in (
        (lambda: nasnet_zoo.load("nasnet-a-mobile", pretrained=True), r"load\(\) got an unexpected .* 'pretrained'"),
        (lambda: nasnet_zoo.load(), r"load\(\) missing 1 required positional argument: 'source'"),
        (lambda: nasnet_zoo.list_models("*", False, 3), r"list_models\(\) takes from 0 to 2 positional arguments"),
    ):
        with pytest.raises(TypeError, match=said) as caught:
            call()
        assert caught.value.__context__ is None


SCALE = dict(stem="cifar", stem_channels=6, filters=4, stages=(1,))
CONFIG = dict(architecture=NASNET_A, scale=CellScale(**SCALE), preprocess=Preprocess((32, 32)), num_classes=3)
DATA = [
    (CellScale, SCALE, ["stem_channels", "filters", "stages", "skip_reduction_input", "bn_eps", "aux_size"]),
    (Preprocess, {"size": (32, 32)}, ["size", "mean", "std", "crop", "antialias", "per_image"]),
    (NetworkConfig, CONFIG, ["preprocess", "num_classes", "in_channels", "labels"]),
    (Recipe, {"epochs": 1}, ["epochs", "batch_size", "learning_rate", "momentum", "flip", "sizes", "cutout"]),
    (Target, {"cells": 2}, ["multiply_adds", "parameters", "cells", "penultimate"]),
]


@pytest.mark.parametrize(
    ("made", "arguments", "field"), [(made, given, field) for made, given, fields in DATA for field in fields]
)
def test_data_of_wrong_types_are_told_in_a_sentence(made, arguments, field):
    for value in (Other(), "x" if field != "labels" else 5, {}, [Other()]):
        with pytest.raises(ConfigError, match=field):
            made(**{**arguments, field: value})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (dict(num_classes="5"), "num_classes is '5', and has to be None or a whole number"),
        (dict(num_classes=2.5), "num_classes is 2.5, and has to be None or a whole number"),
        (dict(in_channels="3"), "in_channels is '3', and has to be (None or )?a whole number"),
        (dict(filters=True), "filters is True, and has to be a whole number"),
        (dict(num_classes=0), "num_classes 0"),
        (dict(in_channels=0), "in_channels 0"),
    ],
)
def test_create_and_load_say_the_same(options, said):
    with pytest.raises(ConfigError, match=said):
        nasnet_zoo.create("nasnet-a-cifar-small", **options)
    if "filters" not in options:
        with pytest.raises(ConfigError, match=said):
            nasnet_zoo.load("nasnet-a-cifar-small", **options)


@pytest.mark.parametrize("name", ["float16", "half", "bfloat16", "float32", "float64"])
def test_dtypes_by_name(name, tmp_path):
    network = nasnet_zoo.load("nasnet-a-cifar-small", dtype=name)
    assert network.classifier.weight.dtype == getattr(torch, name)
    nasnet_zoo.save(network, tmp_path, name)


@pytest.mark.parametrize("dtype", ["fp16", "torch.float16", "int8", "nn", "", torch.int8, torch.complex64])
def test_dtypes_that_weights_cannot_have(dtype, tmp_path):
    for take in (
        lambda: nasnet_zoo.load("nasnet-a-cifar-small", dtype=dtype),
        lambda: nasnet_zoo.save(small_network(), tmp_path / "net", dtype),
    ):
        with pytest.raises(ConfigError, match="torch.float16, or its name, one of float32, float16, bfloat16, float64"):
            take()


def test_numpys_numbers_and_lists_are_taken(tmp_path):
    network = nasnet_zoo.create(
        "nasnet-a-cifar-small", stages=[np.int64(1)], filters=np.int64(4), num_classes=np.int64(3)
    )
    assert len(network.predict(np.zeros((4, 4, 3), np.uint8), k=np.int64(2))) == 2
    nasnet_zoo.save(network, tmp_path / "net")
    assert nasnet_zoo.load(tmp_path / "net", num_classes=np.int32(3), verify=np.bool_(True)).config == network.config


def test_metadata_that_do_not_fit_into_json_are_told(tmp_path):
    with pytest.raises(ZooError, match="when"):
        nasnet_zoo.save(small_network(), tmp_path / "net", when=object())
    assert not (tmp_path / "net").exists()


@pytest.mark.parametrize(
    ("stated", "words"),
    [
        (int | None, "None or a whole number"),
        (str | Path, "a text or a path"),
        (typing.Literal["a", "b"], "'a' or 'b'"),
        (tuple[int, int], "2 values, each a whole number"),
        (tuple[tuple[int, int], ...], "several, each 2 values, each a whole number"),
        (typing.Callable[[str], None], "a function"),
        (NetworkConfig, "a NetworkConfig"),
        (ImageNetwork, "an ImageNetwork"),
    ],
)
def test_types_in_words(stated, words):
    assert described(stated) == words
