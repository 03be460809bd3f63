"""What changes in the course of a training: drop path's probabilities, what learns when, and how batches are mixed."""

import copy
import dataclasses
import os
import signal

import pytest
import torch
from safetensors.torch import load_file
from test_train import sides
from test_training_state import CONFIG, PREPROCESS, STATE, Breaking, Stop
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from nasnet_zoo.arch.cells import CellScale
from nasnet_zoo.arch.preprocess import Preprocess
from nasnet_zoo.data.cifar import Pictures
from nasnet_zoo.errors import ConfigError, TrainingError
from nasnet_zoo.networks import planned
from nasnet_zoo.networks.build import build
from nasnet_zoo.training import distributed, state
from nasnet_zoo.training.augment import Draws, blanked, epoch_batches, mixed
from nasnet_zoo.training.loop import train
from nasnet_zoo.training.optim import make_optimizer, set_rate
from nasnet_zoo.training.prepare import Phases, prepare
from nasnet_zoo.training.recipe import Recipe
from nasnet_zoo.training.step import TrainingStep
from nasnet_zoo.training.tasks.classify import Classify

SIDE = 8
PLAIN = CellScale("cifar", 4, 4, (2,), bn_eps=1e-5)
WITH_AUX = CellScale("cifar", 4, 4, (1, 1), bn_eps=1e-5, aux_size=(SIDE, SIDE))
RECIPE = Recipe(
    3, batch_size=8, learning_rate=0.05, warmup_epochs=0.5, pad=1, drop_path_keep=0.8, dropout=0.1, head_epochs=1
)


def config(scale=PLAIN, side=SIDE):
    return dataclasses.replace(CONFIG, scale=scale, preprocess=dataclasses.replace(PREPROCESS, size=(side, side)))


def start(scale=PLAIN, side=SIDE):
    torch.manual_seed(1)
    return build(config(scale, side))


def pictures(count=32, side=SIDE):
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(10, (count,), generator=generator)
    base = torch.randint(256, (10, 3, 1, 1), generator=generator)[labels]
    noise = torch.randint(-40, 40, (count, 3, side, side), generator=generator)
    return Pictures((base + noise).clamp(0, 255).to(torch.uint8), labels)


def run(network, recipe=RECIPE, folder=None, side=SIDE, count=32, **options):
    task = Classify(pictures(count, side), recipe, network.config.preprocess)
    return train(network, task, recipe, seed=3, folder=folder, **options)


def at(step, action):
    """An on_step that acts after so many steps of all epochs."""
    return lambda epoch, done, steps: action() if epoch * steps + done == step else None


def stop():
    raise Stop


def kept(network):
    return {key: value.clone() for key, value in network.state_dict().items()}


def same(before, after):
    """The keys whose values are the same bit for bit."""
    assert before.keys() == after.keys()
    return {key for key, value in before.items() if torch.equal(value, after[key])}


@pytest.fixture
def every_step(monkeypatch):
    """States are kept after every step."""
    monkeypatch.setattr(state, "KEEP_SECONDS", -1.0)


# Drop path

CIFAR = (CellScale("cifar", 4, 4, (2, 1), bn_eps=1e-5), SIDE, "normal normal reduction normal")
IMAGENET = (CellScale("imagenet", 4, 8, (1, 1)), 32, "reduction reduction normal reduction normal")
SKIPPING = (CellScale("imagenet", 4, 8, (1, 1), skip_reduction_input=True), 32, IMAGENET[2])
PATHS = {"normal": 8, "reduction": 9}  # of NASNet-A's ten operations in a cell, those that are no identities


@pytest.mark.parametrize("scale, side, cells", [CIFAR, IMAGENET, SKIPPING], ids=["cifar", "imagenet", "skipping"])
def test_every_step_drops_paths_as_tf_slim_does(monkeypatch, scale, side, cells):
    """Its `_apply_drop_path`, version 3: the stem's two cells count, and so do reductions, which come in order."""
    recipe = Recipe(3, batch_size=4, drop_path_keep=0.6, pad=1, learning_rate=0.01)
    seen, progress = [], []
    plain = planned.drop_path
    monkeypatch.setattr(planned, "drop_path", lambda x, keep: seen.append(float(keep)) or plain(x, keep))
    network = start(scale, side)
    run(network, recipe, side=side, count=16, on_step=lambda *where: progress.append(network.progress.clone()))
    kinds = cells.split()
    num_cells = sum(scale.stages)  # TF-slim's num_cells are the normal ones; and with one reduction less than its two
    total_num_cells = num_cells + len(scale.stages) - 1 + 2 * (scale.stem == "imagenet")
    assert total_num_cells == len(kinds) and len(progress) == 12
    total_training_steps, expected = 12, []
    for global_step in range(12):
        for cell_num, kind in enumerate(kinds):
            layer_ratio = (cell_num + 1) / total_num_cells
            keep = 1 - layer_ratio * (1 - 0.6)
            keep = 1 - min(1.0, global_step / total_training_steps) * (1 - keep)
            expected += [keep] * PATHS[kind]
    assert seen == pytest.approx(expected, abs=1e-6)
    shares = dict.fromkeys(step.drop_path for step in network.plan.steps if step.drop_path)
    for global_step, value in enumerate(progress):
        assert float(value) == pytest.approx(global_step / 12, abs=1e-6)
        network.progress.copy_(value)
        first = sum(PATHS[kind] for kind in kinds) * global_step
        for cell_num, share in enumerate(shares):
            used = seen[first + sum(PATHS[kind] for kind in kinds[:cell_num])]
            assert float(network.keep_probability(share)) == used


def test_nothing_is_dropped_without_drop_path_or_in_evaluation(monkeypatch):
    monkeypatch.setattr(planned, "drop_path", lambda *arguments: pytest.fail("a path was dropped"))
    run(start(), dataclasses.replace(RECIPE, drop_path_keep=1.0, epochs=2))
    network = start().eval()
    network.regularize(drop_path_keep=0.5, dropout=0.5)
    x = torch.randn(2, 3, SIDE, SIDE)
    assert torch.equal(network(x), network(x))


# The classifier alone, then all of it

HEADS = {f"{head}.{part}" for head in ("classifier", "aux.classifier") for part in ("weight", "bias")}


@pytest.mark.parametrize(
    "head_epochs, options",
    [
        (1, dict()),
        (2, dict(layer_decay=0.9, accumulate=2)),
        (1, dict(optimizer="adamw", learning_rate=1e-3)),
        (1, dict(optimizer="rmsprop", epsilon=1.0)),
    ],
)
def test_first_the_classifiers_alone_learn_and_then_all_of_it(head_epochs, options):
    network = start(WITH_AUX)
    before, states, learning = kept(network), [], []

    def step(*where):
        states.append(kept(network))
        learning.append({name for name, p in network.named_parameters() if p.requires_grad})

    run(network, dataclasses.replace(RECIPE, head_epochs=head_epochs, **options), on_step=step)
    border = 4 * head_epochs
    for index, (old, new) in enumerate(zip([before, *states[:border]], states[:border])):
        assert same(old, new) == before.keys() - HEADS, index
        assert learning[index] == HEADS
    assert learning[border:] == [{*dict(network.named_parameters())}] * (12 - border)
    assert not same(states[border - 1], states[border])  # all of it moves with the first step, statistics too
    assert not same(before, kept(network)) and not network.training


@pytest.mark.parametrize("how", ["end", "raised", "interrupt", "nan"])
@pytest.mark.parametrize("head_epochs, moment", [(1, 2), (1, 6), (0, 2)])
def test_however_it_ends_the_network_is_as_it_was_but_in_eval_mode(tmp_path, how, head_epochs, moment):
    network, recipe = start(), dataclasses.replace(RECIPE, head_epochs=head_epochs, epochs=2)
    network.cells["normal_0"].requires_grad_(False)
    norm = network.cells["normal_1"].inputs["0"].bn
    norm.frozen = True
    needed = [parameter.requires_grad for parameter in network.parameters()]
    if how == "end":
        run(network, recipe)
    elif how == "raised":
        with pytest.raises(KeyboardInterrupt):
            run(network, recipe, on_step=at(moment, lambda: signal.raise_signal(signal.SIGINT)))
    elif how == "interrupt":
        with pytest.raises(KeyboardInterrupt):
            run(network, recipe, tmp_path, on_step=at(moment, lambda: os.kill(os.getpid(), signal.SIGINT)))
        assert (tmp_path / STATE).exists()
    else:
        with pytest.raises(TrainingError, match=f"the loss is nan in step {(moment - 1) % 4 + 1} of epoch"):
            train(network, Spoiling(moment, recipe), recipe)
    assert [parameter.requires_grad for parameter in network.parameters()] == needed and not all(needed)
    assert not any(module.training for module in network.modules())
    network.train()
    assert {module for module in network.modules() if not module.training} == {norm}


class Spoiling(Breaking):
    """On this file's pictures; its loss is no number in one step of all epochs, counted by this object."""

    def __init__(self, at, recipe):
        Classify.__init__(self, pictures(), recipe, config().preprocess)
        self.at, self.done = at, 0


@pytest.mark.parametrize("head_epochs", [0, 1])
def test_what_a_user_has_frozen_stays_frozen(head_epochs):
    network = start().train()
    network.stem.requires_grad_(False)
    network.classifier.bias.requires_grad_(False)
    frozen, resting = network.cells["normal_0"].inputs["0"].bn, network.cells["normal_1"].inputs["0"].bn
    frozen.frozen = True
    frozen.eval()
    resting.eval()  # while the network is in training mode
    before, modes = kept(network), []
    run(
        network,
        dataclasses.replace(RECIPE, head_epochs=head_epochs, epochs=2),
        on_step=lambda *where: modes.append((frozen.training, resting.training, network.stem["0"].bn.training)),
    )
    cells = ("normal_0", "normal_1")
    statistics = {f"cells.{cell}.inputs.0.bn.running_{what}" for cell in cells for what in ("mean", "var")}
    expected = statistics | {"stem.0.conv.weight", "stem.0.bn.weight", "stem.0.bn.bias", "classifier.bias"}
    assert same(before, kept(network)) == expected
    assert modes == [(False, False, False)] * 4 * head_epochs + [(False, False, True)] * 4 * (2 - head_epochs)


def test_frozen_norms_keep_their_statistics_and_learn_their_scales_and_shifts():
    network = start()
    before = kept(network)
    run(network, dataclasses.replace(RECIPE, freeze_norms=True, learning_rate=0.01))
    statistics = {key for key in before if "running" in key}
    assert len(statistics) > 30 and same(before, kept(network)) == statistics
    network.train()
    assert all(norm.training for norm in network.modules() if isinstance(norm, _BatchNorm))


def test_frozen_norms_are_computed_with_their_statistics():
    """As in evaluation: a picture's logits do not depend on the others in its batch."""
    network, seen = start(), []
    x = torch.randn(6, 3, SIDE, SIDE)

    def step(*where):
        assert network.training
        seen.append((network(x), network(x[:3])))

    run(network, Recipe(1, 8, 0.01, freeze_norms=True, pad=1), on_step=step)
    for whole, half in seen:
        torch.testing.assert_close(whole[:3], half, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("frozen", [False, True])
def test_a_classifier_that_cannot_learn_cannot_learn_first(frozen):
    network = start()
    if frozen:
        for head in network.heads():
            head.requires_grad_(False)
    else:
        network.classifier, network.aux = nn.Identity(), None
    with pytest.raises(ConfigError, match="no classifier that could learn first: give a recipe with head_epochs 0"):
        run(network)
    assert all(p.requires_grad for p in network.cells.parameters())


# Going on

MORE = dict(accumulate=2, ema_decay=0.5, optimizer="rmsprop", learning_rate=0.01, epsilon=1.0, layer_decay=0.8)
RECIPES = {"plain": RECIPE, "more": dataclasses.replace(RECIPE, **MORE)}


@pytest.fixture(scope="module", params=RECIPES)
def unbroken(request):
    network, recipe = start(), RECIPES[request.param]
    return recipe, run(network, recipe), kept(network), torch.get_rng_state()


@pytest.mark.parametrize("moment", [2, 4, 5, 6])
def test_a_training_goes_on_in_any_phase(tmp_path, every_step, unbroken, moment):
    """The states are those after 1 and 3 steps of the classifier's epoch, at the border, and after it."""
    recipe, history, weights, random = unbroken
    with pytest.raises(Stop):
        run(start(), recipe, tmp_path, on_step=at(moment, stop))
    network, first = start(), []
    assert run(network, recipe, tmp_path, on_step=lambda epoch, step, of: first.append(epoch * of + step)) == history
    assert first[0] == moment and len(same(weights, kept(network))) == len(weights)
    assert torch.equal(torch.get_rng_state(), random)


@pytest.mark.parametrize("moment", [3, 4])
def test_a_training_goes_on_after_an_interrupt(tmp_path, unbroken, moment):
    """At the step itself: with the fourth an epoch ends, and with it the classifier's time."""
    recipe, history, weights, random = unbroken
    with pytest.raises(KeyboardInterrupt):
        run(start(), recipe, tmp_path, on_step=at(moment, lambda: os.kill(os.getpid(), signal.SIGINT)))
    network, first = start(), []
    assert run(network, recipe, tmp_path, on_step=lambda epoch, step, of: first.append(epoch * of + step)) == history
    assert first[0] == moment + 1 and len(same(weights, kept(network))) == len(weights)


# What is no number


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("moment, said", [(2, "step 2 of epoch 1"), (7, "step 3 of epoch 2")])
def test_a_loss_that_is_no_number_leaves_what_was_kept(tmp_path, every_step, name, moment, said):
    network, recipe = start(), RECIPES[name]
    with pytest.raises(TrainingError, match=f"^the loss is nan in {said}: "):
        train(network, Spoiling((moment - 1) * recipe.accumulate + 1, recipe), recipe, seed=3, folder=tmp_path)
    tensors = load_file(tmp_path / STATE)
    group = "average." if recipe.ema_decay else "network."
    stored = {key.removeprefix(group): value for key, value in tensors.items() if key.startswith(group)}
    assert len(same(stored, kept(network))) == len(stored) and not network.training
    assert all(value.isfinite().all() for value in stored.values())


def test_a_step_is_named_by_its_place_in_the_epoch_after_going_on_too(tmp_path, every_step):
    with pytest.raises(Stop):
        run(start(), RECIPE, tmp_path, on_step=at(7, stop))
    with pytest.raises(TrainingError, match="^the loss is nan in step 4 of epoch 2: "):  # the second that it does
        train(start(), Spoiling(2, RECIPE), RECIPE, seed=3, folder=tmp_path)


# A step's gradient and statistics


def one_step(recipe, scale=WITH_AUX):
    """A step on a batch in float64, at a rate of 0: (the network before, the one after with its gradients, the batch,
    the loss)."""
    network = start(scale).double().train()
    before = copy.deepcopy(network)
    prepare(network, recipe)
    optimizer = make_optimizer(network, recipe)
    set_rate(optimizer, 0.0)
    torch.manual_seed(2)
    batch = torch.randn(recipe.batch_size, 3, SIDE, SIDE, dtype=torch.float64), torch.arange(recipe.batch_size) % 10
    step = TrainingStep(network, optimizer, Classify(pictures(), recipe, network.config.preprocess), recipe)
    return before, network, batch, step(*batch)


def by_hand(network, recipe, batch):
    """(the loss of a part, the gradients, each norm's statistics of the batch), of a network that has seen nothing."""
    network = copy.deepcopy(network)
    norms = {name: norm for name, norm in network.named_modules() if isinstance(norm, _BatchNorm)}
    for norm in norms.values():
        norm.momentum = 1.0
    logits, auxiliary = network(batch[0])
    loss = nn.functional.cross_entropy(logits, batch[1]) + 0.4 * nn.functional.cross_entropy(auxiliary, batch[1])
    loss.backward()
    gradients = {name: parameter.grad for name, parameter in network.named_parameters()}
    return loss.detach(), gradients, {key: value for key, value in network.state_dict().items() if "running" in key}


def mean(values):
    return torch.stack(list(values)).mean(0)


@pytest.mark.parametrize("parts", [1, 2, 3, 6])
@pytest.mark.parametrize("momentum", [0.1, 1.0])
def test_a_batch_in_parts_is_the_mean_of_its_parts(parts, momentum):
    recipe = Recipe(1, batch_size=12, accumulate=parts, bn_momentum=momentum, clip_norm=0)
    before, network, (images, labels), loss = one_step(recipe)
    found = [by_hand(before, recipe, part) for part in zip(images.chunk(parts), labels.chunk(parts))]
    assert float(loss) == pytest.approx(float(mean(each[0] for each in found)), rel=1e-9)
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(parameter.grad, mean(each[1][name] for each in found), rtol=1e-6, atol=1e-9)
    old, new = before.state_dict(), network.state_dict()
    for key in found[0][2]:
        expected = (1 - momentum) * old[key] + momentum * mean(each[2][key] for each in found)
        torch.testing.assert_close(new[key], expected, rtol=1e-6, atol=1e-9)
        assert (new[key] - old[key]).abs().max() > 1e-3
    momenta = {norm.momentum for norm in network.modules() if isinstance(norm, _BatchNorm)}
    assert momenta == {momentum}  # afterwards too: whoever goes on with the network, goes on with the recipe's


def test_parts_are_normalised_apart():
    """Or a batch in parts would be the batch as a whole."""
    recipe = Recipe(1, batch_size=12, clip_norm=0)
    _, whole, *_ = one_step(recipe)
    _, parts, *_ = one_step(dataclasses.replace(recipe, accumulate=3))
    apart = [(a.grad - b.grad).norm() / a.grad.norm() for a, b in zip(whole.parameters(), parts.parameters())]
    assert max(apart) > 0.1


@pytest.mark.parametrize("parts", [1, 3])
def test_a_gradient_is_clipped_as_a_whole_and_not_with_0(parts):
    recipe = Recipe(1, batch_size=12, accumulate=parts, clip_norm=0)
    _, free, *_ = one_step(recipe)
    _, clipped, *_ = one_step(dataclasses.replace(recipe, clip_norm=0.01))
    _, loose, *_ = one_step(dataclasses.replace(recipe, clip_norm=1e6))
    norm = torch.stack([parameter.grad.norm() for parameter in free.parameters()]).norm()
    assert norm > 1
    for a, b, c in zip(free.parameters(), clipped.parameters(), loose.parameters()):
        torch.testing.assert_close(b.grad, a.grad * 0.01 / norm, rtol=1e-4, atol=1e-12)
        assert torch.equal(a.grad, c.grad)


# Mixed pictures


def numbered(count=8, height=12, width=16):
    """Pictures that are each of one value, its own, and its class."""
    values = torch.arange(count)
    return values.float().view(-1, 1, 1, 1).expand(-1, 3, height, width).contiguous(), values


def mix(seed, **options):
    images, labels = numbered()
    draws = Draws(len(labels), torch.Generator().manual_seed(seed))
    return images, labels, *mixed(images, labels, Recipe(1, 8, **options), len(labels), draws)


def test_what_is_not_mixed_is_left_alone():
    images, labels, mixed_images, mixed_labels = mix(0)
    assert mixed_images is images and mixed_labels is labels


def share_of(labels):
    """Every label's own share; the rest is that of the picture in the place counted from the end."""
    count = len(labels)
    torch.testing.assert_close(labels.sum(1), torch.ones(count))
    own = labels.diagonal()
    torch.testing.assert_close(labels, own[0] * torch.eye(count) + (1 - own[0]) * torch.eye(count).flip(0))
    return float(own[0])


@pytest.mark.parametrize("alpha", [0.2, 2.0])
def test_mixup_mixes_pictures_and_labels_alike(alpha):
    shares = []
    for seed in range(200):
        images, _, out, labels = mix(seed, mixup=alpha)
        share = share_of(labels)
        shares.append(share)
        torch.testing.assert_close(out, share * images + (1 - share) * images.flip(0), rtol=1e-5, atol=1e-5)
    found = torch.tensor(shares)
    deviation = 1 / (4 * (2 * alpha + 1)) ** 0.5  # of Beta(alpha, alpha)
    assert float(found.mean()) == pytest.approx(0.5, abs=4 * deviation / 200**0.5)
    assert float(found.std()) == pytest.approx(deviation, rel=0.15)


def test_cutmix_pastes_a_rectangle_of_as_much_as_the_labels_say():
    shares, touching = [], []
    for seed in range(300):
        images, values, out, labels = mix(seed, cutmix=1.0)
        assert torch.equal(images, numbered()[0])  # the pictures themselves are not painted over
        share = share_of(labels)
        pasted = out != images
        assert torch.equal(pasted, pasted[:1, :1].expand_as(pasted))  # the same in all pictures and channels
        assert torch.equal(out, torch.where(pasted, images.flip(0), images))
        rows, columns = pasted[0, 0].any(1), pasted[0, 0].any(0)
        assert torch.equal(pasted[0, 0], rows[:, None] & columns) and (rows.diff().sum(), columns.diff().sum()) <= (
            2,
            2,
        )
        assert share == pytest.approx(1 - float(pasted[0, 0].float().mean()), abs=1e-6)
        shares.append(share)
        if pasted.any():
            touching.append([bool(edge) for edge in (rows[0], rows[-1], columns[0], columns[-1])])
            if not any(touching[-1]):  # whole: of the picture's aspect, 12 to 16
                assert abs(int(rows.sum()) * 16 - int(columns.sum()) * 12) <= 14
    assert min(shares) < 0.15 and max(shares) > 0.95
    assert all(0.1 < sum(edge) / len(touching) < 0.9 for edge in zip(*touching)) and [False] * 4 in touching


def test_with_both_each_batch_gets_one_of_them():
    cut = []
    for seed in range(200):
        images, _, out, _ = mix(seed, mixup=1.0, cutmix=1.0)
        pasted = (out == images) | (out == images.flip(0))
        cut.append(bool(pasted.all()))
    assert sum(cut) / len(cut) == pytest.approx(0.5, abs=0.12)


# Erased pictures


def erased(count=3000, height=20, width=30, seed=0, **options):
    ones = torch.ones(count, 3, height, width)
    return blanked(ones, Recipe(1, **options), Draws(count, torch.Generator().manual_seed(seed)))


def test_erased_rectangles_are_of_the_papers_sizes():
    """A share of 0.02 to 1/3 of the picture, of an aspect from 0.3 to 10/3; both sides are rounded, or cut off."""
    images = erased(erase=1.0)
    found = sides(images)  # which checks that each is one rectangle
    tall, wide = found[:, 0].double(), found[:, 1].double()
    assert (tall >= 1).all() and (wide >= 1).all() and (tall <= 20).all() and (wide <= 30).all()
    assert ((tall + 0.5) * (wide + 0.5) >= 0.02 * 600).all()
    assert ((tall - 0.5) * (wide - 0.5) <= 600 / 3).all()
    assert ((tall - 0.5) / (wide + 0.5) <= 10 / 3).all()
    assert (((tall + 0.5) / (wide - 0.5) >= 0.3) | (tall == 20)).all()
    area = tall * wide / 600
    assert 0.015 < area.min() < 0.03 and 0.3 < area.max() < 0.36
    assert float(area.mean()) == pytest.approx((0.02 + 1 / 3) / 2, rel=0.06)
    assert float((tall > wide).double().mean()) == pytest.approx(0.5, abs=0.06)
    blank = images[:, 0] == 0
    lower = blank[tall < 20]  # the others touch both edges anyway
    assert lower[:, 0].any() and lower[:, -1].any() and blank[:, :, 0].any() and blank[:, :, -1].any()
    assert torch.equal(images[:, 0], images[:, 1]) and torch.equal(images[:, 0], images[:, 2])


@pytest.mark.parametrize("probability", [0.0, 0.25, 1.0])
def test_as_many_pictures_are_erased_as_asked(probability):
    share = float((erased(erase=probability) == 0).any(3).any(2).any(1).float().mean())
    assert share == pytest.approx(probability, abs=0 if probability in (0, 1) else 0.03)


def test_what_is_erased_gets_the_mean():
    prepared = Preprocess((SIDE, SIDE), mean=(0.5, 0.25, 0.1), std=(0.5, 0.25, 1.0))
    grey = Pictures(torch.full((16, 3, SIDE, SIDE), 77, dtype=torch.uint8), torch.zeros(16, dtype=torch.int64))
    recipe = Recipe(1, batch_size=16, pad=0, erase=1.0)
    ((images, _),) = epoch_batches(grey, recipe, prepared, torch.Generator().manual_seed(0), SIDE)
    for channel, (middle, spread) in enumerate(zip(prepared.mean, prepared.std)):
        shown = {round(value, 5) for value in images[:, channel].flatten().tolist()}
        assert shown == {0.0, round((77 / 255 - middle) / spread, 5)}


# Several processes


def shares(monkeypatch, recipe, world, classes=10):
    """What each of so many processes sees of an epoch: a list of its batches."""
    found = []
    for rank in range(world):
        monkeypatch.setattr(distributed, "world", lambda: world)
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        generator = torch.Generator().manual_seed(7)
        found.append(list(epoch_batches(pictures(), recipe, PREPROCESS, generator, 6, classes)))
    return found


@pytest.mark.parametrize("world", [2, 4])
def test_processes_share_the_batches_of_one(monkeypatch, world):
    recipe = Recipe(1, 8, pad=2, cutout=3, erase=0.5)
    (alone,) = shares(monkeypatch, recipe, 1)
    together = [
        map(torch.cat, zip(*batches)) for parts in zip(*shares(monkeypatch, recipe, world)) for batches in [parts]
    ]
    for (images, labels), (expected, right) in zip(together, alone, strict=True):
        assert torch.equal(images, expected) and torch.equal(labels, right)


@pytest.mark.parametrize("options", [dict(mixup=0.4), dict(cutmix=1.0), dict(mixup=0.4, cutmix=1.0)], ids=str)
def test_processes_mix_in_the_same_shares(monkeypatch, options):
    recipe = Recipe(1, 8, **options)
    (alone,) = shares(monkeypatch, recipe, 1)
    both = shares(monkeypatch, recipe, 2)
    for (_, whole), (_, one), (_, other) in zip(alone, *both, strict=True):
        amounts = [set(labels[labels > 0].round(decimals=5).tolist()) - {1.0} for labels in (whole, one, other)]
        assert len(amounts[0]) == 2 and amounts[1] <= amounts[0] and amounts[2] <= amounts[0]
        assert len(whole) == 8 and len(one) == len(other) == 4


# Norms over all processes


def test_synchronised_norms_are_there_during_a_training_alone(monkeypatch):
    """torch computes them on GPUs only; here they are put in place and taken away again, with the same tensors."""
    monkeypatch.setattr("nasnet_zoo.training.prepare.world", lambda: 2)
    network = start()
    recipe = Recipe(1, sync_norms=True)
    with pytest.raises(ConfigError, match="sync_norms needs GPUs"), Phases(network, recipe):
        pass
    monkeypatch.setattr(torch.Tensor, "is_cuda", True, raising=False)
    before = dict(network.named_modules())
    state = {key: value.data_ptr() for key, value in network.state_dict().items()}
    with Phases(network, recipe):
        norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
        assert norms and all(isinstance(norm, torch.nn.SyncBatchNorm) and norm.training for norm in norms)
        assert state.items() <= {key: value.data_ptr() for key, value in network.state_dict().items()}.items()
    assert dict(network.named_modules()) == before and not network.training


def test_a_network_of_which_nothing_can_learn_is_told():
    network = start().requires_grad_(False)
    with pytest.raises(ConfigError, match="none of the network's parameters can learn"):
        Phases(network, Recipe(1))
