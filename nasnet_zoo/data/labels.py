"""Class names. Imports no torch."""

from functools import cache
from importlib.resources import files

from ..arch.config import NetworkConfig
from ..errors import ConfigError

LABEL_SETS = ("imagenet-1k", "cifar10")


@cache
def label_set(name: str) -> tuple[str, ...]:
    """The names of a label set that ships with the package."""
    if name not in LABEL_SETS:
        raise ConfigError(
            f"unknown label set {name!r}; there are {', '.join(LABEL_SETS)}, or list the names themselves"
        )
    return tuple((files("nasnet_zoo") / "assets" / f"{name}.txt").read_text(encoding="utf-8").splitlines())


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
