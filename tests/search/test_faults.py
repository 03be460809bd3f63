"""A handful of the kills that benchmarks/search_faults.py deals out by the hundred."""

import sys

import pytest
from search_faults import change_nodes, kill_searches, resume_long

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")


@pytest.mark.parametrize("kind", ["inline", "processes", pytest.param("ray", marks=pytest.mark.slow)])
def test_kills_lose_nothing_that_was_finished(kind, tmp_path):
    if kind == "ray":
        pytest.importorskip("ray")
    seed = {"inline": 1, "processes": 1, "ray": 4}[kind]  # with which drivers and workers are killed
    # So many that a kill on a busy machine, where it comes late, still comes before the search is done.
    children = {"inline": 60, "processes": 200, "ray": 60}[kind]
    happened = kill_searches(kind, kills=2, children=children, folder=tmp_path, seed=seed)
    killed = happened["drivers_killed"], happened["workers_killed"]
    assert killed == ((2, 0) if kind == "inline" else (1, 1))


@pytest.mark.slow
def test_ray_nodes_that_come_and_go_lose_nothing(tmp_path):
    pytest.importorskip("ray")
    assert change_nodes(changes=4, children=120, folder=tmp_path)["nodes_removed"] >= 1


@pytest.mark.slow
def test_a_long_search_is_resumed_in_seconds(tmp_path):
    assert min(resume_long(tmp_path / "long", children=2000, times=1)["of_them_cpu_seconds"]) < 3
