"""How a training begins: which network, data and recipe are meant, and what an earlier call has said of them."""

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from ..arch.checks import read_json
from ..arch.config import NetworkConfig
from ..data.label_file import read_labels
from ..data.labels import label_names, with_classes
from ..data.sets import DataSet, find_data, is_cifar10
from ..errors import ConfigError, DataError
from ..lookup import BEST, TRAINING, Named, find_config, identify
from ..networks.build import build
from ..networks.network import ImageNetwork
from ..weights.loading import load
from .recipe import Recipe
from .recipes import find_recipe
from .run import Run, check_folder, has_begun

FORMAT_VERSION = 1
WEIGHTS = ("weights", "checkpoint", "training", "repo")  # forms whose weights a training starts from


@dataclass(frozen=True)
class Request:
    """What a user has asked for. What is None is as the training in the folder `out` has it, or the default.

    `changes` are fields of the recipe, and `search` gives the network of a search's best child, by its folder.
    """

    out: Path
    model: str | None = None
    data: str | None = None
    recipe: str | None = None
    labels: Path | None = None
    seed: int | None = None
    finetune: bool = False
    changes: dict[str, Any] = field(default_factory=dict)
    search: Callable[[Path], NetworkConfig | None] = lambda path: None


def begin(
    request: Request, device: str, keep: int = 1, workers: int | None = None, keep_seconds: float | None = None
) -> tuple[Run, ImageNetwork, DataSet, str]:
    """(the run, the network on the device, the data, what a user should know of how they were fitted together).

    Raises ZooError for what does not exist or does not fit.
    """
    out = request.out
    check_folder(out)
    before = _read_record(out)
    model = request.model or before.get("model")
    if model is None:
        raise ConfigError(f"there is no training in {out} that could go on: name a network to train with -m")
    seed = request.seed if request.seed is not None else before.get("seed", 0)
    data_name = request.data or before.get("data", "cifar10")
    labels = request.labels or before.get("labels")
    finetune = request.finetune or before.get("finetune", False)
    goes_on = has_begun(out) and before and request.model in (None, before["model"])
    start = _Start(build(NetworkConfig.from_json(before["network"])), False) if goes_on else None
    torch.manual_seed(seed)
    start = start or _start(model, request.search, finetune)
    data, note = _fitted(start, data_name, labels, finetune, goes_on)
    name, recipe = _recipe(request, before, start, data, finetune)
    record = {
        "format_version": FORMAT_VERSION,
        "model": model,
        "finetune": finetune,
        "data": "cifar10" if data_name == "cifar10" else os.path.abspath(data_name),
        "labels": None if labels is None else os.path.abspath(labels),
        "recipe": {"name": name, **asdict(recipe)},
        "seed": seed,
        "network": start.network.config.to_json(),
    }
    run = Run(out, recipe, name, seed, record, keep, workers, keep_seconds)
    return run, start.network.to(device), data, note


@dataclass
class _Start:
    """A network before a training, and whether its weights have been trained."""

    network: ImageNetwork
    trained: bool


def _read_record(out: Path) -> dict[str, Any]:
    path = out / TRAINING
    if not path.is_file():
        return {}
    record = read_json(path, "training's record")
    needed = {"model": str, "data": str, "seed": int, "recipe": dict, "network": dict}
    if not isinstance(record, dict) or any(not isinstance(record.get(key), kind) for key, kind in needed.items()):
        raise ConfigError(f"{path} is no record of a training: delete it, and give all options again")
    return record


def _start(model: str, search: Callable[[Path], NetworkConfig | None], finetune: bool) -> _Start:
    named = identify(model)
    if named.form == "model" and not finetune:
        return _Start(build(find_config(model)), False)
    if named.form == "model" or named.form in WEIGHTS:
        network = load(model)
        return _Start(network, network.trained)
    if finetune:
        raise named.refused(
            "and weights are needed here", advice=f"`nasnet-zoo train -m {model}` begins with fresh ones"
        )
    if named.form == "config":
        return _Start(build(find_config(model)), False)
    folder = _search_folder(named)
    config = None if folder is None else search(folder)
    if config is None:
        raise named.refused("and a network is needed here")
    return _Start(build(config), False)


def _search_folder(named: Named) -> Path | None:
    """The run folder of the search that was named by itself or by its best.json."""
    if named.form == "search":
        return named.path
    if named.form == "architecture" and named.path is not None and named.path.name == BEST:
        with suppress(ConfigError):
            above = identify(named.path.parent)
            return named.path.parent if above.form == "search" else None
    return None


def _fitted(
    start: _Start, data_name: str, labels: str | Path | None, finetune: bool, goes_on: bool
) -> tuple[DataSet, str]:
    """The data, and what was done to give the network their classes. A trained network that is trained further keeps
    its classes, and the data must have them; one that is adapted, or is fresh, gets those of the data."""
    network = start.network
    given = None if labels is None else read_labels(labels)
    if given is not None and is_cifar10(data_name):
        raise ConfigError("CIFAR-10 has names of its own: leave --labels out, or name a folder of pictures")
    keeps = start.trained and not finetune or goes_on
    if keeps and given is None:
        data = _of_network(network, data_name)
    else:
        data = find_data(data_name, given)
    names, config = data.names, network.config
    if label_names(config) == names or keeps and given is not None and len(names) == config.num_classes:
        return data, ""
    if config.num_classes == len(names) and label_names(config) is None and (keeps or not start.trained):
        network.config = with_classes(config, labels=data.labels)
        return data, ""
    if keeps:
        raise DataError(
            f"{data.name} has {len(names)} classes ({', '.join(names[:3])}, ...) and the network {config.num_classes} "
            f"others: `nasnet-zoo finetune {data_name} -m ...` adapts it to them"
        )
    network.reset_classifier(labels=data.labels)
    return data, f"{len(names)} classes of {data.name} in place of the network's {config.num_classes}"


def _of_network(network: ImageNetwork, data_name: str) -> DataSet:
    """The data with a network's labels. Raises DataError, which says what to do, where their classes are others."""
    if network.labels is None or is_cifar10(data_name):
        return find_data(data_name)
    try:
        data = find_data(data_name, network.labels)
    except DataError as error:
        if "classes" not in str(error):
            raise
        raise DataError(f"{error}; or let `nasnet-zoo finetune` adapt the network to the folder's classes") from error
    return replace(data, labels=network.config.labels)


def _recipe(
    request: Request, before: dict[str, Any], start: _Start, data: DataSet, finetune: bool
) -> tuple[str, Recipe]:
    """The recipe's name and the recipe, of what was asked, of the training before, or the default for such data."""
    if request.recipe is not None or not before:
        default = "finetune" if finetune or start.trained else "cifar-quick" if data.measured != "val" else "scratch"
        name = request.recipe or default
        return name, find_recipe(name, request.changes)
    record = dict(before["recipe"])
    name = str(record.pop("name", ""))
    return name, find_recipe(find_recipe("cifar-quick", record), request.changes)
