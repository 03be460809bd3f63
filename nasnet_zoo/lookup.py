"""What a user names: finds out what it is, and reads of it what a command needs. Imports no torch."""

import dataclasses
import difflib
import os
import shlex
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from .arch.checks import read_json
from .arch.config import NetworkConfig, read_config
from .arch.genotype import Genotype
from .arch.genotypes import GENOTYPES
from .arch.kinds import KINDS, get_kind, kind_of, recognised
from .errors import ConfigError, DownloadError, UnknownModelError, ZooError
from .registry import MODELS, ZOO, get_model
from .util.hub import hub_files, parse_repo

# The files by which a folder is known, of a network, an export, a search and a training.
CONFIG, WEIGHTS = "config.json", "model.safetensors"
GRAPH = "model.onnx"
JOURNAL, BEST = "journal.sqlite", "best.json"
STATE, TRAINING = "state.safetensors", "training.json"

_TRANSFER = "`nasnet-zoo transfer {what} --max-madds 600M -o FOLDER` makes a network of it"
_LOADED = "`nasnet-zoo predict -m {what}` takes it, and `nasnet-zoo export {what}` makes a graph of it"
# What each form is, and what can take it.
FORMS = {
    "model": ("a model of the zoo", _LOADED),
    "weights": ("weights of a model of the zoo", _LOADED),
    "repo": ("a Hub repo", _LOADED),
    "checkpoint": ("a checkpoint folder", _LOADED),
    "training": ("a training's run folder", "`nasnet-zoo train -o {what}` finishes it"),
    "genotype": ("a genotype, which is cells without a size", _TRANSFER),
    "architecture": ("a file with an architecture, which has no size", _TRANSFER),
    "search": ("a search's run folder", _TRANSFER.replace("of it", "of its best cell")),
    "begun": ("a search without a finished child", "`nasnet-zoo search {what}` goes on"),
    "table": ("a search of a table's cells or of recipes", "what it found is no network that could be built"),
    "entry": ("a table's cell, or a recipe that `tune` tried", "it is no network that could be built"),
    "settings": (
        "a search's config",
        "name its folder, {folder}, for that search; `nasnet-zoo search FOLDER --config {what}` begins another one",
    ),
    "half": (
        "half of a checkpoint folder, which has no config.json",
        "put it there, or `nasnet-zoo convert {what}/model.safetensors -m MODEL -o FOLDER` makes a whole one",
    ),
    "config": (
        "a network's config, which has no model.safetensors beside it",
        "`nasnet-zoo train -m {what} -o FOLDER` trains it",
    ),
    "export": ("an exported graph", "`nasnet-zoo predict`, eval, bench and demo take it"),
    "report": ("the report of an exported graph", "name its folder, {folder}"),
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
    "training": (STATE, TRAINING, f"checkpoint/{CONFIG}"),
    "config": (CONFIG,),
}
SEARCHES = ("search", "begun", "table")
# A JSON file is of the first form whose fields it has.
JSON = {
    "config": {"network"},
    "architecture": {"architecture"},
    "settings": {"space", "searcher", "children"},
    "report": {"model_sha256"},
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

    def refused(self, problem: str, error: type[ZooError] = ConfigError, advice: str | None = None) -> ZooError:
        """The error for something that exists but cannot serve: what it is, why not, and what can take it, or other
        `advice`."""
        title, usual = FORMS[self.form]
        if self.form == "repo":  # nobody has asked the Hub, and what was meant is more probably a folder
            return error(f"there is no file or folder {self.what} ({self.what} would be {title}), {problem}")
        names = dict(what=typed(self.what), folder=typed(Path(self.what).parent))
        return error(f"{self.what} is {title}, {problem}: {advice or usual.format(**names)}")


class Found(NamedTuple):
    """An architecture that a user asked for: its kind, the architecture itself, and its title. If it was searched on
    pictures of a user's own, `data` is their folder, and `labels` are the names of their classes."""

    kind: str
    architecture: Any
    title: str
    data: str | None = None
    labels: tuple[str, ...] | None = None


def typed(what: str | Path) -> str:
    """A name as a shell takes it for an argument: quoted if need be, and never like an option."""
    return shlex.quote(os.path.join(".", what) if str(what).startswith("-") else str(what))


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
    if name in MODELS and tag in _tags(name):
        return Named(what, "weights", name=name, tag=tag)
    with suppress(OSError, ValueError):  # the name may be too long for a path, or hold a zero byte
        if Path(what).exists():
            return identify_path(what)
    for known, form in (*((known, "genotype") for known in GENOTYPES), *((known, "model") for known in MODELS)):
        if what.lower() == known.lower():
            return Named(what, form, name=known)
    is_file = Path(what).suffix in (".json", ".onnx", *FOREIGN)
    for known in MODELS:
        if dot and not is_file and name.lower() == known.lower():
            return Named(what, "weights", name=known, tag=_known_tag(known, tag))
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


def _tags(model: str) -> list[str]:
    return [*(source.tag for source in MODELS[model].weights), ZOO]


def _known_tag(model: str, tag: str) -> str:
    """The tag of the model's weights that is meant, in any case; raises UnknownModelError if there is none."""
    if found := [known for known in _tags(model) if known.lower() == tag.lower()]:
        return found[0]
    tags = [source.tag for source in MODELS[model].weights]
    has = f"{', '.join(tags)}; name one, as in {model}.{tags[0]}" if tags else f"none yet; name {model} alone"
    raise UnknownModelError(f"{model} has no weights {tag!r}: it has {has}")


def identify_path(what: str | Path) -> Named:
    """`identify` for what is known to be a file or folder, whatever names of the zoo are like its own."""
    what, path = str(what), Path(what)
    if path.is_dir():
        return _identify_folder(what, path)
    pair = [path.with_name(name) for name in (CONFIG, WEIGHTS)]
    if path in pair and all(file.is_file() for file in pair):
        return Named(what, "checkpoint", path.parent)
    if path.suffix == ".json":
        return Named(what, _json_form(path), path)
    if path.suffix == ".onnx":
        return Named(what, "export", path)
    return Named(what, "foreign" if path.suffix.lower() in FOREIGN else "file", path)


def _identify_folder(what: str, path: Path) -> Named:
    forms = (form for form, names in FOLDERS.items() if any((path / name).is_file() for name in names))
    form = next(forms, "folder")
    if form == "checkpoint" and not (path / CONFIG).is_file():
        return Named(what, "half", path)
    if form == "search":
        return Named(what, _search_form(path / BEST), path)
    if form == "training" and (path / "checkpoint").exists():
        return Named(what, form, path / "checkpoint")
    if form == "config":
        form = {"config": "config", "settings": "begun"}.get(_json_form(path / CONFIG), "folder")
        return Named(what, form, path / CONFIG if form == "config" else path)
    return Named(what, form, path)


def _json_form(path: Path) -> str:
    value = read_json(path, "architecture or config")
    fields = value.keys() if isinstance(value, dict) else set()
    form = next((form for form, names in JSON.items() if names <= fields), "file")
    if form == "architecture" and value.get("kind") is None and "space" in value:  # the best of a search of a table
        return "entry"
    if form == "file" and any(kind.recognise(value) for kind in KINDS.values()):
        return "architecture"
    return form


def _search_form(best: Path) -> str:
    if not best.is_file():
        return "begun"
    with suppress(ZooError):  # who reads a damaged one will say so
        return "table" if _json_form(best) == "entry" else "search"
    return "search"


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
    if named.form == "search":
        return read_architecture(named.path / BEST)._replace(title=named.path.resolve().name)
    if named.form == "architecture":
        return read_architecture(named.path)
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


def read_architecture(path: Path) -> Found:
    """The architecture in a JSON file, alone or with its kind as in best.json."""
    value = read_json(path, "architecture")
    try:
        if isinstance(value, dict) and "architecture" in value:
            kind, bare = value.get("kind"), value["architecture"]
            if "style" in value:  # best.json of the first version
                bare, _ = get_kind(kind).migrate(bare, {"style": value["style"]})
        else:
            kind, bare = recognised(value), value
        found = Found(kind, _as_published(get_kind(kind).read(bare), bare), path.stem)
        return found._replace(**_searched_on(value)) if "labels" in value else found
    except ZooError as error:
        raise type(error)(f"{path}: {error}") from error


def _searched_on(value: dict[str, Any]) -> dict[str, Any]:
    data, labels = value.get("data"), value["labels"]
    named = isinstance(labels, list) and labels and all(isinstance(each, str) for each in labels)
    if not isinstance(data, str) or not named:
        raise ConfigError("data must be a folder's path, and labels a list of class names")
    return {"data": data, "labels": tuple(labels)}


def _as_published(architecture: Any, value: Any) -> Any:
    """Genotypes that the first version wrote have no style. If one is a published cell, it gets that cell's style."""
    if isinstance(architecture, Genotype) and "style" not in value:
        for genotype in GENOTYPES.values():
            if dataclasses.replace(genotype, style=architecture.style) == architecture:
                return genotype
    return architecture
