"""to_onnx: what it writes, that it is the same every time and checked, and that nothing wrong is left behind."""

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from random_networks import SAME, difference, logits_of, pictures, plain_session, random_network
from torch import nn

import nasnet_zoo
from nasnet_zoo.arch.config import NetworkConfig
from nasnet_zoo.arch.genotypes import GENOTYPES
from nasnet_zoo.data.labels import example_pictures
from nasnet_zoo.errors import ConfigError, ExportError, ImageError, ZooError
from nasnet_zoo.export import Session, emit, exporter, to_onnx
from nasnet_zoo.export import verify as verifying
from nasnet_zoo.export.folder import GRAPH, REPORT, find_export
from nasnet_zoo.export.graph import Conv, Linear
from nasnet_zoo.export.metadata import PREFIX

IMAGES = example_pictures("cifar10")
PRECISIONS = ("fp32", "fp16", "int8")


@pytest.fixture(scope="module")
def network():
    return nasnet_zoo.load("nasnet-a-cifar-small", local_files_only=True)


@pytest.fixture(scope="module")
def exports(network, tmp_path_factory):
    """(report, folder) of each precision."""
    folder = tmp_path_factory.mktemp("exports")
    about = dict(name="small", license="apache-2.0", source="the package")
    return {p: (to_onnx(network, folder / p, p, images=IMAGES, **about), folder / p) for p in PRECISIONS}


@pytest.fixture(scope="module")
def tiny():
    torch.manual_seed(0)
    return random_network(GENOTYPES["PNASNet-5"], stages=(1,))


@pytest.fixture(autouse=True)
def few_pictures(monkeypatch):
    """To verify on, for speed; `exports` are made before this, with all."""
    monkeypatch.setattr("nasnet_zoo.export.verify.MOST", 4)


def refused(error, *arguments, **options):
    """The sentence that to_onnx ends with."""
    with pytest.raises(error) as caught:
        to_onnx(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# What is written


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_report_is_export_json_and_says_what_is_there(exports, precision):
    report, folder = exports[precision]
    assert sorted(path.name for path in folder.iterdir()) == [REPORT, GRAPH]
    recorded = json.loads((folder / REPORT).read_text(encoding="utf-8"))
    expected = json.loads(json.dumps(dataclasses.asdict(report)))
    assert expected.pop("path") == str(folder) and recorded == expected
    model = onnx.load(folder / GRAPH)
    assert (report.precision, report.size, report.nodes) == (precision, (32, 32), len(model.graph.node))
    assert report.bytes == (folder / GRAPH).stat().st_size and report.data_sha256 == ""


@pytest.mark.parametrize("precision", PRECISIONS)
def test_onnxruntimes_answers_are_compared_with_torchs(exports, network, precision):
    report, folder = exports[precision]
    (check,) = [check for check in report.checks if check.provider == "cpu"]
    assert (check.pictures, check.real, check.top1_agreement) == (len(IMAGES), True, 1.0)
    images = torch.stack([network.transform(path) for path in IMAGES])
    logits = logits_of(plain_session((folder / GRAPH).read_bytes()), images)
    error = difference(logits, network, images)
    assert check.relative_error == pytest.approx(error, rel=0.5, abs=1e-6)
    assert error <= {"fp32": SAME, "fp16": 1e-2, "int8": 0.2}[precision]
    assert (logits.argmax(1) == network(images).argmax(1).numpy()).all() and np.isfinite(logits).all()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_opset_is_the_stated_one_and_has_every_operation(exports, precision):
    report, folder = exports[precision]
    model = onnx.load(folder / GRAPH)
    onnx.checker.check_model(model, full_check=True)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", report.opset)]
    assert report.opset == emit.OPSET == 17 and model.ir_version == emit.IR_VERSION == 8
    assert {node.domain for node in model.graph.node} == {""}


def test_fp16_holds_half_precision_weights_and_takes_and_gives_float32(exports):
    half = onnx.load(exports["fp16"][1] / GRAPH)
    kinds = {tensor.data_type for tensor in half.graph.initializer if tensor.dims}
    assert onnx.TensorProto.FLOAT16 in kinds and onnx.TensorProto.FLOAT not in kinds
    ends = [*half.graph.input, *half.graph.output]
    assert {value.type.tensor_type.elem_type for value in ends} == {onnx.TensorProto.FLOAT}
    assert exports["fp16"][0].bytes < 0.65 * exports["fp32"][0].bytes


def test_int8_is_static_qdq_per_channel(exports):
    model = onnx.load(exports["int8"][1] / GRAPH)
    tensors = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    made = {output: node for node in model.graph.node for output in node.output}
    convs = [node for node in model.graph.node if node.op_type == "Conv"]
    assert len(convs) > 50
    for node in convs:
        picture, weight = (made[name] for name in node.input[:2])
        assert picture.op_type == weight.op_type == "DequantizeLinear"
        values, scales = tensors[weight.input[0]], tensors[weight.input[1]]
        assert values.dtype == np.int8 and scales.shape == values.shape[:1] and np.abs(values).max() <= 64
    assert not any("Dynamic" in node.op_type for node in model.graph.node)
    assert exports["int8"][0].bytes < exports["fp32"][0].bytes


def test_int8_rectifies_without_leaving_int8_and_joins_maps_without_rounding_them_again(exports):
    """Every ReLU of a map that nothing else reads is in the rounding; what is joined has one scale; nothing averages
    in onnxruntime's slow way, and where no window is cut off, an average is multiplied with exactly 1."""
    model = onnx.load(exports["int8"][1] / GRAPH)
    tensors = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    made = {output: node for node in model.graph.node for output in node.output}
    readers = Counter(name for node in model.graph.node for name in node.input)

    def scale(name):
        return tensors[made[name].input[1]]

    kinds = Counter(node.op_type for node in model.graph.node)
    assert kinds["AveragePool"] == 0 and kinds["Concat"] > 5 and kinds["Mul"] > 5
    quantized = {node.input[0]: node for node in model.graph.node if node.op_type == "QuantizeLinear"}
    plain = 0
    for node in model.graph.node:
        match node.op_type:
            case "Relu":
                assert made[node.input[0]].op_type == "DequantizeLinear" and readers[node.input[0]] > 1
            case "Concat":
                whole = tensors[quantized[node.output[0]].input[1]]
                assert {float(scale(name)) for name in node.input} == {float(whole)}
            case "Mul":
                average, share = node.input
                if average.startswith(node.output[0]):  # else a ReLU is in its rounding, and its range is smaller
                    assert scale(average) == tensors[quantized[node.output[0]].input[1]]
                    plain += 1
                exact = tensors[made[share].input[0]].astype(float) * scale(share)
                assert exact.min() == 1 and set(exact.ravel()) <= {1, 1.5, 2.25, 3, 4.5, 9}
    assert plain > 2


def test_int8_logits_are_not_rounded_nor_cut_at_the_calibrations_largest(exports):
    model = onnx.load(exports["int8"][1] / GRAPH)
    (last,) = [node for node in model.graph.node if "logits" in node.output]
    assert last.op_type == "Gemm"


def test_int8_of_any_size_counts_the_pixels_in_its_windows_exactly(tmp_path):
    torch.manual_seed(0)
    network = random_network(GENOTYPES["NASNet-A"], stages=(1,))
    report = to_onnx(network, tmp_path / "out", "int8", size="any", images=IMAGES)
    assert all(check.relative_error < 0.1 for check in report.checks)
    model = onnx.load(tmp_path / "out" / GRAPH)
    made = {output: node for node in model.graph.node for output in node.output}
    tensors = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    windows = [node for node in model.graph.node if node.op_type == "Reciprocal"]
    assert windows and all(made[node.input[0]].input[1] in tensors for node in windows)  # float32, not rounded
    steps = {float(tensors[made[node.input[1]].input[1]]) for node in model.graph.node if node.op_type == "Mul"}
    assert steps == {1 / 16}


def test_channels_are_padded_for_what_computes_a_precision(tiny, tmp_path):
    """float16 for a GPU's matrix units and no further."""
    widths = {}
    for precision, multiple in (("fp32", 16), ("fp16", 8), ("int8", 16)):
        (tmp_path / precision).mkdir()
        options = dict(images=IMAGES, name="tiny", license="", source="")
        exporter.write_graph(tiny, tmp_path / precision, precision, (32, 32), **options)
        model = onnx.load(tmp_path / precision / GRAPH)
        made = {output: node for node in model.graph.node for output in node.output}
        shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
        weights = [node.input[1] for node in model.graph.node if node.op_type == "Conv"]
        sizes = [shapes[name if name in shapes else made[name].input[0]][0] for name in weights]
        assert all(size % multiple == 0 for size in sizes)
        widths[precision] = sum(sizes)
    assert widths["fp16"] < widths["fp32"] <= widths["int8"]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_any_batch_and_one_size(exports, precision):
    session = Session(exports[precision][1], ["cpu"])
    images = np.stack([session.prepare(image) for image in IMAGES])
    together = session.run(images)
    for count in (1, 3):
        np.testing.assert_allclose(session.run(images[:count]), together[:count], atol=1e-4 * np.abs(together).max())


def test_any_size_is_checked_at_several(tiny, tmp_path):
    report = to_onnx(tiny, tmp_path / "out", size="any")
    session = Session(tmp_path / "out", ["cpu"])
    assert report.size is None and not session.metadata.fixed
    assert report.checks[0].pictures % 3 == 0 and not report.checks[0].real
    for size in ((8, 8), (32, 32), (17, 40)):
        images = pictures(tiny, size)
        assert difference(session.run(images.numpy()), tiny, images) <= SAME


def test_another_fixed_size(tiny, tmp_path):
    report = to_onnx(tiny, tmp_path / "out", size=(17, 40))
    assert report.size == (17, 40)
    session = Session(tmp_path / "out", ["cpu"])
    images = pictures(tiny, (17, 40))
    assert difference(session.run(images.numpy()), tiny, images) <= SAME
    assert session.metadata.preprocess == dataclasses.replace(tiny.config.preprocess, size=(17, 40))


def test_stages_are_announced(tiny, tmp_path):
    stages = []
    to_onnx(tiny, tmp_path / "out", "int8", images=IMAGES, on_stage=stages.append)
    each = [f"calibrating: picture {number} of 8" for number in range(1, 9)]
    assert stages == ["verifying before int8", "fusing", "writing", *each, "rounding to int8", "verifying"]


def test_the_network_is_left_as_it_was(tmp_path):
    network = random_network(GENOTYPES["PNASNet-5"], stages=(1,)).train()
    next(module for module in network.modules() if isinstance(module, nn.BatchNorm2d)).eval()  # one is frozen
    modes = [module.training for module in network.modules()]
    state = {key: value.clone() for key, value in network.state_dict().items()}
    to_onnx(network, tmp_path / "out")
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
    assert [module.training for module in network.modules()] == modes


def test_a_network_in_half_precision_is_exported_from_its_weights(tmp_path):
    network = random_network(GENOTYPES["PNASNet-5"], stages=(1,)).to(torch.bfloat16)
    to_onnx(network, tmp_path / "out")
    images = pictures(network, (32, 32))
    assert difference(Session(tmp_path / "out", ["cpu"]).run(images.numpy()), network.float(), images) <= SAME
    assert network.classifier.weight.dtype == torch.float32  # what float() above made of bfloat16


def test_the_auxiliary_head_is_left_out(tmp_path):
    scale = dict(filters=8, stages=(1, 1, 1), stem_channels=8, aux_size=(8, 8))
    network = nasnet_zoo.create("nasnet-a-cifar", **scale).eval()
    to_onnx(network, tmp_path / "out")
    assert not any("aux" in tensor.name for tensor in onnx.load(tmp_path / "out" / GRAPH).graph.initializer)


# The same bytes


def test_the_same_bytes_in_another_process(exports, tmp_path):
    code = """
import sys, nasnet_zoo
from pathlib import Path
from nasnet_zoo.export import to_onnx
network = nasnet_zoo.load("nasnet-a-cifar-small", local_files_only=True)
for precision in ("fp32", "fp16", "int8"):
    about = dict(name="small", license="apache-2.0", source="the package")
    to_onnx(network, Path(sys.argv[1], precision), precision, images=sys.argv[2:], **about)
"""
    environment = {**os.environ, "PYTHONHASHSEED": "12345", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code, tmp_path, *IMAGES]
    subprocess.run(command, check=True, env=environment, capture_output=True, timeout=600)
    for precision in PRECISIONS:
        expected = (exports[precision][1] / GRAPH).read_bytes()
        assert (tmp_path / precision / GRAPH).read_bytes() == expected, precision


def test_other_weights_give_other_bytes_and_another_hash(tiny, tmp_path):
    hashes = set()
    for _ in range(2):
        report = to_onnx(tiny, tmp_path / "out")
        hashes.add((report.weights_sha256, hashlib.sha256((tmp_path / "out" / GRAPH).read_bytes()).hexdigest()))
        tiny.classifier.bias.data[0] += 0.25
    assert len({weights for weights, _ in hashes}) == len({model for _, model in hashes}) == 2


# Metadata


def test_the_metadata_says_all_that_is_needed(exports, network):
    for precision, (report, folder) in exports.items():
        data = find_export(folder).metadata
        assert (data.name, data.license, data.source, data.precision) == (
            *("small", "apache-2.0", "the package"),
            precision,
        )
        assert data.preprocess == network.config.preprocess and data.labels == network.labels
        assert NetworkConfig.from_json(data.config) == network.config
        assert (data.channels, data.classes, data.fixed, data.pixels, data.top) == (3, 10, True, False, 0)
        assert data.weights_sha256 == report.weights_sha256 == exports["fp32"][0].weights_sha256
    props = {prop.key: prop.value for prop in onnx.load(exports["fp32"][1] / GRAPH).metadata_props}
    assert props[PREFIX + "interpolation"] == "bilinear" and json.loads(props[PREFIX + "size"]) == [32, 32]
    assert json.loads(props[PREFIX + "mean"]) == list(network.config.preprocess.mean)
    assert json.loads(props[PREFIX + "labels"])[3] == "cat"


def test_the_weights_hash_is_of_the_float32_weights(exports, network):
    digest = hashlib.sha256()
    for key, value in sorted(network.state_dict().items()):
        digest.update(f"{key} {tuple(value.shape)}\n".encode() + value.numpy().astype("<f4").tobytes())
    assert exports["fp32"][0].weights_sha256 == digest.hexdigest()


# What is refused


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (dict(precision="bf16"), "there is no precision 'bf16'; there are fp32, fp16, int8"),
        (dict(precision="int8"), "calibrated"),
        (dict(size=(7, 32)), "too small"),
        (dict(size=(32,)), ""),
        (dict(size=32), ""),
        (dict(size="large"), ""),
        (dict(size="32"), ""),
        (dict(size=(32.5, 32)), ""),
        (dict(size=(1 << 15, 32)), "16384"),
        (dict(size="any", pixels=True), "fixed size"),
        (dict(pixels=True, top=0), ""),
    ],
    ids=str,
)
def test_options_that_do_not_fit(tiny, tmp_path, options, sentence):
    assert sentence in refused(ConfigError, tiny, tmp_path / "out", **options)
    assert list(tmp_path.iterdir()) == []


def test_pixels_of_a_network_that_takes_no_pictures(tmp_path):
    network = random_network(GENOTYPES["PNASNet-5"], stages=(1,), in_channels=5)
    assert "takes 5" in refused(ConfigError, network, tmp_path / "out", pixels=True)
    assert list(tmp_path.iterdir()) == []
    assert to_onnx(network, tmp_path / "out").checks[0].relative_error <= SAME


@pytest.mark.parametrize("precision", ["int8", "fp32"])
def test_a_broken_picture_leaves_nothing(tiny, tmp_path, precision):
    (tmp_path / "broken.png").write_text("no picture")
    assert "broken.png" in refused(
        ImageError, tiny, tmp_path / "out", precision, images=[IMAGES[0], tmp_path / "broken.png"]
    )
    assert [path.name for path in tmp_path.iterdir()] == ["broken.png"]


def broken(change, kind=Conv):
    """The fusions, and then one that changes the last weight of this kind."""

    def fuse(graph, fusions):
        graph = exporter_fuse(graph, fusions)
        nodes = list(graph.nodes)
        at = max(i for i, node in enumerate(nodes) if isinstance(node.op, kind))
        weights = {**nodes[at].weights, "weight": change(nodes[at].weights["weight"])}
        nodes[at] = dataclasses.replace(nodes[at], weights=weights)
        return graph.with_nodes(nodes)

    return fuse


exporter_fuse = exporter.fuse
WRONG = {
    "a little": lambda weight: weight * np.float32(1.01),
    "not a number": lambda weight: weight * np.float32("nan"),
    "infinite": lambda weight: np.full_like(weight, np.inf),
    "another shape": lambda weight: weight[:, :-1],
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_graph_is_not_left_behind(tiny, tmp_path, monkeypatch, wrong):
    monkeypatch.setattr(exporter, "fuse", broken(WRONG[wrong]))
    sentence = refused(ZooError if wrong == "another shape" else ExportError, tiny, tmp_path / "out")
    assert wrong == "another shape" or "model.onnx is wrong in onnxruntime" in sentence
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_graph_leaves_the_one_that_was_there(tiny, tmp_path, monkeypatch):
    to_onnx(tiny, tmp_path / "out")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    monkeypatch.setattr(exporter, "fuse", broken(WRONG["not a number"]))
    refused(ExportError, tiny, tmp_path / "out")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_network_too_large_for_half_precision(tmp_path):
    network = random_network(GENOTYPES["PNASNet-5"], stages=(1,))
    network.classifier.weight.data *= 6e4 / network.classifier.weight.data.abs().max()
    assert "and float16 holds 65504 at most: export it in fp32" in refused(
        ExportError, network, tmp_path / "out", "fp16"
    )
    network.classifier.weight.data *= 2
    assert "weight reaches 1.2e+05" in refused(ExportError, network, tmp_path / "out", "fp16")
    assert list(tmp_path.iterdir()) == []
    to_onnx(network, tmp_path / "out", "fp32")


def test_int8_that_ranks_other_classes_first_is_refused(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(exporter, "fuse", broken(lambda weight: -weight, Linear))
    assert "0% of the best classes" in refused(ExportError, tiny, tmp_path / "out", "int8", images=IMAGES)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("precision", PRECISIONS)
def test_close_logits_with_other_best_classes_are_refused_on_real_pictures_alone(exports, precision):
    data = find_export(exports[precision][1]).metadata
    check = verifying.Check("cpu", "1.0", 1e-9, 0.5, 8, real=True)
    with pytest.raises(ExportError, match="50% of the best classes"):
        verifying._judge(check, data, Path(GRAPH))
    verifying._judge(dataclasses.replace(check, real=False), data, Path(GRAPH))


def test_two_pictures_do_not_decide_where_one_of_some_may_differ(exports, network, monkeypatch):
    """Of a network as large as nasnet-a-large, whose exactness two show; without real pictures nothing is ranked."""
    monkeypatch.setattr(verifying, "MOST", 32)
    monkeypatch.setattr(verifying, "MULTIPLY_ADDS", 1.0)

    def count(precision, images):
        data = find_export(exports[precision][1]).metadata
        return sum(len(picture) for picture, _ in verifying._inputs(network, data, images))

    assert [count(precision, IMAGES * 4) for precision in PRECISIONS] == [2, 16, 16]
    assert [count(precision, ()) for precision in PRECISIONS] == [2, 2, 2]
    assert count("int8", IMAGES[:3]) == 3


def test_tensorrts_rounding_is_named_with_what_prevents_it(exports):
    data = find_export(exports["fp32"][1]).metadata
    check = verifying.Check("tensorrt", "1.0", 2e-3, 1.0, 8, real=True)
    with pytest.raises(ExportError, match="at most 0.001 in fp32.*NVIDIA_TF32_OVERRIDE=0"):
        verifying._judge(check, data, Path(GRAPH))


def test_what_else_a_folder_holds_is_not_lost(tiny, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("years")
    assert "thesis.tex" in refused(ZooError, tiny, tmp_path / "out")
    assert (tmp_path / "out" / "thesis.tex").read_text() == "years"


def test_without_pictures_some_are_made_up(tiny, tmp_path):
    check = to_onnx(tiny, tmp_path / "out").checks[-1]
    assert check.pictures >= 2 and not check.real and check.provider == "cpu"
    assert to_onnx(tiny, tmp_path / "out", images=[Image.open(IMAGES[0])]).checks[0].real


def test_a_wrong_average_of_what_int8_is_made_from_is_not_hidden_by_its_rounding(tmp_path, monkeypatch):
    """A tenth more wherever an average pool is a convolution: on odd sizes only what is made for int8 has those."""
    network, weight = random_network(GENOTYPES["NASNet-A"], stages=(1,)), emit._Emitter.weight

    def more(self, name, values):
        return weight(self, name, values * 1.1 if name.endswith(emit.SHARE) else values)

    monkeypatch.setattr(emit._Emitter, "weight", more)
    to_onnx(network, tmp_path / "out", size=(33, 33))
    assert "in fp32" in refused(ExportError, network, tmp_path / "int8", "int8", size=(33, 33), images=IMAGES)


def test_too_little_memory_is_one_sentence(tiny, tmp_path, monkeypatch):
    def reference(*arguments):
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried")

    monkeypatch.setattr(verifying, "_reference", reference)
    said = refused(ExportError, tiny, tmp_path / "out", name="tiny", size=(64, 64))
    assert said == "verifying tiny needs more memory than there is: choose a smaller size"
    assert list(tmp_path.iterdir()) == []


def test_a_classifier_of_zeros_is_right_where_it_gives_zeros(tmp_path, recwarn):
    network = random_network(GENOTYPES["PNASNet-5"], stages=(1,))
    nn.init.zeros_(network.classifier.weight)
    nn.init.zeros_(network.classifier.bias)
    for precision in PRECISIONS:
        report = to_onnx(network, tmp_path / precision, precision, images=IMAGES)
        assert all(check.relative_error == 0 for check in report.checks)
    assert not [warning for warning in recwarn if "divide" in str(warning.message)]


def test_files_in_passing_lie_where_the_export_will(tiny, tmp_path, monkeypatch):
    """A system's own folder for temporaries may be small, and int8 has several copies of the weights there."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    to_onnx(tiny, tmp_path / "out", "int8", images=IMAGES)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [REPORT, GRAPH]


def test_a_folder_with_an_at_sign_keeps_its_name(tmp_path, monkeypatch):
    (tmp_path / "nasnet-a-5@1536").mkdir()
    monkeypatch.chdir(tmp_path)
    assert exporter.origin("nasnet-a-5@1536")["name"] == "nasnet-a-5@1536"
    assert exporter.origin(str(tmp_path / "nasnet-a-5@1536"))["name"] == "nasnet-a-5@1536"
    assert exporter.origin("somebody/nasnet@main")["name"] == "nasnet"


def test_what_is_wrong_before_int8_is_not_hidden_by_its_rounding(tiny, tmp_path, monkeypatch):
    """A tenth more in one layer: within int8's tolerance, but not within float32's."""
    monkeypatch.setattr(exporter, "fuse", broken(lambda weight: weight * 1.1, Linear))
    assert "in fp32" in refused(ExportError, tiny, tmp_path / "out", "int8", images=IMAGES)
    assert list(tmp_path.iterdir()) == []
