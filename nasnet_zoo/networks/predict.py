"""The most probable classes of pictures."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..data.images import ImageSource
from ..data.prediction import Prediction, ranked
from ..errors import ConfigError, ImageError


def predict(
    network: nn.Module,
    transform: Callable[[ImageSource], Tensor],
    labels: Sequence[str] | None,
    images: ImageSource | list[Any] | tuple[Any, ...],
    k: int,
    batch_size: int,
) -> list[Prediction] | list[list[Prediction]]:
    """`ImageNetwork.predict` for a classifier in eval mode; runs where its weights are, in their dtype."""
    if k < 1 or batch_size < 1:
        raise ConfigError(f"k {k} and batch_size {batch_size} must be at least 1")
    sources = images if isinstance(images, (list, tuple)) else [images]
    results: list[list[Prediction]] = []
    for start in range(0, len(sources), batch_size):
        batch = [_prepared(transform, sources, i) for i in range(start, min(start + batch_size, len(sources)))]
        results += [ranked(row, labels, k) for row in _logits(network, torch.stack(batch))]
    return results if sources is images else results[0]


def _prepared(transform: Callable[[ImageSource], Tensor], sources: Sequence[ImageSource], i: int) -> Tensor:
    try:
        return transform(sources[i])
    except ImageError as error:
        raise ImageError(f"image {i + 1} of {len(sources)}: {error}" if len(sources) > 1 else str(error)) from error


@torch.inference_mode()
def _logits(network: nn.Module, batch: Tensor):
    weight = next(network.parameters())
    return network(batch.to(weight.device, weight.dtype)).float().cpu().numpy()
