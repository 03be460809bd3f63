"""Reads Keras's `.h5` weight files. Nothing in a file is trusted.

HDF5 can store a tensor's values elsewhere: in other files on this machine, or as the output of a plugin. Only values
that lie in the file itself are read, so that no stranger's file can bring one of the user's into a checkpoint. A small
file can also claim any size, so values are read only when they are asked for, after their shape has been checked.
"""

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ConversionError, first_line
from ..util.files import holds

_DEFLATE, _SHUFFLE, _FLETCHER32 = 1, 2, 3  # numbers of HDF5's filters; others may be plugins
# The head of a group's heap of links, if the heap is packed by filters: signature, version 0, any two bytes, and the
# length of the filters' description, which is 0 if there are none. By chance, one place in 2**40 of packed weights has
# the first five bytes, and next to none of plain ones: within a float32 they make it larger than 8,000.
_PACKED_LINKS = rb"FRHP\0..(?!\0\0)"
_CHUNK_BYTES = 1 << 20  # a chunk may be larger than a small tensor, but not by more than this


@contextmanager
def keras_tensors(path: str | Path) -> Iterator[dict[str, Any]]:
    """The tensors of a Keras `.h5` weight file by `layer/leaf`, as long as the block runs. They have a `shape`, and
    `np.asarray` reads their values. Needs h5py. Raises ConversionError."""
    try:
        import h5py
    except ImportError:
        raise ConversionError("reading .h5 files needs h5py: pip install 'nasnet-zoo[convert]'") from None
    try:
        if holds(path, _PACKED_LINKS):  # HDF5 would unpack it, to any size, in order to list the group
            raise ConversionError(
                f"{path} has a group whose list of names is packed by HDF5's filters, which no Keras file has"
            )
        file = h5py.File(path, "r")
    except (OSError, RuntimeError, ValueError) as error:
        raise _damaged(path, error) from error
    with file:
        try:
            if file.userblock_size:
                raise ConversionError(f"{path} has a block of other data before its HDF5 data, which no Keras file has")
            tensors = dict(_tensors(file, str(path)))
        except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
            raise _damaged(path, error) from error
        yield tensors


def _damaged(path: str | Path, error: Exception) -> ConversionError:
    return ConversionError(f"{path} is not a readable HDF5 file: {first_line(error)}")


def _tensors(file: Any, path: str) -> Iterator[tuple[str, "_Tensor"]]:
    """The datasets of a file by the last two parts of their names: `.../layer/leaf:0`, in groups that differ between
    Keras versions."""
    import h5py

    seen, names, groups = {_address(file)}, set(), [("", file)]
    while groups:
        prefix, group = groups.pop()
        for part in group:
            name = f"{prefix}{part}"
            if not isinstance(group.get(part, getlink=True), h5py.HardLink):
                raise ConversionError(f"{path}: {name} is a link to another place or file, which no Keras file has")
            item = group[part]
            if (address := _address(item)) in seen:  # otherwise groups within themselves would never end
                raise ConversionError(f"{path}: {name} is a second name of another object, which no Keras file has")
            seen.add(address)
            if isinstance(item, h5py.Group):
                groups.append((f"{name}/", item))
                continue
            if prefix.split("/")[-2:-1] == ["vars"]:
                raise ConversionError(
                    f"{path} is in Keras 3's .weights.h5 layout, which numbers tensors instead of naming them: give "
                    f"the published .h5, or one that tf_keras saved"
                )
            short = "/".join(name.removesuffix(":0").split("/")[-2:])
            if short in names:
                raise ConversionError(f"{path} has two tensors {short}; one of them would be lost")
            names.add(short)
            yield short, _Tensor(item, f"{path}: {name}")


def _address(item: Any) -> tuple[int, int]:
    import h5py

    info = h5py.h5o.get_info(item.id)
    return info.fileno, info.addr


class _Tensor:
    """A dataset whose values lie in its file, uncompressed or compressed by HDF5's own filters. `np.asarray` reads
    it."""

    def __init__(self, dataset: Any, where: str) -> None:
        import h5py

        if not isinstance(dataset, h5py.Dataset):
            raise ConversionError(f"{where} is no dataset, and so no weight of a NASNet")
        layout = dataset.id.get_create_plist()  # before the shape, for which HDF5 would open a virtual one's sources
        if layout.get_layout() == h5py.h5d.VIRTUAL or layout.get_external_count():
            raise ConversionError(f"{where} has its values in other files: give a file that holds them itself")
        self.filters = [layout.get_filter(index)[0] for index in range(layout.get_nfilters())]
        if len({*self.filters}) < len(self.filters) or not {*self.filters} <= {_DEFLATE, _SHUFFLE, _FLETCHER32}:
            raise ConversionError(
                f"{where} is packed by HDF5's filters {self.filters}; pack it with gzip alone, or not at all"
            )
        if dataset.dtype.kind != "f" or dataset.dtype.itemsize > 8 or dataset.shape is None:
            raise ConversionError(f"{where} ({dataset.dtype}) is no weight of a NASNet")
        self.dataset, self.where, self.shape = dataset, where, tuple(dataset.shape)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        try:
            if _DEFLATE in self.filters:
                self._check_chunks()
            return np.asarray(self.dataset[()], dtype)
        except (OSError, RuntimeError, ValueError, zlib.error) as error:
            raise ConversionError(f"{self.where} cannot be read: {first_line(error)}") from error

    def _check_chunks(self) -> None:
        """HDF5 unpacks a chunk to whatever size it has, so here each is unpacked first, up to the size that it must
        have. Raises ValueError for one that is larger."""
        data = self.dataset
        room = prod(data.chunks) * data.dtype.itemsize
        if room > max(data.nbytes, _CHUNK_BYTES):
            raise ValueError("its chunks are larger than the tensor")
        position = 1 << self.filters.index(_DEFLATE)
        chunks: list[Any] = []
        data.id.chunk_iter(chunks.append)
        for chunk in chunks:
            if chunk.size > room + room // 100 + 64:
                raise ValueError("a chunk is larger when it is packed")
            skipped, packed = data.id.read_direct_chunk(chunk.chunk_offset)
            if not skipped & position and len(zlib.decompressobj().decompress(packed, room + 8)) > room + 4:
                raise ValueError("a chunk is larger than it should be")  # 4: a checksum may be inside
