"""Tiny pictures and a tiny network for tests of trainings, and what a training's command says."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from nasnet_zoo.arch.cells import CellScale
from nasnet_zoo.arch.config import NetworkConfig
from nasnet_zoo.arch.genotypes import NASNET_A
from nasnet_zoo.arch.preprocess import CIFAR10
from nasnet_zoo.data.cifar import Pictures

CONFIG = NetworkConfig(
    NASNET_A,
    CellScale("cifar", 4, 4, (1, 1), bn_eps=1e-5),
    dataclasses.replace(CIFAR10, size=(16, 16)),
    10,
    labels="cifar10",
)
FAST = ("--workers", 0, "--set", "batch_size=8", "--set", "head_epochs=0", "--set", "learning_rate=0.02")
COLOURS = {"kiwi": (40, 200, 40), "mango": (200, 200, 40), "Äpfel 🍎": (200, 40, 40)}


def cifar10(folder=None, train=True):
    """Ten colours; the 64 pictures to train on are those of the first version's training."""
    generator = torch.Generator().manual_seed(0 if train else 1)
    labels = torch.randint(10, (64 if train else 30,), generator=generator)
    base = torch.randint(256, (10, 3, 1, 1), generator=generator)[labels]
    noise = torch.randint(-40, 40, (len(labels), 3, 16, 16), generator=generator)
    return Pictures((base + noise).clamp(0, 255).to(torch.uint8), labels)


def paint(folder, classes=COLOURS, splits=(("train", 6), ("val", 2)), side=16):
    """A folder of pictures of a colour a class."""
    draw = np.random.default_rng(0)
    for split, count in splits:
        for place, name in enumerate(classes):
            (folder / split / name).mkdir(parents=True, exist_ok=True)
            base = [*COLOURS.values()][place % 3]
            for index in range(count):
                picture = np.clip(draw.integers(-40, 40, (side, side, 3)) + base, 0, 255).astype(np.uint8)
                Image.fromarray(picture).save(folder / split / name / f"{index}.png")
    return folder


def trained(run, *arguments):
    """What a training that works says on stdout."""
    code, out, err = run(*arguments, *FAST)
    assert code == 0, err
    return out


def refused(run, *arguments, fast=True):
    """The one sentence of a command that cannot work."""
    code, out, err = run(*arguments, *(FAST if fast else ()))
    lines = [line for line in err.splitlines() if line.startswith("nasnet-zoo: ")]
    assert code == 2 and len(lines) == 1 and err.splitlines()[-1] == lines[0], (code, out, err)
    return lines[0].removeprefix("nasnet-zoo: ")


def record(folder, name="training.json"):
    return json.loads((Path(folder) / name).read_text())
