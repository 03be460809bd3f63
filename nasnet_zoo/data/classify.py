"""Pictures through a classifier, in batches, whatever computes its logits: a network or an exported graph. No torch."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import Any, Literal, Protocol

import numpy as np

from ..errors import ImageError, SessionError, ZooError, out_of_memory
from .images import ImageSource
from .prediction import Answers, Prediction, ranked

THREADS = min(os.cpu_count() or 1, 8)  # that read files; Pillow decodes without Python's lock


Several = list[Any] | tuple[Any, ...] | Iterator[Any]  # images that are surely many, for type checkers


class Classifier(Protocol):
    """`prepare` makes a picture into the input of `run`, which takes a batch of them and gives logits."""

    @property
    def labels(self) -> tuple[str, ...] | None: ...

    def prepare(self, image: ImageSource) -> np.ndarray: ...

    def run(self, array: np.ndarray) -> np.ndarray: ...


def predict(
    classifier: Classifier,
    images: ImageSource | Iterable[ImageSource],
    k: int,
    batch_size: int,
    errors: Literal["raise", "return"],
    fault: type[ZooError],
) -> Any:
    """`ImageNetwork.predict` and `Session.predict`; `fault` is raised for options that make no sense."""
    if k < 1 or batch_size < 1:
        raise fault(f"k {k} and batch_size {batch_size} must be at least 1")
    many = _several(images)
    results = Answers()
    for result in predictions(classifier, images if many else [images], k, batch_size):
        if isinstance(result, ImageError) and errors == "raise":
            of = f" of {len(images)}" if hasattr(images, "__len__") else ""
            where = f"image {len(results) + 1}{of}: " if many and of != " of 1" else ""
            raise ImageError(f"{where}{result}") from result
        results.append(result)
    return results if many else results[0]


def predictions(
    classifier: Classifier, images: Iterable[ImageSource], k: int, batch_size: int
) -> Iterator[list[Prediction] | ImageError]:
    """For each picture its k most probable classes, or the error that says why it cannot be used."""
    labels = classifier.labels
    for batch in prepared(classifier, images, batch_size):
        arrays = [each for each in batch if not isinstance(each, ImageError)]
        rows = iter(logits(classifier, arrays) if arrays else ())
        for each in batch:
            yield each if isinstance(each, ImageError) else ranked(next(rows), labels, k)


def prepared(
    classifier: Classifier, images: Iterable[ImageSource], batch_size: int
) -> Iterator[list[np.ndarray | ImageError]]:
    """The pictures in batches, each as the classifier's input or as the error that says why it cannot be used. Files
    are read by threads, while the classifier is at work on the batch before."""

    def attempt(image: ImageSource) -> np.ndarray | ImageError:
        try:
            return classifier.prepare(image)
        except ImageError as error:
            return error

    pool, sources = ThreadPoolExecutor(THREADS), iter(images)
    waiting: deque[list[Callable[[], np.ndarray | ImageError]]] = deque()
    try:
        while batch := list(islice(sources, batch_size)):
            # An open file or a PIL image, which may be in the list twice, is not for two threads at once.
            waiting.append(
                [
                    pool.submit(attempt, image).result
                    if isinstance(image, (str, os.PathLike))
                    else partial(attempt, image)
                    for image in batch
                ]
            )
            if len(waiting) > 1:
                yield _done(waiting.popleft())
        for last in waiting:
            yield _done(last)
    finally:
        pool.shutdown(cancel_futures=True)


def _done(jobs: Sequence[Callable[[], np.ndarray | ImageError]]) -> list[np.ndarray | ImageError]:
    try:
        return [job() for job in jobs]
    except MemoryError as error:
        raise _too_large(len(jobs)) from error


def logits(classifier: Classifier, arrays: Sequence[np.ndarray]) -> np.ndarray:
    """(batch, classes), of pictures that are prepared. Raises SessionError if the batch is too large, or a logit is nan
    or infinite."""
    try:
        found = classifier.run(np.stack(arrays))
    except Exception as error:  # the libraries' own have no common base
        if isinstance(error, ZooError) or not out_of_memory(error):
            raise
        raise _too_large(len(arrays)) from error
    if not np.isfinite(found.max(axis=-1)).all():
        raise SessionError("the logits are no numbers: the weights are damaged, or too large for their precision")
    return found


def _too_large(count: int) -> SessionError:
    return SessionError(f"a batch of {count} needs more memory than there is: give a smaller one (batch_size)")


def _several(images: Any) -> bool:
    """Whether they are many: a file, an array and a tensor can be iterated over too, but each is one picture."""
    if isinstance(images, np.ndarray):
        return images.dtype.kind in "OU"  # of paths, say
    one = isinstance(images, (str, os.PathLike, bytes, bytearray, memoryview, Mapping))
    one = one or hasattr(images, "read") or hasattr(images, "__dlpack__")
    return isinstance(images, Iterable) and not one
