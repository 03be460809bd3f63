"""Puts the weights of a finished training into the package, as the model whose network they are.

    python tools/ship.py RUN [--data DIR]

Stored in float16, measured as they are stored on all test pictures of CIFAR-10, with a card. Afterwards: the pictures
(tools/demo_picture.py, tools/predictions_picture.py), `make card`, README.md, and the tables of docs/.
"""

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

import torch

import nasnet_zoo
from nasnet_zoo.data.cifar import cifar10_pictures
from nasnet_zoo.errors import ConfigError, ZooError
from nasnet_zoo.registry import model_of
from nasnet_zoo.training.evaluate import evaluate
from nasnet_zoo.training.run import CHECKPOINT
from nasnet_zoo.weights.cards import write_card
from nasnet_zoo.weights.checkpoint import copy_checkpoint

ASSETS = Path(nasnet_zoo.__file__).parent / "assets"


def ship(run: Path, data: str | None, assets: Path = ASSETS) -> Path:
    """Returns the model's folder among the assets; raises a ZooError, and then changes nothing there."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "checkpoint"
        copy_checkpoint(run / CHECKPOINT, folder, torch.float16)
        network = nasnet_zoo.load(str(folder))
        model = model_of(network.config)
        if model is None:
            raise ConfigError(f"{run} is of no model of the zoo: add its config to nasnet_zoo/models.py first")
        top1, top5 = evaluate(network, cifar10_pictures(data, train=False))
        value = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        value["weights"]["accuracy"] = {"cifar10_test_top1": round(top1, 4), "cifar10_test_top5": round(top5, 4)}
        value["weights"]["license"] = model.license
        (folder / "config.json").write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
        write_card(folder, model.name)
        shutil.copytree(folder, assets / model.name, dirs_exist_ok=True)
    print(f"{model.name}: top-1 {top1:.2%}, top-5 {top5:.2%}")
    return assets / model.name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", help="the folder that holds CIFAR-10")
    arguments = parser.parse_args()
    try:
        ship(arguments.run, arguments.data)
    except ZooError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
