"""Weights beside a graph and metadata in it: what is written, and what is refused before onnxruntime opens anything."""

import dataclasses
import hashlib
import shutil
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from random_networks import SAME, difference, pictures, random_network

from nasnet_zoo.arch.genotypes import GENOTYPES
from nasnet_zoo.arch.preprocess import Preprocess
from nasnet_zoo.data.labels import example_pictures
from nasnet_zoo.errors import ExportError, SessionError, ZooError
from nasnet_zoo.export import Session, emit, to_onnx
from nasnet_zoo.export.folder import DATA, GRAPH, REPORT, find_export
from nasnet_zoo.export.metadata import PREFIX, Metadata

IMAGE = example_pictures("cifar10")[0]


def sentence(error, call, *arguments, **options):
    """The one sentence of the error that a call ends with."""
    with pytest.raises(error) as caught:
        call(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(scope="module")
def tiny():
    torch.manual_seed(0)
    return random_network(GENOTYPES["PNASNet-5"], stages=(1,))


@pytest.fixture(scope="module")
def external(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("external") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(emit, "EXTERNAL_BYTES", 1000)
        return to_onnx(tiny, folder), folder


@pytest.fixture(scope="module")
def plain(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain") / "out"
    to_onnx(tiny, folder)
    return folder


@pytest.fixture
def copied(external, tmp_path):
    return Path(shutil.copytree(external[1], tmp_path / "copy"))


def test_large_weights_lie_beside_the_graph(external, tiny):
    report, folder = external
    data = (folder / DATA).read_bytes()
    assert report.data_sha256 == find_export(folder).metadata.data_sha256 == hashlib.sha256(data).hexdigest()
    assert report.bytes == sum(file.stat().st_size for file in folder.iterdir() if file.name != REPORT)
    tensors = [t for t in onnx.load(folder / GRAPH, load_external_data=False).graph.initializer if t.external_data]
    for tensor in tensors:
        where = {entry.key: entry.value for entry in tensor.external_data}
        assert where["location"] == DATA and int(where["offset"]) % 4096 == 0
    assert len(tensors) > 10 and (folder / GRAPH).stat().st_size < 1e5
    images = pictures(tiny, (32, 32))
    assert difference(Session(folder, ["cpu"]).run(images.numpy()), tiny, images) <= SAME


def test_large_weights_are_the_same_every_time(external, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(emit, "EXTERNAL_BYTES", 1000)
    to_onnx(tiny, tmp_path / "again")
    for name in (GRAPH, DATA):
        assert (tmp_path / "again" / name).read_bytes() == (external[1] / name).read_bytes()


def test_a_smaller_graph_in_its_place_leaves_no_old_data(copied, tiny):
    to_onnx(tiny, copied)
    assert not (copied / DATA).exists() and Session(copied, ["cpu"])


def edited(folder, edit):
    """Changes the model as a program would, without touching its data."""
    model = onnx.load(folder / GRAPH, load_external_data=False)
    edit(model)
    (folder / GRAPH).write_bytes(model.SerializeToString())


def moved_to(location):
    def edit(model):
        for tensor in model.graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = location

    return lambda folder: edited(folder, edit)


def in_an_attribute(model):
    """onnxruntime makes an initializer of a Constant, and would follow its location."""
    tensor = onnx.TensorProto(name="t", dims=[1], data_type=1, data_location=onnx.TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="../secret")
    model.graph.node.insert(0, onnx.helper.make_node("Constant", [], ["unused"], value=tensor))


def in_a_subgraph(model):
    inner = onnx.helper.make_graph([], "inner", [], [])
    inner.initializer.add(name="t", dims=[1], data_type=1, data_location=1).external_data.add(
        key="location", value="/etc/hostname"
    )
    model.graph.node.add(op_type="If", input=["x"]).attribute.add(name="then_branch", type=5).g.CopyFrom(inner)


def without_hash(model):
    onnx.helper.set_model_props(
        model, {p.key: "" if p.key == PREFIX + "data_sha256" else p.value for p in model.metadata_props}
    )


def linked(folder):
    (folder / DATA).rename(folder.parent / "elsewhere")
    (folder / DATA).symlink_to(folder.parent / "elsewhere")


def altered(at):
    def alter(folder):
        data = bytearray((folder / DATA).read_bytes())
        data[at] ^= 1
        (folder / DATA).write_bytes(data)

    return alter


def truncated(folder):
    (folder / DATA).write_bytes((folder / DATA).read_bytes()[:-1])


def longer(folder):
    (folder / DATA).write_bytes((folder / DATA).read_bytes() + b"\0")


DAMAGES = {
    "missing": (lambda folder: (folder / DATA).unlink(), "is missing"),
    "a folder": (lambda folder: ((folder / DATA).unlink(), (folder / DATA).mkdir()), "is missing"),
    "a link": (linked, "is missing"),
    "truncated": (truncated, "is not the file that"),
    "longer": (longer, "is not the file that"),
    "first byte": (altered(0), "is not the file that"),
    "last byte": (altered(-1), "is not the file that"),
    "renamed": (moved_to("other.data"), "'other.data', which no export of ours does"),
    "escape": (moved_to("../model.onnx.data"), "which no export of ours does"),
    "absolute": (moved_to("/etc/hostname"), "which no export of ours does"),
    "nowhere": (moved_to(""), "which no export of ours does"),
    "memory": (moved_to("*/_ORT_MEM_ADDR_/*"), "which no export of ours does"),
    "attribute": (lambda folder: edited(folder, in_an_attribute), "'../secret', which no export of ours does"),
    "subgraph": (lambda folder: edited(folder, in_a_subgraph), "'/etc/hostname', which no export of ours does"),
    "no hash": (lambda folder: edited(folder, without_hash), "do not agree on external data"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_data_is_refused_before_onnxruntime_sees_it(copied, damage):
    break_it, sentence = DAMAGES[damage]
    assert find_export(copied)
    break_it(copied)
    with pytest.raises(ExportError, match=sentence) as caught:
        Session(copied, ["cpu"])
    assert "\n" not in str(caught.value)


def test_external_data_in_a_graph_that_should_have_none(tiny, tmp_path):
    to_onnx(tiny, tmp_path / "out")
    edited(tmp_path / "out", in_an_attribute)
    with pytest.raises(ExportError, match="do not agree on external data"):
        find_export(tmp_path / "out")


def test_data_that_ends_too_soon_for_the_graph_is_one_sentence(copied):
    def edit(model):
        for tensor in model.graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "offset":
                    entry.value = str(1 << 40)

    edited(copied, edit)
    with pytest.raises(ZooError) as caught:
        Session(copied, ["cpu"])
    assert "\n" not in str(caught.value)


# Metadata


ABOUT = Metadata(
    *("naïve 网", "fp16", "mit", 'a "source"', Preprocess((24, 32), (0.1,), (0.2,), 0.9, "shortest", "bicubic", False)),
    *(1, 2, ("is, ünlike", "is\nnot"), {"kind": "cell", "a": [1, None]}, "ab" * 32, "cd" * 32, False, True, 2, 8),
)


def test_metadata_survive_the_way_through_text():
    assert Metadata.from_props(ABOUT.to_props(), "x") == ABOUT
    unlabelled = dataclasses.replace(ABOUT, labels=None)
    assert Metadata.from_props(unlabelled.to_props(), "x") == unlabelled
    assert all(isinstance(value, str) for value in ABOUT.to_props().values())


def damages():
    """(key, value) of what cannot be; any text is a name, and any object a config. What has a default may be absent."""
    fields = [*dataclasses.fields(Metadata), *dataclasses.fields(Preprocess)]
    optional = {PREFIX + field.name for field in fields if field.default is not dataclasses.MISSING}
    for key in ABOUT.to_props():
        if key not in optional:
            yield key, None
        for value in ("{", '{"a": 1}', "[[[1]]]", "-1.5", "[" * 5000, "[" * 200 + "]" * 200):
            text = key[len(PREFIX) :] in ("name", "precision", "license", "source", "weights_sha256", "data_sha256")
            if not text and (key, value) != (PREFIX + "config", '{"a": 1}'):
                yield key, value


@pytest.mark.parametrize(("key", "value"), [*damages()], ids=lambda text: str(text)[:20])
def test_damaged_metadata_are_one_sentence(key, value):
    props = {**ABOUT.to_props(), key: value}
    if value is None:
        del props[key]
    with pytest.raises(ExportError, match="the-graph") as caught:
        Metadata.from_props(props, "the-graph")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


def test_fewer_labels_than_classes_are_damage():
    props = {**ABOUT.to_props(), PREFIX + "classes": "3"}
    with pytest.raises(ExportError, match="2 labels for 3 classes"):
        Metadata.from_props(props, "x")


# Graphs that are not ours


def test_what_is_no_graph_of_ours(tmp_path, plain, monkeypatch):
    (tmp_path / "text.onnx").write_text("not a graph, but text of some length\n" * 9)
    (tmp_path / "empty.onnx").write_bytes(b"")
    (tmp_path / "cut.onnx").write_bytes((plain / GRAPH).read_bytes()[:5000])
    (tmp_path / "empty").mkdir()
    node = onnx.helper.make_node("Relu", ["x"], ["logits"])
    ends = [onnx.helper.make_tensor_value_info(name, 1, [1]) for name in ("x", "logits")]
    other = onnx.helper.make_model(onnx.helper.make_graph([node], "g", ends[:1], ends[1:]), producer_name="other")
    onnx.save(other, tmp_path / "other.onnx")
    for name in ("text.onnx", "cut.onnx"):
        assert "is damaged or no ONNX graph" in sentence(ExportError, Session, tmp_path / name)
    for name in ("other.onnx", "empty.onnx"):
        assert "was not made by nasnet-zoo export" in sentence(ExportError, Session, tmp_path / name)
    monkeypatch.setattr(onnxruntime, "InferenceSession", None)  # not even asked
    monkeypatch.chdir(tmp_path)
    assert "neither a checkpoint, a training, a search nor an exported graph" in sentence(ExportError, Session, "empty")
    for name in (tmp_path / "missing", "missing/model.onnx", "./missing/graph"):
        assert "there is no graph at" in sentence(ExportError, Session, name)


def test_a_graph_of_ours_that_onnxruntime_does_not_take(tmp_path, plain):
    model = onnx.load(plain / GRAPH)
    model.graph.node[3].op_type = "Nonsense"
    onnx.save(model, tmp_path / "a.onnx")
    assert "cpu cannot run" in sentence(SessionError, Session, tmp_path / "a.onnx", ["cpu"])


def test_a_graph_by_its_file_and_under_another_name(tmp_path, plain, external):
    expected = Session(plain, ["cpu"]).predict(IMAGE)
    shutil.copy(plain / GRAPH, tmp_path / "small.onnx")
    shutil.copy(external[1] / GRAPH, tmp_path / "large.onnx")  # its data go by their own name
    shutil.copy(external[1] / DATA, tmp_path / DATA)
    for path in (plain / GRAPH, tmp_path / "small.onnx", tmp_path / "large.onnx"):
        assert Session(path, ["cpu"]).predict(IMAGE) == expected


def test_a_graph_that_is_not_the_one_its_report_describes(copied, tiny, tmp_path):
    to_onnx(tiny, tmp_path / "other", name="other")
    (copied / GRAPH).write_bytes((tmp_path / "other" / GRAPH).read_bytes())
    with pytest.raises(ExportError, match=f"{GRAPH} is not the graph that {REPORT} beside it describes"):
        Session(copied)
    for text in ("{}", "[]", "[" * 500 + "]" * 500, "[" * 100_000, '{"model_sha256": ' + "9" * 5000 + "}"):
        (copied / REPORT).write_text(text)
        with pytest.raises(ExportError, match=f"{REPORT} is damaged"):
            find_export(copied)
