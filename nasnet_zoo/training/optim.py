"""Optimisers and learning rates, from a recipe."""

import math

import torch
from torch import Tensor, nn

from .recipe import Recipe

FIRST = 0.02  # of an epoch: the first steps of a warm-up learn a little too


def make_optimizer(network: nn.Module, recipe: Recipe) -> tuple[torch.optim.Optimizer, Tensor]:
    """The recipe's optimiser, and its learning rate: a 0-d tensor, which a captured step reads as it is then."""
    rate = torch.zeros((), device=next(network.parameters()).device)
    decayed = [p for p in network.parameters() if p.dim() > 1]
    others = [p for p in network.parameters() if p.dim() <= 1]
    optimizer = torch.optim.SGD(
        [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}],
        lr=rate,
        momentum=recipe.momentum,
        nesterov=True,
        fused=True,  # the others read a learning rate that is a tensor back from the device at every step
    )
    return optimizer, rate


def schedule(recipe: Recipe, done: float) -> float:
    """The learning rate after `done` epochs: a linear rise, then half a cosine down to zero."""
    if done < recipe.warmup_epochs:
        return recipe.learning_rate * (done + FIRST) / (recipe.warmup_epochs + FIRST)
    part = (done - recipe.warmup_epochs) / max(recipe.epochs - recipe.warmup_epochs, 1e-9)
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * part))
