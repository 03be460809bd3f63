"""State_dicts from TF-slim variables, Keras files, and timm's and Cadene's state_dicts."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..arch.config import NetworkConfig
from ..arch.genotypes import NASNET_A
from ..errors import ConversionError
from ..networks.build import build
from ..networks.plain import FLOATING
from .keras_h5 import keras_tensors
from .names import Source, keras_name, slim_sources, torch_name

log = logging.getLogger("nasnet_zoo")

EMA = "/ExponentialMovingAverage"
SLIM_AXES = {"conv": (3, 2, 0, 1), "depthwise": (2, 3, 0, 1), "dense": (1, 0), "vector": None}
SLIM_TRAINING = ("global_step", "/RMSProp", "/RMSProp_1", "/Momentum", "_RMSProp", "_RMSProp_1")


def most_bytes(config: NetworkConfig) -> int:
    """The size that no archive with weights of this network reaches: room for an optimiser's state, moving averages,
    an auxiliary head and a graph beside them."""
    values = sum(value.numel() for value in build(config, empty=True).state_dict().values())
    return 16 * 4 * values + (64 << 20)


def from_tf_slim(variables: Mapping[str, Any], config: NetworkConfig) -> dict[str, Tensor]:
    """Converts TF-slim's variables.

    A name may end in `/ExponentialMovingAverage`, which is used if there is no plain one. Optimiser state is left out,
    and so is the auxiliary head if the config has none. With 1000 classes in the config and 1001 in the variables
    the background class (row 0) is dropped.

    Args:
        variables: arrays by TF-slim's names, for example from `tf_checkpoint.read` or `.opened`.
        config: a NASNet or PNASNet config.

    Returns:
        A float32 state_dict that fits the config.

    Raises:
        ConversionError: with what is missing, left over or of another shape.
    """
    found, averaged = {}, 0
    for name, value in variables.items():
        plain = name.removesuffix(EMA)
        if name.endswith(EMA):
            if plain in variables:
                continue
            averaged += 1
        found[plain.replace("/fully_connected/", "/FC/")] = value
    log.info("TF-slim: %d of %d variables are moving averages", averaged, len(found))
    for name in list(found):
        unused_aux = config.plan.auxiliary is None and name.startswith("aux_")
        if unused_aux or name.endswith(SLIM_TRAINING):
            del found[name]
    numbered = not any(name.startswith("reduction_cell_") for name in found)
    return _collect(slim_sources(config, numbered), found, config, lambda source: source.name, SLIM_AXES)


def from_keras(weights: str | Path | Mapping[str, Any], config: NetworkConfig) -> dict[str, Tensor]:
    """Converts the weights of Keras's NASNet (ImageNet, with its top).

    Args:
        weights: an `.h5` weight file, or its tensors by `layer/leaf`, as `keras_tensors` gives them.
        config: a config of NASNet-A with the ImageNet stem and no auxiliary head.

    Returns:
        A float32 state_dict that fits the config.

    Raises:
        ConversionError: for another config, a file that cannot be read (h5py is needed), or with what is missing, left
            over or of another shape.
    """
    if config.architecture != NASNET_A or config.scale.stem != "imagenet" or config.scale.aux_size is not None:
        raise ConversionError("Keras has NASNet-A with the ImageNet stem and no auxiliary head only, not this config")
    if not isinstance(weights, Mapping):
        with keras_tensors(weights) as found:
            return from_keras(found, config)
    stages = config.scale.stages
    return _collect(
        slim_sources(config, False), weights, config, lambda source: keras_name(source.name, stages), SLIM_AXES
    )


def from_timm(state_dict: Mapping[str, Tensor], config: NetworkConfig) -> dict[str, Tensor]:
    """Converts timm's `nasnetalarge` or `pnasnet5large`.

    Args:
        state_dict: timm's state_dict.
        config: the config of the same network.

    Returns:
        A float32 state_dict that fits the config.

    Raises:
        ConversionError: with what is missing, left over or of another shape.
    """
    return _from_torch(state_dict, config, gaps=0)


def from_cadene(state_dict: Mapping[str, Tensor], config: NetworkConfig) -> dict[str, Tensor]:
    """Converts `nasnetalarge`, `nasnetamobile` or `pnasnet5large` of Cadene's pretrained-models.pytorch.

    Its mobile network numbers cells with a gap of two after each reduction; its large one has 1001 classes.

    Args:
        state_dict: Cadene's state_dict.
        config: the config of the same network.

    Returns:
        A float32 state_dict that fits the config.

    Raises:
        ConversionError: with what is missing, left over or of another shape.
    """
    gapped = "cell_6.conv_1x1.conv.weight" in state_dict and "cell_4.conv_1x1.conv.weight" not in state_dict
    return _from_torch(state_dict, config, gaps=config.scale.stages[0] if gapped else 0)


def _from_torch(state_dict: Mapping[str, Tensor], config: NetworkConfig, gaps: int) -> dict[str, Tensor]:
    found = {key: value for key, value in state_dict.items() if not key.endswith("num_batches_tracked")}
    pnasnet = "conv_0.conv.weight" in found

    def name(source: Source) -> str:
        return torch_name(source.name, pnasnet=pnasnet, gaps=gaps)

    return _collect(slim_sources(config, pnasnet), found, config, name, dict.fromkeys(SLIM_AXES))


def _collect(
    sources: list[Source],
    found: Mapping[str, Any],
    config: NetworkConfig,
    name: Callable[[Source], str],
    axes: Mapping[str, tuple[int, ...] | None],
) -> dict[str, Tensor]:
    """The state_dict that `sources` describe, from the tensors `found`; each tensor of both must be used."""
    shapes = {key: tuple(value.shape) for key, value in build(config, empty=True).state_dict().items()}
    names = {source.key: name(source) for source in sources}
    missing = sorted(set(names.values()) - set(found))
    unused = sorted(set(found) - set(names.values()))
    if missing or unused:
        raise ConversionError(
            f"the weights do not fit the config: {_listed(missing, 'missing')}; {_listed(unused, 'left over')}; "
            f"check that the config is the one these weights were trained with"
        )
    background, wrong = set(), []  # keys of classifiers with a row 0 that ImageNet's 1000 classes do not have
    for source in sources:
        value, expected = found[names[source.key]], shapes[source.key]
        shape = _transposed(np.shape(value), axes[source.layout])
        if source.key.split(".")[-2] == "classifier" and shape[:1] == (1001,) and config.num_classes == 1000:
            background.add(source.key)
            shape = (1000, *shape[1:])
        if shape != expected:
            wrong.append(f"{names[source.key]} {shape}, expected {expected}")
        elif isinstance(value, Tensor) and not _is_plain(value):
            wrong.append(f"{names[source.key]} {value.dtype} in the layout {value.layout}, expected plain floats")
    if wrong:
        raise ConversionError(f"the weights do not fit the config: {_listed(wrong, 'of another shape')}")
    # Only now are values read, which may lie packed in a file. None is larger than the network's.
    state = {source.key: _tensor(found[names[source.key]], axes[source.layout]) for source in sources}
    return {key: (state[key][1:] if key in background else state[key]).contiguous() for key in shapes}


def _is_plain(value: Tensor) -> bool:
    return value.layout == torch.strided and value.dtype in FLOATING and not value.is_meta


def _transposed(shape: tuple[int, ...], axes: tuple[int, ...] | None) -> tuple[int, ...]:
    return tuple(shape) if axes is None or len(shape) != len(axes) else tuple(shape[axis] for axis in axes)


def _tensor(value: Any, axes: tuple[int, ...] | None) -> Tensor:
    if isinstance(value, Tensor):
        return value.detach().float()
    array = np.asarray(value, dtype=np.float32)
    return torch.from_numpy(np.require(array if axes is None else array.transpose(axes), requirements=["C", "W"]))


def _listed(names: list[str], what: str) -> str:
    if not names:
        return f"none {what}"
    return f"{len(names)} {what} ({', '.join(names[:8])}{', ...' if len(names) > 8 else ''})"
