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
from nasnet_zoo.search.children.base import ChildFailure
from nasnet_zoo.search.children.recipes import RecipeChild, changed
from nasnet_zoo.training.recipe import Recipe

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
    recipe, config = read("tuned/chosen/recipe.json"), read("tuned/chosen/config.json")["network"]
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


def test_the_same_command_goes_on_and_trains_nothing_twice(here, run, monkeypatch, measured):
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
    monkeypatch.setattr(RecipeChild, "__call__", own)
    assert run(*[each if each != "tuned" else "unbroken" for each in TUNE], *GRID)[0] == 0
    monkeypatch.setattr(RecipeChild, "__call__", interrupted)
    whole, unbroken = (
        [(row["architecture"], row["reward"], row["metrics"]) for row in read_children(f"{name}/grid")]
        for name in ("tuned", "unbroken")
    )
    assert len(whole) == 4 and whole == unbroken
    before = Path("tuned/final/checkpoint/model.safetensors").read_bytes()
    measured.clear()
    code, _, err = run(*TUNE, *GRID)
    assert code == 0 and len(calls) == 5 and measured == [], err
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
    assert read("tuned/chosen/recipe.json")["learning_rate"] == 0.02


@pytest.mark.parametrize(
    ("grid", "said"),
    [
        ("learning_rte=0.1,0.2", "there is no learning_rte to change"),
        ("learning_rate", "the grid's 'learning_rate': write a field's name, =, and different values"),
        ("learning_rate=0.1,0.1", "the grid's 'learning_rate=0.1,0.1': write a field's name"),
        ("learning_rate=-1", "recipe: learning_rate is -1, and must be above 0"),
        ("learning_rate=much", "recipe: learning_rate is 'much', and has to be a number"),
        ("batch_size=8,500", "a batch has 500 pictures and the data 58: give a batch_size of at most 58"),
        ("sizes=[[0,16]],3", "recipe: sizes is 3, and has to be several"),
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


def test_a_folder_that_holds_something_else_is_left_alone(here, run):
    Path("tuned/chosen").mkdir(parents=True)
    Path("tuned/chosen/recipe.json").write_text("mine")
    said = refused(run, *TUNE, *GRID, fast=False)
    assert said == "tuned holds chosen and no tuning: choose a new or an empty folder"
    assert Path("tuned/chosen/recipe.json").read_text() == "mine"
    Path("file").write_text("mine")
    assert "file" in refused(run, "tune", "-m", "config.json", "-o", "file", *TUNE[5:], fast=False)
    assert Path("file").read_text() == "mine"


def test_a_grid_on_other_pictures_is_another_one(here, run):
    paint(here / "fruit")
    grid = (*TUNE, "--data", "fruit", "--grid", "learning_rate=0.02,0.01", "--epochs", 1, "--hold-out", 3)
    assert run(*grid)[0] == 0
    (here / "fruit/train/kiwi/new.png").write_bytes((here / "fruit/train/kiwi/0.png").read_bytes())
    assert "holds a search whose children had another data set" in refused(run, *grid, fast=False)


def test_settings_that_cannot_be_trained_are_one_that_failed(here):
    child = RecipeChild(ChildSettings("recipes", config=CONFIG.to_json(), recipe=RECIPE, hold_out=10))
    child.prepare("cpu")
    with pytest.raises(ChildFailure, match="a batch has 500 pictures"):
        child({"batch_size": 500}, 0)


def test_the_small_grid():
    stepped = replace(RECIPE, schedule="step", decay_epochs=30.0, learning_rate=0.1, weight_decay=5e-4)
    assert default_grid(stepped, CONFIG) == [
        "learning_rate=0.05,0.1,0.2",
        "weight_decay=0.0002,0.0005",
        "bn_eps=1e-05,0.001",
        "decay_epochs=20.1,30,45",
    ]
    assert len(all_of(replace(get_space("recipes"), grid=tuple(default_grid(stepped, CONFIG))))) == 36
    plain = default_grid(replace(RECIPE, weight_decay=0.0), replace(CONFIG, scale=replace(CONFIG.scale, bn_eps=0.01)))
    assert plain == ["learning_rate=0.01,0.02,0.04", "weight_decay=0,1e-4", "bn_eps=1e-05,0.001,0.01"]


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
    assert first == child({"learning_rate": 0.02}, 2)  # all combinations begin alike
    assert first != child({"learning_rate": 0.01}, 1)
    assert set(first) == {"accuracy", "top5", "losses"}


def test_more_pictures_than_there_are(here):
    child = RecipeChild(ChildSettings("recipes", config=CONFIG.to_json(), recipe=RECIPE, hold_out=64))
    with pytest.raises(DataError, match="64 of the 64 training pictures of CIFAR-10 cannot be held out"):
        child.prepare("cpu")


def test_settings_without_a_network():
    with pytest.raises(ConfigError, match="the task recipes needs the config of a network"):
        ChildSettings("recipes").completed()
    assert recipes.RecipeChild(ChildSettings("recipes")).data is None
