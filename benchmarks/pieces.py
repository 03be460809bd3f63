"""Bytes in several files of which none is too large, for machines that give back only so much of a file.

    write_pieces(data, folder, "state")      state.5f1c09aa.000, state.5f1c09aa.001, ... and the index, state.json
    read_pieces(folder, "state")             the same bytes, checked

The pieces' names have a digest of the whole in them, and the index is replaced last: whoever is interrupted leaves the
pieces of before with their index, or the new ones with theirs. By hand: cat state.5f1c09aa.* > state
"""

import hashlib
import json
import re
from pathlib import Path

from nasnet_zoo.arch.checks import read_json
from nasnet_zoo.errors import CheckpointError
from nasnet_zoo.util.files import atomic_file

LIMIT = 15 << 20  # bytes of a piece


def write_pieces(data: bytes, folder: Path, name: str, limit: int = LIMIT) -> list[Path]:
    """Puts pieces of at most `limit` bytes in the place of those that were there; gives their paths.

    Raises ZooError if they cannot be written; those of before are then as they were.
    """
    whole, old = hashlib.sha256(data).hexdigest(), _pieces(folder, name)
    pieces = {
        folder / f"{name}.{whole[:8]}.{number:03}": data[start : start + limit]
        for number, start in enumerate(range(0, len(data), limit))
    }
    index = {"bytes": len(data), "sha256": whole, "pieces": [_entry(path, piece) for path, piece in pieces.items()]}
    try:
        for path, piece in pieces.items():
            with atomic_file(path) as temporary:
                temporary.write_bytes(piece)
        with atomic_file(_index(folder, name)) as temporary:
            temporary.write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")
    except BaseException:
        for path in pieces.keys() - old:
            path.unlink(missing_ok=True)
        raise
    for path in old - pieces.keys():
        path.unlink()
    return [*pieces]


def read_pieces(folder: Path, name: str) -> bytes:
    """The bytes that were written; raises CheckpointError if a piece is missing, damaged, or of other bytes."""
    path = _index(folder, name)
    if not path.is_file():
        raise CheckpointError(f"there is no {path.name} in {folder}: name the folder that its pieces were put into")
    index = read_json(path, "index", CheckpointError)
    try:
        entries = [(each["name"], each["bytes"], each["sha256"]) for each in index["pieces"]]
        known = all(re.fullmatch(_pattern(name), piece) for piece, _, _ in entries)
    except (KeyError, TypeError):
        known = False
    if not known:
        raise CheckpointError(f"{path} is no index of pieces: fetch it again")
    data = b"".join(_checked(folder / piece, size, digest) for piece, size, digest in entries)
    if hashlib.sha256(data).hexdigest() != index.get("sha256"):
        raise CheckpointError(f"the pieces that {path} names are not a whole: fetch all of them again")
    return data


def _checked(path: Path, size: int, digest: str) -> bytes:
    try:
        piece = path.read_bytes()
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be read ({error.strerror}): put all pieces of one index beside it"
        ) from error
    if len(piece) != size or hashlib.sha256(piece).hexdigest() != digest:
        raise CheckpointError(
            f"{path} is damaged or of another whole (its {len(piece)} bytes are not the {size} that its index names): "
            f"fetch it again"
        )
    return piece


def _entry(path: Path, piece: bytes) -> dict[str, str | int]:
    return {"name": path.name, "bytes": len(piece), "sha256": hashlib.sha256(piece).hexdigest()}


def _index(folder: Path, name: str) -> Path:
    return folder / f"{name}.json"


def _pattern(name: str) -> str:
    return rf"{re.escape(name)}\.[0-9a-f]{{8}}\.\d{{3,}}"


def _pieces(folder: Path, name: str) -> set[Path]:
    """All pieces in the folder, also those that an interrupted writer left."""
    return {path for path in folder.glob(f"{name}.*") if re.fullmatch(_pattern(name), path.name)}
