"""Pareto fronts: of points, of a search's children, and on the command line."""

import csv
import math
import random
from io import StringIO

import numpy as np
import pytest
from run_folders import TABLE, done, write_folder

from nasnet_zoo.errors import ConfigError, JournalError
from nasnet_zoo.search import SearchConfig, pareto, read_children
from nasnet_zoo.search.fronts import pareto_front


@pytest.mark.parametrize(
    "points, front",
    [
        ([], []),
        ([(3.0, 3.0)], [0]),
        ([(1, 4), (2, 2), (4, 1), (3, 3), (5, 5)], [0, 1, 2]),
        ([(1, 2), (1, 1), (2, 1)], [1]),  # equal in one is beaten by the other
        ([(2, 1), (1, 2), (2, 1)], [0, 1, 2]),  # of equal points none beats the other
        ([(math.nan, 0), (1, 1), (0, math.nan)], [1]),
        ([(math.nan, 1)], []),
        ([(math.inf, 0), (0, math.inf), (math.inf, math.inf)], [0, 1]),
        ([(5,), (3,), (3,), (4,)], [1, 2]),
    ],
)
def test_the_front_of_points(points, front):
    assert pareto_front(points) == front


def test_a_front_is_what_its_definition_says():
    points = np.random.default_rng(0).integers(0, 12, (80, 3))

    def beats(one, other):
        return all(one <= other) and any(one < other)

    expected = [i for i, point in enumerate(points) if not any(beats(other, point) for other in points)]
    assert 3 <= len(expected) < 40 and pareto_front(points) == expected


def folder_of(folder, *metrics):
    """A search whose children returned these metrics, each of another architecture; all have the reward 0.25."""
    children = [
        {**done(0.25)[0], "metrics": said, "tokens": (place % 5, place // 5, 0, 0, 0, 0)}
        for place, said in enumerate(metrics)
    ]
    return write_folder(folder, SearchConfig("s", **TABLE), children)


def costing(accuracy, multiply_adds, parameters, **more):
    return {"accuracy": accuracy, "multiply_adds": multiply_adds, "parameters": parameters, **more}


def test_the_front_of_a_search(tmp_path):
    said = [costing(0.9, 30, 30), costing(0.8, 20, 10), costing(0.7, 10, 20), costing(0.7, 30, 10)]
    folder = folder_of(tmp_path, *said, costing(float("nan"), 1, 1), {"accuracy": 0.99}, costing(0.95, "few", 1))
    assert [row["child"] for row in pareto(folder)] == [2, 1, 0]
    assert [row["child"] for row in pareto(folder, ["parameters"])] == [6]
    assert [row["child"] for row in pareto(folder, ["multiply_adds"])] == [2, 1, 0]
    assert pareto(folder) == [read_children(folder)[child] for child in (2, 1, 0)]


def test_an_architecture_is_on_the_front_once(tmp_path):
    children = [dict(done(reward)[0], tokens=(1,) * 6) for reward in (0.5, 0.7, 0.7)]
    for child in children:
        child["metrics"] = costing(child["reward"], 1, 1)
    assert [row["child"] for row in pareto(write_folder(tmp_path, SearchConfig("s", **TABLE), children))] == [1]


def test_costs_that_no_child_measured_are_computed(tmp_path):
    space, rng = SearchConfig("s").space.space(), random.Random(0)
    children = [dict(child, tokens=space.sample(rng)) for child in done(*(rng.random() for _ in range(12)))]
    rows = read_children(folder := write_folder(tmp_path, SearchConfig("s"), children))
    points = [(-row["reward"], row["multiply_adds"], row["parameters"]) for row in rows]
    expected = [rows[index]["child"] for index in pareto_front(points)]
    assert 1 < len(expected) < 12 and sorted(row["child"] for row in pareto(folder)) == expected


def test_children_without_an_accuracy_count_with_their_reward(tmp_path):
    children = [dict(child, metrics={"parameters": 5, "multiply_adds": 5}) for child in done(0.3, 0.6)]
    assert [row["child"] for row in pareto(write_folder(tmp_path, SearchConfig("s", **TABLE), children))] == [1]


def test_a_cost_that_is_not_there_is_told(tmp_path):
    folder = folder_of(tmp_path / "s", costing(0.5, 1, 1, latency_ms=3.0))
    with pytest.raises(
        ConfigError, match="no child has a number as its 'madds'; they have multiply_adds, parameters, "
    ):
        pareto(folder, ["madds"])
    with pytest.raises(ConfigError, match="a child's costs are metrics that it returns"):
        pareto(folder_of(tmp_path / "t", {"accuracy": 0.5}))
    with pytest.raises(JournalError, match="there is no journal"):
        pareto(tmp_path)


def test_the_front_as_csv(tmp_path, run):
    said = [
        costing(0.9, 30, 30, latency_ms=2.0, energy=9.0),
        costing(0.8, 20, 10, latency_ms=3.0, energy=1.0),
        costing(0.7, 40, 40, latency_ms=1.0, energy=5.0),
    ]
    folder = folder_of(tmp_path / "s", *said)

    def table(*options):
        code, text, _ = run("report", folder, "--pareto", *options)
        assert code == 0
        return list(csv.DictReader(StringIO(text, newline="")))

    front = table()
    assert list(front[0]) == ["child", "reward", "accuracy", "parameters", "multiply_adds", "latency_ms", "hash"]
    assert [line["child"] for line in front] == ["1", "0"]
    assert front[1] | {"hash": ""} == {
        "child": "0",
        "reward": "0.25",
        "accuracy": "0.9",
        "parameters": "30",
        "multiply_adds": "30",
        "latency_ms": "2.0",
        "hash": "",
    }
    assert front[1]["hash"] == read_children(folder)[0]["hash"]
    assert [line["child"] for line in table("--costs", "latency_ms")] == ["2", "0"]
    by_energy = table("--costs", "energy, parameters")
    assert [line["energy"] for line in by_energy] == ["1.0", "9.0"]
    assert not (folder / "report.html").exists()


def test_the_front_of_a_search_without_results_has_a_head_alone(tmp_path, run):
    folder = write_folder(tmp_path, SearchConfig("s", **TABLE), [{}])
    assert pareto(folder) == []
    assert run("report", folder, "--pareto")[1] == "child,reward,accuracy,parameters,multiply_adds,hash\n"


def test_options_that_do_not_go_together(tmp_path, run):
    for options, said in (
        (("--pareto", "--csv"), "give --csv, --json or --pareto alone"),
        (("--costs", "parameters"), "--costs is for --pareto"),
        (("--pareto", "--costs", "what"), "'what'"),
    ):
        code, _, told = run("report", folder_of(tmp_path / "-".join(options), costing(0.5, 1, 1)), *options)
        assert code == 2 and said in told
