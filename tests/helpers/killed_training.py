"""A small training that is killed again and again: python killed_training.py FOLDER {memory,files} KILLS

Each life is a fork, so that it begins at once; it is killed with SIGKILL after a random number of steps and a random
moment more, in which it may be writing its state. Prints how often it was killed, and whether the weights are in the
end those of an unbroken training, bit for bit.
"""

import os
import random
import select
import signal
import sys
import time
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import nasnet_zoo
from nasnet_zoo.data.cifar import Pictures
from nasnet_zoo.training import state
from nasnet_zoo.training.loop import train
from nasnet_zoo.training.recipe import Recipe
from nasnet_zoo.training.tasks.classify import Classify

RECIPE = Recipe(12, batch_size=8, warmup_epochs=0.5, pad=1, drop_path_keep=0.8, dropout=0.1, ema_decay=0.9)
COUNT, SIDE = 48, 8


def task(network, folder, kind):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (COUNT, 3, SIDE, SIDE), generator=generator).to(torch.uint8)
    labels = torch.randint(4, (COUNT,), generator=generator)
    if kind == "memory":
        return Classify(Pictures(images, labels), RECIPE, network.config.preprocess)
    files = [(str(folder / f"{index}.png"), int(label)) for index, label in enumerate(labels)]
    for (path, _), image in zip(files, images):
        if not os.path.exists(path):
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(path)
    return Classify(files, RECIPE, network.config.preprocess, workers=2)


def life(folder, kind, name, pipe):
    """A training from where it is to its end."""
    torch.manual_seed(1)
    scale = dict(filters=4, stem_channels=8, stages=(1, 1), num_classes=4)
    network = nasnet_zoo.create("nasnet-a-cifar", **scale)
    train(
        *(network, task(network, folder, kind), RECIPE),
        seed=3,
        folder=folder / name,
        on_step=lambda *_: os.write(pipe, b"."),
    )
    save_file({k: v.contiguous() for k, v in network.state_dict().items()}, folder / f"{name}.safetensors")


def lived(folder, kind, name, steps, delay):
    """Whether a life came to its end; it is killed so long after so many steps."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        code = 1
        try:
            os.close(read)
            life(folder, kind, name, write)
            code = 0
        finally:
            os._exit(code)
    os.close(write)
    seen = 0
    while seen < steps and select.select([read], [], [])[0]:
        done = os.read(read, 1)
        if not done:
            break
        seen += 1
    else:
        time.sleep(delay)
        os.kill(child, signal.SIGKILL)
    os.close(read)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        sys.exit(f"a life failed with {os.WEXITSTATUS(status)}")
    return os.WIFEXITED(status)


def main(folder, kind, kills):
    torch.set_num_threads(1)
    state.KEEP_SECONDS = -1.0  # after every step
    draw, killed = random.Random(0), 0
    lived(folder, kind, "unbroken", 10**9, 0)
    while killed < kills and not lived(folder, kind, "killed", draw.randint(2, 4), draw.uniform(0, 0.05)):
        killed += 1
    if killed == kills:
        lived(folder, kind, "killed", 10**9, 0)
    one, other = (load_file(folder / f"{name}.safetensors") for name in ("unbroken", "killed"))
    same = one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
    print(f"killed {killed} times, {'the same' if same else 'other'} weights")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
