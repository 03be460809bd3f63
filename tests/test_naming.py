"""What a user names: every form, given to every command, serves or is told what it is and what takes it."""

import json
import shlex
import shutil

import pytest
from toy_search import toy_config, toy_run

import nasnet_zoo
from nasnet_zoo.data.labels import example_pictures
from nasnet_zoo.errors import ZooError
from nasnet_zoo.export import Session, to_onnx
from nasnet_zoo.lookup import FORMS, find_architecture, find_config, identify
from nasnet_zoo.search import ChildSettings, SpaceSettings
from nasnet_zoo.search import run as run_search
from nasnet_zoo.weights.loading import checkpoint_folder

SHIPPED = "nasnet-a-cifar-small"
PICTURE = example_pictures("cifar10")[2]
TINY = dict(filters=4, stages=(1, 1, 1))


class Seeded:
    """A child of any space."""

    def prepare(self, device):
        pass

    def __call__(self, architecture, seed):
        return {"accuracy": seed % 100 / 100}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with one of each form that a user may have on the disk."""
    place = tmp_path_factory.mktemp("named")
    network = nasnet_zoo.create(SHIPPED, **TINY).eval()
    nasnet_zoo.save(network, place / "checkpoint")
    shutil.copytree(place / "checkpoint", place / "training" / "checkpoint")
    (place / "training" / "state.safetensors").write_bytes(b"state")
    (place / "unfinished").mkdir()
    (place / "unfinished" / "state.safetensors").write_bytes(b"state")
    (place / "config").mkdir()
    shutil.copy(place / "checkpoint" / "config.json", place / "config")
    shutil.copy(place / "checkpoint" / "config.json", place / "network.json")
    (place / "genotype.json").write_text(json.dumps(nasnet_zoo.GENOTYPES["NASNet-A"].to_json()))
    toy_run(place / "search", children=3)
    to_onnx(network, place / "graph")
    table = dict(space=SpaceSettings("nasbench201"), child=ChildSettings("nasbench201"))
    run_search(toy_config(place / "table", 3, **table), child=Seeded())
    (place / "begun").mkdir()
    shutil.copy(place / "search" / "journal.sqlite", place / "begun")
    (place / "settings").mkdir()
    shutil.copy(place / "search" / "config.json", place / "settings")
    (place / "half").mkdir()
    shutil.copy(place / "checkpoint" / "model.safetensors", place / "half")
    (place / "other.json").write_text('{"name": "something else"}')
    (place / "weights.pth").write_bytes(b"weights")
    (place / "folder").mkdir()
    (place / "notes.txt").write_text("notes")
    return place


# What is named: its form, and whether it has an architecture, a config, weights, a graph.
NAMES = {
    "nasnet-a-cifar-small": ("model", True, True, True, False),
    "nasnet-a-cifar-small.cifar10": ("weights", True, True, True, False),
    "nasnet-a-cifar-small.CIFAR10": ("weights", True, True, True, False),
    "NASNET-A-CIFAR-SMALL.cifar10": ("weights", True, True, True, False),
    "NASNet-A": ("genotype", True, False, False, False),
    "pnasnet-5": ("genotype", True, False, False, False),
    "checkpoint": ("checkpoint", True, True, True, False),
    "checkpoint/config.json": ("checkpoint", True, True, True, False),
    "checkpoint/model.safetensors": ("checkpoint", True, True, True, False),
    "training": ("training", True, True, True, False),
    "unfinished": ("training", False, False, False, False),
    "config": ("config", True, True, False, False),
    "network.json": ("config", True, True, False, False),
    "genotype.json": ("architecture", True, False, False, False),
    "search": ("search", True, False, False, False),
    "search/best.json": ("architecture", True, False, False, False),
    "search/config.json": ("settings", False, False, False, False),
    "settings": ("begun", False, False, False, False),
    "begun": ("begun", False, False, False, False),
    "table": ("table", False, False, False, False),
    "table/best.json": ("entry", False, False, False, False),
    "half": ("half", False, False, False, False),
    "half/model.safetensors": ("foreign", False, False, False, False),
    "other.json": ("file", False, False, False, False),
    "graph/export.json": ("report", False, False, False, False),
    "graph": ("export", False, False, False, True),
    "graph/model.onnx": ("export", False, False, False, True),
    "weights.pth": ("foreign", False, False, False, False),
    "folder": ("folder", False, False, False, False),
    "notes.txt": ("file", False, False, False, False),
}


@pytest.mark.parametrize("what", NAMES)
def test_what_is_named_serves_or_is_told_what_it_is(place, monkeypatch, what):
    monkeypatch.chdir(place)
    form, *serves = NAMES[what]
    assert identify(what).form == form
    takers = (find_architecture, find_config, checkpoint_folder, Session)
    for taker, can in zip(takers, serves):
        if can:
            assert taker(what)
            continue
        with pytest.raises(ZooError) as refused:
            taker(what)
        title, _ = FORMS[form]
        assert str(refused.value).startswith(f"{what} is {title}, and ")
        assert not {"{what}", "{folder}"} & set(str(refused.value).split())


def test_every_form_is_tried():
    assert {form for form, *_ in NAMES.values()} | {"repo"} == set(FORMS)


COMMANDS = {
    "draw": (0, ["draw", "{}", "-o", "{out}/cells.svg"]),
    "transfer": (0, ["transfer", "{}", "--max-madds", "600M"]),
    "info": (None, ["info", "{}"]),
    "predict": (2, ["predict", str(PICTURE), "--model", "{}"]),
    "export": (2, ["export", "{}", "-o", "{out}/graph"]),
}


@pytest.mark.parametrize("what", NAMES)
@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands_take_what_has_what_they_need(place, monkeypatch, tmp_path, run, command, what):
    monkeypatch.chdir(place)
    form, *serves = NAMES[what]
    needed, arguments = COMMANDS[command]
    can = any(serves) if needed is None else serves[needed] or command == "predict" and form == "export"
    code, out, err = run(*(argument.format(what, out=tmp_path) for argument in arguments))
    assert code == (0 if can else 2), err
    assert can or f"{what} is {FORMS[form][0]}" in err


# These would work for long on what serves.
LONG = {
    "train": (1, ["train", "--model", "{}", "-o", "{out}/run"]),
    "eval": (2, ["eval", "--model", "{}", "--data", "{out}"]),
    "bench": (1, ["bench", "{}"]),
    "demo": (2, ["demo", "{}", "--build", "{out}/site"]),
}


TRAINED = ("search", "search/best.json")  # as the network of the search's children


@pytest.mark.parametrize("what", [what for what, (_, *serves) in NAMES.items() if not serves[2]])
@pytest.mark.parametrize("command", LONG)
def test_the_commands_that_take_long_say_at_once_what_does_not_serve(place, monkeypatch, tmp_path, run, command, what):
    form, *serves = NAMES[what]
    needed, arguments = LONG[command]
    if serves[needed] or form == "export" and command != "train" or command == "train" and what in TRAINED:
        return
    monkeypatch.chdir(place)
    code, _, err = run(*(argument.format(what, out=tmp_path) for argument in arguments))
    assert (
        code == 2 and err.startswith(f"nasnet-zoo: {what} is {FORMS[form][0]}, and ") and not list(tmp_path.iterdir())
    )


ADVICE = {
    "table": "what it found is no network that could be built",
    "table/best.json": "it is no network that could be built",
    "begun": "`nasnet-zoo search begun` goes on",
    "half": "`nasnet-zoo convert half/model.safetensors -m MODEL -o FOLDER` makes a whole one",
    "search/config.json": "name its folder, search, for that search",
    "graph/export.json": "name its folder, graph",
}


@pytest.mark.parametrize("what", ADVICE)
def test_what_does_not_serve_is_told_what_to_do(place, monkeypatch, run, what):
    monkeypatch.chdir(place)
    for command in (("predict", PICTURE, "-m"), ("info",), ("export",)):
        code, _, err = run(*command, what)
        assert code == 2 and ADVICE[what] in err and "nasnet-zoo transfer" not in err


RERANK = {"rerank": (None, ["transfer", "{}", "--rerank", "3", "--max-madds", "600M"])}


# What there is not, and what is said of it if not that there is no file or folder of that name.
NONE = {
    **dict.fromkeys(["runs/none", "none.json", "runs/none.json", "runs/none.h5", "./none", "nasnet-a-large.h5"]),
    "nasnet-b-mobile": "published only as figures",
    "nasnet-a-mobil": "did you mean nasnet-a-mobile",
    "nasnet-a-large.none": "nasnet-a-large has no weights 'none': it has tf, keras, timm; name one",
    "NASNet-A-Large.none": "nasnet-a-large has no weights 'none': it has tf, keras, timm; name one",
    "nasnet-a-cifar.tf": "nasnet-a-cifar has no weights 'tf': it has none yet",
}
UNSIZED = {"unsized": (0, ["transfer", "{}"]), "unsized rerank": (None, ["transfer", "{}", "--rerank", "3"])}
ALL = COMMANDS | LONG | RERANK | UNSIZED


@pytest.mark.parametrize("command", ALL)
@pytest.mark.parametrize("what", NONE)
def test_what_does_not_exist_is_said_to_not_exist(tmp_path, monkeypatch, run, command, what):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    code, _, err = run(*(argument.format(what, out=tmp_path) for argument in ALL[command][1]))
    assert code == 2 and (NONE[what] or f"there is no file or folder {what}") in err


def test_a_file_may_have_a_name_like_a_models_weights(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(place / "genotype.json", "nasnet-a-large.json")
    assert identify("nasnet-a-large.json").form == "architecture"
    shutil.copy(place / "weights.pth", "nasnet-a-large.tf")
    assert identify("nasnet-a-large.tf").form == "weights"  # names of the zoo come first


def test_the_zoos_own_weights_have_a_tag_of_every_model():
    assert [identify(f"{name}.zoo").tag for name in ("nasnet-a-large", "nasnet-a-cifar")] == ["zoo", "zoo"]


def test_info_as_json_of_everything(place, monkeypatch, run):
    monkeypatch.chdir(place)
    for what, (_, *serves) in NAMES.items():
        if any(serves):
            code, out, _ = run("info", what, "--json")
            assert code == 0 and json.loads(out)["name"]


def test_a_found_architecture_is_the_same_by_every_name_of_its_search(place):
    by_folder = find_architecture(place / "search")
    by_file = find_architecture(place / "search" / "best.json")
    assert by_folder.architecture == by_file.architecture and by_folder.title == "search"


def test_a_search_without_a_result_says_so(place, tmp_path):
    shutil.copy(place / "search" / "journal.sqlite", tmp_path)
    with pytest.raises(ZooError, match=f"{tmp_path} is a search without a finished child, .*: `nasnet-zoo search"):
        find_architecture(tmp_path)


@pytest.mark.parametrize("folder", ["my run", ".", "-q"])
def test_the_closing_hint_of_a_search_runs_as_printed(tmp_path, monkeypatch, run, folder):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    toy_run(folder, children=2)
    monkeypatch.setattr("nasnet_zoo.search.several.run", lambda config, **_: toy_run(config.folder, children=2))
    code, out, err = run("search", "--", folder)
    assert code == 0, err
    hint = next(line.partition("next: ")[2] for line in out.splitlines() if line.startswith("next: "))
    code, out, err = run(*shlex.split(hint)[1:])
    assert code == 0, err
    written = tmp_path / {"my run": "here/my run-600M", ".": "here-600M", "-q": "here/-q-600M"}[folder]
    assert find_config(written).architecture == find_architecture(f"./{folder}").architecture


@pytest.mark.parametrize("what", ["checkpoint", "training", "unfinished", "graph", "config", "half"])
def test_a_search_says_what_a_folder_is_that_is_none_of_a_search(place, monkeypatch, run, what):
    monkeypatch.chdir(place)
    code, _, err = run("search", what, "--preset", "quick")
    title, _ = FORMS[NAMES[what][0]]
    assert code == 2 and f"{what} is {title}, and no search's run folder: choose a new folder" in err


def test_a_search_is_named_by_its_folder(place, monkeypatch, run):
    monkeypatch.chdir(place)
    for what in ("search/best.json", "search/journal.sqlite", "table/best.json"):
        code, _, err = run("search", what)
        assert code == 2 and f"name its folder, {what.partition('/')[0]}" in err
    code, _, err = run("search", "notes.txt")
    assert code == 2 and "choose a new folder" in err


def test_rerank_wants_a_search(run):
    code, _, err = run("transfer", "NASNet-A", "--max-madds", "600M", "--rerank", "2")
    assert code == 2 and "NASNet-A is a genotype" in err and "--rerank needs the run folder of a search" in err


def test_bench_and_demo_take_a_graph_as_it_is(place, tmp_path, run):
    code, out, err = run("bench", place / "graph", "--rounds", "1", "--only", "nasnet_zoo", "--json")
    assert code == 0, err
    assert json.loads(out)["rows"][0]["precision"] == "fp32"
    code, _, err = run("bench", place / "graph", "--precision", "int8")
    assert code == 2 and "is a graph in fp32" in err
    code, _, err = run("demo", place / "graph", "--build", tmp_path / "site")
    assert code == 0, err
    assert (tmp_path / "site" / "model.onnx").read_bytes() == (place / "graph" / "model.onnx").read_bytes()
    assert len(list((tmp_path / "site" / "cells").iterdir())) == 2
    code, _, err = run("demo", place / "graph", "--precision", "fp16")
    assert code == 2 and "is a graph already" in err


@pytest.mark.parametrize("taker", [find_architecture, find_config, checkpoint_folder, Session])
def test_an_empty_name_is_not_the_current_folder(place, monkeypatch, taker):
    monkeypatch.chdir(place / "checkpoint")
    with pytest.raises(ZooError, match="the name is empty"):
        taker("")
    assert identify(".").form == "checkpoint"


@pytest.mark.parametrize(("what", "near"), [("darts", "Or the genotype P-DARTS or "), ("enas-mikro", "ENAS-micro")])
def test_an_unknown_name_is_told_the_nearest_genotypes_and_no_others(what, near):
    with pytest.raises(ZooError) as refused:
        identify(what)
    assert near in str(refused.value) and "AmoebaNet" not in str(refused.value)
    with pytest.raises(ZooError) as refused:
        identify("foo")
    assert "genotype" not in str(refused.value)
