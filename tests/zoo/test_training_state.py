"""What a training keeps: it goes on from any step, with any optimiser and task, and refuses what is not its own."""

import dataclasses
import json
import logging
import math
import os
import signal

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

import nasnet_zoo
from nasnet_zoo.arch.cells import CellScale
from nasnet_zoo.arch.config import NetworkConfig
from nasnet_zoo.arch.genotypes import NASNET_A
from nasnet_zoo.arch.preprocess import CIFAR10
from nasnet_zoo.data.cifar import Pictures
from nasnet_zoo.errors import CheckpointError, TrainingError, ZooError
from nasnet_zoo.networks.build import build
from nasnet_zoo.networks.network import Network
from nasnet_zoo.training import augment, loop, state
from nasnet_zoo.training.augment import blanked, normalized
from nasnet_zoo.training.loop import train
from nasnet_zoo.training.recipe import Recipe
from nasnet_zoo.training.tasks.classify import Classify
from nasnet_zoo.util.files import locked

# What tests/golden/v1/training was made with.
PREPROCESS = dataclasses.replace(CIFAR10, size=(16, 16))
CONFIG = NetworkConfig(NASNET_A, CellScale("cifar", 4, 4, (1, 1), bn_eps=1e-5), PREPROCESS, 10, labels="cifar10")
RECIPE = Recipe(
    4, batch_size=16, learning_rate=0.05, warmup_epochs=0.5, pad=1, drop_path_keep=0.8, dropout=0.1, cutout=4
)
SHORT = dataclasses.replace(RECIPE, epochs=2)
STATE = "state.safetensors"


class Stop(Exception):
    pass


def start(config=CONFIG):
    torch.manual_seed(1)
    return build(config)


def pictures():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(10, (64,), generator=generator)
    base = torch.randint(256, (10, 3, 1, 1), generator=generator)[labels]
    noise = torch.randint(-40, 40, (64, 3, 16, 16), generator=generator)
    return Pictures((base + noise).clamp(0, 255).to(torch.uint8), labels)


def run(network, folder=None, recipe=SHORT, seed=3, **options):
    task = Classify(pictures(), recipe, CONFIG.preprocess)
    return train(network, task, recipe, seed=seed, folder=folder, **options)


def stopped(network, folder, at, **options):
    """Trains until so many steps of all epochs are done, and raises there."""

    def stop(epoch, step, steps):
        if epoch * steps + step == at:
            raise Stop

    with pytest.raises(Stop):
        run(network, folder, on_step=stop, **options)


def ending(network, history):
    """All that two trainings may differ in."""
    return dict(network.state_dict()), history, torch.get_rng_state()


def assert_same(ended, expected):
    for key, value in expected[0].items():
        assert torch.equal(ended[0][key], value), key
    assert ended[1] == expected[1]
    assert torch.equal(ended[2], expected[2])


@pytest.fixture
def whole():
    """An uninterrupted training."""
    network = start()
    return ending(network, run(network))


@pytest.fixture
def every_step(monkeypatch):
    """States are kept after every step."""
    monkeypatch.setattr(state, "KEEP_SECONDS", -1.0)


def record_of(folder):
    with safe_open(folder / STATE, "pt") as file:
        return {key: json.loads(value) for key, value in file.metadata().items() if key != "format"}


def rewritten(folder, more=(), **changes):
    record = record_of(folder) | changes
    tensors = load_file(folder / STATE) | dict(more)
    save_file(tensors, folder / STATE, metadata={key: json.dumps(value) for key, value in record.items()})


# Going on


@pytest.mark.parametrize("at", range(1, 9))
def test_a_training_goes_on_from_any_step(tmp_path, every_step, whole, at):
    stopped(start(), tmp_path, at)
    # on_step is called before a step's state is kept: the state there is of the step before.
    assert not (tmp_path / STATE).exists() if at == 1 else record_of(tmp_path)["steps"] == (at - 1) % 4
    network = start()
    torch.rand(7)  # where the random numbers stood before does not matter
    first = []
    history = run(network, tmp_path, on_step=lambda epoch, step, steps: first.append(epoch * steps + step))
    assert first == list(range(at, 9))
    assert_same(ending(network, history), whole)


def test_a_training_that_is_stopped_at_every_step_ends_like_any_other(tmp_path, every_step, whole):
    for at in range(2, 9):
        stopped(start(), tmp_path, at)
    network = start()
    assert_same(ending(network, run(network, tmp_path)), whole)


def test_states_within_an_epoch_wait_for_their_time(tmp_path):
    stopped(start(), tmp_path, 3)
    assert not (tmp_path / STATE).exists()
    stopped(start(), tmp_path, 6)
    assert record_of(tmp_path)["steps"] == 0 and len(record_of(tmp_path)["history"]) == 1


def test_a_training_that_is_done_changes_nothing(tmp_path, whole):
    run(start(), tmp_path)
    before, network = (tmp_path / STATE).read_bytes(), start()
    history = run(network, tmp_path, on_step=lambda *_: pytest.fail("it went on"))
    assert_same((dict(network.state_dict()), history, whole[2]), whole)
    assert (tmp_path / STATE).read_bytes() == before and not network.training


def test_more_epochs_go_on(tmp_path):
    done = run(start(), tmp_path)
    seen = []
    network = start()
    history = run(network, tmp_path, dataclasses.replace(SHORT, epochs=3), on_epoch=seen.append)
    assert [epoch.epoch for epoch in seen] == [3] and history[:2] == done and history[2].epochs == 3
    assert record_of(tmp_path)["training"]["recipe"]["epochs"] == 3


def test_fewer_epochs_than_are_done_are_refused(tmp_path):
    run(start(), tmp_path)
    before = (tmp_path / "state.safetensors").read_bytes()
    with pytest.raises(CheckpointError, match="has done 2 epochs, and 1 are asked for"):
        run(start(), tmp_path, dataclasses.replace(SHORT, epochs=1))
    assert (tmp_path / "state.safetensors").read_bytes() == before


def test_more_epochs_go_on_within_an_epoch(tmp_path, every_step):
    stopped(start(), tmp_path, 6)
    steps = []
    run(start(), tmp_path, dataclasses.replace(SHORT, epochs=3), on_step=lambda *where: steps.append(where))
    assert steps[0] == (1, 2, 4) and steps[-1] == (2, 4, 4)


# Ctrl-C


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("at", [2, 4, 7, 8])
def test_an_interrupt_waits_for_the_step_and_the_state(tmp_path, whole, number, at):
    handler, steps = signal.getsignal(number), []

    def interrupt(epoch, step, of):
        steps.append(epoch * of + step)
        if steps[-1] == at:
            os.kill(os.getpid(), number)

    with pytest.raises(KeyboardInterrupt):
        run(start(), tmp_path, on_step=interrupt)
    assert steps[-1] == at and signal.getsignal(number) is handler
    record = record_of(tmp_path)
    assert 4 * len(record["history"]) + record["steps"] == at
    network = start()
    assert_same(
        ending(network, run(network, tmp_path)) if at < 8 else (*ending(network, run(network, tmp_path))[:2], whole[2]),
        whole,
    )


def test_a_second_interrupt_is_at_once(tmp_path):
    steps = []

    def interrupt(epoch, step, of):
        steps.append(step)
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        steps.append("after")

    with pytest.raises(KeyboardInterrupt):
        run(start(), tmp_path, on_step=interrupt)
    assert steps == [1] and not (tmp_path / STATE).exists()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_without_a_folder_an_interrupt_is_at_once():
    with pytest.raises(KeyboardInterrupt):
        run(start(), on_step=lambda *_: os.kill(os.getpid(), signal.SIGINT))


# What is refused


@pytest.mark.parametrize(
    "change, said",
    [
        (dict(recipe=dataclasses.replace(SHORT, learning_rate=0.01)), "learning_rate 0.05 there and 0.01 here"),
        (
            dict(recipe=dataclasses.replace(SHORT, pad=2, cutout=2)),
            r"\(pad 1 there and 2 here, cutout 4 there and 2 here\)",
        ),
        (dict(seed=4), r"\(seed 3 there and 4 here\)"),
        (dict(network=dataclasses.replace(CONFIG, labels=None)), r"\(network\)"),
    ],
)
def test_another_training_is_refused_by_name(tmp_path, change, said):
    run(start(), tmp_path)
    before = (tmp_path / STATE).read_bytes()
    network = start(change.pop("network", CONFIG))
    weights = {key: value.clone() for key, value in network.state_dict().items()}
    with pytest.raises(CheckpointError, match=said):
        run(network, tmp_path, **change)
    assert (tmp_path / STATE).read_bytes() == before
    assert all(torch.equal(value, weights[key]) for key, value in network.state_dict().items())


def test_how_steps_are_computed_may_change(tmp_path, every_step, whole):
    stopped(start(), tmp_path, 6)
    network = start()
    history = run(network, tmp_path, dataclasses.replace(SHORT, capture="off", separable="torch"))
    assert_same(ending(network, history), whole)


@pytest.mark.parametrize(
    "change, said",
    [
        (lambda record: dict(format_version=3), "has format_version 3, this nasnet_zoo reads 1 to 2"),
        (lambda record: dict(format_version="2"), "has format_version 2"),
        (lambda record: dict(training=_with_field(record)), "does not know .*magic.*use the one that wrote it"),
        (lambda record: dict(training={"recipe": {}}), "holds no training of ours"),
        (lambda record: dict(history=[{"epoch": 1}]), "is damaged"),
        (lambda record: dict(history=[{"epoch": 1, "epochs": 2, "loss": "low"}]), "is damaged"),
        (lambda record: dict(history=[{"epoch": -1, "epochs": 2, "loss": 0.5}]), "is damaged"),
        (lambda record: dict(steps="many"), "is damaged"),
        (lambda record: dict(total=[]), "is damaged"),
        (lambda record: dict(total=10**400), "is damaged"),
        (lambda record: dict(total=float("nan")), "is damaged"),
        (lambda record: dict(steps=10**30), "is damaged"),
        (lambda record: dict(steps=4), "is damaged"),  # of 4: that would be an epoch
        (lambda record: dict(history=record["history"][1:]), "is damaged"),
        (lambda record: dict(optimizer=[]), "is damaged"),
        (lambda record: dict(history=nested(101)), "is damaged .*nested more than 100 levels deep"),
        (lambda record: dict(history=nested(900)), "is damaged .*nested more than 100 levels deep"),
    ],
)
def test_a_state_of_another_version_is_left_alone(tmp_path, change, said):
    run(start(), tmp_path)
    rewritten(tmp_path, **change(record_of(tmp_path)))
    before = (tmp_path / STATE).read_bytes()
    with pytest.raises(CheckpointError, match=said) as error:
        run(start(), tmp_path)
    assert "\n" not in str(error.value)
    assert (tmp_path / STATE).read_bytes() == before


MOMENTUM = "optimizer.classifier.weight.momentum_buffer"


@pytest.mark.parametrize(
    "key, change",
    [
        ("random.cpu", lambda value: torch.zeros(3)),
        ("random.cpu", lambda value: value[:-8].clone()),
        (MOMENTUM, lambda value: value.to(torch.int8)),
        (MOMENTUM, lambda value: value.half()),
        (MOMENTUM, lambda value: value[:1].clone()),  # torch would write beyond it
        ("optimizer.no.such.weight.momentum_buffer", lambda value: torch.zeros(3)),
        ("network.classifier.weight", lambda value: value[:1].clone()),
        ("network.classifier.weight", lambda value: value.to(torch.int8)),
        ("network.more", lambda value: torch.zeros(3)),
    ],
)
def test_a_damaged_state_changes_nothing(tmp_path, every_step, key, change):
    stopped(start(), tmp_path, 3)
    rewritten(tmp_path, {key: change(load_file(tmp_path / STATE).get(key))})
    before, network = (tmp_path / STATE).read_bytes(), start()
    with pytest.raises(CheckpointError, match=f"{STATE} is damaged .*: delete it to start over") as error:
        run(network, tmp_path)
    assert "\n" not in str(error.value) and (tmp_path / STATE).read_bytes() == before
    assert all(torch.equal(value, network.state_dict()[key]) for key, value in start().state_dict().items())


def test_a_state_with_a_shape_that_no_tensor_has(tmp_path):
    run(start(), tmp_path)
    data = (tmp_path / STATE).read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end]) | {"more": {"dtype": "F32", "shape": [0, 1 << 63], "data_offsets": [0, 0]}}
    text = json.dumps(header).encode()
    (tmp_path / STATE).write_bytes(len(text).to_bytes(8, "little") + text + data[end:])
    with pytest.raises(CheckpointError, match=f"{STATE} is damaged .*: delete it to start over") as error:
        run(start(), tmp_path)
    assert "\n" not in str(error.value)


def nested(depth):
    """Lists in lists, not so many that json.dumps refuses them."""
    value = []
    for _ in range(depth - 1):
        value = [value]
    return value


def _with_field(record):
    training = record["training"]
    return training | {"recipe": training["recipe"] | {"magic": 1}}


def test_a_state_without_later_fields_takes_their_defaults(tmp_path, every_step, whole):
    stopped(start(), tmp_path, 6)
    training = record_of(tmp_path)["training"]
    recipe = {key: value for key, value in training["recipe"].items() if key not in ("capture", "cutout", "separable")}
    rewritten(tmp_path, training=training | {"recipe": recipe})
    with pytest.raises(CheckpointError, match="cutout 0 there and 4 here"):
        run(start(), tmp_path)
    rewritten(tmp_path, training=training | {"recipe": recipe | {"cutout": 4}})
    network = start()
    assert_same(ending(network, run(network, tmp_path)), whole)


def test_a_training_of_the_first_version_goes_on(tmp_path, golden, monkeypatch):
    """What it ended with there was with cutouts that were black, and not of the mean."""

    def black(images, recipe, draws):
        cut = blanked(images, recipe, draws)
        return torch.where(cut == images, images, normalized(torch.zeros_like(cut), CONFIG.preprocess))

    monkeypatch.setattr(augment, "blanked", black)
    folder = golden / "v1" / "training"
    (tmp_path / STATE).write_bytes((folder / STATE).read_bytes())
    expected = json.loads((golden / "v1" / "training-end.json").read_text())
    seen, network = [], start()
    history = run(network, tmp_path, RECIPE, on_epoch=seen.append)
    assert [epoch.epoch for epoch in seen] == [3, 4]
    assert [epoch.loss for epoch in history] == pytest.approx(expected["losses"], abs=1e-3)
    with torch.inference_mode():
        logits = network(torch.linspace(-2, 2, 1536).view(2, 3, 16, 16))
    # It was made with AVX-512. On AVX2 rounding comes to 0.008 after two epochs; with the other cutouts it is 0.6.
    same = torch.backends.cpu.get_cpu_capability() == "AVX512"
    torch.testing.assert_close(logits, torch.tensor(expected["logits"]), rtol=0, atol=1e-3 if same else 0.03)
    assert record_of(tmp_path)["format_version"] == state.FORMAT_VERSION


# What is no number


class Breaking(Classify):
    """Its loss is no number from a step of all epochs on."""

    def __init__(self, at, recipe=SHORT):
        super().__init__(pictures(), recipe, CONFIG.preprocess)
        self.at, self.done = at, 0

    def loss(self, network, *batch):
        self.done += 1
        loss = super().loss(network, *batch)
        return loss * float("nan") if self.done >= self.at else loss


def test_a_loss_that_is_no_number_leaves_the_last_good_state(tmp_path, every_step, whole):
    """A lower learning rate is another training: it wants another folder, and the sentence says so."""
    with pytest.raises(TrainingError, match="epoch 2: .*another folder.* has the state before that") as error:
        train(start(), Breaking(7), SHORT, seed=3, folder=tmp_path)
    assert "\n" not in str(error.value)
    assert all(value.isfinite().all() for value in load_file(tmp_path / STATE).values() if value.is_floating_point())
    record = record_of(tmp_path)
    assert len(record["history"]) == 1 and record["steps"] == 2
    with pytest.raises(CheckpointError, match="learning_rate 0.05 there and 0.01 here.*choose another folder"):
        run(start(), tmp_path, dataclasses.replace(SHORT, learning_rate=0.01))
    network = start()  # and the same one goes on from there
    assert_same(ending(network, run(network, tmp_path)), whole)


def test_a_loss_that_is_no_number_without_a_folder():
    with pytest.raises(
        TrainingError, match="the loss is nan in step 2 of epoch 1: try a lower learning rate or another seed$"
    ):
        train(start(), Breaking(2), SHORT)


def test_weights_that_are_no_numbers_are_not_kept(tmp_path):
    network = start()

    def spoil(epoch, step, steps):
        if (epoch, step) == (1, 4):
            network.classifier.weight.data[0] = float("inf")

    with pytest.raises(TrainingError, match="classifier.weight has values that are no numbers"):
        run(network, tmp_path, on_step=spoil)
    assert len(record_of(tmp_path)["history"]) == 1
    assert load_file(tmp_path / STATE)["network.classifier.weight"].isfinite().all()


# Other tasks and other optimisers


class Curve(Network):
    """A network with nothing but what every network has."""

    def __init__(self):
        super().__init__(CONFIG)
        self.body = nn.Sequential(nn.Linear(1, 16), nn.BatchNorm1d(16), nn.Tanh(), nn.Dropout(0.1), nn.Linear(16, 1))
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return self.body(x) * self.scale


class Regress:
    steps = 5

    def batches(self, epoch, generator):
        for _ in range(self.steps):
            x = torch.rand(32, 1, generator=generator) * 6
            yield x, x.sin(), torch.ones(())

    def loss(self, network, x, y, weight):
        return F.mse_loss(network(x), y) * weight

    def evaluate(self, network):
        x = torch.linspace(0, 6, 50).view(-1, 1)
        with torch.inference_mode():
            return {"error": float(F.mse_loss(network(x), x.sin()))}


def curve():
    torch.manual_seed(2)
    return Curve()


def test_a_task_of_another_kind(tmp_path, every_step):
    task, recipe = Regress(), Recipe(8, learning_rate=0.1)
    before = task.evaluate(curve().eval())["error"]
    whole = curve()
    expected = ending(whole, train(whole, task, recipe, folder=tmp_path / "whole"))
    assert task.evaluate(whole)["error"] < before / 2 and not whole.training

    def stop(epoch, step, steps):
        if (epoch, step) == (3, 4):
            raise Stop

    with pytest.raises(Stop):
        train(curve(), task, recipe, folder=tmp_path / "parts", on_step=stop)
    network = curve()
    assert_same(ending(network, train(network, task, recipe, folder=tmp_path / "parts")), expected)


def group(network):
    return [{"params": list(network.parameters()), "lr": torch.zeros(()), "scale": 1.0}]


def adamw(network, recipe):
    return torch.optim.AdamW(group(network), foreach=False)


def rmsprop(network, recipe):
    return torch.optim.RMSprop(group(network), momentum=0.9, centered=True, capturable=False)


class Counting(torch.optim.Optimizer):
    """Keeps plain numbers beside its tensors, as some optimisers do."""

    def __init__(self, parameters):
        super().__init__(parameters, {})

    def step(self):
        for group in self.param_groups:
            for parameter in group["params"]:
                kept = self.state[parameter]
                kept["step"] = kept.get("step", 0) + 1
                kept["last"] = parameter.grad.clone()
                kept["unused"] = None
                with torch.no_grad():
                    parameter -= group["lr"] * parameter.grad / kept["step"] ** 0.5


def counting(network, recipe):
    return Counting(group(network))


@pytest.mark.parametrize("make", [adamw, rmsprop, counting])
@pytest.mark.parametrize("at", [4, 7])
def test_any_optimiser_resumes(tmp_path, every_step, monkeypatch, make, at):
    monkeypatch.setattr(loop, "make_optimizer", make)
    recipe = dataclasses.replace(SHORT, learning_rate=0.003)
    whole = start()
    expected = ending(whole, run(whole, recipe=recipe))
    stopped(start(), tmp_path, at, recipe=recipe)
    network = start()
    assert_same(ending(network, run(network, tmp_path, recipe)), expected)


def test_a_parameter_that_never_learns_resumes(tmp_path, every_step):
    """It has no gradient and so no momentum."""

    def stuck():
        network = start()
        network.classifier.weight.requires_grad_(False)
        return network

    whole = stuck()
    expected = ending(whole, run(whole))
    stopped(stuck(), tmp_path, 6)
    network = stuck()
    assert_same(ending(network, run(network, tmp_path)), expected)
    assert torch.equal(network.classifier.weight, start().classifier.weight)


def test_the_log_says_nothing_on_a_cpu(caplog):
    with caplog.at_level(logging.INFO, "nasnet_zoo"):
        run(start())
    assert not caplog.records


def test_whole_numbers_in_a_recipe_are_floats_and_their_state_goes_on(tmp_path):
    """As `--set learning_rate=1` gives them; the classifier's epochs are at the rate itself."""
    recipe = dataclasses.replace(SHORT, learning_rate=1, head_epochs=1, clip_norm=1)
    assert type(recipe.learning_rate) is float and recipe == dataclasses.replace(recipe, learning_rate=1.0)
    stopped(start(), tmp_path, 6, recipe=recipe, keep_seconds=0)
    assert len(run(start(), tmp_path, recipe)) == 2


def test_metrics_of_any_numbers_are_kept(tmp_path):
    class Counting(Classify):
        def evaluate(self, network):
            return {"errors": 3, "share": float("nan"), "exact": np.float32(0.5)}

    for epochs in (1, 2):
        recipe = dataclasses.replace(SHORT, epochs=epochs)
        task = Counting(pictures(), recipe, CONFIG.preprocess)
        history = train(start(), task, recipe, folder=tmp_path, measure=True)
    assert [epoch.metrics["errors"] for epoch in history] == [3, 3] and math.isnan(history[0].metrics["share"])


def test_fewer_epochs_than_have_begun_are_refused(tmp_path):
    """What was there would be written as the network after the epochs that were done."""
    stopped(start(), tmp_path, 6, keep_seconds=0)
    with pytest.raises(CheckpointError, match="has begun 2 epochs, and 1 are asked for: ask for at least 2"):
        run(start(), tmp_path, dataclasses.replace(SHORT, epochs=1))


def test_a_folder_that_is_a_file_or_another_trainings_is_told_before_the_work(tmp_path):
    (tmp_path / "file").touch()
    task = Classify(pictures(), SHORT, CONFIG.preprocess)
    with pytest.raises(ZooError, match="file"):
        nasnet_zoo.train(start(), task, SHORT, folder=tmp_path / "file", on_step=lambda *place: pytest.fail("it began"))
    with locked(tmp_path / "run" / "training"), pytest.raises(ZooError, match="Another process is working on"):
        nasnet_zoo.train(start(), task, SHORT, folder=tmp_path / "run", on_step=lambda *place: pytest.fail("it began"))


def test_too_little_memory_is_a_sentence():
    class Large(Classify):
        def loss(self, network, *batch):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    task = Large(pictures(), SHORT, CONFIG.preprocess)
    said = r"not enough memory for steps of 16 pictures \(.*\): give a smaller batch_size"
    with pytest.raises(TrainingError, match=said):
        nasnet_zoo.train(start(), task, SHORT)
