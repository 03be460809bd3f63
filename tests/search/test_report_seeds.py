"""A search's report beside other seeds and other searchers, and how it remembers them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from report_page import Page, drawn, legends
from run_folders import TABLE, done, write_folder
from toy_search import ToyChild, toy_config

from nasnet_zoo.errors import ConfigError, JournalError, SearchError
from nasnet_zoo.search import SearchConfig, run
from nasnet_zoo.search.beside import distinct, remember, remembered
from nasnet_zoo.search.report import charts
from nasnet_zoo.search.report.others import Search
from nasnet_zoo.search.report.report import write_report
from nasnet_zoo.search.report.seeds import interval, learning_curves

T_2, T_1 = 4.302653, 12.706205  # Student's t at 97.5 %, with two degrees of freedom and with one


def search_of(folder: Path, searcher: str, seed: int, *rewards: float, **changes) -> Path:
    config = SearchConfig(folder.name, searcher=searcher, seed=seed, children=len(rewards), **TABLE | changes)
    return write_folder(folder, config, done(*rewards))


@pytest.fixture
def several(tmp_path):
    """Two further seeds of PPO beside tmp_path / "ppo0", three of random search, and one of evolution."""
    for seed, low in enumerate((0.5, 0.6, 0.8)):
        search_of(tmp_path / f"ppo{seed}", "ppo", seed, *np.linspace(low, low + 0.1, 40))
        search_of(tmp_path / f"random{seed}", "random", seed, *[0.25 + seed / 100] * 40)
    search_of(tmp_path / "evolution", "evolution", 0, *[0.625] * 50)
    return tmp_path


def baselines(folder: Path) -> list[Path]:
    return [folder / name for name in ("random0", "random1", "evolution", "random2")]


def test_intervals_are_student_s():
    mean, half = interval(np.array([[1.0, 4.0], [2.0, 4.0], [3.0, 4.0]]))
    assert mean.tolist() == [2.0, 4.0] and half == pytest.approx([T_2 / 3**0.5, 0.0])
    assert interval(np.array([1.0, 3.0])) == pytest.approx((2.0, T_1))
    mean, half = interval(np.array([[5.0]]))
    assert mean.tolist() == [5.0] and np.isnan(half).all()


def test_learning_curves_are_means_at_equal_numbers_of_children(tmp_path):
    plain = search_of(tmp_path / "a", "ppo", 0, 1.0, 2.0, 3.0, 4.0, 5.0)
    failing = done(10.0, 20.0, 30.0, 40.0)
    failing.insert(1, {"status": "nan", "reward": 0.0, "metrics": {}})
    write_folder(tmp_path / "b", SearchConfig("b", **TABLE), failing)
    short = search_of(tmp_path / "c", "ppo", 2, 7.0)
    places, curves = learning_curves([Search.read(tmp_path / name) for name in "abc"], 2)
    assert places.tolist() == [3, 4, 5]  # the second search has two rewards after three children
    assert curves.tolist() == [[2.5, 3.5, 4.5], [15.0, 25.0, 35.0]]
    assert learning_curves([Search.read(short)], 2) is None
    late = [{"status": "oom", "reward": None, "metrics": {}}] * 9 + done(1.0, 1.0)
    write_folder(tmp_path / "d", SearchConfig("d", **TABLE), late)
    assert learning_curves([Search.read(plain), Search.read(tmp_path / "d")], 2) is None  # never at the same time


def test_the_page_has_means_over_seeds(several):
    seeds = [several / "ppo1", several / "ppo2"]
    page = Page(write_report(several / "ppo0", baselines(several), seeds))
    said = page.text("reward")
    assert "Means over seeds, of the first 40 children of each: ± half of the 95% interval (Student's t)" in said
    half = T_2 * np.std([0.55, 0.65, 0.85], ddof=1) / 3**0.5
    ppo = f"0.6833 ± {half:.4f} 0.6833 ± {half:.4f} {np.std([0.55, 0.65, 0.85], ddof=1):.4f} 0.7333 ± {half:.4f}"
    assert f"PPO 3 {ppo}" in said
    noise = f"0.2600 ± {T_2 * 0.01 / 3**0.5:.4f}"
    assert f"random search 3 {noise} {noise} 0.0100 {noise}" in said
    assert "evolution 1 0.6250 0.6250 one seed 0.6250" in said
    # Of the seeds' 40 each, none, 30 and all are above 0.625.
    above = (30 + 40) / 120
    expected = f"random search with probability 1.00, and above one of evolution with probability {above:.2f}."
    assert f"One of the last 40 of each seed of PPO is above one of {expected}" in said
    assert "not between equals" not in said and "nasnet-zoo search" not in said
    assert "mean, last 40 0.5500 random search 0.2600, evolution 0.6250" in page.text()
    (alt, _) = (svg["aria-label"] for svg in page.all("svg") if svg["aria-label"].startswith("Learning curves"))
    assert "the mean of PPO ends at 0.7090, that of random search ends at 0.2600" in alt
    colours = {sign.split()[1] for sign in legends(page)}
    assert {"search", "baseline", "second"} <= colours and "third" not in colours
    for name in ("ppo1", "ppo2", "random0", "random2", "evolution"):
        assert str(several / name) in said


def test_one_search_alone_has_no_means_over_seeds(several):
    said = Page(write_report(several / "ppo0", [several / "random0", several / "evolution"])).text("reward")
    assert "Means over seeds" not in said and "Learning curves" not in said


def test_an_interval_is_drawn_from_three_seeds_on():
    places, curves = np.arange(5), np.arange(15.0).reshape(3, 5)

    def painted(count):
        lines = (places, curves[:count], *interval(curves[:count]), charts.SEARCH)
        axes = drawn(charts.seeds_chart, [lines], (0, 20))
        return len(axes.lines), len(axes.collections)

    assert [painted(count) for count in (1, 2, 3)] == [(1, 0), (3, 0), (4, 1)]


def test_figures_over_seeds_are_of_equally_many_children(tmp_path):
    search_of(tmp_path / "a", "ppo", 0, *[0.5] * 30)
    search_of(tmp_path / "b", "ppo", 1, *[0.5] * 30, *[0.9] * 30)
    said = Page(write_report(tmp_path / "a", [], [tmp_path / "b"])).text("reward")
    assert "of the first 30 children of each" in said and "PPO 2 0.5000 ± 0 0.5000 ± 0 0 0.5000 ± 0" in said


def test_a_seed_that_is_none_is_told(several):
    with pytest.raises(ConfigError, match="holds a search by random search, not by PPO: name it with --baseline"):
        write_report(several / "ppo0", seeds=[several / "random0"])
    with pytest.raises(ConfigError, match="is the run folder of the report itself: name others with --seeds"):
        write_report(several / "ppo0", seeds=[several / "random0" / ".." / "ppo0"])
    with pytest.raises(JournalError, match="there is no journal"):
        write_report(several / "ppo0", seeds=[several / "none"])
    assert not (several / "ppo0" / "report.json").exists()


def test_what_makes_seeds_unlike_is_told(several):
    copy = several / "copy"
    shutil.copytree(several / "ppo0", copy)
    other = search_of(several / "other", "ppo", 5, *[0.5] * 40, repeats="serve")
    small = search_of(several / "small", "evolution", 1, *[0.5] * 40)
    config = json.loads((small / "config.json").read_text())
    config["evolution"]["sample"] = 7
    (small / "config.json").write_text(json.dumps(config))
    said = Page(write_report(several / "ppo0", [several / "evolution", small], [copy, other])).text("reward")
    assert f"{copy}: the same search as in {several / 'ppo0'}, with the same seed" in said
    assert f"{other}: repeats is 'serve' there, 'train' here" in said
    assert f"{small}: evolution.sample is 7 there, 25 in {several / 'evolution'}" in said


def test_a_folder_that_is_named_twice_counts_once(several):
    twice = [several / "ppo1", several / "ppo0" / ".." / "ppo1"]
    assert "PPO 2 " in Page(write_report(several / "ppo0", seeds=twice)).text("reward")


def test_what_was_named_is_remembered(several, run, monkeypatch):
    folder = several / "ppo0"
    monkeypatch.chdir(several)
    options = ["--seeds", "ppo1", "--seeds", several / "ppo2", "--baseline", "random0"]
    assert run("report", "ppo0", *options)[0] == 0
    kept = {"baseline": ["../random0"], "seeds": ["../ppo1", "../ppo2"]}
    assert json.loads((folder / "report.json").read_text()) == kept
    first = Page(folder / "report.html").text("reward")
    assert run("report", "ppo0")[0] == 0
    again = Page(folder / "report.html").text("reward")
    assert again == first.replace(str(several / "ppo2"), "ppo2") and "PPO 3 " in again
    assert run("report", "ppo0", "--baseline", "evolution")[0] == 0  # the seeds stay
    assert remembered("ppo0") == {"baseline": [Path("evolution")], "seeds": [Path("ppo1"), Path("ppo2")]}
    write_report("ppo0", baseline=[])
    assert json.loads((folder / "report.json").read_text()) == kept | {"baseline": []}
    moved = several.parent / f"{several.name}-moved"
    several.rename(moved)
    assert "PPO 3 " in Page(write_report(moved / "ppo0")).text("reward")
    moved.rename(several)


def test_a_report_that_names_nothing_leaves_no_list(several):
    write_report(several / "ppo0")
    assert not (several / "ppo0" / "report.json").exists()


def test_what_was_named_before_and_has_gone_is_left_out(several):
    write_report(several / "ppo0", baselines(several), [several / "ppo1"])
    before = (several / "ppo0" / "report.json").read_text()
    shutil.rmtree(several / "ppo1")
    (several / "random0" / "journal.sqlite").write_bytes(b"no journal" * 1000)
    said = Page(write_report(several / "ppo0")).text("reward")
    assert f"{several / 'ppo1'} was named before with --seeds, and is left out: there is no journal" in said
    assert f"{several / 'random0'} was named before with --baseline, and is left out: " in said
    assert "random search 2 " in said and "PPO 1 " in said
    assert (several / "ppo0" / "report.json").read_text() == before  # they may come back
    with pytest.raises(JournalError):
        write_report(several / "ppo0", [several / "random0"])


DAMAGED = ["", "{", "[]", "null", "[" * 10**5, '{"baseline": "../random0"}', '{"seeds": [3]}']
DAMAGED += [r'{"seeds": ["a\u0000b"]}', r'{"seeds": ["\ud800"]}']  # no path can have these names


@pytest.mark.parametrize("text", DAMAGED)
def test_a_damaged_list_is_ignored_and_written_anew(text, several):
    path = several / "ppo0" / "report.json"
    path.write_text(text)
    assert "PPO" in Page(write_report(several / "ppo0")).text("reward")
    assert path.read_text() == text  # a report for which nothing is named writes no list
    write_report(several / "ppo0", [several / "random0"])
    assert json.loads(path.read_text()) == {"baseline": ["../random0"], "seeds": []}


def test_a_report_for_which_nothing_is_named_keeps_what_is_named_meanwhile(several, monkeypatch):
    write_report(several / "ppo0", [several / "random0"])
    read = Search.read

    def slow(folder):  # another process adds one while the first is read
        if Path(folder).name == "random0":
            others = remembered(several / "ppo0")
            remember(several / "ppo0", others | {"baseline": distinct([*others["baseline"], several / "evolution"])})
        return read(folder)

    monkeypatch.setattr(Search, "read", slow)
    write_report(several / "ppo0")
    write_report(several / "ppo0", seeds=[several / "ppo1"])
    assert {key: [path.name for path in paths] for key, paths in remembered(several / "ppo0").items()} == {
        "baseline": ["random0", "evolution"],
        "seeds": ["ppo1"],
    }


def test_names_that_are_no_run_folder_of_another_search_are_left_out(several):
    names = ["", "../" + "a" * 5000, "../../../../../../../dev/zero", "../random0"]
    (several / "ppo0" / "report.json").write_text(json.dumps({"seeds": names}))
    said = Page(write_report(several / "ppo0")).text("reward")
    assert said.count("was named before with --seeds, and is left out: ") == 4 and "by random search, not by" in said


def test_a_baseline_by_the_same_searcher_is_a_group_of_its_own(several):
    said = Page(write_report(several / "ppo0", [several / "ppo1", several / "ppo2"])).text("reward")
    assert "PPO 1 0.5500 0.5500 one seed 0.6000" in said and "PPO, baseline 2 0.7500 " in said
    assert f"PPO, baseline 40 0.6500 0.6500 0.7000 0.7000 {several / 'ppo1'}" in said


def test_a_list_of_a_later_version_is_read(several):
    (several / "ppo0" / "report.json").write_text('{"seeds": ["../ppo1"], "more": {"a": 1}}')
    assert "PPO 2 " in Page(write_report(several / "ppo0")).text("reward")


def test_a_search_remembers_its_baseline_from_the_start(several):
    class Stopped(ToyChild):
        def __call__(self, architecture, seed):
            raise KeyboardInterrupt

    config = toy_config(several / "new", 3)
    with pytest.raises(KeyboardInterrupt):
        run(config, child=Stopped(), baseline=[several / "random0"])
    assert remembered(several / "new")["baseline"] == [several / "random0"]
    run(config, child=ToyChild())  # resumed, without the baseline
    assert str(several / "random0") in Page(several / "new" / "report.html").text("reward")
    run(config, child=ToyChild(), baseline=[several / "random1"])
    assert remembered(several / "new")["baseline"] == [several / "random1"]


def test_a_search_that_cannot_start_leaves_no_list_and_one_that_cannot_go_on_the_old_one(several):
    class Unprepared(ToyChild):
        def prepare(self, device):
            raise SearchError("no data")

    with pytest.raises(SearchError, match="no data"):
        run(toy_config(several / "new", 3), child=Unprepared(), baseline=[several / "random0"])
    assert not (several / "new").exists()
    run(toy_config(several / "old", 3), child=ToyChild(), baseline=[several / "random0"])
    with pytest.raises(SearchError, match="no data"):
        run(toy_config(several / "old", 4), child=Unprepared(), baseline=[several / "random1"])
    assert remembered(several / "old")["baseline"] == [several / "random0"]


def test_a_list_that_cannot_be_written_is_a_warning(several, caplog):
    (several / "new" / "report.json").mkdir(parents=True)
    assert run(toy_config(several / "new", 3), child=ToyChild(), baseline=[several / "random0"]).children == 3
    assert "the report will show no baseline: " in caplog.text


def test_a_report_without_a_baseline_says_how_to_get_one(several):
    alone = Page(write_report(several / "ppo0")).text("reward")
    assert f"nasnet-zoo search {several / 'ppo0'} --baseline random" in alone
    assert "--baseline random" not in Page(write_report(several / "random0")).text("reward")
    assert "--baseline random" not in Page(write_report(several / "ppo0", [several / "random0"])).text("reward")
