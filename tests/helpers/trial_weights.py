"""benchmarks/weights.py on made-up pictures: python trial_weights.py {run,hold,fail} STEP [its options]

At that step it says so and waits to be killed (hold), or the GPU dies (fail). States and copies come with every step.
"""

import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import weights
from common import in_a_sentence
from weights_copies import Copies

from nasnet_zoo.data.cifar import Pictures
from nasnet_zoo.training.step import TrainingStep

GPU_DIED = "CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be reported later"


def pictures(folder, train):
    """Noise that is brighter the higher its class is."""
    generator = torch.Generator().manual_seed(int(train))
    labels = torch.randint(10, (32,), generator=generator)
    noise = torch.randint(60, (32, 3, 32, 32), generator=generator)
    return Pictures((noise + 19 * labels[:, None, None, None]).to(torch.uint8), labels)


def before_step(number, do):
    """A TrainingStep's call that does something before its step of this number, counted from 1."""
    usual, steps = TrainingStep.__call__, []

    def call(self, *batch):
        steps.append(batch)
        if len(steps) == number:
            do()
        return usual(self, *batch)

    return call


def hold():
    print("holding", flush=True)
    time.sleep(600)


def fail():
    raise torch.AcceleratorError(GPU_DIED)


if __name__ == "__main__":
    do, step = sys.argv[1], int(sys.argv[2])
    del sys.argv[1:3]
    torch.set_num_threads(1)
    weights.load_cifar10, Copies.SECONDS = pictures, 0.0
    if do != "run":
        TrainingStep.__call__ = before_step(step, {"hold": hold, "fail": fail}[do])
    in_a_sentence(weights.main)
