"""From a found cell to a network: the ladder, the choice, its command, and the re-ranking before it."""

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from toy_search import toy_run

import nasnet_zoo
from nasnet_zoo.arch.config import NetworkConfig
from nasnet_zoo.arch.cost import network_cost
from nasnet_zoo.arch.genotypes import GENOTYPES
from nasnet_zoo.errors import ConfigError, SearchError
from nasnet_zoo.search.children.base import ChildFailure
from nasnet_zoo.search.children.settings import CifarChildSettings
from nasnet_zoo.search.reranking import BEST_RERANKED, RERANK, distinct_best, rerank
from nasnet_zoo.search.rows import read_children
from nasnet_zoo.search.scaling import MAX_CELLS, Target, Variant, ladder, transfer
from nasnet_zoo.search.spaces.table import SPACES, get_space

NASNET_A = GENOTYPES["NASNet-A"]
CELL_SPACES = [name for name in SPACES if get_space(name).kind == "cell"]


HEADS = {32: (16, 16), 224: (14, 14), 299: (19, 19), 331: (21, 21)}  # TF-slim's auxiliary heads, by the picture's side


def measured(config) -> Variant:
    return Variant(config, config.scale.stages[0], config.scale.filters)


def published(name):
    """The zoo's config, with the auxiliary head that the paper trained the network with."""
    config = nasnet_zoo.info(name).config
    return replace(config, scale=replace(config.scale, aux_size=HEADS[config.preprocess.size[0]]))


@pytest.mark.parametrize(
    "name, cells, penultimate",
    [("nasnet-a-mobile", 4, 1056), ("nasnet-a-large", 6, 4032), ("nasnet-a-7@1920", 7, 1920)],
)
def test_the_papers_networks_follow_from_n_and_p(name, cells, penultimate):
    config = published(name)
    assert transfer(NASNET_A, Target(cells=cells, penultimate=penultimate), size=config.preprocess.size[0]) == config


@pytest.mark.parametrize(
    "name, targets",
    {
        "nasnet-a-mobile": [dict(multiply_adds=564e6), dict(parameters=5.3e6)],
        "nasnet-a-5@1536": [dict(multiply_adds=2.7e9), dict(parameters=12.3e6)],
        "nasnet-a-7@1920": [dict(multiply_adds=5.4e9), dict(parameters=24.7e6)],
        "nasnet-a-large": [dict(multiply_adds=23.8e9), dict(parameters=88.9e6)],
        "nasnet-a-cifar": [dict(multiply_adds=545e6), dict(parameters=3.35e6)],
        "nasnet-a-cifar-7@2304": [dict(multiply_adds=5.2e9), dict(parameters=32.7e6)],
    }.items(),
)
def test_the_papers_networks_of_nasnet_a_follow_from_their_costs(name, targets):
    config = published(name)
    stem = "cifar" if config.scale.stem == "cifar" else "imagenet"
    for target in targets:
        assert transfer(NASNET_A, Target(**target), stem=stem, size=config.preprocess.size[0]) == config


def test_beyond_the_papers_networks_proportions_stay_as_theirs():
    small = measured(transfer(NASNET_A, Target(parameters=1.5e6), stem="cifar"))
    large = measured(transfer(NASNET_A, Target(parameters=400e6), size=331))
    assert small.filters / small.cells == pytest.approx(32 / 6, abs=1)
    assert large.filters / large.cells == pytest.approx(28, abs=2)


@pytest.mark.parametrize("name", CELL_SPACES)
def test_random_cells_come_out_just_below_the_target(name):
    space = get_space(name)
    genotype = space.decode(space.sample(random.Random(3)))
    config = transfer(genotype, Target(multiply_adds=600e6))
    assert 0.95 * 600e6 <= measured(config).cost.multiply_adds <= 600e6
    assert NetworkConfig.from_json(json.loads(json.dumps(config.to_json()))) == config
    small = transfer(genotype, Target(multiply_adds=20e6, cells=1), size=64, num_classes=7)
    network = nasnet_zoo.create(small).eval()
    with torch.inference_mode():
        assert network(torch.zeros(1, 3, 64, 64)).shape == (1, 7)
    assert network.num_features == measured(small).penultimate
    assert sum(p.numel() for p in network.parameters()) == measured(small).cost.parameters


def test_the_table_in_the_docs_is_what_the_benchmark_measured():
    root = Path(__file__).parents[2]
    record = json.loads((root / "benchmarks" / "results" / "search_transfer.json").read_text())
    docs = (root / "docs" / "search.md").read_text(encoding="utf-8")
    assert record["spaces"].keys() == set(CELL_SPACES)
    for name, found in record["spaces"].items():
        networks = ", ".join(found["networks"][:4])
        assert f"| {name} | {found['least']:.1%} to {found['most']:.1%} | {networks}, ... |" in docs


@pytest.mark.parametrize("genotype", ["NASNet-A", "DARTS-V2"])
@pytest.mark.parametrize(("stem", "size"), [("imagenet", 96), ("imagenet", 131), ("cifar", 32), ("cifar", 17)])
def test_the_auxiliary_head_fits_the_maps_and_costs_nothing_but_training(genotype, stem, size):
    config = transfer(GENOTYPES[genotype], Target(multiply_adds=20e6, cells=1), stem=stem, size=size, num_classes=7)
    torch.manual_seed(0)
    network, heard = nasnet_zoo.create(config), []
    network.aux.pool.register_forward_hook(lambda module, inputs, output: heard.append(tuple(inputs[0].shape[2:])))
    logits, auxiliary = network(torch.randn(2, 3, size, size))
    assert logits.shape == auxiliary.shape == (2, 7)
    assert heard == [config.scale.aux_size]
    network.eval()(torch.randn(1, 3, size, size))
    assert len(heard) == 1
    counted = sum(value.numel() for name, value in network.named_parameters() if not name.startswith("aux."))
    assert network_cost(config).parameters == counted


@pytest.mark.parametrize(("stem", "size"), [("imagenet", 64), ("imagenet", 1024), ("cifar", 8), ("cifar", 66)])
def test_maps_that_are_too_small_or_too_large_for_an_auxiliary_head(stem, size):
    assert transfer(NASNET_A, Target(cells=1, penultimate=240), stem=stem, size=size).scale.aux_size is None


def test_without_an_auxiliary_head_it_is_the_same_network_and_takes_smaller_pictures():
    target = Target(multiply_adds=20e6, cells=1)
    plain, whole = (transfer(NASNET_A, target, stem="cifar", auxiliary=each) for each in (False, True))
    assert whole.scale.aux_size == (16, 16) and plain == replace(whole, scale=replace(whole.scale, aux_size=None))
    assert nasnet_zoo.create(plain)(torch.randn(2, 3, 16, 16)).shape == (2, 10)


def test_the_children_of_a_search_have_no_auxiliary_head():
    assert CifarChildSettings(filters=8, cells=1).network(NASNET_A, None).scale.aux_size is None


def test_every_rung_is_the_widest_that_fits():
    target = Target(multiply_adds=100e6)
    rungs = ladder(NASNET_A, target, size=96)
    assert [rung.cells for rung in rungs] == list(range(1, len(rungs) + 1)) and len(rungs) <= MAX_CELLS
    for rung in rungs:
        assert rung.cost.multiply_adds <= 100e6
        assert rung.memory > 4 * rung.cost.parameters
        scale = replace(rung.config.scale, filters=rung.filters + 1)
        if rung.filters + 1 != 64:  # there the stem changes too
            assert measured(replace(rung.config, scale=scale)).cost.multiply_adds > 100e6


def test_both_limits_hold_together():
    rung = measured(transfer(NASNET_A, Target(multiply_adds=600e6, parameters=2e6)))
    assert rung.cost.parameters <= 2e6 and rung.cost.multiply_adds <= 600e6


def test_cifar():
    config = transfer(NASNET_A, Target(cells=6, penultimate=768), stem="cifar")
    assert measured(config).cost.parameters == 3_346_538
    assert config.preprocess.size == (32, 32) and config.num_classes == 10


@pytest.mark.parametrize(
    "wrong, said",
    [
        (dict(), "give --max-madds"),
        (dict(cells=4), "both -n and -p"),
        (dict(multiply_adds=-1.0), "above zero"),
        (dict(cells=50, penultimate=10), "more than the 12"),
        (dict(penultimate=96, parameters=1e6), "goes with -n alone"),
    ],
)
def test_targets_that_make_no_sense(wrong, said):
    with pytest.raises(SearchError, match=said):
        Target(**wrong)


def test_targets_that_cannot_be_met():
    with pytest.raises(SearchError, match="the nearest is 1008"):
        transfer(NASNET_A, Target(cells=4, penultimate=1000))
    with pytest.raises(SearchError, match="no network of this cell fits; the smallest has"):
        transfer(NASNET_A, Target(parameters=1000))


class Longer:
    """A child whose longer training agrees with the search's rewards, or reverses them."""

    def __init__(self, sign: int) -> None:
        self.sign, self.calls = sign, 0

    def prepare(self, device: str) -> None:
        pass

    def __call__(self, architecture, seed):
        from toy_search import ToyChild

        self.calls += 1
        return {"accuracy": 0.5 + self.sign * 0.4 * ToyChild()(architecture, seed)["accuracy"]}


@pytest.mark.parametrize("sign", [1, -1])
def test_rerank_trains_the_best_and_says_how_well_they_were_ranked(tmp_path, sign):
    result = toy_run(tmp_path / "run", 40, keep_distinct=True)
    child = Longer(sign)
    found = rerank(tmp_path / "run", 4, epochs=3, child=child)
    assert child.calls == 4 and len(found.children) == 4
    accuracies = [entry["accuracy"] for entry in found.children]
    assert accuracies == sorted(accuracies, reverse=True)
    assert found.tau == pytest.approx(sign)
    best = json.loads((tmp_path / "run" / BEST_RERANKED).read_text())
    assert best["accuracy"] == accuracies[0]
    assert (best["child"] == result.best.child) == (sign == 1)
    again = Longer(sign)
    assert rerank(tmp_path / "run", 5, epochs=3, child=again).children and again.calls == 1  # the four are known
    assert rerank(tmp_path / "run", 2, epochs=3, child=again).children and again.calls == 1
    assert rerank(tmp_path / "run", 2, epochs=9, child=again).epochs == 9 and again.calls == 3
    assert rerank(tmp_path / "run", 5, epochs=3, child=again).children and again.calls == 3  # nothing was forgotten
    assert json.loads((tmp_path / "run" / RERANK.format(3)).read_text())["epochs"] == 3


class Seeds(Longer):
    """A child that remembers the seeds that it was trained with."""

    def __init__(self) -> None:
        super().__init__(1)
        self.seeds = []

    def __call__(self, architecture, seed):
        self.seeds.append(seed)
        return super().__call__(architecture, seed)


def test_rerank_trains_with_fresh_seeds_that_are_the_same_again(tmp_path):
    toy_run(tmp_path / "run", 40, keep_distinct=True)
    in_search = {row["child"]: row["seed"] for row in read_children(tmp_path / "run")}
    child, again, longer = Seeds(), Seeds(), Seeds()
    found = rerank(tmp_path / "run", 4, epochs=3, child=child)
    assert {entry["seed"] for entry in found.children} == {*child.seeds} and len({*child.seeds}) == 4
    assert {*in_search.values()}.isdisjoint(child.seeds)
    (tmp_path / "run" / RERANK.format(3)).unlink()
    rerank(tmp_path / "run", 4, epochs=3, child=again)
    rerank(tmp_path / "run", 4, epochs=9, child=longer)
    assert again.seeds == child.seeds and {*longer.seeds}.isdisjoint(child.seeds)


def test_results_of_before_seeds_were_kept_are_taken_as_they_are(tmp_path):
    toy_run(tmp_path / "run", 40, keep_distinct=True)
    before = rerank(tmp_path / "run", 3, epochs=3, child=Longer(1))
    path = tmp_path / "run" / RERANK.format(3)
    value = json.loads(path.read_text())
    for entry in value["children"]:
        del entry["seed"]
    path.write_text(json.dumps(value))
    child = Longer(1)
    after = rerank(tmp_path / "run", 4, epochs=3, child=child)
    assert child.calls == 1
    accuracies = {entry["child"]: entry["accuracy"] for entry in after.children}
    assert all(accuracies[entry["child"]] == entry["accuracy"] for entry in before.children)


def test_a_child_that_fails_in_the_longer_training_is_named_and_the_others_ranked(tmp_path):
    toy_run(tmp_path / "run", 40, keep_distinct=True)

    class Failing(Longer):
        def __call__(self, architecture, seed):
            metrics = super().__call__(architecture, seed)
            if self.calls == 2:
                raise ChildFailure("nan", "the loss of epoch 3 is nan")
            return metrics

    child = Failing(1)
    found = rerank(tmp_path / "run", 4, epochs=3, child=child)
    assert len(found.children) == 3 and list(found.failed.values()) == ["nan: the loss of epoch 3 is nan"]
    found = rerank(tmp_path / "run", 4, epochs=3, child=child)
    assert len(found.children) == 4 and not found.failed and child.calls == 5


def test_one_cell_cannot_be_ranked(tmp_path):
    toy_run(tmp_path / "run", 40)
    with pytest.raises(SearchError, match="take at least two"):
        rerank(tmp_path / "run", 1, epochs=1, child=Longer(1))


@pytest.mark.parametrize(("stem", "size", "least"), [("imagenet", 31, 32), ("cifar", 7, 8)])
def test_pictures_that_the_stem_cannot_take(stem, size, least):
    with pytest.raises(SearchError, match=f"at least {least} pixels, not {size}"):
        transfer(GENOTYPES["NASNet-A"], Target(cells=1, penultimate=240), stem=stem, size=size)


def test_rerank_of_too_little(tmp_path):
    toy_run(tmp_path / "run", 1)
    with pytest.raises(SearchError, match="at least two"):
        rerank(tmp_path / "run", 3, epochs=1, child=Longer(1))


def test_rerank_of_more_than_there_are(tmp_path):
    toy_run(tmp_path / "run", 4, keep_distinct=True)
    child = Longer(1)
    with pytest.raises(SearchError, match="has 4 distinct cells with a result, fewer than the 5"):
        rerank(tmp_path / "run", 5, epochs=1, child=child)
    assert child.calls == 0


def test_every_cell_is_checked_before_the_first_is_trained(tmp_path):
    toy_run(tmp_path / "run", 10, keep_distinct=True)
    child, checked = Longer(1), []

    def check(architecture):
        checked.append(architecture)
        if len(checked) == 3:
            raise SearchError("the third does not fit")

    with pytest.raises(SearchError, match="the third"):
        rerank(tmp_path / "run", 3, epochs=1, child=child, check=check)
    assert child.calls == 0
    assert rerank(tmp_path / "run", 3, epochs=1, child=child, check=checked.append).children
    assert len(checked) == 6 and child.calls == 3


def test_distinct_best_takes_each_architecture_once(tmp_path):
    from nasnet_zoo.search.history import read_history

    toy_run(tmp_path / "run", 40)
    history = read_history(tmp_path / "run")
    best = distinct_best(history.finished, 5)
    assert len({record.hash for record in best}) == len(best)
    assert [record.reward for record in best] == sorted((record.reward for record in best), reverse=True)
    assert best[0].reward == max(record.reward for record in history.finished)


def test_only_cells_that_can_be_built_are_transferred(tmp_path):
    from nasnet_zoo.lookup import find_architecture

    path = tmp_path / "best.json"
    path.write_text(json.dumps({"kind": None, "architecture": "|a~0|", "tokens": [], "space": "nasbench201"}))
    with pytest.raises(ConfigError, match="is no network that could be built"):
        find_architecture(str(path))


@pytest.mark.parametrize(
    ("source", "style"),
    [("darts-v2-mobile", "nds"), ("DARTS-V2", "nds"), ("nasnet-a-mobile", "slim"), ("NASNet-A", "slim")],
)
def test_a_cell_keeps_the_rules_of_its_family(source, style):
    from nasnet_zoo.lookup import find_architecture

    assert find_architecture(source).architecture.style == style
