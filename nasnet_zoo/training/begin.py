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
from ..data.cifar import Pictures, in_classes_of
from ..data.classes import layout
from ..data.folders import Labelled, checked_folder
from ..data.label_file import read_labels
from ..data.labels import label_names, with_classes
from ..data.matching import UnknownClass
from ..data.sets import SEEN, DataSet, find_data, is_cifar10, with_held_out
from ..errors import ConfigError, DataError
from ..lookup import BEST, TRAINING, Named, find_config, identify, read_architecture, typed
from ..networks.build import build
from ..networks.network import ImageNetwork
from ..registry import MODELS, get_model
from ..weights.loading import load
from .recipe import Recipe
from .recipes import find_recipe
from .run import Run, check_folder
from .state import has_state

FORMAT_VERSION = 1
WEIGHTS = ("weights", "checkpoint", "training", "repo")  # forms whose weights a training starts from


@dataclass(frozen=True)
class Request:
    """What a user has asked for. What is None is as the training in the folder `out` has it, or the default.

    `changes` are fields of the recipe, `hold_out` is how many of the training pictures are measured on in place of the
    data's own, which are then measured on once, and `search` gives the network of a search's best child, by its folder.
    """

    out: Path
    model: str | None = None
    data: str | None = None
    recipe: str | None = None
    labels: Path | None = None
    seed: int | None = None
    hold_out: int | None = None
    finetune: bool = False
    changes: dict[str, Any] = field(default_factory=dict)
    search: Callable[[Path], NetworkConfig | None] = lambda path: None


def begin(
    request: Request,
    device: str,
    keep: int | None = None,
    workers: int | None = None,
    keep_seconds: float | None = None,
) -> tuple[Run, ImageNetwork, DataSet, list[str]]:
    """(the run, the network on the device, the data, what a user should know of how they were fitted together).

    Raises ZooError for what does not exist or does not fit, or is not what the training in the folder began with.
    """
    out = request.out
    check_folder(out)
    # Of a training that came to nothing, a call that names everything again is to know nothing.
    before = _read_record(out) if has_state(out) or request.model is None else {}
    goes_on = bool(before) and has_state(out)
    model = request.model or before.get("model")
    if model is None:
        lacks = f"{out} has no {TRAINING}" if has_state(out) else f"there is no training in {out} that could go on"
        raise ConfigError(f"{lacks}: name the network to train with -m")
    if goes_on and before["model"] not in (model, _place(model)):
        raise ConfigError(
            f"{out} holds a training of {before['model']}, and {model} is another network: leave -m out to go on with "
            f"it, or choose another folder"
        )
    seed = request.seed if request.seed is not None else before.get("seed", 0)
    data_name = request.data or before.get("data") or _searched_on(model) or "cifar10"
    labels = request.labels or before.get("labels")
    finetune = request.finetune or before.get("finetune", False)
    _check_apart(out, data_name)
    torch.manual_seed(seed % 2**63)
    start = _Start(build(NetworkConfig.from_json(before["network"])), False) if goes_on else None
    start = start or _start(model, request.search, finetune)
    name, recipe = _recipe(request, before, start, data_name, finetune)  # before the data, which may be a download
    data, notes = _fitted(start, data_name, labels, finetune, goes_on)
    hold_out = before.get("hold_out") if request.hold_out is None else request.hold_out
    if goes_on and hold_out != before.get("hold_out"):
        began = before.get("hold_out")
        raise ConfigError(
            f"{out} holds a training {'without --hold-out' if began is None else f'with --hold-out {began}'}: leave it "
            f"away to go on, or choose another folder"
        )
    if hold_out is not None:
        data = with_held_out(data, hold_out)
    if finetune and not goes_on and not start.trained:
        notes.append(
            f"{model} has a fresh classifier: if all its weights are fresh, `nasnet-zoo train` suits them better"
        )
    pictures = [len(data.train), len(data.val)]
    if goes_on and before.get("pictures", pictures) != pictures:
        if before["data"] != _place(data_name):
            raise DataError(
                f"{out} holds a training on {before['data']}, and {data_name} has other pictures: leave --data out to "
                f"go on with it, or choose another folder"
            )
        if hold_out is not None:
            raise DataError(
                f"{data.name} has other pictures than when the training in {out} began, of which some were held out "
                f"and would now be learned: begin anew in another folder"
            )
        counts = " and ".join(map(str, before["pictures"]))
        notes.append(f"{data.name} had {counts} pictures when the training began: what follows is another order")
    keep = keep or before.get("keep", 1)
    record = {
        "format_version": FORMAT_VERSION,
        "model": before["model"] if goes_on else _place(model),
        "finetune": finetune,
        "data": _place(data_name),
        "labels": None if labels is None else os.path.abspath(labels),
        "pictures": pictures,
        "held_out": data.held_out,
        "hold_out": hold_out,
        "devices": before.get("devices", []) if goes_on else [],
        "recipe": {"name": name, **asdict(recipe)},
        "seed": seed,
        "keep": keep,
        "network": start.network.config.to_json(),
    }
    run = Run(out, recipe, name, seed, record, keep, workers, keep_seconds)
    return run, start.network.to(device), data, notes + ([] if goes_on else _notes(data)) + _slow(recipe, device)


def _place(name: str) -> str:
    """A name as it can be understood in another working directory."""
    return os.path.abspath(name) if os.path.exists(name) and name not in ("cifar10", *MODELS) else name


def _check_apart(out: Path, data_name: str) -> None:
    """Raises DataError for a run folder among the pictures, where it would be taken for a class."""
    if is_cifar10(data_name):
        return
    for root in layout(checked_folder(data_name)):
        if root is not None and out.resolve().is_relative_to(root.resolve()):
            raise DataError(f"the run folder {out} would lie among the pictures in {root}: name another one with -o")


def _notes(data: DataSet) -> list[str]:
    """What a user may not expect of how the data are measured."""
    notes = []
    if data.measured == SEEN:
        notes.append(
            f"nothing is held out: the accuracies on the way are those on {len(data.val):,} pictures that are learned "
            f"from, and no best epoch is kept"
        )
    if data.held_out:
        count = len(data.val) + len(data.train)
        notes.append(
            f"{data.name} has no folder val: {len(data.val)} of its {count} pictures are held out to measure on"
        )
    if data.unmeasured:
        few = ", ".join(data.unmeasured[:3]) + (" and others" if len(data.unmeasured) > 3 else "")
        notes.append(f"there are no pictures to measure {few} on: the accuracies say nothing of them")
    return notes


def _slow(recipe: Recipe, device: str) -> list[str]:
    """What makes a training many times as slow as need be: on AVX2 bfloat16 took eight times as long as float32."""
    if recipe.precision != "bfloat16" or device != "cpu" or torch.backends.cpu.get_cpu_capability() != "AVX2":
        return []
    return ["this processor does not compute in bfloat16, only imitates it: --set precision=float32 is far faster"]


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
    fits = isinstance(record, dict) and all(isinstance(record.get(key), kind) for key, kind in needed.items())
    if not fits or type(record.get("hold_out")) not in (int, type(None)):
        raise ConfigError(f"{path} is no record of a training: delete it, and give all options again")
    return record


def _start(model: str, search: Callable[[Path], NetworkConfig | None], finetune: bool) -> _Start:
    named = identify(model)
    if named.form in WEIGHTS or finetune and named.form == "model" and get_model(named.name).weights:
        network = load(model)
        return _Start(network, network.trained)
    folder = _search_folder(named)
    if named.form in ("model", "config"):
        config: NetworkConfig | None = find_config(model)
    else:
        config = None if folder is None else search(folder)
    if config is None:
        raise named.refused("and a network is needed here")
    if finetune:
        advice = f"`nasnet-zoo train -m {typed(model)} --data DIR -o FOLDER` begins with fresh ones"
        raise named.refused("and trained weights are needed here", advice=advice)
    return _Start(build(config), False)


def _searched_on(model: str) -> str | None:
    """The user's own pictures on which a search was made, of which `model` is the run folder or the best.json."""
    folder = _search_folder(identify(model))
    return None if folder is None else read_architecture(folder / BEST).data


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
) -> tuple[DataSet, list[str]]:
    """The data, and what was done to give the network their classes. A trained network that is trained further keeps
    its classes, and the data must have them; one that is adapted, or is fresh, gets those of the data."""
    network = start.network
    own = label_names(network.config)
    given = None if labels is None else read_labels(labels)
    if given is not None and is_cifar10(data_name):
        raise ConfigError("CIFAR-10 has names of its own: leave --labels out, or name a folder of pictures")
    keeps = start.trained and not finetune or goes_on
    advice = "name the data that it began with" if goes_on else "let `nasnet-zoo finetune` adapt the network to them"
    if keeps and given is None:
        data = _of_network(network, data_name, advice)
    else:
        data = find_data(data_name, given)
    names = data.names
    same = names == own or own is not None and len(own) == len({*own}) and {*names} <= {*own}
    if own is not None and same and (keeps or len(names) == len(own)):
        return _in_order(data, own), []
    if own is None and len(names) == network.config.num_classes and (keeps or not start.trained):
        network.config = with_classes(network.config, labels=data.labels)
        return data, []
    if keeps:
        raise DataError(
            f"{data.name} has {len(names)} classes ({', '.join(names[:3])}, ...) and the network "
            f"{network.config.num_classes} others: {advice}"
        )
    replaced = f"the classifier is new: {len(names)} classes in place of {network.config.num_classes}"
    network.reset_classifier(labels=data.labels)
    return data, [replaced]


def _in_order(data: DataSet, labels: tuple[str, ...]) -> DataSet:
    """The data with a network's labels, in their order."""
    if data.names == labels:
        return data
    places = [labels.index(name) for name in data.names]

    def moved(part: Pictures | Labelled) -> Pictures | Labelled:
        if isinstance(part, Pictures):
            return in_classes_of(part, labels)
        return [(source, places[label]) for source, label in part]

    return replace(data, train=moved(data.train), val=moved(data.val), labels=labels)


def _of_network(network: ImageNetwork, data_name: str, advice: str) -> DataSet:
    """The data with a network's labels. Raises DataError, which says what to do, where their classes are others."""
    if network.labels is None or is_cifar10(data_name):
        return find_data(data_name)
    try:
        return find_data(data_name, network.labels)
    except UnknownClass as error:
        raise DataError(f"{error}, or {advice}") from error


def _recipe(
    request: Request, before: dict[str, Any], start: _Start, data_name: str, finetune: bool
) -> tuple[str, Recipe]:
    """The recipe's name and the recipe, of what was asked, of the training before, or the default for such data."""
    if request.recipe is not None or not before:
        name = request.recipe or _default_recipe(start, data_name, finetune)
        return Path(name).name, find_recipe(name, request.changes)  # a path would be in every checkpoint
    record = dict(before["recipe"])
    name = Path(str(record.pop("name", ""))).name
    return name, find_recipe(find_recipe("cifar-quick", record), request.changes)


def _default_recipe(start: _Start, data_name: str, finetune: bool) -> str:
    if finetune or start.trained:
        return "finetune"
    if not is_cifar10(data_name):
        return "scratch"
    # An auxiliary head was made for pictures of full size, and cifar-quick trains on smaller ones until its last epoch.
    return "cifar-quick" if start.network.aux is None else "cifar10"
