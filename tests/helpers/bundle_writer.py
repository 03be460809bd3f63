"""Writes TensorFlow V2 checkpoints for the tests; shares no code with the reader, and can write broken ones too."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path

import google_crc32c
import numpy as np

DTYPES = {"f4": 1, "f8": 2, "i4": 3, "u1": 4, "i8": 9, "f2": 19}
HEADER = b"\x08%s\x1a\x02\x08\x01"  # num_shards = %s, version { producer = 1 }
Encode = Callable[[bytes], tuple[int, bytes]]  # a block → its compression type and what is stored


def plain(block: bytes) -> tuple[int, bytes]:
    return 0, block


def write_bundle(
    prefix: str | Path,
    tensors: Mapping[str, np.ndarray],
    *,
    shards: int = 1,
    block_size: int = 4096,
    encode: Encode = plain,
) -> None:
    """Writes PREFIX.index and PREFIX.data-*; tensor i goes to shard i % shards.

    One tensor is held at a time, so a Mapping that makes its arrays on demand can be larger than memory.
    """
    entries = {}
    offsets = [0] * shards
    with ExitStack() as stack:
        files = [stack.enter_context(open(f"{prefix}.data-{i:05d}-of-{shards:05d}", "wb")) for i in range(shards)]
        for i, (name, array) in enumerate(tensors.items()):
            array = np.asarray(array, order="C")
            data = array.reshape(-1).view(np.uint8).data
            files[i % shards].write(data)
            entries[name.encode()] = entry(
                DTYPES[array.dtype.str[1:]], array.shape, i % shards, offsets[i % shards], len(data), masked_crc(data)
            )
            offsets[i % shards] += len(data)
    table = [(b"", HEADER % varint(shards)), *sorted(entries.items())]
    Path(f"{prefix}.index").write_bytes(table_bytes(table, block_size, encode))


def entry(dtype: int, shape: Iterable[int], shard: int, offset: int, size: int, crc: int) -> bytes:
    """A BundleEntryProto; like all protocol buffers it leaves zeros out."""
    dims = b"".join(field(2, field(1, dim)) for dim in shape)
    numbers = [(1, dtype), (3, shard), (4, offset), (5, size)]
    fields = {number: field(number, value) for number, value in numbers if value}
    fields[2] = field(2, dims)
    return b"".join(fields[number] for number in sorted(fields)) + b"\x35" + crc.to_bytes(4, "little")


def table_bytes(entries: Iterable[tuple[bytes, bytes]], block_size: int = 4096, encode: Encode = plain) -> bytes:
    """A LevelDB table of sorted (key, value) pairs."""
    out = bytearray()
    handles = []
    block: list[tuple[bytes, bytes]] = []

    def store(stored: tuple[int, bytes]) -> bytes:
        kind, data = stored
        handle = varint(len(out)) + varint(len(data))
        data += bytes([kind])
        out.extend(data + masked_crc(data).to_bytes(4, "little"))
        return handle

    def flush() -> None:
        if block:
            handles.append((block[-1][0], store(encode(block_bytes(block, 16)))))
            block.clear()

    for key, value in entries:
        block.append((key, value))
        if sum(len(k) + len(v) for k, v in block) >= block_size:
            flush()
    flush()
    footer = store(plain(block_bytes([], 1))) + store(plain(block_bytes(handles, 1)))
    return bytes(out) + footer.ljust(40, b"\0") + 0xDB4775248B80FB57.to_bytes(8, "little")


def block_bytes(entries: Iterable[tuple[bytes, bytes]], interval: int) -> bytes:
    """A block whose keys are written in full every `interval` entries."""
    out, restarts, last = b"", [], b""
    for i, (key, value) in enumerate(entries):
        shared = 0
        if i % interval == 0:
            restarts.append(len(out))
        else:
            while shared < min(len(key), len(last)) and key[shared] == last[shared]:
                shared += 1
        out += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        last = key
    restarts = restarts or [0]
    return out + b"".join(n.to_bytes(4, "little") for n in [*restarts, len(restarts)])


def field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, bytes):
        return varint(number << 3 | 2) + varint(len(value)) + value
    return varint(number << 3) + varint(value & 0xFFFFFFFFFFFFFFFF)


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def masked_crc(data: bytes | memoryview) -> int:
    crc = 0
    for start in range(0, len(data), 1 << 18):
        crc = google_crc32c.extend(crc, bytes(data[start : start + (1 << 18)]))
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
