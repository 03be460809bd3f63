"""Foreign weight files to checkpoint folders."""

from pathlib import Path

import torch
from torch import Tensor

from ..arch.config import NetworkConfig
from ..convert.ports import from_cadene, from_keras, from_tf_slim, from_timm
from ..convert.tf_checkpoint import read as read_tf_checkpoint
from ..errors import CheckpointError, ConversionError
from ..util.files import check_replaceable, is_web_page, sha256_file
from .checkpoint import OWN, read_weights, write_checkpoint


def convert_file(source: str | Path, config: NetworkConfig, out: str | Path, half: bool = False) -> None:
    """Writes the checkpoint folder `out` from a TF-slim checkpoint (a prefix, `.index`, folder or tar), a Keras `.h5`,
    or a `.pth` or `.safetensors` of timm or Cadene. Its config records the file's name and SHA-256.

    Raises ConversionError, CheckpointError, or ZooError where the folder cannot be written or holds other files.
    """
    check_replaceable(out, OWN)
    source = Path(source).resolve()
    if source.is_file():
        with open(source, "rb") as file:
            if is_web_page(file.read(1024)):
                raise ConversionError(
                    f"{source} is a web page, not weights: download the file again, past the login page or the preview"
                )
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
        return "tf-slim", from_tf_slim(read_tf_checkpoint(source), config)
    state = read_weights(source) if suffix == ".safetensors" else read_pth(source)
    try:
        return "timm", from_timm(state, config)
    except ConversionError:
        return "cadene", from_cadene(state, config)  # another cell numbering or 1001 classes


def read_pth(path: Path) -> dict[str, Tensor]:
    """The state_dict in a `.pth`, read without unpickling anything but tensors. Raises CheckpointError."""
    try:
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
