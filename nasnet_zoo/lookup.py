"""What a user names: finds out what it is, and reads of it what a command needs. Imports no torch."""

import dataclasses
import difflib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from .arch.checks import read_json
from .arch.config import NetworkConfig, read_config
from .arch.genotype import Genotype
from .arch.genotypes import GENOTYPES
from .arch.kinds import get_kind, kind_of, recognised
from .errors import ConfigError, DownloadError, UnknownModelError, ZooError
from .registry import MODELS, get_model
from .util.hub import hub_files, parse_repo

# The files by which a folder is known, of a network, an export, a search and a training.
CONFIG, WEIGHTS = "config.json", "model.safetensors"
GRAPH = "model.onnx"
JOURNAL, BEST = "journal.sqlite", "best.json"
STATE = "state.safetensors"

_TRANSFER = "`nasnet-zoo transfer {what} --max-madds 600M -o FOLDER` makes a network of it"
_LOADED = "`nasnet-zoo predict -m {what}` takes it, and `nasnet-zoo export {what}` makes a graph of it"
# What each form is, and what can take it.
FORMS = {
    "model": ("a model of the zoo", _LOADED),
    "weights": ("weights of a model of the zoo", _LOADED),
    "repo": ("a Hub repo", _LOADED),
    "checkpoint": ("a checkpoint folder", _LOADED),
    "training": ("a training's run folder", "`nasnet-zoo train` with the options that began it finishes it"),
    "genotype": ("a genotype, which is cells without a size", _TRANSFER),
    "architecture": ("a file with an architecture, which has no size", _TRANSFER),
    "search": ("a search's run folder", _TRANSFER.replace("of it", "of its best cell")),
    "config": (
        "a network's config, which has no model.safetensors beside it",
        "`nasnet-zoo train -m {what} -o FOLDER` trains it",
    ),
    "export": ("an exported graph", "`nasnet-zoo predict`, eval, bench and demo take it"),
    "foreign": ("a file of foreign weights", "`nasnet-zoo convert {what} -m MODEL -o FOLDER` makes a checkpoint of it"),
    "file": ("a file of no form that this nasnet_zoo knows", "see `nasnet-zoo COMMAND --help` for what can be named"),
    "folder": (
        "a folder that is neither a checkpoint, a training, a search nor an exported graph",
        "see `nasnet-zoo COMMAND --help` for what can be named",
    ),
}
# A folder is of the first form of which it has a file.
FOLDERS = {
    "checkpoint": (WEIGHTS,),
    "export": (GRAPH,),
    "search": (JOURNAL, BEST),
    "training": (STATE, f"checkpoint/{CONFIG}"),
    "config": (CONFIG,),
}
FOREIGN = (".h5", ".hdf5", ".pth", ".pt", ".bin", ".ckpt", ".tar", ".gz", ".tgz", ".index", ".safetensors")


@dataclass(frozen=True)
class Named:
    """What a user named: its form, one of FORMS, and its `path` if it is a file or folder. `name` is the zoo's name of
    a model, or of weights with their `tag`, or of a genotype."""

    what: str
    form: str
    path: Path | None = None
    name: str = ""
    tag: str | None = None

    def refused(self, problem: str, error: type[ZooError] = ConfigError) -> ZooError:
        """The error for something that exists but cannot serve: what it is, why not, and what can take it."""
        title, advice = FORMS[self.form]
        if self.form == "repo":  # nobody has asked the Hub, and what was meant is more probably a folder
            return error(f"there is no file or folder {self.what} ({self.what} would be {title}), {problem}")
        return error(f"{self.what} is {title}, {problem}: {advice.format(what=self.what)}")


class Found(NamedTuple):
    """An architecture that a user asked for: its kind, the architecture itself, and its title."""

    kind: str
    architecture: Any
    title: str


def identify(what: str | Path) -> Named:
    """Finds out what a user means; opens no connection, and reads no file's contents but that of a JSON file.

    Names of the zoo come first, then files and folders, then names in another case and the form of a Hub repo. Raises
    UnknownModelError, with the nearest names, if there is nothing of that name, and ConfigError for an empty name.
    """
    what = str(what)
    if not what:  # as a path it would be the current folder
        raise ConfigError("the name is empty: give a model of the zoo, a file, a folder or a Hub repo")
    if what in MODELS:
        return Named(what, "model", name=what)
    if what in GENOTYPES:
        return Named(what, "genotype", name=what)
    name, dot, tag = what.rpartition(".")
    if dot and name in MODELS:
        return Named(what, "weights", name=name, tag=tag)
    with suppress(OSError, ValueError):  # the name may be too long for a path, or hold a zero byte
        if Path(what).exists():
            return _identify_path(what, Path(what))
    for known, form in (*((known, "genotype") for known in GENOTYPES), *((known, "model") for known in MODELS)):
        if what.lower() == known.lower():
            return Named(what, form, name=known)
    is_file = Path(what).suffix in (".json", ".onnx", *FOREIGN)
    if parse_repo(what) and not is_file:
        return Named(what, "repo")
    if "/" in what or "\\" in what or is_file:
        also = "" if is_file else ", and it is no Hub repo's org/repo[@revision] either"
        raise UnknownModelError(f"there is no file or folder {what}{also}")
    try:
        get_model(name if dot and not tag.isdigit() else what)  # raises, with the nearest names
    except UnknownModelError as error:
        genotypes = {known.lower(): known for known in GENOTYPES}
        near = difflib.get_close_matches(what.lower(), genotypes, n=3, cutoff=0.5)
        also = f" Or the genotype {' or '.join(genotypes[known] for known in near)}?" if near else ""
        raise UnknownModelError(f"{error}{also}") from None
    raise UnknownModelError(f"there is no model {what!r} in the zoo")


def _identify_path(what: str, path: Path) -> Named:
    if path.is_dir():
        forms = (form for form, names in FOLDERS.items() if any((path / name).is_file() for name in names))
        form = next(forms, "folder")
        within = {"config": CONFIG, "training": "checkpoint"}.get(form)
        return Named(what, form, path / within if within and (path / within).exists() else path)
    pair = [path.with_name(name) for name in (CONFIG, WEIGHTS)]
    if path in pair and all(file.is_file() for file in pair):
        return Named(what, "checkpoint", path.parent)
    if path.suffix == ".json":
        value = read_json(path, "architecture or config")
        return Named(what, "config" if isinstance(value, dict) and "network" in value else "architecture", path)
    if path.suffix == ".onnx":
        return Named(what, "export", path)
    return Named(what, "foreign" if path.suffix.lower() in FOREIGN else "file", path)


def repo_files(named: Named, names: tuple[str, ...], *, local_files_only: bool = False) -> Path:
    """The folder of a Hub repo's files; raises DownloadError, which says too that there is no such folder here."""
    repo, revision = parse_repo(named.what) or (named.what, None)
    try:
        return hub_files(repo, names, revision, local_files_only=local_files_only)
    except DownloadError as error:
        raise DownloadError(f"there is no file or folder {named.what}, and {error}") from error


def find_config(what: str | Path) -> NetworkConfig:
    """The config of whatever a user names: a model, a checkpoint, a training, a config file or a Hub repo.

    Raises UnknownModelError for what does not exist, ConfigError for what has no config, and DownloadError.
    """
    named = identify(what)
    config = _config(named)
    if config is None:
        raise named.refused("and a network's config is needed here")
    return config


def find_architecture(what: str | Path) -> Found:
    """The architecture of whatever a user names: a genotype, the best cell of a search (its folder or best.json), a
    JSON file with an architecture, or anything that has a config.

    Raises UnknownModelError for what does not exist, ConfigError for what has no architecture, and DownloadError.
    """
    named = identify(what)
    if named.form == "genotype":
        return Found(kind_of(GENOTYPES[named.name]), GENOTYPES[named.name], named.name)
    if named.form in ("search", "architecture"):
        return _best(named) if named.form == "search" else read_architecture(named.path)
    config = _config(named)
    if config is None:
        raise named.refused("and an architecture is needed here")
    return Found(config.kind, config.architecture, named.name or Path(named.what).resolve().stem)


def _config(named: Named) -> NetworkConfig | None:
    """The config of what was named, None if it has none."""
    if named.form in ("model", "weights"):
        return get_model(named.name).config
    if named.form == "repo":
        return read_config(repo_files(named, (CONFIG,)) / CONFIG)[0]
    if named.form == "config":
        return read_config(named.path)[0]
    if named.form in ("checkpoint", "training") and (named.path / CONFIG).is_file():
        return read_config(named.path / CONFIG)[0]
    return None


def _best(named: Named) -> Found:
    best = named.path / BEST
    if not best.is_file():
        raise ConfigError(
            f"{named.what} is a search without a finished child: `nasnet-zoo search {named.what}` goes on"
        )
    return read_architecture(best)._replace(title=named.path.resolve().name)


def read_architecture(path: Path) -> Found:
    """The architecture in a JSON file, alone or with its kind as in best.json."""
    value = read_json(path, "architecture")
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
