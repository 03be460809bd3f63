"""A training that torchrun starts several times: torchrun ... shared_training.py FOLDER [DIE [SIGNAL]]

Writes FOLDER/ended.safetensors and FOLDER/history.json. With DIE, process 1 gets a signal after so many steps, once:
SIGKILL, or the one of that number.
"""

import json
import os
import signal
import sys
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import save_file

import nasnet_zoo
from nasnet_zoo.data.cifar import Pictures
from nasnet_zoo.training import state
from nasnet_zoo.training.distributed import first, processes, rank
from nasnet_zoo.training.loop import train
from nasnet_zoo.training.recipe import Recipe
from nasnet_zoo.training.tasks.classify import Classify

SEED = 3
RECIPE = Recipe(
    2, batch_size=16, warmup_epochs=0.5, pad=2, drop_path_keep=0.8, dropout=0.1, cutout=4, ema_decay=0.9, erase=0.3
)


def pictures(count, side):
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(4, (count,), generator=generator)
    return Pictures(torch.randint(256, (count, 3, side, side), generator=generator).to(torch.uint8), labels)


def start():
    torch.manual_seed(1)
    return nasnet_zoo.create("nasnet-a-cifar", filters=4, stem_channels=8, stages=(1, 1, 1), num_classes=4)


def task(network):
    return Classify(pictures(64, 12), RECIPE, network.config.preprocess, pictures(37, 32))


def main(folder, die=0, number=signal.SIGKILL):
    torch.set_num_threads(1)
    state.KEEP_SECONDS = -1.0  # states are kept after every step
    with processes("cpu"):
        network, marker = start(), folder / f"died-{die}"

        def on_step(epoch, step, steps):
            print(f"process {rank()}, step {epoch * steps + step}", flush=True)
            if epoch * steps + step == die and rank() == 1 and not marker.exists():
                marker.touch()
                os.kill(os.getpid(), number)

        history = train(*(network, task(network), RECIPE), seed=SEED, folder=folder, measure=True, on_step=on_step)
        if first():
            ended = {key: value.contiguous() for key, value in network.state_dict().items()}
            save_file(ended, folder / "ended.safetensors")
            (folder / "history.json").write_text(json.dumps([asdict(epoch) for epoch in history]))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
