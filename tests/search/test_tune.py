"""`nasnet-zoo tune`: a grid of recipes on held-out pictures, then one training and one look at the test pictures."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from toy_training import CONFIG, cifar10, paint, refused

import nasnet_zoo
from nasnet_zoo.cli.tune import all_of, default_grid
from nasnet_zoo.errors import ConfigError, DataError
from nasnet_zoo.search import ChildSettings, get_space, read_children
from nasnet_zoo.search.children import recipes
from nasnet_zoo.search.children.recipes import RecipeChild, changed
from nasnet_zoo.training.recipe import Recipe
from nasnet_zoo.training.tasks.classify import Classify

RECIPE = Recipe(2, 8, 0.02, warmup_epochs=0.0, pad=1)
TUNE = ("tune", "-m", "config.json", "-o", "tuned", "--recipe", "recipe.json", "--fleet", "inline", "--device", "cpu")
GRID = ("--grid", "learning_rate=0.02,1e-5", "--grid", "bn_eps=1e-5,1e-3")


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("nasnet_zoo.data.sets.cifar10_pictures", cifar10)
    monkeypatch.setattr("nasnet_zoo.training.curve.draw_curve", lambda epochs, best, path: path.touch())  # is slow
    monkeypatch.setattr("nasnet_zoo.search.report.report.write_report", lambda *arguments: None)  # too
    Path("config.json").write_text(json.dumps({"network": CONFIG.to_json()}))
    Path("recipe.json").write_text(json.dumps(asdict(RECIPE)))
    return tmp_path


@pytest.fixture
def measured(monkeypatch):
    """On how many pictures each evaluation was made, in order."""
    counts, own = [], Classify.evaluate

    def counted(task, network):
        counts.append(len(task.held_out))
        return own(task, network)

    monkeypatch.setattr(Classify, "evaluate", counted)
    return counts


def read(path):
    return json.loads(Path(path).read_text())


def test_the_grid_is_measured_on_held_out_pictures_and_the_test_pictures_are_read_once(here, run, measured):
    code, out, err = run(*TUNE, *GRID)
    assert code == 0, err
    assert measured[:4] == [6] * 4 and measured[4:] == [64, 64, 30]  # a tenth of 64; then those of the last training
    rows = read_children("tuned/grid")
    assert [row["architecture"] for row in rows] == [
        {"learning_rate": rate, "bn_eps": eps} for rate in (0.02, 1e-5) for eps in (1e-5, 1e-3)
    ]
    best = max(rows, key=lambda row: (row["reward"], -row["child"]))
    recipe, config = read("tuned/best/recipe.json"), read("tuned/best/config.json")["network"]
    assert recipe == json.loads(
        json.dumps(asdict(replace(RECIPE, learning_rate=best["architecture"]["learning_rate"])))
    )
    assert config["scale"]["bn_eps"] == best["architecture"]["bn_eps"]
    final = read("tuned/final/checkpoint/config.json")
    assert final["network"]["scale"]["bn_eps"] == best["architecture"]["bn_eps"]
    assert final["weights"]["recipe"]["learning_rate"] == best["architecture"]["learning_rate"]
    assert final["weights"]["recipe"]["name"] == "recipe.json"
    assert final["weights"]["training"]["pictures"] == 64
    assert {"cifar10_test_top1", "cifar10_test_top5"} < set(final["weights"]["accuracy"])
    assert f"{final['weights']['accuracy']['cifar10_test_top1']:.2%} on CIFAR-10's test pictures" in out
    assert "the best 4 of 4 trainings" in out and "learning_rate" in out


def test_the_same_command_goes_on_and_trains_nothing_twice(here, run, monkeypatch):
    calls, own = [], RecipeChild.__call__

    def interrupted(child, architecture, seed):
        calls.append(architecture)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return own(child, architecture, seed)

    monkeypatch.setattr(RecipeChild, "__call__", interrupted)
    code, _, err = run(*TUNE, *GRID)
    assert code == 130 and "the same command continues from here" in err
    code, _, err = run(*TUNE, *GRID)
    assert code == 0, err
    assert len(calls) == 5 and calls[2] == calls[3]
    whole = [(row["architecture"], row["reward"], row["seed"]) for row in read_children("tuned/grid")]
    assert len(whole) == 4
    before = Path("tuned/final/checkpoint/model.safetensors").read_bytes()
    code, _, err = run(*TUNE, *GRID)
    assert code == 0 and len(calls) == 5, err
    assert Path("tuned/final/checkpoint/model.safetensors").read_bytes() == before


def test_folders_of_pictures_in_worker_processes(here, run):
    paint(here / "fruit")
    grid = ("--grid", "learning_rate=0.02,0.01", "--hold-out", 6, "--epochs", 1)
    fleet = ("--fleet", "processes", "--per-device", 1, "--workers", 0)
    code, out, err = run(*TUNE[:-4], *fleet, "--device", "cpu", "--data", "fruit", *grid)
    assert code == 0, err
    accuracy = read("tuned/final/checkpoint/config.json")["weights"]["accuracy"]
    assert {"val_top1", "val_top5"} < set(accuracy)
    assert all(row["status"] == "done" for row in read_children("tuned/grid"))
    assert nasnet_zoo.load("tuned/final").labels == ("kiwi", "mango", "Äpfel 🍎")


def test_a_training_that_fails_is_told_and_does_not_win(here, run):
    code, out, err = run(*TUNE, "--grid", "learning_rate=0.02,1e30", "--set", "clip_norm=0")
    assert code == 0, err
    assert [row["status"] for row in read_children("tuned/grid")] == ["done", "nan"]
    assert "the best 1 of 2 trainings, 1 without a result" in out
    assert read("tuned/best/recipe.json")["learning_rate"] == 0.02


@pytest.mark.parametrize(
    ("grid", "said"),
    [
        ("learning_rte=0.1,0.2", "there is no learning_rte to change"),
        ("learning_rate", "the grid's 'learning_rate': write a field's name, =, and different values"),
        ("learning_rate=0.1,0.1", "the grid's 'learning_rate=0.1,0.1': write a field's name"),
        ("learning_rate=-1", "recipe: learning_rate is -1, and must be above 0"),
        ("learning_rate=much", "recipe: learning_rate is 'much', and has to be a number"),
    ],
)
def test_a_grid_that_is_none(grid, said, here, run):
    assert refused(run, *TUNE, "--grid", grid, fast=False).startswith(said)
    assert not Path("tuned").exists()


def test_the_same_field_twice(here, run):
    said = refused(run, *TUNE, "--grid", "weight_decay=0,1e-4", "--grid", "weight_decay=1e-3", fast=False)
    assert "a grid needs at least one field and none twice" in said


def test_pictures_that_leave_none_to_test_on(here, run):
    paint(here / "fruit", splits=(("", 8),))
    said = refused(run, *TUNE, "--data", "fruit", *GRID, fast=False)
    assert said.startswith("fruit has no pictures to test on") and not Path("tuned").exists()


def test_trained_weights_are_not_thrown_away_silently(here, run):
    network = nasnet_zoo.create(CONFIG)
    torch.nn.init.normal_(network.classifier.bias)
    nasnet_zoo.save(network, "net")
    said = refused(run, "tune", "-m", "net", *TUNE[3:], fast=False)
    assert said == "net has weights of its own, and tune begins with fresh ones: name its config.json"


def test_the_small_grid():
    stepped = replace(RECIPE, schedule="step", decay_epochs=30.0, learning_rate=0.1, weight_decay=5e-4)
    assert default_grid(stepped, CONFIG) == [
        "learning_rate=0.05,0.1,0.2",
        "weight_decay=0.0002,0.0005",
        "bn_eps=1e-05,0.001",
        "decay_epochs=20.1,30,45",
    ]
    assert len(all_of(replace(get_space("recipes"), grid=tuple(default_grid(stepped, CONFIG))))) == 36
    assert not any(text.startswith("decay_epochs") for text in default_grid(RECIPE, CONFIG))


def test_what_a_grid_may_change():
    config, recipe = changed(CONFIG, RECIPE, {"bn_eps": 0.5, "momentum": 0.5})
    assert (config.scale.bn_eps, recipe.momentum) == (0.5, 0.5)
    with pytest.raises(ConfigError, match="there is no epoch to change: a grid takes the fields of a recipe, and of"):
        changed(CONFIG, RECIPE, {"epoch": 3})


def test_the_child_never_sees_the_test_pictures(here, monkeypatch):
    child = RecipeChild(ChildSettings("recipes", config=CONFIG.to_json(), recipe=RECIPE, hold_out=10))
    child.prepare("cpu")
    assert (len(child.data.train), len(child.data.val), child.data.test) == (54, 10, None)
    first = child({"learning_rate": 0.02}, 1)
    assert first == child({"learning_rate": 0.02}, 1) and first != child({"learning_rate": 0.02}, 2)
    assert set(first) == {"accuracy", "top5", "losses"}


def test_more_pictures_than_there_are(here):
    child = RecipeChild(ChildSettings("recipes", config=CONFIG.to_json(), recipe=RECIPE, hold_out=64))
    with pytest.raises(DataError, match="64 of the 64 training pictures of CIFAR-10 cannot be held out"):
        child.prepare("cpu")


def test_settings_without_a_network():
    with pytest.raises(ConfigError, match="the task recipes needs the config of a network"):
        ChildSettings("recipes").completed()
    assert recipes.RecipeChild(ChildSettings("recipes")).data is None
