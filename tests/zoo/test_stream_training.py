"""A training on pictures that workers read goes on from any step, with any number of workers, to the same end."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from nasnet_zoo.arch.cells import CellScale
from nasnet_zoo.arch.config import NetworkConfig
from nasnet_zoo.arch.genotypes import NASNET_A
from nasnet_zoo.arch.preprocess import Preprocess
from nasnet_zoo.data.classes import class_folders
from nasnet_zoo.networks.build import build
from nasnet_zoo.training import state
from nasnet_zoo.training.loop import train
from nasnet_zoo.training.recipe import Recipe
from nasnet_zoo.training.tasks.classify import Classify

CONFIG = NetworkConfig(NASNET_A, CellScale("cifar", 4, 4, (1, 1), bn_eps=1e-5), Preprocess((12, 12)), 4)
# All that draws random numbers: of pictures, of batches, in the network; and smaller pictures at first.
RECIPE = Recipe(
    2,
    batch_size=8,
    learning_rate=0.05,
    warmup_epochs=0.5,
    drop_path_keep=0.8,
    dropout=0.1,
    sizes=((0, 8), (1, 12)),
    crop="inception",
    brightness=0.1,
    saturation=0.3,
    cutout=4,
    erase=0.3,
    mixup=0.2,
    cutmix=1.0,
    ema_decay=0.9,
)
STEPS = 4  # of an epoch


class Stop(Exception):
    pass


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """40 pictures in four colours; four of them are held out."""
    root, generator = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for name, colour in dict(red=(200, 40, 40), green=(40, 200, 40), blue=(40, 40, 200), white=(230, 230, 230)).items():
        (root / name).mkdir()
        for number in range(10):
            noise = generator.integers(-40, 40, (14, 18, 3)) + np.array(colour)
            Image.fromarray(noise.clip(0, 255).astype(np.uint8)).save(root / name / f"{number}.png")
    return class_folders(root)


def run(data, folder=None, workers=0, stop=None, recipe=RECIPE):
    """(the network's state, what its epochs came to, where the random numbers stand) after a training."""
    torch.manual_seed(1)
    network = build(CONFIG)
    task = Classify(data.train, recipe, CONFIG.preprocess, data.val, classes=4, workers=workers)
    assert task.steps == STEPS

    def on_step(epoch, step, steps):
        if epoch * steps + step == stop:
            raise Stop

    if stop is None:
        history = train(network, task, recipe, seed=3, folder=folder, measure=True, on_step=on_step)
        return dict(network.state_dict()), history, torch.get_rng_state()
    with pytest.raises(Stop):
        train(network, task, recipe, seed=3, folder=folder, measure=True, on_step=on_step)


def assert_same(ended, expected):
    for key, value in expected[0].items():
        assert torch.equal(ended[0][key], value), key
    assert ended[1] == expected[1]
    assert torch.equal(ended[2], expected[2])


@pytest.fixture(scope="module")
def whole(data):
    """An uninterrupted training without workers."""
    return run(data)


@pytest.fixture
def every_step(monkeypatch):
    """States are kept after every step."""
    monkeypatch.setattr(state, "KEEP_SECONDS", -1.0)


@pytest.mark.parametrize("workers", [1, 2])
def test_any_number_of_workers_makes_the_same_training(data, whole, workers):
    assert_same(run(data, workers=workers), whole)
    assert len(whole[1]) == 2 and all(0 <= epoch.metrics["top1"] <= 1 for epoch in whole[1])


@pytest.mark.parametrize("stop", range(2, 2 * STEPS + 1))
def test_a_training_goes_on_from_any_step_with_other_workers(tmp_path, data, whole, every_step, stop):
    """Odd steps with workers after none, even ones the other way round."""
    run(data, tmp_path, workers=2 * (stop % 2 == 0), stop=stop)
    assert_same(run(data, tmp_path, workers=2 * (stop % 2)), whole)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_training_that_is_stopped_at_every_step_ends_like_any_other(tmp_path, data, whole, every_step, workers):
    for stop in range(2, 2 * STEPS + 1):
        run(data, tmp_path, workers=workers, stop=stop)
    assert_same(run(data, tmp_path, workers=workers), whole)


def test_it_learns(data):
    recipe = dataclasses.replace(
        RECIPE, epochs=8, sizes=(), cutout=0, erase=0, mixup=0, cutmix=0, drop_path_keep=1.0, dropout=0.0, ema_decay=0.0
    )
    history = run(data, recipe=recipe, workers=1)[1]
    assert history[-1].loss < history[0].loss / 2 and history[-1].metrics["top1"] >= 0.75
