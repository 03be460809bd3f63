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
from .names import Source, keras_name, slim_sources, torch_name

log = logging.getLogger("nasnet_zoo")

EMA = "/ExponentialMovingAverage"
SLIM_AXES = {"conv": (3, 2, 0, 1), "depthwise": (2, 3, 0, 1), "dense": (1, 0), "vector": None}
MAX_TENSOR_BYTES = 1 << 30  # the largest tensor of the published networks has 16 MB
SLIM_TRAINING = ("global_step", "/RMSProp", "/RMSProp_1", "/Momentum", "_RMSProp", "_RMSProp_1")


def from_tf_slim(variables: Mapping[str, Any], config: NetworkConfig) -> dict[str, Tensor]:
    """Converts TF-slim's variables.

    A name may end in `/ExponentialMovingAverage`, which is used if there is no plain one. Optimiser state is left out,
    and so is the auxiliary head if the config has none. With 1000 classes in the config and 1001 in the variables
    the background class (row 0) is dropped.

    Args:
        variables: arrays by TF-slim's names, for example from `tf_checkpoint.read`.
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
        weights: an `.h5` weight file, or its tensors as `read_keras` returns them.
        config: a config of NASNet-A with the ImageNet stem and no auxiliary head.

    Returns:
        A float32 state_dict that fits the config.

    Raises:
        ConversionError: for another config, a file that cannot be read (h5py is needed), or with what is missing, left
            over or of another shape.
    """
    if config.architecture != NASNET_A or config.scale.stem != "imagenet" or config.scale.aux_size is not None:
        raise ConversionError("Keras has NASNet-A with the ImageNet stem and no auxiliary head only, not this config")
    found = weights if isinstance(weights, Mapping) else read_keras(weights)
    stages = config.scale.stages
    return _collect(
        slim_sources(config, False), found, config, lambda source: keras_name(source.name, stages), SLIM_AXES
    )


def read_keras(path: str | Path) -> dict[str, np.ndarray]:
    """The tensors of a Keras `.h5` weight file by `layer/leaf`. Needs h5py. Raises ConversionError."""
    try:
        import h5py
    except ImportError:
        raise ConversionError("reading .h5 files needs h5py: pip install 'nasnet-zoo[convert]'") from None
    found: dict[str, np.ndarray] = {}

    def visit(name: str, item: Any) -> None:
        if name.split("/")[-2:-1] == ["vars"]:
            raise ConversionError(
                f"{path} is in Keras 3's .weights.h5 layout, which numbers tensors instead of naming them: give the "
                f"published .h5, or one that tf_keras saved"
            )
        if isinstance(item, h5py.Dataset):  # .../layer/leaf:0, in groups that differ between Keras versions
            if item.dtype.kind != "f" or item.nbytes > MAX_TENSOR_BYTES:  # a small file can claim any size
                raise ConversionError(f"{path}: {name} ({item.dtype}, {item.nbytes} bytes) is no weight of a NASNet")
            found["/".join(name.removesuffix(":0").split("/")[-2:])] = item[()]

    try:
        with h5py.File(path, "r") as file:
            file.visititems(visit)
    except (OSError, RuntimeError, KeyError) as error:
        raise ConversionError(f"{path} is not a readable HDF5 file: {error}") from error
    return found


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
    state, wrong = {}, []
    for source in sources:
        tensor = _tensor(found[names[source.key]], axes[source.layout])
        background = source.key.split(".")[-2] == "classifier" and tensor.shape[0] == config.num_classes + 1 == 1001
        tensor = tensor[1:] if background else tensor
        if tuple(tensor.shape) == shapes[source.key]:
            state[source.key] = tensor.contiguous()
        else:
            wrong.append(f"{names[source.key]} {tuple(tensor.shape)}, expected {shapes[source.key]}")
    if wrong:
        raise ConversionError(f"the weights do not fit the config: {_listed(wrong, 'of another shape')}")
    return {key: state[key] for key in shapes}


def _tensor(value: Any, axes: tuple[int, ...] | None) -> Tensor:
    if isinstance(value, Tensor):
        return value.detach().float()
    array = np.asarray(value, dtype=np.float32)
    if axes is not None and array.ndim == len(axes):
        array = array.transpose(axes)
    return torch.from_numpy(np.require(array, requirements=["C", "W"]))


def _listed(names: list[str], what: str) -> str:
    if not names:
        return f"none {what}"
    return f"{len(names)} {what} ({', '.join(names[:8])}{', ...' if len(names) > 8 else ''})"
