"""Pictures that are read from files while a network trains on them, by worker processes.

A picture's random numbers depend on the epoch's seed and on its place in the data, on nothing else: an epoch is the
same with any number of workers and processes, and can begin at any step.
"""

import logging
import math
import os
import signal
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..arch.preprocess import Preprocess
from ..data.folders import Labelled
from ..data.images import ImageSource, open_image, prepare, resized
from ..errors import DataError, ImageError
from .distributed import share
from .recipe import Recipe

ASPECTS = (3 / 4, 4 / 3)  # of Inception's crops
BROKEN_SHARE = 0.01  # of the pictures that may be unreadable, and
BROKEN_LEAST = 10  # so many in any case

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
            self.arrays = np.stack(sources)
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


@dataclass
class Samples(Dataset[tuple[Tensor, int, int]]):
    """What a worker makes of a Key: (picture, label, the index of a broken one in whose place it stands, or -1). For
    training it is uint8 (c, h, w), cropped, flipped and coloured; for evaluation as `prepare` makes it."""

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
        for step in range(1, min(len(self), 100)):  # the next one that can be read, mostly of the same class
            other = (key.index + step) % len(self)
            try:
                return self._made(key, other), int(self.sources.labels[other]), key.index
            except ImageError:
                continue
        raise DataError(f"{self.sources[key.index]} and the next hundred pictures cannot be read: check the data")

    def _made(self, key: Key, index: int) -> Tensor:
        source = self.sources[index]
        if key.seed is None:
            return torch.from_numpy(prepare(source, self.preprocess, self.channels))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed((key.seed * 1_000_003 + index) % 2**63)
            return trained(source, self.recipe, self.preprocess, self.channels, key.side)


def trained(source: ImageSource, recipe: Recipe, preprocess: Preprocess, channels: int, side: int) -> Tensor:
    """A picture as a training sees it before it is normalised, uint8 (channels, side, side), augmented with torch's
    global random numbers. Raises ImageError."""
    from torchvision.transforms import v2
    from torchvision.transforms.v2 import functional

    mode = functional.InterpolationMode(preprocess.interpolation)
    full = preprocess.size if side == preprocess.size[0] else (side, side)
    if recipe.crop == "inception":
        image = open_image(source)
        left, top, width, height = inception_crop(image.width, image.height, recipe.crop_area)
        picture = _tensor(image.crop((left, top, left + width, top + height)))
        # Interpolated as for an evaluation, or the network would be shown sharper or softer pictures there.
        picture = functional.resize(picture, list(full), mode, antialias=preprocess.antialias)
    else:
        picture = torch.from_numpy(resized(source, replace(preprocess, size=full), 3)).permute(2, 0, 1)
        pad = round(recipe.pad * side / preprocess.size[0])
        if recipe.enlarge:
            size = [edge + 2 * pad for edge in full]
            picture = functional.resize(picture, size, mode, antialias=False)
        else:
            picture = functional.pad(picture, [pad])
        top, left = (int(torch.randint(2 * pad + 1, ())) for _ in range(2))
        picture = functional.crop(picture, top, left, *full)
    if recipe.flip and torch.rand(()) < 0.5:
        picture = functional.horizontal_flip(picture)
    if recipe.brightness or recipe.saturation:
        picture = _coloured(picture, recipe)
    if recipe.rand_augment:
        grey = [127] * 3
        picture = v2.RandAugment(2, recipe.rand_augment, fill=grey)(picture)
    if channels == 1:
        picture = functional.rgb_to_grayscale(picture)
    return picture.contiguous()


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


def _tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def _coloured(picture: Tensor, recipe: Recipe) -> Tensor:
    """TF-slim's fast colours: brightness added, saturation multiplied, in random order."""
    from torchvision.transforms.v2 import functional

    value = picture.float() / 255
    shift = float(torch.empty(()).uniform_(-recipe.brightness, recipe.brightness))
    factor = float(torch.empty(()).uniform_(1 - recipe.saturation, 1 + recipe.saturation))
    for step in torch.randperm(2).tolist():
        value = (value + shift) if step else functional.adjust_saturation(value.clamp(0, 1), factor)
    return (value.clamp(0, 1) * 255).round().to(torch.uint8)


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

    def __len__(self) -> int:
        return len(self.samples)

    def batches(self, order: Sequence[Sequence[Key]], device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
        """(pictures, labels) of each batch of keys, on the device; those that cannot be read are told and counted, and
        have the label -1 where they have no seed. Raises DataError if they are too many."""
        if self.loader is None:
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
        self.order.batches = order
        for images, labels, broken in _ahead(self.loader, device):
            self._tell(broken[broken >= 0].tolist())
            yield images, labels

    def _tell(self, broken: list[int]) -> None:
        for index in {*broken} - self.broken:
            self.broken.add(index)
            log.warning("%s cannot be read as a picture and is left out", self.samples.sources[index])
        limit = max(BROKEN_LEAST, BROKEN_SHARE * len(self))
        if len(self.broken) > limit:
            raise DataError(
                f"{len(self.broken)} of {len(self)} pictures cannot be read, the last of them "
                f"{self.samples.sources[max(self.broken)]}: mend or delete them"
            )


class Epochs:
    """An epoch of a stream for a training: an iterator that can begin at any step."""

    def __init__(self, stream: Stream, seed: int, side: int, device: torch.device, order: Tensor) -> None:
        size = stream.samples.recipe.batch_size
        places = order.tolist()
        self.order = [
            [Key(index, seed, side) for index in places[start : start + size][share(size)]]
            for start in range(0, len(places) - size + 1, size)
        ]
        self.stream, self.device = stream, device
        self.batches: Iterator[tuple[Tensor, Tensor]] | None = None

    def skip(self, steps: int) -> None:
        """Leaves out the first steps, without reading their pictures."""
        del self.order[:steps]

    def __iter__(self) -> "Epochs":
        return self

    def __next__(self) -> tuple[Tensor, Tensor]:
        if self.batches is None:
            self.batches = self.stream.batches(self.order, self.device)
        return next(self.batches)


class _Order:
    """The batches that the loader's next pass is to make: workers that stay alive get their keys from here."""

    batches: Sequence[Sequence[Key]] = ()

    def __iter__(self) -> Iterator[Sequence[Key]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


def _ahead(loader: DataLoader, device: torch.device) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """The loader's batches, on the device; a GPU copies the next while it computes with one."""
    waiting: deque[tuple[Tensor, Tensor, Tensor]] = deque()
    for images, labels, broken in loader:
        waiting.append((images.to(device, non_blocking=True), labels.to(device, non_blocking=True), broken))
        if len(waiting) > (device.type == "cuda"):
            yield waiting.popleft()
    yield from waiting


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
