"""benchmarks/transfer_study.py: what is compared costs the same, and its table says what was measured."""

import pytest
import torch
from transfer_study import BUDGETS, CELLS, MORE, TOLERANCE, config_of, correlation, genotype, plan, row, summary

import nasnet_zoo
from nasnet_zoo.arch.cost import network_cost


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
    assert len(trainings) == len(set(trainings)) == 18 + 15 + 20
    assert {data for _, data, _ in trainings[:18]} == {"tiny"} and {seed for *_, seed in trainings[:18]} == {0, 1, 2}


def test_the_table_is_of_what_was_measured():
    trained = [
        {
            "seed": seed,
            "top1": top1,
            "top5": 0.9,
            "seconds": 1.0,
            "losses": [1.0],
            "multiply_adds": 9.9e6,
            "parameters": 7e5,
        }
        for seed, top1 in ((1, 0.36), (0, 0.34))
    ]
    found = summary(trained)
    assert found["seeds"] == [0, 1] and found["top1"] == [0.34, 0.36]
    assert row("a cell", {"tiny": found}) == "| a cell | 9.90 M | 0.70 M | 35.0 ± 1.4 |  |  |  |"
    assert correlation([[0.1, 0.2], [0.2, 0.3], [0.3, 0.4]])["tau"] == pytest.approx(1.0)
    assert correlation([[0.1, 0.4], [0.2, 0.3], [0.3, 0.2]])["rho"] == pytest.approx(-1.0)
