"""A user's own pictures, and which of them children learn from and are measured on. Imports no torch."""

import os
from collections import Counter
from hashlib import sha256
from unicodedata import normalize

from nasnet_zoo.data.classes import class_folders
from nasnet_zoo.data.folders import Labelled
from nasnet_zoo.errors import ConfigError, DataError

SHARE = 0.1  # of the pictures to learn from, that children are measured on if nothing says how many


def context_of_pictures(folder: str | None) -> dict[str, str]:
    """A child's context: the names, sizes and classes of all pictures in a folder; nothing if they are not there,
    because `prepare` reports that."""
    try:
        return {"data set": OwnPictures(folder).digest()}
    except DataError:
        return {}


class OwnPictures:
    """The pictures in class folders, as `nasnet-zoo train` reads them.

    `labels` are the names of the classes, in their order. `train` are the pictures to learn from. `val` are those in
    the folder for validation, or None if there is no such folder. Children are then measured on a part of `train`: the
    tenth that a training holds out is left alone, so that what is measured on it later had no part in the search.

    Raises DataError for a folder that a training would refuse.
    """

    def __init__(self, folder: str | None) -> None:
        if folder is None:
            raise DataError("the task folders needs pictures: name with --data a folder that has a subfolder a class")
        self.folder = os.path.abspath(folder)
        found = class_folders(self.folder)
        self.labels, self.train = found.labels, found.train
        self.val = None if found.held_out else found.val
        self.held_out = found.val if found.held_out else ()

    @property
    def most(self) -> int:
        """How many can be measured on: without a folder for it, all but one picture of each class."""
        return len(self.train) - len(self.labels) if self.val is None else len(self.val)

    def counts(self, pictures: int, validation: int) -> tuple[int, int]:
        """How many are learned from and measured on, 0 being as many as there are; without a folder for validation a
        tenth is measured on. Raises ConfigError for more than there are, and DataError where none can be spared."""
        if self.most < 1:
            raise DataError(
                f"{self.folder} has too few pictures to measure children on: add some, or a folder val beside a folder "
                f"train"
            )
        there = len(self.train)
        validation = validation or (self.most if self.val is not None else min(max(1, round(SHARE * there)), self.most))
        spare = there - validation if self.val is None else there
        if validation > self.most or pictures > spare:
            for_both = " for both, one of each class at least to learn from"
            has = for_both if self.val is None else f" to learn from and {self.most:,} to measure on"
            raise ConfigError(
                f"child: pictures {pictures:,} and validation {validation:,} are more than {self.folder} has, which is "
                f"{there:,}{has}: give fewer, or 0 for all"
            )
        return pictures or spare, validation

    def fitted(self, pictures: int, validation: int) -> tuple[int, int]:
        """Numbers that were meant for other data, as far as these have so many: in proportion where both come from the
        same pictures."""
        there = len(self.train)
        if self.val is not None:
            return min(pictures, there), min(validation, self.most)
        if pictures + validation > there:
            validation = min(max(1, there * validation // (pictures + validation)), self.most)
            pictures = there - validation
        return pictures, validation

    def divided(self, pictures: int, validation: int, seed: int) -> tuple[Labelled, Labelled]:
        """So many pictures to learn from and to measure on, each class with its share of them. The seed draws them, the
        same on every machine."""
        learned = self._drawn(self.train, seed)
        measured = learned if self.val is None else self._drawn(self.val, seed)[::-1]
        return learned[:pictures], measured[-validation:]

    def digest(self) -> str:
        """A hash of the classes' names, and of all pictures' names, sizes in bytes and classes."""
        text = [repr(self.labels)]
        for name, part in (("train", self.train), ("val", self.val or ()), ("held out", self.held_out)):
            text += sorted(repr((name, self._below(path), _size(path), label)) for path, label in part)
        return sha256("\n".join(text).encode()).hexdigest()

    def _drawn(self, part: Labelled, seed: int) -> Labelled:
        """The pictures in an order of which every piece has each class in proportion; the first have each class once,
        so that none is without pictures. Within its class a picture's place is that of its hash."""

        def rank(pair: tuple[str, int]) -> bytes:
            return sha256(f"{seed}/{self._below(pair[0])}".encode()).digest()

        of_class = Counter(label for _, label in part)
        seen: Counter[int] = Counter()
        places = []
        for path, label in sorted(part, key=rank):
            place = (seen[label] + 0.5) / of_class[label] if seen[label] else 0.0
            places.append((place, len(places), path, label))
            seen[label] += 1
        return [(path, label) for _, _, path, label in sorted(places)]

    def _below(self, path: str) -> str:
        """A path below the folder, as it is on every system; bytes that are no UTF-8 are escaped."""
        below = path[len(os.path.join(self.folder, "")) :].replace(os.sep, "/")
        return normalize("NFC", below.encode(errors="backslashreplace").decode())


def _size(path: str) -> int:
    """In bytes; -1 of a link to what has gone."""
    try:
        return os.path.getsize(path)
    except OSError:
        return -1
