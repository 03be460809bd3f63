"""Damaged values anywhere in a run folder: every reader works, or says so in one sentence and changes nothing."""

import json
import os
import random
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from toy_search import LearningChild, ToyChild, toy_config

from nasnet_zoo.errors import JournalError, ZooError
from nasnet_zoo.lookup import find_architecture
from nasnet_zoo.search import ControllerSettings, EvolutionSettings, RungSettings, run, watch
from nasnet_zoo.search.driver import Driver
from nasnet_zoo.search.fleet.inline import InlineFleet
from nasnet_zoo.search.folder import BEST, CONFIG, JOURNAL, open_journal, read_config
from nasnet_zoo.search.history import read_history
from nasnet_zoo.search.journal import pack_state, unpack_state
from nasnet_zoo.search.report.report import write_report
from nasnet_zoo.search.reranking import BEST_RERANKED, RERANK, rerank
from nasnet_zoo.search.scaling import Target, transfer
from nasnet_zoo.search.searchers.table import make_searcher

CHILDREN = 22
CASES = 8  # of the hundreds in each test, chosen by a seed
DEEP = 10_000
# Values of every type and of no sense, as JSON; then what Python does not read, or only in part.
SOUND = ["null", "true", "[]", "{}", '""', '"text"', "-1", "0.5", "1e400", "-1e400", "NaN", "1e29", "-1e29", "99999"]
SOUND += ["1" + 30 * "0", "1" + 400 * "0", "2147483647", "[null]", '[[1, "a"]]', "[-1]", "[1e400]", '{"": {"": 1e400}}']
BROKEN = ['{"a": [1, 2', "1" + 5000 * "0", '"\\ud800"', "[" * DEEP, "[" * DEEP + "]" * DEEP]
BROKEN += ['{"a":' * DEEP + "1" + "}" * DEEP]
TEXTS = SOUND + BROKEN
VALUES = [None, -1, 3, 10**18, 1e308, float("inf"), "", "text", b"", b"\0\xff", *SOUND[:12], *BROKEN]


@pytest.fixture(scope="module", params=["ppo", "evolution", "random", "random, with rungs"])
def finished(request, tmp_path_factory) -> Path:
    """The folder of a search of 22 children, two of which its searcher has not learned from."""
    folder = tmp_path_factory.mktemp(request.param) / "run"
    sections = {
        "ppo": {"controller": ControllerSettings(batch=4, hidden=8, epochs=1)},
        "evolution": {"evolution": EvolutionSettings(population=4, sample=2)},
        "random": {},
        "random, with rungs": {"rungs": RungSettings((2, 4))},
    }
    config = toy_config(folder, CHILDREN, searcher=request.param.partition(",")[0], **sections[request.param])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(watch.Reporter, "write", lambda self: None)
        run(config, child=LearningChild())
    return folder


@pytest.fixture
def folder(finished, tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(watch.Reporter, "write", lambda self: None)  # the report is tried by itself
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def outcome(read: Callable[[Path], Any], folder: Path) -> str:
    """What is wrong with how a reader takes the folder; nothing if it works, or says in a sentence that it does not and
    leaves the journal and the config alone."""
    before = {name: (folder / name).read_bytes() for name in (JOURNAL, CONFIG)}
    try:
        read(folder)
        return ""
    except ZooError as error:
        if "\n" in str(error) or len(str(error)) > 1000:
            return f"a long message: {str(error)[:300]!r}"
    except BaseException as error:
        return f"{type(error).__name__}: {str(error)[:200]!r}"
    changed = [name for name, content in before.items() if (folder / name).read_bytes() != content]
    return f"it changed {changed}" if changed else ""


def resume(folder: Path) -> None:
    """Six more children, so that the searcher proposes and learns."""
    config = replace(read_config(folder), folder=str(folder), children=CHILDREN + 6)
    space = config.space.space()
    journal, session = open_journal(config)
    with closing(journal), InlineFleet(LearningChild(), "cpu") as fleet:
        Driver(config, space, make_searcher(config, space), journal, session=session).run(fleet)


def tried(finished: Path, folder: Path, cases: list[tuple[Any, Callable[[Path], Any]]], *reads) -> None:
    """Tries the readers on some of the cases, which are names and what they do to a copy of the folder."""
    wrong: list[str] = []
    for name, damage in random.Random(0).sample(cases, min(len(cases), CASES)):
        for read in reads:
            shutil.rmtree(folder)
            shutil.copytree(finished, folder)
            try:
                damage(folder)
            except sqlite3.IntegrityError:
                continue  # SQLite itself refuses it
            if said := outcome(read, folder):
                wrong.append(f"{read.__name__}, {str(name)[:80]}: {said}")
    assert not wrong


def execute(folder: Path, statement: str, *values: Any) -> list[tuple]:
    with closing(sqlite3.connect(folder / JOURNAL)) as connection, connection:
        return connection.execute(statement, values).fetchall()


def sql(statement: str, *values: Any) -> Callable[[Path], None]:
    return lambda folder: execute(folder, statement, *values) and None


def bodies(folder: Path) -> Iterator[tuple[int, str, dict]]:
    """An event of each kind from the middle of the journal, and the last one."""
    for kind, *_ in execute(folder, "SELECT DISTINCT kind FROM events"):
        events = execute(folder, "SELECT id, kind, body FROM events WHERE kind = ? ORDER BY id", kind)
        for number, kind, body in sorted({events[0], events[len(events) // 2], events[-1]}):
            yield number, kind, json.loads(body)


def with_value(value: Any, path: tuple, text: str | None) -> str:
    """The JSON of a value in which what is at the path is a JSON text, or is not there."""
    value = json.loads(json.dumps(value))
    place = value
    for part in path[:-1]:
        place = place[part]
    if text is None:
        del place[path[-1]]
        return json.dumps(value)
    place[path[-1]] = "@here@"
    return json.dumps(value).replace('"@here@"', text)


def paths(value: Any, above: tuple = ()) -> Iterator[tuple]:
    """The places of everything in a JSON value, of lists the first and last element only."""
    if isinstance(value, dict):
        keys = list(value)
    else:
        keys = sorted({0, len(value) - 1}) if isinstance(value, list) and value else []
    for key in keys:
        yield (*above, key)
        yield from paths(value[key], (*above, key))


@pytest.mark.parametrize("text", ["[" * DEEP, "[]", '{"status": "done"}', "NaN"])
def test_the_commands_say_it_in_one_sentence(finished, folder, run, text):
    sql("UPDATE events SET body = ? WHERE kind = 'finished' AND child = 3", text)(folder)
    before = (folder / JOURNAL).read_bytes()
    for command in ("report", "search"):
        code, _, err = run(command, folder)
        assert code == 2 and err.count("\n") == 1, err
        assert f"{folder / JOURNAL} is damaged" in err and "nothing in it was changed" in err
    assert (folder / JOURNAL).read_bytes() == before


@pytest.mark.parametrize("column", ["id", "time", "kind", "child", "body"])
def test_a_column_of_the_events(finished, folder, column):
    cases = [
        ((number, kind, value), sql(f"UPDATE events SET {column} = ? WHERE id = ?", value, number))
        for number, kind, _ in bodies(finished)
        for value in VALUES
    ]
    tried(finished, folder, cases, read_history, resume)


def test_a_field_of_an_event(finished, folder):
    cases = [
        ((kind, path, text), sql("UPDATE events SET body = ? WHERE id = ?", with_value(body, path, text), number))
        for number, kind, body in bodies(finished)
        for path in paths(body)
        for text in [None, *TEXTS]
    ]
    tried(finished, folder, cases, read_history, resume)


def changed(state: dict[str, Any], key: str, path: tuple, text: str) -> bytes:
    """A searcher's state in which a value within an entry is another one."""
    return pack_state({**state, key: json.loads(with_value(state[key], path, text))})


@pytest.mark.parametrize("column", ["event", "state"])
def test_a_column_of_the_snapshot(finished, folder, column):
    [(kept,)] = execute(finished, "SELECT state FROM snapshot")
    values = VALUES if column == "event" else [*VALUES, kept[:100], kept[: len(kept) // 2], kept[8:]]
    tried(finished, folder, [(value, sql(f"UPDATE snapshot SET {column} = ?", value)) for value in values], resume)


def test_a_value_of_the_snapshot(finished, folder):
    """Every entry of the searcher's state, of another type, another shape, or with numbers that are none."""
    state = unpack_state(execute(finished, "SELECT state FROM snapshot")[0][0])
    tensors = [
        torch.zeros(0),
        torch.zeros(3),
        torch.zeros(2, 2, 2),
        torch.zeros(7, dtype=torch.int64),
        torch.ones(()) / 0,
    ]
    strange = [None, True, -1, 10**30, 0.5, float("nan"), "text", [], {}, [None], [[1, 2], [3]], {"a": 1}, *tensors]
    cases = []
    for key, value in state.items():
        replaced = [*strange, value * float("nan")] if isinstance(value, torch.Tensor) else strange
        replaced += [value[:-1], value[:1] + value] if isinstance(value, list) and value else []
        cases += [((key, new), pack_state({**state, key: new})) for new in replaced]
        cases += [((key, "missing"), pack_state({other: state[other] for other in state if other != key}))]
        for path in () if isinstance(value, torch.Tensor) else paths(value):
            cases += [((key, path, text), changed(state, key, path, text)) for text in SOUND]
    damages = [(name, sql("UPDATE snapshot SET state = ?", blob)) for name, blob in cases]
    tried(finished, folder, damages, resume)


@pytest.mark.parametrize("key", ["format_version", "identity"])
def test_a_value_of_the_meta_table(finished, folder, key):
    [(kept,)] = execute(finished, "SELECT value FROM meta WHERE key = ?", key)
    texts = [value for value in VALUES if value is not None] + TEXTS
    if key == "identity":
        identity = json.loads(kept)
        texts += [with_value(identity, path, text) for path in paths(identity) for text in [None, *TEXTS]]
        texts += [json.dumps({**identity, f"{path}.x.y": 1}) for path in identity]
    cases = [(text, sql("UPDATE meta SET value = ? WHERE key = ?", text, key)) for text in texts]
    tried(finished, folder, cases, read_history, resume)


def written(name: str, text: str) -> Callable[[Path], Any]:
    return lambda folder: (folder / name).write_text(text)


def hostile_texts(kept: str) -> list[str]:
    """The JSON with one value replaced, and texts that are no such JSON at all."""
    value = json.loads(kept)
    return [
        *TEXTS,
        "",
        kept[: len(kept) // 2],
        *(with_value(value, p, t) for p in paths(value) for t in [None, *TEXTS]),
    ]


def test_a_value_of_the_config(finished, folder):
    texts = hostile_texts((finished / CONFIG).read_text())
    tried(finished, folder, [(text[:200], written(CONFIG, text)) for text in texts], read_history, resume)


def transfer_best(folder: Path) -> None:
    found = find_architecture(str(folder / BEST))
    transfer(found.architecture, Target(cells=1, penultimate=576), kind=found.kind, stem="cifar")


def test_a_value_of_the_best_cell(finished, folder):
    texts = hostile_texts((finished / BEST).read_text())
    tried(finished, folder, [(text[:200], written(BEST, text)) for text in texts], transfer_best)


def reranked(folder: Path) -> None:
    rerank(folder, 3, epochs=1, child=ToyChild())


def test_a_value_of_the_reranked_cells(finished, folder):
    reranked(folder)
    name = RERANK.format(1)
    kept = (folder / name).read_text()
    tried(finished, folder, [(text[:200], written(name, text)) for text in hostile_texts(kept)], reranked)


def test_the_report_of_damaged_children(finished, folder):
    """Whatever the history takes, the page can show."""
    cases = [
        ((kind, path, text), sql("UPDATE events SET body = ? WHERE id = ?", with_value(body, path, text), number))
        for number, kind, body in bodies(finished)
        if kind in ("finished", "updated", "proposed")
        for path in paths(body)
        for text in ("1e29", "-1e29", "1" + 30 * "0", "[]", '"text"', "0", "null", "1e300")
    ]
    tried(finished, folder, random.Random(1).sample(cases, 6), write_report)


HAUNTED = {
    "trigger": "CREATE TRIGGER t AFTER INSERT ON events BEGIN DELETE FROM events; END",
    "view": "CREATE VIEW v AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i FROM n) SELECT i FROM n",
}


@pytest.mark.parametrize("kind", HAUNTED)
def test_a_journal_that_would_do_something_by_itself(finished, folder, run, kind):
    execute(folder, HAUNTED[kind])
    before = (folder / JOURNAL).read_bytes()
    for command in ("report", "search"):
        code, _, err = run(command, folder)
        assert code == 2 and err.count("\n") == 1 and f"the {kind} " in err
    assert (folder / JOURNAL).read_bytes() == before


def test_events_that_never_end(finished, folder):
    execute(folder, "ALTER TABLE events RENAME TO real")
    numbers = (
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i FROM n) SELECT i AS id, 0.0 AS time, 'session' AS kind"
    )
    execute(folder, f"CREATE VIEW events AS {numbers}, NULL AS child, '{{}}' AS body FROM n")
    with pytest.raises(JournalError, match="the view events"):
        read_history(folder)


def test_a_metric_with_half_a_character_in_its_name(finished, folder, run):
    event, body = execute(folder, "SELECT id, body FROM events WHERE kind = 'finished'")[0]
    value = json.loads(body)
    value["metrics"]["\ud800"] = 0.5
    execute(folder, "UPDATE events SET body = ? WHERE id = ?", json.dumps(value), event)
    assert run("report", folder)[0] == 0 and "accuracy" in (folder / "report.html").read_text(encoding="utf-8")


def test_what_a_reranked_cell_is_comes_from_the_journal(finished, folder):
    reranked(folder)
    expected = (folder / BEST_RERANKED).read_text()
    kept = json.loads((folder / RERANK.format(1)).read_text())
    for child in kept["children"]:
        child["architecture"] = "damaged"
    (folder / RERANK.format(1)).write_text(json.dumps(kept))
    reranked(folder)
    assert json.loads((folder / BEST_RERANKED).read_text()) == json.loads(expected)


@pytest.mark.skipif(os.name != "posix", reason="has no such files")
@pytest.mark.parametrize("name", [CONFIG, BEST])
def test_a_file_without_an_end(finished, folder, name):
    (folder / name).unlink()
    (folder / name).symlink_to("/dev/zero")
    with pytest.raises(ZooError, match="it is no ordinary file"):
        read_history(folder) if name == CONFIG else find_architecture(folder / name)
