"""The most probable classes of pictures."""

import torch

from ..data.images import ImageSource
from ..data.prediction import Prediction, ranked
from ..errors import ConfigError, ImageError
from .network import Network


def predict(
    network: Network, images: ImageSource | list[ImageSource], k: int = 5, batch_size: int = 32
) -> list[Prediction] | list[list[Prediction]]:
    """The k most probable classes, the most probable first: a list for one image, a list of lists for a list.

    An image is whatever `images.open_image` takes; a k above the number of classes gives all of them. Runs in eval
    mode where the network is, in its dtype, and leaves its modes as they were. Raises ImageError, naming the image,
    and ConfigError for a k or batch_size below 1 or a network that takes no pictures.
    """
    if k < 1 or batch_size < 1:
        raise ConfigError(f"k {k} and batch_size {batch_size} must be at least 1")
    sources = images if isinstance(images, (list, tuple)) else [images]
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        results = []
        for start in range(0, len(sources), batch_size):
            results += _predict_batch(network, sources, range(start, min(start + batch_size, len(sources))), k)
    finally:
        for module, mode in modes.items():
            module.training = mode
    return results if sources is images else results[0]


@torch.inference_mode()
def _predict_batch(network: Network, sources: list[ImageSource], indices: range, k: int) -> list[list[Prediction]]:
    transform, labels, weight = network.transform, network.labels, network.classifier.weight
    tensors = []
    for i in indices:
        try:
            tensors.append(transform(sources[i]))
        except ImageError as error:
            raise ImageError(f"image {i + 1} of {len(sources)}: {error}" if len(sources) > 1 else str(error)) from error
    logits = network(torch.stack(tensors).to(weight.device, weight.dtype))
    return [ranked(row, labels, k) for row in logits.float().cpu().numpy()]
