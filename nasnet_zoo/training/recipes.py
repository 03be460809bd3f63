"""The recipes by name, each number with its source. Imports no torch.

TF-slim is research/slim/nets/nasnet/nasnet.py of tensorflow/models, in its arguments and comments.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

from ..arch.checks import json_or_text, parse_dataclass, read_json
from ..errors import ConfigError
from ..util.tables import Table, nearest
from .recipe import Recipe

MOBILE = 600e6  # multiply-adds: the papers' limit for mobile networks, which are trained without drop path


class Named(NamedTuple):
    title: str
    recipe: Recipe


# TF-slim: RMSProp, label smoothing 0.1, auxiliary loss 0.4, a clip at 10, batch norm's decay 0.9997, and a rate of 0.97
# for every 2.4 epochs. The paper's A.7: RMSProp with decay 0.9 and epsilon 1.0, moving average 0.9999, dropout 0.5,
# Inception's augmentation. Momentum 0.9 and steps are the defaults of slim's train_image_classifier. The 312 epochs are
# the 250,000 steps over which TF-slim's drop path grows, of 1,600 pictures out of 1.28 million.
_IMAGENET = Recipe(
    312,
    1600,
    2.0,
    warmup_epochs=0.0,
    optimizer="rmsprop",
    square_decay=0.9,
    epsilon=1.0,
    schedule="step",
    label_smoothing=0.1,
    clip_norm=10.0,
    bn_momentum=0.0003,
    dropout=0.5,
    weight_decay=4e-5,
    ema_decay=0.9999,
    crop="inception",
    brightness=32 / 255,
    saturation=0.5,
    precision="auto",
)
_CIFAR10_PAPER = Recipe(600, 32, 0.025, warmup_epochs=0, nesterov=False, drop_path_keep=0.6, cutout=16)

RECIPES = Table(
    "recipe",
    {
        # What fits into half an hour on two CPU cores.
        "cifar-quick": Named(
            "CIFAR-10 in half an hour on two CPU cores: 13 epochs, most of them on smaller pictures",
            Recipe(13, 128, 0.15, weight_decay=3e-4, pad=3, sizes=((0, 16), (7, 20), (10, 24), (12, 32))),
        ),
        # Chosen by hand; benchmarks/shelf_choose.py compares some of its settings. No cutout: so few epochs do not
        # overfit.
        "cifar-cpu": Named(
            "CIFAR-10 on a CPU, for two hours: 20 epochs, most of them on smaller pictures",
            Recipe(20, 128, 0.2, label_smoothing=0.1, sizes=((0, 16), (8, 24), (15, 32))),
        ),
        # The paper's recipe at four times the batch and the rate, for a sixth of the epochs.
        "cifar10": Named(
            "CIFAR-10 on a GPU: 100 epochs with cutout and drop path",
            Recipe(100, 128, 0.1, drop_path_keep=0.8, cutout=16, precision="auto"),
        ),
        # TF-slim: 600 epochs, batch 32, rate 0.025, one cosine, clip 5, weight decay 5e-4, drop path 0.6, decay 0.9.
        # The paper's A.6: momentum 0.9; its table 1: with cutout. The auxiliary loss counts where the config has a head
        # (aux_size 16 x 16), as `transfer` makes it and the zoo's nasnet-a-cifar has not.
        "cifar10-paper": Named("CIFAR-10 as the NASNet paper and TF-slim have it: 600 epochs", _CIFAR10_PAPER),
        # TF-slim: 50 replicas of 32 pictures, each at a rate of 0.04.
        "imagenet-mobile": Named("ImageNet as TF-slim has it for mobile networks: RMSProp, 1,600 at a time", _IMAGENET),
        # TF-slim: 100 replicas of 16 pictures, each at a rate of 0.015; drop path 0.7, weight decay 5e-5.
        "imagenet-large": Named(
            "ImageNet as TF-slim has it for large networks, with drop path",
            replace(_IMAGENET, learning_rate=1.5, weight_decay=5e-5, drop_path_keep=0.7),
        ),
        # Chosen by hand on a part of Tiny ImageNet, with one seed: rates of 0.02 to 0.1, a layer_decay of 1, larger
        # crops and AdamW were within two points of each other. benchmarks/finetuning.py measures what was chosen.
        "finetune": Named(
            "a trained network on pictures of your own: first the classifier, then all of it",
            Recipe(
                20,
                32,
                0.05,
                warmup_epochs=0.5,
                weight_decay=1e-4,
                label_smoothing=0.1,
                head_epochs=2,
                layer_decay=0.9,
                crop="inception",
                crop_area=0.35,
                brightness=32 / 255,
                saturation=0.3,
                precision="auto",
            ),
        ),
        "scratch": Named(
            "a fresh network on pictures of your own",
            Recipe(
                60,
                32,
                0.05,
                label_smoothing=0.1,
                crop="inception",
                crop_area=0.25,
                brightness=32 / 255,
                saturation=0.3,
                precision="auto",
            ),
        ),
        # NASNet paper, appendix A.2 to A.4: 20 epochs, one cosine, pictures whitened (which is the network's), enlarged
        # to 40 px and cropped to 32. It gives no batch size and no rate: TF-slim's 32 and 0.025, both times four.
        "nasnet-child": Named(
            "a child of the NASNet paper's search: 20 epochs",
            Recipe(20, 128, 0.1, warmup_epochs=0.0, enlarge=True, precision="auto"),
        ),
        # Radosavovic et al. 2019, appendix: what their NAS spaces were sampled with, for a fifth of the epochs.
        "nds-child": Named(
            "a child of the NDS spaces: 20 epochs", Recipe(20, 128, 0.1, warmup_epochs=0.0, precision="auto")
        ),
        "quick-child": Named(
            "a child of the preset quick, of some seconds: one epoch", Recipe(1, 50, 0.1, warmup_epochs=0.2, pad=2)
        ),
        # What `cifar10-paper` was called before; in Nesterov's form.
        "nasnet-cifar": Named("the former cifar10-paper, in Nesterov's form", replace(_CIFAR10_PAPER, nesterov=True)),
    },
)


def imagenet_recipe(multiply_adds: float) -> str:
    """The name of the recipe with which the paper trained networks of that size on ImageNet."""
    return "imagenet-mobile" if multiply_adds <= MOBILE else "imagenet-large"


def find_recipe(what: str | Path | Recipe, changes: Mapping[str, Any] | None = None) -> Recipe:
    """The recipe of a name or a JSON file, or itself, with some of its fields changed.

    A file has the fields that differ from the defaults, or from those of the recipe that it names as "base". Raises
    ConfigError for an unknown name or field, or a value that is impossible.
    """
    changes = dict(changes or {})
    known = [field.name for field in fields(Recipe)]
    for name in changes:
        if name not in known:
            near = nearest(name, known) or f"; it has {', '.join(known)}"
            raise ConfigError(f"a recipe has no field {name!r}{near}")
    epochs = {"epochs": changes["epochs"]} if type(changes.get("epochs")) is int else {}  # which a file may lack
    recipe = what if isinstance(what, Recipe) else _read(str(what), epochs)
    return replace(recipe, **changes) if changes else recipe


def _read(what: str, given: dict[str, Any]) -> Recipe:
    """The recipe of a name or a file, with what is `given` where a file says nothing."""
    if what in RECIPES:
        return RECIPES[what].recipe
    if not what.endswith(".json"):
        raise ConfigError(
            f"there is no recipe {what!r}; there are {', '.join(RECIPES)}, or name a JSON file{nearest(what, RECIPES)}"
        )
    value = read_json(what, "recipe")
    if not isinstance(value, dict):
        raise ConfigError(f"{what}: a recipe is a JSON object, as a checkpoint's config.json has one")
    for key in ("weights", "recipe"):  # where a checkpoint's config.json has it; a training.json has no weights
        value = value[key] if isinstance(value.get(key), dict) else value
    value = {key: entry for key, entry in value.items() if key not in ("name", "seed")}  # beside it there
    base = value.pop("base", None)
    if base is not None:
        value = json.loads(json.dumps(asdict(RECIPES.row(str(base)).recipe))) | value
    return parse_dataclass(Recipe, given | value, what)


def parsed_changes(settings: list[str]) -> dict[str, Any]:
    """`name=value` texts as fields and values, each parsed as JSON or else the text itself. Raises ConfigError."""
    changes = {}
    for text in settings:
        name, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"--set {text}: write a field's name, =, and its value, as in --set epochs=30")
        changes[name.strip()] = json_or_text(value)
    return changes
