"""Optimisers, learning rates and averages of weights: each against its formula, and against torch's and timm's own."""

import copy
import dataclasses
import math

import numpy as np
import pytest
import torch
from test_training_state import CONFIG, SHORT, STATE, Curve, Regress, Stop, assert_same, ending, pictures, run, start
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

import nasnet_zoo
from nasnet_zoo.arch.genotype import Block, Cell, Edge, Genotype
from nasnet_zoo.networks.build import build
from nasnet_zoo.networks.network import Network, eval_mode
from nasnet_zoo.training import state
from nasnet_zoo.training.augment import normalized
from nasnet_zoo.training.loop import train
from nasnet_zoo.training.optim import FIRST, Average, RMSpropTF, make_optimizer, schedule, set_rate
from nasnet_zoo.training.recipe import Recipe
from nasnet_zoo.training.tasks.classify import Classify

# Schedules

PLACES = [0.0, 0.3, 1.0, 1.999, 2.0, 2.4, 3.7, 4.8, 6.0, 7.5, 9.99, 10.0]


@pytest.mark.parametrize("done", PLACES)
def test_one_cosine_over_all_epochs(done):
    recipe = Recipe(10, learning_rate=0.4, warmup_epochs=0)
    assert schedule(recipe, done) == pytest.approx(0.4 * 0.5 * (1 + math.cos(math.pi * done / 10)), rel=1e-12)


@pytest.mark.parametrize("done", PLACES)
def test_the_rate_falls_gradually_or_in_steps_or_not_at_all(done):
    recipe = Recipe(10, learning_rate=0.4, warmup_epochs=0, decay_rate=0.5, decay_epochs=2.4)
    gradual, steps, constant = (
        schedule(dataclasses.replace(recipe, schedule=name), done) for name in ("exponential", "step", "constant")
    )
    assert gradual == pytest.approx(0.4 * 2 ** (-done / 2.4), rel=1e-12)
    fallen = [0, 0, 0, 0, 0, 1, 1, 2, 2, 3, 4, 4][PLACES.index(done)]
    assert steps == pytest.approx(0.4 / 2**fallen, rel=1e-12)
    assert constant == 0.4


@pytest.mark.parametrize("name", ["cosine", "exponential", "step", "constant"])
def test_a_warm_up_is_a_line_from_a_little_to_the_whole_rate(name):
    recipe = Recipe(10, learning_rate=0.4, warmup_epochs=2, decay_epochs=2.4, schedule=name)
    assert schedule(recipe, 0) == pytest.approx(0.4 * FIRST / (2 + FIRST), rel=1e-12) and 0 < FIRST < 0.1
    rates = [schedule(recipe, done) for done in np.linspace(0, 1.999, 12)]
    assert np.diff(rates) == pytest.approx([np.diff(rates)[0]] * 11, rel=1e-9) and rates[0] < rates[1]
    almost = schedule(recipe, 2 - 1e-9)
    assert almost == pytest.approx(0.4, rel=1e-6)
    after = {"cosine": 0.4, "exponential": 0.4 * 0.97 ** (2 / 2.4), "step": 0.4, "constant": 0.4}
    assert schedule(recipe, 2) == pytest.approx(after[name], rel=1e-12)
    later = {
        "cosine": 0.4 * 0.5 * (1 + math.cos(math.pi * 5 / 8)),
        "exponential": 0.4 * 0.97 ** (7 / 2.4),
        "step": 0.4 * 0.97**2,
        "constant": 0.4,
    }
    assert schedule(recipe, 7) == pytest.approx(later[name], rel=1e-12)


@pytest.mark.parametrize("name", ["cosine", "exponential", "step", "constant"])
def test_after_the_classifier_alone_the_schedule_begins_as_if_nothing_had_been(name):
    recipe = Recipe(13, learning_rate=0.4, warmup_epochs=2, decay_epochs=2.4, schedule=name, head_epochs=3)
    assert [schedule(recipe, done) for done in (0, 1.5, 2.999)] == [0.4] * 3
    alone = dataclasses.replace(recipe, epochs=10, head_epochs=0)
    for done in np.linspace(0, 10, 41):
        assert schedule(recipe, 3 + done) == pytest.approx(schedule(alone, done), rel=1e-9, abs=1e-15)


def test_a_warm_up_longer_than_the_training_is_never_over():
    recipe = Recipe(2, learning_rate=0.4, warmup_epochs=5)
    rates = [schedule(recipe, done) for done in (0, 1, 2)]
    assert rates == sorted(rates) and rates[-1] == pytest.approx(0.4 * 2.02 / 5.02)


# Optimisers

RATES = [0.1, 0.02, 0.3, 0.3, 0.0, 0.07, 0.2]  # as a warm-up and a schedule change them; one is 0


class Pair(Network):
    """One matrix, whose weights decay, and one vector, whose weights do not."""

    def __init__(self):
        super().__init__(CONFIG)
        self.matrix = nn.Parameter(torch.randn(5, 3))
        self.vector = nn.Parameter(torch.randn(7))


def gradients(step):
    generator = torch.Generator().manual_seed(step)
    return [torch.randn(5, 3, generator=generator), torch.randn(7, generator=generator) * 10.0 ** (step - 4)]


def moved(parameters, optimizer, setting):
    """The parameters after a step at each rate, on gradients of very different sizes."""
    for step, rate in enumerate(RATES):
        for parameter, gradient in zip(parameters, gradients(step)):
            parameter.grad = gradient.clone()
        setting(optimizer, rate)
        optimizer.step()
    return [parameter.detach() for parameter in parameters]


def plainly(optimizer, rate):
    for group in optimizer.param_groups:
        group["lr"] = rate


def ours_and_theirs(recipe, make):
    torch.manual_seed(4)
    network = Pair()
    other = [nn.Parameter(value.detach().clone()) for value in (network.matrix, network.vector)]
    groups = [{"params": [other[0]], "weight_decay": recipe.weight_decay}, {"params": [other[1]], "weight_decay": 0.0}]
    ours = moved([network.matrix, network.vector], make_optimizer(network, recipe), set_rate)
    theirs = moved(other, make(groups), plainly)
    return ours, theirs


def assert_close(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_is_torchs(nesterov):
    recipe = Recipe(1, momentum=0.8, nesterov=nesterov, weight_decay=0.03)
    ours, theirs = ours_and_theirs(
        recipe, lambda groups: torch.optim.SGD(groups, 0.5, momentum=0.8, nesterov=nesterov, foreach=False)
    )
    assert_close(ours, theirs)


def test_adamw_is_torchs_with_its_decay_beside_the_gradient():
    recipe = Recipe(1, optimizer="adamw", momentum=0.8, square_decay=0.95, epsilon=1e-3, weight_decay=0.3)
    ours, theirs = ours_and_theirs(
        recipe, lambda groups: torch.optim.AdamW(groups, 0.5, betas=(0.8, 0.95), eps=1e-3, foreach=False)
    )
    assert_close(ours, theirs)


TF = Recipe(1, optimizer="rmsprop", momentum=0.9, square_decay=0.9, epsilon=1.0, weight_decay=0.03)


@pytest.mark.parametrize("recipe", [TF, dataclasses.replace(TF, momentum=0.5, square_decay=0.99, epsilon=1e-3)])
def test_rmsprop_is_timms_of_tensorflow(recipe):
    optim = pytest.importorskip("timm.optim")
    options = dict(alpha=recipe.square_decay, eps=recipe.epsilon, momentum=recipe.momentum)
    ours, theirs = ours_and_theirs(
        recipe, lambda groups: optim.RMSpropTF(groups, 0.5, **options, lr_in_momentum=True, decoupled_decay=False)
    )
    assert_close(ours, theirs)


def test_rmsprop_is_tensorflows_formula():
    """ApplyRMSProp: ms += (g² - ms)(1 - rho); mom = momentum * mom + lr * g / sqrt(ms + epsilon); var -= mom."""
    torch.manual_seed(4)
    network = Pair()
    weights = [value.detach().double().numpy().copy() for value in (network.matrix, network.vector)]
    ours = moved([network.matrix, network.vector], make_optimizer(network, TF), set_rate)
    for place, (weight, decay) in enumerate(zip(weights, (0.03, 0.0))):
        square, velocity = np.ones_like(weight), np.zeros_like(weight)
        for step, rate in enumerate(RATES):
            gradient = gradients(step)[place].double().numpy() + decay * weight
            square += (gradient**2 - square) * (1 - 0.9)
            velocity = 0.9 * velocity + rate * gradient / np.sqrt(square + 1.0)
            weight -= velocity
        np.testing.assert_allclose(ours[place].numpy(), weight, rtol=1e-5, atol=2e-6)


def test_tensorflows_rmsprop_is_not_torchs():
    """With the epsilon in another place, a mean square from 0 and the rate outside the momentum it would be."""
    ours, torchs = ours_and_theirs(
        TF, lambda groups: torch.optim.RMSprop(groups, 0.5, alpha=0.9, eps=1.0, momentum=0.9)
    )
    assert all((a - b).abs().max() > 0.01 for a, b in zip(ours, torchs))


def test_rmsprop_leaves_alone_what_has_no_gradient():
    one, other = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    optimizer = RMSpropTF([{"params": [one, other], "weight_decay": 0.1, "lr": torch.ones(())}], 0.9, 0.9, 1.0)
    one.grad = torch.ones(2)
    optimizer.step()
    assert (one < 1).all() and torch.equal(other, torch.ones(2)) and not optimizer.state[other]


# Which weights decay, and how fast what learns


def combining():
    """Cells with norms that have no statistics: NASNet-B's layer and instance norms."""
    blocks = (
        Block(Edge(0, "sep_conv_3x3"), Edge(1, "identity"), "add_layer_norm"),
        Block(Edge(0, "avg_pool_3x3"), Edge(2, "identity"), "add_instance_norm"),
    )
    cell = Cell(blocks, (2, 3))
    return build(dataclasses.replace(CONFIG, architecture=Genotype(cell, cell)))


def small(name, **options):
    return nasnet_zoo.create(name, num_classes=4, stages=(1, 1, 1), **options)


IMAGENET = ["stem.0", "cells.stem_0", "cells.stem_1", "cells.normal_0", "cells.reduction_0", "cells.normal_1"]
IMAGENET += ["cells.reduction_1", "cells.normal_2"]
CIFAR = ["stem.0", *IMAGENET[3:]]
NDS = ["stem.0", "stem.1", *IMAGENET[3:]]
NETWORKS = {  # and the parts of each in order, the classifier left out
    "nasnet": (lambda: small("nasnet-a-mobile", filters=8, aux_size=(5, 5)), IMAGENET),
    "nasnet-cifar": (lambda: small("nasnet-a-cifar", filters=4, aux_size=(8, 8)), CIFAR),
    "pnasnet": (lambda: small("pnasnet-5-mobile", filters=8), IMAGENET),
    "amoebanet": (lambda: small("amoebanet-a-mobile", filters=8, aux_size=(5, 5)), IMAGENET),
    "darts": (lambda: small("darts-v2-mobile", filters=4, aux_size=(5, 5)), NDS),
    "darts-cifar": (lambda: small("darts-v1-cifar", filters=4), CIFAR),
    "combining": (combining, ["stem.0", "cells.normal_0", "cells.reduction_0", "cells.normal_1"]),
}


@pytest.fixture(scope="module", params=NETWORKS)
def network_and_parts(request):
    make, parts = NETWORKS[request.param]
    return make(), parts


def by_name(network, recipe, key):
    """What each parameter's group says, by the parameter's name; every one must be in exactly one group."""
    groups = make_optimizer(network, recipe).param_groups
    names = {parameter: name for name, parameter in network.named_parameters()}
    found = [(names[parameter], group[key]) for group in groups for parameter in group["params"]]
    assert sorted(name for name, _ in found) == sorted(names.values())
    return dict(found)


@pytest.mark.parametrize("optimizer", ["sgd", "rmsprop", "adamw"])
def test_convolutions_and_classifiers_decay_and_nothing_else(network_and_parts, optimizer):
    network, _ = network_and_parts
    decays = by_name(network, Recipe(1, optimizer=optimizer, weight_decay=0.03, layer_decay=0.9), "weight_decay")
    decayed = {
        f"{name}.weight" for name, module in network.named_modules() if isinstance(module, (nn.Conv2d, nn.Linear))
    }
    assert "classifier.weight" in decayed and len(decayed) > 10
    assert {name for name, decay in decays.items() if decay == 0.03} == decayed
    assert {decay for name, decay in decays.items() if name not in decayed} == {0.0}
    kinds = (_BatchNorm, nn.GroupNorm, nn.InstanceNorm2d)
    norms = [module for module in network.modules() if isinstance(module, kinds)]
    biases = sum(isinstance(module, nn.Linear) for module in network.modules())
    assert len(decays) - len(decayed) == 2 * len(norms) + biases


def test_without_layer_decay_there_are_two_groups(network_and_parts):
    network, _ = network_and_parts
    first, second = make_optimizer(network, Recipe(1, weight_decay=0.03)).param_groups
    assert (first["weight_decay"], second["weight_decay"]) == (0.03, 0.0)
    assert (first["scale"], second["scale"]) == (1.0, 1.0)


@pytest.mark.parametrize("decay", [0.9, 0.5])
def test_each_cell_below_the_classifier_learns_more_slowly(network_and_parts, decay):
    network, parts = network_and_parts
    expected = {}
    for name, _ in network.named_parameters():
        place = [k for k, part in enumerate(parts) if name.startswith(f"{part}.")]
        assert len(place) == (not name.startswith(("classifier.", "aux."))), name
        expected[name] = decay ** (len(parts) - place[0]) if place else 1.0
    recipe = Recipe(1, layer_decay=decay)
    assert by_name(network, recipe, "scale") == pytest.approx(expected, rel=1e-12)
    optimizer = make_optimizer(network, recipe)
    set_rate(optimizer, 0.3)
    names = {parameter: name for name, parameter in network.named_parameters()}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            assert float(group["lr"]) == pytest.approx(0.3 * expected[names[parameter]], rel=1e-6)


def test_a_network_without_depths_learns_at_one_rate():
    network = Curve()
    assert network.depths() == {}
    assert set(by_name(network, Recipe(1, layer_decay=0.5), "scale").values()) == {1.0}
    decays = by_name(network, Recipe(1, layer_decay=0.5, weight_decay=0.03), "weight_decay")
    assert {name for name, value in decays.items() if value} == {"body.0.weight", "body.4.weight"}
    train(network, Regress(), Recipe(2, layer_decay=0.5))


def test_layer_decay_reaches_the_weights():
    """With plain gradient descent a step is the rate times the gradient: with a decay, that much shorter."""
    one, slow = start(), start()
    recipe = Recipe(1, batch_size=64, warmup_epochs=0, momentum=1e-9, nesterov=False, weight_decay=0, clip_norm=0)
    before = {name: value.detach().clone() for name, value in one.named_parameters()}
    run(one, recipe=recipe)
    run(slow, recipe=dataclasses.replace(recipe, layer_decay=0.5))
    parts = ["stem.0", "cells.normal_0", "cells.reduction_0", "cells.normal_1"]
    for (name, a), b in zip(one.named_parameters(), slow.parameters()):
        below = next((len(parts) - k for k, part in enumerate(parts) if name.startswith(f"{part}.")), 0)
        torch.testing.assert_close(b - before[name], (a - before[name]) * 0.5**below, rtol=1e-3, atol=1e-6)
        assert (a - before[name]).abs().max() > 1e-5 or name.endswith("bias"), name


# Averages of weights


def averaged(values, decay):
    """After n steps the decay is min(decay, (1 + n) / (10 + n)), as tf.train.ExponentialMovingAverage has it."""
    average = values[0].double()
    for n, value in enumerate(values[1:], 1):
        now = min(decay, (1 + n) / (10 + n))
        average = now * average + (1 - now) * value.double()
    return average


@pytest.mark.parametrize("decay", [0.3, 0.9, 0.9999])
def test_the_average_is_its_formula(decay):
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))  # torch's norm has a counter in its state
    average, seen = Average(network, decay), [copy.deepcopy(network.state_dict())]
    for step in range(1, 7):
        network(torch.randn(8, 3, 5, 5) * step)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter += torch.randn(parameter.shape)
        average.update(step)
        seen.append(copy.deepcopy(network.state_dict()))
    found = average.state_dict()
    assert found.keys() == seen[0].keys() - {"1.num_batches_tracked"}
    assert {"1.running_mean", "1.running_var"} < found.keys() and int(seen[-1]["1.num_batches_tracked"]) == 6
    for key, value in found.items():
        expected = averaged([each[key] for each in seen], decay)
        torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=1e-5)
        assert (value - seen[-1][key]).abs().max() > 1e-3
    average.swap()
    assert int(network.state_dict()["1.num_batches_tracked"]) == 6
    assert all(torch.equal(value, seen[-1][key]) for key, value in average.state_dict().items())


def test_swapped_twice_is_what_it_was_bit_for_bit():
    network = start()
    average = Average(network, 0.9)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += torch.randn(parameter.shape) * 1e-3
        network.classifier.weight[0, :3] = torch.tensor([float("inf"), -0.0, 1e-42])
    average.update(5)

    def bits():
        return [value.view(torch.int32).clone() for value in (*network.state_dict().values(), *average.tensors)]

    before = bits()
    with average.applied():
        inside = network.classifier.bias.detach().clone()
        assert not torch.equal(network.stem["0"].conv.weight, average.state_dict()["stem.0.conv.weight"])
    assert all(map(torch.equal, before, bits()))
    assert torch.equal(inside, average.state_dict()["classifier.bias"])
    with pytest.raises(KeyError), average.applied():
        raise KeyError
    assert all(map(torch.equal, before, bits()))


AVERAGING = dataclasses.replace(SHORT, ema_decay=0.4, learning_rate=0.2)


class Measured(Classify):
    """Measured as a number that every weight and statistic moves: the loss in eval mode on the data themselves."""

    def __init__(self, recipe=AVERAGING):
        super().__init__(pictures(), recipe, CONFIG.preprocess)

    def evaluate(self, network):
        with torch.inference_mode(), eval_mode(network):
            logits = network(normalized(pictures().images, self.preprocess))
        return {"loss": float(nn.functional.cross_entropy(logits, pictures().labels))}


@pytest.fixture(scope="module")
def trained():
    """A training with an average: its network and history, and the weights before it and after each of its steps."""
    network, seen, measured = start(), [], []
    task = Measured()

    def step(*where):
        seen.append(copy.deepcopy(network.state_dict()))

    first = copy.deepcopy(network.state_dict())
    history = train(
        *(network, task, AVERAGING),
        seed=3,
        measure=True,
        on_step=step,
        on_epoch=lambda epoch: measured.append(task.evaluate(network)),
    )
    return network, history, [first, *seen], measured


def test_a_training_ends_with_the_average_of_its_steps(trained):
    network, _, seen, _ = trained
    assert len(seen) == 9
    for key, value in network.state_dict().items():
        expected = averaged([each[key] for each in seen], 0.4)
        torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=1e-6)
    assert not network.training
    apart = [(network.state_dict()[key] - value).abs().max() for key, value in seen[-1].items()]
    assert sum(map(bool, apart)) > 0.9 * len(apart)


def test_what_is_measured_is_the_average(trained):
    """By the loop, and by whoever looks at the network when an epoch ends; the training itself goes on without it."""
    _, history, seen, measured = trained
    for epoch, end in enumerate((4, 8)):
        network = start()
        network.load_state_dict({key: averaged([each[key] for each in seen[: end + 1]], 0.4) for key in seen[0]})
        expected = Measured().evaluate(network)["loss"]
        assert history[epoch].metrics["loss"] == pytest.approx(expected, rel=1e-4)
        assert measured[epoch] == history[epoch].metrics
        network.load_state_dict(seen[end])
        assert abs(Measured().evaluate(network)["loss"] - expected) > 1e-3 * expected


def test_an_average_does_not_touch_what_is_learned(trained):
    plain, seen = start(), []
    without = dataclasses.replace(AVERAGING, ema_decay=0.0)
    run(plain, recipe=without, on_step=lambda *where: seen.append(copy.deepcopy(plain.state_dict())))
    for ours, theirs in zip(seen, trained[2][1:], strict=True):
        assert all(torch.equal(value, theirs[key]) for key, value in ours.items())


@pytest.mark.parametrize("at", [2, 3, 5, 6, 8])
def test_a_training_with_an_average_goes_on_from_any_step(tmp_path, monkeypatch, trained, at):
    monkeypatch.setattr(state, "KEEP_SECONDS", -1.0)

    def stop(epoch, step, steps):
        if epoch * steps + step == at:
            raise Stop

    with pytest.raises(Stop):
        train(start(), Measured(), AVERAGING, seed=3, folder=tmp_path, measure=True, on_step=stop)
    assert (tmp_path / STATE).exists()
    network, live = start(), []
    history = train(
        *(network, Measured(), AVERAGING),
        seed=3,
        folder=tmp_path,
        measure=True,
        on_step=lambda *where: live.append(copy.deepcopy(network.state_dict())),
    )
    assert len(live) == 9 - at
    assert all(torch.equal(value, live[-1][key]) for key, value in trained[2][-1].items())
    assert history == trained[1]
    assert all(torch.equal(value, network.state_dict()[key]) for key, value in trained[0].state_dict().items())


def test_a_finished_training_gives_the_average_again(tmp_path):
    whole = start()
    expected = ending(whole, run(whole, tmp_path, AVERAGING))
    network = start()
    history = run(network, tmp_path, AVERAGING)
    assert_same((*ending(network, history)[:2], expected[2]), expected)
