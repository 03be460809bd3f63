"""Reads TensorFlow V2 checkpoints ("tensor bundles") without TensorFlow.

A checkpoint is `PREFIX.index` beside `PREFIX.data-00000-of-00001` (and more shards). The index is a LevelDB table from
tensor name to a BundleEntryProto, which says where in the shards the tensor's bytes are; the empty name holds the
BundleHeaderProto. The formats: tensorflow/core/protobuf/tensor_bundle.proto, tensorflow/core/lib/io/format.h, and
format_description.txt of google/snappy, with which older TensorFlows compressed the index.

Nothing in a file is trusted: every size is checked against the actual bytes before memory is allocated.
"""

import math
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import google_crc32c
import numpy as np

from ..errors import CheckpointError
from .archive import unpack

_PART = re.compile(r"(?P<prefix>(?:.*/)?(?!\._)[^/]+)\.(?:index|data-\d{5,}-of-\d{5,})")  # "._" files are macOS's own
_MAGIC = 0xDB4775248B80FB57.to_bytes(8, "little")
_FOOTER = 48  # bytes: two block handles, padding, magic
_TRAILER = 5  # bytes after each block: compression type, masked CRC-32C
_MAX_INDEX = 4 << 20  # bytes, also when decompressed; NASNet-A large with all its optimizer slots needs less than 1 MB
_MAX_RANK = 32
_PIECE = 1 << 20  # bytes that are hashed at a time

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # protobuf wire types
_DTYPES = {1: "<f4", 2: "<f8", 3: "<i4", 9: "<i8", 19: "<f2"}  # tensorflow/core/framework/types.proto
_UNSUPPORTED = {4: "uint8", 5: "int16", 6: "int8", 7: "string", 10: "bool", 14: "bfloat16", 20: "resource"}


class _Entry(NamedTuple):
    name: str
    dtype: np.dtype
    shape: tuple[int, ...]
    shard: int
    offset: int  # in bytes from the shard's start
    size: int  # in bytes
    crc: int  # masked CRC-32C


@dataclass(frozen=True)
class Variable:
    """A tensor in a file of a checkpoint, in the file's layout (HWIO convolutions). `np.asarray` reads its values and
    checks their CRC-32C; it raises CheckpointError if they are damaged."""

    entry: _Entry
    file: Path
    at: str  # how errors call the file

    @property
    def shape(self) -> tuple[int, ...]:
        return self.entry.shape

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        entry = self.entry
        with _explained(self.at), _unreadable(self.file), open(self.file, "rb") as file:
            array = np.empty(entry.shape, entry.dtype)
            file.seek(entry.offset)
            if file.readinto(array.reshape(-1).view(np.uint8)) != entry.size:
                raise ValueError(f"tensor {entry.name!r} is cut off")
            if masked_crc32c(array) != entry.crc:
                raise ValueError(f"the checksum of tensor {entry.name!r} does not match")
        return np.asarray(array, dtype)


@contextmanager
def opened(path: str | os.PathLike[str], most: int | None = None) -> Iterator[dict[str, Variable]]:
    """The tensors of a checkpoint by name, sorted. They can be read as long as the block runs; none has been read when
    it begins.

    `path` is a prefix (`.../model.ckpt`), its `.index` file, a folder that holds one checkpoint, or a tar archive of
    one, compressed or not; an archive is unpacked to a temporary folder that is removed again. An archive of more than
    `most` bytes, unpacked, is refused before it has filled the disk.
    Raises CheckpointError if there is no checkpoint or more than one, a file is missing, damaged or cannot be read, or
    a tensor is sliced or of another dtype than float16/32/64 and int32/64.
    """
    path = Path(path)
    prefix = path.with_name(_prefix(path.name) or path.name) if path.name else path
    with ExitStack() as stack:
        with _unreadable(path):
            if Path(f"{prefix}.index").is_file():
                parts = _parts(prefix.parent)
                found = _variables(prefix.parent, {n: p for n, p in parts.items() if _prefix(n) == prefix.name})
            elif path.is_dir():
                found = _variables(path, _parts(path))
            elif path.is_file():
                parts = unpack(path, stack.enter_context(TemporaryDirectory()), _prefix, most)
                found = _variables(path, parts)
            else:
                raise CheckpointError(
                    f"There is no checkpoint at {path}; give a prefix like model.ckpt, a folder or an archive."
                )
        yield found


def read(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """All tensors of a checkpoint by name, sorted; see `opened`."""
    with opened(path) as variables:
        return {name: np.asarray(variable) for name, variable in variables.items()}


@contextmanager
def _unreadable(path: Path) -> Iterator[None]:
    """Raises CheckpointError for the system's own errors."""
    try:
        yield
    except OSError as error:
        raise CheckpointError(
            f"{error.filename or path} cannot be read ({error.strerror or error}); "
            "check who may read it and that the temporary folder has space."
        ) from error


@contextmanager
def _explained(at: str) -> Iterator[None]:
    """Raises CheckpointError, naming the file, for the ValueErrors of damaged bytes."""
    try:
        yield
    except ValueError as error:
        raise CheckpointError(f"{at} is damaged: {error}; download it again.") from error


def masked_crc32c(data: bytes | memoryview | np.ndarray) -> int:
    """The CRC-32C of the data's bytes in C order, masked as TensorFlow and LevelDB store it."""
    array = data if isinstance(data, np.ndarray) else np.frombuffer(data, np.uint8)
    array = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    crc = 0
    for start in range(0, array.size, _PIECE):  # google_crc32c takes bytes only, so copy pieces that fit in the cache
        crc = google_crc32c.extend(crc, array[start : start + _PIECE].tobytes())
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _prefix(name: str) -> str | None:
    """The prefix of the checkpoint that a file of this name belongs to."""
    part = _PART.fullmatch(name)
    return part["prefix"] if part else None


def _parts(folder: Path) -> dict[str, Path]:
    return {file.name: file for file in sorted(folder.iterdir()) if _prefix(file.name) and file.is_file()}


def _variables(where: Path, parts: dict[str, Path]) -> dict[str, Variable]:
    """The tensors of the one checkpoint among `parts` (name → file); errors call a file `where`/name."""
    indexes = [name for name in parts if name.endswith(".index")]
    if len(indexes) != 1:
        found = f"{len(indexes)} .index files ({', '.join(indexes[:4])})" if indexes else "no .index file"
        raise CheckpointError(f"{where} holds {found}; give the prefix of one checkpoint, like model.ckpt.")
    at = f"{where}/{indexes[0]}"  # a name in an archive may begin with "/"
    with _explained(at):
        num_shards, entries = _read_index(at, parts[indexes[0]])
    variables = {}
    for shard, group in groupby(entries, key=lambda entry: entry.shard):
        name = f"{_prefix(indexes[0])}.data-{shard:05d}-of-{num_shards:05d}"
        at = f"{where}/{name}"
        if name not in parts:
            raise CheckpointError(f"{at} is missing; it belongs beside the checkpoint's .index file.")
        members = list(group)
        with _explained(at):
            _check_places(members, parts[name].stat().st_size)
        variables.update({entry.name: Variable(entry, parts[name], at) for entry in members})
    return dict(sorted(variables.items()))


def _read_index(at: str, file: Path) -> tuple[int, list[_Entry]]:
    """The number of shards, and the entries in the order of their bytes. Raises ValueError if the index is damaged."""
    if file.stat().st_size > _MAX_INDEX:
        raise ValueError(f"it has more than {_MAX_INDEX >> 20} MiB")
    table = _table(file.read_bytes())
    key, value = next(table, (None, b""))
    if key != b"":
        raise ValueError("it has no header")
    header = _message(value)
    num_shards = _last(header, 1, _VARINT)
    if _last(header, 2, _VARINT) != 0:
        raise CheckpointError(f"{at} is of a big-endian machine; save the checkpoint again on a little-endian one.")
    entries = [_entry(at, key.decode(), _message(value)) for key, value in table]
    for entry in entries:
        if entry.shard >= num_shards:
            raise ValueError(f"tensor {entry.name!r} is in shard {entry.shard} of {num_shards}")
    return num_shards, sorted(entries, key=lambda entry: (entry.shard, entry.offset, entry.size))


def _entry(at: str, name: str, fields: dict) -> _Entry:
    number = _last(fields, 1, _VARINT)
    if number not in _DTYPES:
        raise CheckpointError(
            f"{at}: tensor {name!r} has dtype {_UNSUPPORTED.get(number, f'number {number}')}, which no NASNet has; "
            "save the checkpoint without it."
        )
    if (7, _BYTES) in fields:
        raise CheckpointError(f"{at}: tensor {name!r} is sliced; save the checkpoint with it in one piece.")
    dtype = np.dtype(_DTYPES[number])
    dims = _message(_last(fields, 2, _BYTES, b"")).get((2, _BYTES), [])
    shape = tuple(_last(_message(dim), 1, _VARINT) for dim in dims[: _MAX_RANK + 1])
    if len(shape) > _MAX_RANK or any(dim >> 63 for dim in shape):  # the top bit is the sign
        raise ValueError(f"tensor {name!r} has an impossible shape")
    shard, offset, size = (_last(fields, number, _VARINT) for number in (3, 4, 5))
    if size != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"tensor {name!r} of shape {shape} and dtype {dtype} has {size} bytes")
    return _Entry(name, dtype, shape, shard, offset, size, _last(fields, 6, _FIXED32))


def _check_places(entries: list[_Entry], length: int) -> None:
    """Raises ValueError unless a shard of `length` bytes holds each of `entries`, which are in the order of their
    bytes."""
    end = 0
    for entry in entries:
        if entry.offset < end:  # otherwise a small file could claim the same bytes for many large tensors
            raise ValueError(f"tensor {entry.name!r} overlaps another one")
        end = entry.offset + entry.size
        if end > length:
            raise ValueError(f"tensor {entry.name!r} should end at byte {end}, but the file has {length}")


def _table(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yields the keys and values of a LevelDB table. Like all below, raises ValueError on damaged bytes."""
    if len(data) < _FOOTER or not data.endswith(_MAGIC):
        raise ValueError("it does not end like a checkpoint index")
    _, _, *index, _ = _varints(data, len(data) - _FOOTER, 4)  # the metaindex comes first and is always empty
    end = total = 0
    for _, handle in _block_entries(_block(data, *index)):
        offset, size, _ = _varints(handle, 0, 2)
        if offset < end:  # otherwise a small file could repeat one block endlessly
            raise ValueError("its blocks overlap")
        end = offset + size + _TRAILER
        block = _block(data, offset, size)
        total += len(block)
        if total > _MAX_INDEX:
            raise ValueError(f"it decompresses to more than {_MAX_INDEX >> 20} MiB")
        yield from _block_entries(block)


def _block(data: bytes, offset: int, size: int) -> bytes:
    end = offset + size
    if end + _TRAILER > len(data):
        raise ValueError("a block ends beyond the file")
    if masked_crc32c(data[offset : end + 1]) != int.from_bytes(data[end + 1 : end + _TRAILER], "little"):
        raise ValueError("the checksum of a block does not match")
    if data[end] > 1:
        raise ValueError(f"a block has the unknown compression type {data[end]}")
    block = data[offset:end]
    return _unsnappy(block) if data[end] == 1 else block


def _block_entries(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    restarts = int.from_bytes(block[-4:], "little")  # the positions of unshortened keys, which only searching needs
    end = len(block) - 4 - 4 * restarts
    if end < 0:
        raise ValueError("a block is too short")
    at, key, expanded = 0, b"", 0
    while at < end:
        shared, unshared, size, at = _varints(block, at, 3)
        if shared > len(key) or at + unshared + size > end:
            raise ValueError("a block has an impossible entry")
        key = key[:shared] + block[at : at + unshared]
        at += unshared + size
        expanded += len(key)
        if expanded > 64 * len(block):  # TensorFlow repeats a whole key every 16 entries
            raise ValueError("a block has impossible keys")
        yield key, block[at - size : at]


def _unsnappy(data: bytes) -> bytes:
    """Decompresses a raw Snappy block; the result is at most 22 times as long."""
    length, at = _varints(data, 0, 1)
    out = bytearray()
    while at < len(data):
        tag = data[at]
        at += 1
        if tag & 3 == 0:  # a literal
            size = tag >> 2
            if size >= 60:
                width = size - 59
                size = int.from_bytes(data[at : at + width], "little")
                at += width
            size += 1
            out += data[at : at + size]
            at += size
        else:  # a copy of what was `offset` bytes ago, which may run into itself
            width = (1, 2, 4)[(tag & 3) - 1]
            offset = int.from_bytes(data[at : at + width], "little")
            at += width
            size = (tag >> 2) + 1
            if width == 1:
                size = (tag >> 2 & 7) + 4
                offset |= tag >> 5 << 8
            if not 0 < offset <= len(out):
                raise ValueError("a block's compression is broken")
            start = len(out) - offset
            run = out[start : start + size]
            out += (run * (size // len(run) + 1))[:size]
    if at != len(data) or len(out) != length:
        raise ValueError("a block's compression is broken")
    return bytes(out)


def _message(data: bytes) -> dict[tuple[int, int], list[Any]]:
    """The fields of a message by (number, wire type): unsigned ints, and bytes for nested messages."""
    fields: dict[tuple[int, int], list[Any]] = {}
    at = 0
    while at < len(data):
        tag, at = _varints(data, at, 1)
        wire = tag & 7
        if wire == _VARINT:
            value, at = _varints(data, at, 1)
        elif wire == _BYTES:
            size, at = _varints(data, at, 1)
            value, at = data[at : at + size], at + size
        elif wire in (_FIXED32, _FIXED64):
            size = 4 if wire == _FIXED32 else 8
            value, at = int.from_bytes(data[at : at + size], "little"), at + size
        else:
            raise ValueError(f"a field has the unknown wire type {wire}")
        if at > len(data):
            raise ValueError("a field is cut off")
        fields.setdefault((tag >> 3, wire), []).append(value)
    return fields


def _last(message: dict[tuple[int, int], list[Any]], number: int, wire: int, default: Any = 0) -> Any:
    return message.get((number, wire), [default])[-1]


def _varints(data: bytes, at: int, count: int) -> list[int]:
    """`count` unsigned integers of up to 64 bits from position `at`, then the position after them."""
    values = []
    for _ in range(count):
        value, shift = 0, 0
        while True:
            if at >= len(data) or shift > 63:
                raise ValueError("a number does not end")
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        values.append(value & 0xFFFFFFFFFFFFFFFF)
    return [*values, at]
