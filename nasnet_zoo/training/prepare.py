"""Setting up a network for a training as its recipe wants it, and leaving it as it was."""

import logging
import os
from importlib.util import find_spec
from types import TracebackType

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..errors import ConfigError
from ..networks.layers import Chain
from ..networks.network import Network
from .distributed import world
from .recipe import Recipe

log = logging.getLogger("nasnet_zoo")


def prepare(network: Network, recipe: Recipe) -> None:
    """Sets a network up as a recipe wants it, whatever the phase."""
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.momentum = recipe.bn_momentum
    network.regularize(drop_path_keep=recipe.drop_path_keep, dropout=recipe.dropout)
    if recipe.channels_last:
        network.to(memory_format=torch.channels_last)
    use_separable(network, recipe)


def use_separable(network: Network, recipe: Recipe) -> None:
    """Sets how the network computes its separable convolutions in training. Raises ConfigError where it cannot."""
    run = None
    if recipe.separable == "fused":
        able = next(network.parameters()).is_cuda or os.environ.get("TRITON_INTERPRET") == "1"
        if not able or not find_spec("triton"):
            raise ConfigError('separable "fused" needs a GPU and Triton: leave it out of the recipe')
        if not recipe.channels_last or recipe.compile or recipe.sync_norms:
            raise ConfigError(
                'separable "fused" needs channels_last, and neither compile nor sync_norms: leave one of them out of '
                "the recipe"
            )
        from .separable import run_fused as run  # Triton comes with torch on Linux alone

        log.info("separable convolutions: by the fused kernels")
    for module in network.modules():
        if isinstance(module, Chain):
            module.separable = run


class Phases:
    """Which parameters and batch norms learn: in the recipe's first epochs the classifier alone.

    To be entered before the first epoch. However the training ends, the network is then in eval mode, and what could
    learn before can learn again.

    Raises ConfigError for a network that cannot learn so.
    """

    def __init__(self, network: Network, recipe: Recipe) -> None:
        self.network, self.recipe = network, recipe
        self.heads = {parameter for head in network.heads() for parameter in head.parameters()}
        self.learning = [parameter for parameter in network.parameters() if parameter.requires_grad]
        if not self.learning:
            raise ConfigError("none of the network's parameters can learn: set requires_grad on those that are to")
        if recipe.head_epochs and self.heads.isdisjoint(self.learning):
            raise ConfigError("this network has no classifier that could learn first: give a recipe with head_epochs 0")
        self.replaced: list[tuple[nn.Module, str, nn.Module]] = []

    def __enter__(self) -> "Phases":
        if not self.network.training:
            self.network.train()
        if self.recipe.sync_norms and world() > 1:
            self._synchronise()
        self.norms = [norm for norm in self.network.modules() if isinstance(norm, _BatchNorm) and norm.training]
        return self

    def begin(self, epoch: int) -> bool:
        """Sets the network up for an epoch; whether all of it learns."""
        whole = epoch >= self.recipe.head_epochs
        for parameter in self.learning:
            parameter.requires_grad_(whole or parameter in self.heads)
        for norm in self.norms:
            norm.train(whole and not self.recipe.freeze_norms)
        return whole

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for parent, name, norm in self.replaced:
            parent._modules[name] = norm
        for parameter in self.learning:
            parameter.requires_grad_(True)
        self.network.eval()
        self.network.progress.fill_(1)

    def _synchronise(self) -> None:
        """Puts norms that compute their statistics over all processes, from the same tensors, in place of those that
        learn; torch has them for GPUs alone."""
        if not next(self.network.parameters()).is_cuda:
            raise ConfigError("sync_norms needs GPUs: leave it out of the recipe on a CPU")
        for parent in list(self.network.modules()):
            for name, norm in list(parent.named_children()):
                if isinstance(norm, _BatchNorm) and norm.training:
                    self.replaced.append((parent, name, norm))
                    parent._modules[name] = nn.SyncBatchNorm.convert_sync_batchnorm(norm)
