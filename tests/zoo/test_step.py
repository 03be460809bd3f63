"""One step of a training, and what becomes of a captured one that cannot be trusted."""

import contextlib
import copy
import dataclasses
import logging
import re
from types import SimpleNamespace

import pytest
import torch
from test_training_state import CONFIG, SHORT, pictures, start
from torch import nn

from nasnet_zoo.errors import ConfigError
from nasnet_zoo.networks.layers import BatchNorm
from nasnet_zoo.training.augment import epoch_batches
from nasnet_zoo.training.loop import train
from nasnet_zoo.training.optim import make_optimizer, set_rate
from nasnet_zoo.training.recipe import Recipe
from nasnet_zoo.training.step import WARMUP_STEPS, TrainingStep, checked_capture
from nasnet_zoo.training.tasks.classify import Classify


def begun():
    """A training that has done a step, and the batch of its next: momenta are there, as before every capture."""
    torch.manual_seed(5)
    network = start().train()
    network.regularize(drop_path_keep=0.8, dropout=0.1)
    optimizer = make_optimizer(network, SHORT)
    set_rate(optimizer, 0.05)
    step = TrainingStep(network, optimizer, Classify(pictures(), SHORT, CONFIG.preprocess), SHORT)
    batches = list(epoch_batches(pictures(), SHORT, CONFIG.preprocess, torch.Generator().manual_seed(0), 16))
    step(*batches[0])
    return step, batches[1]


def after(step):
    """All that a step moves."""
    moved = {f"momentum {i}": s["momentum_buffer"] for i, s in enumerate(step.optimizer.state.values())}
    return copy.deepcopy(dict(step.network.named_parameters()) | dict(step.network.named_buffers()) | moved), (
        torch.get_rng_state()
    )


def assert_same(step, loss, expected):
    (values, random), plain = expected
    found, now = after(step)
    assert torch.equal(loss, plain) and torch.equal(now, random) and found.keys() == values.keys()
    for key, value in values.items():
        assert torch.equal(found[key], value), key


@pytest.fixture
def plain():
    """What the plain step does."""
    step, batch = begun()
    loss = step.eager(*batch)
    return after(step), loss


class Right:
    """Captured as on a GPU: capturing runs the step, which must leave no trace."""

    def __init__(self, step, *batch):
        self.step = step
        step.eager(*batch)

    def __call__(self, *batch):
        return self.step.eager(*batch)


class Slightly(Right):
    """As right as another order of additions."""

    def __call__(self, *batch):
        loss = super().__call__(*batch)
        with torch.no_grad():
            for parameter in self.step.network.parameters():
                parameter += 1e-6 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
        return loss * 1.0001


class Wrong(Right):
    """It forgets the gradients of half of the network."""

    def __call__(self, *batch):
        parameters = list(self.step.network.parameters())
        before = [parameter.detach().clone() for parameter in parameters]
        loss = super().__call__(*batch)
        with torch.no_grad():
            for parameter, value in list(zip(parameters, before))[::2]:
                parameter.copy_(value)
        return loss


class Stale(Right):
    """It replays the loss of another batch."""

    def __call__(self, *batch):
        return super().__call__(*batch) + 1


class NoNumbers(Right):
    def __call__(self, *batch):
        loss = super().__call__(*batch)
        with torch.no_grad():
            self.step.network.classifier.weight.fill_(float("nan"))
        return loss


class NoLoss(Right):
    """Weights as they should be, and a loss that is no number."""

    def __call__(self, *batch):
        return super().__call__(*batch) * float("nan")


class NoCapture(Right):
    def __init__(self, step, *batch):
        super().__init__(step, *batch)
        raise RuntimeError("operation not permitted when stream is capturing\nand a long tail")


class NoReplay(Right):
    def __call__(self, *batch):
        torch.rand(100)
        raise MemoryError


@pytest.mark.parametrize("capture", [Right, Slightly])
def test_a_right_capture_is_kept(capture, plain, caplog):
    step, batch = begun()
    with caplog.at_level(logging.INFO, "nasnet_zoo"):
        graph, loss = checked_capture(step, capture, *batch)
    assert isinstance(graph, capture)
    assert_same(step, loss, plain)
    assert [record.getMessage() for record in caplog.records] == ["steps on batches of 16x3x16x16 are captured"]


@pytest.mark.parametrize(
    "capture, said",
    [
        (Wrong, r"it is off in weights by 0\.\d+ of a step$"),
        (Stale, r"it is off in loss by 0\.\d+ of a step$"),
        (NoNumbers, "it is off in weights by nan of a step$"),
        (NoLoss, "it is off in loss by nan of a step$"),
        (NoCapture, r"it fails \(operation not permitted when stream is capturing\)$"),
        (NoReplay, r"it fails \(MemoryError\)$"),
    ],
)
def test_any_other_falls_back_to_the_plain_step(capture, said, plain, caplog):
    step, batch = begun()
    with caplog.at_level(logging.INFO, "nasnet_zoo"):
        graph, loss = checked_capture(step, capture, *batch)
    assert graph is None
    assert_same(step, loss, plain)
    (record,) = caplog.records
    assert record.levelname == "WARNING" and "\n" not in record.getMessage()
    assert record.getMessage().startswith("steps on batches of 16x3x16x16 run as they are, for captured it ")
    assert re.search(said, record.getMessage())


def test_a_plain_step_without_numbers_captures_nothing():
    step, batch = begun()
    graph, loss = checked_capture(step, Right, batch[0] * float("nan"), batch[1])
    assert graph is None and loss.isnan()


# Which way a step goes


class Recorded(TrainingStep):
    def eager(self, *batch):
        self.ways.append("eager")
        return torch.ones(())


@pytest.fixture
def on_gpu(monkeypatch):
    """A step and a batch that says that it lies on a GPU."""
    monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())
    monkeypatch.setattr("nasnet_zoo.training.step._aside", lambda function, *arguments: function(*arguments))

    def make(capture, kept=True):
        recipe = Recipe(1, channels_last=False, capture=capture)
        step, ways = Recorded(torch.nn.Linear(1, 1), None, None, recipe), []
        step.ways = ways

        def check(step, capture, *batch):
            ways.append("checked")
            return (lambda *batch: ways.append("replayed") or torch.ones(())) if kept else None, torch.ones(())

        monkeypatch.setattr("nasnet_zoo.training.step.checked_capture", check)
        return step, ways

    return make


def pretended(*shape):
    return SimpleNamespace(device=torch.device("cuda"), shape=torch.Size(shape))


def test_the_first_steps_run_as_they_are_then_one_is_captured(on_gpu):
    step, ways = on_gpu("auto")
    for _ in range(WARMUP_STEPS + 3):
        step(pretended(4, 3), pretended(4))
    assert ways == ["eager"] * WARMUP_STEPS + ["checked", "replayed", "replayed"]
    step(pretended(2, 3), pretended(2))  # another shape starts anew
    assert ways[-1] == "eager" and len(step.graphs) == 1


def test_where_a_capture_is_not_trusted_it_is_tried_once(on_gpu):
    step, ways = on_gpu("auto", kept=False)
    for _ in range(WARMUP_STEPS + 3):
        step(pretended(4, 3), pretended(4))
    assert ways == ["eager"] * WARMUP_STEPS + ["checked", "eager", "eager"]


def test_capture_may_be_off(on_gpu):
    step, ways = on_gpu("off")
    for _ in range(WARMUP_STEPS + 3):
        step(pretended(4, 3), pretended(4))
    assert ways == ["eager"] * (WARMUP_STEPS + 3) and not step.seen


# The step itself


def test_gradients_are_clipped_and_batches_are_channels_last():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), BatchNorm(4, 1e-3), nn.Flatten(), nn.Linear(4 * 36, 2))
    seen = []
    network[0].register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    recipe = Recipe(1, learning_rate=1.0, clip_norm=0.5)
    task = SimpleNamespace(loss=lambda network, x: network(x).square().mean() * 1000)
    step = TrainingStep(network, torch.optim.SGD(network.parameters(), lr=1.0), task, recipe)
    before = [parameter.detach().clone() for parameter in network.parameters()]
    loss = step(torch.randn(4, 3, 8, 8))
    assert seen[0].is_contiguous(memory_format=torch.channels_last) and not loss.requires_grad
    moved = sum((a.detach() - b).square().sum() for a, b in zip(network.parameters(), before)).sqrt()
    assert float(moved) == pytest.approx(0.5, rel=1e-4)


# torch.compile


@pytest.mark.parametrize("backend", ["eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_a_compiled_training_is_the_plain_one(monkeypatch, backend):
    """Eager is what Dynamo makes of the step, without a compiler."""
    made = torch.compile
    monkeypatch.setattr(torch, "compile", lambda module, **options: made(module, backend=backend, **options))
    losses = {}
    for compiled in (False, True):
        recipe = dataclasses.replace(SHORT, compile=compiled, channels_last=backend == "eager")
        network = start()
        losses[compiled] = train(network, Classify(pictures(), recipe, CONFIG.preprocess), recipe, seed=3)
    assert [e.loss for e in losses[True]] == pytest.approx([e.loss for e in losses[False]], rel=0.02)


def test_a_step_that_cannot_be_compiled_is_told(monkeypatch):
    class Broken(torch.nn.Module):
        def __init__(self, module, dynamic):
            super().__init__()
            self.module = module

        def forward(self, *batch):
            raise torch._dynamo.exc.TorchDynamoException("there is no compiler\nand a long story")

    monkeypatch.setattr(torch, "compile", Broken)
    recipe = dataclasses.replace(SHORT, compile=True)
    with pytest.raises(
        ConfigError, match="cannot make this network's step .*no compiler.*: train it with compile=false"
    ):
        train(start(), Classify(pictures(), recipe, CONFIG.preprocess), recipe)


def test_every_training_of_a_process_is_compiled(monkeypatch):
    """As those of a search's children are."""
    graphs, made = [], torch.compile

    def counted(module, inputs):
        graphs.append(module)
        return module

    monkeypatch.setattr(torch, "compile", lambda module, **options: made(module, backend=counted, **options))
    recipe = dataclasses.replace(SHORT, epochs=1, compile=True)
    counts = []
    for filters in range(2, 13):
        graphs.clear()
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv2d(3, filters, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(filters, 10))
        task = Classify(pictures(), recipe, CONFIG.preprocess)
        step = TrainingStep(network, torch.optim.SGD(network.parameters(), lr=0.1), task, recipe)
        step(torch.zeros(4, 3, 8, 8), torch.zeros(4, dtype=torch.int64))
        counts.append(len(graphs))
    assert counts == [1] * len(counts)
