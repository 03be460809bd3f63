"""One training in several processes, each with its share of every batch. Alone, all of this does nothing."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from ..errors import ConfigError, ZooError, first_line

TIMEOUT = timedelta(minutes=10)  # for the slowest process to come to the same point


def rank() -> int:
    """This process's number, from 0."""
    return dist.get_rank() if _begun() else 0


def world() -> int:
    """How many processes there are."""
    return dist.get_world_size() if _begun() else 1


def _begun() -> bool:
    return dist.is_available() and dist.is_initialized()


def first() -> bool:
    """Whether this is the one process that writes files and says something."""
    return rank() == 0


@contextmanager
def processes(device: str | None = None) -> Iterator[str]:
    """Joins the processes that torchrun has started, if it has, and yields this one's device: `device` or else a GPU of
    its own if there are any.

    Raises ConfigError for more processes than GPUs, and ZooError if the processes do not find each other.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ and "LOCAL_RANK" not in os.environ or _begun():
        yield device or ("cuda" if torch.cuda.is_available() else "cpu")
        return
    local = int(os.environ.get("LOCAL_RANK", 0))
    kind, _, number = (device or ("cuda" if torch.cuda.is_available() else "cpu")).partition(":")
    if number:
        raise ConfigError(f"each process has a GPU of its own, and {device} is one for all: give --device {kind}")
    if kind == "cuda":
        if local >= torch.cuda.device_count():
            raise ConfigError(
                f"process {local} of this machine finds {torch.cuda.device_count()} GPUs: start torchrun with "
                f"--nproc-per-node {torch.cuda.device_count() or 1}, or with --device cpu"
            )
        device = f"cuda:{local}"
        torch.cuda.set_device(device)
    else:
        device = kind
    try:
        _join("cpu:gloo,cuda:nccl" if kind == "cuda" else "gloo")
    except (RuntimeError, ValueError, OSError) as error:
        raise ZooError(
            f"the processes do not find each other ({first_line(error)}): check --rdzv-endpoint of torchrun"
        ) from error
    try:
        yield device
    except RuntimeError as error:
        if isinstance(error, dist.DistError) or "gloo" in str(error):
            raise ZooError("another process of this training has ended: what it says of that is the reason") from error
        raise
    finally:
        dist.destroy_process_group()


def _join(backend: str) -> None:
    """Joins the group of processes. torchrun keeps one store for all attempts: without a prefix, processes that it has
    started again would look for those of the attempt before."""
    from torch.distributed.rendezvous import rendezvous

    store, number, count = next(rendezvous("env://", timeout=TIMEOUT))
    attempt = dist.PrefixStore(f"attempt {os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
    dist.init_process_group(backend, store=attempt, rank=number, world_size=count, timeout=TIMEOUT)


def step_seed(seed: int, epoch: int, step: int, rank: int) -> int:
    """Of what a network draws in a step, such as which paths it drops: other ones in each process. Drawn anew for every
    step, so that no process's place in its random numbers needs to be kept."""
    return (((seed * 100_003 + epoch) * 100_003 + step) * 10_007 + rank) % 2**63


def share(count: int) -> slice:
    """Which of a batch's `count` pictures are this process's; the count is a multiple of the processes."""
    each = count // world()
    return slice(rank() * each, (rank() + 1) * each)


def anywhere(flags: Sequence[bool]) -> list[bool]:
    """Each flag, True if it is so in any process: what all of them must do together."""
    if world() == 1:
        return list(flags)
    found = torch.tensor(flags, dtype=torch.int32)  # on the CPU, so that no GPU is waited for
    dist.all_reduce(found, dist.ReduceOp.MAX)
    return found.bool().tolist()


def same_everywhere(numbers: Sequence[int]) -> bool:
    """Whether all processes have the same numbers."""
    if world() == 1:
        return True
    most = torch.tensor([*numbers, *(-number for number in numbers)])
    dist.all_reduce(most, dist.ReduceOp.MAX)
    highest, lowest = most[: len(numbers)], -most[len(numbers) :]
    return torch.equal(highest, lowest)


def summed(value: Tensor) -> Tensor:
    """The sum over all processes, on the value's device."""
    if world() > 1:
        dist.all_reduce(value)
    return value


def average_(tensors: Sequence[Tensor]) -> None:
    """Puts into the tensors of each process their mean over all processes."""
    if world() == 1 or not tensors:
        return
    flat = summed(torch.cat([tensor.reshape(-1) for tensor in tensors])) / world()
    parts = flat.split([tensor.numel() for tensor in tensors])
    torch._foreach_copy_(list(tensors), [part.view_as(tensor) for part, tensor in zip(parts, tensors)])
