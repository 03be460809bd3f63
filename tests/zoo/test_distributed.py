"""One training in two processes: the same as one that normalises the two halves of its batches separately."""

import json
import os
import re
import signal
import subprocess
import sys

import pytest
import shared_training
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from shared_training import RECIPE, SEED
from torch.nn.modules.batchnorm import _BatchNorm

from nasnet_zoo.errors import CheckpointError, ConfigError
from nasnet_zoo.training import distributed
from nasnet_zoo.training.distributed import processes, step_seed
from nasnet_zoo.training.loop import train
from nasnet_zoo.training.optim import Average, make_optimizer, schedule, set_rate
from nasnet_zoo.training.prepare import prepare

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no distributed package")


def torchrun(*arguments, options=(), **changes):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", **changes}
    command = [*TORCHRUN, *options, *map(str, arguments)]
    return subprocess.Popen(
        command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )


def finished(process):
    out, err = process.communicate()
    return process.returncode, out, err


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """The weights and the history of a training in two processes."""
    folder = tmp_path_factory.mktemp("shared")
    code, _, err = finished(torchrun(shared_training.__file__, folder))
    assert code == 0, err
    return load_file(folder / "ended.safetensors"), json.loads((folder / "history.json").read_text())


def by_hand():
    """The same training in one process, written out: each half of a batch goes through a network of its own."""
    halves = [shared_training.start() for _ in range(2)]
    task = shared_training.task(halves[0])
    for network in halves:
        prepare(network, RECIPE)
        network.train()
    optimizer = make_optimizer(halves[0], RECIPE)
    average = Average(halves[0], RECIPE.ema_decay)
    losses = []
    for epoch in range(RECIPE.epochs):
        generator = torch.Generator().manual_seed(SEED * 100_003 + epoch + 1)
        for index, (images, labels) in enumerate(task.batches(epoch, generator)):
            done = epoch + index / task.steps
            set_rate(optimizer, schedule(RECIPE, done))
            for rank, (network, part) in enumerate(zip(halves, (slice(0, 8), slice(8, 16)))):
                network.progress.fill_(done / RECIPE.epochs)
                network.zero_grad()
                torch.manual_seed(step_seed(SEED, epoch, index, rank))
                loss = task.loss(network, images[part], labels[part])
                loss.backward()
                losses.append(loss.item())
            for mine, other in zip(*(network.parameters() for network in halves)):
                mine.grad = (mine.grad + other.grad) / 2
            torch.nn.utils.clip_grad_norm_(halves[0].parameters(), RECIPE.clip_norm)
            optimizer.step()
            norms = [[m for m in network.modules() if isinstance(m, _BatchNorm)] for network in halves]
            with torch.no_grad():
                for mine, other in zip(*norms):
                    mine.running_mean.lerp_(other.running_mean, 0.5)
                    mine.running_var.lerp_(other.running_var, 0.5)
            average.update(epoch * task.steps + index + 1)
            halves[1].load_state_dict(halves[0].state_dict())
    average.swap()
    return halves[0].eval(), task, losses


def test_two_processes_are_one_that_normalises_the_halves_separately(ended):
    weights, history = ended
    network, task, losses = by_hand()
    for key, value in network.state_dict().items():
        torch.testing.assert_close(
            weights[key], value, rtol=1e-5, atol=1e-5, msg=lambda said, key=key: f"{key}: {said}"
        )
    assert sum(losses) / len(losses) == pytest.approx(sum(e["loss"] for e in history) / len(history), abs=1e-5)
    alone = shared_training.start()
    train(alone, shared_training.task(alone), RECIPE, seed=SEED)
    assert not torch.allclose(alone.classifier.weight, network.classifier.weight, atol=1e-4)  # whole batches are else
    assert history[-1]["metrics"] == task.evaluate(network)  # 37 pictures are no multiple of two


def test_a_killed_process_is_started_again_and_ends_the_same(tmp_path, ended):
    die = 6
    code, _, err = finished(torchrun(shared_training.__file__, tmp_path, die, options=["--max-restarts", "1"]))
    assert code == 0 and (tmp_path / f"died-{die}").exists(), err
    weights, history = load_file(tmp_path / "ended.safetensors"), json.loads((tmp_path / "history.json").read_text())
    assert weights.keys() == ended[0].keys()
    assert all(torch.equal(weights[key], value) for key, value in ended[0].items())
    assert [epoch["loss"] for epoch in history] == [epoch["loss"] for epoch in ended[1]]


def test_without_restarts_a_killed_process_ends_the_others(tmp_path):
    code, _, err = finished(torchrun(shared_training.__file__, tmp_path, 5))
    assert code != 0 and "exitcode: -9" in err.replace(" ", "").replace("exitcode:-9", "exitcode: -9")
    with safe_open(tmp_path / "state.safetensors", "pt") as file:
        assert json.loads(file.metadata()["steps"]) + 4 * len(json.loads(file.metadata()["history"])) in (3, 4)


@pytest.mark.slow  # torchrun waits half a minute for processes that end by themselves
def test_an_interrupt_of_one_process_stops_all_after_the_same_step(tmp_path, ended):
    code, out, err = finished(torchrun(shared_training.__file__, tmp_path, 3, int(signal.SIGINT)))
    assert code != 0, err
    # Not by lines: both processes write to one pipe.
    steps = [[int(step) for step in re.findall(rf"process {rank}, step (\d+)", out)] for rank in (0, 1)]
    with safe_open(tmp_path / "state.safetensors", "pt") as file:
        kept = json.loads(file.metadata()["steps"]) + 4 * len(json.loads(file.metadata()["history"]))
    assert kept == 3 and steps == [[1, 2, 3], [1, 2, 3]]
    code, _, err = finished(torchrun(shared_training.__file__, tmp_path))
    assert code == 0, err
    weights = load_file(tmp_path / "ended.safetensors")
    assert all(torch.equal(weights[key], value) for key, value in ended[0].items())


def test_more_processes_than_gpus(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "2")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ConfigError, match="process 2 .* finds 2 GPUs: start torchrun with --nproc-per-node 2"):
        with processes():
            pass
    with pytest.raises(ConfigError, match="each process has a GPU of its own, and cuda:0 is one for all"):
        with processes("cuda:0"):
            pass


def test_a_batch_that_cannot_be_shared(monkeypatch):
    monkeypatch.setattr("nasnet_zoo.training.loop.world", lambda: 3)
    network = shared_training.start()
    with pytest.raises(ConfigError, match="batch_size 16 cannot be shared equally by 3 processes"):
        train(network, shared_training.task(network), RECIPE)
    monkeypatch.setattr("nasnet_zoo.training.loop.world", lambda: 16)
    with pytest.raises(ConfigError, match="parts of at least 2: give one that is a multiple of 16, from 32 on"):
        train(network, shared_training.task(network), RECIPE)


def test_states_that_differ_are_refused(monkeypatch):
    """As machines may see them whose file systems lag."""
    monkeypatch.setattr("nasnet_zoo.training.loop.same_everywhere", lambda numbers: False)
    network = shared_training.start()
    with pytest.raises(CheckpointError, match="the processes found different states"):
        train(network, shared_training.task(network), RECIPE)


@pytest.mark.parametrize(("other", "same"), [([3, 5], True), ([3, 4], False), ([2, 9], False)])
def test_numbers_are_compared_over_all_processes(monkeypatch, other, same):
    def all_reduce(tensor, op):
        tensor.copy_(torch.maximum(tensor, torch.tensor([*other, *(-number for number in other)])))

    monkeypatch.setattr(distributed, "world", lambda: 2)
    monkeypatch.setattr(distributed.dist, "all_reduce", all_reduce)
    assert distributed.same_everywhere([3, 5]) is same


def test_the_end_of_another_process_is_one_sentence():
    said = "[../third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:1"
    environment = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    code = (
        "from nasnet_zoo.training.distributed import processes\n"
        "try:\n"
        f"    with processes('cpu'): raise RuntimeError({said!r})\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True
    )
    assert done.stdout.startswith("ZooError another process of this training has ended"), done.stderr


def test_alone_nothing_is_shared():
    value = torch.ones(3)
    assert (distributed.rank(), distributed.world(), distributed.first()) == (0, 1, True)
    assert distributed.share(16) == slice(0, 16) and distributed.anywhere([True, False]) == [True, False]
    assert distributed.summed(value) is value
    with processes("cpu") as device:
        assert device == "cpu" and distributed.world() == 1


@pytest.mark.slow
def test_the_command_in_two_processes(tmp_path):
    """One of them writes and says what there is to say; a call in one process goes on with it."""
    generator = torch.Generator().manual_seed(0)
    for name in ("light", "dark"):
        for index in range(12):
            (tmp_path / "data" / name).mkdir(parents=True, exist_ok=True)
            noise = torch.randint(60, (20, 20, 3), generator=generator) + 150 * (name == "light")
            Image.fromarray(noise.to(torch.uint8).numpy()).save(tmp_path / "data" / name / f"{index}.png")
    options = ("--set", "batch_size=8", "--device", "cpu", "--workers", "1")
    train = ("finetune", tmp_path / "data", "-m", "nasnet-a-cifar-small", "-o", tmp_path / "run", "--epochs", "3")
    code, out, err = finished(torchrun("-m", "nasnet_zoo", *train, *options))
    assert code == 0, err
    assert out.count("next: nasnet-zoo predict") == 1 and err.count(" epoch 3/3: ") == 1
    assert {path.name for path in (tmp_path / "run").iterdir() if not path.name.startswith(".")} == {
        *("best", "checkpoint", "curve.png", "history.csv", "state.safetensors", "tensorboard", "training.json")
    }
    command = [sys.executable, "-m", "nasnet_zoo", "train", "-o", tmp_path / "run", "--epochs", "4", *options[2:]]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and " epoch 4/4: " in done.stderr and " epoch 3/" not in done.stderr, done.stderr
