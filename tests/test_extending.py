"""The examples of docs/extending.md and docs/search.md, as they stand."""

import json
import re
from pathlib import Path

import pytest

import nasnet_zoo
from nasnet_zoo.arch.kinds import KINDS
from nasnet_zoo.arch.ops import OPS
from nasnet_zoo.export.precisions import PRECISIONS
from nasnet_zoo.registry import MODELS
from nasnet_zoo.search import CHILDREN, FLEETS, SEARCHERS, SPACES, FleetSettings, SearchConfig, SpaceSettings
from nasnet_zoo.search import run as search
from nasnet_zoo.search.rows import ChildRow
from nasnet_zoo.training.recipes import RECIPES, find_recipe

TEXT = (Path(__file__).resolve().parents[1] / "docs" / "extending.md").read_text(encoding="utf-8")
SEARCH = (Path(__file__).resolve().parents[1] / "docs" / "search.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## An? (\w+)\n(.*?)(?=^## |\Z)", TEXT, re.DOTALL | re.MULTILINE))


TABLES = (KINDS, OPS, MODELS, PRECISIONS, CHILDREN, FLEETS, SEARCHERS, SPACES, RECIPES)


@pytest.fixture(autouse=True)
def tables(monkeypatch, tmp_path):
    """As they were before, afterwards; what an example writes lies in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    before = [dict(table) for table in TABLES]
    yield
    for table, rows in zip(TABLES, before):
        table.clear()
        table.update(rows)


def example(name: str) -> dict:
    """Runs a section's code and gives its names."""
    namespace: dict = {"__name__": f"example_{name}"}
    for code in re.findall(r"```python\n(.*?)```", SECTIONS[name], re.DOTALL):
        exec(compile(code, f"docs/extending.md, {name}", "exec"), namespace)
    return namespace


def test_there_is_an_example_of_each():
    assert list(SECTIONS) == [
        *("op", "model", "kind", "space", "searcher", "child", "fleet", "precision", "recipe", "task")
    ]


def test_an_op(capsys):
    example("op")
    assert "relative_error" in capsys.readouterr().out and Path("graph/model.onnx").is_file()


def test_a_model():
    example("model")
    assert "pnasnet-5-cifar-tiny" in nasnet_zoo.list_models()


def test_a_kind(capsys):
    example("kind")
    assert "Chain(kernels=(3, 5, 3))" in capsys.readouterr().out


def test_a_space_a_child_and_a_searcher_search_together(run):
    example("space"), example("child"), example("searcher")
    said = run("search", "together", "--config", written(), "--searcher", "repeat", "--set", "repeat.times=3")
    assert said[0] == 0 and "best of 12 children" in said[1], said[2]


def written() -> str:
    """A search of the example's child in the example's space."""
    settings = CHILDREN["small"].settings(filters=4)
    config = SearchConfig("", SpaceSettings("one-block"), "random", child=settings, children=12)
    Path("start.json").write_text(json.dumps(config.to_json()))
    return "start.json"


def test_a_fleet():
    example("child"), example("fleet")
    settings = CHILDREN["small"].settings(filters=4)
    config = SearchConfig(
        "run2", SpaceSettings("nasnet", blocks=2), "random", child=settings, children=10, fleet=FleetSettings("reverse")
    )
    order = []
    search(config, on_change=lambda driver: order.append(list(driver.finished)))
    assert sorted(order[-1]) == list(range(10)) and order[-1] != list(range(10))


def test_a_precision(run, capsys):
    example("precision")
    assert "fp16-strict" in Path("strict/export.json").read_text()
    assert run("export", "nasnet-a-cifar-small", "--precision", "fp16-strict", "-o", "again")[0] == 0


def test_a_recipe():
    example("recipe")
    assert find_recipe("cifar10-short").epochs == 30


def test_a_task(capsys):
    history = example("task")["history"]
    assert history[-1].metrics["accuracy"] > 0.5 and "epoch 3/3: loss" in capsys.readouterr().out


def test_the_examples_of_the_search(capsys):
    """A child of one's own first, then the readers of its search."""
    reader, front, own = re.findall(r"```python\n(.*?)```", SEARCH, re.DOTALL)
    exec(compile(own, "docs/search.md", "exec"), {"__name__": "example_search"})
    assert "Genotype" in capsys.readouterr().out
    Path("runs/cheapest").rename("runs/first")
    exec(compile(reader, "docs/search.md", "exec"), {})
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 20 and all(line.split()[1] == "done" for line in said)
    exec(compile(front, "docs/search.md", "exec"), {})
    rows = [list(map(float, line.split())) for line in capsys.readouterr().out.splitlines()]
    assert rows and rows == sorted(rows, key=lambda row: row[1]) == sorted(rows, key=lambda row: row[2])


def test_the_columns_of_read_children_are_documented():
    columns = SEARCH.partition("| columns |")[2].partition("\n\n")[0]
    named = {name for row in columns.splitlines()[2:] for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    assert named == set(ChildRow.__annotations__)
