"""Foreign weight files to checkpoint folders."""

from pathlib import Path
from zipfile import BadZipFile, ZipFile

import torch
from torch import Tensor

from ..arch.config import NetworkConfig
from ..convert.ports import from_cadene, from_keras, from_tf_slim, from_timm, most_bytes
from ..convert.tf_checkpoint import opened
from ..errors import CheckpointError, ConversionError
from ..util.files import sha256_file
from .checkpoint import read_weights, write_checkpoint


def convert_file(source: str | Path, config: NetworkConfig, out: str | Path, half: bool = False) -> None:
    """Writes the checkpoint folder `out` from a TF-slim checkpoint (a prefix, `.index`, folder or tar), a Keras `.h5`,
    or a `.pth` or `.safetensors` of timm or Cadene. Its config records the file's name and SHA-256.

    Raises ConversionError or CheckpointError.
    """
    source = Path(source).resolve()
    form, state = _converted(source, config)
    hashed = source if source.is_file() else source.with_name(source.name + ".index")
    origin = {"origin": source.name, "origin_form": form}
    if hashed.is_file():
        origin["origin_sha256"] = sha256_file(hashed)
    write_checkpoint(state, config, out, torch.float16 if half else None, **origin)


def _converted(source: Path, config: NetworkConfig) -> tuple[str, dict[str, Tensor]]:
    suffix = source.suffix.lower()
    if suffix in (".h5", ".hdf5"):
        return "keras", from_keras(source, config)
    if suffix not in (".pth", ".pt", ".bin", ".safetensors"):
        with opened(source, most_bytes(config)) as variables:
            return "tf-slim", from_tf_slim(variables, config)
    state = read_weights(source) if suffix == ".safetensors" else read_pth(source)
    try:
        return "timm", from_timm(state, config)
    except ConversionError:
        return "cadene", from_cadene(state, config)  # another cell numbering or 1001 classes


def read_pth(path: Path) -> dict[str, Tensor]:
    """The state_dict in a `.pth`, read without unpickling anything but tensors. Raises CheckpointError."""
    try:
        _check_zip(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises pickle, zip, runtime and OS errors here, and advises to read it unsafely
        reason = getattr(error, "strerror", None) or "it is damaged, or holds other objects than tensors"
        raise CheckpointError(
            f"{path} is not a state_dict that can be read safely ({reason}): download it again, or save the state_dict "
            f"alone"
        ) from error
    state = state.get("state_dict", state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(f"{path} does not hold a state_dict of tensors")
    return state


def _check_zip(path: Path) -> None:
    """Raises BadZipFile if a `.pth` is a zip file, as torch writes it, that unpacks to more than its own size: torch
    stores tensors as they are."""
    with open(path, "rb") as file:
        is_zip = file.read(4) == b"PK\3\4"
    if is_zip:
        with ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > path.stat().st_size:
                raise BadZipFile("it unpacks to more than its own size")
