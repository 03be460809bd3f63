"""Finds an architecture or a config, by a name that the user gives or in a file."""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

from .arch.checks import read_json
from .arch.config import NetworkConfig, config_of, read_config
from .arch.genotype import Genotype
from .arch.genotypes import GENOTYPES
from .arch.kinds import get_kind, kind_of, recognised
from .errors import ConfigError, UnknownModelError, ZooError
from .registry import MODELS, UNPUBLISHED, get_model


class Found(NamedTuple):
    """An architecture that a user asked for: its kind, the architecture itself, and its title."""

    kind: str
    architecture: Any
    title: str


def find_config(what: str) -> NetworkConfig:
    """The config of a zoo name, a checkpoint folder or a `config.json`."""
    path = Path(what)
    if what not in MODELS and path.exists():
        return read_config(path / "config.json" if path.is_dir() else path)[0]
    return get_model(what).config


def find_architecture(what: str) -> Found:
    """The architecture for the name of a genotype or model, for a checkpoint folder, or for a JSON file with an
    architecture, a config or the result of a search (best.json)."""
    for name, genotype in GENOTYPES.items():
        if what.lower() == name.lower():
            return Found(kind_of(genotype), genotype, name)
    path = Path(what)
    if what in MODELS or what.lower() in UNPUBLISHED or not path.exists():
        if what not in MODELS and path.suffix == ".json":
            raise ConfigError(f"there is no file {what}")
        try:
            config = get_model(what.lower()).config
        except UnknownModelError as error:
            raise UnknownModelError(f"{error}; genotypes: {', '.join(GENOTYPES)}") from None
        return Found(config.kind, config.architecture, what)
    return read_architecture(path / "config.json" if path.is_dir() else path)


def read_architecture(path: Path) -> Found:
    """The architecture in a JSON file: alone, with its kind as in best.json, or inside a config."""
    value = read_json(path, "architecture")
    if isinstance(value, dict) and "network" in value:
        config = config_of(value, path)[0]
        return Found(config.kind, config.architecture, path.stem)
    try:
        if isinstance(value, dict) and "architecture" in value:
            kind, bare = value.get("kind"), value["architecture"]
            if kind is None:
                raise ConfigError(
                    f"it is a cell of the space {value.get('space')}, which can be looked up but not built"
                )
            if "style" in value:  # best.json of the first version
                bare, _ = get_kind(kind).migrate(bare, {"style": value["style"]})
        else:
            kind, bare = recognised(value), value
        return Found(kind, _as_published(get_kind(kind).read(bare), bare), path.stem)
    except ZooError as error:
        raise type(error)(f"{path}: {error}") from error


def _as_published(architecture: Any, value: Any) -> Any:
    """Genotypes that the first version wrote have no style. If one is a published cell, it gets that cell's style."""
    if isinstance(architecture, Genotype) and "style" not in value:
        for genotype in GENOTYPES.values():
            if dataclasses.replace(genotype, style=architecture.style) == architecture:
                return genotype
    return architecture
