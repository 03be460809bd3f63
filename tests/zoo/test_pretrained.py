"""Pretrained weights from a server in the originals' layout, checkpoint folders, converted files, and the commands
that use them."""

import dataclasses
import errno
import gzip
import hashlib
import io
import json
import math
import multiprocessing
import os
import pickle
import shutil
import socket
import subprocess
import sys
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from unittest.mock import Mock

import h5py
import numpy as np
import pytest
import safetensors.torch
import torch
from bundle_writer import write_bundle
from golden_rule import golden_pictures, golden_value
from huggingface_hub import HfApi, constants
from loopback import Server
from safetensors import SafetensorError

import nasnet_zoo
from nasnet_zoo.arch.cells import CellScale
from nasnet_zoo.arch.config import NetworkConfig
from nasnet_zoo.arch.genotypes import GENOTYPES
from nasnet_zoo.arch.preprocess import Preprocess
from nasnet_zoo.convert.keras_h5 import keras_tensors
from nasnet_zoo.convert.names import keras_name, slim_sources, torch_name
from nasnet_zoo.convert.tf_checkpoint import masked_crc32c
from nasnet_zoo.data.labels import example_pictures
from nasnet_zoo.errors import CheckpointError, ConfigError, ConversionError, DownloadError, UnknownModelError, ZooError
from nasnet_zoo.models import KERAS_URL, SLIM_URL
from nasnet_zoo.networks.build import build
from nasnet_zoo.registry import MODELS, ModelInfo, Published, WeightSource
from nasnet_zoo.util import hub
from nasnet_zoo.util.files import sha256_file
from nasnet_zoo.weights import checkpoint, download, pretrained
from nasnet_zoo.weights.checkpoint import read_weights
from nasnet_zoo.weights.foreign import convert_file

IMAGES = example_pictures("cifar10")[0].parent
EMA = "/ExponentialMovingAverage"
BACK = {"conv": (2, 3, 1, 0), "depthwise": (2, 3, 0, 1), "dense": (1, 0), "vector": (0,)}  # from torch's axes to TF's
NASNET_A = GENOTYPES["NASNet-A"]


def imagenet_config(filters, stages):
    scale = CellScale("imagenet", 8, filters, stages)
    return NetworkConfig(NASNET_A, scale, Preprocess((64, 64)), 1000, labels="imagenet-1k")


TINY = imagenet_config(8, (1, 1, 1))
CIFAR = NetworkConfig(NASNET_A, CellScale("cifar", 8, 4, (1, 1, 1)), Preprocess((32, 32)), 10, labels="cifar10")


# Weights and the files that publishers make of them


@cache
def weights(config):
    """A state_dict in which no two tensors are alike."""
    generator = torch.Generator().manual_seed(1)
    shapes = {key: value.shape for key, value in build(config, empty=True).state_dict().items()}
    return {
        key: torch.rand(shape, generator=generator) + 0.5
        if key.endswith((".bn.weight", "running_var"))
        else torch.randn(shape, generator=generator) / max(1, math.prod(shape[1:])) ** 0.5
        for key, shape in shapes.items()
    }


def network_of(config):
    network = build(config)
    network.load_state_dict(weights(config))
    return network.eval()


def has_weights(network, config):
    state = network.state_dict()
    return state.keys() == weights(config).keys() and all(
        torch.equal(state[key], value) for key, value in weights(config).items()
    )


def slim_variables(config):
    """TF-slim's variables, with the background class as the classifier's first row."""
    variables = {}
    for key, name, layout in slim_sources(config, False):
        tensor = weights(config)[key]
        if key.startswith("classifier"):
            tensor = torch.cat([torch.full_like(tensor[:1], 99.0), tensor])
        variables[name] = np.ascontiguousarray(tensor.numpy().transpose(BACK[layout]))
    return {**variables, "global_step": np.array(7, np.int64)}


def averaged(variables):
    return {name + EMA if name != "global_step" else name: array for name, array in variables.items()}


def tar_of(variables, damaged=None):
    """The checkpoint as a tar.gz; `damaged` is a byte of its data that is turned over beforehand."""
    packed = io.BytesIO()
    with TemporaryDirectory() as folder, tarfile.open(fileobj=packed, mode="w:gz", compresslevel=1) as tar:
        write_bundle(f"{folder}/model.ckpt", variables)
        if damaged is not None:
            flip(next(Path(folder).glob("*.data-*")), damaged)
        for file in sorted(Path(folder).iterdir()):
            tar.add(file, file.name)
    return packed.getvalue()


def h5_of(variables, stages):
    """Keras's file of TF-slim's variables: no background class, each layer's weights in a group within its group."""
    packed = io.BytesIO()
    with h5py.File(packed, "w") as file:
        for name, array in variables.items():
            if name == "global_step":
                continue
            layer, leaf = keras_name(name, stages).split("/")
            file[f"{layer}/{layer}/{leaf}:0"] = array[..., 1:] if layer == "predictions" else array
    return packed.getvalue()


def port_of(config, gaps=0, background=False):
    """The state_dict of timm's or Cadene's network."""
    state = {
        torch_name(name, pnasnet=False, gaps=gaps): weights(config)[key] for key, name, _ in slim_sources(config, 0)
    }
    if background:
        for key in ("last_linear.weight", "last_linear.bias"):
            state[key] = torch.cat([torch.full_like(state[key][:1], 99.0), state[key]])
    return {**state, "conv0.bn.num_batches_tracked": torch.tensor(0)}


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 0xFF
    path.write_bytes(data)


# A zoo with one small model and a server that has all its originals


TF, KERAS, TIMM = f"{SLIM_URL}/tiny.tar.gz", f"{KERAS_URL}/tiny.h5", "somebody/tiny"
EMA_TF = f"{SLIM_URL}/tiny_ema.tar.gz"
COMMIT = "0123456789abcdef" * 2 + "01234567"


def served_at(url):
    return url.removeprefix("https://storage.googleapis.com")


TIMM_FILE = f"/{TIMM}/resolve/{COMMIT}/model.safetensors"
ZOO_FILE = "/nasnet-zoo/tiny/resolve/main/model.safetensors"
SOURCES = {
    "zoo": "/api/models/nasnet-zoo/tiny",
    "tf": served_at(TF),
    "ema": served_at(EMA_TF),
    "keras": served_at(KERAS),
    "timm": f"/api/models/{TIMM}/revision/{COMMIT}",
}


@cache
def originals():
    variables = slim_variables(TINY)
    return {
        served_at(TF): tar_of(variables),
        served_at(EMA_TF): tar_of(averaged(variables)),
        served_at(KERAS): h5_of(variables, TINY.scale.stages),
    }


@cache
def tiny():
    md5 = hashlib.md5(originals()[served_at(KERAS)]).hexdigest()
    sources = (
        WeightSource("tf", "tf-slim", TF),
        WeightSource("ema", "tf-slim", EMA_TF),
        WeightSource("keras", "keras", KERAS, md5=md5),
        WeightSource("timm", "timm", TIMM, revision=COMMIT),
    )
    return ModelInfo("tiny", TINY, "", "", Published(None, None, None, None, ""), sources)


def folder_files(config, folder):
    """The files of a checkpoint folder as the zoo publishes them."""
    nasnet_zoo.save(network_of(config), folder)
    return {name: (folder / name).read_bytes() for name in (checkpoint.CONFIG, checkpoint.WEIGHTS)}


@pytest.fixture(autouse=True)
def environment(tmp_path, monkeypatch):
    names = ("HF_HUB_OFFLINE", "NASNET_ZOO_OFFLINE", "NASNET_ZOO_HUB_OWNER", "HF_TOKEN")
    for name in (*names, "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NASNET_ZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(download, "PAUSE_SECONDS", 0.0)


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Stands for the originals' hosts and for the Hub, which has timm's repo of the model but not the zoo's."""
    with Server(dict(originals())) as server:
        server.add_hub_repo(
            TIMM, {"config.json": b"{}", "model.safetensors": safetensors.torch.save(port_of(TINY))}, COMMIT
        )
        monkeypatch.setitem(MODELS, "tiny", tiny())
        monkeypatch.setenv("NASNET_ZOO_MIRROR", server.url(""))
        use_hub(monkeypatch, server.url(""), tmp_path)
        sleep = time.sleep
        monkeypatch.setattr(time, "sleep", lambda seconds: sleep(min(seconds, 0.01)))  # huggingface_hub's pauses
        yield server


def use_hub(monkeypatch, url, tmp_path):
    """huggingface_hub reads its environment once, when it is imported."""
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf" / "hub"))


def asked(server):
    """What is asked for; once a day huggingface_hub asks the Hub about itself besides."""
    return [request.path for request in server.requests if not request.path.startswith("/api/agent")]


def cached(tmp_path):
    """What the zoo's cache holds of the model besides locks."""
    folder = tmp_path / "cache" / "tiny"
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock") if folder.exists() else []


def refused(source, error=DownloadError, **options):
    """The sentence of the error that loading ends with."""
    with pytest.raises(error) as caught:
        nasnet_zoo.load(source, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_login_page_at_every_address_is_told(server, tmp_path):
    for path in (*SOURCES.values(), TIMM_FILE):
        server.files[path] = b"<!DOCTYPE html><html>Please log in</html>"
    said = refused("tiny")
    assert said.count("login page") == 5 and "damaged" not in said and cached(tmp_path) == []


@pytest.mark.parametrize("tag", ["tf", "keras", "timm"])
def test_a_failed_download_says_how_to_use_a_file_fetched_by_hand(server, tmp_path, tag, run):
    files = dict(server.files)
    for path in SOURCES.values():
        server.fault(path, status=404)
    said = refused(f"tiny.{tag}")
    where = {"tf": TF, "keras": KERAS, "timm": f"https://huggingface.co/{TIMM}/resolve/{COMMIT}/model.safetensors"}[tag]
    assert f"fetch {where} by hand" in said and "local_files_only" not in said
    assert said.index("`nasnet-zoo convert FILE -m tiny -o FOLDER`") < said.index(f"({tag}: ")
    file = tmp_path / where.rsplit("/", 1)[1]
    file.write_bytes(files[TIMM_FILE if tag == "timm" else SOURCES[tag]])
    code, _, err = run("convert", file, "-m", "tiny", "-o", tmp_path / "folder")
    assert code == 0 and has_weights(nasnet_zoo.load(tmp_path / "folder"), TINY), err


@pytest.mark.parametrize("name", ["tiny.tar.gz", "tiny.h5", "tiny.pth", "tiny.safetensors"])
def test_a_page_that_was_saved_as_a_file_is_told(tmp_path, run, name):
    (tmp_path / name).write_text("<!doctype html><html>Log in</html>")
    code, _, err = run("convert", tmp_path / name, "-m", "nasnet-a-mobile", "-o", tmp_path / "folder")
    assert code == 2 and "is a web page, not weights" in err and not (tmp_path / "folder").exists()


# Sources


@pytest.mark.parametrize("tag", ["tf", "ema", "keras", "timm"])
def test_each_original_gives_the_same_weights(server, tmp_path, tag):
    assert has_weights(nasnet_zoo.load(f"tiny.{tag}"), TINY)
    assert cached(tmp_path) == [tag] and SOURCES[tag] in asked(server) and SOURCES["zoo"] not in asked(server)
    recorded = json.loads((tmp_path / "cache" / "tiny" / tag / "config.json").read_text())["weights"]
    file = TIMM_FILE if tag == "timm" else SOURCES[tag]
    assert recorded["origin_sha256"] == hashlib.sha256(server.files[file]).hexdigest()
    assert recorded["origin"] == (f"hf://{TIMM}@{COMMIT}" if tag == "timm" else server.url(file))
    server.requests.clear()
    assert has_weights(nasnet_zoo.load(f"tiny.{tag}", verify=True), TINY)
    assert not server.requests


def test_the_zoos_own_repo_comes_first(server, tmp_path):
    server.add_hub_repo("nasnet-zoo/tiny", folder_files(TINY, tmp_path / "folder"))
    assert has_weights(nasnet_zoo.load("tiny"), TINY)
    assert asked(server)[0] == SOURCES["zoo"] and cached(tmp_path) == []
    server.requests.clear()
    assert has_weights(nasnet_zoo.load("tiny"), TINY) and has_weights(nasnet_zoo.load("tiny.zoo"), TINY)
    assert not server.requests


def test_the_owner_of_the_zoos_repos_can_be_another(server, tmp_path, monkeypatch):
    monkeypatch.setenv("NASNET_ZOO_HUB_OWNER", "somebody-else")
    server.add_hub_repo("somebody-else/tiny", folder_files(TINY, tmp_path / "folder"))
    assert has_weights(nasnet_zoo.load("tiny"), TINY)
    assert all("/somebody-else/tiny/" in f"{path}/" for path in asked(server))


def test_without_the_zoos_repo_the_originals_are_asked_in_order(server, tmp_path):
    assert has_weights(nasnet_zoo.load("tiny"), TINY)
    assert asked(server) == [SOURCES["zoo"], SOURCES["tf"]] and cached(tmp_path) == ["tf"]
    server.requests.clear()
    assert has_weights(nasnet_zoo.load("tiny"), TINY)
    assert not server.requests


def test_a_hub_that_cannot_be_reached_is_passed_over_at_once(server, tmp_path, monkeypatch):
    pauses = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        use_hub(monkeypatch, f"http://127.0.0.1:{free.getsockname()[1]}", tmp_path)
        assert has_weights(nasnet_zoo.load("tiny"), TINY)
    assert asked(server) == [SOURCES["tf"]] and not pauses


def test_when_all_sources_fail_the_error_names_each(server, tmp_path):
    for path in list(server.files):
        server.fault(path, status=404)
    sentence = refused("tiny")
    for tag in SOURCES:
        assert f"{tag}: " in sentence
    assert server.url(SOURCES["keras"]) in sentence and f"{TIMM}@{COMMIT}" in sentence and cached(tmp_path) == []


def test_with_no_network_at_all_it_is_one_error_at_once(server, tmp_path, monkeypatch):
    pauses = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{free.getsockname()[1]}"
        use_hub(monkeypatch, nowhere, tmp_path)
        monkeypatch.setenv("NASNET_ZOO_MIRROR", nowhere)
        sentence = refused("tiny")
    assert sentence.count("check the n") == 1 and all(f"{tag}: " in sentence for tag in SOURCES)
    assert not pauses and not server.requests and cached(tmp_path) == []


def test_a_mirror_that_is_no_address(server, tmp_path, monkeypatch):
    for mirror in ("http://[::1", "http://h\udcff", "nonsense", "http://" + "a" * 64):
        monkeypatch.setenv("NASNET_ZOO_MIRROR", mirror)
        assert "address" in refused("tiny.tf")


def test_an_unknown_tag_names_those_there_are(server):
    assert "tf, ema, keras, timm" in refused("tiny.nope", UnknownModelError)
    assert "none" in refused("nasnet-a-cifar-7@2304", UnknownModelError)
    assert not server.requests


def test_repos_and_revisions_of_others(server, tmp_path):
    server.add_hub_repo("org/net", folder_files(TINY, tmp_path / "folder"), "v1.0")
    assert has_weights(nasnet_zoo.load("org/net@v1.0"), TINY)
    assert has_weights(nasnet_zoo.load("org/net@v1.0", local_files_only=True), TINY)
    assert "org/net@v2" in refused("org/net@v2")
    assert "org/other" in refused("org/other")


def test_a_repo_in_the_cache_serves_when_the_hub_cannot_be_reached(server, tmp_path, monkeypatch):
    server.add_hub_repo("org/net", folder_files(TINY, tmp_path / "folder"))
    nasnet_zoo.load("org/net")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        use_hub(monkeypatch, f"http://127.0.0.1:{free.getsockname()[1]}", tmp_path)
        assert has_weights(nasnet_zoo.load("org/net"), TINY)
        assert "org/other" in refused("org/other")


@pytest.mark.parametrize("client", ["httpx", "httpx2"])
def test_either_client_of_huggingface_hub_says_that_the_hub_is_out_of_reach(server, tmp_path, monkeypatch, client):
    """Version 1 uses the one and version 2 the other."""
    server.add_hub_repo("org/net", folder_files(TINY, tmp_path / "folder"))
    nasnet_zoo.load("org/net")
    unreachable = type("TransportError", (Exception,), {})
    monkeypatch.setitem(sys.modules, client, SimpleNamespace(TransportError=unreachable))
    monkeypatch.setattr(HfApi, "model_info", Mock(side_effect=unreachable("no route to host")))
    assert has_weights(nasnet_zoo.load("org/net"), TINY)
    assert "no route to host" in refused("org/other")


def test_a_hub_that_is_down_counts_as_out_of_reach(server, tmp_path):
    server.add_hub_repo("org/net", folder_files(TINY, tmp_path / "folder"))
    nasnet_zoo.load("org/net")
    server.fault("/api/models/org/net", status=503)
    assert has_weights(nasnet_zoo.load("org/net"), TINY)
    server.fault("/api/models/org/net", status=404)
    assert "org/net cannot be had" in refused("org/net")


def test_a_branch_is_asked_for_once_and_followed(server, tmp_path):
    server.add_hub_repo("org/net", folder_files(TINY, tmp_path / "folder"))
    nasnet_zoo.load("org/net")
    server.requests.clear()
    nasnet_zoo.load("org/net")
    assert asked(server) == ["/api/models/org/net"]
    server.add_hub_repo("org/net", folder_files(CIFAR, tmp_path / "other"))
    assert has_weights(nasnet_zoo.load("org/net"), CIFAR)


def test_a_commit_that_is_cached_needs_no_connection(server, tmp_path):
    server.add_hub_repo("org/net", folder_files(TINY, tmp_path / "folder"), COMMIT)
    nasnet_zoo.load(f"org/net@{COMMIT}")
    server.requests.clear()
    assert has_weights(nasnet_zoo.load(f"org/net@{COMMIT}"), TINY)
    assert not server.requests


def test_a_large_file_is_hashed_when_it_arrives_and_when_it_changed(server, tmp_path, monkeypatch):
    hashed = []
    monkeypatch.setattr(hub, "sha256_file", lambda path: hashed.append(path) or sha256_file(path))
    server.add_hub_repo("org/net", folder_files(TINY, tmp_path / "folder"))
    nasnet_zoo.load("org/net")
    nasnet_zoo.load("org/net")
    (blob,) = hashed
    flip(blob, 300_000)
    assert "model.safetensors arrived damaged" in refused("org/net")
    assert has_weights(nasnet_zoo.load("org/net"), TINY)


def test_a_file_that_several_repos_share_in_the_cache(server, tmp_path, monkeypatch):
    """The Hub's cache may keep a file once, named by another hash, with each repo's blob a link to it."""
    server.add_hub_repo("org/net", folder_files(TINY, tmp_path / "folder"))
    nasnet_zoo.load("org/net")
    (blob,) = (path for path in (tmp_path / "hf").rglob("blobs/*") if len(path.name) == 64)
    shared = tmp_path / "hf" / "hub" / "blobs" / "00" / ("0" * 64)
    shared.parent.mkdir(parents=True)
    blob.rename(shared)
    blob.symlink_to(shared)
    shutil.rmtree(blob.parent.with_name("checked"))
    assert has_weights(nasnet_zoo.load("org/net"), TINY)
    flip(shared, 300_000)
    assert "arrived damaged" in refused("org/net") and not shared.exists()
    assert has_weights(nasnet_zoo.load("org/net"), TINY)


def test_a_file_that_a_repo_lacks_is_named(server):
    server.add_hub_repo("org/net", {"config.json": b"{}"})
    assert "org/net cannot be had from the Hub, because it has no model.safetensors" in refused("org/net")
    assert "/org/net/resolve/" not in "".join(asked(server))


@pytest.mark.parametrize("how", ["local_files_only", "HF_HUB_OFFLINE", "NASNET_ZOO_OFFLINE"])
@pytest.mark.parametrize("repo", [True, False])
def test_offline_opens_no_connection(server, tmp_path, monkeypatch, how, repo):
    options = {"local_files_only": True} if how == "local_files_only" else {}
    if repo:
        server.add_hub_repo("nasnet-zoo/tiny", folder_files(TINY, tmp_path / "folder"))
    with monkeypatch.context() as offline:
        if not options:
            offline.setenv(how, "1")
        for source in ("tiny", "tiny.keras", "nasnet-zoo/tiny"):
            refused(source, **options)
        assert not server.requests and cached(tmp_path) == []
    nasnet_zoo.load("tiny")
    server.requests.clear()
    if not options:
        monkeypatch.setenv(how, "1")
    assert has_weights(nasnet_zoo.load("tiny", **options), TINY)
    assert not server.requests


# Faults on the way


def test_a_download_cut_once_goes_on(server, tmp_path):
    server.fault(SOURCES["tf"], cut=100_000, times=1)
    assert has_weights(nasnet_zoo.load("tiny.tf"), TINY)
    assert [request.range for request in server.requests] == [None, "bytes=100000-"] and cached(tmp_path) == ["tf"]


@pytest.mark.parametrize("tag", ["tf", "ema", "keras", "timm"])
@pytest.mark.parametrize("fault", [{"cut": 0}, {"cut": 1000}, {"flip": 300_000}, {"status": 503}], ids=str)
def test_a_fault_is_one_error_and_leaves_nothing(server, tmp_path, tag, fault):
    path = TIMM_FILE if tag == "timm" else SOURCES[tag]
    server.fault(path, **fault)
    sentence = refused(f"tiny.{tag}")
    assert f"{tag}: " in sentence and cached(tmp_path) == []
    server.fault(path)
    assert has_weights(nasnet_zoo.load(f"tiny.{tag}"), TINY)
    assert cached(tmp_path) == [tag]


def test_after_a_fault_the_next_source_is_asked(server, tmp_path):
    server.add_hub_repo("nasnet-zoo/tiny", folder_files(TINY, tmp_path / "folder"))
    for path in (ZOO_FILE, *(path for path in server.files if "nasnet-zoo/tiny" in path and path.endswith("tensors"))):
        server.fault(path, flip=300_000)
    server.fault(SOURCES["tf"], flip=300_000)
    assert has_weights(nasnet_zoo.load("tiny"), TINY)
    assert cached(tmp_path) == ["ema"] and {SOURCES["zoo"], SOURCES["tf"]} < set(asked(server))


def test_a_damaged_tensor_is_named(server, tmp_path):
    variables = slim_variables(TINY)
    ends = np.cumsum([array.nbytes for array in variables.values()])
    at = int(ends[-1]) // 3
    server.files[SOURCES["tf"]] = tar_of(variables, damaged=at)
    name = list(variables)[int(np.searchsorted(ends, at, side="right"))]
    assert f"checksum of tensor '{name}'" in refused("tiny.tf") and cached(tmp_path) == []


def test_a_damaged_h5_is_told_by_its_md5(server):
    server.fault(SOURCES["keras"], flip=300_000)
    assert "MD5" in refused("tiny.keras")
    server.fault(SOURCES["keras"], flip=300_000, times=1)
    assert has_weights(nasnet_zoo.load("tiny.keras"), TINY)


def test_a_damaged_file_of_the_hub_is_told_by_its_sha256(server, tmp_path):
    server.fault(TIMM_FILE, flip=300_000)
    assert "SHA-256" in refused("tiny.timm")
    blobs = list((tmp_path / "hf").rglob("blobs/*"))
    assert hashlib.sha256(server.files[TIMM_FILE]).hexdigest() not in {blob.name for blob in blobs}


def test_an_original_of_another_network_is_not_cached(server, tmp_path):
    other = imagenet_config(12, (1, 1, 1))
    server.files[SOURCES["tf"]] = tar_of(slim_variables(other))
    assert "shape" in refused("tiny.tf") and cached(tmp_path) == []


def test_a_folder_that_decays_in_the_cache_is_told(server, tmp_path):
    nasnet_zoo.load("tiny.tf")
    folder = tmp_path / "cache" / "tiny" / "tf"
    flip(folder / "model.safetensors", -1)
    assert str(folder) in refused("tiny.tf", CheckpointError)
    shutil.rmtree(folder)
    assert has_weights(nasnet_zoo.load("tiny.tf"), TINY)


def test_what_a_killed_process_left_is_cleared_up(server, tmp_path):
    left = tmp_path / "cache" / "tiny" / ".tf.download"
    left.mkdir(parents=True)
    (left / "tiny.tar.gz").write_bytes(b"half of it")
    assert has_weights(nasnet_zoo.load("tiny.tf"), TINY)
    assert cached(tmp_path) == ["tf"]


def downloads_of(server, tmp_path):
    """How often the archive and the repo's weights were fetched; the cache holds one folder made from the archive."""
    assert cached(tmp_path) == ["tf"]
    paths = [request.path for request in server.requests if request.method == "GET"]
    return paths.count(SOURCES["tf"]), sum(path.endswith("model.safetensors") for path in paths)


def test_of_four_threads_one_downloads(server, tmp_path):
    server.add_hub_repo("nasnet-zoo/tiny", folder_files(TINY, tmp_path / "folder"))
    server.fault(SOURCES["tf"], stall=0.5)
    with ThreadPoolExecutor(4) as pool:
        networks = list(pool.map(nasnet_zoo.load, ["tiny.tf", "tiny.zoo"] * 4))
    assert all(has_weights(network, TINY) for network in networks)
    assert downloads_of(server, tmp_path) == (1, 1)


def load_both(model, out):
    MODELS[model.name] = model
    states = [nasnet_zoo.load(f"tiny.{tag}").state_dict() for tag in ("tf", "zoo")]
    torch.save(states, out)


@pytest.mark.slow
def test_of_four_processes_one_downloads(server, tmp_path, monkeypatch):
    server.add_hub_repo("nasnet-zoo/tiny", folder_files(TINY, tmp_path / "folder"))
    server.fault(SOURCES["tf"], stall=0.5)
    for name, value in {"HF_ENDPOINT": server.url(""), "HF_HOME": str(tmp_path / "hf"), "OMP_NUM_THREADS": "1"}.items():
        monkeypatch.setenv(name, value)
    context = multiprocessing.get_context("spawn")
    outs = [tmp_path / f"{i}.pth" for i in range(4)]
    processes = [context.Process(target=load_both, args=(tiny(), out)) for out in outs]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    for state in (state for out in outs for state in torch.load(out)):
        assert all(torch.equal(state[key], value) for key, value in weights(TINY).items())
    assert downloads_of(server, tmp_path) == (1, 1)


# The real nasnet-a-mobile, with the random weights that the reference logits were made with


@pytest.fixture(scope="module")
def mobile(shared):
    """TF-slim's variables of the network."""
    shapes = json.loads((shared / "golden" / "visible.variables.json").read_text())["nasnet-a-mobile"]
    return {name: golden_value(name, shape) for name, shape in shapes}


@pytest.fixture(scope="module")
def is_mobile(shared):
    """Checks a network's logits; the references have the background class in column 0."""
    expected = np.load(shared / "golden" / "visible.npz")["nasnet-a-mobile@224x224"][:1, 1:]

    def check(network):
        with torch.inference_mode():
            logits = network(torch.from_numpy(golden_pictures(224, 224)[:1]))
        np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5 * abs(expected).max())

    return check


def test_the_real_mobile_network_from_each_kind_of_server(server, tmp_path, monkeypatch, mobile, is_mobile):
    model = MODELS["nasnet-a-mobile"]
    plain = {name: array for name, array in mobile.items() if not name.startswith("aux_")}
    tf, keras = (served_at(source.address) for source in model.weights)
    server.files = {tf: tar_of(mobile), keras: h5_of(plain, model.config.scale.stages)}
    network = nasnet_zoo.load("nasnet-a-mobile")
    is_mobile(network)
    assert asked(server)[-1] == tf and sum(p.numel() for p in network.parameters()) == 5_289_978
    assert "MD5" in refused("nasnet-a-mobile.keras")
    md5 = hashlib.md5(server.files[keras]).hexdigest()
    sources = (model.weights[0], dataclasses.replace(model.weights[1], md5=md5))
    monkeypatch.setitem(MODELS, model.name, dataclasses.replace(model, weights=sources))
    assert "tensors are not the published ones" in refused("nasnet-a-mobile.keras")
    (tmp_path / "weights.h5").write_bytes(server.files[keras])
    with keras_tensors(tmp_path / "weights.h5") as variables:
        ours = {name: masked_crc32c(np.asarray(value)) for name, value in variables.items()}
    assert ours.keys() == pretrained.published_checksums(model).keys()
    monkeypatch.setattr(pretrained, "published_checksums", lambda model: ours)
    from_keras = nasnet_zoo.load("nasnet-a-mobile.keras").state_dict()
    folder = tmp_path / "cache" / "nasnet-a-mobile" / "tf"
    server.add_hub_repo("nasnet-zoo/nasnet-a-mobile", {path.name: path.read_bytes() for path in folder.iterdir()})
    from_hub = nasnet_zoo.load("nasnet-a-mobile.zoo").state_dict()
    for key, value in network.state_dict().items():
        assert torch.equal(value, from_keras[key]) and torch.equal(value, from_hub[key])
    server.requests.clear()
    for name in ("nasnet-a-mobile", "nasnet-a-mobile.tf", "nasnet-a-mobile.keras", "nasnet-a-mobile.zoo"):
        nasnet_zoo.load(name)
    assert not server.requests


# Checkpoint folders


@pytest.fixture
def folder(tmp_path):
    nasnet_zoo.save(network_of(CIFAR), tmp_path / "net", note="made by a test")
    return tmp_path / "net"


def edit(folder, change):
    """Changes a checkpoint folder's config.json."""
    path = folder / "config.json"
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))


def forget_hash(folder):
    edit(folder, lambda record: record["weights"].pop("sha256"))


def test_a_folder_comes_back_as_it_was_saved(folder):
    network = nasnet_zoo.load(folder)
    assert has_weights(network, CIFAR) and network.config == CIFAR and not network.training
    record = json.loads((folder / "config.json").read_text())["weights"]
    assert record == {
        "sha256": hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest(),
        "note": "made by a test",
    }
    assert all(tensor.device.type == "cpu" for tensor in (*network.parameters(), *network.buffers()))
    assert network.progress.item() == 1 and network.train()(torch.randn(2, 3, 32, 32)).shape == (2, 10)
    assert has_weights(nasnet_zoo.load(str(folder), device="cpu", verify=True), CIFAR)


def test_loading_draws_no_random_numbers(folder):
    before = torch.get_rng_state()
    nasnet_zoo.load(folder)
    assert torch.equal(torch.get_rng_state(), before)
    nasnet_zoo.load(folder, num_classes=3)  # the fresh classifier does
    assert not torch.equal(torch.get_rng_state(), before)


def test_a_loaded_network_can_be_trained_and_leaves_the_file_alone(folder):
    before = (folder / "model.safetensors").read_bytes()
    network = nasnet_zoo.load(folder).train()
    network(torch.randn(2, 3, 32, 32)).sum().backward()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter -= parameter.grad
    assert not has_weights(network, CIFAR)
    nasnet_zoo.save(network, folder)
    assert (folder / "model.safetensors").read_bytes() != before
    again = nasnet_zoo.load(folder).state_dict()
    assert all(torch.equal(value, again[key]) for key, value in network.state_dict().items())


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    assert f"has no {name}" in refused(folder, CheckpointError)


@pytest.mark.parametrize("hashed", [True, False])
@pytest.mark.parametrize("length", [0, 4, 8, 500, -1])
def test_truncated_weights_are_told(folder, hashed, length):
    if not hashed:
        forget_hash(folder)
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:length])
    assert str(path) in refused(folder, CheckpointError)


@pytest.mark.parametrize("at", [0, 7, 8, 20, 300, -5])
def test_a_turned_over_byte_is_told(folder, at):
    flip(folder / "model.safetensors", at)
    assert "SHA-256" in refused(folder, CheckpointError)
    if at >= 0:  # in the header, it is told without the hash too
        forget_hash(folder)
        assert "model.safetensors" in refused(folder, CheckpointError)


def test_large_files_are_hashed_when_asked(folder, monkeypatch):
    monkeypatch.setattr(checkpoint, "ALWAYS_HASHED_BYTES", 0)
    assert has_weights(nasnet_zoo.load(folder, verify=True), CIFAR)
    flip(folder / "model.safetensors", -5)
    assert not has_weights(nasnet_zoo.load(folder), CIFAR)
    assert "SHA-256" in refused(folder, CheckpointError, verify=True)


def test_weights_that_do_not_fit_the_config_are_told(folder):
    edit(folder, lambda record: record["network"]["scale"].update(filters=6))
    assert "of another shape" in refused(folder, CheckpointError)
    edit(folder, lambda record: record["network"]["scale"].update(filters=12, stages=[1, 1]))
    assert "left over" in refused(folder, CheckpointError)
    edit(folder, lambda record: record["network"]["scale"].update(stages=[2, 1, 1]))
    assert "missing" in refused(folder, CheckpointError)


def test_a_config_of_another_version_is_told(folder):
    edit(folder, lambda record: record["network"].update(format_version=99))
    assert "format_version 99" in refused(folder, ConfigError)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"network": 3}', '{"network": {}}', "\udcff"])
def test_a_config_that_is_none_is_told(folder, text):
    (folder / "config.json").write_bytes(text.encode(errors="surrogateescape"))
    refused(folder, ConfigError)


@pytest.mark.parametrize("record", [None, [], "weights", 3, {"sha256": None}])
def test_a_record_of_weights_that_is_none_is_passed_over(folder, record):
    edit(folder, lambda config: config.update(weights=record))
    assert has_weights(nasnet_zoo.load(folder), CIFAR)


@pytest.mark.parametrize("record", [3, "", "x" * 64])
def test_a_hash_that_is_none_does_not_match(folder, record):
    edit(folder, lambda config: config["weights"].update(sha256=record))
    assert "SHA-256" in refused(folder, CheckpointError)


def test_a_folder_that_is_not_there_is_told(tmp_path):
    assert str(tmp_path / "none") in refused(tmp_path / "none", UnknownModelError)
    assert "config.json" in refused(tmp_path, CheckpointError)


def test_float16_comes_back_as_float32_unless_asked(folder):
    nasnet_zoo.save(network_of(CIFAR), folder, torch.float16)
    stored = read_weights(folder / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
    state = nasnet_zoo.load(folder).state_dict()
    assert all(torch.equal(state[key], value.half().float()) for key, value in weights(CIFAR).items())
    half = nasnet_zoo.load(folder, dtype=torch.float16).state_dict()
    assert all(torch.equal(half[key], value.half()) for key, value in weights(CIFAR).items())
    assert {parameter.dtype for parameter in nasnet_zoo.load(folder).parameters()} == {torch.float32}


def test_another_number_of_classes_gives_a_fresh_classifier(folder):
    network = nasnet_zoo.load(folder, num_classes=7)
    assert network(torch.randn(1, 3, 32, 32)).shape == (1, 7)
    assert network.config.num_classes == 7 and network.labels is None
    state = network.state_dict()
    assert all(torch.equal(state[key], v) for key, v in weights(CIFAR).items() if not key.startswith("classifier"))
    assert has_weights(nasnet_zoo.load(folder, num_classes=10), CIFAR)


@pytest.mark.parametrize("channels", [1, 4])
def test_a_grey_picture_gives_the_same_whatever_the_channels(folder, channels):
    grey = torch.randn(2, 1, 32, 32)
    network = nasnet_zoo.load(folder, in_channels=channels)
    with torch.inference_mode():
        expected = nasnet_zoo.load(folder)(grey.repeat(1, 3, 1, 1))
        torch.testing.assert_close(network(grey.repeat(1, channels, 1, 1)), expected, rtol=1e-4, atol=1e-4)
    assert network.config.in_channels == channels == len(network.config.preprocess.mean)
    if channels == 1:
        assert len(network.predict(IMAGES / "cat.png")) == 5


@pytest.mark.parametrize("channels", [1, 4])
def test_a_network_comes_back_with_the_channels_that_it_was_saved_with(tmp_path, channels):
    network = build(dataclasses.replace(CIFAR, in_channels=channels))
    nasnet_zoo.save(network, tmp_path / "net")
    back = nasnet_zoo.load(tmp_path / "net")
    assert back.config.in_channels == channels
    assert all(torch.equal(value, network.state_dict()[key]) for key, value in back.state_dict().items())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"in_channels": 0}, "in_channels 0 must be at least 1"),
        ({"dtype": torch.int8}, "not torch.int8"),
        ({"device": "nonsense"}, "the device 'nonsense' is not there"),
    ],
)
def test_load_options_that_make_no_sense(folder, options, said):
    with pytest.raises(ZooError, match=said):
        nasnet_zoo.load(folder, **options)


@pytest.mark.parametrize("name", ["runs/my--net", "runs/my..net", "runs/net.", "a" * 5000])
def test_a_name_that_is_neither_a_folder_nor_one_of_the_hubs(name, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ZooError) as caught:
        nasnet_zoo.load(name)
    assert "\n" not in str(caught.value)


def test_weights_that_half_precision_cannot_hold_are_not_written(tmp_path):
    network = build(CIFAR)
    key = next(key for key in network.state_dict() if key.endswith("running_var"))
    network.state_dict()[key].fill_(1e5)
    with pytest.raises(CheckpointError, match=f"{key} reaches 1e\\+05, which torch.float16 cannot hold"):
        nasnet_zoo.save(network, tmp_path / "net", torch.float16)
    assert not list(tmp_path.iterdir())
    nasnet_zoo.save(network, tmp_path / "net", torch.bfloat16)


def test_a_save_leaves_the_card_and_the_graphs_of_a_repo(folder):
    (folder / "README.md").write_text("a card")
    (folder / "onnx").mkdir()
    (folder / "onnx" / "model.onnx").write_bytes(b"a graph")
    nasnet_zoo.save(build(CIFAR), folder)
    assert (folder / "README.md").read_text() == "a card"
    assert (folder / "onnx" / "model.onnx").read_bytes() == b"a graph"
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors", "onnx"]


def test_a_save_takes_the_place_of_the_old_folder(folder):
    nasnet_zoo.save(build(dataclasses.replace(CIFAR, num_classes=3, labels=None)), folder)
    assert nasnet_zoo.load(folder).config.num_classes == 3
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    assert [path.name for path in folder.parent.iterdir() if path.name != "cache"] == ["net"]


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "no space"), SafetensorError("I/O error: No space left (os error 28)")], ids=repr
)
def test_a_save_onto_a_full_disk_leaves_the_old_folder(folder, monkeypatch, error):
    def full(tensors, path, metadata):
        path.write_bytes(b"the first bytes")
        raise error

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(ZooError, match="the disk is full"):
        nasnet_zoo.save(build(CIFAR), folder)
    assert has_weights(nasnet_zoo.load(folder), CIFAR)
    assert [path.name for path in folder.parent.iterdir() if path.name != "cache"] == ["net"]


def test_metadata_that_is_not_json_leaves_the_old_folder(folder):
    with pytest.raises(ConfigError, match="when does not fit into JSON"):
        nasnet_zoo.save(build(CIFAR), folder, when=object())
    assert has_weights(nasnet_zoo.load(folder), CIFAR)


# Converted files

GAPPED = imagenet_config(8, (4, 4, 4))  # Cadene's mobile has this many cells


@cache
def foreign_files():
    """file name → its content, the config it is of, and what it is called."""
    pth = io.BytesIO()
    torch.save({"state_dict": port_of(TINY)}, pth)
    gapped, large = io.BytesIO(), io.BytesIO()
    torch.save(port_of(GAPPED, gaps=4), gapped)
    torch.save(port_of(TINY, background=True), large)
    return {
        "plain.tar.gz": (originals()[served_at(TF)], TINY, "tf-slim"),
        "averaged.tar.gz": (originals()[served_at(EMA_TF)], TINY, "tf-slim"),
        "averaged.tar": (gzip.decompress(originals()[served_at(EMA_TF)]), TINY, "tf-slim"),
        "keras.h5": (originals()[served_at(KERAS)], TINY, "keras"),
        "timm.safetensors": (safetensors.torch.save(port_of(TINY)), TINY, "timm"),
        "timm.pth": (pth.getvalue(), TINY, "timm"),
        "mobile.pth": (gapped.getvalue(), GAPPED, "cadene"),
        "background.pth": (large.getvalue(), TINY, "timm"),
    }


NAMES = ["plain.tar.gz", "averaged.tar.gz", "averaged.tar", "keras.h5", "timm.safetensors", "timm.pth", "mobile.pth"]


@pytest.mark.parametrize("name", [*NAMES, "background.pth"])
def test_a_foreign_file_becomes_a_folder(tmp_path, name):
    data, config, form = foreign_files()[name]
    (tmp_path / name).write_bytes(data)
    convert_file(tmp_path / name, config, tmp_path / "out")
    assert has_weights(nasnet_zoo.load(tmp_path / "out", verify=True), config)
    record = json.loads((tmp_path / "out" / "config.json").read_text())["weights"]
    assert record["origin"] == name and record["origin_form"] == form
    assert record["origin_sha256"] == hashlib.sha256(data).hexdigest()


def test_an_unpacked_checkpoint_becomes_a_folder(tmp_path):
    (tmp_path / "tf").mkdir()
    write_bundle(tmp_path / "tf" / "model.ckpt", slim_variables(TINY))
    for source in ("tf", "tf/model.ckpt", "tf/model.ckpt.index"):
        convert_file(tmp_path / source, TINY, tmp_path / "out")
        assert has_weights(nasnet_zoo.load(tmp_path / "out"), TINY)


def test_half_as_large(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(foreign_files()["timm.safetensors"][0])
    convert_file(tmp_path / "a.safetensors", TINY, tmp_path / "out", half=True)
    assert {tensor.dtype for tensor in read_weights(tmp_path / "out" / "model.safetensors").values()} == {torch.float16}


@pytest.mark.parametrize("name", NAMES)
def test_a_damaged_or_missing_foreign_file_is_told(tmp_path, name):
    data, config, _ = foreign_files()[name]
    source = tmp_path / name
    for content in (None, b"", data[: len(data) // 2], b"nonsense" * 1000):
        if content is not None:
            source.write_bytes(content)
        with pytest.raises((CheckpointError, ConversionError)) as caught:
            convert_file(source, config, tmp_path / "out")
        assert name in str(caught.value) and not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", NAMES)
def test_a_file_of_another_network_is_told(tmp_path, name):
    (tmp_path / name).write_bytes(foreign_files()[name][0])
    with pytest.raises(ConversionError, match="do not fit the config"):
        convert_file(tmp_path / name, imagenet_config(8, (1, 2, 1)), tmp_path / "out")
    assert not (tmp_path / "out").exists()


class Hostile:
    """Unpickling this makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_hostile_pth_is_not_run(tmp_path):
    proof = tmp_path / "proof"
    pickle.loads(pickle.dumps(Hostile(proof)))
    assert proof.is_dir()  # it would be, if it were run
    proof.rmdir()
    torch.save({"state_dict": {"conv0.weight": Hostile(proof)}}, tmp_path / "zip.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Hostile(proof), protocol=2))
    (tmp_path / "legacy.bin").write_bytes(pickle.dumps([Hostile(proof)], protocol=2))
    for name in ("zip.pth", "plain.pth", "legacy.bin"):
        with pytest.raises(CheckpointError, match=name):
            convert_file(tmp_path / name, TINY, tmp_path / "out")
    assert not proof.exists() and not (tmp_path / "out").exists()


def test_a_pth_without_a_state_dict_is_told(tmp_path):
    for number, content in enumerate([[torch.zeros(2)], {"state_dict": 3}, {"a": "b"}, torch.zeros(2)]):
        torch.save(content, tmp_path / f"{number}.pth")
        with pytest.raises(CheckpointError, match="state_dict"):
            convert_file(tmp_path / f"{number}.pth", TINY, tmp_path / "out")


def test_the_command(run, tmp_path):
    (tmp_path / "keras.h5").write_bytes(foreign_files()["keras.h5"][0])
    nasnet_zoo.save(network_of(TINY), tmp_path / "like")
    code, _, err = run("convert", tmp_path / "keras.h5", "-o", tmp_path / "out", "-m", tmp_path / "like/config.json")
    assert code == 0, err
    assert has_weights(nasnet_zoo.load(tmp_path / "out"), TINY)
    code, out, err = run("convert", tmp_path / "keras.h5", "-o", tmp_path / "other", "-m", "nasnet-a-mobile")
    assert code == 2 and "do not fit the config" in err and not (tmp_path / "other").exists()


def test_importing_the_package_is_quick_and_imports_no_torch(tmp_path):
    """Processor time, so that a busy machine changes nothing."""
    clock = "time.process_time()"
    program = f"import sys, time; t = {clock}; import nasnet_zoo; print({clock} - t, 'torch' in sys.modules)"
    runs = [subprocess.check_output([sys.executable, "-c", program], text=True, cwd=tmp_path) for _ in range(3)]
    assert {run.split()[1] for run in runs} == {"False"}
    assert min(float(run.split()[0]) for run in runs) < 0.3
