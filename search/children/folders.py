"""The child that is trained on a user's own pictures, which lie in class folders."""

import logging
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from nasnet_zoo.arch.preprocess import Preprocess
from nasnet_zoo.data.cifar import Pictures
from nasnet_zoo.data.classify import THREADS
from nasnet_zoo.data.folders import Labelled
from nasnet_zoo.data.images import ImageSource, resized
from nasnet_zoo.errors import DataError, ImageError
from nasnet_zoo.training.stream import BROKEN_LEAST, BROKEN_SHARE
from nasnet_zoo.util.progress import LINE_SECONDS, Pace

from .own_pictures import OwnPictures, context_of_pictures
from .settings import FolderChildSettings
from .trained import TrainedChild

log = logging.getLogger("nasnet_zoo")


class FolderChild(TrainedChild[FolderChildSettings]):
    """Its context is the names, sizes and classes of all pictures; nothing if they are not there, because `prepare`
    reports that."""

    def context(self) -> dict[str, str]:
        return context_of_pictures(self.settings.data)

    def pictures(self) -> tuple[Pictures, Pictures]:
        settings = self.settings = self.settings.completed()
        found = OwnPictures(settings.data)
        if found.labels != settings.labels:
            raise DataError(
                f"{settings.data} has other classes than child.labels says: name the data that it is for, or set "
                f"child.labels to [] to have those of these data"
            )
        found.counts(settings.pictures, settings.validation)
        parts = found.divided(settings.pictures, settings.validation, settings.split_seed)
        training, validation = (read_pictures(part, settings.preprocess) for part in parts)
        return training, validation


def read_pictures(pictures: Labelled, preprocess: Preprocess) -> Pictures:
    """Labelled files as bytes in memory, (n, 3, height, width) as the preprocessing has it before it normalises. A line
    now and then says how far it is.

    What cannot be read is named and left out, as in a training. Raises DataError for as many of them as would end one,
    or if nothing is left.
    """

    def read(source: ImageSource) -> np.ndarray | ImageError:
        try:
            return resized(source, preprocess)
        except ImageError as error:
            return error

    images = torch.empty(len(pictures), 3, *preprocess.size, dtype=torch.uint8)
    labels, broken = [], []
    pace, pool = Pace(LINE_SECONDS), ThreadPoolExecutor(THREADS)
    pace.due()  # the first line comes when it has taken a while
    try:
        for (_, label), found in zip(pictures, pool.map(read, [path for path, _ in pictures])):
            if isinstance(found, ImageError):
                broken.append(found)
                if len(broken) > max(BROKEN_LEAST, BROKEN_SHARE * len(pictures)):
                    raise DataError(f"{len(broken)} of {len(pictures):,} pictures cannot be used; the last: {found}")
                continue
            images[len(labels)] = torch.from_numpy(np.array(found)).permute(2, 0, 1)
            labels.append(label)
            if pace.due():
                print(f"read {len(labels):,} of {len(pictures):,} pictures", file=sys.stderr, flush=True)
    finally:
        pool.shutdown(cancel_futures=True)
    for error in broken:
        log.warning("a picture is left out: %s", error)
    if not labels:
        raise DataError(f"none of {len(pictures)} pictures can be used; the last: {broken[-1]}")
    return Pictures(images[: len(labels)], torch.tensor(labels))
