"""The weights in what a training has saved: a dict with an optimizer, arguments and more beside them."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import CheckpointError

# What trainings call the weights of theirs: averages of the weights first, which is what they measure and publish.
AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict", "model_ema_state_dict", "ema_model", "ema")
NAMES = (*AVERAGED, "state_dict", "model_state_dict", "model", "network", "net", "module", "weights")

# Classes whose objects are often beside the weights and are no part of them. None is imported or made.
PASSED_OVER = (
    *("argparse.Namespace", "types.SimpleNamespace", "torch.torch_version.TorchVersion", "numpy.dtype"),
    *("numpy.ndarray", "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar"),
    *("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct"),
    *(f"pathlib{module}.{system}Path" for module in ("", "._local") for system in ("Posix", "Windows")),
)


class _PassedOver:
    """Stands for an object that is not read, whatever is said to it."""

    def __new__(cls, *_: Any) -> "_PassedOver":
        return super().__new__(cls)

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


@contextmanager
def passing_over() -> Iterator[None]:
    """Inside the block, torch.load with weights_only passes over objects of PASSED_OVER; it refuses all other objects
    that it would refuse otherwise."""
    with torch.serialization.safe_globals([(_PassedOver, name) for name in PASSED_OVER]):
        yield


def weights_in(content: Any, where: Any) -> tuple[dict[str, Tensor], str | None]:
    """The state_dict in what torch.load has read, and the name of the entry that holds it, if one does.

    The keys are without what wrappers put before them. Raises CheckpointError if there is none.
    """
    entries = content if isinstance(content, dict) else {}
    for name in NAMES:
        if _is_state_dict(entries.get(name)):
            return unwrapped(entries[name]), name
    if not _is_state_dict(content):
        there = ", ".join(str(name)[:40] for name in list(entries)[:8])
        raise CheckpointError(
            f"{where} does not hold a state_dict of tensors{f' (it has {there})' if there else ''}: save the network's "
            f"state_dict, alone or as 'state_dict'"
        )
    return unwrapped(content), None


def unwrapped(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state_dict of the network inside its wrappers (torch.compile, DataParallel, AveragedModel, a Lightning
    module): without the names that all keys begin with, and without the counter of averages."""
    state = {re.sub(r"(^|\.)_orig_mod(?=\.)", "", key).lstrip("."): value for key, value in state.items()}
    state = {key: value for key, value in state.items() if key.rpartition(".")[2] != "n_averaged"}
    while len({key.partition(".")[0] for key in state}) == 1 and all("." in key for key in state):
        state = {key.partition(".")[2]: value for key, value in state.items()}
    return state


def _is_state_dict(value: Any) -> bool:
    return isinstance(value, dict) and bool(value) and all(map(_is_weight, value, value.values()))


def _is_weight(key: Any, value: Any) -> bool:
    plain = type(value) in (Tensor, nn.Parameter) and value.layout is torch.strided and not value.is_quantized
    return plain and value.device.type == "cpu" and isinstance(key, str)
