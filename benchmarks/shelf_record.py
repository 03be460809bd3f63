"""Writes what a finished training of `nasnet-zoo train` came to, as the docs quote it and weights_curve.py draws it.

python benchmarks/shelf_record.py RUN NAME     writes benchmarks/results/NAME.json
"""

import argparse
import json
from pathlib import Path
from typing import Any

from common import in_a_sentence, write

from nasnet_zoo.arch.checks import read_json
from nasnet_zoo.arch.config import config_of
from nasnet_zoo.arch.cost import network_cost
from nasnet_zoo.arch.kinds import get_kind
from nasnet_zoo.errors import ConfigError
from nasnet_zoo.registry import model_of
from nasnet_zoo.training.history import spent
from nasnet_zoo.training.run import CHECKPOINT
from nasnet_zoo.training.state import kept_epochs
from nasnet_zoo.weights.cards import MEASURED


def record(folder: Path) -> dict[str, Any]:
    """The record of the training in a run folder; raises ConfigError if there is none that is done."""
    path = folder / CHECKPOINT / "config.json"
    config, weights = config_of(read_json(path, "config"), path)
    if not {"training", "recipe", "accuracy"} <= weights.keys() or "seconds" not in weights["training"]:
        raise ConfigError(f"{path} does not say how its weights were trained: name the folder of a training")
    batch = weights["recipe"]["batch_size"]
    pictures, epochs = weights["training"]["pictures"] // batch * batch, kept_epochs(folder)
    curve = []
    for count, epoch in enumerate(epochs, 1):
        point = {"epoch": epoch.epoch, "loss": epoch.loss, "seconds": spent(epochs[:count], pictures)["seconds"]}
        curve.append(point | ({"accuracy": epoch.metrics["top1"]} if "top1" in epoch.metrics else {}))
    cost = network_cost(config)
    model = model_of(config)
    return {
        "cell": model.name if model else get_kind(config.kind).hash(config.architecture),
        "scale": json.loads(json.dumps(vars(config.scale))),
        "parameters": cost.parameters,
        "multiply_adds": cost.multiply_adds,
        **{key: weights["training"][key] for key in ("devices", "seconds", "pictures_per_second")},
        "accuracy": weights["accuracy"],
        "recipe": weights["recipe"],
        "curve_of": next((said for key, said in MEASURED.items() if f"{key}_top1" in weights["accuracy"]), ""),
        "curve": curve,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("name")
    arguments = parser.parse_args()
    write(arguments.name, record(arguments.run))


if __name__ == "__main__":
    in_a_sentence(main)
