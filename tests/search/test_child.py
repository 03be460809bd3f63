"""The child that is trained, and what the search added to the training: calibration, whitening, enlarged pictures."""

import math
import os
import subprocess
import sys
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import nasnet_zoo
from nasnet_zoo.arch.cells import CellScale
from nasnet_zoo.arch.config import NetworkConfig
from nasnet_zoo.arch.cost import network_cost
from nasnet_zoo.arch.genotype import Block, Cell, Edge, Genotype
from nasnet_zoo.arch.genotypes import GENOTYPES
from nasnet_zoo.arch.preprocess import CIFAR10, Preprocess
from nasnet_zoo.data.cifar import Pictures
from nasnet_zoo.data.images import prepare
from nasnet_zoo.errors import DataError
from nasnet_zoo.networks.layers import BatchNorm, FactorizedReduction, PointConv2d
from nasnet_zoo.search import ChildSettings, get_space
from nasnet_zoo.search.children.base import ChildFailure, Report, Reports, Result, Task, run_task
from nasnet_zoo.search.children.cifar import CifarChild
from nasnet_zoo.training.augment import Draws, augmented, epoch_batches, normalized
from nasnet_zoo.training.evaluate import calibrate, evaluate
from nasnet_zoo.training.loop import train
from nasnet_zoo.training.recipe import Recipe

CELL = Cell(
    (Block(Edge(0, "sep_conv_3x3"), Edge(1, "conv_1x1")), Block(Edge(0, "identity"), Edge(1, "max_pool_3x3"))), (2, 3)
)
GENOTYPE = Genotype(CELL, CELL)
SETTINGS = ChildSettings(
    filters=4,
    cells=1,
    stem=2.0,
    side=12,
    calibration=64,
    recipe=Recipe(2, batch_size=16, learning_rate=0.1, warmup_epochs=0.2, pad=2),
)


def four_colours(n: int, side: int = 12, seed: int = 0) -> Pictures:
    """Noise around one of four colours."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(4, (n,), generator=generator)
    base = torch.tensor([[200, 40, 40], [40, 200, 40], [40, 40, 200], [200, 200, 40]])[labels].view(n, 3, 1, 1)
    noise = torch.randint(-40, 40, (n, 3, side, side), generator=generator)
    return Pictures((base + noise).clamp(0, 255).to(torch.uint8), labels)


def child(**changes) -> CifarChild:
    """A child with pictures put in by hand, for those that it reads itself have to be the official ones."""
    made = CifarChild(replace(SETTINGS, **changes), "cell")
    made.training, made.validation, made.device = four_colours(96), four_colours(50, seed=1), "cpu"
    return made


# The child


def test_a_child_learns_and_says_so():
    metrics = child(recipe=replace(SETTINGS.recipe, epochs=4))(GENOTYPE, 5)
    assert set(metrics) == {"accuracy", "top5", "losses", "parameters", "multiply_adds"}
    assert 0.5 < metrics["accuracy"] <= metrics["top5"] <= 1
    assert metrics["accuracy"] * 50 == pytest.approx(round(metrics["accuracy"] * 50))
    assert len(metrics["losses"]) == 4 and metrics["losses"][-1] < metrics["losses"][0]
    network = nasnet_zoo.create(child().config(GENOTYPE))
    assert metrics["parameters"] == sum(parameter.numel() for parameter in network.parameters())
    assert metrics["multiply_adds"] == network_cost(network.config).multiply_adds > 0  # a reward may be made of it


def test_a_child_is_a_function_of_its_seed():
    first = child()
    metrics = first(GENOTYPE, 5)
    torch.manual_seed(1)  # whatever was drawn before
    assert first(GENOTYPE, 5) == metrics  # by the same worker, after another child
    assert child()(GENOTYPE, 5) == metrics
    assert child()(GENOTYPE, 6)["losses"] != metrics["losses"]


def test_settings_reach_the_training():
    short = replace(SETTINGS.recipe, epochs=1, learning_rate=0.01)
    metrics = child(recipe=short)(GENOTYPE, 5)
    assert child(recipe=short, whiten=True)(GENOTYPE, 5)["losses"] != metrics["losses"]
    assert child(recipe=replace(short, enlarge=True))(GENOTYPE, 5)["losses"] != metrics["losses"]
    as_it_is = child(recipe=short, calibration=0)(GENOTYPE, 5)
    assert as_it_is["losses"] == metrics["losses"]  # it comes after the training
    assert as_it_is["accuracy"] != metrics["accuracy"]


def test_the_papers_child():
    config = CifarChild(ChildSettings(whiten=True), "cell").config(GENOTYPES["NASNet-A"])
    assert config.scale == CellScale("cifar", 96, 32, (2, 2, 2), bn_eps=1e-5)
    assert (config.num_classes, config.preprocess) == (10, Preprocess((32, 32), per_image=True))
    plain = CifarChild(ChildSettings(side=16, stem=1.5), "cell").config(GENOTYPES["DARTS-V2"])
    assert (plain.architecture.style, plain.scale.stem_channels) == ("nds", 48)
    assert (plain.preprocess.size, plain.preprocess.mean, plain.preprocess.per_image) == ((16, 16), CIFAR10.mean, False)


def test_a_loss_that_blows_up():
    broken = child(recipe=replace(SETTINGS.recipe, learning_rate=1e20, clip_norm=1e20))
    with pytest.raises(ChildFailure, match="the loss is nan in step 2 of epoch 1") as failed:
        broken(GENOTYPE, 5)
    assert failed.value.kind == "nan"
    result = run_task(broken, Task(7, GENOTYPE, 5), "here")
    assert (result.child, result.status, result.metrics, result.worker) == (7, "nan", {}, "here")


def test_a_child_that_takes_too_long():
    result = run_task(child(seconds=1e-6), Task(0, GENOTYPE, 5), "here")
    assert (result.status, result.message) == ("timeout", "not done after 1e-06 s, in epoch 1")
    assert run_task(child(seconds=60), Task(0, GENOTYPE, 5), "here").status == "done"


def test_a_cell_that_cannot_be_built_is_an_error_and_not_the_end():
    wide = child(filters=1 << 16, stem=1.0)
    wide.config = lambda architecture: (_ for _ in ()).throw(RuntimeError("shapes do not fit"))
    result = run_task(wide, Task(0, GENOTYPE, 5), "here")
    assert result.status == "error" and "shapes do not fit" in result.message


def test_a_child_of_every_space_trains():
    for name in ("nasnet", "nasnet-b", "nasnet-c", "nds-darts"):
        space = get_space(name)
        tokens = tuple((3 * place) % decision.choices for place, decision in enumerate(space.decisions))
        metrics = child(recipe=replace(SETTINGS.recipe, epochs=1))(space.decode(tokens), 5)
        assert all(math.isfinite(loss) for loss in metrics["losses"])


# Reports on the way


def heard(made: CifarChild, epochs: tuple[int, ...], stop: int | None = None) -> tuple[Result, list[Report]]:
    """How a child ends that reports after these epochs and is stopped after one of them, and its reports."""
    reports: list[Report] = []

    def decide(report: Report) -> bool:
        reports.append(report)
        return report.epoch != stop

    return run_task(made, Task(3, GENOTYPE, 5, rungs=epochs), "here", decide), reports


LONGER = replace(SETTINGS.recipe, epochs=4)


@pytest.mark.parametrize(
    "recipe",
    [
        LONGER,
        replace(LONGER, ema_decay=0.9),
        replace(LONGER, drop_path_keep=0.5, dropout=0.3, cutout=4),
        replace(LONGER, channels_last=True, optimizer="rmsprop"),
    ],
)
def test_a_child_that_reports_trains_as_if_it_did_not(recipe, monkeypatch):
    """To the last bit: neither weights, running statistics nor random numbers move."""
    steps: list[tuple] = []

    def watched(network, *arguments, on_step, **options):
        def step(*place: int) -> None:
            on_step(*place)
            state = {name: value.clone().numpy().tobytes() for name, value in network.state_dict().items()}
            steps.append((place, state, torch.get_rng_state().numpy().tobytes()))

        return train(network, *arguments, on_step=step, **options)

    monkeypatch.setattr("nasnet_zoo.search.children.trained.train", watched)
    plain = child(recipe=recipe)(GENOTYPE, 5)
    result, reports = heard(child(recipe=recipe), (1, 3))
    assert (result.status, result.metrics) == ("done", plain)
    assert len(steps) == 2 * 4 * 6 and steps[24:] == steps[:24]
    assert [report.epoch for report in reports] == [1, 3]
    assert [report.metrics["losses"] for report in reports] == [plain["losses"][:1], plain["losses"][:3]]
    assert all(report.metrics.keys() == plain.keys() for report in reports)


def test_a_report_is_measured_as_the_end_is(monkeypatch):
    made = child(recipe=LONGER)
    states = {}

    def watched(network, task, recipe, on_epoch, **options):
        def keep(done):
            states[done.epoch] = {name: value.clone() for name, value in network.state_dict().items()}
            on_epoch(done)

        return train(network, task, recipe, on_epoch=keep, **options)

    monkeypatch.setattr("nasnet_zoo.search.children.trained.train", watched)
    _, reports = heard(made, (2,))
    network = nasnet_zoo.create(made.config(GENOTYPE))
    network.load_state_dict(states[2])
    calibrate(network, made.training.subset(torch.arange(64)))
    top1, top5 = evaluate(network.eval(), made.validation)
    assert (reports[0].metrics["accuracy"], reports[0].metrics["top5"]) == (top1, top5)


def test_a_child_that_is_stopped_trains_no_more(monkeypatch):
    done = []
    monkeypatch.setattr("nasnet_zoo.search.children.trained.train", partial(counted, done))
    result, reports = heard(child(recipe=LONGER), (1, 3), stop=3)
    assert (result.status, result.metrics, result.message) == ("stopped", {}, "")
    assert [report.epoch for report in reports] == [1, 3] and done == [1, 2, 3]


def counted(done: list[int], *arguments, on_step, **options):
    """A training that notes which epochs it is in."""

    def step(epoch: int, index: int, steps: int) -> None:
        on_step(epoch, index, steps)
        if index == 1:
            done.append(epoch + 1)

    return train(*arguments, on_step=step, **options)


def test_only_rungs_are_measured(monkeypatch):
    made, measured = child(recipe=LONGER), []
    own = made._measured
    monkeypatch.setattr(made, "_measured", lambda *arguments: measured.append(len(arguments[2])) or own(*arguments))
    heard(made, (2,))
    assert measured == [2, 4]
    measured.clear()
    heard(made, ())
    made(GENOTYPE, 5, Reports())
    assert measured == [4, 4]


# CIFAR-10 itself


@pytest.fixture(scope="module")
def real(cifar10):
    """A child that has read the real pictures."""
    settings = ChildSettings(
        data=str(cifar10),
        filters=8,
        cells=1,
        stem=2.0,
        side=16,
        pictures=2000,
        validation=1000,
        calibration=256,
        recipe=Recipe(1, 50, 0.1, warmup_epochs=0.2, pad=2),
    )
    made = CifarChild(settings, "cell")
    made.prepare("cpu")
    return made


def test_a_short_epoch_of_cifar10_is_better_than_chance(real):
    metrics = real(GENOTYPE, 1)
    assert metrics["accuracy"] > 0.17  # ten classes, 1000 pictures: chance is 0.1, and seven deviations above it 0.17
    assert metrics["accuracy"] < metrics["top5"] < 1


def test_the_pictures_are_split_once_and_for_all(real):
    assert real.training.images.shape == (2000, 3, 16, 16) and real.validation.images.shape == (1000, 3, 16, 16)
    assert real.training.images.dtype == torch.uint8
    training = {image.numpy().tobytes() for image in real.training.images}
    assert not training & {image.numpy().tobytes() for image in real.validation.images}
    assert real.training.labels.bincount().tolist() == pytest.approx([200] * 10, abs=50)
    more = CifarChild(replace(real.settings, pictures=3000), "cell")
    more.prepare("cpu")
    assert torch.equal(more.training.images[:2000], real.training.images)
    assert torch.equal(more.validation.labels, real.validation.labels)
    other = CifarChild(replace(real.settings, split_seed=1), "cell")
    other.prepare("cpu")
    assert not torch.equal(other.validation.labels, real.validation.labels)
    before = other.training
    other.prepare("cpu")
    assert other.training is before


@pytest.mark.parametrize("side", [8, 12, 20, 32])
def test_only_the_pictures_that_are_taken_are_resized_and_to_the_same_bytes(monkeypatch, side):
    pictures = four_colours(300, side=12)
    monkeypatch.setattr("nasnet_zoo.search.children.cifar.cifar10_pictures", lambda *arguments, **options: pictures)
    plain, resized = F.interpolate, []
    whole = plain(pictures.images, (side, side), mode="bilinear", antialias=True)
    monkeypatch.setattr(
        F, "interpolate", lambda images, *size, **how: resized.append(len(images)) or plain(images, *size, **how)
    )
    made = CifarChild(replace(SETTINGS, side=side, pictures=40, validation=20), "cell")
    made.prepare("cpu")
    assert resized == ([] if side == 12 else [40, 20])
    order = torch.randperm(300, generator=torch.Generator().manual_seed(0))
    for part, places in ((made.training, order[:40]), (made.validation, order[-20:])):
        assert torch.equal(part.images, whole[places]) and torch.equal(part.labels, pictures.labels[places])


def test_pictures_that_are_not_there(tmp_path):
    with pytest.raises(DataError, match="cifar-10-python.tar.gz"):
        CifarChild(replace(SETTINGS, data=str(tmp_path)), "slim").prepare("cpu")


# Calibration: precise batch norm


def network(seed: int = 0, **scale):
    torch.manual_seed(seed)
    made = nasnet_zoo.create(NetworkConfig(GENOTYPE, CellScale("cifar", 8, 4, (1, 1, 1), **scale), CIFAR10, 4))
    for parameter in made.parameters():  # weights that have moved
        torch.nn.init.normal_(parameter, std=0.3)
    return made.eval()


def statistics(made) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in made.state_dict().items() if "running" in name}


def inputs_of_norms(made, images: torch.Tensor) -> dict[str, torch.Tensor]:
    """What each batch norm reads when all pictures are one batch in training mode."""
    seen = {}
    for name, module in made.named_modules():
        if isinstance(module, BatchNorm):
            module.register_forward_pre_hook(lambda module, args, name=name: seen.update({name: args[0].clone()}))
    with torch.no_grad():
        made.train()(images)
    return seen


def test_calibration_gives_the_statistics_of_the_pictures():
    pictures, made = four_colours(40), network()
    calibrate(made, pictures)
    found = statistics(made)
    seen = inputs_of_norms(network(), normalized(pictures.images, CIFAR10))
    assert len(seen) * 2 == len(found) > 20
    for name, x in seen.items():
        values = x.transpose(0, 1).flatten(1)
        assert torch.allclose(found[f"{name}.running_mean"], values.mean(1), rtol=1e-4, atol=1e-5), name
        assert torch.allclose(found[f"{name}.running_var"], values.var(1), rtol=1e-4, atol=1e-5), name


def test_batches_count_by_their_pictures():
    pictures, made = four_colours(40), network()
    calibrate(made, pictures, batch_size=16)  # 16, 16 and 8
    found = statistics(made)
    (first, x), *_ = inputs_of_norms(network(), normalized(pictures.images, CIFAR10)).items()
    values = x.transpose(0, 1)  # the first batch norm reads the same whatever the batches
    assert torch.allclose(found[f"{first}.running_mean"], values.flatten(1).mean(1), rtol=1e-4, atol=1e-5)
    parts = [values[:, start : start + 16].flatten(1).var(1) * n / 40 for start, n in ((0, 16), (16, 16), (32, 8))]
    assert torch.allclose(found[f"{first}.running_var"], sum(parts), rtol=1e-4, atol=1e-5)


def test_a_calibrated_network_evaluates_as_it_trains():
    pictures, made = four_colours(64), network()
    images = normalized(pictures.images, CIFAR10)
    with torch.no_grad():
        trained = made.train()(images)
        calibrate(made, pictures)
        assert torch.allclose(made.eval()(images), trained, rtol=0.02, atol=0.02)
        for name, value in made.named_buffers():  # and it is the statistics that do it
            if "running_var" in name:
                value.mul_(2)
        assert not torch.allclose(made(images), trained, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("training", [False, True])
def test_calibration_leaves_everything_else_alone(training):
    pictures, plain, dropping = four_colours(40), network(), network()
    dropping.drop_path_keep, dropping.dropout.p = 0.3, 0.5
    for place, module in enumerate(module for module in dropping.modules() if isinstance(module, BatchNorm)):
        module.momentum = 0.1 + place / 100
    dropping.train(training)
    before = {name: value.clone() for name, value in dropping.named_parameters()}
    for made in (plain, dropping):
        calibrate(made, pictures)
    assert all(torch.equal(value, statistics(dropping)[name]) for name, value in statistics(plain).items())
    assert all(torch.equal(value, before[name]) for name, value in dropping.named_parameters())
    assert all(parameter.grad is None for parameter in dropping.parameters())
    assert (dropping.training, dropping.drop_path_keep, dropping.dropout.p) == (training, 0.3, 0.5)
    momenta = [module.momentum for module in dropping.modules() if isinstance(module, BatchNorm)]
    assert momenta == [0.1 + place / 100 for place in range(len(momenta))]


# How pictures are prepared


def test_pictures_normalised_by_themselves():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (5, 3, 12, 12), generator=generator, dtype=torch.uint8)
    images[3] = images[3] // 8 + 100  # little contrast
    images[4] = 77  # none
    whitened = Preprocess((12, 12), per_image=True)
    tensors = normalized(images, whitened)
    for image, tensor in zip(images, tensors):
        picture = Image.fromarray(image.permute(1, 2, 0).numpy())
        assert np.allclose(prepare(picture, whitened), tensor, atol=1e-5)
    # TensorFlow's per_image_standardization
    pixels = images[:4].double()
    deviation = pixels.flatten(1).std(1, correction=0).clamp(min=1 / math.sqrt(3 * 12 * 12))
    expected = (pixels - pixels.flatten(1).mean(1).view(-1, 1, 1, 1)) / deviation.view(-1, 1, 1, 1)
    assert torch.allclose(tensors[:4].double(), expected, atol=1e-4)
    assert (tensors[4] == 0).all()


def test_whitening_travels_with_the_config():
    config = child(whiten=True).config(GENOTYPE)
    assert NetworkConfig.from_json(config.to_json()).preprocess.per_image
    made = nasnet_zoo.create(config)
    picture = Image.fromarray(four_colours(1).images[0].permute(1, 2, 0).numpy())
    assert made.transform(picture).mean().item() == pytest.approx(0, abs=1e-5)
    assert made.transform(picture).std(correction=0).item() == pytest.approx(1, abs=1e-5)


def test_crops_of_an_enlarged_picture():
    side, recipe = 8, Recipe(1, pad=2, flip=True, enlarge=True)
    generator = torch.Generator().manual_seed(0)
    image = 36 * torch.randint(8, (1, 3, side, side), generator=generator, dtype=torch.uint8)  # 8 to 12 pixels: exact
    enlarged = F.interpolate(image.double(), (12, 12), mode="bilinear")[0]
    assert torch.allclose(enlarged, enlarged.round())
    enlarged = enlarged.round().to(torch.uint8)
    crops = {enlarged[:, y : y + side, x : x + side].numpy().tobytes() for y in range(5) for x in range(5)}
    crops |= {enlarged[:, y : y + side, x : x + side].flip(2).numpy().tobytes() for y in range(5) for x in range(5)}
    out = augmented(image.expand(600, -1, -1, -1), recipe, Draws(600, torch.Generator().manual_seed(0)))
    assert out.shape == (600, 3, side, side) and out.dtype == torch.uint8
    assert {picture.numpy().tobytes() for picture in out} == crops  # all 25 offsets, both ways, and nothing else


def test_batches_are_whitened_after_they_are_augmented():
    pictures, whitened = four_colours(32), Preprocess((12, 12), per_image=True)
    recipe = Recipe(1, batch_size=16, pad=4)  # black borders change a picture's mean
    for images, _ in epoch_batches(pictures, recipe, whitened, torch.Generator().manual_seed(0), 12):
        assert torch.allclose(images.flatten(1).mean(1), torch.zeros(16), atol=1e-5)
        assert torch.allclose(images.flatten(1).std(1, correction=0), torch.ones(16), atol=1e-4)


# Strided 1x1 convolutions of few channels


@pytest.mark.parametrize("channels", [1, 4, 7, 8, 12])
@pytest.mark.parametrize("size", [(6, 6), (7, 7), (5, 8), (1, 1)])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_pointwise_convolutions(channels, size, stride):
    ours = PointConv2d(channels, 5, 1, stride=stride, bias=False)
    theirs = torch.nn.Conv2d(channels, 5, 1, stride=stride, bias=False)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, channels, *size)
    copy = x.clone().contiguous(memory_format=torch.channels_last).requires_grad_()
    x.requires_grad_()
    expected, out = theirs(x), ours(copy)
    assert torch.allclose(out, expected, atol=1e-5)
    weights = torch.randn_like(expected)
    (expected * weights).sum().backward()
    (out * weights).sum().backward()
    assert torch.allclose(copy.grad, x.grad, atol=1e-5)
    assert torch.allclose(ours.weight.grad, theirs.weight.grad, atol=1e-4)


@pytest.mark.parametrize("channels", [3, 8])
@pytest.mark.parametrize("size", [(6, 6), (7, 7), (5, 8)])
def test_factorized_reductions(channels, size):
    layer = FactorizedReduction(channels, 5)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(2, channels, *size)
    even = torch.einsum("oi,nihw->nohw", layer.path_1.weight.flatten(1), x[:, :, ::2, ::2])
    odd_pixels = F.pad(x, (0, 1, 0, 1))[:, :, 1::2, 1::2][:, :, : even.shape[2], : even.shape[3]]
    odd = torch.einsum("oi,nihw->nohw", layer.path_2.weight.flatten(1), odd_pixels)
    expected = torch.cat([even, odd], 1)
    assert torch.allclose(layer(x), expected, atol=1e-5)
    channels_last = layer.to(memory_format=torch.channels_last)(x.contiguous(memory_format=torch.channels_last))
    assert torch.allclose(channels_last, expected, atol=1e-5)


NARROW = """
from dataclasses import replace
import torch
from nasnet_zoo.arch.cells import CellScale
from nasnet_zoo.arch.config import NetworkConfig
from nasnet_zoo.arch.genotypes import GENOTYPES
from nasnet_zoo.networks.layers import FactorizedReduction, PointConv2d
from nasnet_zoo.arch.preprocess import CIFAR10
from nasnet_zoo.networks.build import build
from nasnet_zoo.data.cifar import Pictures
from nasnet_zoo.training.loop import train
from nasnet_zoo.training.recipe import Recipe
from nasnet_zoo.training.tasks.classify import Classify

torch.set_num_threads(1)
for channels in (2, 4, 7, 8):
    for side in (8, 9, 16):
        for layer in (PointConv2d(channels, 4, 1, stride=2, bias=False), FactorizedReduction(channels, 4)):
            for parameter in layer.to(memory_format=torch.channels_last).parameters():
                torch.nn.init.normal_(parameter)
            for _ in range(5):
                x = torch.randn(16, channels, side, side).contiguous(memory_format=torch.channels_last)
                layer(x.requires_grad_()).square().sum().backward()
genotype = replace(GENOTYPES["ENAS-micro"], style="nds")
network = build(NetworkConfig(genotype, CellScale("cifar", 4, 4, (1, 1)), CIFAR10, 10))
pictures = Pictures(torch.randint(256, (48, 3, 16, 16), dtype=torch.uint8), torch.randint(10, (48,)))
recipe = Recipe(1, batch_size=16, channels_last=True)
train(network, Classify(pictures, recipe, CIFAR10), recipe)
print("trained")
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs glibc's checks of the heap")
def test_narrow_networks_leave_the_heap_intact():
    environment = {**os.environ, "MALLOC_CHECK_": "3", "LD_PRELOAD": "libc_malloc_debug.so.0"}  # where it is needed
    ended = subprocess.run([sys.executable, "-c", NARROW], env=environment, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (0, "trained\n"), ended.stderr[-2000:]
