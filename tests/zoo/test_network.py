import copy
import json
import math
import pickle
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from nasnet_zoo.arch.cells import CellScale
from nasnet_zoo.arch.config import NetworkConfig
from nasnet_zoo.arch.cost import network_cost
from nasnet_zoo.arch.genotype import Block, Cell, Edge, Genotype
from nasnet_zoo.arch.genotypes import DARTS_V2, GENOTYPES, NASNET_A, PNASNET_5
from nasnet_zoo.arch.ops import COMBINES
from nasnet_zoo.arch.preprocess import Preprocess
from nasnet_zoo.errors import ConfigError
from nasnet_zoo.networks.build import build
from nasnet_zoo.networks.layers import BatchNorm, FactorizedReduction, drop_path, initialize

PREPROCESS = Preprocess((32, 32))
SCALES = {
    "cifar": CellScale("cifar", 6, 4, (1, 1, 1)),
    "cifar-nds": CellScale("cifar", 6, 4, (1, 1, 1), bn_eps=1e-5),
    "imagenet": CellScale("imagenet", 4, 8, (1, 1, 1), skip_reduction_input=True),
    "imagenet-nds": CellScale("imagenet-nds", 6, 4, (1, 1, 1)),
}
STRIDES = {"cifar": (1, 2, 4), "imagenet": (2, 4, 8, 16, 32), "imagenet-nds": (4, 8, 16, 32)}


def config(genotype=NASNET_A, scale=SCALES["cifar"], num_classes=10, **options):
    if scale in (SCALES["cifar-nds"], SCALES["imagenet-nds"]):
        genotype = replace(genotype, style="nds")
    return NetworkConfig(genotype, scale, PREPROCESS, num_classes, **options)


def separate_genotype():
    """A genotype of NASNet-B's form: four states in, four out, nothing concatenated, every way to combine."""
    ops = ("sep_conv_3x3", "identity", "avg_pool_3x3", "conv_1x1")
    blocks = [
        Block(Edge(i, ops[i]), Edge((i + 1) % 4 if i < 3 else 4, ops[(i + 1) % 4]), combine)
        for i, combine in enumerate(COMBINES)
    ]
    cell = Cell(tuple(blocks), (4, 7, 6, 5), inputs=4, output="separate")
    return Genotype(cell, cell)


def every_combine():
    """A genotype of NASNet-C's form: one map, with each way to combine."""
    blocks = tuple(Block(Edge(i, "sep_conv_3x3"), Edge(0, "identity"), combine) for i, combine in enumerate(COMBINES))
    cell = Cell(blocks, (3, 4, 5))
    return Genotype(cell, cell)


def one_input():
    cell = Cell((Block(Edge(0, "conv_3x3"), Edge(0, "identity")),), (1, 0), inputs=1)
    return Genotype(cell, cell)


def without_blocks_of_its_own():
    """A reduction cell that hands on both of its inputs, which must be halved on the way."""
    normal = Cell((Block(Edge(0, "zero"), Edge(1, "identity")),), (0, 1, 2))
    return Genotype(normal, normal)


FORMS = {
    **GENOTYPES,
    "separate": separate_genotype(),
    "every combine": every_combine(),
    "one input": one_input(),
    "inputs handed on": without_blocks_of_its_own(),
}
every_form = pytest.mark.parametrize("genotype", FORMS.values(), ids=FORMS)
every_scale = pytest.mark.parametrize("scale", SCALES.values(), ids=SCALES)


def randomized(network):
    """Batch norms as after a training, so that nothing is hidden behind ones and zeros."""
    for module in network.modules():
        if isinstance(module, BatchNorm):
            for value in (module.weight.data, module.running_var):
                value.uniform_(0.5, 1.5)
            for value in (module.bias.data, module.running_mean):
                value.normal_(0, 0.1)
    return network


def tiny(genotype=NASNET_A, scale=SCALES["cifar"], **options):
    return randomized(build(config(genotype, scale, **options))).eval()


def same(a, b, tolerance=1e-5):
    assert a.shape == b.shape
    assert (a - b).abs().max() <= tolerance * b.abs().max()


# Every genotype in every scale


@every_form
@every_scale
@torch.no_grad()
def test_shapes(genotype, scale):
    network = tiny(genotype, scale)
    assert network.feature_strides == STRIDES[scale.stem]
    least = network.minimum_size
    assert least == (8 if scale.stem == "cifar" else 32)
    for height, width in [(least, least), (least + 1, least + 14), (51, 38)]:
        x = torch.randn(1, 3, height, width)
        logits = network(x)
        assert logits.shape == (1, 10) and logits.isfinite().all()
        features = network.features(x)
        assert tuple(f.shape[1] for f in features) == network.feature_channels
        if scale.stem == "imagenet":  # the first convolution is not padded
            height, width = height - 2, width - 2
        for stride, f in zip(network.feature_strides, features, strict=True):
            assert f.shape[2:] == (math.ceil(height / stride), math.ceil(width / stride))
    assert network.feature_channels[-1] == network.num_features == network.classifier.in_features
    last = features[-1] if network.config.architecture.style == "nds" else features[-1].relu()
    same(network.classifier(last.mean((2, 3))), network(x))


@every_form
@every_scale
def test_cost_is_what_the_network_has_and_does(genotype, scale):
    size = (33, 46)
    network = build(replace(config(genotype, scale), num_classes=7), empty=True).eval()
    cost = network_cost(network.config, size)
    assert cost.parameters == sum(p.numel() for p in network.parameters())
    statistics = [b for name, b in network.named_buffers() if name.endswith(("running_mean", "running_var"))]
    assert cost.bn_statistics == sum(b.numel() for b in statistics)
    border = 0  # a factorized reduction's second path computes a row and a column more, and drops them

    def count_border(module, inputs, output) -> None:
        nonlocal border
        height, width = output.shape[2:]
        border += module.path_2.weight.numel() * (height + width + 1)

    for module in network.modules():
        if isinstance(module, FactorizedReduction):
            module.register_forward_hook(count_border)
    with FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 3, *size, device="meta"))
    counted = counter.get_flop_counts()["Global"]
    assert {op.__name__.split(".")[0] for op in counted} <= {"convolution", "addmm"}
    assert (cost.multiply_adds + border) * 2 == sum(counted.values())


# The published numbers

MOBILE = CellScale("imagenet", 32, 44, (4, 4, 4))
LARGE = CellScale("imagenet", 96, 168, (6, 6, 6), skip_reduction_input=True)
CIFAR = CellScale("cifar", 96, 32, (6, 6, 6), bn_eps=1e-5)
DARTS_CIFAR = CellScale("cifar", 108, 36, (6, 6, 6), bn_eps=1e-5)
PUBLISHED = {
    "mobile": (NASNET_A, replace(MOBILE, aux_size=(14, 14)), 1000, 224, 5_289_978, 36_738, 564),
    "large": (NASNET_A, LARGE, 1000, 331, 88_753_150, 196_668, 23_800),
    "cifar": (NASNET_A, CIFAR, 10, 32, 3_346_538, None, None),
    "darts": (DARTS_V2, DARTS_CIFAR, 10, 32, 3_349_342, None, None),
}


@pytest.mark.parametrize(
    "genotype, scale, classes, size, parameters, statistics, mega", PUBLISHED.values(), ids=PUBLISHED
)
def test_published_numbers(genotype, scale, classes, size, parameters, statistics, mega):
    cost = network_cost(config(genotype, scale, classes), (size, size))
    assert cost.parameters == parameters
    assert statistics is None or cost.bn_statistics == statistics
    if mega:
        step = 100 if mega > 10_000 else 1  # the paper's own rounding
        assert abs(cost.multiply_adds / 1e6 - mega) <= step / 2
    network = build(config(genotype, scale, classes), empty=True)
    assert parameters == sum(p.numel() for name, p in network.named_parameters() if not name.startswith("aux."))


# Keys


def test_keys_and_shapes_never_change(golden):
    scale = replace(SCALES["imagenet"], aux_size=(14, 14))
    state = build(config(scale=scale), empty=True).state_dict()
    expected = json.loads((golden / "tiny-nasnet-a-keys.json").read_text())
    assert {key: list(value.shape) for key, value in state.items()} == expected


def test_the_same_config_gives_the_same_keys_in_the_same_order():
    a, b = (build(config(scale=SCALES["imagenet"])).state_dict() for _ in range(2))
    assert [(key, value.shape) for key, value in a.items()] == [(key, value.shape) for key, value in b.items()]


def test_progress_is_no_part_of_the_weights():
    assert not any("progress" in key or "tracked" in key for key in build(config()).state_dict())


# Wiring


def test_the_two_skip_wirings_share_their_keys_but_not_their_function():
    scale = CellScale("imagenet", 4, 8, (3, 3, 3))
    near = tiny(scale=scale)
    far = build(config(scale=replace(scale, skip_reduction_input=True))).eval()
    far.load_state_dict(near.state_dict())
    x = torch.randn(1, 3, 48, 48)
    assert (near(x) - far(x)).abs().max() > 1e-3 * near(x).abs().max()


def map_of(plan, step):
    """Which cell, or stem, a step belongs to."""
    return "stem" if step < 0 or plan.steps[step].name.startswith("stem") else plan.steps[step].name.split(".")[1]


def previous_inputs(scale, genotype=NASNET_A):
    """Which map each cell reads as its previous input: a cell's name, or stem."""
    plan = config(genotype, scale).plan
    cells = dict.fromkeys(step.name.split(".")[1] for step in plan.steps if step.name.startswith("cells."))
    found = {}
    for cell in cells:
        outside = [
            map_of(plan, read)
            for step in plan.steps
            if step.name.startswith(f"cells.{cell}.")
            for read in step.inputs
            if map_of(plan, read) != cell
        ]
        order = list(dict.fromkeys(["stem", *cells]))
        found[cell] = min(outside, key=order.index)
    return found


def test_previous_inputs_of_mobile_and_large():
    scale = CellScale("imagenet", 4, 8, (2, 2))
    expected = {
        "stem_0": "stem",
        "stem_1": "stem",
        "normal_0": "stem_0",
        "normal_1": "stem_1",
        "reduction_0": "normal_0",
        "normal_2": "normal_1",
        "normal_3": "reduction_0",
    }
    assert previous_inputs(scale) == expected
    assert previous_inputs(replace(scale, skip_reduction_input=True)) == expected | {"normal_2": "normal_0"}


def test_previous_inputs_of_cifar():
    expected = {"normal_0": "stem", "normal_1": "stem", "reduction_0": "normal_0", "normal_2": "normal_1"}
    assert previous_inputs(CellScale("cifar", 4, 4, (2, 1))) == expected


def test_separate_outputs_are_the_next_cells_inputs():
    network = build(config(separate_genotype(), CellScale("cifar", 6, 4, (2,))))
    plan = network.plan
    read = [r for step in plan.steps if step.name.startswith("cells.normal_1.") for r in step.inputs]
    first = [index for index, step in enumerate(plan.steps) if step.name.startswith("cells.normal_0.blocks")]
    joined = [i for i in first if plan.steps[i].name.endswith((".joined", ".combine"))]
    handed = sorted({r for r in read if r <= first[-1]})
    assert len(handed) == 4 and set(handed) <= set(joined)
    assert network.num_features == 16


@pytest.mark.parametrize("name", ["separate", "every combine", "one input", "inputs handed on"])
@every_scale
def test_other_forms_train_a_step(name, scale):
    network = build(config(FORMS[name], scale)).train()
    x, target = torch.randn(4, 3, 48, 48), torch.arange(4)
    before = F.cross_entropy(network(x), target)
    before.backward()
    read = [p for p in network.parameters() if p.grad is not None]
    assert len(read) > 10 and all(p.grad.isfinite().all() for p in read)
    torch.nn.utils.clip_grad_norm_(network.parameters(), 1e-2)
    torch.optim.SGD(network.parameters(), lr=1).step()
    assert F.cross_entropy(network(x), target) < before


def test_the_smallest_map_is_large_enough_for_instance_norm():
    """minimum_size must hold for every genotype: an instance norm cannot take a map of one pixel."""
    for scale in (SCALES["imagenet"], CellScale("cifar", 6, 4, (1,) * 5)):
        network = tiny(every_combine(), scale)
        assert network(torch.randn(1, 3, network.minimum_size, network.minimum_size)).isfinite().all()


# Inputs


@pytest.mark.parametrize(
    "shape", [(3, 32, 32), (1, 1, 32, 32), (1, 4, 32, 32), (1, 32, 32, 3), (1, 3, 31, 32), (1, 3, 32, 31), (1, 3, 32)]
)
def test_wrong_inputs_are_refused(shape):
    network = tiny(scale=SCALES["imagenet"])
    for call in (network, network.features):
        with pytest.raises(ConfigError, match="32 x 32") as error:
            call(torch.zeros(shape))
        assert str(tuple(shape)) in str(error.value)


@pytest.mark.parametrize("in_channels", [1, 5])
@every_scale
def test_other_numbers_of_channels(in_channels, scale):
    network = tiny(scale=scale, in_channels=in_channels)
    assert network(torch.randn(2, in_channels, 32, 32)).shape == (2, 10)
    assert network_cost(network.config, (32, 32)).parameters == sum(p.numel() for p in network.parameters())
    with pytest.raises(ConfigError, match=f"batch, {in_channels}"):
        network(torch.zeros(1, 3, 32, 32))


@every_scale
@torch.no_grad()
def test_each_picture_is_seen_by_itself(scale):
    network = tiny(scale=scale)
    x = torch.randn(3, 3, 35, 40)
    same(torch.cat([network(one) for one in x.split(1)]), network(x))


@pytest.mark.parametrize(
    "genotype", [NASNET_A, DARTS_V2, separate_genotype()], ids=["NASNet-A", "DARTS-V2", "separate"]
)
@every_scale
@torch.no_grad()
def test_channels_last_is_the_same(genotype, scale):
    network = tiny(genotype, scale)
    x = torch.randn(2, 3, 37, 33)
    expected = network(x)
    network = network.to(memory_format=torch.channels_last)
    same(network(x.to(memory_format=torch.channels_last)), expected)


@torch.no_grad()
def test_evaluation_leaves_no_trace():
    network, x = tiny(), torch.randn(2, 3, 16, 16)
    before = copy.deepcopy(network.state_dict())
    first, kept = network(x), x.clone()
    assert torch.equal(network(x), first) and torch.equal(x, kept)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


# Drop path


def drop_path_v3(index, cells, progress, keep):
    """TF-slim's formula, version 3."""
    by_depth = 1 - (index + 1) / cells * (1 - keep)
    return 1 - min(1, progress) * (1 - by_depth)


@pytest.mark.parametrize("scale, cells", [(SCALES["cifar"], 5), (SCALES["imagenet"], 7)], ids=["cifar", "imagenet"])
@pytest.mark.parametrize("progress", [0.0, 0.3, 1.0, 1.5])
def test_drop_path_schedule(scale, cells, progress):
    network = build(config(scale=scale)).train()
    network.regularize(drop_path_keep=0.6, dropout=0.0)
    network.progress.fill_(progress)
    shares = dict.fromkeys(step.drop_path for step in network.plan.steps if step.drop_path)
    assert len(shares) == cells
    for index, share in enumerate(shares):
        expected = drop_path_v3(index, cells, progress, 0.6)
        assert float(network.keep_probability(share)) == pytest.approx(expected, abs=1e-6)


def test_drop_path_drops_whole_examples_and_keeps_the_expectation():
    x = torch.rand(20_000, 2, 2, 1) + 1
    y = drop_path(x, torch.tensor(0.7))
    dropped = (y == 0).all((1, 2, 3))
    assert torch.equal(dropped, (y == 0).any(1).any(1).any(1))
    same(y[~dropped], x[~dropped] / 0.7)
    assert dropped.float().mean() == pytest.approx(0.3, abs=0.02)
    assert y.mean() == pytest.approx(float(x.mean()), rel=0.02)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("keep", [1.0, 0.999, 0.7, 0.3])
def test_a_path_is_dropped_or_scaled_by_one_over_keep_in_every_precision(dtype, keep):
    torch.manual_seed(0)
    scale = (torch.ones((), dtype=dtype) / torch.tensor(keep, dtype=dtype)).item()
    found = drop_path(torch.ones(50_000, 1, 1, 1, dtype=dtype), torch.tensor(keep)).float().unique(return_counts=True)
    counts = dict(zip(found[0].tolist(), found[1].tolist()))
    assert counts.keys() == ({scale} if keep == 1 else {0.0, scale})
    assert scale == pytest.approx(1 / keep, rel=torch.finfo(dtype).eps)
    deviation = (keep * (1 - keep) / 50_000) ** 0.5
    assert counts.get(0.0, 0) / 50_000 == pytest.approx(1 - keep, abs=4 * deviation)


def test_the_largest_number_that_can_be_drawn_doubles_no_path(monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda *size, **options: torch.full(size, 1 - 2.0**-24))
    for keep in (1.0, 1 - 2.0**-24):
        assert drop_path(torch.ones(1, 1, 1, 1), torch.tensor(keep)).item() == pytest.approx(1, abs=1e-6)


def test_drop_path_draws_what_tf_slims_formula_draws():
    x = torch.randn(1000, 2, 1, 1)
    for keep in torch.tensor([0.05, 0.3, 0.6, 0.95]):
        torch.manual_seed(1)
        expected = x / keep * torch.floor(keep + torch.rand(1000, 1, 1, 1))
        torch.manual_seed(1)
        assert torch.equal(drop_path(x, keep), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_drop_path_is_scheduled_as_finely_in_half_precision(dtype):
    network = build(config()).train().to(dtype)
    network.regularize(drop_path_keep=0.99, dropout=0.0)
    network.progress.fill_(0.25)
    expected = [drop_path_v3(index, 5, 0.25, 0.99) for index in range(5)]
    shares = dict.fromkeys(step.drop_path for step in network.plan.steps if step.drop_path)
    assert [float(network.keep_probability(share)) for share in shares] == pytest.approx(expected, abs=1e-6)


def with_drop_path(genotype=NASNET_A, keep=0.5, **options):
    network = randomized(build(config(genotype, **options))).train()
    network.drop_path_keep = keep
    for module in network.modules():
        if isinstance(module, BatchNorm):
            module.eval()  # so that only drop path is random, and examples do not see each other
    return network


def test_drop_path_follows_the_progress_in_place():
    network, x = with_drop_path(), torch.randn(4, 3, 16, 16)
    without = copy.deepcopy(network)
    without.drop_path_keep = 1.0
    assert network.progress.shape == () and isinstance(network.progress, torch.Tensor)
    network.progress.zero_()
    assert torch.equal(network(x), without(x))
    network.progress.fill_(1.0)
    a, b = network(x), network(x)
    assert not torch.equal(a, without(x)) and not torch.equal(a, b)


def test_drop_path_is_off_in_evaluation():
    network, x = with_drop_path().eval(), torch.randn(4, 3, 16, 16)
    assert torch.equal(network(x), network(x))


def test_drop_path_spares_identities(monkeypatch):
    """Of NASNet-A's ten operations a normal cell has two identities; a pool is dropped, an identity is not."""
    seen = []
    monkeypatch.setattr("nasnet_zoo.networks.planned.drop_path", lambda x, keep: seen.append(float(keep)) or x)
    network = with_drop_path(scale=CellScale("cifar", 6, 4, (2, 1)))
    network(torch.randn(1, 3, 16, 16))
    paths = [8, 8, 9, 8]  # normal, normal, reduction, normal
    expected = [drop_path_v3(cell, 4, 1, 0.5) for cell, count in enumerate(paths) for _ in range(count)]
    assert seen == pytest.approx(expected, abs=1e-6)


def test_identities_alone_are_never_dropped():
    cell = Cell((Block(Edge(0, "identity"), Edge(1, "identity")),), (2,))
    network, x = with_drop_path(Genotype(cell, cell), keep=0.1), torch.randn(8, 3, 16, 16)
    assert torch.equal(network(x), network(x))


def test_dropout_is_for_the_recipe():
    network, x = tiny().train(), torch.randn(4, 3, 16, 16)
    assert torch.equal(network(x), network(x))
    network.dropout.p = 0.5
    assert not torch.equal(network(x), network(x))


# Gradient checkpointing


def one_step(checkpointing, keep, aux_size=(16, 16)):
    torch.manual_seed(3)
    network = build(config(scale=replace(SCALES["cifar"], aux_size=aux_size))).train()
    network.checkpointing, network.drop_path_keep = checkpointing, keep
    x = torch.randn(4, 3, 32, 32)
    logits, aux = network(x)
    target = torch.arange(4)
    (F.cross_entropy(logits, target) + 0.4 * F.cross_entropy(aux, target)).backward()
    gradients = {name: p.grad for name, p in network.named_parameters()}
    return network, logits.detach(), gradients


@pytest.mark.parametrize("keep", [1.0, 0.5])
def test_checkpointing_changes_nothing_but_memory(keep):
    plain, logits, gradients = one_step(False, keep)
    saving, logits_2, gradients_2 = one_step(True, keep)
    assert torch.equal(logits, logits_2)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradients_2[name], gradient, msg=name)
    for (key, value), other in zip(plain.state_dict().items(), saving.state_dict().values(), strict=True):
        assert torch.equal(value, other), key  # running statistics moved once
    moved = [value for key, value in saving.state_dict().items() if key.endswith("running_mean")]
    assert all(value.abs().max() > 0 for value in moved)


def test_checkpointing_runs_every_cell_twice():
    counts = {}
    for checkpointing in (False, True):
        torch.manual_seed(3)
        network = build(config()).train()
        network.checkpointing = checkpointing
        calls = []
        for name, cell in network.cells.items():
            cell.inputs["0"].register_forward_hook(lambda *_, name=name, calls=calls: calls.append(name))
        network(torch.randn(2, 3, 16, 16)).sum().backward()
        counts[checkpointing] = len(calls)
    assert counts == {False: 5, True: 10}


def test_checkpointing_in_evaluation():
    network, x = tiny(), torch.randn(2, 3, 16, 16)
    expected = network(x)
    network.checkpointing = True
    assert torch.equal(network(x), expected)


# The auxiliary head


@pytest.mark.parametrize(
    "stem, size, aux_size, kernel",
    [("cifar", 32, (16, 16), 4), ("imagenet", 224, (14, 14), 4), ("imagenet", 331, (21, 21), 6)],
)
def test_auxiliary_head(stem, size, aux_size, kernel):
    scale = replace(SCALES[stem], aux_size=aux_size)
    network = build(config(scale=scale)).train()
    assert network.aux.reduce.conv.weight.shape == (768, 128, kernel, kernel)
    assert [network.plan.steps[i].name for i in network.plan.auxiliary.inputs] == ["cells.normal_1"]  # before the last
    maps = []
    network.aux.reduce.conv.register_forward_hook(lambda module, inputs, output: maps.append(output.shape[2:]))
    logits, aux = network(torch.randn(2, 3, size, size))
    assert logits.shape == aux.shape == (2, 10)
    assert maps == [(1, 1)]
    assert isinstance(network.eval()(torch.randn(1, 3, 32, 32)), torch.Tensor)
    assert len(maps) == 1  # not even computed


def test_auxiliary_head_is_not_counted():
    scale = replace(SCALES["cifar"], aux_size=(16, 16))
    assert network_cost(config(scale=scale), (32, 32)) == network_cost(config(), (32, 32))


# Life of a network


def test_reset_classifier():
    network = build(config(scale=replace(SCALES["cifar"], aux_size=(16, 16)), labels="cifar10")).double()
    body = network.cells.normal_0.blocks["0"].left.pointwise_1.weight
    network.reset_classifier(4)
    assert network.config.num_classes == 4 and network.config.labels is None
    assert network.classifier.weight.dtype == torch.float64
    logits, aux = network.train()(torch.randn(2, 3, 32, 32, dtype=torch.float64))
    assert logits.shape == aux.shape == (2, 4)
    assert network.cells.normal_0.blocks["0"].left.pointwise_1.weight is body
    assert set(network.state_dict()) == set(build(network.config, empty=True).state_dict())
    with pytest.raises(ConfigError, match="num_classes"):
        network.reset_classifier(0)
    assert network.classifier.out_features == network.config.num_classes == 4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_new_classifier_in_half_precision_is_the_rounded_one_of_float32(dtype):
    classifiers = []
    for network in (build(config()), build(config()).to(dtype)):
        torch.manual_seed(5)
        network.reset_classifier(4)
        classifiers.append(network.classifier.weight)
    assert classifiers[1].dtype == dtype and torch.equal(classifiers[1], classifiers[0].to(dtype))


@every_scale
def test_an_empty_network_takes_its_weights_by_assignment(scale):
    full = tiny(scale=scale)
    empty = build(config(scale=scale), empty=True)
    assert all(value.is_meta for value in empty.state_dict().values())
    empty.load_state_dict(full.state_dict(), assign=True)
    assert not any(value.is_meta for value in [*empty.parameters(), *empty.buffers()])
    x = torch.randn(1, 3, 32, 32)
    assert torch.equal(empty.eval()(x), full(x))
    empty.train().drop_path_keep = 0.5
    assert empty(torch.randn(2, 3, 64, 64)).isfinite().all()  # `progress` is there as well


@pytest.mark.parametrize("again", [copy.deepcopy, lambda n: pickle.loads(pickle.dumps(n))], ids=["deepcopy", "pickle"])
@pytest.mark.parametrize("name", ["NASNet-A", "AmoebaNet-D", "separate"])
def test_copies(again, name):
    network, x = tiny(FORMS[name]), torch.randn(1, 3, 16, 16)
    other = again(network)
    assert other.config == network.config
    assert torch.equal(other(x), network(x))
    other.classifier.weight.data.zero_()
    other.progress.zero_()
    assert network.classifier.weight.abs().max() > 0 and network.progress == 1


def test_half_precision():
    network = tiny().bfloat16()
    assert network(torch.randn(2, 3, 16, 16).bfloat16()).dtype == torch.bfloat16
    network.train().drop_path_keep = 0.5
    assert network(torch.randn(2, 3, 16, 16).bfloat16()).dtype == torch.bfloat16


def test_fresh_weights_are_slims():
    """Truncated normal with variance 2 / fan-out, fan-out counting a depthwise convolution's pixels only."""
    network = torch.nn.Sequential(
        torch.nn.Conv2d(64, 128, 3), torch.nn.Conv2d(900, 900, 5, groups=900), torch.nn.Linear(30_000, 10)
    )
    initialize(network)
    for conv, fan_out in ((network[0], 128 * 9), (network[1], 25)):
        std = (2 / fan_out) ** 0.5
        assert conv.weight.std().item() == pytest.approx(std, rel=0.02)
        assert conv.weight.abs().max() <= 2 * std / 0.8796
    assert network[2].weight.std().item() == pytest.approx(30_000**-0.5, rel=0.02)
    assert network[2].bias.abs().max() == 0


def test_fresh_weights_depend_on_the_seed_only():
    torch.manual_seed(5)
    a = build(config())
    torch.manual_seed(5)
    b = build(config())
    c = build(config())
    assert torch.equal(a.classifier.weight, b.classifier.weight)
    assert not torch.equal(a.classifier.weight, c.classifier.weight)


ONE_CELL = CellScale("cifar", 6, 4, (1,))
STRIDED = (("sep_conv_3x3", "identity"), ("max_pool_3x3", "avg_pool_3x3"))


def test_compile():
    network, x = tiny(PNASNET_5, ONE_CELL), torch.randn(2, 3, 9, 12)
    compiled = torch.compile(network, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        same(compiled(x), network(x))


def test_one_compiled_network_sees_odd_and_even_sizes():
    """In the reduction is every kind of operation whose padding depends on whether a side is odd."""
    first, second = (Block(Edge(0, a), Edge(1, b), "add") for a, b in STRIDED)
    cell = Cell((first, second), (2, 3))
    plain = Cell((Block(Edge(0, "identity"), Edge(1, "identity"), "add"),), (2,))
    network = tiny(Genotype(plain, cell), CellScale("cifar", 4, 4, (1, 1)))
    torch._dynamo.reset()
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    with torch.no_grad():
        for side in (10, 13, 14, 20):
            x = torch.randn(1, 3, side, 16)
            same(compiled(x), network(x))


def test_a_compiled_training_step_follows_the_progress():
    """The progress is an input of the graph, not a constant of it: one compilation serves the whole training."""
    network = with_drop_path(scale=ONE_CELL)
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph

    compiled, x = torch.compile(network, backend=backend, fullgraph=True), torch.randn(4, 3, 8, 8)
    network.progress.zero_()
    still = compiled(x)
    assert torch.equal(compiled(x), still)
    network.progress.fill_(1.0)
    assert not torch.equal(compiled(x), still)
    assert len(graphs) == 1


@pytest.mark.parametrize("scale", [ONE_CELL, CellScale("cifar", 6, 4, (1, 1))], ids=["one stage", "two stages"])
def test_export_with_a_dynamic_batch(scale):
    network = tiny(scale=scale)
    exported = torch.export.export(
        network, (torch.randn(2, 3, 13, 16),), dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=64)},)
    )
    for batch in (1, 2, 5):
        x = torch.randn(batch, 3, 13, 16)
        same(exported.module()(x), network(x))
