"""What a graph says of itself in its metadata_props: all that is needed to use it. Imports no torch and no onnx.

Each entry is text under a key that begins with "nasnet_zoo.": plain values as they are, others as JSON, so that a
program in any language reads them.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from nasnet_zoo.arch.checks import parse_dataclass, parse_json
from nasnet_zoo.arch.preprocess import Preprocess
from nasnet_zoo.errors import ConfigError, ExportError

PREFIX = "nasnet_zoo."
FORMAT_VERSION = 1
_PREPROCESS = tuple(field.name for field in fields(Preprocess))


@dataclass(frozen=True)
class Metadata:
    """`config` is the network's NetworkConfig as JSON; `weights_sha256` is of the float32 weights the graph was made
    from, `data_sha256` of the external data file, or "" if the weights are in the graph. `pixels`: the graph takes
    uint8 (batch, height, width, channels) pictures instead of normalised ones, and gives the `top` best classes too.
    `fixed`: it takes one size only, that of `preprocess`; otherwise any from `minimum_size` pixels a side. `trained` is
    ImageNetwork's."""

    name: str
    precision: str
    license: str
    source: str
    preprocess: Preprocess
    channels: int
    classes: int
    labels: tuple[str, ...] | None
    config: dict[str, Any]
    weights_sha256: str
    data_sha256: str = ""
    fixed: bool = True
    pixels: bool = False
    top: int = 0
    minimum_size: int = 1
    trained: bool = True

    def to_props(self) -> dict[str, str]:
        values = asdict(self) | asdict(self.preprocess) | {"format_version": FORMAT_VERSION}
        del values["preprocess"]
        return {
            PREFIX + key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            for key, value in values.items()
        }

    @classmethod
    def from_props(cls, props: Mapping[str, str], where: str) -> "Metadata":
        """A field that did not exist when the graph was written takes its default. Raises ExportError, naming `where`,
        if the entries are missing, damaged or of another version."""
        if PREFIX + "format_version" not in props:
            raise ExportError(f"{where} was not made by nasnet-zoo export: it has no {PREFIX}* metadata; export it")
        if props[PREFIX + "format_version"] != str(FORMAT_VERSION):
            raise ExportError(
                f"{where} has metadata of version {props[PREFIX + 'format_version'][:20]}, this nasnet_zoo reads "
                f"{FORMAT_VERSION}: export it again"
            )
        names = {field.name: field.type for field in fields(cls)} | dict.fromkeys(_PREPROCESS, Any)
        try:
            values = {
                name: props[PREFIX + name] if kind is str or name in _TEXTS else parse_json(props[PREFIX + name])
                for name, kind in names.items()
                if PREFIX + name in props
            }
            values["preprocess"] = {name: values.pop(name) for name in _PREPROCESS if name in values}
            data = parse_dataclass(cls, values, "metadata")
            if data.labels is not None and len(data.labels) != data.classes:
                raise ConfigError(f"it has {len(data.labels)} labels for {data.classes} classes")
        except (ValueError, ConfigError) as error:
            raise ExportError(f"the metadata of {where} is damaged ({error}): export it again") from error
        return data


_TEXTS = ("resize", "interpolation")
