"""Weight files that were made to do harm: that bring in other files, or unpack to more than memory or disk holds."""

import gzip
import io
import json
import random
import shutil
import tarfile
import tracemalloc
import zipfile
import zlib
from contextlib import contextmanager

import numpy as np
import pytest
import safetensors.torch
import torch
from bundle_writer import write_bundle

import nasnet_zoo
from nasnet_zoo.arch.cells import CellScale
from nasnet_zoo.arch.config import NetworkConfig
from nasnet_zoo.arch.genotypes import NASNET_A
from nasnet_zoo.arch.preprocess import Preprocess
from nasnet_zoo.convert import archive, from_timm
from nasnet_zoo.convert.names import keras_name, slim_sources, torch_name
from nasnet_zoo.convert.tf_checkpoint import opened
from nasnet_zoo.errors import CheckpointError, ConversionError, ZooError
from nasnet_zoo.networks.build import build
from nasnet_zoo.weights.foreign import convert_file

TINY = NetworkConfig(NASNET_A, CellScale("imagenet", 4, 8, (1,)), Preprocess((32, 32)), 1000)
BACK = {"conv": (2, 3, 1, 0), "depthwise": (2, 3, 0, 1), "dense": (1, 0), "vector": (0,)}  # from torch's axes to TF's
BIAS = "predictions/predictions/bias:0"  # of 1000 values


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(0)
    return build(TINY).state_dict()


@pytest.fixture(scope="module")
def variables(state):
    sources = slim_sources(TINY, False)
    return {s.name: np.ascontiguousarray(state[s.key].numpy().transpose(BACK[s.layout])) for s in sources}


@pytest.fixture
def out(tmp_path):
    """The folder to convert to; a file that is refused leaves nothing there."""
    return tmp_path / "out"


def refused(source, out):
    """The sentence with which a conversion ends."""
    with pytest.raises((ConversionError, CheckpointError)) as caught:
        convert_file(source, TINY, out)
    assert not out.exists() and "\n" not in str(caught.value)
    return str(caught.value)


@contextmanager
def little_memory(limit=24 << 20):
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < limit
    finally:
        tracemalloc.stop()


# Keras's .h5


@pytest.fixture
def h5(tmp_path, variables):
    """Makes a Keras file, in which `change` may put something in the place of the classifier's bias."""
    h5py = pytest.importorskip("h5py")

    def make(change=None, **options):
        path = tmp_path / "weights.h5"
        with h5py.File(path, "w", **options) as file:
            for name, value in variables.items():
                layer, leaf = keras_name(name, TINY.scale.stages).split("/")
                file[f"{layer}/{layer}/{leaf}:0"] = value
            if change is not None:
                value = file[BIAS][()]
                del file[BIAS]
                change(h5py, file, value)
        return path

    return make


@pytest.fixture
def secret(tmp_path):
    """A file of the user's, 4000 bytes long."""
    path = tmp_path / "secret"
    path.write_bytes(b"password" * 500)
    return path


def external_storage(h5py, file, value, secret):
    file.create_dataset(BIAS, (1000,), "f4", external=[(str(secret), 0, 4000)])


def external_link(h5py, file, value, secret):
    with h5py.File(secret.with_name("other.h5"), "w") as other:
        other["secret"] = np.frombuffer(secret.read_bytes(), "f4")
    file[BIAS] = h5py.ExternalLink("other.h5", "/secret")


def external_group(h5py, file, value, secret):
    del file["predictions"]
    with h5py.File(secret.with_name("other.h5"), "w") as other:
        other["a/bias:0"] = np.frombuffer(secret.read_bytes(), "f4")
        other["a/kernel:0"] = np.zeros((file["stem_conv1/stem_conv1/kernel:0"].shape[0], 1000), "f4")
    file["predictions"] = h5py.ExternalLink("other.h5", "/a")


def virtual(h5py, file, value, secret):
    external_link(h5py, file, value, secret)
    del file[BIAS]
    layout = h5py.VirtualLayout((1000,), "f4")
    layout[:] = h5py.VirtualSource(str(secret.with_name("other.h5")), "secret", (1000,))
    file.create_virtual_dataset(BIAS, layout)


def soft_link(h5py, file, value, secret):
    file["elsewhere"] = value
    file[BIAS] = h5py.SoftLink("/elsewhere")


def dangling_link(h5py, file, value, secret):
    file[BIAS] = h5py.SoftLink("/nowhere")


def cycle(h5py, file, value, secret):
    file[BIAS] = value
    file["predictions/again"] = file["/"]


def second_name(h5py, file, value, secret):
    file[BIAS] = value
    file["predictions/predictions/moving_mean:0"] = file[BIAS]


def same_name(h5py, file, value, secret):
    file[BIAS] = file[f"other/{BIAS}"] = value


def reference(h5py, file, value, secret):
    file.create_dataset(BIAS, (1000,), h5py.ref_dtype)


def region(h5py, file, value, secret):
    file.create_dataset(BIAS, (1000,), h5py.regionref_dtype)


def variable_length(h5py, file, value, secret):
    file.create_dataset(BIAS, (1000,), h5py.vlen_dtype(np.float32))


def text(h5py, file, value, secret):
    file[BIAS] = "text"


def named_type(h5py, file, value, secret):
    file[BIAS] = np.dtype("f4")


def no_values(h5py, file, value, secret):
    file[BIAS] = h5py.Empty("f4")


def integers(h5py, file, value, secret):
    file[BIAS] = value.astype("i4")


def lzf(h5py, file, value, secret):
    file.create_dataset(BIAS, data=value, compression="lzf")


def scale_offset(h5py, file, value, secret):
    file.create_dataset(BIAS, data=value, scaleoffset=3)


def packed_twice(h5py, file, value, secret):
    made = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    made.set_chunk((1000,))
    made.set_deflate(9)
    made.set_deflate(9)
    h5py.h5d.create(file.id, BIAS.encode(), h5py.h5t.IEEE_F32LE, h5py.h5s.create_simple((1000,)), made).write(
        h5py.h5s.ALL, h5py.h5s.ALL, value
    )


ELSEWHERE = [external_storage, external_link, external_group, virtual, soft_link, dangling_link, cycle, second_name]
ODD = [same_name, reference, region, variable_length, text, named_type, no_values, integers]
PACKED = [lzf, scale_offset, packed_twice]


@pytest.mark.parametrize("build", [*ELSEWHERE, *ODD, *PACKED], ids=lambda build: build.__name__)
def test_only_plain_values_in_the_file_itself_are_read(h5, secret, out, build):
    path = h5(lambda h5py, file, value: build(h5py, file, value, secret))
    said = refused(path, out)
    assert "weights.h5" in said and "password" not in said


def test_a_file_with_a_block_before_it(h5, out):
    assert "before its HDF5 data" in refused(h5(userblock_size=1024), out)


@pytest.mark.parametrize(
    "options", [{}, {"shuffle": True, "compression": "gzip", "fletcher32": True}, {"chunks": (64,)}, {"dtype": "f8"}]
)
def test_an_honest_file_is_converted(h5, state, out, options):
    path = h5(lambda h5py, file, value: file.create_dataset(BIAS, data=value, **options))
    convert_file(path, TINY, out)
    loaded = nasnet_zoo.load(out).state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in state.items())


def test_shapes_are_checked_before_a_value_is_unpacked(h5, out):
    """A small file of 256 MB of zeros."""

    def zeros(h5py, file, value):
        file.create_dataset(BIAS, (1 << 26,), "f4", chunks=(1 << 20,), compression="gzip")
        file.create_dataset("predictions/predictions/extra:0", (10**12,), "f4", chunks=(1000,))

    with little_memory():
        assert "extra" in refused(h5(zeros), out)

    def wrong(h5py, file, value):
        file.create_dataset(BIAS, (1 << 26,), "f4", chunks=(1 << 20,), compression="gzip")

    with little_memory():
        assert "(67108864,), expected (1000,)" in refused(h5(wrong), out)


def test_a_chunk_that_unpacks_to_more_than_its_size(h5, out):
    def bomb(h5py, file, value):
        data = file.create_dataset(BIAS, (1000,), "f4", chunks=(1000,), compression="gzip")
        data.id.write_direct_chunk((0,), zlib.compress(bytes(1 << 22)))

    assert "larger than it should be" in refused(h5(bomb), out)


def test_chunks_larger_than_the_tensor(h5, out):
    def growing(h5py, file, value):
        data = file.create_dataset(BIAS, (1000,), "f4", maxshape=(None,), chunks=(1 << 26,), compression="gzip")
        data.id.write_direct_chunk((0,), zlib.compress(bytes(4000)))

    assert "chunks are larger" in refused(h5(growing), out)


def test_names_that_are_packed(h5, out):
    """HDF5 unpacks a group's heap of names, to any size, as soon as it lists the group."""
    path = h5(libver="latest")
    convert_file(path, TINY, out)  # such a heap that is not packed
    shutil.rmtree(out)
    data = bytearray(path.read_bytes())
    length = data.index(b"FRHP\0") + 7  # of the description of its filters
    assert data[length : length + 2] == bytes(2)
    for changed in (8, 256):
        data[length : length + 2] = changed.to_bytes(2, "little")
        path.write_bytes(data)
        assert "list of names is packed" in refused(path, out)


# TF-slim's archives


def member(name, data=b"", size=None):
    info = tarfile.TarInfo(name)
    info.size = len(data) if size is None else size
    return info.tobuf(tarfile.GNU_FORMAT) + data


def zeros(count):
    return (bytes(1 << 20) for _ in range(count))


@pytest.mark.parametrize("name", ["model.ckpt.data-00000-of-00001", "notes.txt"])
def test_an_archive_that_unpacks_to_more_than_the_network_has(tmp_path, out, name):
    """128 MB of zeros, in half a MB."""
    path = tmp_path / "bomb.tar.gz"
    with gzip.open(path, "wb", 1) as file:
        file.write(member(name, size=128 << 20))
        for piece in zeros(128):
            file.write(piece)
        file.write(bytes(1024))
    with little_memory():
        assert "bomb.tar.gz unpacks to more than 6" in refused(path, out)


def test_a_header_of_an_archive_that_is_endless(tmp_path, out):
    path = tmp_path / "bomb.tar.gz"
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 64 << 20
    with gzip.open(path, "wb", 1) as file:
        file.write(info.tobuf(tarfile.GNU_FORMAT))
        for piece in zeros(64):
            file.write(piece)
    with little_memory():
        assert "damaged archive" in refused(path, out)


def test_an_archive_of_very_many_files(tmp_path, out, monkeypatch):
    monkeypatch.setattr(archive, "_MEMBERS", 100)
    path = tmp_path / "many.tar.gz"
    path.write_bytes(gzip.compress(b"".join(member(f"{n}.index") for n in range(200)) + bytes(1024)))
    assert "damaged archive" in refused(path, out)


def test_a_checkpoint_is_not_read_before_its_shapes_are_checked(tmp_path, variables, out, monkeypatch):
    write_bundle(tmp_path / "model.ckpt", variables | {"conv0/weights": np.zeros(1 << 24, np.float32)})
    data = next(tmp_path.glob("*.data-*"))
    with little_memory():
        assert "conv0/weights (16777216,)" in refused(tmp_path / "model.ckpt", out)
    write_bundle(tmp_path / "model.ckpt", variables | {"conv0/weights/RMSProp": np.zeros(1 << 24, np.float32)})
    with little_memory():
        convert_file(tmp_path / "model.ckpt", TINY, out)
    with opened(tmp_path / "model.ckpt") as found, data.open("r+b") as file:
        file.write(bytes(1 << 16))
        with pytest.raises(CheckpointError, match="checksum of tensor"):
            [np.asarray(variable) for variable in found.values()]


# .pth and .safetensors


@pytest.fixture
def port(state):
    """timm's state_dict."""
    return {torch_name(s.name, pnasnet=False): state[s.key] for s in slim_sources(TINY, False)}


def test_a_pth_whose_entries_are_packed(tmp_path, port, out):
    plain, packed = tmp_path / "plain.pth", tmp_path / "packed.pth"
    torch.save(port | {"last_linear.bias": torch.zeros(1 << 24)}, plain)
    with zipfile.ZipFile(plain) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
    with little_memory():
        assert "packed.pth" in refused(packed, out)
    convert_file(save(tmp_path / "good.pth", port), TINY, out)


def stored(path, zip64):
    """A `.pth` as torch writes it, or as Python would, which writes zip64's records only where it must."""
    if not zip64:
        with zipfile.ZipFile(path) as old:
            entries = {entry.filename: old.read(entry) for entry in old.infolist()}
        with zipfile.ZipFile(path, "w") as new:
            for name, data in entries.items():
                new.writestr(name, data)
    data = path.read_bytes()
    assert (b"PK\6\6" in data[-98:]) == zip64
    return data


def two_directories(data, at, zip64):
    """torch reads the one that the end names, Python the one before the end."""
    end = bytearray(data[at:])
    if zip64:
        where = int.from_bytes(end[-34:-26], "little")
        end[-34:-26] = (where + len(end) - 98).to_bytes(8, "little")
    return data[:at] + end[: -98 if zip64 else -22] + end


def another_end(data, at, zip64):
    """torch reads the end that zip64's locator names, or the short one if there is none at that place."""
    return data[:-34] + bytes(8) + data[-26:]


def something_after_it(data, at, zip64):
    return data[:-2] + b"\4\0" + b"more"


READERS = [(two_directories, True), (two_directories, False), (another_end, True), (something_after_it, True)]


@pytest.mark.parametrize("change, zip64", READERS)
def test_a_pth_whose_directory_depends_on_the_reader(tmp_path, port, out, change, zip64):
    path = save(tmp_path / "a.pth", port)
    data = stored(path, zip64)
    convert_file(path, TINY, out)
    shutil.rmtree(out)
    with zipfile.ZipFile(path) as archive:
        path.write_bytes(change(data, archive.start_dir, zip64))
    assert zipfile.ZipFile(path).namelist() == archive.namelist()
    assert "a.pth is not a state_dict that can be read safely" in refused(path, out)


class Large:
    def __reduce__(self):
        return bytearray, (1 << 28,)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pth_that_makes_a_large_object(tmp_path, port, out, zipped):
    path = save(tmp_path / "a.pth", {"state_dict": port, "more": Large()}, _use_new_zipfile_serialization=zipped)
    with little_memory():
        assert "it holds bytearray, which is not read" in refused(path, out)


def save(path, value, **options):
    torch.save(value, path, **options)
    return path


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("own", [True, False])
def test_a_pth_that_repeats_one_value_endlessly(tmp_path, port, state, out, zipped, dtype, own):
    """A classifier of this package's says how many classes there are, and so how large it is."""
    one = torch.zeros(1, dtype=dtype)
    weights = {"classifier.weight": one.expand(1 << 20, state["classifier.weight"].shape[1])}
    weights["classifier.bias"] = one.expand(1 << 20)
    weights = state | weights if own else port | {"last_linear.bias": one.expand(1 << 20, 1 << 20)}
    path = save(tmp_path / "a.pth", weights, _use_new_zipfile_serialization=zipped)
    assert path.stat().st_size < 2 << 20
    assert "a.pth holds fewer values of " in refused(path, out)


ODD_TENSORS = {
    "sparse": lambda: torch.zeros(1000).to_sparse(),
    "complex": lambda: torch.zeros(1000, dtype=torch.complex64),
    "integers": lambda: torch.zeros(1000, dtype=torch.int64),
    "quantized": lambda: torch.quantize_per_tensor(torch.zeros(1000), 0.1, 0, torch.qint8),
    "meta": lambda: torch.zeros(1000, device="meta"),
}


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
@pytest.mark.parametrize("kind", ODD_TENSORS)
def test_tensors_that_are_no_plain_numbers(port, kind):
    with pytest.raises(ConversionError, match=r"last_linear.bias torch\.\w+ in the layout"):
        from_timm(port | {"last_linear.bias": ODD_TENSORS[kind]()}, TINY)


def test_a_classifier_without_a_shape(port):
    with pytest.raises(ConversionError, match=r"last_linear.bias \(\), expected \(1000,\)"):
        from_timm(port | {"last_linear.bias": torch.tensor(1.0)}, TINY)


def test_weights_in_a_folder_are_not_read_before_their_shapes_are_checked(tmp_path):
    folder = tmp_path / "net"
    nasnet_zoo.save(build(TINY), folder)
    (folder / "config.json").write_text((folder / "config.json").read_text().replace("sha256", "was"))
    path = folder / "model.safetensors"
    weights = safetensors.torch.load_file(path)
    safetensors.torch.save_file(weights | {"classifier.bias": torch.zeros(1 << 24)}, path)
    with little_memory(), pytest.raises(CheckpointError, match="does not fit its config.*classifier.bias"):
        nasnet_zoo.load(folder)


def with_header(path, key, **changes):
    data = path.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    header[key] = header.get(key, {}) | changes
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[end:])


KINDS = [("C64", 1000, 8000), ("F8_E5M2", 1000, 1000), ("F4", 2000, 1000), ("I64", 1000, 8000), ("BOOL", 1000, 1000)]


@pytest.mark.parametrize("kind, length, size", KINDS, ids=[kind for kind, *_ in KINDS])
def test_weights_of_another_kind_of_numbers(tmp_path, state, out, kind, length, size):
    folder = tmp_path / "net"
    nasnet_zoo.save(build(TINY), folder)
    (folder / "config.json").write_text((folder / "config.json").read_text().replace("sha256", "was"))
    path = folder / "model.safetensors"
    path.write_bytes(safetensors.torch.save(state | {"classifier.bias": torch.zeros(size, dtype=torch.uint8)}))
    with_header(path, "classifier.bias", dtype=kind, shape=[length])
    with pytest.raises(CheckpointError, match="model.safetensors") as error:
        nasnet_zoo.load(folder)
    assert "\n" not in str(error.value)
    assert "model.safetensors" in refused(path, out)


def test_a_shape_that_no_tensor_has(tmp_path, state, out):
    path = tmp_path / "a.safetensors"
    path.write_bytes(safetensors.torch.save(state))
    with_header(path, "more", dtype="F32", shape=[0, 1 << 63], data_offsets=[0, 0])
    assert "a.safetensors is not a readable safetensors file" in refused(path, out)


# Any damage


def mutated(data, rng):
    data = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = min(int(len(data) * rng.random() ** rng.choice([1, 8])), len(data) - 1)  # often near the start
        match rng.randrange(3):
            case 0:
                data[at] = rng.randrange(256)
            case 1:
                data[at : at + 8] = rng.choice([b"\xff" * 8, bytes(8), rng.randbytes(8)])
            case 2:
                del data[at : at + rng.randint(1, 64)]
    return bytes(data)


@pytest.mark.parametrize("name", ["a.safetensors", "a.pth", "legacy.pth", "a.tar.gz", "weights.h5"])
def test_a_damaged_file_is_converted_or_refused_in_a_sentence(tmp_path, port, variables, out, name, request):
    rng, path = random.Random(name), tmp_path / name
    if name == "a.safetensors":
        data = safetensors.torch.save(port)
    elif name == "a.tar.gz":
        write_bundle(tmp_path / "model.ckpt", variables)
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=1) as tar:
            for file in tmp_path.glob("model.ckpt*"):
                tar.add(file, file.name)
        data = packed.getvalue()
    elif name == "weights.h5":
        data = request.getfixturevalue("h5")().read_bytes()
    else:
        data = save(path, port, _use_new_zipfile_serialization=name == "a.pth").read_bytes()
    for _ in range(25):
        path.write_bytes(mutated(data, rng))
        try:
            convert_file(path, TINY, out)
        except ZooError as error:
            assert "\n" not in str(error) and not out.exists()
        else:
            nasnet_zoo.load(out)
            shutil.rmtree(out)
