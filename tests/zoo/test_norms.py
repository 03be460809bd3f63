"""Batch norms among torch's own tools: converted, averaged, recomputed, frozen, reset and checkpointed."""

import copy
import socket

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn
from torch.optim.swa_utils import AveragedModel, update_bn
from torch.utils.checkpoint import checkpoint

import nasnet_zoo
from nasnet_zoo.arch.cells import CellScale
from nasnet_zoo.arch.config import NetworkConfig
from nasnet_zoo.arch.genotypes import NASNET_A
from nasnet_zoo.arch.preprocess import Preprocess
from nasnet_zoo.data.cifar import Pictures
from nasnet_zoo.errors import DataError
from nasnet_zoo.networks.build import build
from nasnet_zoo.networks.layers import BatchNorm, Chain, State
from nasnet_zoo.networks.network import eval_mode
from nasnet_zoo.training.evaluate import calibrate, evaluate
from nasnet_zoo.training.loop import train
from nasnet_zoo.training.recipe import Recipe
from nasnet_zoo.training.tasks.classify import Classify
from nasnet_zoo.weights.checkpoint import write_checkpoint

CONFIG = NetworkConfig(NASNET_A, CellScale("cifar", 6, 4, (1, 1), aux_size=(8, 8)), Preprocess((16, 16)), 5)
RECIPE = Recipe(3, batch_size=8, warmup_epochs=0, pad=1)
STATISTICS = ("running_mean", "running_var")


def network_with_history():
    """A network whose statistics are not those it was born with."""
    network = build(CONFIG).train()
    for _ in range(3):
        network(batch())
    return network.eval()


def batch(count=8):
    return torch.randn(count, 3, 16, 16) * 2 + 1


def pictures(count=24):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (count, 3, 16, 16), generator=generator).to(torch.uint8)
    return Pictures(images, torch.randint(5, (count,), generator=generator))


def norms_of(network):
    return [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]


def statistics(network):
    return {key: value.clone() for key, value in network.state_dict().items() if key.endswith(STATISTICS)}


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert torch.equal(found[key], value), key


def by_torch(network):
    return nn.SyncBatchNorm.convert_sync_batchnorm(network)


def by_timm(network):
    return pytest.importorskip("timm.layers").convert_sync_batchnorm(network)


converted = pytest.mark.parametrize("convert", [by_torch, by_timm])


# SyncBatchNorm


@converted
def test_a_converted_network_gives_the_same_logits(convert):
    network, x = network_with_history(), batch()
    expected = network(x)
    other = convert(copy.deepcopy(network))
    assert norms_of(other) and all(isinstance(norm, nn.SyncBatchNorm) for norm in norms_of(other))
    assert len(norms_of(other)) == len(norms_of(network))
    torch.testing.assert_close(other(x), expected)


@converted
def test_a_converted_network_exchanges_weights_with_one_that_is_not(convert, tmp_path):
    network, x = network_with_history(), batch()
    nasnet_zoo.save(network, tmp_path / "plain")
    other = convert(build(CONFIG)).eval()
    other.load_state_dict(load_file(tmp_path / "plain" / "model.safetensors"))  # has no num_batches_tracked
    torch.testing.assert_close(other(x), network(x))
    other = convert(build(CONFIG)).eval()
    other.load_state_dict(network.state_dict())
    torch.testing.assert_close(other(x), network(x))
    back = build(CONFIG).eval()
    back.load_state_dict(other.state_dict())
    assert torch.equal(back(x), network(x))


@converted
def test_a_converted_network_is_saved_like_any_other(convert, tmp_path):
    network, x = network_with_history(), batch()
    nasnet_zoo.save(network, tmp_path / "plain")
    nasnet_zoo.save(convert(copy.deepcopy(network)), tmp_path / "converted")
    stored = load_file(tmp_path / "converted" / "model.safetensors")
    assert_equal(stored, load_file(tmp_path / "plain" / "model.safetensors"))
    assert not any("num_batches_tracked" in key for key in stored)
    again = nasnet_zoo.load(tmp_path / "converted")
    assert torch.equal(again(x), network(x))


def test_a_checkpoint_with_counters_loads_and_loses_them(tmp_path, monkeypatch):
    network, x = network_with_history(), batch()
    state = by_torch(copy.deepcopy(network)).state_dict()
    assert any("num_batches_tracked" in key for key in state)
    monkeypatch.setattr("nasnet_zoo.weights.checkpoint.without_counters", lambda state: state)
    write_checkpoint(state, CONFIG, tmp_path)
    monkeypatch.undo()
    loaded = nasnet_zoo.load(tmp_path)
    assert torch.equal(loaded(x), network(x))
    assert loaded.state_dict().keys() == network.state_dict().keys()


@converted
def test_a_converted_network_trains_as_before(convert):
    """Where there is one process SyncBatchNorm is batch norm: one training step does the same."""
    first, x = build(CONFIG).train(), batch()
    second = convert(copy.deepcopy(first))
    assert all(norm.training for norm in norms_of(second))
    for network in (first, second):
        step(network, x)
    for (key, value), other in zip(first.state_dict().items(), without_counters(second).values()):
        torch.testing.assert_close(other, value, msg=key)


def test_a_converted_network_trains_in_a_process_group():
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    if not torch.distributed.is_gloo_available():
        pytest.skip("this torch has no gloo")
    network = by_torch(build(CONFIG)).train()
    torch.distributed.init_process_group("gloo", init_method=f"tcp://localhost:{port}", world_size=1, rank=0)
    try:
        before = statistics(network)
        step(network, batch())
    except ValueError as error:
        if "to be on GPU" in str(error):
            pytest.skip(f"SyncBatchNorm takes nothing on a CPU: {error}")
        raise
    finally:
        torch.distributed.destroy_process_group()
    assert all(not torch.equal(value, before[key]) for key, value in statistics(network).items())


def test_a_training_of_a_converted_network_resumes_and_may_be_converted_back(tmp_path):
    class Stop(Exception):
        pass

    def stop(epoch, step, steps):
        if (epoch, step) == (1, 2):
            raise Stop

    def start():
        torch.manual_seed(1)
        return build(CONFIG)

    def run(network, **options):
        return train(network, Classify(pictures(), RECIPE, CONFIG.preprocess), RECIPE, folder=tmp_path, **options)

    with pytest.raises(Stop):
        run(by_torch(start()), on_step=stop)
    state = (tmp_path / "state.safetensors").read_bytes()
    ended = []
    for make in (lambda: by_torch(start()), start):
        (tmp_path / "state.safetensors").write_bytes(state)
        network = make()
        assert len(run(network)) == 3
        ended.append(without_counters(network))
    for (key, value), other in zip(ended[0].items(), ended[1].values(), strict=True):
        torch.testing.assert_close(other, value, msg=key)


def without_counters(network):
    return {key: value for key, value in network.state_dict().items() if "num_batches_tracked" not in key}


def step(network, x):
    target = torch.arange(len(x)) % 5
    out = network(x)
    logits, auxiliary = out if isinstance(out, tuple) else (out, out)
    (F.cross_entropy(logits, target) + 0.4 * F.cross_entropy(auxiliary, target)).backward()
    torch.optim.SGD(network.parameters(), lr=0.1).step()


# Averages of statistics and of weights


def torchs(norm):
    """torch's own batch norm in the same state."""
    other = nn.BatchNorm2d(norm.num_features, eps=norm.eps, momentum=norm.momentum).train(norm.training)
    other.load_state_dict(norm.state_dict(), strict=False)
    return other


def test_the_cumulative_average_is_torchs():
    ours = BatchNorm(6, 1e-3).train()
    ours.momentum = None
    theirs = torchs(ours)
    batches = [torch.randn(4, 6, 5, 5) * scale + scale for scale in (1, 5, 0.2)]
    for x in batches:
        torch.testing.assert_close(ours(x), theirs(x))
    for name in (*STATISTICS, "num_batches_tracked"):
        torch.testing.assert_close(getattr(ours, name), getattr(theirs, name))
    mean = torch.stack([x.mean((0, 2, 3)) for x in batches]).mean(0)
    torch.testing.assert_close(ours.running_mean, mean)


def test_statistics_are_reset():
    norm = BatchNorm(6, 1e-3).train()
    norm.momentum = None
    norm(torch.randn(4, 6, 5, 5))
    assert norm.num_batches_tracked == 1
    norm.reset_running_stats()
    assert norm.num_batches_tracked == 0 and norm.running_mean.abs().max() == 0 and (norm.running_var == 1).all()


def test_update_bn_measures_anew():
    network = network_with_history()
    batches = [batch(), batch(), batch()]
    momenta = [norm.momentum for norm in norms_of(network)]
    update_bn(batches, network)
    assert [norm.momentum for norm in norms_of(network)] == momenta and not network.training
    first = network.stem["0"]
    seen = torch.cat([first.conv(x).mean((0, 2, 3), keepdim=True) for x in batches]).mean((0, 2, 3))
    torch.testing.assert_close(first.bn.running_mean, seen)


def test_update_bn_leaves_frozen_norms_alone():
    network = network_with_history()
    norm = network.stem["0"].bn
    norm.frozen = True
    kept, others = copy.deepcopy(norm.state_dict()), statistics(network.cells)
    update_bn([batch(), batch()], network)
    assert_equal(norm.state_dict(), kept)
    assert all(not torch.equal(value, others[key]) for key, value in statistics(network.cells).items())


@pytest.mark.parametrize("use_buffers", [False, True])
def test_averaged_models(use_buffers):
    network = build(CONFIG).train()
    averaged = AveragedModel(network, use_buffers=use_buffers)
    stages = []
    for _ in range(2):
        step(network, batch())
        averaged.update_parameters(network)
        stages.append(copy.deepcopy(network.state_dict()))
    for key, value in averaged.module.state_dict().items():
        if use_buffers or not key.endswith(STATISTICS):
            torch.testing.assert_close(value, (stages[0][key] + stages[1][key]) / 2, msg=key)
        else:
            assert torch.equal(value, stages[1][key])  # the network's latest
    update_bn([batch(), batch()], averaged)
    x = batch()
    assert averaged.eval()(x).isfinite().all()
    fresh = build(CONFIG).eval()
    fresh.load_state_dict(averaged.module.state_dict())
    assert torch.equal(fresh(x), averaged(x))


@pytest.mark.parametrize("use_buffers", [False, True])
def test_an_average_that_was_measured_goes_on(use_buffers):
    """update_bn asks one of the two for its counters; buffers must still pair up."""
    network = build(CONFIG).train()
    averaged = AveragedModel(network, use_buffers=use_buffers)
    for _ in range(2):
        step(network, batch())
        averaged.update_parameters(network)
        update_bn([batch()], averaged)
    averaged.update_parameters(network)
    expected = None if use_buffers else statistics(network)
    if expected is not None:
        assert_equal(statistics(averaged.module), expected)
    assert averaged.eval()(batch()).isfinite().all()


# Recomputation in the backward pass


class Counting(nn.BatchNorm2d):
    """Somebody else's norm, with a buffer of its own that moves at every pass."""

    def __init__(self, channels):
        super().__init__(channels)
        self.register_buffer("passes", torch.zeros(()))

    def forward(self, x):
        if self.training:
            self.passes += 1
        return super().forward(x)


class Centred(nn.Module):
    """A norm that is no subclass of torch's."""

    def __init__(self, channels):
        super().__init__()
        self.register_buffer("running_mean", torch.zeros(channels))

    def forward(self, x):
        if not self.training:
            return x - self.running_mean[:, None, None]
        mean = x.mean((0, 2, 3))
        self.running_mean.lerp_(mean.detach(), 0.1)
        return x - mean[:, None, None]


def replaced(network, make):
    for chain in [module for module in network.modules() if isinstance(module, Chain)]:
        for name, module in list(chain.named_children()):
            if isinstance(module, BatchNorm):
                setattr(chain, name, make(module))
    return network


KINDS = {
    "ours": lambda network: network,
    "cumulative": lambda network: [setattr(norm, "momentum", None) for norm in norms_of(network)] and network,
    "sync": by_torch,
    "torch's": lambda network: replaced(network, torchs),
    "counting": lambda network: replaced(network, lambda norm: Counting(norm.num_features)),
    "not torch's": lambda network: replaced(network, lambda norm: Centred(norm.num_features)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_checkpointing_moves_what_a_norm_remembers_once(kind):
    x, ended = batch(), []
    for checkpointing in (False, True):
        torch.manual_seed(3)
        network = KINDS[kind](build(CONFIG)).train()
        network.checkpointing = checkpointing
        step(network, x)
        ended.append(dict(network.named_buffers()) | {f"{key}.grad": p.grad for key, p in network.named_parameters()})
    assert ended[0].keys() == ended[1].keys()
    for key, value in ended[0].items():
        torch.testing.assert_close(ended[1][key], value, msg=key)


class Saving(nn.Module):
    """What a user may put in a chain's place."""

    def __init__(self, chain):
        super().__init__()
        self.chain = chain

    def forward(self, state):
        return checkpoint(lambda x: self.chain(State(x)), state.raw, use_reentrant=False)


def test_a_users_own_checkpoint_around_a_part():
    """torch computes the part twice, and statistics move as its own batch norms' do; gradients are the same."""
    x, ended = batch(), []
    for own in (torchs, lambda norm: norm):
        for saving in (False, True):
            torch.manual_seed(3)
            network = replaced(build(CONFIG), own).train()
            if saving:
                side = network.cells.normal_0.blocks["0"]
                side.left = Saving(side.left)
            step(network, x)
            ended.append([p.grad for p in network.parameters()] + [norm.running_mean for norm in norms_of(network)])
    plain, saving, ours, ours_saving = ended
    gradients = len(list(build(CONFIG).parameters()))
    torch.testing.assert_close(ours, plain)
    torch.testing.assert_close(ours_saving, saving)
    torch.testing.assert_close(saving[:gradients], plain[:gradients])


# Frozen norms, and norms in eval mode


def frozen_network():
    network = network_with_history()
    for norm in norms_of(network.cells.normal_0):
        norm.frozen = True
    return network


def frozen_part(network):
    return copy.deepcopy(
        {key: value for key, value in statistics(network).items() if key.startswith("cells.normal_0.")}
    )


def test_frozen_norms_stay_frozen(tmp_path):
    network = frozen_network()
    kept, modes = frozen_part(network), []

    def still(*_):
        modes.append({norm.training for norm in norms_of(network.cells.normal_0)})
        assert all(norm.training for norm in norms_of(network.cells.normal_1))

    network.train()
    still()
    network(batch())
    calibrate(network, pictures())
    still()
    evaluate(network, pictures())
    still()
    task = Classify(pictures(), RECIPE, CONFIG.preprocess, pictures())
    seen = []

    def epoch_done(epoch):
        seen.append(task.evaluate(network))
        still()

    others = statistics(network.cells.normal_1)
    train(network, task, RECIPE, on_step=still, on_epoch=epoch_done)
    assert set(map(frozenset, modes)) == {frozenset({False})} and len(seen) == RECIPE.epochs
    assert_equal(frozen_part(network), kept)
    assert all(not torch.equal(value, others[key]) for key, value in statistics(network.cells.normal_1).items())
    assert not network.training


def test_a_network_in_eval_mode_trains_all_its_norms_but_the_frozen():
    network = frozen_network()
    kept, before = frozen_part(network), statistics(network)
    train(network, Classify(pictures(), RECIPE, CONFIG.preprocess), RECIPE)
    after = statistics(network)
    assert_equal(frozen_part(network), kept)
    assert {key for key in after if torch.equal(after[key], before[key])} == set(kept)


def test_a_norm_in_eval_mode_in_a_network_that_trains_stays_so():
    network = network_with_history().train()
    network.cells.normal_0.eval()
    kept = frozen_part(network)
    train(
        network,
        Classify(pictures(), RECIPE, CONFIG.preprocess),
        RECIPE,
        on_epoch=lambda _: calibrate(network, pictures()),
    )
    assert_equal(frozen_part(network), kept)


def test_calibrated_statistics_are_those_of_all_the_pictures():
    network = network_with_history()
    momenta = [norm.momentum for norm in norms_of(network)]
    calibrate(network, pictures(24), batch_size=7)
    first, images = network.stem["0"], pictures(24).images
    mean = first.conv(((images / 255) - 0.5) / 0.5).mean((0, 2, 3))
    torch.testing.assert_close(first.bn.running_mean, mean, rtol=1e-4, atol=1e-5)
    assert [norm.momentum for norm in norms_of(network)] == momenta
    assert not any(module.training for module in network.modules())


def test_a_calibration_that_breaks_off_leaves_modes_and_momenta():
    network = network_with_history().train()
    network.cells.normal_0.eval()
    modes, momenta = modes_of(network), [norm.momentum for norm in norms_of(network)]
    too_small = Pictures(torch.zeros(8, 3, 4, 4, dtype=torch.uint8), torch.zeros(8, dtype=torch.int64))
    with pytest.raises(nasnet_zoo.ZooError, match="8 x 8"):
        calibrate(network, too_small)
    assert modes_of(network) == modes and [norm.momentum for norm in norms_of(network)] == momenta


def test_nothing_is_measured_on_no_pictures():
    none = Pictures(torch.zeros(0, 3, 16, 16, dtype=torch.uint8), torch.zeros(0, dtype=torch.int64))
    for measure in (evaluate, calibrate):
        with pytest.raises(DataError, match="there is no picture"):
            measure(build(CONFIG), none)
    with pytest.raises(DataError, match="no picture to train on"):
        Classify(none, RECIPE, CONFIG.preprocess)


def modes_of(network):
    return {name: module.training for name, module in network.named_modules()}


@pytest.mark.parametrize("training", [False, True])
def test_eval_mode_puts_every_mode_back(training):
    network = frozen_network().train(training)
    network.cells.normal_1.eval()
    network.stem.train()
    before = modes_of(network)
    with eval_mode(network):
        assert not any(module.training for module in network.modules())
    assert modes_of(network) == before
    with pytest.raises(RuntimeError), eval_mode(network):
        raise RuntimeError
    assert modes_of(network) == before
