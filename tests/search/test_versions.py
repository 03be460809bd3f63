"""Searches across versions: an older one's go on as they would have, and a later one's are left alone."""

import json
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from golden_child import GoldenChild
from toy_search import ToyChild, toy_config
from typer.testing import CliRunner

from nasnet_zoo.cli import search as cli_search  # noqa: F401 - registers its commands
from nasnet_zoo.cli.app import app
from nasnet_zoo.errors import JournalError, ZooError
from nasnet_zoo.search import ChildSettings, FailureSettings, FleetSettings, SpaceSettings, read_search_config, run
from nasnet_zoo.search.history import read_history
from nasnet_zoo.search.journal import read_events
from nasnet_zoo.search.report.report import write_report


@pytest.fixture(params=["slim", "nds"])
def begun(request, golden, tmp_path) -> tuple[Path, list]:
    """A run folder of the first version, killed at 33 of 60 children, and what its children were in the end."""
    source = golden / "v1" / f"search-{request.param}"
    shutil.copytree(source, tmp_path / "run")
    end = json.loads(source.with_name(f"{source.name}-end.json").read_text())
    return tmp_path / "run", [[tokens, status, reward] for tokens, _, status, reward in end]


def execute(folder: Path, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(folder / "journal.sqlite")) as connection, connection:
        connection.execute(statement, values)


def gone_on_with(folder: Path, **changes) -> list:
    config = replace(read_search_config(folder / "config.json"), folder=str(folder), **changes)
    run(config, child=GoldenChild())
    return [[list(r.tokens), r.status, r.reward] for r in read_history(folder).records]


def sessions(folder: Path) -> list[dict]:
    return [event.body for event in read_events(folder / "journal.sqlite")[1] if event.kind == "session"]


def state(folder: Path) -> dict[str, tuple]:
    """Everything that is in a folder, when it was written, and when the folder was."""
    files = {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()}
    return files | {".": (folder.stat().st_mtime_ns,)}


def test_a_search_of_the_first_version_goes_on(begun):
    folder, end = begun
    assert gone_on_with(folder) == end
    assert sessions(folder)[-1]["changed"] == {}
    assert "<svg" in (folder / "report.html").read_text()


def test_a_search_begun_before_a_setting_existed_goes_on(begun):
    """What has its default there may be missing."""
    folder, end = begun
    missing = {"child.recipe.separable", "child.recipe.dropout", "child.whiten", "failures.lost", "reward", "repeats"}
    identity = read_events(folder / "journal.sqlite")[0]["identity"]
    kept = {key: value for key, value in identity.items() if key not in missing}
    assert len(kept) == len(identity) - len(missing)
    execute(folder, "UPDATE meta SET value = ? WHERE key = 'identity'", json.dumps(kept))
    config = json.loads((folder / "config.json").read_text())
    del config["child"]["recipe"]["separable"], config["child"]["whiten"], config["failures"]["lost"], config["repeats"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(JournalError, match=r"another config \(child.whiten False there, True here\)"):
        gone_on_with(folder, child=replace(read_search_config(folder / "config.json").child, whiten=True))
    assert gone_on_with(folder) == end


def test_what_may_change_when_a_search_is_resumed_is_told(begun):
    folder, end = begun
    child = replace(read_search_config(folder / "config.json").child, seconds=60.0, data="elsewhere")
    changes = dict(failures=FailureSettings(nan="skip", stop=30, floor=0.0), repeats="serve", child=child)
    gone_on_with(folder, **changes, fleet=FleetSettings(devices=("cpu",), per_device=1), children=110)
    assert sessions(folder)[-1]["changed"] == {
        "child.data": [None, "elsewhere"],
        "child.seconds": [None, 60.0],
        "children": [60, 110],
        "failures.nan": ["floor", "skip"],
        "failures.stop": [20, 30],
        "fleet.devices": [[], ["cpu"]],
        "repeats": ["train", "serve"],
    }
    records = read_history(folder).records
    assert {r.reward for r in records if r.status == "nan"} == {0.0, None}  # before and after
    gone_on_with(folder)
    assert sessions(folder)[-1]["changed"] == {}
    with pytest.raises(JournalError, match=r"another config \(child.recipe.cutout 0 there, 8 here\)"):
        gone_on_with(folder, child=replace(child, recipe=replace(child.recipe, cutout=8)))


def rewrite_config(folder: Path, **changes) -> None:
    value = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(value | changes))


def rewrite_identity(folder: Path, **changes) -> None:
    identity = read_events(folder / "journal.sqlite")[0]["identity"]
    execute(folder, "UPDATE meta SET value = ? WHERE key = 'identity'", json.dumps(identity | changes))


LATER = {
    "journal": (
        lambda folder: execute(folder, "UPDATE meta SET value = '2' WHERE key = 'format_version'"),
        "format 2,",
    ),
    "event": (lambda folder: execute(folder, "INSERT INTO events VALUES (1000, 0, 'cloned', 3, '{}')"), "cloned"),
    "config": (lambda folder: rewrite_config(folder, format_version=3, novelty=3), "format_version 3, this"),
    "field": (lambda folder: rewrite_config(folder, novelty={"weight": 3}), "config, novelty: there is no such field"),
    "searcher": (lambda folder: rewrite_config(folder, searcher="oracle"), "no searcher 'oracle'"),
}


@pytest.mark.parametrize("what", LATER)
@pytest.mark.parametrize("way", ["run", "command line", "report"])
def test_a_later_versions_folder_is_left_alone(golden, tmp_path, what, way):
    folder = tmp_path / "run"
    shutil.copytree(golden / "v1" / "search-nds", folder)
    config = replace(read_search_config(folder / "config.json"), folder=str(folder))
    write, said = LATER[what]
    write(folder)
    before = state(folder)
    with pytest.raises(ZooError) as told:
        if way == "run":
            run(config, child=GoldenChild())
        elif way == "command line":
            CliRunner().invoke(app, ["search", str(folder), "--children", "70"], catch_exceptions=False)
        else:
            write_report(folder)
    assert said in str(told.value) and "use the " in str(told.value) and "\n" not in str(told.value)
    after = state(folder)
    if way == "report":
        assert after.keys() == before.keys()
        assert all(after[name] == before[name] for name in after if name != ".")
    else:
        assert after == before


def test_a_later_versions_identity_is_refused(golden, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(golden / "v1" / "search-nds", folder)
    rewrite_identity(folder, **{"evolution.crossover": 0.5})
    with pytest.raises(
        JournalError, match="journal.sqlite is of another nasnet_zoo .*evolution.crossover: there is no .*use the"
    ):
        gone_on_with(folder)


KILLED = """
import os, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA journal_mode = WAL")
connection.execute("INSERT INTO events VALUES (1000, 0, 'cloned', 3, '{}')")
os._exit(1)
"""


def test_what_a_killed_later_version_left_is_left_alone(golden, tmp_path):
    """Its last events are in the write-ahead log, which SQLite would move into the journal."""
    folder = tmp_path / "run"
    shutil.copytree(golden / "v1" / "search-nds", folder)
    config = replace(read_search_config(folder / "config.json"), folder=str(folder))
    subprocess.run([sys.executable, "-c", KILLED, folder / "journal.sqlite"])
    assert (folder / "journal.sqlite-wal").stat().st_size > 0
    before = state(folder)
    with pytest.raises(JournalError, match="events that this nasnet_zoo does not know .cloned."):
        run(config, child=GoldenChild())
    assert state(folder) == before


class WithContext(ToyChild):
    def __init__(self, **context: str) -> None:
        self.hashes = context

    def context(self) -> dict[str, str]:
        return self.hashes


def test_a_search_goes_on_with_the_same_data_alone(tmp_path):
    def go_on(children: int, child: ToyChild) -> None:
        run(toy_config(tmp_path, children), child=child)

    go_on(20, ToyChild())
    go_on(25, WithContext(weights="a" * 64))
    go_on(30, WithContext(weights="a" * 64, pictures="c" * 64))
    go_on(35, ToyChild())  # which says nothing of it
    for wrong in (WithContext(weights="b" * 64), WithContext(weights="a" * 64, pictures="b" * 64)):
        with pytest.raises(
            JournalError, match=r"whose children had another \w+ \([ac]{12} there, b{12} here\): name the"
        ):
            go_on(40, wrong)
    go_on(40, WithContext(weights="a" * 64))
    assert [session["context"] for session in sessions(tmp_path)] == [
        {},
        {"weights": "a" * 64},
        {"weights": "a" * 64, "pictures": "c" * 64},
        {},
        {"weights": "a" * 64},
    ]


def test_another_table_is_other_data(tmp_path):
    space = SpaceSettings("nasbench201", ops=("none",))
    config = toy_config(tmp_path / "run", 10, space=space, child=ChildSettings("nasbench201"))
    for accuracy in (50, 60):
        path = tmp_path / f"{accuracy}.csv"
        edge = "|none~0|"
        path.write_text(
            f"cellstr,cifar10-val,cifar10-test\n{edge}+{edge}none~1|+{edge}none~1|none~2|,{accuracy},{accuracy}\n"
        )
        child = ChildSettings("nasbench201", str(path))
        if accuracy == 50:
            run(replace(config, child=child))
        else:
            with pytest.raises(JournalError, match="whose children had another table"):
                run(replace(config, child=child, children=20))
    (tmp_path / "moved").mkdir()
    moved = shutil.copy(tmp_path / "50.csv", tmp_path / "moved")
    assert run(replace(config, child=ChildSettings("nasbench201", moved), children=20)).children == 20
