"""benchmarks/transfer_study.py: what is compared costs the same, and its table says what was measured."""

from dataclasses import replace

import pytest
import torch
from common import write
from transfer_study import (
    BUDGETS,
    CELLS,
    MORE,
    RECIPES,
    TOLERANCE,
    config_of,
    genotype,
    perform,
    plan,
    rows,
    summed_up,
    trained,
)

import nasnet_zoo
from nasnet_zoo.arch.cost import network_cost
from nasnet_zoo.errors import ConfigError, DataError


@pytest.mark.parametrize("data", BUDGETS)
@pytest.mark.parametrize("name", CELLS)
def test_every_cell_costs_its_budget(name, data):
    config = config_of(name, data)
    assert abs(network_cost(config).multiply_adds / BUDGETS[data] - 1) <= TOLERANCE
    assert config.scale.aux_size is None and len({*config.scale.stages}) == 1
    side = config.preprocess.size[0]
    with torch.inference_mode():
        assert nasnet_zoo.create(config).eval()(torch.zeros(1, 3, side, side)).shape == (1, config.num_classes)


def test_the_cells_are_different_ones_and_the_same_each_time():
    names = (*CELLS, *MORE)
    assert len({repr((genotype(name).normal, genotype(name).reduction)) for name in names}) == len(names)
    assert genotype("random 3") == genotype("random 3")


def test_the_plan_has_every_training_once_and_the_answer_first():
    trainings = plan()
    assert len(trainings) == len(set(trainings)) == 18 + 5 + 14
    assert {data for _, data, _ in trainings[:18]} == {"tiny"} and {seed for *_, seed in trainings[:18]} == {0, 1, 2}


def training(name, data, seed, top1):
    size = {"multiply_adds": 9.9e6, "parameters": 7e5}
    return {"name": name, "data": data, "seed": seed, "top1": top1, **size}


def test_the_table_is_of_what_was_measured():
    found = [training("NASNet-A", "tiny", 1, 0.36), training("NASNet-A", "tiny", 0, 0.34)]
    record = summed_up(found)
    assert [each["seed"] for each in record["trainings"]] == [0, 1] and record.keys() == {"recipes", "trainings"}
    assert rows(record["trainings"]) == ["| NASNet-A | 9.90 M | 0.70 M | 35.0 ± 1.4 |  |  |  |"]


def test_the_correlation_is_of_the_cells_that_were_trained_on_both():
    """By the first seed: that of a cell with several is no better known on one side only."""
    figures = {"random 0": (0.1, 0.2), "random 1": (0.2, 0.3), "random 2": (0.3, 0.4), "NASNet-A": (0.4, 0.1)}
    both = [training(name, data, 0, one[data == "tiny"]) for name, one in figures.items() for data in BUDGETS]
    others = [training("random 3", "tiny", 0, 0.9), training("random 0", "tiny", 1, 0.9)]
    record = summed_up([*both, *others])
    assert record["random cells"]["cells"] == 3 and record["random cells"]["tau"] == pytest.approx(1.0)
    assert record["all cells"]["cells"] == 4 and record["all cells"]["tau"] == pytest.approx(0.0)


def test_what_the_record_has_is_not_trained_again(tmp_path, monkeypatch):
    """The folder of the trainings may be lost with its machine."""
    monkeypatch.setattr("common.RESULTS", tmp_path)
    write("transfer_study", summed_up([training("NASNet-A", "tiny", 0, 0.34)]))
    (tmp_path / "runs").mkdir()
    assert trained(tmp_path / "runs", False).keys() == {("NASNet-A", "tiny", 0)}
    perform("NASNet-A", "tiny", 0, "no such folder", tmp_path / "runs", False)
    with pytest.raises(DataError):
        perform("NASNet-A", "tiny", 1, "no such folder", tmp_path / "runs", False)


def test_results_of_another_recipe_are_not_mixed_in(tmp_path, monkeypatch):
    monkeypatch.setattr("common.RESULTS", tmp_path)
    monkeypatch.setitem(RECIPES, "tiny", replace(RECIPES["tiny"], epochs=1))
    write("transfer_study", summed_up([]))
    monkeypatch.undo()
    monkeypatch.setattr("common.RESULTS", tmp_path)
    with pytest.raises(ConfigError, match="other recipes"):
        trained(tmp_path, False)
