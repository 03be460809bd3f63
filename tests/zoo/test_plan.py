"""Plans: what is wrong with one, what it says of channels, strides and uses, and what it counts."""

import pytest
import torch
from test_network import FORMS, SCALES, config
from torch import nn

import nasnet_zoo
from nasnet_zoo.arch.cost import layers_cost, network_cost
from nasnet_zoo.arch.layers import Conv, Norm, Pool, ReLU
from nasnet_zoo.arch.ops import COMBINES, OPS
from nasnet_zoo.arch.plan import PICTURE, Auxiliary, Plan, Step
from nasnet_zoo.errors import ConfigError
from nasnet_zoo.networks.build import build
from nasnet_zoo.networks.layers import Chain, FactorizedReduction, State

EPS = 1e-3


def conv(c_in, c_out, stride=1):
    return Conv("conv", c_in, c_out, (3, 3), (stride, stride)), Norm("bn", c_out)


STEM = Step("stem", (PICTURE,), conv(3, 8))
WIDER = Step("wider", (0,), conv(8, 12))


def plan(*steps, output=None, features=None, **options):
    output = len(steps) - 1 if output is None else output
    return Plan(steps, output, 3, ((output,),) if features is None else features, **options)


# What is wrong with a plan


@pytest.mark.parametrize(
    "make, said",
    [
        (lambda: Plan((), 0, 3, ()), "a plan without steps is no network"),
        (lambda: plan(STEM, Step("late", (2,), conv(8, 8))), "step 1, 'late', reads step 2, which is not before it"),
        (lambda: plan(STEM, Step("itself", (1,), conv(8, 8))), "'itself', reads step 1, which is not before it"),
        (lambda: plan(STEM, Step("early", (-2,))), "'early', reads step -2, which is not before it"),
        (lambda: plan(STEM, Step("none", ())), "'none', has 0 inputs to join by 'only'"),
        (lambda: plan(STEM, Step("none", (), join="add")), "'none', has 0 inputs to join by 'add'"),
        (lambda: plan(STEM, Step("two", (0, 0))), "'two', has 2 inputs to join by 'only'"),
        (lambda: plan(STEM, WIDER, WIDER), "two steps have the name 'wider'"),
        (lambda: plan(STEM, WIDER, Step("sum", (0, 1), join="add")), r"step 2, 'sum', adds maps of \[8, 12\] channels"),
        (lambda: plan(STEM, Step("sum", (PICTURE, 0), join="add")), r"'sum', adds maps of \[3, 8\] channels"),
        (
            lambda: plan(STEM, WIDER, Step("half", (0,), conv(8, 12, 2)), Step("both", (1, 2), join="concat")),
            r"step 3, 'both', joins maps of the strides \[\d, \d\]",
        ),
        (lambda: plan(STEM, output=1), "the output, a feature or the auxiliary head is step 1, which is not there"),
        (lambda: plan(STEM, output=PICTURE), "is step -1, which is not there"),
        (lambda: plan(STEM, features=((0,), (0, 4))), "is step 4, which is not there"),
        (lambda: plan(STEM, auxiliary=Auxiliary((7,), (8, 8))), "is step 7, which is not there"),
    ],
)
def test_what_is_wrong_is_one_sentence(make, said):
    with pytest.raises(ConfigError, match=said) as error:
        make()
    assert "\n" not in str(error.value) and ". " not in str(error.value)


# What a plan says


def test_channels_strides_and_uses_by_hand():
    steps = (
        STEM,
        Step("down", (0,), (ReLU("relu"), *conv(8, 12, 2))),
        Step("pool", (1,), (Pool("pool", "max", 3, 2),)),
        Step("again", (1,), conv(12, 12, 2)),
        Step("sum", (2, 3), join="add"),
        Step("whole", (4, 2, 4), conv(36, 5), "concat"),
        Step("unread", (PICTURE,), conv(3, 4)),
    )
    made = plan(*steps, output=5, features=((0,), (1,), (4, 5)))
    assert made.channels == (8, 12, 12, 12, 12, 5, 4)
    assert made.strides == (1, 2, 4, 4, 4, 4, 1)
    assert made.last_use == {PICTURE: 6, 0: 1, 1: 3, 2: 5, 3: 4, 4: 5}
    assert made.index["sum"] == 4 and made.num_features == 5
    assert made.width((PICTURE, 0, 1)) == 23 and made.width(()) == 0


def assert_tells_what_a_forward_pass_does(network, size):
    """channels, strides and last_use of a plan against a real pass over a picture."""
    plan, (height, width) = network.plan, size
    maps, read = {}, {}
    take = network._step

    def step(index, states, keep):
        read.update(dict.fromkeys(plan.steps[index].inputs, index))
        assert set(plan.steps[index].inputs) <= set(states), "a map was let go too early"
        assert all(plan.last_use.get(held, held) >= index for held in states), "a map is held too long"
        return take(index, states, keep)

    network._step = step
    valid = 2 if any(getattr(layer, "valid", False) for layer in plan.steps[0].layers) else 0
    for index, state in network.maps(network.checked(torch.empty(1, network.config.in_channels, *size, device="meta"))):
        maps[index] = state.raw.shape
    assert read == plan.last_use
    for index, shape in maps.items():
        stride = plan.strides[index]
        expected = (plan.channels[index], -(-(height - valid) // stride), -(-(width - valid) // stride))
        assert tuple(shape[1:]) == expected, plan.steps[index].name
    assert plan.num_features == network.classifier.in_features
    assert len(plan.index) == len(plan.steps) == len(maps)


@pytest.mark.parametrize("name", nasnet_zoo.list_models())
def test_every_registered_plan_tells_what_a_forward_pass_does(name):
    network = build(nasnet_zoo.info(name).config, empty=True).eval()
    assert_tells_what_a_forward_pass_does(network, (75, 62))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("scale", SCALES)
def test_every_form_of_plan_tells_what_a_forward_pass_does(form, scale):
    network = build(config(FORMS[form], SCALES[scale]), empty=True).eval()
    assert_tells_what_a_forward_pass_does(network, (50, 37))


# Activations


def activations_of(module, call):
    """The values that convolutions and linear layers put out, without the border that a factorized reduction drops."""
    counted = 0

    def count(module, inputs, output):
        nonlocal counted
        counted += output.numel()

    for part in module.modules():
        if isinstance(part, FactorizedReduction):
            part.register_forward_hook(count)
            for path in (part.path_1, part.path_2):
                path.counted = True
    for part in module.modules():
        if isinstance(part, (nn.Conv2d, nn.Linear)) and not hasattr(part, "counted"):
            part.register_forward_hook(count)
    call(module)
    return counted


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("c_in", [3, 8])
def test_activations_of_every_op(op, stride, c_in):
    layers = OPS[op](c_in, 8, stride)
    counted = activations_of(Chain(layers, EPS).eval(), lambda chain: chain(State(torch.randn(1, c_in, 7, 10))))
    assert layers_cost(layers, (7, 10))[0].activations == counted


@pytest.mark.parametrize("combine", COMBINES)
def test_activations_of_every_combine(combine):
    layers = COMBINES[combine](8)
    channels = 16 if combine == "concat" else 8
    counted = activations_of(Chain(layers, EPS).eval(), lambda chain: chain(State(torch.randn(1, channels, 7, 10))))
    assert layers_cost(layers, (7, 10))[0].activations == counted


@pytest.mark.parametrize("name", ["nasnet-a-mobile", "pnasnet-5-mobile", "darts-v2-mobile", "amoebanet-a-cifar"])
def test_activations_of_models(name):
    network = build(nasnet_zoo.info(name).config, empty=True).eval()
    size = (97, 110)
    counted = activations_of(network, lambda network: network(torch.empty(1, 3, *size, device="meta")))
    assert network_cost(network.config, size).activations == counted


@pytest.mark.parametrize("form", FORMS)
def test_activations_of_every_form(form):
    network = build(config(FORMS[form], SCALES["imagenet"]), empty=True).eval()
    counted = activations_of(network, lambda network: network(torch.empty(1, 3, 33, 46, device="meta")))
    assert network_cost(network.config, (33, 46)).activations == counted
