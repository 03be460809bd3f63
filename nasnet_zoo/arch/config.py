"""What a network is, as data: kind, architecture, scale, and how pictures are prepared. Imports no torch.

`config.json` of a checkpoint folder is a NetworkConfig's `to_json`. Nothing here knows what kinds there are:
kinds.py's registry maps a kind's name to what reads and builds it.
"""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..errors import ConfigError, GenotypeError
from .checks import check_choices, parse_dataclass
from .genotype import MAX_JSON_BYTES

FORMAT_VERSION = 1
MAX_CHANNELS = 1 << 16


@dataclass(frozen=True)
class Preprocess:
    """From a picture to the network's input: cut the middle, resize, scale to [0, 1], normalise.

    `crop` is the fraction of the height and width that is kept. With `resize` "squash" that middle is brought to
    `size` (height, width) without keeping its aspect, as TF-slim does; with "shortest" it is first cut square. With
    `per_image` each picture is normalised by its own mean and deviation after that (TensorFlow's "whitening"; the
    deviation counts as at least 1 / sqrt(values)), as the children of the NASNet search were.
    """

    size: tuple[int, int]
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)
    crop: float = 1.0
    resize: Literal["squash", "shortest"] = "squash"
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    antialias: bool = True
    per_image: bool = False

    def __post_init__(self) -> None:
        check_choices(self, "preprocess")
        if min(self.size) < 1 or max(self.size) > 1 << 14:
            raise ConfigError(f"preprocess: size {self.size} is not between 1 and {1 << 14} pixels")
        if len(self.mean) != len(self.std) or not self.mean or min(self.std) <= 0:
            raise ConfigError("preprocess: mean and std need one entry per channel, and every std above zero")
        if not 0 < self.crop <= 1:
            raise ConfigError(f"preprocess: crop {self.crop} is not a fraction between 0 and 1")


@dataclass(frozen=True)
class NetworkConfig:
    """A network without its weights. The same config always gives the same state_dict keys and shapes.

    `labels` names a label set of labels.py, or lists the class names, or is None.
    """

    architecture: Any
    scale: Any
    preprocess: Preprocess
    num_classes: int
    in_channels: int = 3
    labels: str | tuple[str, ...] | None = None
    kind: str = "cell"
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        if not 1 <= self.num_classes <= MAX_CHANNELS * 16:
            raise ConfigError(f"num_classes {self.num_classes} is not a sensible number of classes")
        if not 1 <= self.in_channels <= 1024:
            raise ConfigError(f"in_channels {self.in_channels} is not between 1 and 1024")

    def to_json(self) -> dict[str, Any]:
        from .kinds import get_kind

        kind = get_kind(self.kind)
        return {
            "format_version": self.format_version,
            "kind": self.kind,
            "architecture": kind.architecture_to_json(self.architecture),
            "scale": dataclasses.asdict(self.scale),
            "preprocess": dataclasses.asdict(self.preprocess),
            "num_classes": self.num_classes,
            "in_channels": self.in_channels,
            "labels": list(self.labels) if isinstance(self.labels, tuple) else self.labels,
        }

    @classmethod
    def from_json(cls, value: Any) -> "NetworkConfig":
        """The config in a decoded JSON value; raises ConfigError or GenotypeError. Knows no fields it ignores."""
        from .kinds import get_kind

        names = [field.name for field in dataclasses.fields(cls)]
        if not isinstance(value, dict):
            raise ConfigError("a network config is a JSON object; this is not one")
        version = value.get("format_version")
        if type(version) is not int or version != FORMAT_VERSION:
            raise ConfigError(
                f"this config has format_version {value.get('format_version')!r}, this nasnet_zoo reads "
                f"{FORMAT_VERSION}: use the nasnet_zoo that wrote it"
            )
        unknown = sorted(set(value) - set(names))
        missing = sorted({"architecture", "scale", "preprocess", "num_classes"} - set(value))
        if unknown or missing:
            raise ConfigError(f"network config: unknown fields {unknown}, missing fields {missing}")
        if not isinstance(value.get("kind", "cell"), str):
            raise ConfigError("network config: kind must be a name")
        kind = get_kind(value.get("kind", "cell"))
        labels = value.get("labels")
        if isinstance(labels, list) and all(isinstance(label, str) for label in labels):
            labels = tuple(labels)
        elif labels is not None and not isinstance(labels, str):
            raise ConfigError("network config: labels must be a label set's name, a list of class names, or null")
        for name in ("num_classes", "in_channels"):
            if name in value and type(value[name]) is not int:
                raise ConfigError(f"network config: {name} must be a whole number")
        return cls(
            architecture=kind.architecture_from_json(value["architecture"]),
            scale=parse_dataclass(kind.scale, value["scale"], "scale"),
            preprocess=parse_dataclass(Preprocess, value["preprocess"], "preprocess"),
            num_classes=value["num_classes"],
            in_channels=value.get("in_channels", 3),
            labels=labels,
            kind=value.get("kind", "cell"),
        )

    @property
    def hash(self) -> str:
        """Equal for architectures that compute the same function up to reordering; see the kind's own hash."""
        from .kinds import get_kind

        return get_kind(self.kind).hash(self.architecture)


def read_config(path: str | Path) -> tuple[NetworkConfig, dict[str, Any]]:
    """The network in a checkpoint folder's `config.json`, and what is recorded there about its weights.

    Raises ConfigError or GenotypeError, naming the file.
    """
    path = Path(path)
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise ConfigError(f"it is larger than {MAX_JSON_BYTES} bytes, which no config is")
        record = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(record, dict) or "network" not in record:
            raise ConfigError("it is not a nasnet_zoo config: it has no 'network'")
        weights = record.get("weights")
        return NetworkConfig.from_json(record["network"]), weights if isinstance(weights, dict) else {}
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not valid JSON: {error}") from error
    except (ConfigError, GenotypeError) as error:
        raise type(error)(f"{path}: {error}") from error
