"""What a forward pass holds at its fullest: the closed form against the tensors that live."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from live_bytes import peak_bytes
from test_network import FORMS, SCALES, config
from torch import nn

import nasnet_zoo
from nasnet_zoo.arch.cost import peak_values
from nasnet_zoo.arch.layers import Conv, Norm, Pool, ReLU
from nasnet_zoo.arch.plan import PICTURE, Plan, Step
from nasnet_zoo.networks.build import build
from nasnet_zoo.networks.planned import PlannedNetwork

NEAR = 0.01


def assert_honest(network, size):
    measured = peak_bytes(network.eval(), torch.randn(1, 3, *size))
    assert 4 * peak_values(network.plan, size) == pytest.approx(measured, rel=NEAR)


# The measure itself


def test_the_measure_counts_each_storage_once_while_it_lives():
    kilo, x = 1024, torch.zeros(1024, dtype=torch.uint8)
    identity = nn.Identity()
    assert peak_bytes(identity, x, lambda x: x.view(32, 32)[1:]) == kilo
    assert peak_bytes(identity, x, lambda x: (x + 1) + 1) == 3 * kilo
    assert peak_bytes(identity, x, lambda x: [x + 1 for _ in range(3)]) == 4 * kilo

    def let_go(x):
        for _ in range(5):
            y = x + 1
            del y

    assert peak_bytes(identity, x, let_go) == 2 * kilo
    linear = nn.Linear(256, 256)
    assert peak_bytes(linear, torch.zeros(1, 256)) == 2 * kilo  # weights and bias are apart


def test_the_measure_sees_the_indices_of_a_maximum():
    x = torch.zeros(1, 1, 8, 8)
    measured = peak_bytes(nn.MaxPool2d(2), x)
    assert measured == 4 * 64 + (4 + 8) * 16


# The closed form


@pytest.mark.parametrize("name", ["nasnet-a-mobile", "darts-v2-mobile", "pnasnet-5-mobile", "amoebanet-a-mobile"])
def test_published_networks(name):
    assert_honest(nasnet_zoo.create(name), (96, 96))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("scale", SCALES)
def test_every_form_at_every_scale(form, scale):
    """Wide enough that maps outweigh all else, and of sizes that need uneven padding."""
    wide = replace(SCALES[scale], filters=16, stem_channels=12)
    genotype = replace(FORMS[form], style="nds") if scale.endswith("nds") else FORMS[form]
    assert_honest(build(config(genotype, wide)), (41, 38))


def test_several_pictures_hold_several_times_as_much():
    network, size = nasnet_zoo.create("nasnet-a-cifar-small").eval(), (32, 32)
    assert 4 * 3 * peak_values(network.plan, size) == pytest.approx(
        peak_bytes(network, torch.randn(3, 3, *size)), rel=NEAR
    )


def planned(*steps, **options):
    """A network from steps alone."""
    plan = Plan(steps, output=len(steps) - 1, in_channels=3, features=((len(steps) - 1,),), **options)
    return PlannedNetwork(SimpleNamespace(plan=plan, in_channels=3, num_classes=2))


def conv(c_in, c_out, kernel=1):
    return (Conv("conv", c_in, c_out, (kernel, kernel)), Norm("bn", c_out))


def test_steps_that_do_much_at_once():
    """Joins with layers of their own, a ReLU of a sum and of the picture, sums of three, an even pool."""
    stem = [Step(f"stem.{i}", (PICTURE,), conv(3, 8)) for i in range(3)]
    forms = [
        Step("sum", (0, 1, 2), join="add"),
        Step("sum", (0, 1, 2), (ReLU("relu"), *conv(8, 8)), "add"),
        Step("sum", (0, 1), (ReLU("relu"), *conv(8, 8, 3)), "add"),
        Step("sum", (0, 1, 2), conv(24, 24), "concat"),
        Step("sum", (2,), (ReLU("relu"),)),
        Step("sum", (2,), (Pool("pool", "max", 2, 1), *conv(8, 8))),
        Step("sum", (PICTURE,), (ReLU("relu"), *conv(3, 16))),
    ]
    for last in forms:
        assert_honest(planned(*stem, last), (30, 30))


def test_a_map_that_nothing_reads_is_let_go():
    steps = [Step(f"unread.{i}", (PICTURE,), conv(3, 32)) for i in range(4)] + [Step("body", (PICTURE,), conv(3, 32))]
    network, x = planned(*steps), torch.randn(1, 3, 16, 16)
    assert_honest(network, (16, 16))
    # The picture, and a convolution's map with its batch norm's; the loop holds the step before.
    assert peak_bytes(network, x) <= 4 * 256 * (3 + 3 * 32) + 64
    assert len(network.features(x)) == 1


def test_features_hold_what_they_give():
    network = nasnet_zoo.create("nasnet-a-cifar-small").eval()
    x = torch.randn(1, 3, 32, 32)
    given = sum(4 * feature.numel() for feature in network.features(x))
    assert peak_bytes(network, x, network.features) <= 4 * peak_values(network.plan, (32, 32)) + given
