"""What the search configs of older versions meant, where this version does otherwise. Imports no torch."""

from typing import Any

from nasnet_zoo.errors import ConfigError

FORMAT_VERSION = 2


def upgraded(value: dict[str, Any]) -> dict[str, Any]:
    """A config in JSON, of this version or an older one, in this version's terms: what was not said then is what was
    done then. Raises ConfigError for a later version's, which may have fields that nobody here knows."""
    version = value.get("format_version", FORMAT_VERSION)
    if version not in (1, FORMAT_VERSION):
        raise ConfigError(
            f"this search config has format_version {version}, this nasnet_zoo reads 1 and {FORMAT_VERSION}: use the "
            f"nasnet_zoo that wrote it"
        )
    value = {**value, "format_version": FORMAT_VERSION}
    for section, then in _FIRST.items() if version == 1 else ():
        if isinstance(value.get(section, {}), dict):
            value[section] = then | value.get(section, {})
    space = value.get("space")
    if version == 1 and isinstance(space, dict) and space.get("name", "nasnet") in ("nasnet", "nasnet-c"):
        value["space"] = {"outputs": "unread"} | space
    return value


# Version 1 moved the baseline once per batch, clipped a sequence's ratio, gave failures 0, and left a child's number of
# threads to the fleet.
_FIRST: dict[str, dict[str, Any]] = {
    "space": {},
    "controller": {"baseline": "batch-average", "ratio": "sequence"},
    "failures": {"floor": 0.0},
    "child": {"threads": 0},
}
