"""Networks that users have wrapped or changed: what is saved gives the same logits back, or is refused."""

import json

import pytest
import torch
from changed_networks import KEPT, REFUSED, change, convolutions, logits_in_eager, small_network
from torch import nn
from torch.nn.utils import prune, weight_norm

import nasnet_zoo
from nasnet_zoo.arch.cells import CellScale
from nasnet_zoo.arch.config import NetworkConfig
from nasnet_zoo.arch.genotypes import NASNET_A
from nasnet_zoo.arch.preprocess import Preprocess
from nasnet_zoo.errors import ConfigError
from nasnet_zoo.networks.build import build
from nasnet_zoo.networks.plain import plain


def state_of(network):
    """Everything about a network that could change: tensors, modes, hooks, attributes."""
    tensors = {key: value.clone() for key, value in network.state_dict().items()}
    rest = [(name, type(m), m.training, len(m._forward_hooks), sorted(vars(m))) for name, m in network.named_modules()]
    return tensors, rest


def assert_unchanged(network, before):
    tensors, rest = state_of(network)
    assert rest == before[1]
    assert tensors.keys() == before[0].keys()
    assert all(torch.equal(value, before[0][key]) for key, value in tensors.items())


@pytest.mark.parametrize("how", KEPT)
def test_what_is_saved_gives_the_same_logits_back(how, tmp_path):
    network = change(small_network(), KEPT[how])
    before = state_of(network)
    nasnet_zoo.save(network, tmp_path / "net", note="kept")
    assert_unchanged(network, before)
    again = nasnet_zoo.load(tmp_path / "net", dtype=next(network.parameters()).dtype)
    x = torch.randn(2, 3, 32, 32).to(next(network.parameters()).dtype)
    if how == "a wrapper without a forward":
        network = network.module
    found, expected = logits_in_eager(again, x), logits_in_eager(network, x)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    assert json.loads((tmp_path / "net" / "config.json").read_text())["weights"]["note"] == "kept"
    assert again.labels == (None if how == "another classifier" else tuple("abcdefg"))


@pytest.mark.parametrize("how", KEPT)
def test_a_network_in_training_mode_is_saved_as_it_is_and_stays_in_training(how, tmp_path):
    network = change(small_network(), KEPT[how])
    network.train()
    before = state_of(network)
    nasnet_zoo.save(network, tmp_path / "net")
    assert_unchanged(network, before)


@pytest.mark.parametrize("how", REFUSED)
def test_what_could_not_be_loaded_is_refused_in_a_sentence(how, tmp_path):
    make, said = REFUSED[how]
    network = change(small_network(), make)
    before = state_of(network)
    with pytest.raises(ConfigError, match=said) as caught:
        nasnet_zoo.save(network, tmp_path / "net")
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())
    assert_unchanged(network, before)


def test_a_network_in_a_process_group_is_saved(tmp_path):
    if not torch.distributed.is_gloo_available():
        pytest.skip("this torch has no gloo")
    network, x = small_network(), torch.randn(2, 3, 32, 32)
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'meeting'}", world_size=1, rank=0)
    try:
        wrapped = nn.parallel.DistributedDataParallel(network)
        nasnet_zoo.save(wrapped, tmp_path / "net")
        expected = logits_in_eager(wrapped, x)
    finally:
        torch.distributed.destroy_process_group()
    assert torch.equal(logits_in_eager(nasnet_zoo.load(tmp_path / "net"), x), expected)


def test_one_classifier_of_two_is_not_enough(tmp_path):
    scale = CellScale("cifar", 6, 4, (1, 1), aux_size=(8, 8))
    network = build(NetworkConfig(NASNET_A, scale, Preprocess((16, 16)), 5))
    network.classifier = nn.Linear(network.num_features, 3)
    with pytest.raises(ConfigError, match=r"aux.classifier.* call network.reset_classifier\(3\)"):
        nasnet_zoo.save(network, tmp_path / "net")
    network.reset_classifier(3)
    nasnet_zoo.save(network, tmp_path / "net")
    assert nasnet_zoo.load(tmp_path / "net").aux.classifier.out_features == 3


@pytest.mark.parametrize("head", [nn.Identity(), nn.Sequential(nn.Linear(3, 4), nn.ReLU())], ids=["none", "two layers"])
def test_a_classifier_can_be_reset_whatever_is_in_its_place(head):
    network = small_network().double()
    network.classifier = head
    network.reset_classifier(4)
    x = torch.randn(1, 3, 32, 32, dtype=torch.float64)
    assert logits_in_eager(network, x).shape == (1, 4) and not network.classifier.training


def test_an_unchanged_network_is_not_run(monkeypatch, tmp_path):
    """Only where something may compute another thing is it tried out."""
    network = small_network()
    monkeypatch.setattr(type(network), "forward", lambda *_: pytest.fail("it was run"))
    nasnet_zoo.save(network, tmp_path / "net")
    network.reset_classifier(3)
    nasnet_zoo.save(nn.DataParallel(network).train(), tmp_path / "net")


def test_the_plain_network_shares_its_tensors():
    network = small_network()
    assert plain(network).classifier.weight.data_ptr() == network.classifier.weight.data_ptr()


@pytest.mark.parametrize("how", ["pruned", "weight norm"])
def test_a_network_whose_weights_are_computed_can_be_trained(how, tmp_path):
    """Each step computes them anew, also where a layer reads another layer's weights."""
    network = small_network()
    for conv in convolutions(network):
        prune.l1_unstructured(conv, "weight", 0.3) if how == "pruned" else weight_norm(conv)
    optimizer = torch.optim.SGD(network.train().parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        network(torch.randn(2, 3, 32, 32)).sum().backward()
        optimizer.step()
    network.eval()
    nasnet_zoo.save(network, tmp_path / "net")
    x = torch.randn(2, 3, 32, 32)
    expected = logits_in_eager(network, x)
    found = logits_in_eager(nasnet_zoo.load(tmp_path / "net"), x)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_every_convolution_is_called_so_that_it_can_be_hooked_or_replaced():
    network, called = small_network(), set()
    for name, module in network.named_modules():
        if not list(module.children()) and not isinstance(module, nn.Dropout):
            module.register_forward_hook(lambda *_, name=name: called.add(name))
    network(torch.randn(1, 3, 32, 32))
    assert {name for name, module in network.named_modules() if isinstance(module, nn.Conv2d)} <= called


def test_what_hangs_in_a_network_is_what_runs():
    network, other, x = small_network(), small_network(), torch.randn(2, 3, 32, 32)
    network.stem, network.cells, network.classifier = other.stem, other.cells, other.classifier
    assert torch.equal(logits_in_eager(network, x), logits_in_eager(other, x))


@pytest.mark.parametrize("empty", ["meta", "lazy"])
def test_a_network_without_values_is_refused(empty, tmp_path):
    network = small_network()
    if empty == "meta":
        network.to("meta")
    else:
        network.classifier = nn.LazyLinear(7)
    with pytest.raises(ConfigError, match="has no values yet"):
        nasnet_zoo.save(network, tmp_path / "net")
