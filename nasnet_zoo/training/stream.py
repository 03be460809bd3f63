"""Pictures that are read from files while a network trains on them, by worker processes.

A picture's random numbers depend on the epoch's seed and on its place in the data, on nothing else: an epoch is the
same with any number of workers and processes, and can begin at any step.
"""

import logging
import math
import os
import signal
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..arch.preprocess import Preprocess
from ..data.folders import Labelled
from ..data.images import ImageSource, open_image, prepare, resized
from ..errors import ConfigError, DataError, ImageError, TrainingError
from .distributed import share
from .recipe import Recipe

ASPECTS = (3 / 4, 4 / 3)  # of Inception's crops
BROKEN_SHARE = 0.01  # of the pictures that may be unreadable, and
BROKEN_LEAST = 10  # so many in any case
SOCKET_PATH = 107 if sys.platform == "linux" else 103  # bytes that the path of a socket may have

Reading = Generator[tuple[Tensor, Tensor], None, None]

log = logging.getLogger("nasnet_zoo")


class Key(NamedTuple):
    """Which picture, and how: the epoch's `seed` and `side`, or as for an evaluation if there is no seed."""

    index: int
    seed: int | None = None
    side: int = 0


class Sources:
    """Pictures as one block of memory. Workers are forks: a list of a million names would be copied into each of them,
    object by object, as they count references to them."""

    def __init__(self, pictures: Labelled) -> None:
        self.labels = np.fromiter((label for _, label in pictures), np.int64, len(pictures))
        sources = [source for source, _ in pictures]
        self.arrays = None
        if sources and all(isinstance(source, np.ndarray) for source in sources):
            self.arrays = sources
            return
        names = [os.fsencode(source) for source in sources]
        self.ends = np.cumsum([len(name) for name in names])
        self.names = np.frombuffer(b"".join(names), np.uint8)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> ImageSource:
        if self.arrays is not None:
            return self.arrays[index]
        start = self.ends[index - 1] if index else 0
        return os.fsdecode(self.names[start : self.ends[index]].tobytes())

    def name(self, index: int) -> str:
        """What a picture is called in a sentence; bytes that are no UTF-8 are escaped, or no log could hold it."""
        if self.arrays is not None:
            return f"array {index}"
        return str(self[index]).encode(errors="backslashreplace").decode()


@dataclass
class Samples(Dataset[tuple[Tensor, int, int]]):
    """What a worker makes of a Key: (picture, label, the index of a broken one in whose place it stands, or -1). For
    training it is uint8 (c, h, w), cropped, flipped and coloured; for evaluation as `prepare` makes it. The label is -1
    if there is nothing that could stand in its place."""

    sources: Sources
    recipe: Recipe
    preprocess: Preprocess
    channels: int

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, key: Key) -> tuple[Tensor, int, int]:
        try:
            return self._made(key, key.index), int(self.sources.labels[key.index]), -1
        except ImageError:
            if key.seed is None:
                return torch.zeros(self.channels, *self.preprocess.size), -1, key.index
        # Not at random, so that it is mostly of the same class.
        for step in range(1, min(len(self), 100)):
            other = (key.index + step) % len(self)
            try:
                return self._made(key, other), int(self.sources.labels[other]), key.index
            except ImageError:
                continue
        size = _at(self.preprocess, key.side).size
        return torch.zeros(self.channels, *size, dtype=torch.uint8), -1, key.index

    def _made(self, key: Key, index: int) -> Tensor:
        source = self.sources[index]
        if key.seed is None:
            return torch.from_numpy(prepare(source, self.preprocess, self.channels))
        with torch.random.fork_rng(devices=[]):
            # Not torch.manual_seed: that would seed the GPU's generator too, which nothing here puts back.
            torch.default_generator.manual_seed((key.seed * 1_000_003 + index) % 2**63)
            return trained(source, self.recipe, self.preprocess, self.channels, key.side)


def trained(source: ImageSource, recipe: Recipe, preprocess: Preprocess, channels: int, side: int) -> Tensor:
    """A picture as a training sees it before it is normalised, uint8 (channels, side, side), augmented with torch's
    global random numbers. Raises ImageError."""
    pad = round(recipe.pad * side / preprocess.size[0])
    preprocess = _at(preprocess, side)
    full = preprocess.size
    if recipe.crop == "inception":
        image = open_image(source)
        left, top, width, height = inception_crop(image.width, image.height, recipe.crop_area)
        picture = _tensor(image.crop((left, top, left + width, top + height)))
        # Interpolated as for an evaluation, or the network would be shown sharper or softer pictures there.
        picture = _scaled(picture, full, preprocess.interpolation, preprocess.antialias)
    else:
        picture = _tensor(resized(source, preprocess, 3))
        if recipe.enlarge:
            picture = _scaled(picture, (full[0] + 2 * pad, full[1] + 2 * pad), preprocess.interpolation, False)
        else:
            picture = F.pad(picture, (pad, pad, pad, pad))
        top, left = (int(torch.randint(2 * pad + 1, ())) for _ in range(2))
        picture = picture[:, top : top + full[0], left : left + full[1]]
    if recipe.flip and torch.rand(()) < 0.5:
        picture = picture.flip(2)
    if recipe.brightness or recipe.saturation:
        picture = _coloured(picture, recipe)
    if recipe.rand_augment:
        from torchvision.transforms import v2

        picture = v2.RandAugment(2, recipe.rand_augment, fill=[127] * 3)(picture)
    if channels == 1:
        picture = _grey(picture.float()).round_().to(torch.uint8).unsqueeze(0)
    return picture.contiguous()


def _at(preprocess: Preprocess, side: int) -> Preprocess:
    """The preprocessing at a side in pixels, which is the full height or that of a square."""
    return preprocess if side == preprocess.size[0] else replace(preprocess, size=(side, side))


def inception_crop(width: int, height: int, least: float) -> tuple[int, int, int, int]:
    """(left, top, width, height) of a random part of a picture: of a share of its area from `least` to 1 and an aspect
    from 3/4 to 4/3; after ten that do not fit, the middle."""
    for _ in range(10):
        area = float(torch.empty(()).uniform_(least, 1)) * width * height
        aspect = math.exp(float(torch.empty(()).uniform_(*map(math.log, ASPECTS))))
        wide, tall = round((area * aspect) ** 0.5), round((area / aspect) ** 0.5)
        if 0 < wide <= width and 0 < tall <= height:
            left, top = (int(torch.randint(rest + 1, ())) for rest in (width - wide, height - tall))
            return left, top, wide, tall
    wide, tall = min(width, max(1, round(height * ASPECTS[1]))), min(height, max(1, round(width / ASPECTS[0])))
    return (width - wide) // 2, (height - tall) // 2, wide, tall


def _tensor(image: Image.Image | np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def _scaled(picture: Tensor, size: tuple[int, int], interpolation: str, antialias: bool) -> Tensor:
    # torchvision would take the way over floats on processors with AVX-512, three times as long.
    return F.interpolate(picture.unsqueeze(0), size, mode=interpolation, antialias=antialias).squeeze(0)


def _coloured(picture: Tensor, recipe: Recipe) -> Tensor:
    """TF-slim's fast colours: brightness added, saturation multiplied, in random order."""
    value = picture.float()
    shift = 255 * float(torch.empty(()).uniform_(-recipe.brightness, recipe.brightness))
    factor = float(torch.empty(()).uniform_(1 - recipe.saturation, 1 + recipe.saturation))
    for step in torch.randperm(2).tolist():
        if step:
            value.add_(shift).clamp_(0, 255)
        else:
            value = _grey(value).lerp(value, factor).clamp_(0, 255)
    return value.round_().to(torch.uint8)


def _grey(value: Tensor) -> Tensor:
    """The brightness of each pixel, as in Pillow: (height, width) of float (3, height, width)."""
    return value[0].mul(0.299).add_(value[1], alpha=0.587).add_(value[2], alpha=0.114)


class Stream:
    """Labelled pictures in batches, in the order that it is told.

    Args:
        pictures: paths, or arrays, with their classes.
        workers: how many processes read them; 0 reads them in this one.
    """

    def __init__(
        self, pictures: Labelled, recipe: Recipe, preprocess: Preprocess, channels: int, workers: int | None
    ) -> None:
        self.samples = Samples(Sources(pictures), recipe, preprocess, channels)
        self.workers = default_workers() if workers is None else workers
        self.order = _Order()
        self.broken: set[int] = set()
        self.loader: DataLoader | None = None
        self.reading: Reading | None = None

    def __len__(self) -> int:
        return len(self.samples)

    def batches(self, order: Iterable[Sequence[Key]], device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
        """(pictures, labels) of each batch of keys, on the device; those that cannot be read are told and counted, and
        have the label -1 where they have no seed. Raises DataError if they are too many, and TrainingError if a worker
        dies."""
        self.reading = self._read(order, device)
        yield from _ahead(self.reading, device)

    def close(self) -> None:
        """Ends the workers; they begin anew when they are needed. Python would end them with the last reference to
        them, which a traceback may hold, and takes seconds for each if they are found by the garbage collector."""
        if self.reading is not None:
            self.reading.close()
        self.loader = self.reading = None

    def _read(self, order: Iterable[Sequence[Key]], device: torch.device) -> Reading:
        self.order.batches = order
        try:
            for images, labels, broken in self._started(device):
                self._tell(broken[broken >= 0].tolist())
                if images.dtype == torch.uint8 and (labels < 0).any():
                    name = self.samples.sources.name(int(broken[labels < 0][0]))
                    raise DataError(f"{name} and the pictures after it cannot be read: mend or replace them")
                yield images, labels
            return
        except (RuntimeError, OSError, EOFError) as error:
            self.loader = None
            said = str(error).strip() or type(error).__name__
            reason = said.splitlines()[-1]
            in_worker = said.startswith("Caught ")  # and not what torch says of a worker, or of what it sent
            if not self.workers or (in_worker and "memory" not in reason and "file </torch_" not in reason):
                raise  # a mistake in the program
            error.__traceback__ = None
        # Not from the error: its frames would hold the other workers until the garbage collector came.
        raise TrainingError(
            f"a process that reads pictures failed ({reason}): mostly memory is short, or shared memory, which "
            f"`docker run --shm-size` enlarges; try fewer workers"
        )

    def _started(self, device: torch.device) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        if self.loader is None:
            if self.workers:
                _check_sockets()
            if self.samples.recipe.rand_augment:
                import torchvision.transforms.v2  # noqa: F401, takes seconds and memory, which workers now share
            # Its own generator: the loader draws a seed that nothing uses, and must not move the training's.
            self.loader = DataLoader(
                self.samples,
                batch_sampler=self.order,
                num_workers=self.workers,
                persistent_workers=self.workers > 0,
                pin_memory=device.type == "cuda",
                worker_init_fn=_ignore_interrupts,
                generator=torch.Generator(),
            )
        with _child_handler_kept():
            return iter(self.loader)

    def _tell(self, broken: list[int]) -> None:
        for index in {*broken} - self.broken:
            self.broken.add(index)
            log.warning("%s cannot be read as a picture and is left out", self.samples.sources.name(index))
        limit = max(BROKEN_LEAST, BROKEN_SHARE * len(self))
        if len(self.broken) > limit:
            raise DataError(
                f"{len(self.broken)} of {len(self)} pictures cannot be read, the last of them "
                f"{self.samples.sources.name(max(self.broken))}: mend or replace them"
            )


class Epochs:
    """An epoch of a stream for a training: an iterator that can begin at any step."""

    def __init__(self, stream: Stream, seed: int, side: int, device: torch.device, order: Tensor) -> None:
        self.stream, self.seed, self.side, self.device, self.order = stream, seed, side, device, order
        self.start = 0
        self.batches: Iterator[tuple[Tensor, Tensor]] | None = None

    def skip(self, steps: int) -> None:
        """Leaves out the first steps, without reading their pictures."""
        self.start += steps

    def __iter__(self) -> "Epochs":
        return self

    def __next__(self) -> tuple[Tensor, Tensor]:
        if self.batches is None:
            size = self.stream.samples.recipe.batch_size
            keys = _keys(self.order[self.start * size :], size, self.seed, self.side)
            self.batches = self.stream.batches(keys, self.device)
        return next(self.batches)


def _keys(order: Tensor, size: int, seed: int, side: int) -> Iterator[list[Key]]:
    """This process's of each full batch, made when they are needed: a million of them would take 200 MB. They must not
    refer to the epoch: workers end with the last reference to it, and a cycle would end them at any time."""
    for start in range(0, len(order) - size + 1, size):
        yield [Key(index, seed, side) for index in order[start : start + size][share(size)].tolist()]


class _Order:
    """The batches that the loader's next pass is to make: workers that stay alive get their keys from here."""

    batches: Iterable[Sequence[Key]] = ()

    def __iter__(self) -> Iterator[Sequence[Key]]:
        return iter(self.batches)


def _ahead(batches: Iterator[tuple[Tensor, Tensor]], device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches on the device; a GPU copies the next while it computes with one."""
    waiting: deque[tuple[Tensor, Tensor]] = deque()
    for images, labels in batches:
        waiting.append((images.to(device, non_blocking=True), labels.to(device, non_blocking=True)))
        if len(waiting) > (device.type == "cuda"):
            yield waiting.popleft()
    yield from waiting


def _check_sockets() -> None:
    """Raises ConfigError where workers would wait for ever: they hand over what they have made by sockets in the folder
    for temporary files."""
    folder = tempfile.gettempdir()
    if os.name == "posix" and len(os.fsencode(folder)) + len("/pymp-abcdefgh/listener-abcdefgh") > SOCKET_PATH:
        raise ConfigError(
            f"the folder for temporary files has too long a path for processes that read pictures ({folder}): set "
            f"TMPDIR to a shorter one, or have no such processes with --workers 0"
        )


@contextmanager
def _child_handler_kept() -> Iterator[None]:
    """Undoes that torch raises an error wherever the program is when a worker dies, such as in the middle of a file.
    The loader finds out itself when it waits for the worker."""
    if not hasattr(signal, "SIGCHLD") or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGCHLD)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL if before is None else before)


def _ignore_interrupts(worker: int) -> None:
    """Ctrl-C goes to workers too, and so does a cluster's SIGTERM: the training that they work for ends in its own
    time, and they with it, by a SIGTERM of its own."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # which tells the sender; macOS has none
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    while signal.sigwaitinfo([signal.SIGTERM]).si_pid != os.getppid():
        pass
    os._exit(0)


def default_workers() -> int:
    """As many as there are cores for this process beside the one that it needs itself, at most 8."""
    local = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(8, cores // local - 1))
