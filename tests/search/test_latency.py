"""Latency: measured of children that are trained, in the reward, as a limit, and never that of two machines."""

import json
from dataclasses import replace

import pytest
import torch
from test_child import GENOTYPE, child
from toy_search import ToyChild, toy_config
from typer.testing import CliRunner

import nasnet_zoo
from nasnet_zoo.cli import app
from nasnet_zoo.errors import ConfigError, SearchError
from nasnet_zoo.search import CostSettings, FailureSettings, RungSettings, read_children, run
from nasnet_zoo.search.children.base import ChildFailure, run_task
from nasnet_zoo.search.children.latency import latency_ms
from nasnet_zoo.search.fleet.base import Fleet
from nasnet_zoo.search.history import read_history
from nasnet_zoo.search.presets import preset
from nasnet_zoo.util.environment import device_name

MEASURED = {"latency_ms", "latency_batch_ms", "latency_device"}
QUICK = replace(preset("quick").child, latency=32)
LONG = replace(QUICK, recipe=replace(QUICK.recipe, epochs=9))


class Timed(ToyChild):
    """A child whose latency is known: 1 to 2 ms by its seed, on a machine of that name."""

    def __init__(self, device: str = "a GPU", most: float | None = None) -> None:
        self.device, self.most = device, most

    def __call__(self, architecture, seed):
        latency = 1 + seed % 1000 / 1000
        if self.most is not None and latency > self.most:
            said = f"{latency:.3g} ms for a picture, and {self.most:g} are the most"
            raise ChildFailure("rejected", said, {"latency_device": self.device})
        measured = {"latency_ms": latency, "latency_batch_ms": 20 * latency, "latency_device": self.device}
        return super().__call__(architecture, seed) | measured


@pytest.fixture
def without_report(monkeypatch):
    monkeypatch.setattr("nasnet_zoo.search.report.report.write_report", lambda *arguments: None)


def test_a_measurement_changes_nothing_in_the_training():
    plain, timed = child()(GENOTYPE, 3), child(latency=8)(GENOTYPE, 3)
    assert set(timed) - set(plain) == MEASURED
    assert {key: timed[key] for key in plain} == plain
    assert 0 < timed["latency_ms"] <= timed["latency_batch_ms"]
    assert timed["latency_device"] == device_name("cpu") and "thread" in timed["latency_device"]


def test_a_large_network_takes_longer_and_a_batch_too():
    small, large = (nasnet_zoo.create(child(filters=filters, side=32).config(GENOTYPE)) for filters in (4, 64))
    assert latency_ms(large, 16, "cpu") > 3 * latency_ms(small, 16, "cpu")
    assert latency_ms(large, 16, "cpu") > 3 * latency_ms(large, 1, "cpu")


def test_a_network_is_as_it_was_after_it_was_timed():
    network = nasnet_zoo.create(child().config(GENOTYPE)).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    state = torch.get_rng_state()
    latency_ms(network, 4, "cpu")
    assert network.training and torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_a_child_beyond_the_limit_is_rejected_before_it_is_trained():
    slow = child(latency=8, max_latency_ms=1e-6)
    slow.training = None  # it would fail if it were trained
    with pytest.raises(ChildFailure, match=r"ms for a picture, and 1e-06 are the most") as failure:
        slow(GENOTYPE, 0)
    assert failure.value.kind == "rejected"
    assert "latency_ms" in child(latency=8, max_latency_ms=1e6)(GENOTYPE, 0)


def test_rejected_children_are_no_evaluations(tmp_path, without_report):
    config = toy_config(tmp_path, 40)
    run(config, child=Timed(most=1.5))
    rows = read_children(tmp_path)
    done, rejected = ([row for row in rows if row["status"] == status] for status in ("done", "rejected"))
    assert len(done) == 40 and len(rejected) > 10 and len(rows) == len(done) + len(rejected)
    assert all(row["metrics"]["latency_ms"] <= 1.5 for row in done)
    assert read_history(tmp_path).evaluated == 40


def test_a_limit_that_no_child_meets_is_told(tmp_path, without_report):
    with pytest.raises(SearchError, match=r"the last proposals all cost too much \(the last: .* and 0.5 are the most"):
        run(toy_config(tmp_path, 1000), child=Timed(most=0.5))
    assert 150 < len(read_history(tmp_path).finished) < 250  # each of them was built and timed


def test_the_reward_is_measured_by_it(tmp_path, without_report):
    cost = CostSettings("latency_ms", 1.5, exponent=0.0, beyond=-1.0)
    run(toy_config(tmp_path, 30, cost=cost, child=QUICK), child=Timed())
    for row in read_children(tmp_path):
        assert row["reward"] == pytest.approx(row["metrics"]["accuracy"] * min(1.0, 1.5 / row["metrics"]["latency_ms"]))


def test_a_search_does_not_go_on_with_another_machine_s_latencies(tmp_path, without_report):
    run(toy_config(tmp_path, 20), child=Timed("a GPU"))
    said = "the latency of child 20 was measured on another GPU, and those before it on a GPU: they cannot be compared"
    with pytest.raises(SearchError, match=said):
        run(toy_config(tmp_path, 40), child=Timed("another GPU"))
    assert len(read_history(tmp_path).finished) == 20
    run(toy_config(tmp_path, 40), child=Timed("a GPU"))
    assert len(read_history(tmp_path).finished) == 40


def test_machines_are_not_mixed_within_a_search(tmp_path, without_report):
    class Mixed(Timed):
        def __call__(self, architecture, seed):
            return super().__call__(architecture, seed) | {"latency_device": "ab"[seed % 2]}

    with pytest.raises(SearchError, match="they cannot be compared, so go on with devices of that kind alone"):
        run(toy_config(tmp_path, 40), child=Mixed())


OTHER = "was measured on another GPU, and those before it on a GPU: they cannot be compared"


def test_another_machine_s_children_are_not_stopped_or_rejected_unnoticed(tmp_path, without_report):
    class Reporting(Timed):
        def __call__(self, architecture, seed, report):
            for epoch in (1, 3):
                report(epoch, super().__call__(architecture, seed))
            return super().__call__(architecture, seed)

    cost = CostSettings("latency_ms", 1.5)
    config = toy_config(tmp_path / "a", 20, cost=cost, rungs=RungSettings((1, 3)), child=LONG)
    run(config, child=Reporting("a GPU"))
    with pytest.raises(SearchError, match=OTHER):
        run(replace(config, children=40), child=Reporting("another GPU"))
    run(toy_config(tmp_path / "b", 20), child=Timed("a GPU"))
    with pytest.raises(SearchError, match=OTHER):
        run(toy_config(tmp_path / "b", 40), child=Timed("another GPU", most=0.5))
    for name in "ab":
        assert len(read_history(tmp_path / name).finished) == 20


class Together(Fleet):
    """Runs four children, and returns them together."""

    capacity = 4

    def __init__(self, child):
        self.child, self.tasks = child, []

    def start(self):
        pass

    def close(self):
        pass

    def submit(self, task):
        self.tasks.append(task)

    def next_done(self, timeout=None):
        done, self.tasks = [run_task(self.child, task, "here") for task in self.tasks], []
        return done


def test_the_results_beside_one_of_another_machine_are_kept(tmp_path, without_report):
    class Mixed(Timed):
        count = 0

        def __call__(self, architecture, seed):
            self.count += 1
            return super().__call__(architecture, seed) | {"latency_device": "ab"[self.count == 2]}

    with pytest.raises(SearchError, match="measured on b, and those before it on a"):
        child = Mixed()
        run(toy_config(tmp_path, 40), child=child, fleet=Together(child))
    finished = read_history(tmp_path).finished  # the other three, though the second was told at once
    assert [record.child for record in finished] == [0, 2, 3]


def test_a_rejected_child_is_not_tried_again_and_a_restart_begins_to_count_anew(tmp_path, without_report):
    with pytest.raises(ConfigError, match="rejected"):
        FailureSettings(rejected="retry")
    with pytest.raises(SearchError, match="begin another search with higher limits or smaller children"):
        run(toy_config(tmp_path, 20), child=Timed(most=0.5))

    class Rejecting(Timed):
        count = 0

        def __call__(self, architecture, seed):
            self.count, self.most = self.count + 1, None if self.count else 0.5
            return super().__call__(architecture, seed)

    assert run(toy_config(tmp_path, 20), child=Rejecting()).children == 20


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(latency=-1), "child: latency -1 is a batch's size, up to 4096; 0 measures none"),
        (dict(latency=1 << 20), "is a batch's size"),
        (dict(latency=8, max_latency_ms=0.0), "max_latency_ms has to be above 0, and needs latency"),
        (dict(max_latency_ms=3.0), "max_latency_ms has to be above 0, and needs latency"),
    ],
)
def test_settings_that_make_no_sense(changes, message):
    with pytest.raises(ConfigError, match=message):
        child(**changes)


def test_a_reward_by_latency_needs_children_that_measure_it(tmp_path):
    config = toy_config(tmp_path, 5, cost=CostSettings("latency_ms", 2.0))
    with pytest.raises(ConfigError, match="measured by latency_ms, and children measure none: set child.latency"):
        run(config)
    assert list(tmp_path.iterdir()) == []


def test_the_options_of_the_command(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr("nasnet_zoo.search.several.run", lambda config, **options: seen.append(config) or 1 / 0)
    for options in (["--target-latency", "2.5"], ["--max-latency", "4"], ["--set", "child.latency=64"]):
        CliRunner().invoke(app, ["search", str(tmp_path / "run"), "--preset", "quick", *options])
    target, limit, measured = seen
    assert (target.cost.measure, target.cost.target, target.child.latency) == ("latency_ms", 2.5, 32)
    assert (limit.cost.measure, limit.child.max_latency_ms, limit.child.latency) == ("", 4.0, 32)
    assert (measured.child.latency, measured.child.max_latency_ms) == (64, None)
    for options in (["--target-latency", "3"], ["--max-latency", "3"]):
        looked_up = ["search", str(tmp_path / "run"), "--preset", "tabular", *options]
        said = "children of the task nasbench201 are looked up in NAS-Bench-201 and have no latency"
        assert said in str(CliRunner().invoke(app, looked_up).exception)
    for task in ("[]", "3"):  # a setting that is nonsense is told as without the option
        nonsense = ["search", str(tmp_path / "run"), "--preset", "quick", "--set", f"child.task={task}"]
        errors = [CliRunner().invoke(app, [*nonsense, *more]).exception for more in ([], ["--target-latency", "1"])]
        assert type(errors[1]) is ConfigError and str(errors[0]) == str(errors[1])
    both = ["--target-latency", "2", "--target-madds", "5M"]
    result = CliRunner().invoke(app, ["search", str(tmp_path / "run"), "--preset", "quick", *both])
    assert "a reward has one target" in str(result.exception)
    assert json.dumps(target.to_json())  # no number of another type got in


@pytest.mark.gpu
def test_latency_on_a_gpu():
    network = nasnet_zoo.create(replace(preset("nasnet").child, filters=16).network(GENOTYPE, "cell")).cuda().train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    one, batch = (latency_ms(network, pictures, "cuda") for pictures in (1, 512))
    assert 0 < one < batch
    again = [latency_ms(network, 1, "cuda") for _ in range(3)]
    assert max(again) < 1.5 * min(again)  # replays of a graph: no launches that a busy CPU could delay
    assert network.training and all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert device_name("cuda") == torch.cuda.get_device_name()
