"""Exports from the Hub, of a server on this machine, and exports as models of a Triton repository."""

import dataclasses
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from huggingface_hub import constants
from loopback import Server
from random_networks import random_network

from nasnet_zoo.arch.genotypes import GENOTYPES
from nasnet_zoo.data.labels import example_pictures
from nasnet_zoo.errors import DownloadError, ExportError, ZooError
from nasnet_zoo.export import Session, emit, to_onnx
from nasnet_zoo.export.folder import DATA, GRAPH, REPORT, find_export
from nasnet_zoo.export.metadata import PREFIX
from nasnet_zoo.export.triton import write_triton

IMAGE = example_pictures("cifar10")[0]
REPO = "org/net"


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    """One with its weights inside and one with them beside it."""
    torch.manual_seed(0)
    network = random_network(GENOTYPES["PNASNet-5"], stages=(1,))
    network.config = dataclasses.replace(network.config, labels=("a b", "ü", "c\nd", "e", "f", "g", "h"))
    folder = tmp_path_factory.mktemp("exports")
    to_onnx(network, folder / "inside", name="net")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(emit, "EXTERNAL_BYTES", 1000)
        to_onnx(network, folder / "beside", name="net", license="mit", source="here")
        to_onnx(network, folder / "pixels", name="net", pixels=True, size=(20, 24), top=3)
        to_onnx(network, folder / "any", name="net", size="any")
    return folder


@pytest.fixture
def server(tmp_path, monkeypatch):
    for name in ("HF_HUB_OFFLINE", "NASNET_ZOO_OFFLINE", "HF_TOKEN", "HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with Server({}) as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url(""))
        template = server.url("/{repo_id}/resolve/{revision}/{filename}")
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf" / "hub"))
        yield server


def publish(server, folder, revision="main"):
    """As the Hub serves an export: what is not text is a large file."""
    files = {f"onnx/{path.name}": path.read_bytes() for path in folder.iterdir()}
    server.add_hub_repo(REPO, {"README.md": b"a card", **files}, revision)
    for path, data in server.files.items():
        if path.endswith((GRAPH, DATA)):
            linked = {"X-Linked-Etag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Linked-Size": str(len(data))}
            server.headers[path] |= linked


def sentence(error, call, *arguments, **options):
    with pytest.raises(error) as caught:
        call(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def blob(tmp_path, name):
    (path,) = (tmp_path / "hf").rglob(f"snapshots/*/onnx/{name}")
    return path.resolve()


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


@pytest.mark.parametrize("kind", ["inside", "beside"])
def test_a_repo_is_the_folder(server, exports, kind):
    publish(server, exports / kind)
    expected = Session(exports / kind, ["cpu"]).predict(IMAGE)
    assert Session(REPO, ["cpu"]).predict(IMAGE) == expected
    got = [request.path for request in server.requests if request.method == "GET"]
    asked = {path.rpartition("/")[2] for path in got if path.startswith(f"/{REPO}/")}
    assert asked == {REPORT, GRAPH, DATA} - ({DATA} if kind == "inside" else set())
    server.requests.clear()
    assert Session(REPO, ["cpu"], local_files_only=True).predict(IMAGE) == expected
    assert not server.requests


def test_the_cache_serves_offline_and_when_the_hub_is_gone(server, exports, monkeypatch):
    assert "not in the cache" in sentence(DownloadError, Session, REPO, local_files_only=True)
    publish(server, exports / "beside")
    expected = Session(REPO, ["cpu"]).predict(IMAGE)
    server.requests.clear()
    with monkeypatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        assert Session(REPO, ["cpu"]).predict(IMAGE) == expected and not server.requests
    server.__exit__()
    assert Session(REPO, ["cpu"]).predict(IMAGE) == expected


def test_a_revision_and_files_of_one_commit(server, exports):
    publish(server, exports / "inside", "v1.0")
    assert Session(f"{REPO}@v1.0", ["cpu"]).metadata.fixed
    publish(server, exports / "any")
    assert not Session(REPO, ["cpu"]).metadata.fixed
    assert Session(f"{REPO}@v1.0", ["cpu"], local_files_only=True).metadata.fixed
    assert f"{REPO}@v2 cannot be had" in sentence(DownloadError, Session, f"{REPO}@v2")


def test_a_folder_of_that_name_comes_first(server, exports, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(exports / "any", tmp_path / REPO)
    publish(server, exports / "inside")
    assert not Session(REPO, ["cpu"]).metadata.fixed and not server.requests


def test_a_repo_without_an_export(server):
    server.add_hub_repo(REPO, {"config.json": b"{}"})
    said = f"{REPO} cannot be had from the Hub, because it has no onnx/{REPORT}"
    assert said in sentence(DownloadError, Session, REPO)
    for report in (b"{", b"[]", b"{}", b"\xff", b"3"):
        server.add_hub_repo(REPO, {f"onnx/{REPORT}": report})
        assert f"{REPO} has no readable onnx/{REPORT}" in sentence(ExportError, Session, REPO)


def test_a_repo_that_lacks_the_data(server, exports):
    publish(server, exports / "beside")
    for path in [path for path in server.files if path.endswith(DATA)]:
        del server.files[path]
    assert "cannot be had from the Hub" in sentence(DownloadError, Session, REPO)


@pytest.mark.parametrize("name", [GRAPH, DATA])
def test_a_file_that_arrives_damaged_is_loaded_again(server, exports, name):
    publish(server, exports / "beside")
    for path in server.files:
        if path.endswith(f"/{name}"):
            server.fault(path, flip=3000, times=1)
            server.fault(path, flip=3000)
    assert f"{name} arrived damaged" in sentence(DownloadError, Session, REPO)
    server._faults.clear()
    assert Session(REPO, ["cpu"]).predict(IMAGE)


@pytest.mark.parametrize("name", [GRAPH, DATA])
def test_a_file_that_was_damaged_in_the_cache(server, exports, tmp_path, name):
    publish(server, exports / "beside")
    Session(REPO, ["cpu"])
    flip(blob(tmp_path, name))
    assert f"{name} arrived damaged" in sentence(DownloadError, Session, REPO)
    assert Session(REPO, ["cpu"]).predict(IMAGE)


def test_data_damaged_in_the_cache_is_seen_offline_too(server, exports, tmp_path):
    publish(server, exports / "beside")
    Session(REPO, ["cpu"])
    flip(blob(tmp_path, DATA))
    assert "is not the file that" in sentence(ExportError, Session, REPO, local_files_only=True)


def test_no_torch_is_imported_for_the_hub(server, exports, tmp_path):
    publish(server, exports / "beside")
    code = """
import sys
from nasnet_zoo.export import Session
Session(sys.argv[1], ["cpu"]).predict(sys.argv[2])
assert "torch" not in sys.modules
"""
    environment = {**os.environ, "HF_ENDPOINT": server.url(""), "HF_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-c", code, REPO, IMAGE]
    subprocess.run(command, check=True, capture_output=True, timeout=600, env=environment)
    assert len(server.requests) >= 3


# Triton


def parsed(config):
    """The keys of a config.pbtxt, as far as ours go."""
    tensors = re.findall(r'^(input|output) \{ name: "(\w+)" data_type: (\w+) dims: (\[[^]]*\])(.*) \}$', config, re.M)
    found = {name: (kind, dtype, json.loads(dims), more.strip()) for kind, name, dtype, dims, more in tensors}
    return dict(re.findall(r"^(\w+): (.*)$", config, re.M)), found


@pytest.mark.parametrize("kind", ["inside", "beside", "pixels", "any"])
def test_a_triton_repository_has_what_the_graph_takes_and_gives(exports, tmp_path, kind):
    folder = write_triton(exports / kind, tmp_path / "models")
    assert folder == tmp_path / "models" / "net"
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    data = [f"1/{DATA}"] if kind != "inside" else []
    assert files == [f"1/{GRAPH}", *data, "config.pbtxt", "labels.txt"]
    for name in (GRAPH, *([DATA] if data else [])):
        assert (folder / "1" / name).read_bytes() == (exports / kind / name).read_bytes()
    assert (folder / "labels.txt").read_text(encoding="utf-8").splitlines() == ["a b", "ü", "c d", "e", "f", "g", "h"]
    keys, tensors = parsed((folder / "config.pbtxt").read_text(encoding="utf-8"))
    assert keys == {"name": '"net"', "backend": '"onnxruntime"', "max_batch_size": "64"}
    graph = onnx.load(folder / "1" / GRAPH, load_external_data=False).graph
    assert set(tensors) == {value.name for value in (*graph.input, *graph.output)}
    for kind_, values in (("input", graph.input), ("output", graph.output)):
        for value in values:
            where, dtype, dims, more = tensors[value.name]
            stated = value.type.tensor_type
            types = {1: "TYPE_FP32", 2: "TYPE_UINT8", 7: "TYPE_INT64"}
            assert where == kind_ and dtype == types[stated.elem_type]
            assert dims == [n.dim_value or -1 for n in stated.shape.dim][1:]
            assert more == ('label_filename: "labels.txt"' if value.name == "logits" else "")
    assert Session(folder / "1" / GRAPH, ["cpu"]).predict(IMAGE)


def test_a_triton_model_is_replaced_and_others_stay(exports, tmp_path):
    (tmp_path / "other").mkdir()
    write_triton(exports / "beside", tmp_path)
    write_triton(exports / "inside", tmp_path)
    assert not (tmp_path / "net" / "1" / DATA).exists() and (tmp_path / "other").is_dir()
    (tmp_path / "net" / "2").mkdir()
    assert "would be lost" in sentence(ZooError, write_triton, exports / "inside", tmp_path)


def named(exports, tmp_path, name):
    folder = Path(shutil.copytree(exports / "inside", tmp_path / "copy"))
    model = onnx.load(folder / GRAPH)
    props = {prop.key: prop.value for prop in model.metadata_props}
    onnx.helper.set_model_props(model, {**props, PREFIX + "name": name})
    onnx.save(model, folder / GRAPH)
    (folder / REPORT).unlink()  # it has the graph's hash
    return folder


@pytest.mark.parametrize("name", ["../net", "/net", "a/b", "..", ".", "", 'a"b', "a\nb", ".hidden"])
def test_a_name_that_leads_elsewhere_is_refused(exports, tmp_path, name):
    folder = named(exports, tmp_path, name)
    assert "is no name for a model of Triton's" in sentence(ExportError, write_triton, folder, tmp_path / "models")
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]


def test_the_zoos_names_are_names(exports, tmp_path):
    folder = named(exports, tmp_path, "nasnet-a-5@1536")
    assert write_triton(folder, tmp_path / "models").name == "nasnet-a-5@1536"


def test_a_damaged_export_gives_no_triton_model(exports, tmp_path):
    folder = Path(shutil.copytree(exports / "beside", tmp_path / "copy"))
    flip(folder / DATA)
    assert "is not the file that" in sentence(ExportError, write_triton, folder, tmp_path / "models")
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]


def test_a_repository_that_is_a_file(exports, tmp_path):
    (tmp_path / "models").write_text("")
    sentence(ZooError, write_triton, exports / "inside", tmp_path / "models")
    assert np.array_equal([path.name for path in tmp_path.iterdir()], ["models"])
    assert find_export(exports / "inside").metadata.name == "net"
