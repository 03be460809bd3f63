"""Class names. Imports no torch."""

from collections.abc import Sequence
from functools import cache
from importlib.resources import files

from ..arch.config import NetworkConfig
from ..errors import ConfigError

LABEL_SETS = ("imagenet-1k", "cifar10")


def label_set(name: str) -> tuple[str, ...]:
    """The names of a label set that ships with the package."""
    if name not in LABEL_SETS:
        raise ConfigError(
            f"unknown label set {name!r}; there are {', '.join(LABEL_SETS)}, or list the names themselves"
        )
    return _lines(f"{name}.txt")


def wnids(labels: Sequence[str]) -> tuple[str, ...] | None:
    """The WordNet ids (n01440764), in the order of the labels, if these are ImageNet's 1000 classes, with or without
    the background class; None for others."""
    known = label_set("imagenet-1k")
    if tuple(labels) not in (known, ("background", *known)):
        return None
    ids = _lines("imagenet-1k-wnids.txt")
    return ids if len(labels) == len(ids) else ("background", *ids)


@cache
def _lines(asset: str) -> tuple[str, ...]:
    return tuple((files("nasnet_zoo") / "assets" / asset).read_text(encoding="utf-8").splitlines())


def label_names(config: NetworkConfig) -> tuple[str, ...] | None:
    """The names for a config's logits, or None if it has none. With one class more than the set has, the first is
    the background class that TF-slim's ImageNet networks were trained with."""
    names = label_set(config.labels) if isinstance(config.labels, str) else config.labels
    if names is None:
        return None
    if config.num_classes == len(names) + 1:
        return ("background", *names)
    if config.num_classes != len(names):
        raise ConfigError(f"the config has {config.num_classes} classes but its labels have {len(names)} names")
    return names
