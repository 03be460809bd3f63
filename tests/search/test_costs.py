"""Cost in the reward, as limits, and in what a user may get wrong about it."""

from dataclasses import replace

import pytest
from toy_search import ToyChild, toy_config
from typer.testing import CliRunner

from nasnet_zoo.arch.cost import network_cost
from nasnet_zoo.cli import search as cli_search  # noqa: F401 - registers its commands
from nasnet_zoo.cli.app import app
from nasnet_zoo.errors import ConfigError, SearchError
from nasnet_zoo.search import CostSettings, FailureSettings, read_children, run
from nasnet_zoo.search.history import read_history
from nasnet_zoo.search.presets import preset

CHILD = preset("quick").child


class Costly(ToyChild):
    """All cells are equally accurate; what they cost is told."""

    def __call__(self, architecture, seed):
        cost = network_cost(CHILD.network(architecture, "cell"))
        return {"accuracy": 0.5, "multiply_adds": cost.multiply_adds, "parameters": cost.parameters, "latency_ms": 3.0}


@pytest.fixture(autouse=True)
def without_report(monkeypatch):
    monkeypatch.setattr("nasnet_zoo.search.report.report.write_report", lambda *arguments: None)


def test_the_factor_is_mnasnets():
    """Tan et al. 2019, equation 2, and the two settings of its section 3.1: soft (-0.07) and hard (0 and -1)."""
    soft = CostSettings("latency_ms", 80.0)
    assert soft.factor({"latency_ms": 80.0}) == 1.0
    assert soft.factor({"latency_ms": 160.0}) == pytest.approx(0.9526, abs=1e-4)  # twice the latency: 5 % lower
    assert soft.factor({"latency_ms": 40.0}) == pytest.approx(1.0497, abs=1e-4)
    hard = CostSettings("latency_ms", 80.0, exponent=0.0, beyond=-1.0)
    assert [hard.factor({"latency_ms": value}) for value in (20.0, 80.0, 160.0)] == [1.0, 1.0, 0.5]
    assert CostSettings().factor({}) == 1.0


def test_rewards_are_accuracies_times_the_factor(tmp_path):
    cost = CostSettings("multiply_adds", 4e6, exponent=-0.5)
    run(toy_config(tmp_path, 30, child=CHILD, cost=cost), child=Costly())
    rows = read_children(tmp_path)
    for row in rows:
        assert row["reward"] == pytest.approx(0.5 * (row["multiply_adds"] / 4e6) ** -0.5)
    assert len({row["reward"] for row in rows}) > 20


def test_a_reward_whose_cost_the_child_does_not_tell(tmp_path):
    config = toy_config(tmp_path, 3, child=CHILD, cost=CostSettings("latency_batch_ms", 5.0))
    with pytest.raises(SearchError, match="the reward accuracy needs the metric 'latency_batch_ms' of what child 0"):
        run(config, child=Costly())


@pytest.mark.parametrize("searcher", ["random", "ppo", "evolution"])
def test_children_beyond_a_limit_are_never_trained_and_do_not_count(tmp_path, searcher):
    trained = []

    class Seen(Costly):
        def __call__(self, architecture, seed):
            trained.append(architecture)
            return super().__call__(architecture, seed)

    limits = CostSettings(max_multiply_adds=2.2e6, max_parameters=32_000)
    config = toy_config(tmp_path, 60, child=CHILD, cost=limits, searcher=searcher)
    result = run(config, child=Seen())
    rows = read_children(tmp_path)
    rejected = [row for row in rows if row["status"] == "rejected"]
    done = [row for row in rows if row["status"] == "done"]
    assert (result.children, len(done), len(trained)) == (60, 60, 60) and len(rejected) > 20
    assert all(row["multiply_adds"] <= 2.2e6 and row["parameters"] <= 32_000 for row in done)
    assert all(row["multiply_adds"] > 2.2e6 or row["parameters"] > 32_000 for row in rejected)
    assert all(row["seconds"] == 0 and row["attempts"] == 0 for row in rejected)
    assert "are the most" in rejected[-1]["message"]
    history = read_history(tmp_path)
    assert history.evaluated == 60

    more = run(replace(config, children=80), child=Seen())  # a finished search is given more
    assert more.children == 80 and read_children(tmp_path)[: len(rows)] == rows


def test_a_search_with_limits_goes_on_as_if_it_had_not_been_interrupted(tmp_path):
    limits = CostSettings(max_multiply_adds=2e6)
    config = toy_config(tmp_path / "whole", 60, child=CHILD, cost=limits, searcher="ppo")
    run(config, child=Costly())

    class Interrupted(Costly):
        left = 25

        def __call__(self, architecture, seed):
            self.left -= 1
            if self.left < 0:
                raise KeyboardInterrupt
            return super().__call__(architecture, seed)

    parts = replace(config, folder=str(tmp_path / "parts"))
    with pytest.raises(KeyboardInterrupt):
        run(parts, child=Interrupted())
    run(parts, child=Costly())
    same = ("tokens", "status", "reward", "message")
    whole, again = (
        [[row[key] for key in same] for row in read_children(tmp_path / name)] for name in ("whole", "parts")
    )
    assert whole == again


def test_the_policy_learns_to_stay_within_a_limit(tmp_path):
    limits = CostSettings(max_multiply_adds=1.6e6)
    controller = replace(preset("quick").controller, learning_rate=0.02)
    config = toy_config(tmp_path, 300, child=CHILD, cost=limits, searcher="ppo", controller=controller)
    run(replace(config, failures=FailureSettings(floor=0.0)), child=Costly())
    status = [row["status"] == "rejected" for row in read_children(tmp_path)]
    first, last = sum(status[:100]), sum(status[-100:])
    assert first > 50 and last < first - 20


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(measure="multiply_adds"), "a measure and its target go together"),
        (dict(target=5.0), "a measure and its target go together"),
        (dict(max_parameters=0.0), "must be above 0"),
        (dict(measure="latency_ms", target=-1.0), "must be above 0"),
        (dict(measure="latency_ms", target=1.0, exponent=0.5), "exponents lie between -10 and 0"),
        (dict(measure="joules", target=1.0), "unknown measure 'joules'"),
    ],
)
def test_settings_that_make_no_sense(settings, message):
    with pytest.raises(ConfigError, match=message):
        CostSettings(**settings)


@pytest.mark.parametrize(
    ("cost", "message"),
    [
        (
            CostSettings("multiply_adds", 1e4),
            "none of 200 random cells of the space nasnet has at most 10,000 multiply",
        ),
        (CostSettings(max_parameters=100), "has at most 100 parameters; the least is [0-9,]+ parameters at the size"),
    ],
)
def test_a_target_that_no_cell_meets_is_told_before_anything_is_written(tmp_path, cost, message):
    with pytest.raises(ConfigError, match=message):
        run(toy_config(tmp_path / "run", 5, child=CHILD, cost=cost), child=Costly())
    assert not (tmp_path / "run").exists()


def test_costs_of_what_is_no_network(tmp_path):
    config = replace(preset("tabular"), folder=str(tmp_path / "run"), cost=CostSettings(max_parameters=1e6))
    with pytest.raises(
        ConfigError, match="children of the task nasbench201 are no networks, so that their cost is not"
    ):
        run(config, child=Costly())


def test_the_command_line_sets_targets_and_limits(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr("nasnet_zoo.search.several.run", lambda config, **other: seen.append(config) or 1 / 0)
    options = ["--preset", "quick", "--target-madds", "3.5M", "--max-madds", "8M", "--max-params", "90k"]
    CliRunner().invoke(app, ["search", str(tmp_path / "run"), *options])
    assert seen[0].cost == CostSettings("multiply_adds", 3.5e6, max_multiply_adds=8e6, max_parameters=9e4)
