"""Class names. Imports no torch."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cache
from importlib.resources import files
from pathlib import Path

from ..arch.config import NetworkConfig
from ..errors import ConfigError
from ..util.arguments import check_type

LABEL_SETS = ("imagenet-1k", "cifar10")


def label_set(name: str) -> tuple[str, ...]:
    """The names of a label set that ships with the package."""
    if name not in LABEL_SETS:
        raise ConfigError(
            f"unknown label set {name!r}; there are {', '.join(LABEL_SETS)}, or list the names themselves"
        )
    return _lines(f"{name}.txt")


def example_pictures(labels: str | Sequence[str] | None) -> list[Path]:
    """The pictures that ship with the package for a config's labels, each named after its class: eight for cifar10."""
    if not isinstance(labels, str):
        return []
    folder = Path(str(files("nasnet_zoo"))) / "assets" / f"{labels}-examples"
    return sorted(folder.glob("*.png"))


def wnids(labels: Sequence[str]) -> tuple[str, ...] | None:
    """The WordNet ids (n01440764), in the order of the labels, if these are ImageNet's 1000 classes, with or without
    the background class; None for others."""
    known = label_set("imagenet-1k")
    if tuple(labels) not in (known, ("background", *known)):
        return None
    ids = _lines("imagenet-1k-wnids.txt")
    return ids if len(labels) == len(ids) else ("background", *ids)


@cache
def imagenet_names() -> dict[str, str]:
    """The names of ImageNet's 1000 classes by their WordNet ids, in the classes' order."""
    known = label_set("imagenet-1k")
    return dict(zip(wnids(known) or (), known))


@cache
def _lines(asset: str) -> tuple[str, ...]:
    return tuple((files("nasnet_zoo") / "assets" / asset).read_text(encoding="utf-8").splitlines())


def label_names(config: NetworkConfig) -> tuple[str, ...] | None:
    """The names for a config's logits; None if it has none, or another number of them than of classes. With one class
    more than a label set has, the first is the background class that TF-slim's ImageNet networks were trained with."""
    named = isinstance(config.labels, str)
    names = label_set(config.labels) if named else config.labels
    if names is not None and named and config.num_classes == len(names) + 1:
        return ("background", *names)
    return names if names is not None and config.num_classes == len(names) else None


def as_label_set(labels: tuple[str, ...]) -> str | tuple[str, ...]:
    """The name of ImageNet's label set in place of its names; other labels as they are."""
    return "imagenet-1k" if labels == label_set("imagenet-1k") else labels


def with_classes(
    config: NetworkConfig, num_classes: int | None = None, labels: str | Iterable[str] | None = None
) -> NetworkConfig:
    """The config with another number of classes, with other labels (a label set's name, or the names in the order of
    the logits), or with both. Without a number there are as many classes as labels; without labels, those that it has
    are kept if the number stays the same. Raises ConfigError for labels that do not name the classes."""
    check_type(num_classes, int | None, "num_classes")
    if labels is None:
        if num_classes is None or num_classes == config.num_classes:
            return config
        return replace(config, num_classes=num_classes, labels=None)
    chosen = labels if isinstance(labels, str) else _checked(labels)
    count = len(label_set(chosen) if isinstance(chosen, str) else chosen)
    changed = replace(config, num_classes=count if num_classes is None else num_classes, labels=chosen)
    if label_names(changed) is None:
        raise ConfigError(f"there are {count} labels for {num_classes} classes: give each class one label")
    return changed


def _checked(labels: Iterable[str]) -> tuple[str, ...]:
    names = tuple(labels) if isinstance(labels, Iterable) and not isinstance(labels, (bytes, dict)) else ()
    if not names or not all(isinstance(name, str) for name in names):
        raise ConfigError(f"labels {str(labels)[:60]} are no list of names: give a text for each class, or a label set")
    if blank := [place for place, name in enumerate(names) if not name.strip()]:
        raise ConfigError(f"the label of class {blank[0]} is empty: give each class a name")
    return tuple(map(str, names))  # names may be equal: many lists of ImageNet's call two classes crane
