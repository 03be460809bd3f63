"""Data sets by name, for a training: CIFAR-10, or folders of pictures."""

import os
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ..errors import DataError
from .cifar import CIFAR_FOLDER, Pictures, cifar10_pictures, in_classes_of
from .classes import class_folders
from .folders import Labelled
from .label_file import LabelFile
from .labels import as_label_set, label_set

WATCHED = 2_000  # pictures
SEEN = "seen"  # what accuracies on pictures are called that the network learns from


@dataclass(frozen=True)
class DataSet:
    """What a training learns from and is measured on.

    `labels` are the class names in the order of the classes, or the name of a label set; `measured` is what the
    accuracies on `val` are called. `test`, if there is one, is what a training is measured on once, at its end, and
    `tested` what those accuracies are called.
    """

    name: str
    train: Pictures | Labelled
    val: Pictures | Labelled
    labels: str | tuple[str, ...]
    measured: str
    held_out: bool = False
    test: Pictures | Labelled | None = None
    tested: str = ""

    @property
    def unmeasured(self) -> list[str]:
        """The classes that are learned and of which neither `val` nor `test` has a picture."""
        measured = [part for part in (self.val, self.test) if part is not None]
        if isinstance(self.train, Pictures) or any(isinstance(part, Pictures) for part in measured):
            return []
        there = {label for part in measured for _, label in part}
        return [self.names[index] for index in sorted({label for _, label in self.train} - there)]

    @property
    def names(self) -> tuple[str, ...]:
        return label_set(self.labels) if isinstance(self.labels, str) else self.labels


def is_cifar10(name: str | Path) -> bool:
    """Whether a user means CIFAR-10: by its name, or a folder that holds it."""
    return str(name) == "cifar10" or os.path.isdir(os.path.join(name, CIFAR_FOLDER))


def find_data(name: str | Path, labels: Sequence[str] | LabelFile | None = None) -> DataSet:
    """The data set of a name: "cifar10", a folder that holds CIFAR-10, or one of class folders, with the labels that
    `class_folders` takes; CIFAR-10's have to be its own, in any order. Raises DataError, and ConfigError for CIFAR-10
    with other labels."""
    if is_cifar10(name):
        folder = None if str(name) == "cifar10" else name
        own = None if labels is None or isinstance(labels, LabelFile) else tuple(labels)
        train, test = (in_classes_of(cifar10_pictures(folder, train=part), own) for part in (True, False))
        known = own is None or own == label_set("cifar10")
        return DataSet("CIFAR-10", train, test, "cifar10" if known else own, "cifar10_test")
    found = class_folders(name, labels)
    measured = "held_out" if found.held_out else "val"
    return DataSet(str(name), found.train, found.val, as_label_set(found.labels), measured, found.held_out)


def with_held_out(data: DataSet, count: int) -> DataSet:
    """The data with so many of the training pictures held out as `val`, the same ones each time, of each class its
    share; what was `val` is then `test`. With a count of 0 none is, and `val` has WATCHED of those that are learned
    from, which shows how far a training is and nothing else. Raises DataError if the data cannot spare them."""
    if data.held_out:
        raise DataError(
            f"{data.name} has no pictures to test on, because a part of the training's is held out already: add a "
            f"folder val with others"
        )
    classes = data.train.labels.tolist() if isinstance(data.train, Pictures) else [label for _, label in data.train]
    there, spare = len(classes), len(classes) - len({*classes})
    if not 0 <= count <= spare:
        raise DataError(
            f"{count} of the {there} training pictures of {data.name} cannot be held out, because each class needs one "
            f"to learn from: give at most {spare}"
        )
    chosen = set(_shares(classes, count or min(WATCHED, there)))
    parts = [[place for place in range(there) if (place in chosen) is out] for out in (False, True)]
    learned, measured = (_part(data.train, places) for places in parts)
    tested = replace(data, val=measured, test=data.val, tested=data.measured)
    return replace(tested, train=learned, measured="held_out") if count else replace(tested, measured=SEEN)


def _shares(classes: Sequence[int], count: int) -> list[int]:
    """So many places, at random, of each class about its share; the last picture of a class comes last."""
    rng, by_class = random.Random(0), dict[int, list[int]]()
    for place, label in enumerate(classes):
        by_class.setdefault(label, []).append(place)
    ranked = []
    for label, places in sorted(by_class.items()):
        rng.shuffle(places)
        last = len(places) - 1
        ranked += [(rank == last, (rank + 0.5) / len(places), label, place) for rank, place in enumerate(places)]
    return [place for *_, place in sorted(ranked)[:count]]


def _part(pictures: Pictures | Labelled, places: list[int]) -> Pictures | Labelled:
    if isinstance(pictures, Pictures):
        return pictures.subset(torch.tensor(places, dtype=torch.int64))
    return [pictures[place] for place in places]
