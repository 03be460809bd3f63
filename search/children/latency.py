"""How long a network takes for a picture, measured on the device on which the children are trained."""

import copy
import time
from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor

from nasnet_zoo.networks.network import Network

WARMUP, LEAST_PASSES = 2, 3
SECONDS = 0.2  # that are spent on a batch's size, if LEAST_PASSES take no longer


def latency_ms(network: Network, batch: int, device: str) -> float:
    """Milliseconds for the forward pass of a batch in inference: the shortest pass of those in SECONDS, because what
    else the machine does only makes a pass longer. Changes neither the network nor the random numbers.

    On a CPU in float32 and with as many threads as torch uses now; on a GPU in float16 and channels_last as a CUDA
    graph, because a child's cell is hundreds of small kernels, whose launches would be all that is measured.
    """
    generator = torch.Generator().manual_seed(0)
    channels, size = network.config.in_channels, network.config.preprocess.size
    pictures = torch.randn(batch, channels, *size, generator=generator).to(device)
    network = copy.deepcopy(network).eval()
    if torch.device(device).type == "cuda":
        network = network.to(torch.float16, memory_format=torch.channels_last)
        pictures = pictures.to(torch.float16, memory_format=torch.channels_last)
    # Streams, captures and waits are of the current device, which is the first one, whatever the worker's is.
    with torch.inference_mode(), torch.cuda.device(pictures.device) if pictures.is_cuda else nullcontext():
        run = _captured(network, pictures) if pictures.is_cuda else lambda: network(pictures)
        return _shortest(run, torch.cuda.synchronize if pictures.is_cuda else lambda: None)


def _captured(network: Network, pictures: Tensor) -> Callable[[], object]:
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARMUP):
            network(pictures)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        network(pictures)
    return graph.replay


def _shortest(run: Callable[[], object], wait: Callable[[], None]) -> float:
    """Milliseconds."""
    for _ in range(WARMUP):
        run()
    wait()
    times: list[float] = []
    begun = time.perf_counter()
    while len(times) < LEAST_PASSES or time.perf_counter() - begun < SECONDS:
        start = time.perf_counter()
        run()
        wait()
        times.append(time.perf_counter() - start)
    return 1000 * min(times)
