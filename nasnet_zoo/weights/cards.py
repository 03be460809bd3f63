"""The card of a checkpoint: README.md, made from its config.json alone, so that it says what is known and no more."""

import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..arch.config import NetworkConfig, read_config
from ..arch.cost import network_cost
from ..data.labels import label_names
from ..errors import CheckpointError
from ..lookup import CONFIG, WEIGHTS
from ..registry import model_of
from ..util.files import atomic_file
from ..util.progress import duration
from .checkpoint import CARD, MADE, made

MEASURED = {
    "seen": "on some of the pictures that it learned from",
    "held_out": "on pictures held out from the training",
    "val": "on the validation pictures",
    "cifar10_test": "on CIFAR-10's 10,000 test pictures",
}


def write_card(folder: str | Path, name: str | None = None) -> Path:
    """Writes README.md into a checkpoint folder, unless one that somebody has written is there; returns its path.

    `name` is its heading, the folder's name if None. Raises ConfigError for a config.json that cannot be read.
    """
    folder = Path(folder)
    path = folder / CARD
    if not path.exists() or made(path):
        text = card(*read_config(folder / CONFIG), name or folder.resolve().name, _dtype(folder / WEIGHTS))
        with atomic_file(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return path


def card(config: NetworkConfig, weights: Mapping[str, Any], name: str, dtype: str = "") -> str:
    """The text of a card: the Hub's header, what the network is, how it was trained and measured, how to use it.

    `weights` may come from anybody: what is not of the type that it should be is not said.
    """
    model = model_of(config)
    cost, side = network_cost(config), config.preprocess.size
    size = f"{cost.parameters / 1e6:.2f} M parameters, {cost.multiply_adds / 1e6:,.1f} M multiply-adds"
    digest = weights.get("sha256")
    known = isinstance(digest, str) and re.fullmatch("[0-9a-f]{64}", digest)
    rows = [
        ("network", _text(model.description if model else repr(config))),
        ("size", f"{size} for a picture of {side[0]} x {side[1]} px"),
        ("classes", _classes(config)),
        *_accuracies(_mapping(weights.get("accuracy"))),
        *_training(weights),
        ("weights", ", ".join(filter(None, [dtype, f"SHA-256 `{digest}`" if known else ""]))),
    ]
    table = [f"| {key} | {value} |" for key, value in rows]
    parts = [
        _header(config, weights),
        MADE,
        "",
        f"# {_text(name)}",
        "",
        "| | |",
        "| --- | --- |",
        *table,
        "",
        *_use(name),
    ]
    return "\n".join([*parts, *_recipe(weights.get("recipe"))]) + "\n"


def _header(config: NetworkConfig, weights: Mapping[str, Any]) -> str:
    lines = ["---", "library_name: nasnet_zoo", "pipeline_tag: image-classification"]
    if isinstance(weights.get("license"), str):
        lines.append(f"license: {json.dumps(weights['license'])}")
    lines += ["tags:", "- nasnet_zoo", "- neural-architecture-search"]
    if config.labels == "cifar10":
        lines += ["datasets:", "- cifar10"]
    if isinstance(weights.get("accuracy"), Mapping) and weights["accuracy"]:
        lines += ["metrics:", "- accuracy"]
    return "\n".join([*lines, "---"])


def _classes(config: NetworkConfig) -> str:
    names = label_names(config)
    if names is None:
        return str(config.num_classes)
    shown = ", ".join(map(_text, names[:12]))
    return f"{config.num_classes}: {shown}{', ...' if len(names) > 12 else ''}"


def _accuracies(accuracy: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """A row for each set of pictures that was measured on."""
    found: dict[str, list[str]] = {}
    for key, value in accuracy.items():
        where, _, metric = str(key).rpartition("_")
        if _number(value):
            found.setdefault(where, []).append(f"{_text(metric.replace('top', 'top-'))} {value:.2%}")
    for where, values in found.items():
        yield "accuracy", f"{', '.join(values)} {MEASURED.get(where) or _text(where)}"


def _training(weights: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    training, recipe = (_mapping(weights.get(key)) for key in ("training", "recipe"))
    if recipe:
        pictures, epochs = training.get("pictures"), weights.get("epoch", recipe.get("epochs"))
        of = f" of {pictures:,} pictures of {_text(training.get('data'))}" if type(pictures) is int else ""
        name, seed = (_text(recipe.get(key)) for key in ("name", "seed"))
        yield "training", f"{_text(epochs)} epochs{of}, recipe {name}, seed {seed}"
    seconds, speed = (training.get(key) for key in ("seconds", "pictures_per_second"))
    if _number(seconds) and _number(speed):
        yield "time", f"{duration(seconds)}, {speed:,.0f} pictures per second"
    if isinstance(devices := training.get("devices"), list) and devices:
        yield "machine", "; then ".join(map(_text, devices))
    if "origin" in weights:
        yield "origin", _text(weights["origin"])


def _number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _use(name: str) -> list[str]:
    return [
        "```python",
        "import nasnet_zoo",
        "",
        f"network = nasnet_zoo.load({json.dumps(name)})  # or this folder, or its Hub repo",
        'network.predict("picture.png")',
        "```",
        "",
    ]


def _recipe(recipe: Any) -> list[str]:
    """All fields, folded away: what is a default today may be another one in a later version."""
    if not isinstance(recipe, Mapping):
        return []
    fields = ",\n".join(f"  {json.dumps(str(key))}: {json.dumps(value)}" for key, value in recipe.items())
    head = ["<details><summary>The whole recipe, as <code>--recipe FILE</code> takes it</summary>", "", "```json"]
    return [*head, f"{{\n{fields}\n}}", "```", "", "</details>"]


def _text(value: Any) -> str:
    """Text from elsewhere in one line that is no markup: it can end no cell of a table, and is no link or picture."""
    return re.sub(r"([\\`*_\[\]|!&<>#~])", r"\\\1", " ".join(str(value).split()))


def _dtype(path: Path) -> str:
    """The type in which most of the weights are stored."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            types = [file.get_slice(key).get_dtype() for key in file.keys()]  # noqa: SIM118 - it is no mapping
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is no file of weights that can be read ({error})") from error
    names = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F64": "float64"}
    most = max(set(types), key=types.count, default="")
    return names.get(most, most)
