"""The weights in what a training has saved: a dict with an optimizer, arguments and more beside them."""

import logging
import re
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import CheckpointError

log = logging.getLogger("nasnet_zoo")

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
    entries = dict(_entries(content))
    found = {name: weights for name, value in entries.items() if (weights := _weights(value))}
    entry = min(found, key=lambda name: not averages(name), default=None)
    weights = _weights(content) if entry is None else found[entry]
    if not weights:
        there = ", ".join(str(name)[:40] for name in list(content)[:8]) if isinstance(content, dict) else ""
        raise CheckpointError(
            f"{where} does not hold a state_dict of tensors{f' (it has {there})' if there else ''}: save the network's "
            f"state_dict, alone or as 'state_dict'"
        )
    unread = next((name for name, value in entries.items() if averages(name) and _has_tensors(value)), None)
    if unread and not averages(entry or ""):
        log.warning("%s: the averages in its %s are passed over: they are no state_dict with names", where, unread)
    return unwrapped(weights), entry


def averages(name: str) -> int:
    """How many parts of an entry's name say that it holds averaged weights."""
    return sum(part in AVERAGED for part in name.split("."))


def of_network(state: dict[str, Tensor], keys: Collection[str], where: Any) -> tuple[dict[str, Tensor], str]:
    """The tensors of the network with these keys, and the prefix that they had, if those of other modules (a criterion,
    an average of the network) lie beside them. Where several prefixes fit, an average's is taken."""
    starts = ((key, dot.end()) for key in state for dot in re.finditer(r"^|\.", key))
    prefixes = Counter(key[:start] for key, start in starts if key[start:] in keys)

    def rank(prefix: str) -> tuple[int, int]:
        whole = prefixes[prefix] == len(keys)
        return whole * (1 + averages(prefix)), prefixes[prefix]

    prefix = max(prefixes, key=rank, default="")
    if 2 * prefixes[prefix] < len(keys):  # a name in common, such as classifier.weight, makes no network
        return state, ""
    inside = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    if prefix:
        outside = len(state) - len(inside)
        log.warning(
            "%s: the weights begin with '%s'; %d of %d tensors do not, and are passed over",
            *(where, prefix, outside, len(state)),
        )
    return inside, prefix.rstrip(".")


def unwrapped(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state_dict of the network inside its wrappers (torch.compile, DataParallel, AveragedModel, a Lightning
    module): without the names that all keys begin with, and without the counter of averages."""
    state = {re.sub(r"(^|\.)_orig_mod(?=\.)", "", key).lstrip("."): value for key, value in state.items()}
    state = {key: value for key, value in state.items() if key.rpartition(".")[2] != "n_averaged"}
    while len({key.partition(".")[0] for key in state}) == 1 and all("." in key for key in state):
        state = {key.partition(".")[2]: value for key, value in state.items()}
    return state


def _entries(content: Any) -> Iterator[tuple[str, Any]]:
    """What lies under one of NAMES, or under two of them: {"ema": {"module": ...}}."""
    for name in NAMES:
        if isinstance(content, dict) and name in content:
            value = content[name]
            yield name, value
            if isinstance(value, dict):
                yield from ((f"{name}.{inner}", value[inner]) for inner in NAMES if inner in value)


def _weights(value: Any) -> dict[str, Tensor]:
    """The tensors of a state_dict, which may have a few numbers beside them; none if it is no state_dict."""
    if not isinstance(value, dict):
        return {}
    weights = {key: each for key, each in value.items() if _is_weight(key, each)}
    others = [each for key, each in value.items() if key not in weights]
    few = len(others) < len(weights) and not any(isinstance(each, Tensor | dict | list | tuple) for each in others)
    return weights if few else {}


def _has_tensors(value: Any) -> bool:
    """Whether tensors lie in a list or a dict, or in those that are in a dict."""
    held = [value, *value.values()] if isinstance(value, dict) else [value]
    inside = chain.from_iterable(
        each.values() if isinstance(each, dict) else each for each in held if isinstance(each, dict | list | tuple)
    )
    return any(isinstance(each, Tensor) for each in inside)


def _is_weight(key: Any, value: Any) -> bool:
    plain = type(value) in (Tensor, nn.Parameter) and value.layout is torch.strided and not value.is_quantized
    return plain and value.device.type == "cpu" and isinstance(key, str)
