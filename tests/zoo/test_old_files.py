"""The zoo's files of the first version (tests/golden/v1): every later one reads them."""

import json
import shutil

import numpy as np
import pytest
import torch

import nasnet_zoo
from nasnet_zoo.arch.config import NetworkConfig
from nasnet_zoo.arch.genotypes import GENOTYPES
from nasnet_zoo.arch.preprocess import Preprocess
from nasnet_zoo.errors import ExportError
from nasnet_zoo.export.metadata import FORMAT_VERSION, PREFIX, Metadata
from nasnet_zoo.export.session import Session
from nasnet_zoo.lookup import find_architecture, find_config
from nasnet_zoo.search.scaling import Target, transfer

STYLES = ("slim", "nds")  # of what search-* and checkpoint-* hold
X = torch.linspace(-2, 2, 1536).view(2, 3, 16, 16)


@pytest.fixture
def old(golden):
    return golden / "v1"


def logits_of(old, name):
    return torch.tensor(json.loads((old / f"checkpoint-{name}-logits.json").read_text()))


def assert_close(found, expected):
    torch.testing.assert_close(torch.as_tensor(found), expected, rtol=0, atol=1e-4)


# Checkpoints


@pytest.mark.parametrize("name", STYLES)
def test_checkpoints_load_and_give_their_logits(old, name):
    network = nasnet_zoo.load(old / f"checkpoint-{name}", verify=True)
    with torch.inference_mode():
        assert_close(network(X), logits_of(old, name))
    assert network.config.architecture.style == name
    assert find_config(str(old / f"checkpoint-{name}")) == network.config


@pytest.mark.parametrize("name", STYLES)
def test_checkpoints_are_written_anew_as_this_version_does(old, name, tmp_path):
    network = nasnet_zoo.load(old / f"checkpoint-{name}")
    nasnet_zoo.save(network, tmp_path / "again")
    again = nasnet_zoo.load(tmp_path / "again")
    assert again.config == network.config
    with torch.inference_mode():
        assert torch.equal(again(X), network(X))
    written = json.loads((tmp_path / "again" / "config.json").read_text())["network"]
    assert NetworkConfig.from_json(written) == network.config and "style" not in written["scale"]


def test_a_cached_conversion_loads(old):
    network = nasnet_zoo.load(old / "cache" / "tiny" / "tf", verify=True)
    with torch.inference_mode():
        assert network(torch.zeros(1, network.config.in_channels, 64, 64)).isfinite().all()


# Architectures


@pytest.mark.parametrize("name", ["NASNet-A", "DARTS-V2"])
def test_genotype_files_are_the_published_cells(old, name):
    found = find_architecture(str(old / f"genotype-{name}.json"))
    assert found.kind == "cell" and found.architecture == GENOTYPES[name]
    assert found.architecture.style == ("nds" if name.startswith("DARTS") else "slim")


@pytest.mark.parametrize("name", STYLES)
def test_what_a_search_found_is_transferred_in_its_style(old, name):
    best = old / f"search-{name}" / "best.json"
    found = find_architecture(str(best))
    assert found.kind == "cell" and found.architecture.style == name
    stored = json.loads(best.read_text())["architecture"]
    assert {part: found.architecture.to_json()[part] for part in stored} == stored
    config = transfer(found.architecture, Target(cells=1, penultimate=None, multiply_adds=30e6), size=64, num_classes=7)
    assert config.architecture == found.architecture
    assert config.scale.stem == ("imagenet-nds" if name == "nds" else "imagenet")
    with torch.inference_mode():
        assert nasnet_zoo.create(config).eval()(torch.zeros(1, 3, 64, 64)).shape == (1, 7)


@pytest.mark.parametrize("name", STYLES)
def test_a_config_names_its_architecture(old, name):
    found = find_architecture(str(old / f"checkpoint-{name}"))
    assert found.architecture == GENOTYPES["NASNet-A" if name == "slim" else "DARTS-V2"]


# Exports


def test_an_export_gives_its_checkpoints_logits(old):
    session = Session(old / "onnx", providers=["cpu"])
    assert_close(session.run(X.numpy()), logits_of(old, "slim"))
    config = NetworkConfig.from_json(session.metadata.config)
    assert config == nasnet_zoo.load(old / "checkpoint-slim").config
    assert session.labels == session.metadata.labels and session.metadata.fixed


def props(**changes):
    data = Metadata(
        *("tiny", "fp32", "apache-2.0", "here", Preprocess((16, 16)), 3, 2, ("cat", "dog"), {}, "0" * 64), top=2
    )
    return {**data.to_props(), **{PREFIX + key: value for key, value in changes.items()}}


LATER = ("data_sha256", "fixed", "pixels", "top", "minimum_size")


@pytest.mark.parametrize("missing", [*LATER, LATER])
def test_metadata_from_before_a_field_takes_its_default(missing):
    missing = (missing,) if isinstance(missing, str) else missing
    older = {key: value for key, value in props().items() if key.removeprefix(PREFIX) not in missing}
    data = Metadata.from_props(older, "an old graph")
    defaults = {field: getattr(Metadata, field) for field in missing}
    assert {field: getattr(data, field) for field in missing} == defaults
    kept = set(LATER) - set(missing)
    assert {field: getattr(data, field) for field in kept} == {
        field: getattr(Metadata.from_props(props(), "a graph"), field) for field in kept
    }


def test_metadata_from_before_a_field_of_the_preprocessing_takes_its_default():
    older = {key: value for key, value in props().items() if key != PREFIX + "interpolation"}
    assert Metadata.from_props(older, "an old graph").preprocess == Preprocess((16, 16))


@pytest.mark.parametrize("missing", ["name", "size", "classes", "weights_sha256"])
def test_metadata_without_what_has_no_default_are_damaged(missing):
    with pytest.raises(ExportError, match=f"the metadata of a graph is damaged .*{missing}.*: export it again"):
        Metadata.from_props({key: value for key, value in props().items() if key != PREFIX + missing}, "a graph")


@pytest.mark.parametrize("version", [str(FORMAT_VERSION + 1), "0", "x"])
def test_metadata_of_another_version_are_told(version):
    with pytest.raises(ExportError, match=f"a graph has metadata of version {version}, this nasnet_zoo reads 1"):
        Metadata.from_props(props(format_version=version), "a graph")


def test_an_older_graph_runs(old, tmp_path):
    """One without the keys that came later, as a whole file."""
    import onnx

    shutil.copy(old / "onnx" / "model.onnx", tmp_path)
    model = onnx.load(tmp_path / "model.onnx")
    kept = [prop for prop in model.metadata_props if prop.key.removeprefix(PREFIX) not in LATER]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    onnx.save(model, tmp_path / "model.onnx")
    session = Session(tmp_path, providers=["cpu"])
    assert np.abs(session.run(X.numpy()) - logits_of(old, "slim").numpy()).max() < 1e-4
