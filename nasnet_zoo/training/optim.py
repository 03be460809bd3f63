"""Optimisers, their groups and learning rates, and averages of weights, from a recipe."""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..networks.network import Network
from .recipe import Recipe

FIRST = 0.02  # of an epoch: the first steps of a warm-up learn a little too


def make_optimizer(network: Network, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimiser over all parameters of the network.

    Each group's "lr" is a 0-d tensor, which a captured step reads as it is then, and its "scale" is what `set_rate`
    multiplies the rate with. Batch norms and biases have no weight decay.
    """
    depths = network.depths() if recipe.layer_decay < 1 else {}
    deepest = max(depths.values(), default=0)
    members: dict[tuple[int, bool], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        members.setdefault((deepest - depths.get(name, deepest), parameter.dim() > 1), []).append(parameter)
    device = next(network.parameters()).device
    groups: list[dict[str, Any]] = [
        {
            "params": members[below, decayed],
            "weight_decay": recipe.weight_decay if decayed else 0.0,
            "lr": torch.zeros((), device=device),
            "scale": recipe.layer_decay**below,
        }
        for below, decayed in sorted(members, key=lambda key: (key[0], not key[1]))
    ]
    # `fused`: the others read a learning rate that is a tensor back from the device at every step.
    if recipe.optimizer == "sgd":
        optimizer = torch.optim.SGD(groups, momentum=recipe.momentum, nesterov=recipe.nesterov, fused=True)
        # 0 is how momenta begin. `fused` fails where only some of a group have one, as others have not learned yet.
        for parameter in filter(lambda parameter: parameter.requires_grad, network.parameters()):
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        return optimizer
    if recipe.optimizer == "adamw":
        betas = (recipe.momentum, recipe.square_decay)
        captured = device.type == "cuda"  # or torch refuses to capture it
        return torch.optim.AdamW(groups, betas=betas, eps=recipe.epsilon, fused=True, capturable=captured)
    return RMSpropTF(groups, recipe.square_decay, recipe.momentum, recipe.epsilon)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Sets the learning rate of every group, by its scale."""
    for group in optimizer.param_groups:
        group["lr"].fill_(rate * group["scale"])


def schedule(recipe: Recipe, done: float) -> float:
    """The learning rate after `done` epochs."""
    if done < recipe.head_epochs:
        return recipe.learning_rate
    done, epochs = done - recipe.head_epochs, recipe.epochs - recipe.head_epochs
    if done < recipe.warmup_epochs:
        return recipe.learning_rate * (done + FIRST) / (recipe.warmup_epochs + FIRST)
    if recipe.schedule == "cosine":
        part = (done - recipe.warmup_epochs) / max(epochs - recipe.warmup_epochs, 1e-9)
        return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * part))
    periods = done / recipe.decay_epochs
    power = {"exponential": periods, "step": math.floor(periods), "constant": 0.0}[recipe.schedule]
    return recipe.learning_rate * recipe.decay_rate**power


class RMSpropTF(torch.optim.Optimizer):
    """RMSProp as TensorFlow computes it, which with an epsilon of 1.0 is another optimiser than torch's: the epsilon
    stands inside the root, the mean square begins at 1, and the rate is taken when a gradient enters the momentum.

        square ← square_decay · square + (1 − square_decay) · g²
        velocity ← momentum · velocity + lr · g / √(square + epsilon)
        w ← w − velocity

    `weight_decay` · w is part of the gradient g, as TF-slim's L2 loss makes it.
    """

    def __init__(self, params: Iterable[Any], square_decay: float, momentum: float, epsilon: float) -> None:
        defaults = {"lr": 0.0, "square_decay": square_decay, "momentum": momentum, "epsilon": epsilon}
        super().__init__(params, {**defaults, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:
        for group in self.param_groups:
            weights = [parameter for parameter in group["params"] if parameter.grad is not None]
            if not weights:
                continue
            for weight in weights:
                if not self.state[weight]:
                    self.state[weight]["square"] = torch.ones_like(weight)
                    self.state[weight]["velocity"] = torch.zeros_like(weight)
            gradients = [weight.grad for weight in weights]
            if group["weight_decay"]:
                gradients = list(torch._foreach_add(gradients, weights, alpha=group["weight_decay"]))
            squares = [self.state[weight]["square"] for weight in weights]
            velocities = [self.state[weight]["velocity"] for weight in weights]
            torch._foreach_mul_(squares, group["square_decay"])
            torch._foreach_addcmul_(squares, gradients, gradients, 1 - group["square_decay"])
            roots = torch._foreach_add(squares, group["epsilon"])
            torch._foreach_sqrt_(roots)
            moves = torch._foreach_div(gradients, roots)
            torch._foreach_mul_(moves, group["lr"])
            torch._foreach_mul_(velocities, group["momentum"])
            torch._foreach_add_(velocities, moves)
            torch._foreach_sub_(weights, velocities)


class Average:
    """An exponential moving average of a network's weights and statistics.

    After n steps its decay is min(decay, (1 + n) / (10 + n)), as tf.train.ExponentialMovingAverage has it when it knows
    the step, so that the first weights are soon forgotten.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        state = network.state_dict(keep_vars=True)
        self.names = [name for name, value in state.items() if value.is_floating_point()]
        self.live = [state[name].detach() for name in self.names]
        self.tensors = [value.clone() for value in self.live]

    @torch.no_grad()
    def update(self, steps: int) -> None:
        """Takes the network in as it is after so many steps."""
        decay = min(self.decay, (1 + steps) / (10 + steps))
        torch._foreach_lerp_(self.tensors, self.live, 1 - decay)

    def swap(self) -> None:
        """The network gets the average, and this keeps what the network had."""
        for mine, live in zip(self.tensors, self.live):
            kept = live.clone()
            live.copy_(mine)
            mine.copy_(kept)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside the block the network has the average."""
        self.swap()
        try:
            yield
        finally:
            self.swap()

    def state_dict(self) -> dict[str, Tensor]:
        return dict(zip(self.names, self.tensors))

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        for name, mine in zip(self.names, self.tensors):
            mine.copy_(state[name])
