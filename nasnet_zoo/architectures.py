"""Finding what a user names: an architecture or a config, by name or in a file. Imports no torch."""

import json
from pathlib import Path
from typing import Any

from .config import NetworkConfig, read_config
from .errors import ConfigError, UnknownModelError
from .genotype import read_genotype
from .genotypes import GENOTYPES
from .models import MODELS, UNPUBLISHED, get_model


def find_config(what: str) -> NetworkConfig:
    """The config of a zoo name, a checkpoint folder or a `config.json`."""
    path = Path(what)
    if what not in MODELS and path.exists():
        return read_config(path / "config.json" if path.is_dir() else path)[0]
    return get_model(what).config


def find_architecture(what: str) -> tuple[str, Any, str]:
    """(kind, architecture, title) of a genotype's or model's name, or of a JSON file with a genotype or a config."""
    for name, genotype in GENOTYPES.items():
        if what.lower() == name.lower():
            return "cell", genotype, name
    path = Path(what)
    if what in MODELS or what.lower() in UNPUBLISHED or not path.exists():
        if what not in MODELS and path.suffix == ".json":
            raise ConfigError(f"there is no file {what}")
        try:
            config = get_model(what.lower()).config
        except UnknownModelError as error:
            raise UnknownModelError(f"{error}; genotypes: {', '.join(GENOTYPES)}") from None
        return config.kind, config.architecture, what
    if path.is_dir() or _is_config(path):
        config = find_config(what)
        return config.kind, config.architecture, path.stem
    return "cell", read_genotype(path), path.stem


def _is_config(path: Path) -> bool:
    try:
        return "network" in json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, TypeError):
        return False  # the reader of genotypes says what is wrong
