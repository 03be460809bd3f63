import json
import random
import re
import sys
import time
from contextlib import closing
from dataclasses import replace

import jinja2
import numpy as np
import pytest
from report_page import Page, drawn, legends
from run_folders import TABLE, done, small, write_folder

from nasnet_zoo.arch.kinds import KINDS
from nasnet_zoo.errors import ConfigError, JournalError, SearchError
from nasnet_zoo.search import (
    ChildSettings,
    FailureSettings,
    SearchConfig,
    SpaceSettings,
    get_space,
    history,
    journal,
    run,
    watch,
)
from nasnet_zoo.search.children.base import ChildFailure
from nasnet_zoo.search.history import read_history
from nasnet_zoo.search.journal import Journal
from nasnet_zoo.search.report import charts, render, report
from nasnet_zoo.search.report.compare import beats
from nasnet_zoo.search.report.report import write_report
from nasnet_zoo.search.report.tried import places, shares
from nasnet_zoo.search.spaces.base import Choice, FixedSpace
from nasnet_zoo.util.progress import duration

HOSTILE = """</code><script>alert("x")</script>&'"><img src=http://evil.example/x onerror=alert(1)>"""


class OpsChild:
    """The more separable convolutions, the better. Every tenth child or so fails."""

    def prepare(self, device):
        pass

    def __call__(self, genotype, seed):
        if seed % 10 == 0:
            raise ChildFailure("nan", "the loss of epoch 1 is nan")
        edges = [edge for cell in (genotype.normal, genotype.reduction) for b in cell.blocks for edge in b[:2]]
        share = sum(edge.op.startswith("sep") for edge in edges) / len(edges)
        return {"accuracy": 0.5 + 0.4 * share + seed % 7 / 1000, "parameters": 1000 + seed % 10, "losses": [1.0]}


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """The run folder of a search by PPO, with two random searches beside it."""
    folder, rng = tmp_path_factory.mktemp("report"), random.Random(0)
    baseline = [
        write_folder(folder / name, small(name, searcher="random"), done(*(rng.uniform(0.5, 0.8) for _ in range(60))))
        for name in ("random-0", "random-1")
    ]
    run(small(folder / "ppo"), child=OpsChild(), baseline=baseline)
    return folder / "ppo"


@pytest.fixture(scope="module")
def page(searched):
    return Page(searched / "report.html")


def test_a_search_leaves_a_report_with_all_its_parts(page):
    headings = ["Reward", "Policy", "What was tried", "Best cells", "Cost", "Failures", "Settings"]
    assert [a["id"] for a in page.all("section")] == [heading.lower().replace(" ", "-") for heading in headings]
    assert all(heading in page.text(heading.lower().replace(" ", "-")) for heading in headings)
    assert not page.open
    pictures = [svg["aria-label"] for svg in page.all("svg")]
    assert any(label.startswith("The policy's updates") for label in pictures)
    pictures = [label for label in pictures if not label.startswith("The policy's updates")]
    starts = [start for start in ("Reward", "Learning curves", "Distribution") for _ in ("wide", "narrow")]
    starts += ["Normal cell", "Reduction cell"] * 2
    starts += ["Drawing of the cells"] * 6 + ["Accuracy against multiply-adds", "Accuracy against parameters"]
    assert len(pictures) == len(starts) and all(map(str.startswith, pictures, starts))
    assert all(svg["role"] == "img" for svg in page.all("svg"))
    assert "60 of 60; 60 distinct" in page.text()
    assert "random search" in page.text("reward")


def test_a_report_can_be_read_without_seeing_it(page):
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and all(after - before <= 1 for before, after in zip(levels, levels[1:]))
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert len(page.all("caption")) == len(page.all("table")) and all(th["scope"] == "col" for th in page.all("th"))
    assert all(div["aria-label"] for div in page.all("div") if "tabindex" in div)
    assert page.all("html") == [{"lang": "en"}]
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.all("meta")


def test_a_report_needs_nothing_but_itself(page):
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.elements}
    references = [a[key] for _, a in page.elements for key in ("src", "href", "xlink:href") if key in a]
    ids = {attributes["id"] for _, attributes in page.elements if "id" in attributes}
    assert references and all(ref.startswith("data:") or ref[1:] in ids for ref in references)
    assert all(target in ids for target in re.findall(r"url\(#([^)]+)\)", page.source))
    assert not re.search(r"https?:|@import|url\((?!#)", page.source)


def test_both_colour_schemes_have_all_colours(page):
    style = page.source[page.source.index("<style>") : page.source.index("</style>")]
    light, dark = re.findall(r":root\{(.*?)\}", style)
    used = set(re.findall(r"var\(--([a-z]+)\)", page.source)) - {"colour"}
    assert used <= set(re.findall(r"--([a-z]+):", light)) and used <= set(re.findall(r"--([a-z]+):", dark))
    assert not any(colour in page.source[page.source.index("</style>") :] for colour, _ in charts.COLOURS.values())


def test_the_figures_are_those_of_the_journal(tmp_path):
    other = write_folder(tmp_path / "r", SearchConfig("r", searcher="random", **TABLE), done(0.1, 0.2, 0.3))
    rewards = [*np.linspace(0.2, 0.8, 150), 0.95, *np.linspace(0.6, 0.7, 49)]
    children = [*done(*rewards), {"status": "nan", "reward": 0.0, "metrics": {}}, {"status": "oom", "reward": None}]
    children[-1]["metrics"] = {}
    write_folder(tmp_path / "s", SearchConfig("s", children=400, **TABLE), children)
    page = Page(write_report(tmp_path / "s", [other]))
    last = np.mean(rewards[-100:])
    assert f"best reward 0.9500 child 150 mean, last 100 {last:.4f} random search 0.2000" in page.text()
    assert "202 of 400; 5 distinct" in page.text() and "failed 2 1 nan, 1 oom" in page.text()
    assert "Not finished" in page.text()
    row = f"PPO 200 {np.mean(rewards):.4f} {last:.4f} 0.9500 {max(rewards[:3]):.4f}"
    assert row in page.text("reward") and "random search 3 0.2000 0.2000 0.3000 0.3000" in page.text("reward")
    assert "One of the last 100 of PPO is above one of random search with probability 1.00." in page.text("reward")


def test_the_best_cells_are_distinct(tmp_path):
    a, b = (1,) * 6, (2,) * 6
    children = [dict(child, tokens=tokens) for child, tokens in zip(done(0.5, 0.7, 0.6, 0.4), (a, a, b, b))]
    page = Page(write_report(write_folder(tmp_path, SearchConfig("s", children=4, **TABLE), children)))
    space = get_space("nasbench201")
    assert f"1 1 0.7000 2 0.6000 {space.decode(a)}" in page.text("best-cells")
    assert f"2 2 0.6000 2 0.5000 {space.decode(b)}" in page.text("best-cells")
    assert "h3" not in dict(page.elements)  # this space's cells cannot be drawn


def test_a_metric_that_some_children_lack(tmp_path):
    children = done(0.9, 0.8, 0.7)
    for child, parameters in zip(children, (1234, None, "many")):
        child["metrics"] = {"accuracy": child["reward"], "parameters": parameters}
    children[2]["metrics"].pop("parameters")
    page = Page(write_report(write_folder(tmp_path, SearchConfig("s", **TABLE), children)))
    assert "1 0 0.9000 1 0.9000 1,234" in page.text("best-cells")
    assert "2 1 0.8000 1 0.8000 nan" in page.text("best-cells") and "3 2 0.7000 1 0.7000 nan" in page.text("best-cells")


def test_a_space_that_has_neither_ops_nor_a_kind(tmp_path, monkeypatch):
    class Rows(FixedSpace):
        name, kind, decisions = "rows", None, (Choice("row", 5),)

        def decode(self, tokens):
            return f"row {tokens[0]}"

        encode = to_json = hash = str

    monkeypatch.setattr(SpaceSettings, "space", lambda settings: Rows())
    page = Page(write_report(write_folder(tmp_path, SearchConfig("s", **TABLE), done(*np.linspace(0.1, 0.9, 50)))))
    assert [a["id"] for a in page.all("section")] == ["reward", "best-cells", "cost", "failures", "settings"]
    assert "1 49 0.9000" in page.text("best-cells") and "row 4" in page.text("best-cells")


@pytest.mark.parametrize("children", [[], [{}] * 50])
def test_a_search_without_results_says_so(children, tmp_path):
    page = Page(write_report(write_folder(tmp_path, SearchConfig("s", **TABLE), children)))
    assert "No child has a result yet." in page.text("reward")
    assert ("what-was-tried" in page.texts) == bool(children)


def test_a_search_whose_children_all_fail(tmp_path):
    children = [{"status": "error", "reward": 0.0, "metrics": {}, "message": "first line\nlast line"}] * 30
    page = Page(write_report(write_folder(tmp_path, SearchConfig("s", **TABLE), children)))
    assert "error 30 100.0% 29 last line first line last line" in page.text("failures")
    assert "None of the children that ended has a result." in page.text("reward")


def test_a_legend_has_no_lines_that_are_not_there(tmp_path):
    few, some, many = (
        Page(write_report(write_folder(tmp_path / str(n), SearchConfig("s", **TABLE), done(*np.linspace(0.1, 0.9, n)))))
        for n in (1, 3, 150)
    )
    own = ["dot search", "line search"]  # of the rewards, of their distribution
    assert legends(few) == own
    assert legends(some) == ["dot search", "dash search", "line search"]
    assert legends(many) == ["dot search", "line search", "dash search", "line search", "dash search"]
    assert "the last" not in some.text("reward") and "PPO, the last 100" in many.text("reward")
    other = write_folder(tmp_path / "r", SearchConfig("r", searcher="random", **TABLE), done(*np.linspace(0, 1, 30)))
    with_other = Page(write_report(tmp_path / "3", [other]))
    assert legends(with_other)[:4] == ["dot search", "dash search", "line baseline", "dash baseline"]
    assert "random search, mean of 20" in with_other.text("reward")


def test_a_few_children_are_seen(tmp_path):
    def size(children: int) -> float:
        points = np.column_stack([np.arange(1, children + 1), np.linspace(0.1, 0.9, children)])
        axes = drawn(charts.reward_chart, points, [], [], 20, (0, 1))
        assert axes.get_xlim()[0] < 1 and axes.get_xlim()[1] > children
        return axes.lines[0].get_markersize()

    sizes = [size(children) for children in (1, 3, 45, 320, 3000)]
    assert sizes[0] == sizes[1] >= 6 and sizes == sorted(sizes, reverse=True) and sizes[-1] >= 2
    (line,) = drawn(charts.policy_chart, [([20], [1.0], charts.SEARCH)], "nats").lines
    assert line.get_marker() == "o"


@pytest.mark.parametrize("children", [1, 2, 3, 7, 40, 1000])
def test_axes_that_count_have_no_fractions(children):
    points = np.column_stack([np.arange(1, children + 1), np.full(children, 0.5)])
    painted = [
        (charts.reward_chart, (points, [], [], 20, (0, 1)), "xaxis"),
        (charts.cost_chart, ([1.0, 2.0, 3.0][:children],), "yaxis"),
        (charts.policy_chart, ([([children, children + 1], [1.0, 1.0], charts.SEARCH)], "nats"), "xaxis"),
        (charts.ops_chart, ([0, children], {"identity": [1.0, 1.0]}), "xaxis"),
    ]
    for paint, arguments, name in painted:
        ticks = getattr(drawn(paint, *arguments), name).get_major_locator()()
        assert all(tick == round(tick) for tick in ticks), paint


def test_no_half_of_the_page_is_blank(tmp_path, page):
    """What has nothing beside it is as wide as the page, and narrow on a phone."""
    alone = Page(write_report(write_folder(tmp_path / "s", SearchConfig("s", **TABLE), done(*np.linspace(0, 1, 50)))))
    for made, names in (
        (alone, ["reward", "distribution", "ops0", "cost"]),
        (page, ["reward", "seeds", "distribution"]),
    ):
        wide = [int(width) for width in re.findall(r'<div class="wide"><svg.*?max-width:(\d+)', made.source)]
        narrow = [int(width) for width in re.findall(r'<div class="narrow"><svg.*?max-width:(\d+)', made.source)]
        assert wide == [charts.WIDE[0]] * len(names) and narrow == [charts.NARROW[0]] * len(names)


def test_the_best_cells_are_drawn_small_instead_of_tokens_and_hashes(page, tmp_path):
    text = page.text("best-cells")
    assert "tokens" not in text[text.index("The best 10 cells") :] and len(page.all("article")) == 6
    assert re.findall(r"(\d)\. Child \d+, reward 0\.\d+ ", text) == list("123456")
    assert len(re.findall(r"Larger, and as JSON Hash \w+, tokens \d+ ", text)) == 6
    cells = get_space("nds-enas", blocks=1)
    config = small(tmp_path, space=SpaceSettings("nds-enas", blocks=1))
    (folder := tmp_path / "undrawn").mkdir()
    write_folder(folder, config, [dict(done(0.5)[0], tokens=(0,) * len(cells.decisions))])
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(KINDS, "cell", replace(KINDS["cell"], draw=lambda architecture, path, **options: None))
        undrawn = Page(write_report(folder))
    assert not any(svg["aria-label"].startswith("Drawing") for svg in undrawn.all("svg"))
    assert "tokens 0 0 0" in undrawn.text("best-cells")


def test_accuracy_against_costs(tmp_path):
    space = SearchConfig("s").space.space()
    rng = random.Random(0)
    children = [dict(child, tokens=space.sample(rng)) for child in done(*np.linspace(0.1, 0.9, 9))]
    folder = write_folder(tmp_path / "counted", SearchConfig("s"), children)
    counted = Page(write_report(folder)).text("cost")
    assert "Accuracy against multiply-adds of 9 children. Spearman's rank" in counted
    assert "Accuracy against parameters of 9 children. Spearman's rank" in counted
    assert f"nasnet-zoo report {folder} --pareto" in counted and "latency" not in counted
    for place, child in enumerate(children):
        costs = {"parameters": 10 - place, "multiply_adds": 10**9 * (place + 1), "latency_ms": place % 2}
        child["metrics"] = {"accuracy": child["reward"], **costs}
    said = Page(write_report(write_folder(tmp_path / "said", SearchConfig("s"), children)))
    assert "parameters of 9 children. Spearman's rank correlation is -1.00. " in said.text("cost")
    assert "multiply-adds of 9 children. Spearman's rank correlation is 1.00. " in said.text("cost")
    assert "latency_ms of 9 children. Spearman's rank correlation is 0.00. " in said.text("cost")
    labels = [label for label in ("billion multiply-adds", ">parameters<", ">latency_ms<") if label in said.source]
    assert len(labels) == 3
    children[0]["metrics"], children[1]["metrics"] = {"accuracy": "no", "parameters": "many"}, {}
    children[2]["metrics"] = {"accuracy": 0.5, "parameters": 10**400}
    odd = Page(write_report(write_folder(tmp_path / "odd", SearchConfig("s"), children)))
    assert "parameters of 6 children" in odd.text("cost") and "multiply-adds of 7 children" in odd.text("cost")
    looked_up = Page(write_report(write_folder(tmp_path / "table", SearchConfig("s", **TABLE), done(0.1, 0.2))))
    assert "parameters" not in looked_up.text("cost") and "--pareto" not in looked_up.text("cost")


def test_a_reward_that_is_not_the_accuracy_has_a_correlation_of_its_own(tmp_path):
    children = done(0.5, 0.6, 0.9)
    for child, accuracy, parameters in zip(children, (0.7, 0.6, 0.5), (10, 20, 30)):
        child["metrics"] = {"accuracy": accuracy, "parameters": parameters}
    page = Page(write_report(write_folder(tmp_path, SearchConfig("s", **TABLE), children)))
    assert "Spearman's rank correlation is -1.00, with the reward 1.00." in page.text("cost")


def test_the_front_is_drawn_through_the_best_for_their_cost():
    axes = drawn(charts.costs_chart, [3.0, 1.0, 2.0, 4.0, 1.5], [0.7, 0.2, 0.5, 0.6, 0.1], "million parameters")
    (line,) = (line for line in axes.lines if line.get_drawstyle() == "steps-post")
    assert line.get_xydata().tolist() == [[1.0, 0.2], [2.0, 0.5], [3.0, 0.7], [4.0, 0.7]]
    assert axes.get_xlabel() == "million parameters"


def test_what_the_updates_said_of_the_policy(tmp_path):
    early = {"policy/entropy": 1.5, "policy/reward": 0.25, "policy/baseline": 0.125}
    late = {"policy/entropy": 1.25, "policy/reward": 0.75, "policy/baseline": 0.5}
    config = SearchConfig("s", **TABLE)

    def policy_of(name, *statistics):
        children = [dict(child, updated=said) for child, said in zip(done(0.5, 0.6), statistics)]
        page = Page(write_report(write_folder(tmp_path / name, config, children)))
        labels = [svg["aria-label"] for svg in page.all("svg")]
        return page, [label for label in labels if label.startswith("The policy's updates")]

    page, labels = policy_of("before", early, late)
    assert labels == [
        "The policy's updates, in nats per decision: entropy of the policy from 1.5000 to 1.2500.",
        "The policy's updates, in reward: mean reward of a batch from 0.2500 to 0.7500 and baseline from 0.1250 to "
        "0.5000.",
    ]
    assert "clip" not in page.text("policy")
    more = {"policy/clipped": 0.125, "policy/kl": 0.03}
    page, labels = policy_of("now", early | more, late | {"policy/clipped": 0.5, "policy/kl": float("nan")})
    assert labels[2:] == [
        "The policy's updates, in share of the decisions: clipped decisions from 0.1250 to 0.5000.",
        "The policy's updates, in nats per decision: distance to the policy that proposed from 0.0300 to 0.0300.",
    ]
    assert "PPO's clip" in page.text("policy")
    assert "policy" not in policy_of("evolution", {"population/mean": 0.5}, {})[0].texts


def test_the_page_of_a_running_search_reloads(tmp_path, page):
    def refresh(made):
        return [a["content"] for a in made.all("meta") if a.get("http-equiv") == "refresh"]

    running = Page(write_report(write_folder(tmp_path, SearchConfig("s", children=3, **TABLE), done(0.1, 0.2))))
    assert refresh(running) == ["60"] and refresh(page) == []


def test_hostile_text_stays_text(tmp_path):
    children = [
        {"status": "done", "reward": 0.5, "hash": HOSTILE, "metrics": {"accuracy": 0.5, HOSTILE: 2.0}},
        {"status": HOSTILE, "reward": 0.0, "metrics": {}, "message": f"{HOSTILE}\n{HOSTILE}"},
    ]
    config = SearchConfig(HOSTILE, child=ChildSettings("nasbench201", HOSTILE), space=SpaceSettings("nasbench201"))
    folder = write_folder(tmp_path / "s", config, children)
    other = write_folder(tmp_path / "<script>alert(1)<" / "script>", config, done(0.1))
    page = Page(write_report(folder, [other]))
    assert not page.open and not {"script", "img"} & {tag for tag, _ in page.elements}
    assert not any(key.startswith("on") for _, attributes in page.elements for key in attributes)
    assert HOSTILE in page.texts["failures"] and str(other) in page.texts["reward"]


def test_a_baseline_under_other_conditions_is_told(tmp_path):
    config = SearchConfig("s", **TABLE)
    mine = write_folder(tmp_path / "s", config, done(0.5))
    like = write_folder(tmp_path / "a", SearchConfig("a", seed=3, searcher="random", **TABLE), done(0.5))
    unlike = write_folder(tmp_path / "b", SearchConfig("b", repeats="serve", **TABLE), done(0.5))
    assert "not between equals" not in Page(write_report(mine, [like])).text("reward")
    said = Page(write_report(mine, [like, unlike])).text("reward")
    assert f"not between equals: {unlike}: repeats is 'serve' there, 'train' here" in said


def test_time_and_cost(tmp_path, monkeypatch):
    clock = iter([1000.0, 1001, 1002, 1100, 1101, 1102, 1150, 5000, 5001, 5002, 5030])
    monkeypatch.setattr(journal.time, "time", lambda: next(clock))
    side_by_side = [{**child, "seconds": 100.0, "worker": f"host:{i}:cuda:0"} for i, child in enumerate(done(0.1, 0.2))]
    with closing(Journal.create(tmp_path / "journal.sqlite", {})) as opened, opened.transaction():
        opened.add("session")
        for number, child in enumerate(side_by_side):
            opened.add("proposed", number, tokens=[0] * 6, hash="h", notes={})
            opened.add("started", number, attempt=1)
            opened.add("finished", number, metrics={}, **child)
        opened.add("session")
        opened.add("proposed", 2, tokens=[0] * 6, hash="h", notes={})
        opened.add("started", 2, attempt=1)
        opened.add("finished", 2, status="lost", reward=0.0, metrics={}, seconds=10.0, worker="other:7:cuda:0")
    (tmp_path / "config.json").write_text(json.dumps(SearchConfig("s", **TABLE).to_json()))
    read = read_history(tmp_path)
    assert (read.sessions, read.seconds) == (2, 150 + 30)
    assert read.device_seconds == (1150 - 1000) + 10  # two children at once on one device, one on another


def test_a_report_beside_the_driver(tmp_path):
    """A reader sees what is committed, and neither waits for the driver nor holds it up."""
    folder = write_folder(tmp_path, SearchConfig("s", **TABLE), done(0.5, 0.6))
    with closing(Journal.open_existing(folder / "journal.sqlite")) as driver:
        with driver.transaction():
            driver.add("proposed", 2, tokens=[0] * 6, hash="h", notes={})
            assert len(read_history(folder).records) == 2
        assert len(read_history(folder).records) == 3
        driver.add("started", 2, attempt=1)


@pytest.mark.parametrize("running", [True, False])
def test_a_folder_that_may_only_be_read(running, tmp_path, monkeypatch):
    folder = write_folder(tmp_path, SearchConfig("s", **TABLE), done(0.5, 0.6))
    driver = Journal.open_existing(folder / "journal.sqlite")
    with driver.transaction():
        driver.add("started", 0, attempt=2)
    if not running:
        driver.close()
    before = sorted(path.name for path in folder.iterdir())
    monkeypatch.setattr(journal.os, "access", lambda path, mode: False)
    assert len(read_history(folder).finished) == 2
    assert sorted(path.name for path in folder.iterdir()) == before
    driver.close()


def test_a_folder_without_a_search(tmp_path):
    with pytest.raises(JournalError, match="there is no journal"):
        write_report(tmp_path)
    folder = write_folder(tmp_path, SearchConfig("s", **TABLE), [])
    (folder / "config.json").unlink()
    with pytest.raises(ConfigError, match="cannot read"):
        write_report(folder)


def test_an_event_that_is_not_what_it_should_be(tmp_path):
    folder = write_folder(tmp_path, SearchConfig("s", **TABLE), [])
    with closing(Journal.open_existing(folder / "journal.sqlite")) as opened, opened.transaction():
        opened.add("finished", 7, status="done")
    with pytest.raises(JournalError, match="damaged"):
        write_report(folder)


def test_a_report_that_fails_is_a_warning(tmp_path, monkeypatch, caplog):
    def fail(*arguments):
        raise RuntimeError("no ink")

    monkeypatch.setattr(report, "write_report", fail)
    assert run(small(tmp_path, searcher="random", children=3), child=OpsChild()).children == 3
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path / 'report.html'} could not be written: no ink"
    ]


def test_a_template_that_fails_is_a_warning(tmp_path, monkeypatch, caplog):
    broken = jinja2.DictLoader({"report.html.j2": "<h1>{{ no_such_part }}</h1>"})
    monkeypatch.setattr(render, "TEMPLATES", render.TEMPLATES.overlay(loader=broken))
    assert run(small(tmp_path, searcher="random", children=3), child=OpsChild()).children == 3
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path / 'report.html'} could not be written: 'no_such_part' is undefined"
    ]
    assert not list(tmp_path.glob("*report*"))


def test_a_library_that_cannot_be_imported_costs_the_report_only(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "nasnet_zoo.search.report.report", None)
    assert run(small(tmp_path, searcher="random", children=3), child=OpsChild()).children == 3
    assert "report.html could not be written" in caplog.text


def test_reports_take_a_hundredth_of_the_time_at_most(tmp_path, monkeypatch):
    now, written = [0.0], []

    def write(*arguments):
        written.append(now[0])
        now[0] += 5.0

    monkeypatch.setattr(report, "write_report", write)
    monkeypatch.setattr(watch.time, "monotonic", lambda: now[0])
    reporter = watch.Reporter(tmp_path, ())
    while now[0] < 2000:
        reporter.changed()
        now[0] += 1.0
    assert written == [60.0, 565.0, 1070.0, 1575.0]


def test_a_search_that_gives_up_leaves_a_report_and_one_that_is_interrupted_does_not(tmp_path):
    class Failing(OpsChild):
        error = ChildFailure("oom", "out of memory")

        def __call__(self, genotype, seed):
            raise self.error

    with pytest.raises(SearchError):
        run(small(tmp_path / "a", failures=FailureSettings(stop=3)), child=Failing())
    assert "out of memory" in Page(tmp_path / "a" / "report.html").text("failures")
    Failing.error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        run(small(tmp_path / "b"), child=Failing())
    assert not (tmp_path / "b" / "report.html").exists()


def test_a_baseline_that_is_not_there_is_told_before_the_search(tmp_path):
    with pytest.raises(JournalError, match="nowhere"):
        run(small(tmp_path / "s"), child=OpsChild(), baseline=[tmp_path / "nowhere"])
    assert not (tmp_path / "s").exists()


def test_means():
    assert charts.running_mean([1.0, 2.0, 3.0, 6.0], 2).tolist() == [1.5, 2.5, 4.5]
    assert (charts.window(500), charts.window(20_000)) == (20, 200)
    values = np.random.default_rng(0).normal(size=300)
    assert np.allclose(charts.running_mean(values, 20), [values[i : i + 20].mean() for i in range(281)])


def test_beats_is_the_share_of_pairs():
    mine, theirs = np.array([1.0, 2.0, 5.0]), np.array([2.0, 0.0, 9.0, 2.0])
    pairs = [(a > b) + (a == b) / 2 for a in mine for b in theirs]
    assert beats(mine, theirs) == pytest.approx(np.mean(pairs))


def test_the_axis_shows_all_rewards_or_all_but_a_few_that_are_far_below():
    low, high = charts.usual_range([0.5, 0.6, 0.7])
    assert low < 0.5 and high > 0.7
    low, _ = charts.usual_range([0.1, *np.linspace(0.8, 0.9, 99)])
    assert 0.75 < low < 0.81
    low, high = charts.usual_range([0.5])
    assert low < 0.5 < high


@pytest.mark.parametrize("wishes", [[0.5], [0.0, 0.0, 0.0], [1.0, 1.0], [0.1, 0.11, 0.5, 0.9, 0.99], [0.5] * 40])
def test_labels_keep_apart(wishes):
    places = charts.apart(wishes, 0.1)
    gap = min(0.1, 1 / len(wishes))
    assert all(b - a > gap - 1e-9 for a, b in zip(places, places[1:]))
    assert places[0] > gap / 2 - 1e-9 and places[-1] < 1 - gap / 2 + 1e-9
    assert charts.apart([0.2, 0.5], 0.1) == [0.2, 0.5]


@pytest.mark.parametrize("name", ["nasnet", "nasnet-b", "nds-darts", "nasbench201"])
def test_op_shares(name):
    space = get_space(name)
    found = places(space, "op")
    assert list(found) == (["Cell"] if name == "nasbench201" else ["Normal cell", "Reduction cell"])
    tokens = np.zeros((4, len(space.decisions)), int)
    tokens[2:] = [[d.choices - 1 for d in space.decisions]] * 2
    for columns in found.values():
        assert all(space.decisions[column].choices == len(space.ops) for column in columns)
        counted = shares(tokens[:, columns], [0, 2, 4], len(space.ops))
        assert counted[0].tolist() == [1] + [0] * (len(space.ops) - 1) and counted[1][-1] == 1
    assert sum(map(len, found.values())) == (6 if name == "nasbench201" else 4 * space.blocks)


def test_which_states_are_read_and_how_they_are_combined(tmp_path):
    """The first 20 children read state 0 and combine by the first way, the last 20 the last of each."""
    config = SearchConfig("s", SpaceSettings("nasnet", blocks=2))
    space = config.space.space()
    last = tuple(decision.choices - 1 for decision in space.decisions)
    children = [dict(child, tokens=(0,) * len(last)) for child in done(*[0.5] * 20)]
    children += [dict(child, tokens=last) for child in done(*[0.5] * 20)]
    page = Page(write_report(write_folder(tmp_path / "nasnet", config, children)))
    said = page.text("what-was-tried")
    # Block 0 can read two states and block 1 three, each of them twice.
    for row in ("0 100.0% 0.0% 41.7%", "1 0.0% 50.0% 41.7%", "2 0.0% 50.0% 16.7%"):
        assert f"Normal cell state read {row}" in said and f"Reduction cell state read {row}" in said
    for row in (f"{space.combines[0]} 100.0% 0.0% 50.0%", f"{space.combines[-1]} 0.0% 100.0% 50.0%"):
        assert f"Normal cell combination {row}" in said
    assert f"Normal cell op {space.ops[-1]} 0.0% 100.0% {1 / len(space.ops):.1%}" in said
    names = [svg["aria-label"] for svg in page.all("svg") if "states and combinations" in svg["aria-label"]]
    assert len(names) == 2 and "0 100% and 0%; 1 0% and 50%; 2 0% and 50%; add" in names[0]
    without = write_folder(tmp_path / "darts", SearchConfig("s", SpaceSettings("nds-darts")), done(*[0.5] * 40))
    text = Page(write_report(without)).text("what-was-tried")
    assert "state read" in text and "combination" not in text


def test_bars_stand_in_groups():
    groups = [[("0", 0.25, 0.5, 0.5), ("1", 0.75, 0.5, 0.5)], [("add_layer_norm", 1.0, 0.0, 1.0)]]
    axes = drawn(charts.shares_chart, groups, "choice")
    assert [bar.get_height() for bar in axes.patches] == [0.25, 0.75, 1.0, 0.5, 0.5, 0.0]
    assert axes.get_xticks().tolist() == [0, 1, 3]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["0", "1", "add\n+ LN"]
    many = drawn(charts.shares_chart, [[(str(n), 0.1, 0.1, 0.1) for n in range(30)], *groups[1:]], "choice")
    labels = [text.get_text() for text in many.get_xticklabels()]
    assert labels == ["0", "3", "6", "9", "12", "15", "18", "21", "24", "27", "add\n+ LN"]


def test_each_op_has_its_colour():
    for name in ("nasnet", "nasbench201", "nds-darts"):
        ops = get_space(name).ops
        assert len(set(charts.op_colours(ops).values())) == len(ops)


def test_durations():
    spans = [0.04, 12.3, 89, 90, 5399, 5400, 3600 * 30, 86400 * 3]
    assert [duration(span) for span in spans] == [
        "0.0 s",
        "12 s",
        "89 s",
        "2 min",
        "90 min",
        "1.5 h",
        "30 h",
        "3.0 days",
    ]


@pytest.mark.slow
def test_the_report_of_a_whole_paper_s_search_takes_seconds(tmp_path):
    config, rng = SearchConfig("s"), random.Random(0)
    space = config.space.space()
    children = [
        dict(child, tokens=space.sample(rng), hash=str(place))
        for place, child in enumerate(done(*(rng.random() for _ in range(20_000))))
    ]
    folder = write_folder(tmp_path, config, children)
    start = time.process_time()
    path = write_report(folder)
    assert time.process_time() - start < 30  # of its own, whatever else the machine does
    assert path.stat().st_size < 4e6
    assert history.read_history(folder).finished[-1].child == 19_999


def test_workers_that_were_left_out_are_named(tmp_path):
    folder = write_folder(tmp_path / "a", SearchConfig("a", children=40, **TABLE), done(*[0.5] * 30))
    assert "left out" not in Page(write_report(folder)).text("failures")
    bad = dict(worker="host:7:cuda:1", message=f"error: no space left on device {HOSTILE}", returned=[1], forgiven=[1])
    with closing(Journal.open_existing(folder / "journal.sqlite")) as opened, opened.transaction():
        opened.add("excluded", place="cuda:0, worker 0", **bad)
        opened.add("included", place="cuda:0, worker 0")
        opened.add("excluded", place="cuda:1, worker 1", **bad)
        opened.add("session")  # a new session tries all of them again
    said = Page(write_report(folder)).text("failures")
    assert "Workers that were left out, because children failed there and not elsewhere" in said
    assert "cuda:1, worker 1 host:7:cuda:1 error: no space left on device" in said and HOSTILE in said
    assert "cuda:0, worker 0" not in said
