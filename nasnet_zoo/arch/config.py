"""A network as data: kind, architecture, scale, and how pictures are prepared.

`config.json` of a checkpoint folder is a NetworkConfig's `to_json`. This file does not know which kinds exist; the
registry in kinds.py does.
"""

import dataclasses
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ..errors import ConfigError, ZooError
from .checks import MAX_CHANNELS, check_fields, parse_dataclass, read_json
from .kinds import get_kind, kind_of, recognised
from .plan import Plan
from .preprocess import Preprocess

FORMAT_VERSION = 2  # 1 had a cell's style in its scale instead of in its architecture


@dataclass(frozen=True)
class NetworkConfig:
    """A network without its weights. The same config always gives the same state_dict keys and shapes.

    `labels` names a label set of labels.py, or lists the class names, or is None. If `kind` is not given, it is found
    by the type of the architecture.
    """

    architecture: Any
    scale: Any
    preprocess: Preprocess
    num_classes: int
    in_channels: int = 3
    labels: str | tuple[str, ...] | None = None
    kind: str = ""
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        check_fields(self, "network config")
        if not 1 <= self.num_classes <= MAX_CHANNELS * 16:
            raise ConfigError(f"num_classes {self.num_classes} is not a sensible number of classes")
        if not 1 <= self.in_channels <= 1024:
            raise ConfigError(f"in_channels {self.in_channels} is not between 1 and 1024")
        object.__setattr__(self, "kind", self.kind or kind_of(self.architecture))

    def __repr__(self) -> str:
        network = ", ".join([repr(self.architecture), *_settings(self.scale)])
        picture = "{} x {} px".format(*self.preprocess.size)
        return f"NetworkConfig({network}, {picture}, {self.in_channels} channels, {self.num_classes} classes)"

    @cached_property
    def plan(self) -> Plan:
        """The network's steps."""
        return get_kind(self.kind).plan(self.architecture, self.scale, self.in_channels)

    def to_json(self) -> dict[str, Any]:
        kind = get_kind(self.kind)
        return {
            "format_version": self.format_version,
            "kind": self.kind,
            "architecture": kind.write(self.architecture),
            "scale": dataclasses.asdict(self.scale),
            "preprocess": dataclasses.asdict(self.preprocess),
            "num_classes": self.num_classes,
            "in_channels": self.in_channels,
            "labels": list(self.labels) if isinstance(self.labels, tuple) else self.labels,
        }

    @classmethod
    def from_json(cls, value: Any) -> "NetworkConfig":
        """The config in a decoded JSON value; raises ConfigError or GenotypeError. Unknown fields are errors."""
        names = [field.name for field in dataclasses.fields(cls)]
        if not isinstance(value, dict):
            raise ConfigError("a network config is a JSON object; this is not one")
        version = value.get("format_version")
        if type(version) is not int or not 1 <= version <= FORMAT_VERSION:
            raise ConfigError(
                f"this config has format_version {version!r}, this nasnet_zoo reads 1 to {FORMAT_VERSION}: use the "
                f"nasnet_zoo that wrote it"
            )
        unknown = sorted(set(value) - set(names))
        missing = sorted({"architecture", "scale", "preprocess", "num_classes"} - set(value))
        if unknown or missing:
            raise ConfigError(f"network config: unknown fields {unknown}, missing fields {missing}")
        name = value["kind"] if "kind" in value else recognised(value["architecture"])
        if not isinstance(name, str):
            raise ConfigError("network config: kind must be a name")
        kind = get_kind(name)
        architecture, scale = value["architecture"], value["scale"]
        if version < FORMAT_VERSION:
            architecture, scale = kind.migrate(architecture, scale)
        labels = value.get("labels")
        if isinstance(labels, list) and all(isinstance(label, str) for label in labels):
            labels = tuple(labels)
        elif labels is not None and not isinstance(labels, str):
            raise ConfigError("network config: labels must be a label set's name, a list of class names, or null")
        if any(re.search("[\ud800-\udfff]", label) for label in labels or ()):
            raise ConfigError("network config: a label holds half a character, which no file can hold: name it anew")
        for field in ("num_classes", "in_channels"):
            if field in value and type(value[field]) is not int:
                raise ConfigError(f"network config: {field} must be a whole number")
        return cls(
            architecture=kind.read(architecture),
            scale=parse_dataclass(kind.scale, scale, "scale"),
            preprocess=parse_dataclass(Preprocess, value["preprocess"], "preprocess"),
            num_classes=value["num_classes"],
            in_channels=value.get("in_channels", 3),
            labels=labels,
            kind=name,
        )

    @property
    def hash(self) -> str:
        """Equal for architectures that compute the same function up to reordering; see the kind's own hash."""
        return get_kind(self.kind).hash(self.architecture)


def _settings(scale: Any) -> list[str]:
    """Those fields of a scale that have no default or another value."""
    values = [(field, getattr(scale, field.name)) for field in dataclasses.fields(scale)]
    return [f"{field.name}={value!r}" for field, value in values if value != field.default]


def read_config(path: str | Path) -> tuple[NetworkConfig, dict[str, Any]]:
    """The network in a checkpoint folder's `config.json`, and the record of its weights there.

    Raises ConfigError or GenotypeError, naming the file.
    """
    return config_of(read_json(path, "config"), path)


def config_of(record: Any, path: str | Path) -> tuple[NetworkConfig, dict[str, Any]]:
    """`read_config` for a value that was read from the file at `path`."""
    try:
        if not isinstance(record, dict) or "network" not in record:
            raise ConfigError("it is not a nasnet_zoo config: it has no 'network'")
        weights = record.get("weights")
        return NetworkConfig.from_json(record["network"]), weights if isinstance(weights, dict) else {}
    except ZooError as error:
        raise type(error)(f"{path}: {error}") from error
