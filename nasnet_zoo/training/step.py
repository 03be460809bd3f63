"""One step of a training, and its capture as a CUDA graph."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..networks.network import Network
from .recipe import Recipe

WARMUP_STEPS = 3  # torch's own figure: allocators and autotuners settle, momenta come to be


class TrainingStep:
    """Called with a batch, does one step of SGD and returns the detached loss without waiting for it.

    On a GPU the first steps at a picture size run as they are; then one is captured, and the rest are replays: a cell
    is hundreds of tiny kernels, and a replay launches them all at once. What changes from step to step, learning
    rate and drop path's progress, lies in tensors that the captured kernels read.
    """

    def __init__(self, network: Network, optimizer: torch.optim.Optimizer, recipe: Recipe) -> None:
        self.network, self.optimizer, self.recipe = network, optimizer, recipe
        self.seen: dict[torch.Size, int] = {}
        self.graphs: dict[torch.Size, _Graph] = {}

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        if self.recipe.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        if images.device.type != "cuda":
            return self.eager(images, labels)
        with torch.cuda.device(images.device):  # streams, captures and Triton go to the current one
            return self.captured(images, labels)

    def captured(self, images: Tensor, labels: Tensor) -> Tensor:
        shape = images.shape
        self.seen[shape] = self.seen.get(shape, 0) + 1
        if self.seen[shape] <= WARMUP_STEPS:
            return _aside(self.eager, images, labels)
        if shape not in self.graphs:
            self.graphs[shape] = _Graph(self, images, labels)
        return self.graphs[shape](images, labels)

    def eager(self, images: Tensor, labels: Tensor) -> Tensor:
        network, recipe, device = self.network, self.recipe, images.device.type
        half = recipe.precision == "bfloat16" or (recipe.precision == "auto" and device == "cuda")
        with torch.autocast(device, torch.bfloat16, enabled=half):
            out = network(images)
            logits, aux = out if isinstance(out, tuple) else (out, None)
            loss = F.cross_entropy(logits, labels, label_smoothing=recipe.label_smoothing)
            if aux is not None:
                aux_loss = F.cross_entropy(aux, labels, label_smoothing=recipe.label_smoothing)
                loss = loss + recipe.aux_weight * aux_loss
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), recipe.clip_norm)
        self.optimizer.step()
        return loss.detach()


class _Graph:
    """A captured step and the memory that it reads its batch from."""

    def __init__(self, step: TrainingStep, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels = torch.empty_like(images), torch.empty_like(labels)
        self.graph = torch.cuda.CUDAGraph()
        step.optimizer.zero_grad(set_to_none=True)  # gradients are to live in the graph's own memory
        with torch.cuda.graph(self.graph):
            self.loss = step.eager(self.images, self.labels)

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        self.images.copy_(images)
        self.labels.copy_(labels)
        self.graph.replay()
        return self.loss


def _aside(function, *arguments: Tensor) -> Tensor:
    """Runs a function on a stream of its own, as what is captured later must have been."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        result = function(*arguments)
    torch.cuda.current_stream().wait_stream(stream)
    return result
