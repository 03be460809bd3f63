"""Several seeds and baselines as one command."""

import json
import shutil
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from toy_search import ToyChild, toy_config
from typer.testing import CliRunner

from nasnet_zoo.cli import app
from nasnet_zoo.errors import ConfigError, JournalError
from nasnet_zoo.search import run, run_several
from nasnet_zoo.search.beside import remembered
from nasnet_zoo.search.history import read_history
from nasnet_zoo.search.several import parts

CELLS = "|{}~0|+|{}~0|{}~1|+|{}~0|{}~1|{}~2|"
OPS = "none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3"


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A table in the form of NAS-Bench-201's: the more convolutions, the better."""
    path = tmp_path_factory.mktemp("table") / "table.csv"
    rows = ["cellstr,cifar10-val,cifar10-test"]
    for number in range(5**6):
        ops = [OPS[number // 5**place % 5] for place in range(6)]
        worth = 50 + 5 * sum("conv" in op for op in ops) + number / 1e5
        rows.append(f"{CELLS.format(*ops)},{worth},{worth}")
    path.write_text("\n".join(rows) + "\n")
    return path


@pytest.fixture
def command(tmp_path, table, monkeypatch):
    """Runs `nasnet-zoo search runs/first ...` with a table, or another command, and gives (exit code, what it printed,
    what it said beside)."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments, new=True):
        start = ["search", "runs/first", "--preset", "tabular", "--data", str(table), "--children", "40"]
        result = CliRunner().invoke(app, [*(start if new else ()), *arguments])
        error = "" if result.exception is None or isinstance(result.exception, SystemExit) else str(result.exception)
        return result.exit_code, result.stdout, result.stderr + error

    return call


def evolution(folder, children):
    return toy_config(folder, children, searcher="evolution")


def journals(tmp_path):
    return {path.parent.name for path in (tmp_path / "runs").glob("*/journal.sqlite")}


def times(tmp_path):
    """When each child of each search finished."""
    return {name: [r.time for r in read_history(tmp_path / "runs" / name).finished] for name in journals(tmp_path)}


def test_the_parts_of_several_searches():
    found = parts(toy_config("runs/a", 30, seed=3, searcher="ppo"), ["random", "evolution", "random"], 2)
    said = [(part.key, part.config.searcher, part.config.seed, part.config.folder) for part in found]
    assert said == [
        ("seeds", "ppo", 3, "runs/a"),
        ("baseline", "random", 3, "runs/a-random"),
        ("baseline", "evolution", 3, "runs/a-evolution"),
        ("seeds", "ppo", 4, "runs/a-seed4"),
        ("baseline", "random", 4, "runs/a-random-seed4"),
        ("baseline", "evolution", 4, "runs/a-evolution-seed4"),
    ]

    def shared(config):
        own = ("searcher", "seed", "controller.", "evolution.")
        return {key: value for key, value in config.identity().items() if not key.startswith(own)}

    for part in found:
        assert shared(part.config) == shared(found[0].config) and part.config.fleet == found[0].config.fleet
        assert part.config.children == found[0].config.children


def test_a_search_that_is_one_of_several_is_the_same_as_alone(tmp_path):
    together, alone = (
        evolution(tmp_path / "a", children=30),
        evolution(tmp_path / "b", children=30),
    )
    results = run_several(together, baseline=["random"], seeds=2, child=ToyChild())
    assert [result.folder.name for result in results] == ["a", "a-random", "a-seed1", "a-random-seed1"]
    assert run(alone, child=ToyChild()).best == results[0].best
    rewards = {name: [record.reward for record in read_history(tmp_path / name).finished] for name in ("a", "b")}
    assert rewards["a"] == rewards["b"] and len(rewards["a"]) == 30


def test_the_report_of_the_first_shows_the_others(tmp_path):
    run_several(evolution(tmp_path / "a", children=30), baseline=["random"], seeds=2, child=ToyChild())
    assert {key: [path.name for path in paths] for key, paths in remembered(tmp_path / "a").items()} == {
        "seeds": ["a-seed1"],
        "baseline": ["a-random", "a-random-seed1"],
    }
    page = (tmp_path / "a" / "report.html").read_text()
    assert "Means over seeds" in page and "random search" in page and "a-random-seed1" in page


def test_one_command_for_seeds_and_a_baseline(command, tmp_path):
    code, printed, said = command("--seeds", "2", "--baseline", "random")
    assert code == 0, said
    assert journals(tmp_path) == {"first", "first-random", "first-seed1", "first-random-seed1"}
    assert "search 1 of 4: PPO, seed 0, in runs/first\n" in said
    assert "search 4 of 4: random search, seed 1, in runs/first-random-seed1\n" in said
    lines = printed.splitlines()
    assert lines[0].split() == ["searcher", "seeds", "mean", "reward", "of", "the", "last", "40", "best"]
    assert lines[1].startswith("PPO") and lines[2].startswith("random search") and "±" in lines[1]
    assert lines[3] == "± is half of the 95% interval over the seeds, by Student's t"
    rewards = {seed: read_history(tmp_path / f"runs/first{seed}") for seed in ("", "-seed1")}
    best = max(record.reward for history in rewards.values() for record in history.finished)
    assert f"reward {best:.4f}" in lines[4]
    assert json.loads(command("--seeds", "2", "--json")[1])["reward"] == best


def test_what_was_searched_is_not_searched_again(command, tmp_path):
    assert command("--seeds", "2")[0] == 0
    before = times(tmp_path)
    code, printed, _ = command("search", "runs/first", "--seeds", "3", "--baseline", "random", new=False)
    assert code == 0 and printed.splitlines()[1].split()[:2] == ["PPO", "3"]
    after = times(tmp_path)
    assert {name: after[name] for name in before} == before and len(after) == 6


def test_an_interrupted_command_says_all_of_what_continues(command, tmp_path, monkeypatch):
    from nasnet_zoo.search import several

    def interrupted(config, **options):
        if config.folder.endswith("seed1"):
            raise KeyboardInterrupt
        return run(config, **options)

    with monkeypatch.context() as patch:
        patch.setattr(several, "run", interrupted)
        code, _, said = command("--seeds", "2", "--baseline", "random")
    continues = "nasnet-zoo search runs/first --baseline random --seeds 2"
    assert code == 130 and f"stopped; `{continues}` continues from here" in said
    assert journals(tmp_path) == {"first", "first-random"}
    assert command(*continues.split()[1:], new=False)[0] == 0 and len(journals(tmp_path)) == 4


def test_a_folder_of_a_search_is_a_baseline_too(command, tmp_path):
    assert command("--searcher", "random")[0] == 0
    shutil.move(tmp_path / "runs" / "first", tmp_path / "runs" / "old")
    assert command("--baseline", "runs/old")[0] == 0
    assert [path.name for path in remembered(tmp_path / "runs" / "first")["baseline"]] == ["old"]
    assert journals(tmp_path) == {"first", "old"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--baseline", "nobody"], "--baseline nobody: there is no such searcher and no such folder: name one of"),
        (["--baseline", "ppo"], "ppo is the search's own searcher: name another baseline, or more seeds"),
        (["--seeds", "0"], "Invalid value for '--seeds'"),
    ],
)
def test_bad_names(command, tmp_path, arguments, said):
    code, _, error = command(*arguments)
    assert code != 0 and said in error and not (tmp_path / "runs").exists()


def test_a_folder_of_something_else_is_told_before_anything_is_searched(command, tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "first-random").write_text("mine")
    code, _, error = command("--baseline", "random")
    assert code == 1 and "first-random" in error and not (tmp_path / "runs" / "first").exists()


def test_too_few_seeds_in_python():
    with pytest.raises(ConfigError, match="0 seeds are too few"):
        parts(toy_config("runs/a", 30), seeds=0)


def test_a_watched_part_gets_its_drivers(tmp_path):
    seen = []

    @contextmanager
    def watched(part):
        yield lambda driver: seen.append((part.config.folder, driver.config.folder))

    run_several(evolution(tmp_path / "a", children=20), seeds=2, child=ToyChild(), watched=watched)
    assert len({there for there, _ in seen}) == 2 and all(there == driver for there, driver in seen)


def test_another_search_in_a_folder_is_told_before_anything_is_searched(tmp_path):
    run(replace(evolution(tmp_path / "a-seed1", children=20), seed=7), child=ToyChild())
    with pytest.raises(JournalError, match=r"a-seed1 holds a search with another config \(seed 7 there, 1 here\)"):
        run_several(evolution(tmp_path / "a", children=20), seeds=2, child=ToyChild())
    assert not (tmp_path / "a").exists()


def test_a_report_that_cannot_be_written_ends_no_search(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("nasnet_zoo.search.report.report.write_report", lambda *arguments: 1 / 0)
    results = run_several(evolution(tmp_path / "a", children=20), seeds=3, child=ToyChild())
    assert len(results) == 3 and "report.html could not be written" in caplog.text


@pytest.mark.parametrize("name", [".", "../first", "./", "../first/"])
def test_no_search_lies_in_the_folder_of_another(tmp_path, monkeypatch, name):
    (tmp_path / "first").mkdir()
    monkeypatch.chdir(tmp_path / "first")
    found = [Path(part.config.folder).resolve() for part in parts(replace(evolution(name, 20)), ["random"], 2)]
    names = ["first", "first-random", "first-seed1", "first-random-seed1"]
    assert found == [tmp_path.resolve() / name for name in names]


def test_a_searcher_s_name_is_the_searcher_and_baselines_add_up(command, tmp_path):
    (tmp_path / "random").mkdir()
    assert command("--baseline", "random")[0] == 0
    shutil.copytree(tmp_path / "runs" / "first-random", tmp_path / "runs" / "old")
    assert command("--baseline", "runs/old")[0] == 0
    named = [path.name for path in remembered(tmp_path / "runs" / "first")["baseline"]]
    assert named == ["first-random", "old"] and list((tmp_path / "random").iterdir()) == []


def test_evolution_of_too_few_children_is_told(command):
    said = command("--baseline", "evolution")[2]
    assert "evolution begins with 100 random children, and there are 40: --set evolution.population=5" in said
    assert "evolution begins with" not in command("--baseline", "random")[2]


def test_json_is_all_that_is_printed(command):
    enqueue = ["search", "runs/a", "--space", "nasnet", "--enqueue", "NASNet-A", "--preset", "nasnet", "--json"]
    code, printed, said = command(*enqueue, "--set", "child.data=none", new=False)
    assert code != 0 and printed == "" and "NASNet-A: the normal cell hands on states" in said
