"""Finding what a user names: an architecture or a config, by name or in a file. Imports no torch."""

import json
from pathlib import Path
from typing import Any

from .arch.config import NetworkConfig, read_config
from .arch.genotype import Genotype, read_genotype
from .arch.genotypes import GENOTYPES
from .errors import ConfigError, UnknownModelError
from .registry import MODELS, UNPUBLISHED, get_model


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
    found = read_found(path)
    if found is not None:
        return "cell", found[0], path.stem
    return "cell", read_genotype(path), path.stem


def find_style(what: str, genotype: Genotype) -> str:
    """The style of the config that `what` names, or else of the zoo's models of this genotype: "slim" without any."""
    if what in MODELS or (Path(what).exists() and (Path(what).is_dir() or _is_config(Path(what)))):
        return find_config(what).scale.style
    of_this = (info.config for info in MODELS.values() if info.config.architecture == genotype)
    return next((config.scale.style for config in of_this), "slim")


def read_found(path: Path) -> tuple[Genotype, str] | None:
    """(genotype, style) of what a search found, in its best.json; None if the file is no such thing.

    Raises GenotypeError if the cells in it are malformed, and ConfigError if they are none that can be built.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        if not {"architecture", "tokens", "space"} <= value.keys():
            return None
    except (OSError, ValueError, RecursionError, AttributeError):
        return None  # whoever reads it as something else says what is wrong
    if value.get("kind") != "cell":
        raise ConfigError(f"{path} holds a cell of the space {value['space']}, which can be looked up but not built")
    style = value.get("style")
    if style not in ("slim", "nds"):
        raise ConfigError(f"{path}: unknown style {style!r}; it is slim or nds")
    return Genotype.from_json(value["architecture"]), style


def _is_config(path: Path) -> bool:
    try:
        return "network" in json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, TypeError):
        return False  # the reader of genotypes says what is wrong
