"""Checkpoint folders: `config.json` and `model.safetensors`, written completely or not at all.

`config.json` holds the network's config under "network" and what is known about its weights under "weights": the
SHA-256 of the weight file, and the metadata that `save` was given (where they came from, precision, accuracies).
"""

import dataclasses
import gc
import inspect
import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..arch.config import NetworkConfig, read_config
from ..data.labels import with_classes
from ..errors import CheckpointError, ConfigError, first_line
from ..lookup import CONFIG, WEIGHTS
from ..networks.build import build, check_size
from ..networks.network import ImageNetwork, Network
from ..networks.plain import FLOATING, plain, without_counters
from ..util.arguments import checked
from ..util.environment import check_device
from ..util.files import atomic_folder, sha256_file

CARD = "README.md"
# The line by which a card that cards.py has made is known.
MADE = "<!-- made by nasnet_zoo from config.json, and made anew with it; without this line it is left as it is -->"
PUBLISHED = (CARD, "onnx", ".gitattributes")  # what a checkpoint on the Hub has beside them
OWN = (CONFIG, WEIGHTS, *PUBLISHED)  # what a folder that is replaced may hold
ALWAYS_HASHED_BYTES = 64 << 20  # files up to this size are hashed at every load, because it takes so little time


@checked
def save(network: nn.Module, folder: str | Path, dtype: torch.dtype | str | None = None, **metadata: Any) -> None:
    """Writes a network as a checkpoint folder.

    An older checkpoint in the folder is replaced. Its README.md, .gitattributes and onnx/, which a folder from the Hub
    may have, are kept, but for a card that this package has made.

    Args:
        network: the network to write, which stays as it is. The wrappers of torch.compile, DataParallel,
            DistributedDataParallel and AveragedModel are left out; pruned and parametrised weights are written as
            what they come to.
        folder: the checkpoint folder.
        dtype: the type in which the weights are stored, or its name; as they are if None. `load` returns float32
            whatever the stored type, unless it is given a dtype.
        **metadata: values for config.json's "weights"; they must fit into JSON.

    Raises:
        CheckpointError: for weights that the dtype cannot hold.
        ConfigError: for a network that was changed so that `load` could not give it back, or metadata that are no JSON.
        ZooError: if the folder cannot be written, or holds other files, which would be lost.
    """
    dtype = floating(dtype)
    described = plain(network)
    write_checkpoint(described.state_dict(), described.config, folder, dtype, **metadata)


def write_checkpoint(
    state: dict[str, Tensor], config: NetworkConfig, folder: str | Path, dtype: torch.dtype | None = None, **metadata
) -> None:
    """`save` for a state_dict and its config."""
    for name, value in metadata.items():
        try:
            json.dumps(value)
        except (TypeError, ValueError, RecursionError) as error:
            raise ConfigError(
                f"save: {name} does not fit into JSON ({error}): give texts, numbers, lists and dicts"
            ) from error
    state = without_counters(state)
    tensors, memories = {}, set()
    for key, value in state.items():
        tensor = value.detach().to("cpu", dtype).contiguous()
        memory = tensor.untyped_storage().data_ptr()
        tensors[key] = tensor.clone() if memory in memories else tensor  # safetensors writes no shared memory
        memories.add(memory)
    for key, value in tensors.items():
        if value.dtype != state[key].dtype and not value.isfinite().all() and state[key].isfinite().all():
            raise CheckpointError(
                f"{key} reaches {float(state[key].abs().max()):.3g}, which {dtype} cannot hold: save it as float32"
            )
    with atomic_folder(folder, OWN) as temporary:
        for name in PUBLISHED:
            kept = Path(folder) / name
            if kept.is_dir():
                shutil.copytree(kept, temporary / name)
            elif kept.exists() and not made(kept):  # a card of ours is of the weights that are replaced
                shutil.copy2(kept, temporary / name)
        with os_errors(temporary / WEIGHTS):
            save_file(tensors, temporary / WEIGHTS, metadata={"format": "pt"})
        record = {"network": config.to_json(), "weights": {**metadata, "sha256": sha256_file(temporary / WEIGHTS)}}
        (temporary / CONFIG).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def copy_checkpoint(folder: str | Path, out: str | Path, dtype: torch.dtype | str | None = None) -> None:
    """Writes a checkpoint folder's network to another one with all that is known of its weights, in another type if one
    is given. Raises as `load_folder` and `save` do."""
    folder, out = Path(folder), Path(out)
    if out.exists() and out.samefile(folder):
        raise ConfigError(f"{out} would be replaced by a copy of itself: name another folder")
    network = load_folder(folder, verify=True)
    given = inspect.signature(write_checkpoint).parameters  # which a stranger's config could name too
    recorded = {key: value for key, value in read_config(folder / CONFIG)[1].items() if key not in ("sha256", *given)}
    own = next((value.dtype for value in read_weights(folder / WEIGHTS).values()), None)
    write_checkpoint(network.state_dict(), network.config, out, own if dtype is None else floating(dtype), **recorded)


def made(path: Path) -> bool:
    """Whether a README.md is a card that this package has made."""
    return path.name == CARD and path.is_file() and MADE.encode() in path.read_bytes()


@contextmanager
def os_errors(path: Path) -> Iterator[None]:
    """Raises the system's own errors as OSError: safetensors reports a full disk as a SafetensorError."""
    try:
        yield
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error


def load_folder(
    folder: str | Path,
    *,
    num_classes: int | None = None,
    labels: str | Sequence[str] | None = None,
    in_channels: int | None = None,
    dtype: torch.dtype | str | None = None,
    device: torch.device | str | None = None,
    verify: bool = False,
) -> ImageNetwork:
    """The network of a checkpoint folder, in eval mode; see nasnet_zoo.load for the options and errors."""
    if in_channels is not None and in_channels < 1:
        raise ConfigError(f"in_channels {in_channels} must be at least 1")
    dtype = floating(dtype) or torch.float32
    if device is not None:
        check_device(str(device))
    folder = Path(folder)
    path = folder / WEIGHTS
    for needed in (folder / CONFIG, path):
        if not needed.is_file():
            raise CheckpointError(f"{folder} is not a checkpoint folder: it has no {needed.name}")
    config, recorded = read_config(folder / CONFIG)
    asked = {"num_classes": num_classes, "in_channels": in_channels}
    if asked := {name: value for name, value in asked.items() if value is not None}:
        check_size(dataclasses.replace(config, **asked))
    expected = recorded.get("sha256")
    if expected is not None and (verify or path.stat().st_size <= ALWAYS_HASHED_BYTES):
        found = sha256_file(path)
        if found != expected:
            raise CheckpointError(
                f"{path} is damaged: its SHA-256 is {found[:16]}..., {CONFIG} says {str(expected)[:16]}...; "
                f"delete the folder, then fetch or convert it again"
            )
    wanted = with_classes(config, num_classes, labels)
    with _collector_paused():
        state = without_counters(read_weights(path))
        network = build(config, empty=True)
        check_state(state, network, path)
        assign(network, {key: value.to(dtype) for key, value in state.items()})
    if device is not None:
        network.to(device)
    if wanted.num_classes != config.num_classes:
        network.reset_classifier(wanted.num_classes)
    network.config = wanted
    if in_channels is not None and in_channels != config.in_channels:
        adapt_input(network, in_channels)
    return network.eval()


def floating(dtype: torch.dtype | str | None) -> torch.dtype | None:
    """The dtype of weights, which may be given by its name; ConfigError if it is not one of FLOATING."""
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if found is not None and found in FLOATING or dtype is None:
        return found
    names = ", ".join(str(each).removeprefix("torch.") for each in FLOATING)
    raise ConfigError(
        f"weights are floating-point numbers, not {dtype!r}: give a dtype, such as torch.float16, or its name, one of "
        f"{names}"
    )


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Pauses the garbage collector. A large network has tens of thousands of objects, none of which can be freed. The
    collector would still search through them and all of torch, which takes as long as the loading itself."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, mapped rather than copied; CheckpointError if it is damaged."""
    try:
        with safe_open(path, "pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - safe_open is no mapping
    except (SafetensorError, OSError, ValueError, TypeError, RuntimeError) as error:  # the last two of torch, on shapes
        raise CheckpointError(
            f"{path} is not a readable safetensors file ({first_line(error)}): fetch or convert it again"
        ) from error


def check_state(
    state: dict[str, Tensor], network: nn.Module, where: Any, advice: str = f"use the {CONFIG} that was written with it"
) -> None:
    """Raises CheckpointError unless the state_dict has exactly the keys and shapes of the network, and floating-point
    numbers."""
    shapes = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    missing, unused = sorted(set(shapes) - set(state)), sorted(set(state) - set(shapes))
    wrong = [key for key in shapes if key in state and tuple(state[key].shape) != shapes[key]]
    if missing or unused or wrong:
        first = (missing + unused + wrong)[0]
        raise CheckpointError(
            f"{where} does not fit its config: {len(missing)} tensors missing, {len(unused)} left over, {len(wrong)} "
            f"of another shape, the first being {first}; {advice}"
        )
    for key, value in state.items():
        if value.dtype not in FLOATING:
            raise CheckpointError(
                f"{where} has {key} as {value.dtype}, and weights are floating-point numbers: store them as "
                f"float32, as they were before a quantization"
            )


def assign(network: nn.Module, state: dict[str, Tensor]) -> None:
    """Puts the tensors of a checked state_dict into the network, without a copy. `load_state_dict(assign=True)` does
    the same, but its hooks and messages would take a quarter of `load`'s time."""
    for prefix, module in network.named_modules():
        dot = f"{prefix}." if prefix else ""
        for name, _ in list(module.named_parameters(recurse=False)):
            module.register_parameter(name, nn.Parameter(state[dot + name]))
        for name, _ in list(module.named_buffers(recurse=False)):
            if dot + name in state:
                module.register_buffer(name, state[dot + name])


def adapt_input(network: Network, in_channels: int) -> None:
    """Makes a trained network read `in_channels` channels: its colour filters are averaged and repeated, so that a grey
    picture, repeated over the channels, gives the same output as with three equal colours before."""
    old = network.config.in_channels
    conv = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
    weight = conv.weight.detach().mean(1, keepdim=True) * (old / in_channels)
    conv.weight = nn.Parameter(weight.repeat(1, in_channels, 1, 1))
    conv.in_channels = in_channels
    preprocess = network.config.preprocess
    mean, std = (sum(values) / len(values) for values in (preprocess.mean, preprocess.std))
    prepared = dataclasses.replace(preprocess, mean=(mean,) * in_channels, std=(std,) * in_channels)
    network.config = dataclasses.replace(network.config, in_channels=in_channels, preprocess=prepared)
