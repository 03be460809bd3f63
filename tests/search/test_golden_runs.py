"""Searches that the first version recorded: the same seed gives the same search, child by child (tests/golden/v1)."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from golden_child import GoldenChild

from nasnet_zoo.search import (
    ChildSettings,
    EvolutionSettings,
    FailureSettings,
    FleetSettings,
    SearchConfig,
    SpaceSettings,
    read_search_config,
    run,
)
from nasnet_zoo.search.presets import preset

GOLDEN = Path(__file__).parents[1] / "golden" / "v1"
SEARCHES = json.loads((GOLDEN / "searches.json").read_text())
FIRST_RULE = {
    "epochs": 5,
    "clip": 0.2,
    "learning_rate": 0.01,
    "normalise": True,
    "baseline": "batch-average",
    "ratio": "sequence",
}
BLOCKS = {"nasnet": 3, "nasnet-b": 4, "nds-darts": 2, "nasbench201": None}


@pytest.fixture(autouse=True)
def without_report(monkeypatch):
    monkeypatch.setattr("nasnet_zoo.search.report.report.write_report", lambda *arguments: None)


def searched(config: SearchConfig) -> list[list]:
    """Every child of a search that has run to its end, as the golden files have them."""
    seen = []
    run(config, child=GoldenChild(), on_change=seen.append)
    return [[list(r.tokens), r.hash, r.status, r.reward] for r in seen[-1].records]


def assert_same(children: list[list], expected: list[list], hashes: bool) -> None:
    """Child by child. Where `hashes` are not the first version's, since they tell a genotype's style too now, cells
    have one hash in both where they had one."""
    if not hashes:
        pairs = {(new[1], old[1]) for new, old in zip(children, expected, strict=True)}
        assert len(pairs) == len({new for new, _ in pairs}) == len({old for _, old in pairs})
        children, expected = ([[*child[:1], *child[2:]] for child in each] for each in (children, expected))
    assert children == expected


@pytest.mark.parametrize("name", SEARCHES)
def test_a_seed_gives_the_search_it_always_gave(tmp_path, name):
    searcher, space = name.split()
    looked_up = space == "nasbench201"
    config = replace(
        preset("quick"),
        folder=str(tmp_path),
        space=SpaceSettings(space, blocks=BLOCKS[space], outputs="unread" if space == "nasnet" else None),
        controller=replace(preset("quick").controller, **FIRST_RULE),
        fleet=FleetSettings(),
        failures=FailureSettings(floor=0.0),
        searcher=searcher,
        evolution=EvolutionSettings(20, 5),
        child=ChildSettings("nasbench201") if looked_up else preset("quick").child,
        children=100,
        repeats="serve" if looked_up else "train",
        seed=5,
    )
    assert_same(searched(config), SEARCHES[name], hashes=not space.startswith("nds"))


@pytest.mark.parametrize("name", ["search-slim", "search-nds"])
def test_a_search_that_was_killed_long_ago_goes_on_as_it_would_have(tmp_path, name):
    """Its folder's searcher has a kept state, and lived on after it."""
    folder = shutil.copytree(GOLDEN / name, tmp_path / name)
    config = replace(read_search_config(folder / "config.json"), folder=str(folder))
    end = json.loads((GOLDEN / f"{name}-end.json").read_text())
    assert_same(searched(config), end, hashes=name != "search-nds")
