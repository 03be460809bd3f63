"""`load` and `create`: from a name, folder, repo or config to a network."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ..arch.config import NetworkConfig
from ..data.labels import with_classes
from ..errors import CheckpointError, ConfigError
from ..lookup import identify, repo_files
from ..networks.build import build
from ..networks.network import ImageNetwork
from ..registry import get_model
from ..util.arguments import checked
from .checkpoint import CONFIG, WEIGHTS, load_folder
from .pretrained import pretrained_folder


@checked
def load(
    source: str | Path,
    *,
    num_classes: int | None = None,
    labels: str | Sequence[str] | None = None,
    in_channels: int | None = None,
    dtype: torch.dtype | str | None = None,
    device: torch.device | str | None = None,
    local_files_only: bool = False,
    verify: bool = False,
) -> ImageNetwork:
    """Loads a trained network.

    Hashes are checked when weights are fetched or converted; `verify` checks them again. With HF_HUB_OFFLINE set no
    connection is opened.

    Args:
        source: a zoo name ("nasnet-a-mobile"), a name and a tag ("nasnet-a-mobile.keras") that selects one source of
            its weights, a Hub repo ("org/repo" or "org/repo@revision"), a checkpoint folder, or the run folder of a
            training, whose checkpoint is loaded.
        num_classes: with another number than its own, the network gets a new classifier with fresh weights; as many as
            there are labels if None.
        labels: other class names in the order of the logits, or the name of a label set.
        in_channels: with another number than its own, the network's first filters are averaged over the channels.
        dtype: of the weights, or its name, such as "float16"; float32 if None.
        device: where the network is put; the CPU if None.
        local_files_only: use only files that are on this machine, and open no connection.
        verify: check the hash of the weights again.

    Returns:
        The network, in eval mode.

    Raises:
        UnknownModelError: if no model, folder or repo has this name, or the model has no weights with this tag.
        DownloadError: if the weights cannot be fetched, or are not cached and no connection may be opened.
        CheckpointError: if the folder or its weights are missing, damaged, or do not fit the config.
        ConversionError: if the tensors of a public original do not fit the model.
        ConfigError: for a config that cannot be read, or an option that does not make sense.
        ZooError: for a device that is not there.
    """
    folder = checkpoint_folder(source, local_files_only=local_files_only)
    options = dict(in_channels=in_channels, dtype=dtype, device=device, verify=verify)
    return load_folder(folder, num_classes=num_classes, labels=labels, **options)


def checkpoint_folder(source: str | Path, *, local_files_only: bool = False) -> Path:
    """The checkpoint folder of whatever has weights: a zoo name, name.tag, a checkpoint, a training that has written
    its checkpoint, or a Hub repo; fetched if necessary. Raises as `load` does."""
    named = identify(source)
    if named.form in ("model", "weights"):
        return pretrained_folder(get_model(named.name), named.tag, local_files_only=local_files_only)
    if named.form == "repo":
        return repo_files(named, (CONFIG, WEIGHTS), local_files_only=local_files_only)
    if named.form == "checkpoint" or named.form == "training" and (named.path / CONFIG).is_file():
        return named.path
    raise named.refused(f"and a checkpoint ({CONFIG} and {WEIGHTS}) is needed here", CheckpointError)


@checked
def create(name_or_config: str | NetworkConfig, **scale: Any) -> ImageNetwork:
    """Creates a network with fresh weights, which are drawn from torch's global generator.

    Args:
        name_or_config: a zoo name or a config.
        **scale: other values for fields of the config's scale (filters=32, stages=(2, 2, 2), aux_size=(14, 14), ...),
            for num_classes, labels or in_channels.

    Returns:
        The network, in training mode.

    Raises:
        UnknownModelError: if the zoo has no model of this name.
        ConfigError: for a field that the scale does not have, or a value that is impossible.
    """
    config = name_or_config if isinstance(name_or_config, NetworkConfig) else get_model(name_or_config).config
    config = with_classes(config, scale.pop("num_classes", None), scale.pop("labels", None))
    if "in_channels" in scale:
        config = dataclasses.replace(config, in_channels=scale.pop("in_channels"))
    fields = [field.name for field in dataclasses.fields(config.scale)]
    unknown = sorted(set(scale) - set(fields))
    if unknown:
        raise ConfigError(
            f"create: unknown {', '.join(unknown)}; it takes num_classes, labels, in_channels, {', '.join(fields)}"
        )
    return build(dataclasses.replace(config, scale=dataclasses.replace(config.scale, **scale)))
