"""Trainings on a GPU: files read ahead, a stop and a second call, the commands, and torchrun's NCCL."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from shared_training import SEED, pictures, start

import nasnet_zoo
from nasnet_zoo.arch.preprocess import Preprocess
from nasnet_zoo.training.loop import train
from nasnet_zoo.training.recipe import Recipe
from nasnet_zoo.training.tasks.classify import Classify

pytestmark = pytest.mark.gpu
COUNT, BATCH = 24, 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Class folders of light and of dark pictures."""
    folder, generator = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for index in range(COUNT):
        name = ("light", "dark")[index % 2]
        (folder / name).mkdir(exist_ok=True)
        noise = generator.integers(0, 100, (40, 40, 3), dtype=np.uint8) + np.uint8(150 * (name == "light"))
        Image.fromarray(noise).save(folder / name / f"{index}.png")
    return folder


def test_batches_of_files_are_those_of_a_cpu(folder):
    files = [(str(path), index) for index, path in enumerate(sorted(folder.rglob("*.png")))]
    recipe = Recipe(1, batch_size=BATCH, flip=False, crop="inception", crop_area=0.3)
    task = Classify(files, recipe, Preprocess((32, 32)), workers=2)
    try:
        here, there = (
            [(images.cpu(), labels.cpu()) for images, labels in task.batches(0, torch.Generator(device).manual_seed(0))]
            for device in ("cpu", "cuda")
        )
    finally:
        task.close()
    assert len(here) == len(there) == COUNT // BATCH
    for (images, labels), (others, same) in zip(here, there):
        assert torch.equal(labels, same)
        torch.testing.assert_close(images, others, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("optimizer", ["sgd", "rmsprop"])
def test_a_stopped_training_ends_like_an_unbroken_one(tmp_path, optimizer):
    """Some of torch's kernels add up in any order, so it is not bit for bit."""
    recipe = Recipe(3, 16, 0.02, warmup_epochs=0, drop_path_keep=0.8, cutout=4, ema_decay=0.9, optimizer=optimizer)
    data = pictures(160, 32).to("cuda")

    def trained(stop_at=None, **options):
        network = start().to("cuda")
        first = weights(network)

        def on_step(epoch, step, steps):
            if (epoch, step) == stop_at:
                raise KeyboardInterrupt

        train(network, Classify(data, recipe, network.config.preprocess), recipe, seed=SEED, on_step=on_step, **options)
        return weights(network), first

    unbroken, first = trained()
    with pytest.raises(KeyboardInterrupt):
        trained((1, 7), folder=tmp_path, keep_seconds=0)
    resumed, _ = trained(folder=tmp_path)
    assert (resumed - unbroken).norm() < 0.02 * (unbroken - first).norm()


def weights(network):
    return torch.cat([parameter.detach().flatten().float().cpu() for parameter in network.parameters()])


def options(folder, out):
    few = ("--epochs", "3", "--set", "batch_size=8", "--set", "head_epochs=1", "--workers", "2")
    return [*("finetune", folder, "-m", "nasnet-a-cifar-small", "-o", out), *few]


def test_the_command_on_a_gpu(run, folder, tmp_path):
    code, out, err = run(*options(folder, tmp_path / "run"))
    assert code == 0 and "epoch 3/3: " in err, err
    code, out, err = run("train", "-o", tmp_path / "run", "--epochs", "4", "--workers", "2")
    assert code == 0 and "epoch 4/4: " in err and "epoch 3/" not in err, err
    assert nasnet_zoo.load(tmp_path / "run" / "best").labels == ("dark", "light")


def test_the_command_by_torchrun(folder, tmp_path):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1"]
    command = [*torchrun, "-m", "nasnet_zoo", *options(folder, tmp_path / "run")]
    done = subprocess.run(list(map(str, command)), env=dict(os.environ), capture_output=True, text=True)
    assert done.returncode == 0 and "epoch 3/3: " in done.stderr, done.stderr
