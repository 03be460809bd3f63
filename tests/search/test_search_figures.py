"""The figures of docs/search.md are those that the benchmarks wrote."""

import json
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = (ROOT / "docs" / "search.md").read_text(encoding="utf-8")
IN_FLIGHT = "20", "200", "450", "450 in order"  # children
EPOCHS = 320 * 9  # of the searches with rungs and without


def results(name: str) -> dict:
    return json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text(encoding="utf-8"))


def tables(heading: str) -> list[list[list[str]]]:
    """The tables of a section, without the line under their heads: rows of cells."""
    section = DOCS.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    found: list[list[list[str]]] = [[]]
    for line in section.splitlines():
        if line.startswith("|"):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            found[-1] += [cells] if not set("".join(cells)) <= set("- ") else []
        elif found[-1]:
            found.append([])
    return [table for table in found if table]


def with_error(figures: dict) -> str:
    return f"{figures['last']:.2f} ± {figures['error']:.2f}"


def test_planted_rewards():
    small, large, flight, failures = tables("Planted rewards")
    parts = results("search_planted")
    name = {"PPO of the first version": "PPO, first version"}
    for part, table in (("small", small), ("large", large)):
        for searcher, *cells in table[1:]:
            searcher = searcher.replace("`", "")
            found = parts[part][name.get(searcher, searcher)]
            columns = ("op 320", "additive 320", "graph 320")
            if part == "large":
                columns = ("additive 1000", "additive 2000", "graph 1000", "graph 2000")
            assert cells == [with_error(found[column]) for column in columns], searcher
    columns = [f"{many}, {reward} 2000" for reward in ("additive", "graph") for many in IN_FLIGHT]
    for searcher, *cells in flight[1:]:
        found = parts["flight"][name.get(searcher.replace("`", ""), searcher.replace("`", ""))]
        assert cells == [with_error(found[column]) for column in columns], searcher
    early = [
        [parts["flight"][searcher][f"450, {reward} 1000"]["last"] for reward in ("additive", "graph")]
        for searcher in ("REINFORCE, batch mean", "PPO, preset nasnet")
    ]
    assert "({:.2f} and {:.2f} against {:.2f} and {:.2f})".format(*early[0], *early[1]) in " ".join(DOCS.split())
    for floor, *cells in failures[1:]:
        found = parts["failures"]["PPO, preset quick"]
        key = {"the lowest of the last hundred": "worst", "0.0": "0.0"}[floor]
        assert cells == [with_error(found[f"floor {key}, {reward} 320"]) for reward in ("additive", "graph")], floor


def test_the_table_of_nas_bench_201():
    (table,) = tables("Against random search, on a table")
    found = results("search_tabular")
    for searcher, *cells in table[1:]:
        rows = [found[which][searcher] for which in ("CIFAR-10", "ImageNet16-120")]
        shown = [f"{row['mean']:.2f} ± {row['error']:.2f}" for row in rows]
        assert cells[::2] == shown, searcher
        assert cells[1::2] == ["" if searcher == "random" else f"{row['p']:.0g}" for row in rows], searcher
    for which, best in found.items():
        if which in ("CIFAR-10", "ImageNet16-120"):
            assert f"{best['best of the table']['test']:.2f}" in DOCS


def test_real_searches():
    (table,) = tables("A real search on a CPU")[:1]
    found = results("search_real")
    names = {"PPO": "ppo", "evolution 20/10": "evolution", "random": "random"}
    for searcher, *cells in table[1:]:
        row = found["searchers"][names[searcher]]
        keys = ("first", "last", "best", "best again")
        assert cells == [f"{row[key]['mean']:.4f} ± {row[key]['half']:.4f}" for key in keys], searcher
    last, again = (
        [found["p"][f"{one}, {what}"] for one in ("ppo above random", "ppo above evolution")]
        for what in ("last", "best again")
    )
    assert f"(p = {last[0]:.0g}, Welch's" in DOCS and f"(p = {last[1]:.0g});" in DOCS
    said = [found["searchers"][name]["last"] for name in ("ppo", "evolution", "random")]
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert [f"{row['mean']:.3f} ± {row['half']:.3f}" in text for row in said] == [True] * 3
    assert f"random search's (p = {again[0]:.0g})" in DOCS and f"evolution's (p = {again[1]:.2g})" in DOCS


def test_bad_workers():
    found = results("search_workers")
    assert f"no child of {found['children']:,} was floored" in DOCS
    for name, row in found["searches"].items():
        assert row["floored"] == 0 and bool(row["left out"]) == ("none is bad" not in name)


def test_rungs():
    found = results("search_rungs")
    head, *rows = tables("Stopping early")[0]
    assert len(head) == 7
    correlations = None
    names = {"PPO": "ppo"}
    levels = {
        ", ".join(f"{each:.2f}" for each in level["correlations"]): level for level in found["searchers"].values()
    }
    for first, which, *cells in rows:
        correlations = first or correlations
        searcher, reward = which.split(", ")
        row = levels[correlations][f"{reward}, {names.get(searcher, searcher)}"]
        shown = {
            key: [f"{row[side][key]:.2f} ± {row[side][f'{key}, error']:.2f}" for side in ("without", "with")]
            for key in ("best", "last proposed")
        }
        assert cells[:2] == shown["best"], which
        assert cells[2:4] == (["", ""] if searcher == "random" else shown["last proposed"]), which
        after = row["with"]["epochs until as good"]
        assert cells[4] == ("none" if after is None or after >= EPOCHS else f"{1 - after / EPOCHS:.0%}"[:-1] + " %"), (
            which
        )


def test_own_data():
    found = results("search_own_data")
    assert (found["search"]["children"], found["data"]["classes"]) == (60, 50)
    first, last = (found["against the target"][name] for name in ("first", "last"))
    text = " ".join(DOCS.split())
    assert f"needed {100 * first['share']:.0f} % of the target on average and {first['above']} of them more" in text
    assert f"needed {100 * last['share']:.0f} %, none more" in text and last["above"] == 0
    assert f"accuracy of {100 * last['accuracy']:.1f} % where the first had {100 * first['accuracy']:.1f} %" in text
    shares = [100 * cell["share"] for cell in found["cells"]]
    assert f"at {min(shares):.1f} to {max(shares):.1f} % of the 8 M" in text and found["target"] == 8e6
    assert f"had {100 * found['training']['top1']:.1f} % top-1" in text


def test_rungs_in_a_real_search():
    found, text = results("search_rungs_real"), " ".join(DOCS.split())
    assert f"{found['children']} children of four epochs" in text
    assert "in the end are {:.2f} and {:.2f}".format(*found["correlations"]) in text
    one, orders = found["one search"], found["orders"]
    assert f"took {100 * one['epochs saved']:.0f} % fewer epochs" in text and one["best"][0] == one["best"][1]
    assert f"{100 * orders['best kept']:.1f} % kept the best one" in text
    assert f"{100 * orders['epochs saved']:.0f} % of the epochs were saved" in text


def test_children_per_hour():
    table = tables("Speed of a child")[-1]
    found = results("search_fleets")["per hour"]
    assert table[1:] == [[name, f"{count:,.0f}"] for name, count in found.items()]
    assert found["processes, one core each"] > found["inline, all cores"]
