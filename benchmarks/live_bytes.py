"""How much memory the tensors of a forward pass take at its fullest, as torch's own dispatcher sees them."""

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of the tensors that are given to it and of those that operations put out, each storage once and
    until it dies, but not of those `apart`. What a kernel allocates for itself is not seen."""

    def __init__(self, apart: set[int]) -> None:
        super().__init__()
        self.apart, self.live, self.now, self.peak = apart, {}, 0, 0

    def see(self, value: Any) -> None:
        for tensor in tree_leaves(value):
            if not isinstance(tensor, Tensor):
                continue
            storage = tensor.untyped_storage()
            key = storage._cdata
            if key in self.live or key in self.apart:
                continue
            self.live[key] = storage.nbytes()
            self.now += storage.nbytes()
            weakref.finalize(storage, self._died, key)
        self.peak = max(self.peak, self.now)

    def _died(self, key: int) -> None:
        self.now -= self.live.pop(key)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        with self:  # an operation made of others is seen as those
            if (result := func.decompose(*args, **kwargs)) is not NotImplemented:
                return result
        result = func(*args, **kwargs)
        self.see(result)
        return result


def peak_bytes(network: nn.Module, x: Tensor, call: Callable[..., Any] | None = None) -> int:
    """The most bytes that the maps of `network(x)`, or of `call(x)`, hold at a time, x included and weights not."""
    weights = {tensor.untyped_storage()._cdata for tensor in (*network.parameters(), *network.buffers())}
    with torch.inference_mode(), LiveBytes(weights) as counted:
        counted.see(x)
        (call or network)(x)
    return counted.peak
