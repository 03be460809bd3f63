"""A new space, searcher, child, fleet or reward is one row: config, command line and report then know it."""

import json
import re
import subprocess
import sys
from dataclasses import dataclass, replace

import pytest
from typer.testing import CliRunner

from nasnet_zoo.cli import search as cli_search  # noqa: F401 - registers its commands
from nasnet_zoo.cli.app import app
from nasnet_zoo.errors import ConfigError
from nasnet_zoo.search import (
    CHILDREN,
    FLEETS,
    REWARDS,
    SEARCHERS,
    SPACES,
    ChildSettings,
    ControllerSettings,
    FleetSettings,
    SearchConfig,
    SpaceSettings,
    get_space,
    read_search_config,
)
from nasnet_zoo.search.children.base import BaseChildSettings
from nasnet_zoo.search.children.table import ChildEntry, make_child
from nasnet_zoo.search.fleet.inline import InlineFleet
from nasnet_zoo.search.fleet.table import FleetEntry
from nasnet_zoo.search.presets import PRESETS, changed
from nasnet_zoo.search.rewards import Reward
from nasnet_zoo.search.searchers.random import RandomSearch
from nasnet_zoo.search.searchers.table import SearcherEntry
from nasnet_zoo.search.spaces.nasbench import NasBench201Space
from nasnet_zoo.search.spaces.table import SpaceEntry


def call(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return " ".join(result.stdout.split())


def page(folder) -> str:
    """The report's words."""
    return " ".join(re.sub(r"<[^>]+>", " ", (folder / "report.html").read_text()).split())


@dataclass(frozen=True)
class RulerSettings(BaseChildSettings):
    """The settings of a child that is worth its number of letters."""

    task: str = "ruler"
    unit: float = 100.0

    def summary(self) -> str:
        return f"measured in units of {self.unit:g}"


class Ruler:
    def __init__(self, settings: RulerSettings) -> None:
        self.unit = settings.unit

    def prepare(self, device: str) -> None:
        pass

    def __call__(self, architecture: object, seed: int) -> dict[str, float]:
        return {"accuracy": len(str(architecture)) / self.unit, "seed": seed % 7}


@pytest.fixture
def ruler(monkeypatch) -> SearchConfig:
    """A search of children that any space can have."""
    entry = ChildEntry("its length", RulerSettings, lambda space: True, lambda settings, space: Ruler(settings))
    monkeypatch.setitem(CHILDREN, "ruler", entry)
    return SearchConfig("", SpaceSettings("nasbench201"), "random", child=RulerSettings(), children=30)


def written(config: SearchConfig, folder):
    """A file of a config that a search starts with."""
    path = folder / "start.json"
    path.write_text(json.dumps(config.to_json()))
    assert read_search_config(path) == config
    return path


def test_a_child(ruler, tmp_path):
    assert ChildSettings("ruler", unit=50.0) == RulerSettings(unit=50.0)
    start, folder = written(ruler, tmp_path), tmp_path / "run"
    assert "30 children" in call("search", folder, "--config", start, "--set", "child.unit=200")
    assert read_search_config(folder / "config.json") == replace(
        ruler, folder=str(folder), child=RulerSettings(unit=200.0)
    )
    assert "Each child is one of them, measured in units of 200;" in page(folder)
    assert "ruler its length" in call("search", "--help")
    switched = changed(PRESETS["quick"].config, {"child.task": "ruler", "child.unit": 3, "child.data": "here"})
    assert switched.child == RulerSettings(data="here", unit=3.0)
    for wrong in ({"child.task": "ruler", "child.filters": 8}, {"child.unit": 3}):
        with pytest.raises(ConfigError, match="a search has no setting 'child"):
            changed(PRESETS["quick"].config, wrong)


@dataclass(frozen=True)
class StubbornSettings:
    """The settings of a searcher that proposes one sequence again and again."""

    patience: int = 5


class Stubborn(RandomSearch):
    def __init__(self, space, settings: StubbornSettings, seed: int) -> None:
        super().__init__(space, seed)
        self.patience = settings.patience

    def propose(self, n: int) -> list:
        return [proposal for proposal in super().propose(-(-n // self.patience)) for _ in range(self.patience)][:n]


def test_a_searcher(ruler, tmp_path, monkeypatch):
    entry = SearcherEntry("the mule", "one thing after another", Stubborn, "stubborn", StubbornSettings)
    monkeypatch.setitem(SEARCHERS, "stubborn", entry)
    config = replace(ruler, searcher="stubborn", stubborn=StubbornSettings(3), controller=ControllerSettings(hidden=8))
    assert config.settings == config.stubborn == StubbornSettings(3) and config.controller.hidden == 8
    assert config.identity()["stubborn.patience"] == 3 and "controller.hidden" not in config.identity()
    assert "stubborn" not in ruler.to_json() and ruler.stubborn == StubbornSettings()

    start, folder = written(ruler, tmp_path), tmp_path / "run"
    call("search", folder, "--config", start, "--searcher", "stubborn", "--set", "stubborn.patience=4")
    settings = json.loads((folder / "config.json").read_text())
    assert settings["searcher"] == "stubborn" and settings["stubborn"] == {"patience": 4}
    assert "a child of the mule" in page(folder)
    call("search", tmp_path / "other", "--config", start, "--searcher", "stubborn")
    call("report", folder, "--baseline", tmp_path / "other")
    assert "The comparison is not between equals" not in page(folder)  # its settings are the searcher's own
    assert "stubborn one thing after another" in call("search", "--help")


@dataclass(frozen=True)
class QueueSettings(FleetSettings):
    kind: str = "queue"
    partition: str = "short"


def test_a_fleet(ruler, tmp_path, monkeypatch):
    partitions = []

    def make(settings: QueueSettings, child) -> InlineFleet:
        partitions.append(settings.partition)
        return InlineFleet(child, "cpu")

    monkeypatch.setitem(FLEETS, "queue", FleetEntry("a cluster's queue", make, QueueSettings))
    assert written(replace(ruler, fleet=QueueSettings(partition="long")), tmp_path)
    with pytest.raises(ConfigError, match="search: fleet must be QueueSettings, not FleetSettings"):
        replace(ruler, fleet=FleetSettings("queue"))
    start, folder = written(ruler, tmp_path), tmp_path / "run"
    call("search", folder, "--config", start, "--fleet", "queue", "--set", "fleet.partition=gpu")
    assert partitions == ["gpu"]
    assert read_search_config(folder / "config.json").fleet == QueueSettings(partition="gpu")
    call("search", folder, "--fleet", "inline", "--children", 40)  # its own setting goes with it
    assert read_search_config(folder / "config.json").fleet == FleetSettings()
    assert "queue a cluster's queue" in call("search", "--help")


@dataclass(frozen=True)
class ShortSpace(NasBench201Space):
    edges: int = 6

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "decisions", self.decisions[: self.edges])

    def decode(self, tokens):
        return "+".join(self.ops[token] for token in self.check(tokens))


@dataclass(frozen=True)
class ShortSettings(SpaceSettings):
    name: str = "short"
    edges: int | None = None


def test_a_space(ruler, tmp_path, monkeypatch):
    monkeypatch.setitem(SPACES, "short", SpaceEntry("fewer edges", ShortSpace, ShortSettings))
    start, folder = written(ruler, tmp_path), tmp_path / "run"
    call("search", folder, "--config", start, "--space", "short", "--set", "space.edges=4")
    config = read_search_config(folder / "config.json")
    assert config.space == ShortSettings(edges=4) and len(config.space.space().decisions) == 4
    assert "The space short has 625 sequences of 4 decisions." in page(folder)
    with pytest.raises(ConfigError, match="cannot be architectures of the space short, but those of ruler can"):
        make_child(ChildSettings("nasbench201"), config.space.space())
    assert "short fewer edges" in call("search", "--help")


def test_a_reward(ruler, tmp_path, monkeypatch):
    monkeypatch.setitem(REWARDS, "luck", Reward("how lucky its seed is", lambda metrics: metrics["seed"] / 7))
    start, folder = written(ruler, tmp_path), tmp_path / "run"
    call("search", folder, "--config", start, "--set", "reward=luck")
    assert json.loads((folder / "best.json").read_text())["reward"] == 6 / 7
    assert "its reward is the luck on" in page(folder)
    assert "luck how lucky its seed is" in call("search", "--help")


def test_help_names_every_row():
    said = call("search", "--help")
    for table in (PRESETS, SEARCHERS, SPACES, FLEETS, REWARDS, CHILDREN):
        assert all(f"{name} {row.title}" in said for name, row in table.items())


@pytest.mark.parametrize("table", [PRESETS, SEARCHERS, SPACES, FLEETS, REWARDS, CHILDREN], ids=lambda table: table.what)
def test_a_row_that_is_not_there(table):
    with pytest.raises(ConfigError, match=f"there is no {table.what} 'luck'; there are {', '.join(table)}$"):
        table.row("luck")


def test_children_go_with_the_spaces_that_they_take():
    for name in SPACES:
        takes = (name,) if name in CHILDREN else ("cifar10", "folders")
        for task in CHILDREN:
            if task in takes:
                make_child(ChildSettings(task), get_space(name))
            else:
                with pytest.raises(ConfigError, match=f"but those of {' or '.join(takes)} can: set child.task"):
                    make_child(ChildSettings(task), get_space(name))


def test_settings_that_are_of_no_searcher():
    with pytest.raises(TypeError, match="a search has no setting 'annealing'"):
        SearchConfig("x", annealing=3)
    with pytest.raises(AttributeError, match="a search has no 'annealing'"):
        _ = SearchConfig("x").annealing
    assert SearchConfig("x", controller=ControllerSettings()) == SearchConfig("x")


def test_a_search_is_configured_without_torch(tmp_path):
    read = f"read_search_config({str(tmp_path / 'config.json')!r})"
    (tmp_path / "config.json").write_text(json.dumps(PRESETS["quick"].config.to_json()))
    code = f"import sys; from nasnet_zoo.search import read_search_config; {read}.space.space()"
    subprocess.run([sys.executable, "-c", f"{code}; assert 'torch' not in sys.modules"], check=True)
