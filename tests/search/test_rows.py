"""The rows of read_children, and as CSV and JSON on the command line."""

import csv
import json
import math
import sqlite3
from contextlib import closing
from io import StringIO

import pytest
from toy_children import ToyChild as Worker
from toy_search import ToyChild, toy_config, toy_run

import nasnet_zoo
from nasnet_zoo import NetworkConfig
from nasnet_zoo.arch.cost import network_cost
from nasnet_zoo.errors import JournalError
from nasnet_zoo.search import ChildSettings, SpaceSettings, read_children, run
from nasnet_zoo.search.children.base import ChildFailure
from nasnet_zoo.search.driver import child_seed


@pytest.fixture(autouse=True)
def without_report(monkeypatch):
    monkeypatch.setattr("nasnet_zoo.search.report.report.write_report", lambda *arguments: None)


class Stopped(ToyChild):
    """Child 1 fails, child 2 has a metric that is no number, and child 4 is interrupted."""

    calls = 0

    def __call__(self, architecture, seed):
        self.calls += 1
        match self.calls:
            case 2:
                raise ChildFailure("nan", 'the loss of epoch 1 is nan;\n"at once"')
            case 3:
                return super().__call__(architecture, seed) | {"losses": [2.5, math.nan], "top5": math.nan}
            case 5:
                raise KeyboardInterrupt
        return super().__call__(architecture, seed)


@pytest.fixture
def folder(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(toy_config(tmp_path / "run", 8, seed=3), child=Stopped())
    return tmp_path / "run"


def test_rows_say_all_about_each_child(folder):
    rows = read_children(folder)
    assert [row["status"] for row in rows] == ["done", "nan", "done", "done", "started", *["proposed"] * 3]
    assert [row["child"] for row in rows] == list(range(8))
    assert [row["seed"] for row in rows] == [child_seed(3, child) for child in range(8)]
    assert rows[1]["message"] == 'the loss of epoch 1 is nan;\n"at once"' and rows[1]["reward"] == rows[0]["reward"]
    first, last = rows[0], rows[-1]
    assert first["reward"] == first["metrics"]["accuracy"] and first["message"] is None
    assert first["device"] == "cpu" and first["worker"].endswith(":cpu") and first["seconds"] >= 0
    assert all(last[key] is None for key in ("reward", "seconds", "worker", "device", "time", "message"))
    best = json.loads((folder / "best.json").read_text())
    row = rows[best["child"]]
    assert {key: row[key] for key in best} == best


def test_the_cost_is_that_of_the_network_that_the_child_is(folder):
    for row in read_children(folder):
        network = ChildSettings().network(nasnet_zoo.Genotype.from_json(row["architecture"]), "cell")
        assert isinstance(network, NetworkConfig)
        cost = network_cost(network)
        assert (row["parameters"], row["multiply_adds"]) == (cost.parameters, cost.multiply_adds)


def test_what_a_child_says_of_its_cost_counts(tmp_path):
    class Says(ToyChild):
        def __call__(self, architecture, seed):
            return super().__call__(architecture, seed) | {"parameters": 7}

    run(toy_config(tmp_path, 2), child=Says())
    assert [row["parameters"] for row in read_children(tmp_path)] == [7, 7]


def test_cells_that_are_looked_up_have_no_cost(tmp_path):
    config = toy_config(tmp_path, 3, space=SpaceSettings("nasbench201"), child=ChildSettings("nasbench201"))
    run(config, child=Worker(str(tmp_path)))
    for row in read_children(tmp_path):
        assert row["kind"] is row["parameters"] is row["multiply_adds"] is None
        assert row["architecture"].startswith("|")


def test_children_can_be_read_while_the_search_runs(tmp_path):
    seen = []
    run(
        toy_config(tmp_path, 5),
        child=ToyChild(),
        on_change=lambda driver: seen.append((len(driver.finished), read_children(tmp_path))),
    )
    assert {count for count, _ in seen} == set(range(6))
    for count, rows in seen:
        assert [row["status"] for row in rows].count("done") == count


def test_csv_and_json_on_the_command_line(folder, run):
    before = sorted(path.name for path in folder.iterdir())
    code, said, _ = run("report", folder, "--json")
    rows = json.loads(said, parse_constant=lambda text: pytest.fail(f"{text} is no JSON"))
    assert code == 0 and rows[2]["metrics"]["top5"] is None and rows[2]["metrics"]["losses"] == [2.5, None]
    code, said, _ = run("report", folder, "--csv")
    table = list(csv.DictReader(StringIO(said, newline="")))
    assert code == 0 and len(table) == len(rows) == 8
    for line, row in zip(table, rows):
        assert line["tokens"] == " ".join(map(str, row["tokens"])) and line["hash"] == row["hash"]
        assert json.loads(line["architecture"]) == row["architecture"]
        assert line["status"] == row["status"] and line["message"] == (row["message"] or "")
        assert line["metrics.accuracy"] == str(row["metrics"].get("accuracy", ""))
        assert line["multiply_adds"] == str(row["multiply_adds"])
    assert sorted(path.name for path in folder.iterdir()) == before


def test_options_that_do_not_go_together(folder, run):
    for options in (("--csv", "--json"), ("--csv", "--baseline", folder)):
        code, _, said = run("report", folder, *options)
        assert code == 2 and "give --csv, --json or --pareto alone" in said
    code, _, said = run("report", folder / "nowhere", "--csv")
    assert code == 2 and "there is no journal" in said


def test_a_search_that_has_proposed_nothing_has_a_head_and_no_rows(tmp_path, run):
    toy_run(tmp_path, 1)

    with closing(sqlite3.connect(tmp_path / "journal.sqlite")) as journal, journal:
        journal.execute("DELETE FROM events WHERE kind <> 'session'")
    assert read_children(tmp_path) == []
    assert run("report", tmp_path, "--csv")[1].startswith("child,seed,status,message,reward,parameters,")
    assert run("report", tmp_path, "--json")[1] == "[]\n"
    with pytest.raises(JournalError):
        read_children(tmp_path / "none")
