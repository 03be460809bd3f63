"""Session: torch's predictions without torch, arrays, memory, providers, and graphs that are not ours."""

import copy
import multiprocessing
import pickle
import re
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ProcessPoolExecutor
from io import BytesIO
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx.helper import make_node, make_tensor_value_info
from onnx.numpy_helper import from_array
from PIL import Image
from random_networks import random_network

import nasnet_zoo
from nasnet_zoo.arch.genotypes import GENOTYPES
from nasnet_zoo.data.labels import example_pictures
from nasnet_zoo.errors import ConfigError, ExportError, ImageError, SessionError
from nasnet_zoo.export import Session, providers, to_onnx
from nasnet_zoo.export import session as session_module
from nasnet_zoo.export.folder import GRAPH

IMAGES = example_pictures("cifar10")
CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"


@pytest.fixture(scope="module")
def network():
    return nasnet_zoo.load("nasnet-a-cifar-small", local_files_only=True)


@pytest.fixture(scope="module")
def folder(network, tmp_path_factory):
    folder = tmp_path_factory.mktemp("session")
    to_onnx(network, folder / "image", images=IMAGES, name="small")
    to_onnx(network, folder / "pixels", images=IMAGES, name="small", pixels=True)
    to_onnx(network, folder / "any", images=IMAGES, name="small", size="any")
    return folder


@pytest.fixture(scope="module")
def session(folder):
    return Session(folder / "image", ["cpu"])


@pytest.fixture(scope="module")
def pixels(folder):
    return Session(folder / "pixels", ["cpu"])


@pytest.fixture(autouse=True)
def environment(tmp_path, monkeypatch):
    for name in ("HF_HUB_OFFLINE", "NASNET_ZOO_OFFLINE", "HF_TOKEN", "HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NASNET_ZOO_CACHE", str(tmp_path / "cache"))


def sentence(error, call, *arguments, **options):
    """The one sentence of the error that a call ends with."""
    with pytest.raises(error) as caught:
        call(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def close(a, b):
    same = [(p.index, p.label) for p in a] == [(p.index, p.label) for p in b]
    return same and np.allclose([p.probability for p in a], [p.probability for p in b], atol=1e-5)


# Predictions


@pytest.mark.parametrize("graph", ["image", "pixels", "any"])
def test_predictions_are_torchs_for_every_kind_of_source(graph, folder, network):
    session = Session(folder / graph, ["cpu"])
    path = IMAGES[2]
    expected = network.predict(path, k=3)
    with Image.open(path) as image, open(path, "rb") as file:
        array = np.asarray(image.convert("RGB"))
        for source in (path, str(path), image, array, path.read_bytes(), BytesIO(path.read_bytes()), file):
            assert close(session.predict(source, k=3), expected)
    assert session.labels == network.labels


@pytest.mark.parametrize("kind", ["session", "pixels"])
@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_a_list_keeps_its_order_over_batches(kind, batch_size, network, request):
    session = request.getfixturevalue(kind)
    got = session.predict(IMAGES, batch_size=batch_size)
    assert len(got) == len(IMAGES)
    assert all(close(one, other) for one, other in zip(got, network.predict(IMAGES)))
    assert len({predictions[0].label for predictions in got}) >= 5
    assert close(session.predict(tuple(IMAGES[:1]))[0], got[0])


def test_other_sizes_of_picture_and_greyscale(session, network):
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, shape, dtype=np.uint8) for shape in ((50, 80, 3), (7, 9), (1, 1, 3))]
    assert all(close(a, b) for a, b in zip(session.predict(images), network.predict(images)))


def test_an_empty_list_and_a_large_k(session):
    assert session.predict([]) == []
    got = session.predict(IMAGES[0], k=1000)
    assert sorted(p.index for p in got) == list(range(10)) and sum(p.probability for p in got) == pytest.approx(1)


@pytest.mark.parametrize("options", [{"k": 0}, {"batch_size": 0}, {"k": -1}])
def test_k_and_batch_size_start_at_one(session, options):
    assert "at least 1" in sentence(SessionError, session.predict, IMAGES, **options)


@pytest.mark.parametrize("kind", ["session", "pixels"])
@pytest.mark.parametrize("batch_size", [2, 32])
def test_a_broken_picture_is_named(kind, batch_size, tmp_path, request):
    session = request.getfixturevalue(kind)
    (tmp_path / "broken.png").write_bytes(IMAGES[0].read_bytes()[:100])
    images = [*IMAGES[:2], tmp_path / "broken.png", *IMAGES[2:4]]
    said = sentence(ImageError, session.predict, images, batch_size=batch_size)
    assert said.startswith("image 3 of 5: ") and "broken.png" in said
    assert sentence(ImageError, session.predict, tmp_path / "broken.png").startswith("cannot read ")
    assert len(session.predict(images[:2])) == 2


@pytest.mark.parametrize("kind", ["session", "pixels"])
def test_a_broken_picture_can_leave_the_others_answered(kind, network, tmp_path, request):
    session = request.getfixturevalue(kind)
    (tmp_path / "broken.png").write_bytes(IMAGES[0].read_bytes()[:100])
    images = [IMAGES[0], tmp_path / "broken.png", IMAGES[1], tmp_path / "none.png"]
    expected = network.predict(images, errors="return")
    got = session.predict(iter(images), batch_size=2, errors="return")
    assert close(got[0], expected[0]) and close(got[2], expected[2]) and len(got) == 4
    assert [str(got[i]) for i in (1, 3)] == [str(expected[i]) for i in (1, 3)]
    assert "'raise' or 'return'" in sentence(ConfigError, session.predict, images, errors="skip")


def test_a_graph_knows_its_config_and_whether_it_was_trained(folder, network, tmp_path):
    session = Session(folder / "image", ["cpu"])
    assert session.config == network.config and session.trained
    fresh = nasnet_zoo.create("nasnet-a-cifar", filters=4, stages=(1,)).eval()
    to_onnx(fresh, tmp_path / "fresh", size=(24, 32))
    session = Session(tmp_path / "fresh", ["cpu"])
    assert not session.trained and session.config.preprocess.size == (24, 32)
    old = Session(Path(__file__).parents[1] / "golden" / "v1" / "onnx", ["cpu"])
    assert old.trained  # it was written before graphs said so


def test_without_labels_there_is_none(tmp_path):
    to_onnx(random_network(GENOTYPES["PNASNet-5"], stages=(1,)), tmp_path / "out")
    session = Session(tmp_path / "out", ["cpu"])
    assert session.labels is None and session.predict(IMAGES[0], k=1)[0].label is None


def test_two_threads_at_once(session):
    arrays = [np.random.default_rng(i).normal(size=(2, 3, 32, 32)).astype(np.float32) for i in range(2)]
    expected = [session.run(array) for array in arrays]
    wrong = []

    def work(i):
        for _ in range(30):
            if not np.allclose(session.run(arrays[i]), expected[i], atol=1e-5):
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and not np.allclose(*expected)


# Copies and other processes


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda session: pickle.loads(pickle.dumps(session))])
def test_a_copy_is_made_anew(again, session):
    other = again(session)
    assert type(other) is Session and other._session is not session._session
    assert other.provider == "cpu" and other.metadata == session.metadata
    assert other.predict(IMAGES[2]) == session.predict(IMAGES[2])


def test_a_copy_asks_for_the_same_providers_in_any_folder(folder, tmp_path, monkeypatch):
    asked = []
    monkeypatch.chdir(folder)
    monkeypatch.setattr(session_module, "choose", lambda providers, precision: asked.append(providers) or [CPU])
    pickled = pickle.dumps(Session("image", ["cuda", "cpu"]))
    monkeypatch.chdir(tmp_path)
    assert pickle.loads(pickled).folder.model == folder / "image" / GRAPH
    assert asked == [["cuda", "cpu"]] * 2


@pytest.mark.parametrize("method", sorted({"spawn", "forkserver"} & {*multiprocessing.get_all_start_methods()}))
def test_another_process_makes_it_anew(method, session):
    with ProcessPoolExecutor(1, multiprocessing.get_context(method)) as pool:
        assert pool.submit(session.predict, str(IMAGES[2])).result() == session.predict(IMAGES[2])


def test_a_copy_whose_graph_has_gone_is_one_sentence(folder, tmp_path):
    shutil.copytree(folder / "image", tmp_path / "graph")
    pickled = pickle.dumps(Session(tmp_path / "graph", ["cpu"]))
    shutil.rmtree(tmp_path / "graph")
    said = sentence(ExportError, pickle.loads, pickled)
    assert str(tmp_path / "graph") in said and "nasnet-zoo export" in said


def test_it_is_shown_as_one_line(folder, session):
    assert repr(session) == f"Session(small fp32, 32 x 32 px, on cpu, from {folder / 'image' / GRAPH})"
    assert "any size" in repr(Session(folder / "any", ["cpu"]))


def test_no_torch_is_imported(folder):
    code = """
import sys
from nasnet_zoo.export import Session
session = Session(sys.argv[1], ["cpu"])
print(session.predict(sys.argv[2])[0].label)
heavy = {"torch", "torchvision", "scipy", "matplotlib", "tensorboard"} & set(sys.modules)
assert not heavy, heavy
"""
    command = [sys.executable, "-c", code, folder / "image", IMAGES[2]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert (done.returncode, done.stdout, done.stderr) == (0, "cat\n", "")


# Arrays


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((1, 3, 32, 32)),
        np.zeros((1, 3, 32, 32), np.float16),
        np.zeros((1, 3, 32, 32), ">f4"),
        np.zeros((1, 3, 32, 32), np.uint8),
        np.zeros((1, 32, 32, 3), np.float32),
        np.zeros((3, 32, 32), np.float32),
        np.zeros((0, 3, 32, 32), np.float32),
        np.zeros((1, 1, 32, 32), np.float32),
        np.zeros((1, 3, 32, 33), np.float32),
        np.float32(1),
        [[1.0]],
        None,
        torch.zeros(1, 3, 32, 32),
    ],
    ids=lambda a: f"{getattr(a, 'dtype', type(a).__name__)}-{getattr(a, 'shape', '')}",
)
def test_arrays_of_another_kind_say_what_is_wanted(session, array):
    said = sentence(SessionError, session.run, array)
    assert said.startswith("small takes float32 arrays of shape (batch, 3, 32, 32), not ")
    assert str(getattr(array, "dtype", type(array).__name__)) in said or isinstance(array, (torch.Tensor, np.float32))


@pytest.mark.parametrize("shape", [(1, 3, 32, 32), (32, 32, 3), (1, 32, 32, 1), (1, 31, 32, 3)])
def test_pixels_are_channels_last(pixels, shape):
    said = sentence(SessionError, pixels.run, np.zeros(shape, np.uint8))
    assert "small takes uint8 arrays of shape (batch, 32, 32, 3), not uint8" in said
    assert "not float32" in sentence(SessionError, pixels.run, np.zeros((1, 32, 32, 3), np.float32))


def test_arrays_that_lie_strangely_in_memory(session):
    array = np.random.default_rng(0).normal(size=(4, 3, 64, 32)).astype(np.float32)[::2, :, ::2]
    np.testing.assert_array_equal(session.run(array), session.run(array.copy()))
    assert session.run(array).flags.writeable


def test_any_size_from_the_networks_minimum(folder):
    session = Session(folder / "any", ["cpu"])
    assert "(batch, 3, height, width)" in sentence(SessionError, session.run, np.zeros((1, 32, 32, 3), np.float32))
    assert session.run(np.zeros((1, 3, 8, 11), np.float32)).shape == (1, 10)
    for size in ((7, 8), (8, 7), (1, 1), (0, 8)):
        said = sentence(SessionError, session.run, np.zeros((1, 3, *size), np.float32))
        assert "at least 8 x 8" in said


MEMORY = """
import resource, sys
import numpy as np
from nasnet_zoo.errors import SessionError
from nasnet_zoo.export import Session
session = Session(sys.argv[1], ["cpu"])
small = np.ones((1, 3, 32, 32), np.float32)
before = session.run(small)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (100 << 20), resource.RLIM_INFINITY))
picture = np.zeros((32, 32, 3), np.uint8)
for call in (
    lambda: session.run(np.broadcast_to(small, (5000, 3, 32, 32))),
    lambda: session.run(np.broadcast_to(small, (100000, 3, 32, 32))),
    lambda: session.predict([picture] * 8000, batch_size=8000),
):
    try:
        call()
    except SessionError as error:
        print(error)
assert np.array_equal(session.run(small), before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc and RLIMIT_AS")
def test_a_batch_larger_than_memory_is_one_sentence(folder):
    command = [sys.executable, "-c", MEMORY, folder / "image"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 3 and all("needs more memory than" in line and "a smaller one" in line for line in lines)
    assert lines[0].startswith("a batch of 5000 ") and lines[2].startswith("a batch of 8000 ")
    assert done.stderr == ""


# Graphs that are not ours


def disguised(folder, out, change):
    """A folder that claims to be an export of ours, with another graph."""
    out.mkdir()
    model = onnx.load(folder / "image" / GRAPH)
    change(model.graph)
    onnx.save(model, out / GRAPH)
    return out


def giving(*shape):
    """Puts a graph in place whose logits have this shape, which nobody can tell before it runs."""

    def change(graph):
        del graph.node[:], graph.initializer[:]
        sizes = np.array([*shape, *[-1] * (4 - len(shape))], np.int64)
        graph.initializer.extend([from_array(sizes, "sizes"), from_array(np.int64(0), "zero")])
        for op, inputs, output in (
            ("ReduceSum", ["image"], "sum"),
            ("Cast", ["sum"], "whole"),
            ("Mul", ["whole", "zero"], "nothing"),
            ("Add", ["sizes", "nothing"], "unknown"),
            ("GreaterOrEqual", ["unknown", "zero"], "wanted"),
            ("Compress", ["sizes", "wanted"], "shape"),
            ("ConstantOfShape", ["shape"], "logits"),
        ):
            options = {"to": 7} if op == "Cast" else {"keepdims": 0} if op == "ReduceSum" else {}
            graph.node.append(make_node(op, inputs, [output], **options))

    return change


@pytest.mark.parametrize("shape", [(), (10,), (1, 10, 1, 1), (1, 0), (0, 10), (1, 7), (2, 10)], ids=str)
def test_logits_of_another_shape_than_promised(folder, tmp_path, shape):
    session = Session(disguised(folder, tmp_path / "out", giving(*shape)), ["cpu"])
    said = f"gives logits of shape {shape}, not (1, 10): export it again"
    assert said in sentence(SessionError, session.predict, IMAGES[0])
    assert said in sentence(SessionError, session.run, np.zeros((1, 3, 32, 32), np.float32))


def test_the_shape_that_is_promised(folder, tmp_path):
    session = Session(disguised(folder, tmp_path / "out", giving(1, 10)), ["cpu"])
    assert len(session.predict(IMAGES[0])) == 5


def renamed(graph):
    graph.output[0].name = graph.node[-1].output[0] = "scores"


def scalar(graph):
    del graph.output[0].type.tensor_type.shape.dim[:]


def another_input(graph):
    graph.input.append(make_tensor_value_info("more", 1, (1,)))


def text(graph):
    graph.input[0].type.tensor_type.elem_type = 8


def unknown(graph):
    graph.output[0].type.tensor_type.elem_type = 99


def size(graph):
    graph.input[0].type.tensor_type.shape.dim[2].dim_value = 64


def one_picture(graph):
    graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1


def sequence(graph):
    graph.output[0].type.sequence_type.elem_type.tensor_type.elem_type = 1


def nothing(graph):
    del graph.node[:], graph.output[:], graph.input[:]


@pytest.mark.parametrize(
    "change",
    [renamed, scalar, another_input, text, unknown, size, one_picture, sequence, nothing],
    ids=lambda change: change.__name__,
)
def test_a_graph_that_declares_something_else_is_refused(folder, tmp_path, change):
    said = sentence(ExportError, Session, disguised(folder, tmp_path / "out", change), ["cpu"])
    assert "does not take pictures and give logits as its metadata says" in said


# Providers


needs_cuda_build = pytest.mark.skipif(CUDA not in onnxruntime.get_available_providers(), reason="no CUDA in this build")
without_gpu = pytest.mark.skipif(providers._has_nvidia_gpu(), reason="there is a GPU")


@needs_cuda_build
@without_gpu
@pytest.mark.parametrize("asked", ["cuda", ["CUDA"], [CUDA, "cpu"], ["tensorrt"]])
def test_a_provider_without_its_device_is_left_with_one_sentence(folder, capfd, asked):
    session = Session(folder / "image", asked)
    out, err = capfd.readouterr()
    name = "tensorrt" if asked == ["tensorrt"] else "cuda"
    assert session.provider == "cpu" and out == ""
    assert re.fullmatch(rf"nasnet-zoo: {name} does not work here \(.*\); going on with cpu\n", err)
    assert session.run(np.zeros((1, 3, 32, 32), np.float32)).shape == (1, 10)


def test_the_best_that_may_work_is_chosen_in_silence(folder, capfd):
    session = Session(folder / "image")
    assert session.provider == ("cpu" if not providers._has_nvidia_gpu() else session.provider)
    assert capfd.readouterr() == ("", "") or providers._has_nvidia_gpu()


def test_a_provider_that_is_no_name(folder):
    assert sentence(ConfigError, Session, folder / "image", [3]).startswith("Session: providers is [3]")


@pytest.mark.parametrize(("asked", "said"), [(["gpu"], "'gpu'"), ("", "no provider"), ([], "no provider")])
def test_a_provider_that_there_is_not(folder, asked, said):
    message = sentence(SessionError, Session, folder / "image", asked)
    assert said in message and "tensorrt, cuda, cpu" in message


def test_a_provider_that_is_not_in_this_onnxruntime(folder, capfd, monkeypatch):
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CPU])
    session = Session(folder / "image", ["cuda"])
    assert session.provider == "cpu"
    assert capfd.readouterr().err == "nasnet-zoo: cuda is not in this onnxruntime (cpu): leaving it out\n"


class Dying:
    """onnxruntime's session of a GPU that starts and fails when it runs."""

    def __init__(self, made, error):
        self.made, self.error = made, error

    def __getattr__(self, name):
        return getattr(self.made, name)

    def get_providers(self):
        return [CUDA, CPU]

    def run(self, *arguments):
        raise self.error

    io_binding = run


@pytest.fixture
def dying_cuda(monkeypatch):
    """Makes sessions on CUDA start here, and end at their first run with the error given."""
    make, errors = onnxruntime.InferenceSession, [RuntimeError("CUDNN_STATUS_EXECUTION_FAILED\n on node Conv_3")]

    def start(path, options, providers, **others):
        session = make(path, options, providers=[CPU], **others)
        return Dying(session, errors[0]) if providers[0][0] == CUDA else session

    monkeypatch.setattr(onnxruntime, "InferenceSession", start)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, CPU])
    return errors


def test_a_provider_that_dies_at_its_first_run_is_left(folder, session, capfd, dying_cuda):
    dying = Session(folder / "image", ["cuda"])
    assert dying.provider == "cuda"
    array = np.random.default_rng(0).normal(size=(2, 3, 32, 32)).astype(np.float32)
    np.testing.assert_array_equal(dying.run(array), session.run(array))
    assert dying.provider == "cpu" and dying.predict(IMAGES[0]) == session.predict(IMAGES[0])
    assert capfd.readouterr().err == "nasnet-zoo: cuda does not work here (on node Conv_3); going on with cpu\n"


def test_tensorrt_is_not_tried_with_int8(folder, capfd, monkeypatch):
    there = list(providers.LONG.values())
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: there)
    monkeypatch.setattr(providers, "_has_nvidia_gpu", lambda: True)
    monkeypatch.setattr(providers, "find_spec", lambda name: name)
    monkeypatch.setattr(providers, "preload", lambda onnxruntime: None)
    assert providers.choose(None, "fp16") == there and providers.choose(None, "int8") == there[1:]
    assert capfd.readouterr().err == ""
    assert providers.choose(["tensorrt"], "int8") == [CPU]
    assert capfd.readouterr().err == "nasnet-zoo: tensorrt takes no int8 graph with zero points: leaving it out\n"


def test_tensorrts_engines_of_two_graphs_of_one_name_lie_apart(tmp_path):
    """It tells engines apart by the names in a graph, which other weights have too."""
    options = []
    for content, precision in ((b"one", "fp32"), (b"two", "fp16"), (b"one", "fp32")):
        (tmp_path / GRAPH).write_bytes(content)
        options.append(
            providers.provider_options(providers.LONG["tensorrt"], tmp_path / GRAPH, precision, cache=tmp_path)
        )
    first, second, again = options
    assert first == again and first["trt_engine_cache_path"] != second["trt_engine_cache_path"]
    assert first["trt_engine_cache_path"].startswith(str(tmp_path))
    assert first["trt_timing_cache_path"] == second["trt_timing_cache_path"] == str(tmp_path)
    assert (first["trt_fp16_enable"], second["trt_fp16_enable"]) == ("0", "1")


def test_threads_that_see_a_provider_die_leave_it_once(folder, session, capfd, dying_cuda):
    dying = Session(folder / "image", ["cuda"])
    array, results = np.ones((1, 3, 32, 32), np.float32), []
    barrier, run = threading.Barrier(4), dying._run

    def together(array):
        if dying.provider == "cuda":
            barrier.wait(300)
        return run(array)

    dying._run = together
    threads = [threading.Thread(target=lambda: results.append(dying.run(array))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4 and all(np.array_equal(result, session.run(array)) for result in results)
    assert capfd.readouterr().err.count("\n") == 1 and dying.provider == "cpu"


@pytest.mark.parametrize("text", ["CUDA error: out of memory", "Failed to allocate memory for requested buffer"])
def test_too_little_memory_is_no_reason_to_leave_a_provider(folder, dying_cuda, text):
    dying_cuda[0] = RuntimeError(f"{text} of size 12")
    dying = Session(folder / "image", ["cuda"])
    said = sentence(SessionError, dying.run, np.ones((9, 3, 32, 32), np.float32))
    assert said == "a batch of 9 needs more memory than cuda has: give a smaller one" and dying.provider == "cuda"


def test_when_the_last_provider_fails_the_session_lives_on(folder, monkeypatch):
    session = Session(folder / "image", ["cpu"])
    array, made = np.ones((1, 3, 32, 32), np.float32), session._session
    session._session = Dying(made, ValueError("first\nsecond"))
    for _ in range(2):
        said = sentence(SessionError, session.run, array)
        assert said == f"cpu cannot run {folder / 'image' / GRAPH}: second" and session.provider == "cpu"
    session._session = made
    assert session.run(array).shape == (1, 10)
