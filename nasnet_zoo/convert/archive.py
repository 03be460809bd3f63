"""Unpacks tar archives, compressed or not. Nothing in an archive is trusted: a small one can unpack to any size."""

import bz2
import gzip
import lzma
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import CheckpointError

_PIECE = 1 << 20  # bytes that are copied at a time
_MEMBERS = 10_000


def unpack(archive: Path, folder: str, wanted: Callable[[str], Any], most: int | None) -> dict[str, Path]:
    """Copies an archive's files of wanted names to `folder`: from each name to its file. The files are numbered,
    because a member's own name could point anywhere. Raises CheckpointError for an archive that is damaged or unpacks
    to more than `most` bytes, and OSError if the disk fails."""
    parts = {}
    try:
        with _decompressed(archive) as file, tarfile.open(fileobj=_Limited(file, archive, most), mode="r:") as tar:
            for number, member in enumerate(tar):
                if member.size < 0 or number > _MEMBERS:
                    raise ValueError("negative size, which older versions of tarfile loop on endlessly, or many files")
                if member.isreg() and not member.issparse() and wanted(member.name):
                    parts[member.name] = Path(folder, str(number))
                    with open(parts[member.name], "wb") as part:
                        shutil.copyfileobj(tar.extractfile(member), part, _PIECE)
    except CheckpointError:
        raise
    except Exception as error:  # tarfile and the decompressors raise ten different types on damaged files
        if isinstance(error, OSError) and error.errno is not None:  # an error of the disk, not of the archive
            raise
        raise CheckpointError(f"{archive} is not a checkpoint, or a damaged archive; download it again.") from error
    return parts


class _Limited:
    """The bytes of an unpacked archive. Raises CheckpointError beyond `most` of them, and ValueError if tarfile would
    read more than a piece at a time: no honest archive has such headers."""

    def __init__(self, file: Any, archive: Path, most: int | None) -> None:
        self.file, self.archive, self.most = file, archive, most

    def tell(self) -> int:
        return self.file.tell()

    def seek(self, position: int) -> int:
        self._check(position)
        return self.file.seek(position)

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _PIECE:
            raise ValueError("a header is too large")
        self._check(self.file.tell() + size)
        return self.file.read(size)

    def _check(self, position: int) -> None:
        if self.most is not None and position > self.most:
            raise CheckpointError(
                f"{self.archive} unpacks to more than {self.most >> 20} MiB, which no checkpoint of this network does; "
                f"download it again, or give the config that it belongs to."
            )


def _decompressed(archive: Path) -> Any:
    """A file of the archive's bytes, whichever way they are compressed."""
    with open(archive, "rb") as file:
        start = file.read(6)
    for magic, opener in ((b"\x1f\x8b", gzip.open), (b"BZh", bz2.open), (b"\xfd7zXZ\0", lzma.open)):
        if start.startswith(magic):
            return opener(archive)
    return open(archive, "rb")
