"""What users do to a network: ways that `save` and `to_onnx` keep, and ways that they refuse."""

import copy
import types
from contextlib import nullcontext

import torch
import torch.nn.utils.parametrizations as parametrizations
from random_networks import random_network
from torch import nn
from torch.nn.utils import parametrize, prune, spectral_norm, weight_norm
from torch.optim.swa_utils import AveragedModel

from nasnet_zoo.arch.genotypes import GENOTYPES


def small_network(**config):
    return random_network(GENOTYPES["NASNet-A"], stages=(1,), labels=tuple("abcdefg"), **config)


def convolutions(network):
    return [module for module in network.modules() if isinstance(module, nn.Conv2d)]


def logits_in_eager(network, x):
    """A compiled network's too: to compile it for a test would take seconds, as does what knows how not to."""
    compiled = any(module._compiled_call_impl or "_orig_mod" in name for name, module in network.named_modules())
    compiled = compiled or hasattr(network, "_orig_mod")
    with torch.inference_mode(), torch.compiler.set_stance("force_eager") if compiled else nullcontext():
        return network(x).float()


def change(network, how):
    """What the change gives, or the network if it gives nothing."""
    changed = how(network)
    return network if changed is None else changed


class Passing(nn.Module):
    """Somebody's own wrapper, which only hands on."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, x):
        return self.module(x)


class Scaling(Passing):
    def forward(self, x):
        return self.module(x * 2)


class Holding(nn.Module):
    """An average of weights that has no forward, as timm's ModelEmaV2."""

    def __init__(self, module):
        super().__init__()
        self.module = module


class Adapted(nn.Module):
    """A low-rank adapter beside a linear layer."""

    def __init__(self, base):
        super().__init__()
        self.base = base
        self.down, self.up = nn.Linear(base.in_features, 2), nn.Linear(2, base.out_features)
        self.out_features = base.out_features

    def forward(self, x):
        return self.base(x) + self.up(self.down(x))


class Rounded(nn.Module):
    """A parametrisation of a user's own."""

    def forward(self, weight):
        return (weight * 16).round() / 16


def averaged(network):
    average = AveragedModel(network)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(0.9)
    average.update_parameters(network)
    return average


def pruned(network):
    for conv in convolutions(network):
        prune.l1_unstructured(conv, "weight", 0.4)
    prune.random_unstructured(network.classifier, "bias", 0.5)
    first = convolutions(network)[0]
    prune.ln_structured(first, "weight", 0.3, n=2, dim=0)  # twice: a container
    with torch.no_grad():
        first.weight_orig.mul_(1.1)  # an optimiser's step; what was computed before is out of date


def spectral(network):
    network.train()
    parametrizations.spectral_norm(network.classifier)
    parametrizations.spectral_norm(convolutions(network)[0])
    network(torch.randn(2, 3, 32, 32))
    network.eval()


def old_norms(network):
    first, second = convolutions(network)[:2]
    weight_norm(first)
    spectral_norm(second)


def parametrized(network):
    parametrizations.weight_norm(network.classifier)
    for conv in convolutions(network):
        parametrize.register_parametrization(conv, "weight", Rounded())


def compiled_parts(network):
    network.stem["0"] = torch.compile(network.stem["0"], backend="eager")
    network.classifier = torch.compile(network.classifier, backend="eager")


def looked_at(network):
    seen = []
    network.stem["0"].register_forward_hook(lambda module, inputs, output: seen.append(output))


def replaced_parts(network):
    """Parts of every level are put in the place of others."""
    other = small_network()
    network.stem = copy.deepcopy(network.stem)
    with torch.no_grad():
        for parameter in network.stem.parameters():
            parameter.mul_(1.5)
    name = next(iter(other.cells))
    network.cells[name] = other.cells[name]


def tied(network):
    """Two convolutions with one weight, and a norm that stands in two places."""
    first, second = [conv for conv in convolutions(network) if conv.weight.shape[2:] == (5, 5)][:2]
    second.weight = first.weight
    chains = [module for module in network.modules() if isinstance(getattr(module, "bn", None), nn.BatchNorm2d)]
    one, other = [chain for chain in chains if chain.bn.num_features == chains[-1].bn.num_features][-2:]
    one.bn = other.bn


def in_place_relu(network):
    for module in network.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = not module.inplace


def wider(network):
    network.classifier = nn.Linear(network.num_features, 11)
    nn.init.normal_(network.classifier.weight)


def without_bias(network):
    network.classifier = nn.Linear(network.num_features, 7, bias=False)


KEPT = {
    "compiled": lambda network: torch.compile(network, backend="eager"),
    "compiled in place": lambda network: network.compile(backend="eager"),
    "parts compiled": compiled_parts,
    "DataParallel": nn.DataParallel,
    "averaged": averaged,
    "averaged and compiled and parallel": lambda network: torch.compile(
        nn.DataParallel(averaged(network)), backend="eager"
    ),
    "a wrapper of one's own": Passing,
    "a wrapper without a forward": Holding,
    "pruned": pruned,
    "pruned in a wrapper": lambda network: pruned(network) or nn.DataParallel(network),
    "parametrised": parametrized,
    "spectral norm": spectral,
    "weight and spectral norm of old": old_norms,
    "SyncBatchNorm": nn.SyncBatchNorm.convert_sync_batchnorm,
    "looked at by a hook": looked_at,
    "replaced parts": replaced_parts,
    "tied": tied,
    "half": lambda network: network.bfloat16(),
    "channels last": lambda network: network.to(memory_format=torch.channels_last),
    "partly frozen": lambda network: network.stem.requires_grad_(False) and None,
    "no ReLU in place": in_place_relu,
    "another classifier": wider,
    "a classifier without bias": without_bias,
}


def widened(network):
    conv = network.stem["0"].conv
    network.stem["0"].conv = nn.Conv2d(4, conv.out_channels, conv.kernel_size, bias=False)


def other_stride(network):
    convolutions(network)[1].stride = (2, 2)


def other_forward(network):
    forward = network.forward
    network.forward = types.MethodType(lambda self, x: forward(x).softmax(1), network)


def other_head(network):
    head = network.forward_head
    network.forward_head = lambda x, pre_logits=False: head(x, pre_logits) * 3


def hooked(wrap):
    """A change that looks harmless, but for a hook on the wrapper."""

    def how(network):
        wrapped = wrap(network)
        wrapped.register_forward_hook(lambda module, inputs, output: output.softmax(1))
        return wrapped

    return how


def patched_wrapper(network):
    wrapped = nn.DataParallel(network)
    wrapped.forward = lambda x: network(x) * 2
    return wrapped


def with_classifier(make):
    """A change that puts what it makes of the old classifier in its place."""
    return lambda network: setattr(network, "classifier", make(network.classifier))


# Each with what the sentence names.
REFUSED = {
    "Identity": (with_classifier(lambda old: nn.Identity()), "classifier is a Identity"),
    "a head of two layers": (
        with_classifier(lambda old: nn.Sequential(nn.Dropout(), nn.Linear(old.in_features, 7))),
        "classifier is a Sequential",
    ),
    "an adapter": (
        lambda network: setattr(network, "classifier", Adapted(network.classifier)),
        "classifier is a Adapted",
    ),
    "a classifier of another width": (
        lambda network: setattr(network, "classifier", nn.Linear(5, 7)),
        r"classifier.weight is \(7, 5\)",
    ),
    "another first layer": (widened, r"stem.0.conv.weight is \(6, 4, 3, 3\)"),
    "a part more": (lambda network: network.add_module("neck", nn.Linear(3, 3)), "has neck.bias"),
    "a part less": (lambda network: delattr(network.stem["0"], "bn"), "no stem.0.bn.weight"),
    "another activation": (lambda network: network.stem["0"].add_module("act", nn.Sigmoid()), "stem.0.act, a Sigmoid"),
    "another stride": (other_stride, "stride"),
    "another eps": (lambda network: setattr(network.stem["0"].bn, "eps", 1.0), "stem.0.bn has eps 1.0, not 0.001"),
    "a hook that changes what it sees": (
        lambda network: network.stem["0"].register_forward_hook(lambda module, inputs, output: output * 2) and None,
        "stem.0 has a forward hook",
    ),
    "another forward": (other_forward, "another forward"),
    "another head": (other_head, "another forward_head"),
    "a hook on DataParallel": (hooked(nn.DataParallel), "wrapper DataParallel"),
    "a hook on torch.compile": (
        hooked(lambda network: torch.compile(network, backend="eager")),
        "wrapper OptimizedModule",
    ),
    "DataParallel with another forward": (patched_wrapper, "wrapper DataParallel"),
    "a wrapper that computes": (Scaling, "wrapper Scaling"),
    "a sequence": (lambda network: nn.Sequential(network, nn.Softmax(1)), "Sequential is no network of nasnet_zoo"),
    "some other network": (lambda network: nn.Linear(3, 4), "Linear is no network of nasnet_zoo"),
}
