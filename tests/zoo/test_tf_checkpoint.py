import io
import os
import random
import shutil
import tarfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from bundle_writer import HEADER, block_bytes, entry, field, masked_crc, plain, table_bytes, varint, write_bundle
from golden_rule import golden_value

from nasnet_zoo.convert import tf_checkpoint
from nasnet_zoo.convert.tf_checkpoint import masked_crc32c, read
from nasnet_zoo.errors import CheckpointError

SHARED = Path(__file__).resolve().parents[3] / "shared"
EMA = "/ExponentialMovingAverage"
DATA = "model.ckpt.data-00000-of-00001"


def same(tensors, expected):
    return tensors.keys() == expected.keys() and all(
        tensors[name].dtype == array.dtype and np.array_equal(tensors[name], array) for name, array in expected.items()
    )


def small():
    return {"a/weights": np.arange(6, dtype=np.float32).reshape(2, 3), "global_step": np.array(7, np.int64)}


def many(count=300):
    rng = np.random.default_rng(0)
    names = [
        f"cell_{i // 9}/comb_iter_{i % 9}/left/separable_{k}x{k}_1/weights"
        for i in range(count // 3)
        for k in (3, 5, 7)
    ]
    return {name: rng.standard_normal((3, i % 5, 2)).astype(np.float32) for i, name in enumerate(names)}


@pytest.fixture
def prefix(tmp_path):
    """The prefix of a small valid checkpoint."""
    write_bundle(tmp_path / "model.ckpt", small())
    return tmp_path / "model.ckpt"


def index_of(prefix):
    return prefix.with_name(prefix.name + ".index")


def pack(path, members, mode="w:gz"):
    with tarfile.open(path, mode) as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def files_of(prefix):
    return {file.name: file.read_bytes() for file in sorted(prefix.parent.glob(f"{prefix.name}.*"))}


@pytest.mark.parametrize(("archive", "suffix"), [("plain", ""), ("ema", EMA)])
def test_reads_what_tensorflow_wrote(archive, suffix):
    path = SHARED / "golden" / "tf-checkpoints" / f"nasnet-a-cifar-6x8-{archive}.tar.gz"
    if not path.is_file():
        pytest.skip(f"{path.name} is not here")
    tensors = read(path)
    step = tensors.pop("global_step")
    assert step.shape == () and step.dtype == np.int64
    assert len(tensors) == 584 and all(name.endswith(suffix) for name in tensors)
    for name, array in tensors.items():
        np.testing.assert_array_equal(array, golden_value(name.removesuffix(suffix), array.shape), err_msg=name)


@pytest.mark.parametrize(("data", "crc"), [(b"123456789", 0xE3069283), (bytes(32), 0x8A9136AA), (b"", 0)])
def test_masked_crc32c(data, crc):
    masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32
    assert (
        masked_crc32c(data) == masked_crc32c(memoryview(data)) == masked_crc32c(np.frombuffer(data, np.uint8)) == masked
    )


def test_masked_crc32c_of_arrays():
    array = np.random.default_rng(0).standard_normal((700, 1, 900)).astype(np.float32)  # more than one piece
    assert masked_crc32c(array) == masked_crc(array.tobytes())
    assert masked_crc32c(array.T) == masked_crc(array.T.tobytes())
    assert masked_crc32c(np.float32(1.5)[()]) == masked_crc32c(np.array(1.5, np.float32).tobytes())


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("block_size", [1, 200, 4096, 1 << 20])
def test_shards_and_blocks(tmp_path, shards, block_size):
    write_bundle(tmp_path / "model.ckpt", many(), shards=shards, block_size=block_size)
    tensors = read(tmp_path / "model.ckpt")
    assert same(tensors, many()) and list(tensors) == sorted(tensors)


def test_dtypes_and_shapes(tmp_path):
    dtypes = (np.float16, np.float32, np.float64, np.int32, np.int64)
    shapes = ((), (0,), (1,), (2, 0, 3), (3, 2), (1, 2, 3, 4))
    expected = {f"{np.dtype(d)}{s}": np.full(s, 3, d) for d in dtypes for s in shapes}
    write_bundle(tmp_path / "all", expected)
    tensors = read(tmp_path / "all")
    assert same(tensors, expected)
    assert all(array.flags.writeable and array.flags.owndata for array in tensors.values())


def test_memory_is_one_copy(tmp_path):
    size = 1 << 20
    write_bundle(tmp_path / "model.ckpt", {f"w{i}": np.ones(size // 4, np.float32) for i in range(24)})
    tracemalloc.start()
    try:
        read(tmp_path / "model.ckpt")
        assert tracemalloc.get_traced_memory()[1] < 27 * size
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", ["model.ckpt", "model.ckpt.index", DATA, "model.ckpt.meta", ""])
def test_paths(prefix, name):
    (prefix.parent / "model.ckpt.meta").write_bytes(b"the graph")
    (prefix.parent / "._model.ckpt.index").write_bytes(b"what macOS leaves")
    if name == "model.ckpt.meta":
        with pytest.raises(CheckpointError, match="model.ckpt.meta"):
            read(prefix.parent / name)
    else:
        assert same(read(prefix.parent / name), small())
        assert same(read(str(prefix.parent / name)), small())


def test_one_of_several_in_a_folder(prefix):
    write_bundle(f"{prefix}-1", {"b": np.zeros(3, np.float32)})
    assert same(read(prefix), small()) and list(read(f"{prefix}-1")) == ["b"]
    with pytest.raises(CheckpointError, match=r"model\.ckpt-1\.index, model\.ckpt\.index"):
        read(prefix.parent)


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
@pytest.mark.parametrize("order", [1, -1])
def test_archives(prefix, mode, order):
    members = {f"./deep/{name}": data for name, data in list(files_of(prefix).items())[::order]}
    path = pack(prefix.parent / "a.tar", {"./deep/checkpoint": b"", **members}, mode)
    assert same(read(path), small())


@pytest.mark.parametrize("folder", ["../../evil/", "/evil/", "a/../../", "C:\\evil\\"])
def test_archive_names_go_nowhere(prefix, tmp_path, monkeypatch, folder):
    inside = tmp_path / "temporary"
    inside.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(inside))
    path = pack(prefix.parent / "a.tgz", {folder + name: data for name, data in files_of(prefix).items()})
    written = []
    copy = shutil.copyfileobj
    monkeypatch.setattr(shutil, "copyfileobj", lambda s, t, n: (written.append(t.name), copy(s, t, n)))
    assert same(read(path), small())
    assert len(written) == 2 and all(Path(file).resolve().is_relative_to(inside) for file in written)
    assert list(inside.iterdir()) == [] and not os.path.exists("/evil")


def test_archive_links_are_not_followed(prefix):
    path = prefix.parent / "a.tar"
    with tarfile.open(path, "w") as tar:
        for name in files_of(prefix):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, str(prefix.parent / name)
            tar.addfile(member)
    with pytest.raises(CheckpointError, match="no .index file"):
        read(path)


SNAPPY = (  # by a production encoder
    "f202a863656c6c5f302f636f6d625f697465725f302f6c6566742f626e5f7365705f3578355f312f626574613b63fe2a00962a000c"
    "72696768157f303378335f312f67616d6d613b78fe0100fe0100fe01000d01"
)


def literals(block):
    """Snappy without copies, with each length of literal header."""
    out, at = varint(len(block)), 0
    for size, tag in (
        (60, bytes([59 << 2])),
        (61, bytes([60 << 2, 60])),
        (300, bytes([61 << 2]) + (299).to_bytes(2, "little")),
    ):
        if at + size <= len(block):
            out, at = out + tag + block[at : at + size], at + size
    rest = block[at:]
    return 1, out + (bytes([63 << 2]) + (len(rest) - 1).to_bytes(4, "little") + rest if rest else b"")


def test_snappy():
    text = (
        b"cell_0/comb_iter_0/left/bn_sep_5x5_1/beta;" * 3 + b"cell_0/comb_iter_0/right/bn_sep_3x3_1/gamma;" + b"x" * 200
    )
    assert tf_checkpoint._unsnappy(bytes.fromhex(SNAPPY)) == text
    for copy in (b"\x09\x03", b"\x16\x03\x00", b"\x17\x03\x00\x00\x00"):  # 6 bytes from 3 bytes ago
        assert tf_checkpoint._unsnappy(b"\x09\x08abc" + copy) == b"abcabcabc"


def test_compressed_index(tmp_path):
    write_bundle(tmp_path / "model.ckpt", many(), encode=literals)
    assert same(read(tmp_path / "model.ckpt"), many())


@pytest.mark.parametrize(
    "stored", [(1, b""), (1, b"\x05\x10ab"), (1, b"\x05\x01\x00"), (1, b"\x80" * 20), (2, b"zstd")]
)
def test_broken_compression(prefix, stored):
    write_bundle(prefix, small(), encode=lambda block: stored)
    with pytest.raises(CheckpointError, match=r"model\.ckpt\.index is damaged"):
        read(prefix)


def test_decompression_is_bounded(prefix):
    bomb = varint(2**40) + b"\x00a" + b"\xfe\x01\x00" * 100_000  # 6.4 MB of "a"
    write_bundle(prefix, small(), encode=lambda block: (1, bomb))
    with pytest.raises(CheckpointError, match="compression is broken"):
        read(prefix)
    bomb = varint(1 + 64 * 100_000) + bomb[6:]
    write_bundle(prefix, small(), encode=lambda block: (1, bomb))
    with pytest.raises(CheckpointError, match="more than 4 MiB"):
        read(prefix)


@pytest.mark.parametrize("flip", [1, 16, 128, 255])
def test_every_flipped_byte_of_an_index(prefix, flip):
    data = bytearray(index_of(prefix).read_bytes())
    refused = 0
    for i in range(len(data)):
        data[i] ^= flip
        index_of(prefix).write_bytes(data)
        try:
            assert same(read(prefix), small())
        except CheckpointError as error:
            refused += "model.ckpt.index" in str(error)
        data[i] ^= flip
    assert refused > len(data) - 48 - 17  # all but the unused metaindex and the footer's padding


def test_every_truncation_of_an_index(prefix):
    data = index_of(prefix).read_bytes()
    for size in range(len(data)):
        index_of(prefix).write_bytes(data[:size])
        with pytest.raises(CheckpointError, match=r"model\.ckpt\.index is damaged"):
            read(prefix)


def test_flipped_data(prefix):
    path = prefix.parent / DATA
    data = bytearray(path.read_bytes())
    for i in range(len(data)):
        data[i] ^= 1
        path.write_bytes(data)
        with pytest.raises(CheckpointError, match=rf"{DATA}.*'{'a/weights' if i < 24 else 'global_step'}'.*download"):
            read(prefix)
        data[i] ^= 1


def test_truncated_data(prefix):
    (prefix.parent / DATA).write_bytes(files_of(prefix)[DATA][:30])
    with pytest.raises(CheckpointError, match=rf"{DATA}.*'global_step'.*byte 32.*has 30"):
        read(prefix)


def test_missing_files(prefix, tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint at .*nowhere"):
        read(tmp_path / "nowhere")
    (prefix.parent / DATA).unlink()
    with pytest.raises(CheckpointError, match=rf"{DATA} is missing"):
        read(prefix)
    index_of(prefix).unlink()
    with pytest.raises(CheckpointError, match="no .index file"):
        read(tmp_path)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may read everything")
def test_unreadable_file(prefix):
    index_of(prefix).chmod(0)
    with pytest.raises(CheckpointError, match="cannot be read"):
        read(prefix)


def test_full_disk(prefix, monkeypatch):
    path = pack(prefix.parent / "a.tgz", files_of(prefix))

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(CheckpointError, match=r"a\.tgz cannot be read \(No space left.*temporary folder"):
        read(path)


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_damaged_archives(prefix, mode):
    path = pack(prefix.parent / "a.tar", files_of(prefix), mode)
    data = path.read_bytes()
    for size in (0, 1, 100, 600) if mode == "w" else (0, 1, 100, len(data) // 2):
        path.write_bytes(data[:size])
        with pytest.raises(CheckpointError, match=r"a\.tar"):
            read(path)


def test_archive_with_a_negative_size(prefix):
    member = tarfile.TarInfo("x")
    member.size = -512
    (prefix.parent / "a.tar").write_bytes(member.tobuf(tarfile.GNU_FORMAT) * 3 + bytes(1024))
    with pytest.raises(CheckpointError, match=r"a\.tar"):
        read(prefix.parent / "a.tar")


# Entries with valid checksums that lie.
CRC = masked_crc(small()["a/weights"].tobytes()[:8])
GOOD = {"dtype": 1, "shape": (2,), "shard": 0, "offset": 0, "size": 8, "crc": CRC}
HOSTILE = {
    "huge": (GOOD | {"shape": (10**12,), "size": 4 * 10**12}, "should end at byte"),
    "huge for its size": (GOOD | {"shape": (10**12,)}, r"shape \(1000000000000,\).* has 8 bytes"),
    "product": (GOOD | {"shape": (2**32, 2**32)}, "has 8 bytes"),
    "zero times huge": (GOOD | {"shape": (0, 2**62, 2**62), "size": 0}, "x"),
    "negative dimension": (GOOD | {"shape": (-1,)}, "impossible shape"),
    "two negative dimensions": (GOOD | {"shape": (-1, -2)}, "impossible shape"),
    "rank": (GOOD | {"shape": (1,) * 40, "size": 4}, "impossible shape"),
    "offset": (GOOD | {"offset": 2**63}, "should end at byte"),
    "negative offset": (GOOD | {"offset": -8}, "should end at byte"),
    "negative size": (GOOD | {"size": -8}, "bytes"),
    "shard": (GOOD | {"shard": 1}, "shard 1 of 1"),
    "string": (GOOD | {"dtype": 7}, "'x' has dtype string"),
    "unknown dtype": (GOOD | {"dtype": 99}, "'x' has dtype number 99"),
    "no dtype": (GOOD | {"dtype": 0}, "'x' has dtype number 0"),
}


def write_index(prefix, *entries, header=HEADER % b"\x01"):
    index_of(prefix).write_bytes(table_bytes([(b"", header), *entries]))


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_entries(prefix, case):
    fields, message = HOSTILE[case]
    write_index(prefix, (b"x", entry(**fields)))
    with pytest.raises(CheckpointError, match=message):
        read(prefix)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (entry(**GOOD) + field(7, b""), "'x' is sliced"),
        (b"\x08" + b"\xff" * 1000, "does not end"),
        (b"\x08", "does not end"),
        (b"\x12" + varint(2**62), "cut off"),
        (b"\x0b", "wire type 3"),
        (b"\x35\x00", "cut off"),
    ],
)
def test_hostile_messages(prefix, value, message):
    write_index(prefix, (b"x", value))
    with pytest.raises(CheckpointError, match=message):
        read(prefix)


def test_unknown_fields_are_skipped(prefix):
    value = entry(1, (2, 3), 0, 0, 24, masked_crc(small()["a/weights"].tobytes()))
    write_index(prefix, (b"x", field(99, b"new") + b"\x71" + bytes(8) + field(15, 3) + value))
    assert np.array_equal(read(prefix)["x"], small()["a/weights"])


def test_overlapping_tensors(prefix):
    write_index(prefix, *((b"%03d" % i, entry(**GOOD)) for i in range(100)))
    with pytest.raises(CheckpointError, match="overlaps"):
        read(prefix)


def test_names_and_headers(prefix):
    write_index(prefix, (b"\xff\xfe", entry(**GOOD)))
    with pytest.raises(CheckpointError, match="damaged"):
        read(prefix)
    write_index(prefix, header=b"\x08\x01\x10\x01")
    with pytest.raises(CheckpointError, match="big-endian"):
        read(prefix)
    index_of(prefix).write_bytes(table_bytes([(b"x", entry(**GOOD))]))
    with pytest.raises(CheckpointError, match="no header"):
        read(prefix)
    index_of(prefix).write_bytes(bytes(5 << 20))
    with pytest.raises(CheckpointError, match="more than 4 MiB"):
        read(prefix)


def test_hostile_blocks(prefix):
    """A block named twice, and keys that each repeat a long one."""
    good = plain(block_bytes([(b"", HEADER % b"\x01"), (b"x", entry(**GOOD))], 16))[1]
    stored = good + b"\0" + masked_crc(good + b"\0").to_bytes(4, "little")
    handle = b"\0" + varint(len(good))
    index = block_bytes([(b"a", handle), (b"b", handle)], 1)
    data = stored + index + b"\0" + masked_crc(index + b"\0").to_bytes(4, "little")
    footer = b"\0\0" + varint(len(stored)) + varint(len(index))
    index_of(prefix).write_bytes(data + footer.ljust(40, b"\0") + 0xDB4775248B80FB57.to_bytes(8, "little"))
    with pytest.raises(CheckpointError, match="blocks overlap"):
        read(prefix)

    long = b"k" * 100_000
    value = entry(1, (0,), 0, 0, 0, 0)
    block = block_bytes([(b"", HEADER % b"\x01"), *((long + b"%06d" % i, value) for i in range(5))], 16)
    repeated = varint(len(long)) + varint(0) + varint(len(value)) + value
    block = block[:-8] + repeated * 10_000 + block[-8:]
    write_bundle(prefix, small(), encode=lambda _: (0, block))
    with pytest.raises(CheckpointError, match="impossible keys"):
        read(prefix)


def mutate(data, rng):
    data = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at, size = rng.randrange(len(data) + 1), rng.randint(1, 12)
        match rng.randrange(4):
            case 0:
                data[at : at + 1] = bytes([rng.randrange(256)])
            case 1:
                del data[at : at + size]
            case 2:
                data[at:at] = rng.choice(
                    [b"\xff" * size, b"\0" * size, rng.randbytes(size), varint(2 ** rng.randrange(64))]
                )
            case 3:
                other = rng.randrange(len(data) + 1)
                data[at : at + size] = data[other : other + size]
    return bytes(data)


def survives(path):
    try:
        read(path)
    except CheckpointError as error:
        assert str(error).endswith(".") and "\n" not in str(error)


@pytest.mark.parametrize("target", ["files", "block", "snappy", "entry", "tar", "tgz"])
def test_only_checkpoint_errors(prefix, target):
    rng = random.Random(target)
    originals = files_of(prefix)
    for _ in range(300 if target == "files" else 150):
        if target == "files":
            for name, data in originals.items():
                (prefix.parent / name).write_bytes(mutate(data, rng))
        elif target == "block":
            write_bundle(prefix, small(), encode=lambda block: (0, mutate(block, rng)))
        elif target == "snappy":
            write_bundle(prefix, small(), encode=lambda block: (1, mutate(literals(block)[1], rng)))
        elif target == "entry":
            write_index(prefix, *((name.encode(), mutate(entry(**GOOD), rng)) for name in small()))
        else:
            path = pack(prefix.parent / "a", originals, "w" if target == "tar" else "w:gz")
            path.write_bytes(mutate(path.read_bytes(), rng))
        survives(path if target in ("tar", "tgz") else prefix)
