"""`load` and `create`: from a name, folder, repo or config to a network."""

import dataclasses
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from ..arch.config import NetworkConfig
from ..errors import ConfigError, UnknownModelError
from ..networks.build import build
from ..networks.network import Network
from ..registry import MODELS, get_model
from .checkpoint import load_folder
from .hub import parse_repo
from .pretrained import hub_folder, pretrained_folder


def load(
    source: str | Path,
    *,
    num_classes: int | None = None,
    in_channels: int | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    local_files_only: bool = False,
    verify: bool = False,
) -> Network:
    """A trained network in eval mode.

    `source` is a zoo name ("nasnet-a-mobile"), a name and a tag ("nasnet-a-mobile.keras") that picks one source of its
    weights, a Hub repo ("org/repo" or "org/repo@revision"), or a checkpoint folder. With `num_classes` other than its
    own the network gets a fresh classifier, with other `in_channels` its first filters are averaged. Weights come
    back as float32 unless `dtype` says otherwise. With `local_files_only`, or HF_HUB_OFFLINE set, no connection
    is opened. Hashes are checked when weights are fetched or converted; `verify` checks them again.

    Raises a ZooError: UnknownModelError, DownloadError, CheckpointError, ConversionError or ConfigError.
    """
    folder = _folder(str(source), local_files_only)
    options = dict(num_classes=num_classes, in_channels=in_channels, dtype=dtype, device=device, verify=verify)
    return load_folder(folder, **options)


def _folder(source: str, local_files_only: bool) -> Path:
    if source in MODELS:
        return pretrained_folder(get_model(source), local_files_only=local_files_only)
    name, dot, tag = source.rpartition(".")
    if dot and name in MODELS:
        return pretrained_folder(get_model(name), tag, local_files_only=local_files_only)
    with suppress(OSError):  # a name may be too long for a path
        if Path(source).exists():
            return Path(source)
    if repo := parse_repo(source):
        return hub_folder(*repo, local_files_only=local_files_only)
    if "/" in source or "\\" in source:
        raise UnknownModelError(f"there is no folder {source}, and it is no Hub repo's org/repo[@revision] either")
    get_model(name if dot and not tag.isdigit() else source)  # raises, with the nearest names
    raise UnknownModelError(f"there is no model {source!r} in the zoo")


def create(name_or_config: str | NetworkConfig, **scale: Any) -> Network:
    """A freshly initialised network of a zoo name or a config, in training mode.

    `scale` overrides fields of the config's scale (filters=32, stages=(2, 2, 2), aux_size=(14, 14), ...), num_classes
    or in_channels. Weights are drawn from torch's global generator. Raises UnknownModelError or ConfigError.
    """
    config = name_or_config if isinstance(name_or_config, NetworkConfig) else get_model(name_or_config).config
    own = {key: scale.pop(key) for key in ("num_classes", "in_channels") if key in scale}
    if own.get("num_classes", config.num_classes) != config.num_classes:
        own["labels"] = None
    fields = [field.name for field in dataclasses.fields(config.scale)]
    unknown = sorted(set(scale) - set(fields))
    if unknown:
        raise ConfigError(
            f"create: unknown {', '.join(unknown)}; it takes num_classes, in_channels, {', '.join(fields)}"
        )
    return build(dataclasses.replace(config, scale=dataclasses.replace(config.scale, **scale), **own))
