"""The registry of kinds: how one kind of architecture is read, written, hashed, drawn, sized and lowered to a plan.

All code that depends on `config.kind` asks this registry. The registry itself names no kind: a kind's data module
registers it.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..errors import ConfigError
from .plan import Plan


@dataclass(frozen=True)
class Sizing:
    """The wanted size of a network, in terms that all kinds share.

    `depth` is N and `width` is F. `data` says which pictures the network is for; `size`, in pixels a side, and
    `classes` are those of the data if they are None. `stem` times the width is the width of a CIFAR network's stem, for
    kinds that have one. With `auxiliary` a network has the auxiliary head that those of its kind are trained with, if
    they have one at that size.
    """

    depth: int
    width: int
    data: Literal["imagenet", "cifar10"]
    size: int | None = None
    classes: int | None = None
    stem: float = 3.0
    auxiliary: bool = False


@dataclass(frozen=True)
class Kind:
    """One row of the registry.

    `architecture` and `scale` are the types of a config's two halves; the scale is a dataclass. `read` makes an
    architecture of a decoded JSON value, raising a ZooError, and `write` the reverse. `hash` is equal for architectures
    that compute the same function up to reordering. `plan` gives (architecture, scale, in_channels) as a Plan, `sized`
    the NetworkConfig of an architecture at a Sizing. `draw` draws an architecture to a path, with a `title`, or `only`
    one of its `parts`. `recognise` says whether a JSON value that does not name its kind is of this one. `migrate`
    brings JSON of (architecture, scale) that was written before FORMAT_VERSION up to date.
    """

    architecture: type
    scale: type
    read: Callable[[Any], Any]
    write: Callable[[Any], Any]
    hash: Callable[[Any], str]
    plan: Callable[[Any, Any, int], Plan]
    sized: Callable[[Any, Sizing], Any]
    draw: Callable[..., None]
    parts: tuple[str, ...] = ()
    recognise: Callable[[Any], bool] = lambda value: False
    migrate: Callable[[Any, Any], tuple[Any, Any]] = lambda architecture, scale: (architecture, scale)


KINDS: dict[str, Kind] = {}


def register_kind(name: str, kind: Kind) -> None:
    """Adds a kind; configs give its name in `kind`. Raises ConfigError if the name is taken."""
    if name in KINDS:
        raise ConfigError(f"the kind {name!r} is registered already; choose another name")
    KINDS[name] = kind


def get_kind(name: str) -> Kind:
    """The kind of that name; raises ConfigError if there is none."""
    if not isinstance(name, str) or name not in KINDS:  # a file may say anything
        raise ConfigError(f"unknown kind {repr(name)[:60]}; this nasnet_zoo has {', '.join(sorted(KINDS))}")
    return KINDS[name]


def kind_of(architecture: Any) -> str:
    """The name of the kind whose architectures are of this type; raises ConfigError."""
    for name, kind in KINDS.items():
        if type(architecture) is kind.architecture:
            return name
    raise ConfigError(f"a {type(architecture).__name__} is the architecture of no kind; say which with kind=")


def svg(architecture: Any) -> str:
    """The picture of an architecture, drawn as its kind draws it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "architecture.svg"
        get_kind(kind_of(architecture)).draw(architecture, path)
        return path.read_text(encoding="utf-8")


def recognised(value: Any) -> str:
    """The name of the kind of an architecture in JSON that does not name its kind; raises ConfigError."""
    for name, kind in KINDS.items():
        if kind.recognise(value):
            return name
    raise ConfigError(f"it is the architecture of no kind that this nasnet_zoo has ({', '.join(sorted(KINDS))})")
