import json
from dataclasses import replace

import pytest
import torch

from nasnet_zoo import create, load
from nasnet_zoo.arch.cells import CellScale
from nasnet_zoo.arch.checks import MAX_JSON_DEPTH, parse_json
from nasnet_zoo.arch.config import NetworkConfig, read_config
from nasnet_zoo.arch.genotype import Block, Cell, Edge, Genotype
from nasnet_zoo.arch.genotypes import DARTS_V2, GENOTYPES, NASNET_A
from nasnet_zoo.arch.preprocess import Preprocess
from nasnet_zoo.errors import ConfigError, GenotypeError, ZooError
from nasnet_zoo.networks import layers
from nasnet_zoo.networks.build import build

PREPROCESS = Preprocess((32, 40))
SMALL = NetworkConfig(NASNET_A, CellScale("cifar", 6, 4, (1, 1, 1)), PREPROCESS, 10)
CONFIGS = {
    "smallest": SMALL,
    "every scale field": replace(
        SMALL,
        architecture=DARTS_V2,
        scale=CellScale("imagenet-nds", 8, 8, (1, 2, 1), True, bn_eps=1e-5, aux_size=(14, 14)),
    ),
    "every preprocess field": replace(
        SMALL,
        preprocess=Preprocess((331, 224), (0.1, 0.2, 0.3), (0.5, 0.6, 1.0), 0.875, "shortest", "bicubic", False),
    ),
    "label set": replace(SMALL, labels="cifar10"),
    "label list": replace(SMALL, labels=("cat", "dög"), num_classes=2),
    "one channel": replace(SMALL, in_channels=1, preprocess=Preprocess((28, 28), (0.5,), (0.5,))),
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_json_round_trip(config):
    text = json.dumps(config.to_json())
    again = NetworkConfig.from_json(json.loads(text))
    assert again == config
    assert hash(again) == hash(config)
    assert json.dumps(again.to_json()) == text


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_round_trip_without_the_text_between(config):
    assert NetworkConfig.from_json(config.to_json()) == config


def test_read_config(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"network": SMALL.to_json(), "weights": {"sha256": "0"}}))
    assert read_config(path) == (SMALL, {"sha256": "0"})


def test_defaults():
    value = SMALL.to_json()
    for name in ("in_channels", "labels", "kind"):
        del value[name]
    for name in ("skip_reduction_input", "bn_eps", "aux_size"):
        del value["scale"][name]
    value["preprocess"] = {"size": [32, 40]}
    assert NetworkConfig.from_json(json.loads(json.dumps(value))) == SMALL


@pytest.mark.parametrize("name", GENOTYPES)
def test_the_hash_is_the_genotypes(name):
    config = replace(SMALL, architecture=GENOTYPES[name])
    assert config.hash == GENOTYPES[name].canonical_hash


# What is refused: (path into the JSON, value put there, words of the message)

MISSING = object()
REFUSED = [
    (("format_version",), 3, ["format_version", "2"]),
    (("format_version",), "1", ["format_version", "'1'"]),
    (("format_version",), None, ["format_version"]),
    (("format_version",), True, ["format_version"]),
    (("format_version",), MISSING, ["format_version"]),
    (("kind",), "cube", ["cube", "cell"]),
    (("kind",), ["cell"], ["kind"]),
    (("kind",), None, ["kind"]),
    (("architecture",), MISSING, ["architecture"]),
    (("scale",), MISSING, ["scale"]),
    (("preprocess",), MISSING, ["preprocess"]),
    (("num_classes",), MISSING, ["num_classes"]),
    (("extra",), 1, ["extra"]),
    (("num_classes",), "10", ["num_classes"]),
    (("num_classes",), 10.0, ["num_classes"]),
    (("num_classes",), True, ["num_classes"]),
    (("num_classes",), None, ["num_classes"]),
    (("num_classes",), 0, ["num_classes", "0"]),
    (("num_classes",), 10**9, ["num_classes"]),
    (("in_channels",), 0, ["in_channels", "0"]),
    (("in_channels",), 3.0, ["in_channels"]),
    (("in_channels",), 10**9, ["in_channels"]),
    (("labels",), 3, ["labels"]),
    (("labels",), ["a", 1], ["labels"]),
    (("labels",), ["a", "\ud800"], ["half a character"]),
    (("labels",), {"0": "a"}, ["labels"]),
    (("scale",), None, ["scale"]),
    (("scale",), [], ["scale"]),
    (("scale", "stem"), "vgg", ["scale", "stem", "cifar"]),
    (("scale", "stem"), MISSING, ["scale", "stem"]),
    (("scale", "stem_channels"), "6", ["scale", "stem_channels"]),
    (("scale", "stem_channels"), 1, ["scale", "stem_channels", "1"]),
    (("scale", "filters"), 4.0, ["scale", "filters"]),
    (("scale", "filters"), True, ["scale", "filters"]),
    (("scale", "filters"), 0, ["scale", "filters", "0"]),
    (("scale", "filters"), 1 << 17, ["scale", "filters"]),
    (("scale", "filters"), MISSING, ["scale", "filters"]),
    (("scale", "stages"), [], ["scale", "stages"]),
    (("scale", "stages"), [1, 0], ["scale", "stages"]),
    (("scale", "stages"), [1] * 7, ["scale", "stages"]),
    (("scale", "stages"), [10**9], ["scale", "stages"]),
    (("scale", "stages"), 3, ["scale", "stages"]),
    (("scale", "stages"), ["1"], ["scale", "stages"]),
    (("architecture", "style"), "fancy", ["style", "nds"]),
    (("architecture", "style"), ["nds"], ["style", "nds"]),
    (("scale", "style"), "nds", ["scale", "style"]),
    (("scale", "skip_reduction_input"), 1, ["scale", "skip_reduction_input"]),
    (("scale", "bn_eps"), 0.0, ["scale", "bn_eps"]),
    (("scale", "bn_eps"), "1e-3", ["scale", "bn_eps"]),
    (("scale", "bn_eps"), float("nan"), ["scale", "bn_eps"]),
    (("scale", "aux_size"), [4, 14], ["scale", "auxiliary", "5x5"]),
    (("scale", "aux_size"), [14], ["scale", "aux_size"]),
    (("scale", "aux_size"), [14, 1 << 20], ["scale", "auxiliary", "256x256"]),
    (("scale", "depth"), 3, ["scale", "depth"]),
    (("preprocess",), 3, ["preprocess"]),
    (("preprocess", "size"), 32, ["preprocess", "size"]),
    (("preprocess", "size"), [32], ["preprocess", "size"]),
    (("preprocess", "size"), [0, 32], ["preprocess", "size"]),
    (("preprocess", "size"), [32, 1 << 20], ["preprocess", "size"]),
    (("preprocess", "mean"), [0.5, 0.5], ["preprocess", "mean"]),
    (("preprocess", "mean"), "half", ["preprocess", "mean"]),
    (("preprocess", "std"), [0.5, 0.5, 0.0], ["preprocess", "std"]),
    (("preprocess", "std"), [0.5, 0.5, float("inf")], ["preprocess", "std"]),
    (("preprocess", "crop"), 0.0, ["preprocess", "crop"]),
    (("preprocess", "crop"), 1.5, ["preprocess", "crop", "1.5"]),
    (("preprocess", "crop"), True, ["preprocess", "crop"]),
    (("preprocess", "resize"), "stretch", ["preprocess", "resize", "squash"]),
    (("preprocess", "interpolation"), "nearest", ["preprocess", "interpolation", "bicubic"]),
    (("preprocess", "antialias"), "yes", ["preprocess", "antialias"]),
    (("preprocess", "pad"), 3, ["preprocess", "pad"]),
]


@pytest.mark.parametrize("path, to, words", REFUSED, ids=lambda v: ".".join(v) if isinstance(v, tuple) else None)
def test_refused(path, to, words):
    value = json.loads(json.dumps(SMALL.to_json()))
    place = value
    for key in path[:-1]:
        place = place[key]
    if to is MISSING:
        del place[path[-1]]
    else:
        place[path[-1]] = to
    with pytest.raises((ConfigError, GenotypeError)) as error:
        NetworkConfig.from_json(value)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize("value", [None, [], "cell", 1, {}])
def test_something_that_is_no_config(value):
    with pytest.raises(ConfigError):
        NetworkConfig.from_json(value)


def test_a_bad_genotype_names_its_block():
    value = SMALL.to_json()
    value["architecture"]["normal"]["blocks"][1]["left"] = [9, "identity"]
    with pytest.raises(GenotypeError, match="normal cell, block 1, left"):
        NetworkConfig.from_json(value)


def test_an_auxiliary_head_needs_two_stages():
    with pytest.raises(ConfigError, match="auxiliary"):
        CellScale("cifar", 6, 4, (3,), aux_size=(16, 16))


@pytest.mark.parametrize("change", [{"stem": "vgg"}])
def test_unknown_choices_are_refused_without_json_too(change):
    """A stem that nobody knows must not quietly become CIFAR's."""
    with pytest.raises(ConfigError, match=next(iter(change))):
        replace(SMALL.scale, **change)


@pytest.mark.parametrize("name", ["AmoebaNet-C", "PNASNet-5"])
@pytest.mark.parametrize("style", ["slim", "nds"])
@pytest.mark.parametrize("filters", [4, 5, 7, 8])
def test_a_scale_is_refused_or_can_be_built(name, style, filters):
    """The first stem cell has a quarter of the filters, which half of its factorized reductions split in two."""
    try:
        genotype = replace(GENOTYPES[name], style=style)
        config = replace(SMALL, architecture=genotype, scale=CellScale("imagenet", 8, filters, (1,)))
    except ConfigError:
        assert filters < 8
    else:
        assert build(config).eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 10)


LARGE = NetworkConfig(NASNET_A, CellScale("imagenet", 96, 168, (6, 6, 6)), Preprocess((331, 331)), 1000)
CHAIN = Cell(tuple(Block(Edge(i, "sep_conv_7x7"), Edge(i + 1, "sep_conv_7x7")) for i in range(64)), (65,))
TOO_LARGE = {
    "filters": (replace(LARGE, scale=replace(LARGE.scale, filters=1 << 16)), "12639.9 billion parameters"),
    "classes": (replace(LARGE, num_classes=1 << 20), "4.3 billion parameters"),
    "blocks": (
        replace(LARGE, architecture=Genotype(CHAIN, CHAIN), scale=replace(LARGE.scale, stages=(1000,))),
        "1002 cells of 64 blocks are more than 8192 steps",
    ),
}


@pytest.mark.parametrize("config, words", TOO_LARGE.values(), ids=TOO_LARGE)
def test_a_network_that_no_machine_holds_is_refused_before_it_is_built(config, words, tmp_path, monkeypatch):
    """Each number is allowed by itself."""
    monkeypatch.setattr(layers.Chain, "__init__", None)  # nothing is built
    record = {"network": json.loads(json.dumps(config.to_json()))}
    (tmp_path / "config.json").write_text(json.dumps(record))
    (tmp_path / "model.safetensors").write_bytes(b"\2" + bytes(7) + b"{}")  # no tensors
    for make in (lambda: create(read_config(tmp_path / "config.json")[0]), lambda: load(tmp_path)):
        with pytest.raises(ConfigError, match=words):
            make()


@pytest.mark.parametrize("options", [{"num_classes": 1 << 30}, {"in_channels": 10**9}, {"in_channels": 1025}])
def test_options_of_load_that_no_machine_holds_are_refused(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        load("nasnet-a-cifar-small", **options)


BAD_FILES = {
    "deep nesting": b'{"network":' + b"[" * 100_000,
    "deep architecture": b'{"network": {"architecture": ' + b"[" * 900 + b"]" * 900 + b"}}",
    "truncated": json.dumps({"network": SMALL.to_json()}).encode()[:-9],
    "empty": b"",
    "list": b"[]",
    "no network": b'{"config": {}}',
    "null network": b'{"network": null}',
    "not utf-8": b'{"network": "\xff"}',
    "too large": b" " * (1 << 20) + b"{}",
}


@pytest.mark.parametrize("content", BAD_FILES.values(), ids=BAD_FILES)
def test_bad_files(tmp_path, content):
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"config\.json"):
        read_config(path)


@pytest.mark.parametrize("field", SMALL.to_json())
@pytest.mark.parametrize("depth", [300, 900])
def test_nesting_that_json_can_read_is_refused_in_every_field(tmp_path, field, depth):
    path = tmp_path / "config.json"
    text = json.dumps({"network": SMALL.to_json() | {field: "@"}})
    path.write_text(text.replace('"@"', "[" * depth + "]" * depth))
    with pytest.raises(ZooError, match=r"config\.json"):
        read_config(path)


def test_json_is_as_deep_as_is_allowed_whatever_python_allows():
    assert parse_json("[" * MAX_JSON_DEPTH + "]" * MAX_JSON_DEPTH)
    assert parse_json("[" + "[]," * 1000 + "[]]") == [[]] * 1001  # side by side is not deep
    text = {"a": "[" * 1000, 'b"{': ["\\", '\\"' + "{" * 1000]}  # nor is what stands in a string
    assert parse_json(json.dumps(text)) == text
    for depth in (MAX_JSON_DEPTH + 1, 300, 900, 5_000, 100_000):
        for left, right in (("[", "]"), ('{"a":', "}"), ('{"\\"]": [', "]}"), ("[", "")):
            with pytest.raises(ValueError, match="nested more than 100 levels deep"):
                parse_json(left * depth + "1" + right * depth)


@pytest.mark.parametrize("value", [b"{}", None, 3, "", "[1", '"' + "[" * 1000, "1" * 5000, '"a" "b"'])
def test_what_is_no_json_is_a_value_error(value):
    with pytest.raises(ValueError):
        parse_json(value)


def test_missing_file(tmp_path):
    for path in (tmp_path / "config.json", tmp_path):
        with pytest.raises(ConfigError, match="cannot read"):
            read_config(path)
