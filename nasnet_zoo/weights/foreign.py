"""Foreign weight files to checkpoint folders."""

import logging
import re
from pathlib import Path
from typing import BinaryIO
from zipfile import ZIP_STORED, BadZipFile, ZipFile

import torch
from torch import Tensor

from ..arch.config import NetworkConfig
from ..convert.ports import from_cadene, from_keras, from_tf_slim, from_timm, most_bytes
from ..convert.tf_checkpoint import opened
from ..data.labels import with_classes
from ..errors import CheckpointError, ConversionError
from ..networks.build import build
from ..networks.plain import without_counters
from ..util.files import check_replaceable, holds, is_web_page, sha256_file
from .checkpoint import OWN, check_state, read_weights, write_checkpoint
from .training_checkpoint import of_network, passing_over, unwrapped, weights_in

log = logging.getLogger("nasnet_zoo")


def convert_file(source: str | Path, config: NetworkConfig, out: str | Path, half: bool = False) -> str | None:
    """Writes the checkpoint folder `out` from a TF-slim checkpoint (a prefix, `.index`, folder or tar), a Keras `.h5`,
    or a `.safetensors` or torch file of timm, Cadene or a training of this package. Its config records the file's name
    and SHA-256.

    Returns the name of the entry that was taken, if the file is a training's checkpoint of several; "ema.module" is an
    entry in an entry, or what the network's keys in it begin with. Raises ConversionError, CheckpointError, or ZooError
    where the folder cannot be written or holds other files.
    """
    check_replaceable(out, OWN)
    source = Path(source).resolve()
    if source.is_file():
        with open(source, "rb") as file:
            if is_web_page(file.read(1024)):
                raise ConversionError(
                    f"{source} is a web page, not weights: download the file again, past the login page or the preview"
                )
    form, state, config, entry = _converted(source, config)
    hashed = source if source.is_file() else source.with_name(source.name + ".index")
    origin = {"origin": source.name, "origin_form": form}
    if entry is not None:
        origin["origin_entry"] = entry
        log.info("%s: the weights are its %s", source, entry)
    if hashed.is_file():
        origin["origin_sha256"] = sha256_file(hashed)
    write_checkpoint(state, config, out, torch.float16 if half else None, **origin)
    return entry


def _converted(source: Path, config: NetworkConfig) -> tuple[str, dict[str, Tensor], NetworkConfig, str | None]:
    """The form of the file, the weights, their config, and the entry that they were in."""
    suffix = source.suffix.lower()
    if suffix in (".h5", ".hdf5"):
        return "keras", from_keras(source, config), config, None
    if suffix == ".safetensors":
        state, entry = unwrapped(read_weights(source)), None
    elif _is_torchs(source):
        state, entry = read_pth(source)
    else:
        with opened(source, most_bytes(config)) as variables:
            return "tf-slim", from_tf_slim(variables, config), config, None
    keys = build(config, empty=True).state_dict().keys()
    state, prefix = of_network(state, keys, source)
    if prefix:
        entry = f"{entry}.{prefix}" if entry else prefix
    if state.keys() & keys:
        return "nasnet_zoo", *_own(state, config, source), entry
    try:
        form, converted = "timm", from_timm(state, config)
    except ConversionError:
        form, converted = "cadene", from_cadene(state, config)  # another cell numbering or 1001 classes
    _check_values(without_counters(state), source)
    return form, converted, config, entry


def _own(state: dict[str, Tensor], config: NetworkConfig, source: Path) -> tuple[dict[str, Tensor], NetworkConfig]:
    """The weights of one of this package's networks, whose classifier says how many classes there are. An auxiliary
    head that the config has not was for the training alone."""
    state = without_counters(state)
    if config.plan.auxiliary is None:
        state = {key: value for key, value in state.items() if not key.startswith("aux.")}
    head = state.get("classifier.weight")
    if head is not None and head.dim() == 2:
        config = with_classes(config, head.shape[0])
    network = build(config, empty=True)
    missing = sorted(network.state_dict().keys() - state.keys())
    if missing and all(key.startswith("classifier.") for key in missing):
        raise CheckpointError(
            f"{source} lacks {' and '.join(missing)}, and convert needs the whole network: put what is there into "
            f"nasnet_zoo.create(NAME, num_classes=N) by load_state_dict(state, strict=False), and save that network"
        )
    check_state(state, network, source, "give the config of the network that was trained")
    _check_values(state, source)
    return {key: value.float() for key, value in state.items()}, config


def _check_values(state: dict[str, Tensor], source: Path) -> None:
    """Raises CheckpointError for weights that are no finite numbers. Shapes and dtypes have been checked: a small
    file can claim a tensor that fills the memory."""
    for key, value in state.items():
        if not value.float().isfinite().all():
            raise CheckpointError(
                f"{source} holds {key} with values that are no finite numbers: the training has diverged, so convert a "
                f"checkpoint from before"
            )


def _is_torchs(source: Path) -> bool:
    """Whether torch.save wrote the file, by its name or its first bytes: `.ckpt` and `.tar` may be TensorFlow's too."""
    if {".pth", ".pt", ".bin"} & {suffix.lower() for suffix in source.suffixes[-2:]}:
        return True
    if not source.is_file():
        return False
    with source.open("rb") as file:
        return file.read(4).startswith((b"PK\x03\x04", b"\x80\x02"))


def read_pth(path: Path) -> tuple[dict[str, Tensor], str | None]:
    """The state_dict in a file that torch.save wrote, and the entry that it was in; see weights_in. Nothing but tensors
    is unpickled. Raises CheckpointError."""
    try:
        _check_zip(path)
        if holds(path, rb"\nbytearray\n"):  # torch's reader makes one of any size; no weights need it
            raise ValueError("GLOBAL bytearray")
        with passing_over():
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises pickle, zip, runtime and OS errors here, and advises to read it unsafely
        reason = getattr(error, "strerror", None)
        if reason is None and _is_tar(path):
            raise CheckpointError(f"{path} is a tar archive: unpack it, and convert the file in it") from error
        reason = reason or "it is damaged, or holds other objects"
        advice = "download it again, or save the state_dict alone"
        if found := re.search(r"GLOBAL (\S+)", str(error)):
            reason = f"it holds {found[1]}, which is not read: to unpickle an object, or a whole network, runs code"
            advice = "where it was made, save network.state_dict() alone, or use nasnet_zoo.save(network, folder)"
        raise CheckpointError(f"{path} is not a state_dict that can be read safely ({reason}): {advice}") from error
    weights, entry = weights_in(content, path)
    for key, value in weights.items():
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise CheckpointError(
                f"{path} holds fewer values of {key} than its shape {tuple(value.shape)} has: save the state_dict with "
                f"each tensor made .contiguous()"
            )
    return weights, entry


def _is_tar(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(262).endswith(b"ustar")


def _check_zip(path: Path) -> None:
    """Raises BadZipFile if a `.pth` is a zip file, but not as torch writes it: each tensor is stored as it is, so that
    nothing unpacks to more than the file's own size."""
    with open(path, "rb") as file:
        if file.read(4) != b"PK\3\4":
            return
        with ZipFile(file) as archive:
            entries = archive.infolist()
            if any(entry.compress_type != ZIP_STORED for entry in entries):
                raise BadZipFile("an entry is packed")
            if sum(entry.file_size for entry in entries) > path.stat().st_size:
                raise BadZipFile("it unpacks to more than its own size")
            if archive.start_dir != _directory(file):
                raise BadZipFile("its directory is not where its end says, so that torch would read another one")


def _directory(file: BinaryIO) -> int:
    """Where a zip file's end says that its directory begins: torch's reader goes there, and Python's takes what stands
    right before the end. Raises BadZipFile if they could take different ends."""
    size = file.seek(0, 2)
    file.seek(max(size - 98, 0))
    tail = file.read().rjust(98, b"\0")
    long, locator, short = tail[:56], tail[56:76], tail[76:]  # zip64's end record, where that is, the usual record
    if short[:4] != b"PK\5\6":
        raise BadZipFile("there is something after its end")
    if locator[:4] != b"PK\6\7":
        return int.from_bytes(short[16:20], "little")
    if long[:4] != b"PK\6\6" or int.from_bytes(locator[8:16], "little") != size - 98:
        raise BadZipFile("its zip64 end is not right before its end")
    return int.from_bytes(long[48:56], "little")
