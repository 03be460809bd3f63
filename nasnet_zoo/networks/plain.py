"""What a user has made of a network, as the plain network that a checkpoint folder or a graph can hold."""

import copy
import re
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm
from torch.optim.swa_utils import AveragedModel

from ..arch.config import NetworkConfig
from ..data.labels import with_classes
from ..errors import ConfigError, first_line
from .build import build
from .network import ImageNetwork, Network, eval_mode

# Wrappers whose forward is that of the network inside. torch.compile's is known by the name that it gives what it
# compiled: to import its class takes seconds.
COMPILED = "_orig_mod"
WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel, AveragedModel)
# torch's hooks that compute a tensor from others before each forward pass, and what they call the others.
COMPUTING_HOOKS = (BasePruningMethod, WeightNorm, SpectralNorm)
COMPUTED_FROM = ("_orig", "_mask", "_g", "_v", "_u")
# Attributes that make no difference in eval mode.
TRAINING_ONLY = {"training", "momentum", "p", "inplace", "frozen", "drop_path_keep", "checkpointing"}
CLOSE, CLOSE_IN_HALF = 1e-3, 5e-2  # of the largest logit: more than another order of the sums makes

FLOATING = (torch.float32, torch.float16, torch.bfloat16, torch.float64)  # the dtypes that weights may have

UNDO = "undo the change, or keep the network with torch.save"


def plain(network: nn.Module) -> Network:
    """The network that `nasnet_zoo.load` will give back for one that a user has wrapped or changed.

    The wrappers of torch.compile, DataParallel, DistributedDataParallel and averages of weights are taken off. A tensor
    that is computed from others (pruned, parametrised, with weight or spectral norm) is what it comes to. A Linear in
    the classifier's place decides the number of classes. The user's network stays as it is; tensors are shared with it.

    Where something else differs from what the config describes, both networks are run on one picture. Raises
    ConfigError if their logits differ, or if weights are missing, left over or of another shape.
    """
    inner, doubtful = _unwrapped(network)
    config, state = _described(inner)
    made = build(config, empty=True).eval()
    _check(state, made)
    made.load_state_dict(state, assign=True)
    doubts = [f"the wrapper {type(doubtful).__name__}"] if doubtful is not None else list(_differences(inner, made))
    if doubts and isinstance(inner, ImageNetwork):
        _compare(inner if doubtful is None else doubtful, made, doubts[0])
    return made


def without_counters(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state_dict without the batch counters of norms that are not ours, such as SyncBatchNorm: they are no
    weights."""
    return {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}


def _unwrapped(network: nn.Module) -> tuple[Network, nn.Module | None]:
    """The network in its wrappers, and the outermost wrapper whose forward nobody here knows."""
    inner, unknown = network, None
    while not isinstance(inner, Network):
        parts = dict(inner.named_children()) if isinstance(inner, nn.Module) else {}
        within = parts.get(COMPILED, parts.get("module"))
        if within is None or len(parts) > 1:
            raise ConfigError(
                f"{type(network).__name__} is no network of nasnet_zoo, and no wrapper that can be taken off one: give "
                f"the network itself"
            )
        known = COMPILED in parts or isinstance(inner, WRAPPERS) or type(inner).forward is nn.Module.forward
        patched = COMPILED not in parts and "forward" in vars(inner)  # torch.compile's forward is patched by itself
        if (not known or patched or _hooks(inner)) and unknown is None:
            unknown = inner
        inner = within
    return inner, unknown


@torch.no_grad()
def _described(network: Network) -> tuple[NetworkConfig, dict[str, Tensor]]:
    """The config that fits the network's classifier, and the network's weights by the names they had at first."""
    state = {_bare(key): value for key, value in without_counters(network.state_dict()).items()}
    for key, value in state.items():
        if value.is_meta or is_lazy(value):
            raise ConfigError(f"the network's {key} has no values yet: load or compute them, then try again")
    for name, module in network.named_modules():
        prefix = f"{_bare(name)}." if name else ""
        for tensor, value in _computed(module).items():
            parts = f"{prefix}parametrizations.{tensor}."
            others = {f"{prefix}{tensor}{suffix}" for suffix in COMPUTED_FROM}
            state = {key: kept for key, kept in state.items() if key not in others and not key.startswith(parts)}
            state[f"{prefix}{tensor}"] = value.detach()
    if not isinstance(network, ImageNetwork):
        return network.config, state
    head = getattr(network.classifier, COMPILED, network.classifier)
    if not isinstance(head, nn.Linear):
        raise ConfigError(
            f"the network's classifier is a {type(head).__name__}, and its config can describe a Linear only: put a "
            f"torch.nn.Linear there (network.reset_classifier does), and keep your own head outside the network"
        )
    weight = state.get("classifier.weight")
    if weight is not None and "classifier.bias" not in state:
        state["classifier.bias"] = weight.new_zeros(weight.shape[0])
    return with_classes(network.config, head.out_features), state


def _bare(name: str) -> str:
    """A module's or tensor's name without what torch.compile puts before the name of a part that it compiled."""
    return re.sub(rf"(^|\.){COMPILED}(?=\.|$)", "", name).lstrip(".")


def _computed(module: nn.Module) -> dict[str, Tensor]:
    """A module's tensors that are computed from others, as they are in eval mode; the module is left as it is."""
    found = {}
    if parametrize.is_parametrized(module):
        for name, parametrization in module.parametrizations.items():
            found[name] = copy.deepcopy(parametrization).eval()()  # in training, spectral norm moves its vectors
    hooks = [hook for hook in module._forward_pre_hooks.values() if isinstance(hook, COMPUTING_HOOKS)]
    if hooks:
        twin = copy.copy(module)  # a hook sets what it computes on the module that it is given
        twin.training = False
        for hook in hooks:
            hook(twin, ())
            name = hook._tensor_name if isinstance(hook, BasePruningMethod) else hook.name
            found[name] = getattr(twin, name)
    return found


def _check(state: dict[str, Tensor], made: Network) -> None:
    """Raises ConfigError unless these are the weights of the network that the config makes."""
    shapes = {key: tuple(value.shape) for key, value in made.state_dict().items()}
    for key in sorted(state.keys() - shapes.keys()):
        raise ConfigError(
            f"the network has {key}, which its config does not describe: remove what was added, or merge it into the "
            f"weights if it is an adapter, or keep the network with torch.save"
        )
    for key, shape in shapes.items():
        if key not in state:
            raise ConfigError(f"the network has no {key}, which its config describes: {UNDO}")
        if tuple(state[key].shape) != shape:
            classes = made.config.num_classes
            advice = f"call network.reset_classifier({classes}), which replaces both classifiers"
            raise ConfigError(
                f"the network's {key} is {tuple(state[key].shape)}, and its config makes it {shape}: "
                f"{advice if key.startswith('aux.classifier') else UNDO}"
            )


def _differences(network: Network, made: Network) -> Iterator[str]:
    """Says, for each module that may compute something else than the config's does, what is different about it."""
    theirs = {_bare(name): module for name, module in network.named_modules()}
    ours = dict(made.named_modules())
    for name, module in theirs.items():
        if name not in ours:
            if not re.search(r"(^|\.)parametrizations(\.|$)", name):
                yield f"the network has {name}, a {type(module).__name__}"
            continue
        where, expected = name or "the network", ours[name]
        kind = parametrize.type_before_parametrizations(module)
        if kind is not type(expected):
            yield f"{where} is a {kind.__name__}, not the {type(expected).__name__} of its config"
        for key in vars(module):
            if callable(getattr(type(module), key, None)):
                yield f"{where} has another {key}"
        if _hooks(module):
            yield f"{where} has a forward hook"
        for key, value in vars(expected).items():
            plain_value = not key.startswith("_") and isinstance(value, (int, float, str, tuple, type(None)))
            found = getattr(module, key, value)
            if plain_value and key not in TRAINING_ONLY and str(found) != str(value):
                yield f"{where} has {key} {found}, not {value}"
    for name in ours.keys() - theirs.keys():
        yield f"the network has no {name}"


def _hooks(module: nn.Module) -> bool:
    """Whether something else than torch's computing hooks runs before or after the module."""
    hooks = [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]
    return any(not isinstance(hook, COMPUTING_HOOKS) for hook in hooks)


@torch.inference_mode()
def _compare(network: nn.Module, made: Network, doubt: str) -> None:
    """Raises ConfigError, with the reason to doubt, unless both give the same logits for one picture."""
    first, config = next(made.parameters()), made.config
    generator = torch.Generator().manual_seed(0)
    picture = torch.randn(1, config.in_channels, *config.preprocess.size, generator=generator)
    picture = picture.to(first.device, first.dtype)
    expected = made(picture).float()
    try:
        with eval_mode(network):
            found = network(picture).float()
    except Exception as error:
        raise ConfigError(f"{doubt}, and it does not run ({first_line(error)}): {UNDO}") from error
    limit = CLOSE if first.dtype in (torch.float32, torch.float64) else CLOSE_IN_HALF
    largest = float(expected.abs().max()) or 1.0
    if found.shape != expected.shape or not float((found - expected).abs().max()) <= limit * largest:
        raise ConfigError(f"{doubt}, and its config cannot describe that: the logits would be others; {UNDO}")
