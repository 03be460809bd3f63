"""Which class a folder's name stands for, by the labels. Imports no torch."""

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path
from unicodedata import normalize

from ..errors import DataError
from .labels import imagenet_names, wnids


class UnknownClass(DataError):
    """A folder that no label, or more than one, fits."""


def matches(names: Iterable[str], labels: Sequence[str]) -> list[list[int]]:
    """The classes that each name may stand for: the places of a label, of a WordNet id (n01440764) if the labels are
    ImageNet's or some of them, or of labels that differ only in case, spaces, hyphens and underscores. Empty for a name
    that is none of these."""
    exact, loose = _places(labels), _places(map(_plain, labels))
    exact |= _places(wnids(labels) or ())
    imagenet = imagenet_names()

    def places(name: str) -> list[int]:
        return exact.get(name) or loose.get(_plain(name)) or exact.get(imagenet.get(name, ""), [])

    return [places(name) for name in names]


def matched(
    names: Sequence[str],
    labels: Sequence[str],
    folder: str | Path,
    source: str | Path = "the network",
    otherwise: str = "",
) -> list[int]:
    """The class of each subfolder of a folder, as `matches` finds it.

    Raises UnknownClass for a name that stands for no class, with the label that is nearest, or for several. Its
    sentence says whose the labels are, and ends with another way out, if there is one.
    """
    found = matches(names, labels)
    for name, classes in zip(names, found):
        if len(classes) > 1:
            raise UnknownClass(
                f"{folder}/{name} may be {len(classes)} of {source}'s classes: name it as the label is{otherwise}"
            )
        if not classes:
            plain = {_plain(label): label for label in labels}
            hint = "".join(f" ({plain[near]} is one)" for near in get_close_matches(_plain(name), plain, 1))
            known = " or their WordNet ids (n01440764)" if wnids(labels) else ""
            raise UnknownClass(
                f"{folder}/{name} is the name of none of {source}'s {len(labels)} classes{hint}: name subfolders after "
                f"the labels{known}{otherwise}"
            )
    return [classes[0] for classes in found]


def _places(names: Iterable[str]) -> dict[str, list[int]]:
    """Where each name is in a sequence."""
    places: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        places.setdefault(name, []).append(index)
    return places


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", normalize("NFC", name.casefold())).strip()
