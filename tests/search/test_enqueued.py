"""A search that begins with given cells."""

from dataclasses import replace

import pytest
from toy_search import ToyChild, toy_config
from typer.testing import CliRunner

from nasnet_zoo.cli import search as cli_search  # noqa: F401 - registers its commands
from nasnet_zoo.cli.app import app
from nasnet_zoo.errors import ConfigError, JournalError
from nasnet_zoo.search import SpaceSettings, get_space, read_children, run
from nasnet_zoo.search.presets import preset
from nasnet_zoo.search.searchers.base import Observation
from nasnet_zoo.search.searchers.table import SEARCHERS, make_searcher

SPACE = get_space("nasnet", blocks=2)
GIVEN = (tuple([0] * 20), tuple([1] * 20))


@pytest.fixture(autouse=True)
def without_report(monkeypatch):
    monkeypatch.setattr("nasnet_zoo.search.report.report.write_report", lambda *arguments: None)


@pytest.mark.parametrize("searcher", SEARCHERS)
def test_given_cells_come_first_and_the_others_as_ever(tmp_path, searcher):
    config = toy_config(tmp_path, 50, searcher=searcher, enqueue=GIVEN)
    proposals = make_searcher(config, SPACE).propose(7)
    assert [proposal.tokens for proposal in proposals[:2]] == list(GIVEN)
    assert proposals[2:] == make_searcher(replace(config, enqueue=()), SPACE).propose(5)
    piecewise = make_searcher(config, SPACE)
    assert [*piecewise.propose(1), *piecewise.propose(3), *piecewise.propose(3)] == proposals


@pytest.mark.parametrize("searcher", SEARCHERS)
def test_a_searcher_learns_from_given_cells(tmp_path, searcher):
    config = toy_config(tmp_path, 50, searcher=searcher, enqueue=GIVEN)
    made = make_searcher(config, SPACE)
    made.observe([Observation(proposal, place / 9) for place, proposal in enumerate(made.propose(made.batch))])
    heir = make_searcher(replace(config, seed=9), SPACE)
    heir.load_state_dict(made.state_dict())
    assert heir.propose(5) == made.propose(5)
    if searcher == "ppo":
        log_p = made.proposal(GIVEN[0]).notes["log_probabilities"]
        assert len(log_p) == 20 and all(-5 < each < 0 for each in log_p)


@pytest.mark.parametrize("searcher", SEARCHERS)
def test_a_search_is_resumed_with_its_given_cells(tmp_path, searcher):
    config = toy_config(tmp_path / "run", 12, searcher=searcher, enqueue=GIVEN)
    run(config, child=ToyChild())
    run(replace(config, children=50), child=ToyChild())
    whole = replace(config, folder=str(tmp_path / "whole"), children=50)
    run(whole, child=ToyChild())
    tokens = [[row["tokens"] for row in read_children(tmp_path / name)] for name in ("run", "whole")]
    assert tokens[0] == tokens[1] and tuple(tokens[0][0]) == GIVEN[0]
    with pytest.raises(JournalError, match="holds a search with another config .enqueue"):
        run(replace(config, enqueue=()), child=ToyChild())


def test_given_tokens_that_are_not_of_the_space(tmp_path):
    with pytest.raises(ConfigError, match="nasnet: 3 tokens; this space takes 20"):
        run(toy_config(tmp_path / "run", 12, enqueue=((1, 2, 3),)), child=ToyChild())
    assert not (tmp_path / "run").exists()


def invoked(folder, *options: str):
    return CliRunner().invoke(app, ["search", str(folder), "--preset", "quick", *options])


def test_published_cells_are_projected_and_that_is_said(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr("nasnet_zoo.search.several.run", lambda config, **other: seen.append(config) or 1 / 0)
    told = invoked(tmp_path / "run", "--set", "space.blocks=5", "--enqueue", "NASNet-A")
    assert "NASNet-A: the normal cell hands on states [1, 2, 3, 4, 5, 6], but by the rule of the space" in told.output
    space = SpaceSettings("nasnet", blocks=5).space()
    assert len(seen[0].enqueue) == 1 and len(space.decode(seen[0].enqueue[0]).normal.blocks) == 5


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("NASNet-A", "--enqueue NASNet-A: the normal cell has 5 blocks and 2 inputs; cells of the space nasnet have 3"),
        ("nothing-like-it", "nothing-like-it"),
    ],
)
def test_cells_that_do_not_fit(tmp_path, what, message):
    with pytest.raises(ConfigError if what == "NASNet-A" else Exception, match=message):
        CliRunner().invoke(
            app, ["search", str(tmp_path / "run"), "--preset", "quick", "--enqueue", what], catch_exceptions=False
        )
    assert not (tmp_path / "run").exists()


def test_the_best_cell_of_another_search_is_where_this_one_begins(tmp_path, monkeypatch):
    run(toy_config(tmp_path / "first", 20, space=preset("quick").space), child=ToyChild())
    seen = []
    monkeypatch.setattr("nasnet_zoo.search.several.run", lambda config, **other: seen.append(config) or 1 / 0)
    invoked(tmp_path / "second", "--enqueue", f"{tmp_path / 'first'},{tmp_path / 'first' / 'best.json'}")
    best = max(read_children(tmp_path / "first"), key=lambda row: row["reward"])
    assert seen[0].enqueue == (tuple(best["tokens"]),) * 2
