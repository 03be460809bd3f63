"""The commands search, report and transfer as a user meets them, and the presets behind them."""

import csv
import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from regenerate import FOUND, record, regenerate
from toy_search import toy_run
from typer.testing import CliRunner

from nasnet_zoo.arch.checks import json_or_text
from nasnet_zoo.arch.config import NetworkConfig
from nasnet_zoo.arch.genotype import Genotype
from nasnet_zoo.arch.genotypes import GENOTYPES
from nasnet_zoo.cli import search as cli_search  # noqa: F401 - registers its commands
from nasnet_zoo.cli.app import app
from nasnet_zoo.errors import ConfigError, ZooError
from nasnet_zoo.search.children.table import make_child
from nasnet_zoo.search.config import SearchConfig
from nasnet_zoo.search.driver import child_seed
from nasnet_zoo.search.presets import PRESETS, changed, preset
from nasnet_zoo.search.spaces.table import get_space
from nasnet_zoo.util.environment import processor


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A NAS-Bench-201 table in which 3x3 convolutions are good."""
    path = tmp_path_factory.mktemp("table") / "table.csv"
    space, rng = get_space("nasbench201"), random.Random(0)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["cellstr", "cifar10-val", "cifar10-test"])
        for code in range(space.size):
            tokens = tuple(code // 5**place % 5 for place in range(6))
            accuracy = 50 + 6 * tokens.count(3) + rng.random()
            writer.writerow([space.decode(tokens), accuracy, accuracy - 1])
    return path


def call(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_search_by_preset_goes_on_and_is_reported(tmp_path, table):
    folder = tmp_path / "run"
    said = call("search", folder, "--preset", "tabular", "--data", table, "--children", 60)
    assert "best of 60 children" in said and (folder / "report.html").is_file()
    assert "next:" not in said  # the cells of a table cannot be built
    before = json.loads((folder / "best.json").read_text())
    said = call("search", folder, "--children", 100)  # the folder knows the rest
    assert "best of 100 children" in said
    assert json.loads((folder / "best.json").read_text())["reward"] >= before["reward"]
    (folder / "report.html").unlink()
    assert "wrote" in call("report", folder) and (folder / "report.html").is_file()
    printed = json.loads(call("search", folder, "--json"))
    assert printed["architecture"].count("nor_conv_3x3") >= 4
    with pytest.raises(ZooError, match="is no network that could be built"):
        call("transfer", folder, "--params", "1M")


def test_settings_from_the_command_line(tmp_path, table):
    options = ["--preset", "tabular", "--data", table, "--children", 5, "--searcher", "evolution", "--seed", 7]
    call("search", tmp_path / "run", *options, "--set", "evolution.population=10", "--set", "evolution.sample=3")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["searcher"] == "evolution" and config["seed"] == 7
    assert config["evolution"] == {"population": 10, "sample": 3}
    with pytest.raises(ZooError, match=r"another config \(seed 7 there, 8 here\)"):
        call("search", tmp_path / "run", "--seed", 8)


@pytest.mark.parametrize(
    "options, said",
    [
        (["--preset", "no"], "there is no preset 'no'"),
        (["--set", "child.nothing=1"], "no setting 'child.nothing'"),
        (["--set", "controller.learning_rte=1"], r"did you mean controller\.learning_rate"),
        (["--set", "chidren=1"], r"did you mean children"),
        (["--preset", "quik"], r"there are nasnet, .*; did you mean quick\?"),
        (["--set", "child"], "write a setting's name"),
        (["--set", "child.cells=many"], "child.cells"),
        (["--workers", "-1"], "-1 workers per device"),
        (["--space", "moon"], "no space 'moon'"),
        (["--searcher", "luck"], "searcher"),
        (["--preset", "tabular"], "needs a table"),
        (["--preset", "tabular", "--data", "/nowhere.csv"], "cannot read the table"),
        (["--preset", "quick", "--data", "/nowhere"], "cifar-10-python.tar.gz"),
        (["--config", "/nowhere.json"], "cannot read"),
        (["--config", "/nowhere.json", "--preset", "quick"], "not both"),
    ],
)
def test_bad_input_is_one_sentence(tmp_path, options, said):
    with pytest.raises(ZooError, match=said) as error:
        call("search", tmp_path / "run", *options)
    assert "\n" not in str(error.value)


def test_transfer_prints_the_ladder_and_writes_a_folder(tmp_path):
    import nasnet_zoo

    toy_run(tmp_path / "run", 30)
    said = call(
        "transfer", tmp_path / "run", "--max-madds", "30M", "--size", 64, "--classes", 5, "-o", tmp_path / "net"
    )
    assert "->" in said and "multiply-adds at 64 px" in said
    network = nasnet_zoo.load(tmp_path / "net")
    assert network.config.num_classes == 5
    config = json.loads(call("transfer", tmp_path / "run" / "best.json", "-n", 1, "-p", _width(network), "--json"))
    assert NetworkConfig.from_json(config).architecture == network.config.architecture
    call("draw", tmp_path / "run" / "best.json", "-o", tmp_path / "best.svg")
    assert (tmp_path / "best.svg").stat().st_size > 1000


def _width(network) -> int:
    return network.num_features // network.config.scale.filters * 16


def test_transfer_of_a_published_cell():
    assert "4 @ 1056: 5,289,978 parameters, 563,638,816 multiply-adds" in call(
        "transfer", "NASNet-A", "-n", 4, "-p", 1056
    )
    for options, said in (
        ((), "give --max-madds"),
        (("--params", "lots"), "write a number"),
    ):
        with pytest.raises(ZooError, match=said):
            call("transfer", "NASNet-A", *options)


@pytest.mark.parametrize(
    "options, said",
    {
        ("--max-madds", "564M"): "--data DIR --recipe imagenet-mobile ",
        ("--max-madds", "800M"): "--data DIR --recipe imagenet-large ",
        ("--params", "300k", "--classes", "7"): "--data DIR ",
        ("--params", "300k", "--stem", "cifar"): "",
    }.items(),
)
def test_transfer_says_how_its_network_is_trained(tmp_path, monkeypatch, options, said):
    monkeypatch.chdir(tmp_path)
    last = call("transfer", "NASNet-A", "-o", "my net", *options).splitlines()[-1]
    assert last == f"next: nasnet-zoo train -m 'my net' {said}-o 'my net-trained'"


def test_transfer_leaves_the_auxiliary_head_out():
    options = "NASNet-A", "--params", "1M", "--stem", "cifar", "--json"
    with_head, without = (json.loads(call("transfer", *options, each)) for each in ("--aux", "--no-aux"))
    assert with_head["scale"]["aux_size"] == [16, 16] and without["scale"]["aux_size"] is None


def test_transfer_knows_two_stems():
    result = CliRunner().invoke(app, ["transfer", "NASNet-A", "--params", "1M", "--stem", "x"])
    assert result.exit_code == 2 and "'x' is not one of 'imagenet', 'cifar'" in result.stderr


def test_transfer_says_what_cannot_be_reranked(tmp_path):
    with pytest.raises(ZooError, match="needs the run folder"):
        call("transfer", "NASNet-A", "--rerank", 3, "--params", "1M")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "give --max-madds"),
        (["--params", "lots"], "write a number"),
        (["--params", "10"], "no network of this cell fits; the smallest has"),
        (["--max-madds", "600M", "--size", 20], "at least 32 pixels, not 20"),
        (["-n", 2, "-p", 7], "which is never 7"),
        (["-n", 99, "-p", 480], "more than the 12"),
        (["--params", "1M", "--rerank", 9], "fewer than the 9"),
        (["--params", "1M", "--rerank", 1], "at least two"),
        (["--params", "1M", "--device", "moon"], "moon"),
    ],
)
def test_what_transfer_cannot_do_is_said_before_cells_are_trained(tmp_path, monkeypatch, options, said):
    class Untouched:
        def prepare(self, device):
            raise AssertionError("it began to train")

    monkeypatch.setattr("nasnet_zoo.search.reranking.make_child", lambda *arguments: Untouched())
    toy_run(tmp_path / "run", 3, keep_distinct=True)
    with pytest.raises(ZooError, match=said):
        call("transfer", tmp_path / "run", "--rerank", 3, *options)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_whole_configs(name):
    config = preset(name)
    assert SearchConfig.from_json(json.loads(json.dumps(config.to_json()))) == config
    assert len(config.space.space().decisions) > 0


def test_the_papers_values():
    """NASNet paper, appendix A: the search's figures. The preset nasnet differs in how the controller learns alone."""
    config = preset("nasnet-paper")
    controller, child = config.controller, config.child
    assert replace(preset("nasnet"), controller=controller) == config
    assert (controller.baseline, controller.ratio) == ("reward-average", "decision")
    assert (config.children, config.searcher, controller.batch) == (20_000, "ppo", 20)
    assert (controller.hidden, controller.learning_rate, controller.entropy_weight) == (100, 3.5e-4, 1e-5)
    assert controller.baseline_decay == 0.95 and controller.initial == 0.1
    assert (child.cells, child.filters, child.recipe.epochs) == (2, 32, 20)
    assert (child.pictures, child.validation) == (45_000, 5_000)
    assert child.recipe.enlarge and child.recipe.pad == 4 and child.recipe.momentum == 0.9
    assert len(config.space.space().decisions) == 50


def test_settings_are_read_as_json_and_the_folder_as_it_is():
    texts = {"controller.learning_rate": "0.01", "space.ops": '["identity", "conv_3x3"]'}
    config = changed(preset("nasnet"), {key: json_or_text(text) for key, text in texts.items()} | {"folder": "1"})
    assert config.folder == "1"
    assert config.controller.learning_rate == 0.01 and config.space.ops == ("identity", "conv_3x3")
    with pytest.raises(ConfigError, match="learning_rate"):
        changed(preset("nasnet"), {"controller.learning_rate": "fast"})


def test_a_recorded_search_is_regenerated(tmp_path, table):
    found = tmp_path / "found.json"
    call("search", tmp_path / "run", "--preset", "tabular", "--data", table, "--children", 40)
    best = record(tmp_path / "run", found)
    assert best == json.loads((tmp_path / "run" / "best.json").read_text())
    recorded, again = regenerate(found, tmp_path / "again", str(table))
    assert recorded == again == best
    assert str(tmp_path) not in found.read_text()  # neither the run folder nor the data's
    more = json.loads((tmp_path / "run" / "config.json").read_text()) | {"children": 60}
    (tmp_path / "run" / "config.json").write_text(json.dumps(more))
    with pytest.raises(ConfigError, match="holds a search that is not finished"):
        record(tmp_path / "run", found)
    (tmp_path / "found.json").write_text("{}")
    with pytest.raises(ConfigError, match="no record of a search"):
        regenerate(tmp_path / "found.json", tmp_path / "more")


def test_the_shipped_cell_has_the_reward_that_is_recorded(cifar10):
    """A child on a CPU is a function of its seed, its settings and its threads; and of the machine, if that differs."""
    value = json.loads(FOUND.read_text())
    config, best = SearchConfig.from_json(value["search"]), value["best"]
    assert config.child.threads == 1
    space, threads = config.space.space(), torch.get_num_threads()
    child = make_child(replace(config.child, data=str(cifar10)), space)
    torch.set_num_threads(config.child.threads)
    try:
        child.prepare("cpu")
        metrics = child(space.decode(best["tokens"]), child_seed(config.seed, best["child"]))
    finally:
        torch.set_num_threads(threads)
    if value["made_on"] == {"processor": processor(), "torch": torch.__version__}:
        assert metrics == {key: best["metrics"].get(key, metrics[key]) for key in metrics}
    assert metrics["accuracy"] == pytest.approx(best["reward"], abs=0.05)


def test_the_shipped_cell_is_a_genotype_by_name():
    record = json.loads((Path(__file__).parents[2] / "search" / "found" / "quick.json").read_text())
    assert Genotype.from_json(record["best"]["architecture"]) == GENOTYPES["Quick-PPO"]
    assert get_space("nasnet", blocks=3).encode(GENOTYPES["Quick-PPO"]) == tuple(record["best"]["tokens"])
