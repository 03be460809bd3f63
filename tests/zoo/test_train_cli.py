"""`nasnet-zoo train` and `finetune` as their users type them: what they take, say, leave behind, and go on with."""

import dataclasses
import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from toy_search import toy_run
from toy_training import COLOURS, CONFIG, FAST, cifar10, paint, record, refused, trained

import nasnet_zoo
from nasnet_zoo.cli.train import child_network
from nasnet_zoo.data.labels import label_set
from nasnet_zoo.networks.build import build
from nasnet_zoo.search import ChildSettings
from nasnet_zoo.training import history, loop, state
from nasnet_zoo.training.begin import Request, begin
from nasnet_zoo.training.run import Run
from nasnet_zoo.util.files import locked
from nasnet_zoo.weights import checkpoint

STATE = Path("run/state.safetensors")
CHILD = ChildSettings(filters=4, cells=1, stem=2.0, side=16)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The working folder: pictures in `fruit`, and `net`, a network that is trained, as far as anyone can tell."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("nasnet_zoo.data.sets.cifar10_pictures", cifar10)
    monkeypatch.setattr("nasnet_zoo.training.curve.draw_curve", lambda epochs, best, path: path.touch())  # is slow
    network = build(CONFIG)
    torch.nn.init.normal_(network.classifier.bias)
    nasnet_zoo.save(network, "net")
    paint(tmp_path / "fruit")
    return tmp_path


def files(folder):
    """All files below, with their contents."""
    return {path: path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def start(model, **options):
    """The network before the first step."""
    return begin(Request(Path("never"), model=model, search=child_network, **options), "cpu")[1]


def same(network, other):
    there = other.state_dict()
    return all(torch.equal(value, there[key]) for key, value in network.state_dict().items())


# What a training begins from


@pytest.mark.parametrize(
    "what", ["net", "net/config.json", "run", "run/checkpoint", "run/best", "nasnet-a-cifar-small"]
)
def test_weights_that_are_there_are_the_start(here, run, what):
    if what.startswith("run"):
        trained(run, "train", "-m", "net", "-o", "run", "--epochs", 2)
    model = f"{what}.cifar10" if what.startswith("nasnet") else what  # the name alone stands for fresh weights
    assert same(start(model), nasnet_zoo.load(what))


def test_a_name_of_the_zoo_and_a_config_stand_for_fresh_weights_of_the_seed(here):
    (here / "net" / "model.safetensors").rename(here / "away")
    for model in ("nasnet-a-cifar-small", "net/config.json", "net"):
        first, again, other = start(model), start(model), start(model, seed=1)
        assert not first.trained and same(first, again) and not same(first, other)
    assert start("net").config == CONFIG


def test_what_transfer_makes_is_adapted_to_the_data(here, run):
    assert run("transfer", "NASNet-A", "-n", 1, "-p", 24, "--stem", "cifar", "--classes", 7, "-o", "fresh")[0] == 0
    adapted, made = start("fresh", data="fruit"), nasnet_zoo.load("fresh")
    assert adapted.labels == tuple(COLOURS)
    for key, value in made.state_dict().items():
        assert "classifier" in key or torch.equal(value, adapted.state_dict()[key]), key
    out = trained(run, "train", "-m", "fresh", "--data", "fruit", "-o", "run", "--epochs", 1)
    assert "the classifier is new: 3 classes in place of 7\n" in out
    assert record("run")["recipe"]["name"] == "scratch"
    fresh = "fresh has a fresh classifier: if all its weights are fresh, `nasnet-zoo train` suits them better\n"
    assert fresh in trained(run, "finetune", "fruit", "-m", "fresh", "--epochs", 1)


def test_what_transfer_makes_is_trained_with_its_auxiliary_head(here, run):
    assert run("transfer", "NASNet-A", "-n", 1, "-p", 24, "--stem", "cifar", "--size", 16, "-o", "fresh")[0] == 0
    trained(run, "train", "-m", "fresh", "-o", "run", "--epochs", 2)
    recipe = record("run")["recipe"]
    assert (recipe["name"], recipe["drop_path_keep"], recipe["aux_weight"]) == ("cifar10", 0.8, 0.4)
    before, after = nasnet_zoo.load("fresh").state_dict(), nasnet_zoo.load("run").state_dict()
    head = [key for key in after if key.startswith("aux.")]
    assert len(head) == 12 and not any(torch.equal(before[key], after[key]) for key in head)


def test_a_recipe_of_smaller_pictures_is_refused_for_an_auxiliary_head(here, run):
    assert run("transfer", "NASNet-A", "-n", 1, "-p", 24, "--stem", "cifar", "-o", "fresh")[0] == 0
    said = refused(run, "train", "-m", "fresh", "-o", "run", "--recipe", "cifar-quick", "--epochs", 1)
    assert "made for maps of (16, 16) and gets (8, 8)" in said and "a recipe without `sizes`" in said
    quick = ("--recipe", "cifar-quick", "--set", "sizes=[]")
    trained(run, "train", "-m", "fresh", "-o", "run", "--epochs", 1, *quick)


@pytest.mark.parametrize("what", ["found", "found/best.json"])
def test_a_search_stands_for_the_network_of_its_children(here, what):
    toy_run("found", 3, child=CHILD)
    found = nasnet_zoo.lookup.find_architecture("found")
    assert start(what).config == CHILD.network(found.architecture, found.kind)


def test_a_search_whose_children_are_no_networks_is_told(here, run, monkeypatch):
    toy_run("found", 3)
    monkeypatch.setattr("nasnet_zoo.search.folder.read_config", lambda folder: type("Config", (), {"child": None}))
    said = refused(run, "train", "-m", "found", "-o", "run")
    assert said.startswith("found is a search's run folder, and a network is needed here: `nasnet-zoo transfer found ")
    assert not (here / "run").exists()


@pytest.mark.parametrize(
    "model, advice",
    {
        "NASNet-A": "`nasnet-zoo transfer NASNet-A --max-madds 600M -o FOLDER` makes a network of it",
        "nasnet-a-cifar": "`nasnet-zoo train -m nasnet-a-cifar --data DIR -o FOLDER` begins with fresh ones",
        "net.json": "`nasnet-zoo train -m net.json --data DIR -o FOLDER` begins with fresh ones",
        "fruit": "see `nasnet-zoo COMMAND --help` for what can be named",
        "nothing/there.json": "there is no file or folder nothing/there.json",
    }.items(),
)
def test_what_has_no_weights_cannot_be_finetuned(here, run, model, advice):
    (here / "net" / "config.json").rename("net.json")
    before = files(here)
    assert refused(run, "finetune", "fruit", "-m", model).endswith(advice) and files(here) == before


# Going on


def test_the_folder_alone_goes_on_wherever_one_is(here, run, monkeypatch):
    labels = {name: name.upper() for name in COLOURS}
    Path("labels.json").write_text(json.dumps(labels))
    trained(run, "finetune", "fruit", "-m", "net", "-o", "run", "--labels", "labels.json", "--epochs", 2, "--keep", 2)
    (here / "elsewhere").mkdir()
    monkeypatch.chdir(here / "elsewhere")
    code, _, err = run("train", "-o", "../run", "--epochs", 4, "--workers", 1, "--device", "cpu", "--save-minutes", 0)
    assert code == 0 and [line.split(":")[2][3:] for line in err.splitlines()] == ["epoch 3/4", "epoch 4/4"], err
    there = record(here / "run", "checkpoint/config.json")
    assert there["weights"]["epoch"] == 4 and there["network"]["labels"] == [*labels.values()]
    assert len(list((here / "run" / "epochs").iterdir())) == 2  # --keep is as it was


def test_what_is_done_is_shown_again(here, run):
    out = trained(run, "train", "-m", "net", "-o", "run", "--epochs", 2)
    before = files("run")
    assert run("train", "-o", "run") == (0, out, "") and files("run") == before


@pytest.mark.parametrize(
    "arguments, said",
    {
        "--seed 4": r"run/state.safetensors belongs to .*\(seed 0 there and 4 here\): give what it began with, choose",
        "--recipe scratch --epochs 2": r"weight_decay 0.0001 there and 0.0005 here.*: give what it began with, choose",
        "--set learning_rate=0.5": "learning_rate 0.02 there and 0.5 here",
        "--epochs 1": "has done 2 epochs, and 1 are asked for: ask for at least 2, or choose another folder",
        "-m other": r"run holds a training of \S+/net, and other is another network: leave -m out to go on",
        "--data fruit": "none of the network's 10 classes: .*, or name the data that it began with",
        "--labels labels.txt": "CIFAR-10 has names of its own: leave --labels out",
        "--device tpu": "the device 'tpu' is not there",
    }.items(),
)
def test_a_training_that_is_another_one_is_refused_and_goes_on_as_itself(here, run, arguments, said):
    """What was asked for in vain is not remembered."""
    Path("labels.txt").write_text("a\nb\nc\n")
    nasnet_zoo.save(build(CONFIG), "other")  # of the same architecture
    trained(run, "train", "-m", "net", "-o", "run", "--epochs", 2)
    before = files("run")
    assert re.search(said, refused(run, "train", "-o", "run", *arguments.split(), fast=False))
    assert files("run") == before
    assert run("train", "-o", "run", "-m", here / "net", "--epochs", 3)[0] == 0


def test_other_pictures_in_the_same_place_are_said(here, run):
    trained(run, "finetune", "fruit", "-m", "net", "-o", "run", "--epochs", 1)
    next(Path("fruit/val").rglob("*.png")).unlink()
    out = trained(run, "train", "-o", "run", "--epochs", 2)
    assert "fruit had 18 and 6 pictures when the training began: what follows is another order" in out


def test_data_may_move_and_not_become_others(here, run):
    trained(run, "finetune", "fruit", "-m", "net", "-o", "run", "--epochs", 1)
    Path("fruit").rename("moved")
    assert refused(run, "train", "-o", "run", "--epochs", 2).startswith(f"there is no folder {here}/fruit: name ")
    trained(run, "train", "-o", "run", "--data", "moved", "--epochs", 2)
    other = paint(here / "other", splits=[("train", 6), ("val", 3)])
    said = refused(run, "train", "-o", "run", "--data", other, "--epochs", 3)
    assert said.startswith(f"run holds a training on {here}/moved, and {other} has other pictures: leave --data out")


def test_a_training_that_came_to_nothing_leaves_nothing(here, run):
    """Nor are its options remembered."""
    said = refused(
        run, "train", "-m", "net", "-o", "run", "--epochs", 2, *FAST, "--set", "learning_rate=1e30", fast=False
    )
    assert re.fullmatch(
        r"the loss is (nan|inf|-inf) in step \d+ of epoch 1: try a lower learning rate or another seed", said
    )
    assert sorted(os.listdir()) == ["fruit", "net"]
    trained(run, "train", "-m", "net", "-o", "run", "--epochs", 1)


def test_a_loss_that_is_no_number_keeps_the_last_good_state(here, run, monkeypatch):
    arguments = ("train", "-m", "net", "-o", "run", "--epochs", 3)
    before, set_rate = {}, loop.set_rate

    def far_too_high(optimizer, rate):
        if STATE.exists():
            before.update(files("run"))
            rate = 1e30
        set_rate(optimizer, rate)

    with monkeypatch.context() as patched:
        patched.setattr(loop, "set_rate", far_too_high)
        for _ in range(2):  # the same call does the same
            said = refused(run, *arguments)
            assert re.search(r"in step \d+ of epoch 2: .* in another folder; run has the state before that$", said), (
                said
            )
            assert files("run")[STATE] == before[STATE]
    trained(run, *arguments)


def test_ctrl_c_says_what_goes_on_and_that_does(here, run, monkeypatch):
    trained(run, "train", "-m", "net", "-o", "whole", "--epochs", 2)
    set_rate, steps = loop.set_rate, []

    def interrupted(*arguments):
        steps.append(arguments)
        if len(steps) == 3:
            signal.raise_signal(signal.SIGINT)
        set_rate(*arguments)

    monkeypatch.setattr(loop, "set_rate", interrupted)
    code, out, err = run("train", "-m", "net", "-o", "a run", "--epochs", 2, *FAST)
    assert code == 130 and err.endswith("nasnet-zoo: stopped; `nasnet-zoo train -o 'a run'` continues from here\n")
    assert not (here / "a run" / "checkpoint").exists()
    assert run("train", "-o", "a run")[0] == 0
    assert same(nasnet_zoo.load("whole"), nasnet_zoo.load("a run"))


def test_a_folder_of_the_first_version_goes_on(here, run, golden):
    """Which had no training.json, and measured nothing before the end."""
    Path("old").mkdir()
    Path("old/state.safetensors").write_bytes((golden / "v1" / "training" / "state.safetensors").read_bytes())
    Path("net.json").write_text(json.dumps({"network": CONFIG.to_json()}))
    recipe = dict(epochs=4, batch_size=16, learning_rate=0.05, warmup_epochs=0.5, pad=1)
    Path("recipe.json").write_text(json.dumps(recipe | dict(drop_path_keep=0.8, dropout=0.1, cutout=4)))
    said = refused(run, "train", "-o", "old", fast=False)
    assert said == "old has no training.json: name the network to train with -m"
    again = ("train", "-m", "net.json", "-o", "old", "--recipe", "recipe.json", "--seed", 3, "--keep", 2)
    code, out, err = run(*again)
    assert code == 0 and out.splitlines()[2].split()[:2] == ["last", "4"], err
    assert run("train", "-o", "old") == (0, out, "")


def test_sigterm_to_the_readers_too_ends_a_training_well(here):
    """As a cluster sends it, and `timeout`."""
    command = [
        sys.executable,
        "-m",
        "nasnet_zoo.cli",
        "finetune",
        "fruit",
        "-m",
        "net",
        "-o",
        "run",
        "--epochs",
        "9999",
    ]
    command += ["--workers", "2", "--set", "batch_size=8", "--device", "cpu"]
    with open("log", "w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    while " epoch 1/" not in Path("log").read_text() and process.poll() is None:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait() == 130, Path("log").read_text()
    assert Path("log").read_text().endswith("nasnet-zoo: stopped; `nasnet-zoo train -o run` continues from here\n")


def test_a_reader_that_dies_is_one_sentence(here, run, monkeypatch):
    import multiprocessing

    set_rate = loop.set_rate

    def kill(*arguments):
        for reader in multiprocessing.active_children():
            os.kill(reader.pid, signal.SIGKILL)
        set_rate(*arguments)

    monkeypatch.setattr(loop, "set_rate", kill)
    arguments = ("--workers", 1, "--set", "batch_size=2", "--device", "cpu")
    said = refused(run, "finetune", "fruit", "-m", "net", "-o", "run", *arguments, fast=False)
    assert said.startswith("a process that reads pictures failed (") and said.endswith("try fewer workers")


# Finetuning


def test_a_finetuned_network_serves_everywhere(here, run):
    trained(run, "finetune", "fruit", "-m", "net", "--epochs", 3, "--keep", 3)
    assert record("fruit-net")["recipe"]["name"] == "finetune" and nasnet_zoo.load("fruit-net").labels == tuple(COLOURS)
    for folder in ("fruit-net", "fruit-net/best"):
        measured = json.loads(run("eval", "-m", folder, "--data", "fruit/val", "--json")[1])
        there = record(folder if folder.endswith("best") else "fruit-net/checkpoint", "config.json")["weights"]
        assert there["accuracy"] == {"val_top1": measured["top1"], "val_top5": measured["top5"]}
    assert "kiwi, mango" in run("info", "fruit-net")[1]
    code, out, _ = run("predict", "fruit/val/mango/0.png", "-m", "fruit-net", "--json")
    top = json.loads(out)[0]["top"]
    assert code == 0 and {each["label"] for each in top} == set(COLOURS)
    assert run("export", "fruit-net", "-o", "graph")[0] == 0
    seen = nasnet_zoo.export.Session("graph").predict("fruit/val/mango/0.png")
    assert [each.label for each in seen] == [each["label"] for each in top]
    weights = nasnet_zoo.load("fruit-net")
    for command in (["train", "--data", "fruit"], ["finetune", "fruit"]):  # which has these classes, and keeps them
        out = trained(run, *command, "-m", "fruit-net", "-o", f"again-{command[0]}", "--epochs", 1)
        assert "the classifier is new" not in out
        assert same(start("fruit-net", data="fruit", finetune=command[0] == "finetune"), weights)


def test_classes_in_another_order_are_those_of_the_network(here, run):
    order = ("mango", "Äpfel 🍎", "kiwi")
    network = nasnet_zoo.load("net")
    network.reset_classifier(labels=order)
    torch.nn.init.normal_(network.classifier.bias)
    nasnet_zoo.save(network, "ordered")
    for options in (dict(finetune=True), {}):
        _, adapted, data, _ = begin(Request(Path("never"), model="ordered", data="fruit", **options), "cpu")
        assert adapted.labels == data.names == order and same(adapted, network)
        assert all(Path(path).parent.name == order[label] for path, label in (*data.train, *data.val))


def test_a_network_that_goes_on_with_names_of_a_file_keeps_its_own(here, run):
    paint(here / "numbers", ["1", "2"])
    Path("names.json").write_text(json.dumps({"1": "ship", "2": "cat"}))
    request = Request(Path("never"), model="net", data="numbers", labels=Path("names.json"))
    _, network, data, _ = begin(request, "cpu")
    assert network.labels == data.names == label_set("cifar10")
    assert {(Path(path).parent.name, label_set("cifar10")[label]) for path, label in data.train} == {
        ("1", "ship"),
        ("2", "cat"),
    }
    Path("names.json").write_text(json.dumps({"1": "ship", "2": "kiwi"}))
    said = refused(run, "train", "-m", "net", "--data", "numbers", "--labels", "names.json", "-o", "run")
    assert said.endswith("the network 10 others: let `nasnet-zoo finetune` adapt the network to them")


def test_imagenet_with_its_background_class_keeps_its_classes(here):
    """TF-slim's networks have 1001, of which no folder is the first."""
    names = label_set("imagenet-1k")
    network = build(dataclasses.replace(CONFIG, num_classes=1001, labels="imagenet-1k"))
    torch.nn.init.normal_(network.classifier.bias)
    nasnet_zoo.save(network, "slim")
    paint(here / "wnids", ["n01440764", "n02123045"])
    _, begun, data, _ = begin(Request(Path("never"), model="slim", data="wnids"), "cpu")
    assert same(begun, network)
    assert {data.names[label] for _, label in data.train} == {"tench", "tabby"}
    assert {label for _, label in data.train} == {names.index("tench") + 1, names.index("tabby") + 1}


def test_wordnet_ids_become_names(here):
    paint(here / "wnids", ["n01440764", "n02123045"])
    assert start("net", data="wnids", finetune=True).labels == ("tench", "tabby")


@pytest.mark.parametrize(
    "name, text",
    {
        "labels.txt": "Kiwifruit\nMango fruit\nApple\n",
        "list.json": '["Kiwifruit", "Mango fruit", "Apple"]',
        "object.json": '{"kiwi": "Kiwifruit", "mango": "Mango fruit", "Äpfel 🍎": "Apple", "pear": "Pear"}',
    }.items(),
)
def test_labels_of_a_file(here, name, text):
    Path(name).write_text(text, encoding="utf-8")
    network = start("net", data="fruit", finetune=True, labels=Path(name))
    assert network.labels == ("Kiwifruit", "Mango fruit", "Apple")


@pytest.mark.parametrize(
    "name, text, said",
    [
        (
            "two.txt",
            "a\nb\n",
            "two.txt has 2 names, which are not those of the 3 folders in fruit/train: write one for",
        ),
        ("some.json", '{"kiwi": "Kiwi"}', "some.json has no names for folders in fruit/train (mango, Äpfel 🍎): add"),
        (
            "one.txt",
            "Kiwi\nMango fruit\nApple\n",
            "fruit/train/mango is the name of none of one.txt's 3 classes (Mango",
        ),
        ("no.json", "[1]", "no.json is no list of names"),
        ("half.json", "[", "half.json is not valid JSON"),
        ("empty.txt", "", "empty.txt has no names in it"),
        ("gone.txt", None, "cannot read the labels gone.txt: No such file or directory; name a text file"),
    ],
)
def test_labels_that_do_not_serve(here, run, name, text, said):
    if text is not None:
        Path(name).write_text(text, encoding="utf-8")
    assert refused(run, "finetune", "fruit", "-m", "net", "--labels", name).startswith(said)
    assert not Path("fruit-net").exists()


def test_the_first_weights_of_a_classifier_depend_on_the_seed_alone(here):
    torch.manual_seed(5)
    first = start("net", data="fruit", finetune=True).classifier.weight
    torch.manual_seed(6)
    assert torch.equal(first, start("net", data="fruit", finetune=True).classifier.weight)
    assert not torch.equal(first, start("net", data="fruit", finetune=True, seed=1).classifier.weight)


def test_the_classifier_learns_first(here, run):
    """Its two epochs end with the body as it was."""
    arguments = ("--workers", 0, "--set", "batch_size=8", "--set", "freeze_norms=true", "--keep", 9)
    assert run("finetune", "fruit", "-m", "net", "--epochs", 3, *arguments)[0] == 0
    body = {key: value for key, value in nasnet_zoo.load("net").state_dict().items() if "classifier" not in key}
    for epoch, unchanged in (("2", True), ("3", False)):
        after = nasnet_zoo.load(f"fruit-net/epochs/{epoch}").state_dict()
        assert all(torch.equal(value, after[key]) for key, value in body.items()) == unchanged


def test_the_best_epochs_are_kept(here, run, monkeypatch):
    """The first of equals; checkpoint/ is the last one, best/ the best."""
    accuracies = iter([0.25, 0.5, 0.125, 0.5, 0.375])
    measure = "nasnet_zoo.training.tasks.classify.Classify.evaluate"
    monkeypatch.setattr(measure, lambda *_: {"top1": next(accuracies), "top5": 1.0})
    out = trained(run, "finetune", "fruit", "-m", "net", "-o", "run", "--epochs", 5, "--keep", 3)
    kept = {path.name: record(path, "config.json")["weights"] for path in Path("run/epochs").iterdir()}
    assert {name: (each["epoch"], each["accuracy"]["val_top1"]) for name, each in kept.items()} == {
        "2": (2, 0.5),
        "4": (4, 0.5),
        "5": (5, 0.375),
    }
    assert [record("run", f"{name}/config.json")["weights"]["epoch"] for name in ("best", "checkpoint")] == [2, 5]
    rows = [line.split() for line in out.splitlines() if line.startswith(("best", "last"))]
    assert [(row[1], row[3], row[5]) for row in rows] == [
        ("2", "50.00%", "run/best"),
        ("5", "37.50%", "run/checkpoint"),
    ]


def test_a_file_among_the_best_ends_no_training(here, run, monkeypatch, caplog):
    accuracies = iter([0.25, 0.5, 0.75])
    measure = "nasnet_zoo.training.tasks.classify.Classify.evaluate"
    monkeypatch.setattr(measure, lambda *_: {"top1": next(accuracies), "top5": 1.0})
    trained(run, "finetune", "fruit", "-m", "net", "-o", "run", "--epochs", 1)
    Path("run/best/.DS_Store").touch()
    trained(run, "train", "-o", "run", "--epochs", 2)
    assert record("run", "best/config.json")["weights"]["epoch"] == 2 and not caplog.messages
    perform = Run.perform

    def interfered(self, *arguments):
        Path("run/best/errors.png").touch()
        return perform(self, *arguments)

    monkeypatch.setattr(Run, "perform", interfered)
    trained(run, "train", "-o", "run", "--epochs", 3)
    assert record("run", "checkpoint/config.json")["weights"]["epoch"] == 3
    (said,) = caplog.messages
    assert "goes on without the checkpoint of its best epoch" in said and "errors.png" in said


# Data that are not as they should be


def broken(folder, count):
    for path in sorted(folder.rglob("*.png"))[:count]:
        path.write_bytes(b"no picture")


def test_some_broken_pictures_are_named_and_many_are_an_error(here, run, caplog):
    broken(here / "fruit" / "train" / "kiwi", 2)
    arguments = ("--epochs", 1, *FAST, "--set", "batch_size=18")
    assert run("finetune", "fruit", "-m", "net", *arguments)[0] == 0
    for index in range(2):
        assert f"fruit/train/kiwi/{index}.png cannot be read as a picture and is left out" in caplog.text
    broken(here / "fruit" / "train", 12)
    said = refused(run, "finetune", "fruit", "-m", "net", "-o", "run", "--epochs", 1, "--seed", 1)
    assert re.fullmatch(r"1[12] of 18 pictures cannot be read, the last of them fruit/\S+: mend or replace them", said)
    broken(here / "fruit" / "val", 12)
    paint(here / "fruit", splits=[("train", 6)])
    said = refused(run, "finetune", "fruit", "-m", "net", "-o", "run", "--epochs", 1)
    assert said == "none of the pictures to measure on can be read: mend or replace them"
    assert not Path("run").exists()


def spoiled(folder, how):
    match how:
        case "an empty class":
            (folder / "train" / "pear").mkdir()
        case "one class":
            for name in ("mango", "Äpfel 🍎"):
                (folder / "train" / name).rename(folder.parent / name)
        case "a class in val alone":
            paint(folder, ["pear"], [("val", 1)])
        case "less than a batch":
            for path in sorted(folder.glob("train/*/*.png"))[:12]:
                path.unlink()


@pytest.mark.parametrize(
    "how, said",
    {
        "an empty class": "fruit/train has folders without pictures (pear): put pictures of their classes there, or",
        "one class": "fruit/train has one class, kiwi, and a training needs two: add another folder",
        "a class in val alone": "fruit/val has classes that fruit/train lacks (pear): name the folders as they are",
        "less than a batch": "fruit/train has folders without pictures (kiwi, mango)",
    }.items(),
)
def test_folders_that_are_no_data_set(here, run, how, said):
    spoiled(here / "fruit", how)
    assert refused(run, "finetune", "fruit", "-m", "net").startswith(said) and not Path("fruit-net").exists()


@pytest.mark.parametrize(
    "name, said", [("gone", "there is no folder gone: name one"), ("a.zip", "a.zip is no folder: unpack")]
)
def test_data_that_are_no_folder(here, run, name, said):
    Path("a.zip").write_bytes(b"PK")
    assert refused(run, "finetune", name, "-m", "net").startswith(said)
    assert refused(run, "train", "-m", "net", "--data", name, "-o", "run").startswith(said)
    assert sorted(os.listdir()) == ["a.zip", "fruit", "net"]


def test_what_is_held_out_is_said(here, run):
    out = trained(run, "finetune", "fruit/train", "-m", "net", "-o", "run", "--epochs", 1)
    assert "fruit/train has no folder val: 3 of its 18 pictures are held out to measure on\n" in out
    assert re.search(r"wrote run/checkpoint: top-1 \S+ on the pictures held out\n", out)
    assert record("run")["held_out"] and record("run")["pictures"] == [15, 3]
    assert list(record("run/checkpoint", "config.json")["weights"]["accuracy"]) == ["held_out_top1", "held_out_top5"]


def test_classes_that_are_not_measured_are_said(here, run):
    (here / "fruit" / "val" / "mango").rename(here / "mango")
    out = trained(run, "finetune", "fruit", "-m", "net", "--epochs", 1)
    assert "there are no pictures to measure mango on: the accuracies say nothing of them\n" in out


def test_pictures_of_one_pixel_are_pictures(here, run):
    paint(here / "dots", side=1)
    trained(run, "finetune", "dots", "-m", "net", "--epochs", 1)


@pytest.mark.parametrize("out", [".", "a run", "kiwi/run"])
def test_a_run_folder_is_no_class(here, run, monkeypatch, out):
    monkeypatch.chdir(here / "fruit" / "train")
    before = files(here)
    said = refused(run, "finetune", ".", "-m", here / "net", "-o", out)
    assert said.endswith(": name another one with -o") or "holds kiwi and no training: choose a new" in said
    assert files(here) == before
    monkeypatch.chdir(here / "fruit")  # beside train and val it is none
    trained(run, "finetune", ".", "-m", here / "net", "--epochs", 1)
    assert Path("fruit-net/checkpoint").is_dir()


# What a disk and other processes do


def full(monkeypatch, module, name, at=1):
    """From its call `at` on, a function finds the disk full."""
    function, calls = getattr(module, name), []

    def fails(*arguments, **options):
        calls.append(arguments)
        if len(calls) >= at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return function(*arguments, **options)

    monkeypatch.setattr(module, name, fails)


@pytest.mark.parametrize(
    "module, what, left",
    [
        (state, "state.safetensors", ["best", "curve.png", "history.csv", "tensorboard"]),
        (checkpoint, "best", ["curve.png", "history.csv", "tensorboard"]),
    ],
)
def test_a_full_disk_ends_a_training_in_a_sentence(here, run, monkeypatch, module, what, left):
    full(monkeypatch, module, "save_file")
    said = refused(run, "train", "-m", "net", "-o", "run", "--epochs", 2)
    assert re.fullmatch(rf"Cannot write \S+/run/{what}: the disk is full; free some space or .*", said)
    assert sorted(name for name in os.listdir("run") if not name.startswith(".")) == left


def test_a_full_disk_costs_no_more_than_an_epoch(here, run, monkeypatch):
    """What was there is whole; and best/ is the best one in the end, whatever could not be written in between."""
    accuracies = [0.1, 0.9, 0.2]

    def measured(task, network):
        return {"top1": accuracies[round(float(network.progress) * 3 + 0.4) - 1], "top5": 1.0}

    monkeypatch.setattr("nasnet_zoo.training.tasks.classify.Classify.evaluate", measured)
    arguments = ("train", "-m", "net", "-o", "run", "--epochs", 3)
    for at, epoch in ((2, 1), (2, 2)):  # the second epoch's best/, and then checkpoint/
        with monkeypatch.context() as patched:
            full(patched, checkpoint, "save_file", at)
            assert "the disk is full" in refused(run, *arguments)
        nasnet_zoo.load("run/best")  # is whole
        assert record("run", "best/config.json")["weights"]["epoch"] == epoch
    trained(run, *arguments)
    assert [record("run", f"{name}/config.json")["weights"]["epoch"] for name in ("best", "checkpoint")] == [2, 3]
    trained(run, "train", "-m", "net", "-o", "whole", "--epochs", 3)
    assert same(nasnet_zoo.load("run/best"), nasnet_zoo.load("whole/best"))


def test_a_table_that_cannot_be_written_ends_no_training(here, run, monkeypatch, caplog):
    full(monkeypatch, history, "write_table")
    trained(run, "train", "-m", "net", "-o", "run", "--epochs", 2)
    assert caplog.text.count("history.csv could not be written, and the training goes on") == 1


def test_a_folder_that_may_not_be_written(here, run, monkeypatch):
    monkeypatch.setattr("nasnet_zoo.util.files.os.access", lambda path, mode: False)
    said = refused(run, "train", "-m", "net", "-o", "run", "--epochs", 1)
    assert "permission denied" in said and not Path("run").exists()


def test_a_folder_in_which_another_process_trains(here, run):
    with locked(here / "run" / "training"):
        said = refused(run, "train", "-m", "net", "-o", "run", "--epochs", 1)
        assert re.fullmatch(r"Another process is working on \S+/run/training; wait until .*", said)
        assert os.listdir("run") == [".training.lock"]


@pytest.mark.parametrize("out", ["fruit", ".", "net", "net/config.json"])
def test_a_folder_that_holds_something_else(here, run, out):
    before = files(here)
    refused(run, "train", "-m", "net", "-o", out)
    assert files(here) == before


# Options


@pytest.mark.parametrize(
    "arguments, said",
    {
        "--set lr=1": "a recipe has no field 'lr'; it has epochs, ",
        "--set learning_rat=1": "did you mean learning_rate?",
        "--set learning_rate": "--set learning_rate: write a field's name, =, and its value",
        "--set learning_rate=-1": "recipe: learning_rate is -1, and must be above 0",
        "--set learning_rate=much": "recipe: learning_rate is 'much', and has to be a number",
        "--set momentum=nan": "recipe: momentum is 'nan', and has to be a number",
        "--set batch_size=65": "a batch has 65 pictures and the data 64: give a batch_size of at most 64",
        "--set optimizer=adam": "recipe: unknown optimizer 'adam'; choose one of sgd, rmsprop, adamw",
        "--epochs 2": "head_epochs 2 must be fewer than the 2 epochs: give more epochs, or head_epochs 0",
        "--recipe finetun": "did you mean finetune?",
        "--recipe gone.json": "cannot read the recipe gone.json",
        "--recipe half.json": "half.json is not valid JSON",
        "--recipe list.json": "list.json: a recipe is a JSON object",
        "--recipe field.json": "field.json, lr: there is no such field",
        "--device cuda:77": "the device 'cuda:77' is not there",
    }.items(),
)
def test_a_recipe_that_cannot_be_is_one_sentence(here, run, arguments, said):
    for name, text in {"half": "{", "list": "[1]", "field": '{"base": "finetune", "lr": 1}'}.items():
        Path(f"{name}.json").write_text(text)
    before = files(here)
    assert said in refused(run, "train", "-m", "net", "-o", "run", *arguments.split(), fast=False)
    assert files(here) == before


@pytest.mark.parametrize(
    "arguments",
    ["--epochs 0", "--epochs x", "--workers -1", "--workers 100000", "--keep 0", "--save-minutes -1", "--seed x"],
)
def test_numbers_that_cannot_be_are_told_with_the_usage(here, run, arguments):
    code, out, err = run("train", "-m", "net", "-o", "run", *arguments.split())
    assert code == 2 and err.startswith("Usage: ") and f"Invalid value for '{arguments.split()[0]}'" in err
    assert not Path("run").exists()


@pytest.mark.parametrize("seed", [-1, 10**30])
def test_any_whole_number_is_a_seed(here, run, seed):
    trained(run, "train", "-m", "net", "-o", "run", "--epochs", 1, "--seed", seed)
    assert record("run")["seed"] == seed


@pytest.mark.parametrize("command", ["train", "finetune"])
def test_help_lists_the_recipes(run, command):
    from nasnet_zoo.training.recipes import RECIPES

    out = run(command, "--help")[1]
    assert all(re.search(rf"^  {name} ", out, re.MULTILINE) for name in RECIPES)
    assert max(map(len, out.splitlines())) <= 80
