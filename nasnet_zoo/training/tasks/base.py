"""What the training loop knows of a task."""

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from ...networks.network import Network

Batch = tuple[Tensor, ...]


@runtime_checkable
class Task(Protocol):
    """A thing to learn from data that lie on the network's device.

    `steps` is the number of batches in an epoch. `batches` gives an epoch's, all of the same shapes as far as may be
    (a captured step is made for each shape), drawing every random number from `generator`: the same generator state
    gives the same batches, so that a training that was interrupted within an epoch finds its place again. `loss` is a
    0-d tensor to be minimised, computed without a look at its value, which on a GPU would wait for it. `evaluate` is
    what the network is worth, by name.

    A task may have a method `close`, which is called when a training ends, however it does; and its batches a method
    `skip`, which leaves out so many of them without making them.
    """

    steps: int

    def batches(self, epoch: int, generator: torch.Generator) -> Iterator[Batch]: ...

    def loss(self, network: Network, *batch: Tensor) -> Tensor: ...

    def evaluate(self, network: Network) -> dict[str, float]: ...
