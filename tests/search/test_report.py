import json
import random
import re
import sys
import time
from contextlib import closing
from html.parser import HTMLParser
from pathlib import Path

import jinja2
import numpy as np
import pytest

from nasnet_zoo.errors import ConfigError, JournalError, SearchError
from nasnet_zoo.search import (
    ChildSettings,
    ControllerSettings,
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
from nasnet_zoo.search.history import duration, read_history
from nasnet_zoo.search.journal import Journal
from nasnet_zoo.search.report import charts, render, report
from nasnet_zoo.search.report.compare import beats
from nasnet_zoo.search.report.report import op_places, op_shares, write_report
from nasnet_zoo.search.spaces.base import Choice, FixedSpace

VOID = {"meta", "br", "img", "link", "input"}
HOSTILE = """</code><script>alert("x")</script>&'"><img src=http://evil.example/x onerror=alert(1)>"""
TABLE = dict(space=SpaceSettings("nasbench201"), child=ChildSettings("nasbench201", "none.csv"))


class Page(HTMLParser):
    """A page's elements as (tag, attributes), and its text by the id of the section that it stands in."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.section, self.texts = "", {"": ""}
        self.feed(self.source)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self.open += [] if tag in VOID else [tag]
        if tag == "section":
            self.section = dict(attributes)["id"]
            self.texts[self.section] = ""

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.texts[self.section] += f"{data} "

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def text(self, section: str = "") -> str:
        return " ".join(self.texts[section].split())


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


def small(folder: Path, **changes) -> SearchConfig:
    return SearchConfig(str(folder), controller=ControllerSettings(hidden=8), **{"children": 60} | changes)


def write_folder(folder: Path, config: SearchConfig, children: list[dict], sessions: int = 1) -> Path:
    """A run folder with the events of children that were proposed and, if there is a status, finished."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config.to_json()))
    space = config.space.space()
    with closing(Journal.create(folder / "journal.sqlite", {"identity": config.identity()})) as opened:
        with opened.transaction():
            for _ in range(sessions):
                opened.add("session")
            for number, child in enumerate(children):
                tokens = child.get("tokens", tuple(number % decision.choices for decision in space.decisions))
                digest = child.get("hash", space.hash(space.decode(tokens)))
                opened.add("proposed", number, tokens=list(tokens), hash=digest, notes={}, place=0, of=1)
                opened.add("started", number, attempt=1)
                if "status" in child:
                    defaults = {"metrics": {"accuracy": child["reward"]}, "seconds": 1.0, "worker": "host:1:cpu"}
                    opened.add("finished", number, **defaults | child)
    return folder


def done(*rewards: float) -> list[dict]:
    return [{"status": "done", "reward": reward} for reward in rewards]


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
    headings = ["Reward", "What was tried", "Best cells", "Cost", "Failures", "Settings"]
    assert [a["id"] for a in page.all("section")] == [heading.lower().replace(" ", "-") for heading in headings]
    assert all(heading in page.text(heading.lower().replace(" ", "-")) for heading in headings)
    assert not page.open
    pictures = [svg["aria-label"] for svg in page.all("svg")]
    starts = ["Reward", "Reward", "Distribution", "The policy's entropy", "Normal cell", "Reduction cell"]
    starts += ["Drawing of the cells"] * 3
    assert [start for start, label in zip(starts, pictures) if label.startswith(start)] == starts
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
    places = op_places(space)
    assert list(places) == (["Cell"] if name == "nasbench201" else ["Normal cell", "Reduction cell"])
    tokens = np.zeros((4, len(space.decisions)), int)
    tokens[2:] = [[d.choices - 1 for d in space.decisions]] * 2
    for columns in places.values():
        assert all(space.decisions[column].choices == len(space.ops) for column in columns)
        shares = op_shares(tokens[:, columns], [0, 2, 4], len(space.ops))
        assert shares[0].tolist() == [1] + [0] * (len(space.ops) - 1) and shares[1][-1] == 1
    assert sum(map(len, places.values())) == (6 if name == "nasbench201" else 4 * space.blocks)


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
    start = time.process_time()  # which other programs on the machine do not lengthen
    path = write_report(folder)
    assert time.process_time() - start < 10
    assert path.stat().st_size < 4e6
    assert history.read_history(folder).finished[-1].child == 19_999
