"""The command line: what it prints, and that whatever goes wrong is one sentence and leaves nothing behind."""

import dataclasses
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from rich.console import Console

import nasnet_zoo
from nasnet_zoo.arch.config import NetworkConfig
from nasnet_zoo.cli import zoo as cli
from nasnet_zoo.data import cifar
from nasnet_zoo.registry import MODELS
from nasnet_zoo.weights import checkpoint

IMAGES = Path(__file__).parents[1] / "images"
CAT = IMAGES / "cat.png"
SHIPPED = Path(nasnet_zoo.__file__).parent / "assets" / cli.SHIPPED
COMMANDS = ["list", "info", "draw", "predict", "eval", "convert", "train"]


@pytest.fixture(scope="module")
def network():
    return nasnet_zoo.load(cli.SHIPPED)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The working folder, full of files that are not what their names say."""
    monkeypatch.chdir(tmp_path)
    junk = bytes(range(256)) * 16
    files = {"empty.png": b"", "text.png": b"text", "junk.h5": junk, "junk.pth": junk, "junk.safetensors": junk}
    files |= {"junk.tar.gz": junk, "junk.json": junk, "cut.json": b'{"normal": [', "deep.json": b"[" * 100_000}
    files |= {"list.json": b"[1, 2]", "not-utf8/labels.csv": b"\xff\xfe", "none/labels.csv": b"file,label\na.png,x\n"}
    files |= {"gone/labels.csv": b"file,label\na.png,0\n", "empty/.keep": b""}
    cell = {"blocks": [{"left": [7, "identity"], "right": [0, "identity"]}], "outputs": [2]}
    files["forward.json"] = json.dumps({"normal": cell, "reduction": cell}).encode()
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    return tmp_path


def tree(folder):
    return sorted(folder.rglob("*"))


def test_an_error_is_one_sentence_and_exit_code_2(tmp_path):
    command = [sys.executable, "-m", "nasnet_zoo.cli", "info", "nasnet-a-mobil"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2 and done.stdout == "" and "nasnet-a-mobile" in done.stderr
    assert done.stderr.startswith("nasnet-zoo: there is no model") and done.stderr.count("\n") == 1


def test_list(run):
    code, out, _ = run("list")
    assert code == 0 and all(name in out for name in MODELS)
    assert run("list", "no-such-*")[0] == 2 and json.loads(run("list", "no-such-*", "--json")[1]) == []


def test_list_has_a_row_for_each_model_with_numbers_below_each_other(run):
    heading, *rows, star, tags = run("list")[1].splitlines()
    assert [row.split()[0] for row in rows] == nasnet_zoo.list_models() and max(map(len, (heading, *rows))) <= 80
    for column in ("px", "params", "madds"):  # the numbers end where their heading ends
        end = heading.index(column) + len(column)
        assert all(row[end - 1] != " " and row[end] == " " for row in rows)
    found = {row.split()[0]: row for row in rows}
    assert "82.94*" in found[cli.SHIPPED] and "CIFAR-10" in found[cli.SHIPPED] and "measured here" in star
    assert found["nasnet-a-large"].split()[-5:] == ["ImageNet", "82.70", ".tf", ".keras", ".timm"]
    assert len({row.index(".", heading.index("top-1")) for row in rows}) == 1  # the decimal points
    assert nasnet_zoo.registry.MODELS[tags.split()[1].rpartition(".")[0]].weights
    assert "*" not in run("list", "nasnet-a-large")[1]


def test_list_is_whole_where_no_screen_limits_it(run, monkeypatch):
    name = "nasnet-a-" + 12 * "very-" + "long"
    monkeypatch.setitem(MODELS, name, dataclasses.replace(MODELS["nasnet-a-large"], name=name))
    assert f"{name} " in run("list")[1]


def test_list_as_json_has_a_record_for_each_model(run):
    rows = {row["name"]: row for row in json.loads(run("list", "--json")[1])}
    assert list(rows) == nasnet_zoo.list_models()
    large, shipped = rows["nasnet-a-large"], rows[cli.SHIPPED]
    assert (large["labels"], large["classes"], large["px"]) == ("imagenet-1k", 1000, [331, 331])
    assert (large["parameters"], large["multiply_adds"]) == (88_753_150, MODELS["nasnet-a-large"].cost.multiply_adds)
    assert (large["published"]["top1"], large["published"]["top5"]) == (82.7, 96.2)
    tags = [f"nasnet-a-large.{source.tag}" for source in MODELS["nasnet-a-large"].weights]
    assert [weights["name"] for weights in large["weights"]] == tags
    assert [weights["top1"] for weights in large["weights"]] == [82.7, None, 82.638]
    assert shipped["published"]["top1"] is None and shipped["weights"][0]["top1"] == pytest.approx(82.94)
    assert shipped["weights"][0]["top5"] == pytest.approx(99.20) and "measured" in shipped["weights"][0]["source"]
    pretrained = json.loads(run("list", "nasnet-a-*", "--pretrained", "--json")[1])
    assert [row["name"] for row in pretrained] == nasnet_zoo.list_models("nasnet-a-*", pretrained=True)


def test_info(run):
    code, out, _ = run("info", "nasnet-a-mobile")
    assert code == 0 and "5,289,978" in out and "nasnet-a-mobile.keras" in out
    record = json.loads(run("info", "nasnet-a-mobile", "--json")[1])
    assert "82.94 / 99.20 %" in run("info", cli.SHIPPED)[1]
    assert record["parameters"] == 5_289_978 and record["config"]["num_classes"] == 1000
    assert NetworkConfig.from_json(record["config"]) == MODELS["nasnet-a-mobile"].config


@pytest.mark.parametrize("what", ["NASNet-A", "nasnet-a-mobile"])
def test_draw(run, tmp_path, what):
    code, out, err = run("draw", what, "-o", tmp_path / "[bold].svg")
    assert code == 0 and "[bold].svg" in out, err
    assert "<svg" in (tmp_path / "[bold].svg").read_text()


def test_predict(run, network):
    pictures = sorted(IMAGES.glob("*.png"))[:2]
    code, out, _ = run("predict", *pictures, "--model", SHIPPED, "-k", 3, "--device", "cpu", "--json")
    assert code == 0
    for record, picture in zip(json.loads(out), pictures, strict=True):
        assert record["image"] == str(picture)
        assert record["top"] == [vars(prediction) for prediction in network.predict(picture, k=3)]
    code, out, _ = run("predict", pictures[0], "--device", "cpu")
    assert code == 0 and pictures[0].name in out and network.predict(pictures[0], k=1)[0].label in out


def test_the_table_of_predictions_fits_an_80_column_terminal(network, monkeypatch):
    pictures = sorted(IMAGES.glob("*.png"))
    records = [
        {"image": str(path), "ms": 1234.5, "top": [vars(prediction) for prediction in network.predict(path)]}
        for path in pictures
    ]
    records[0]["image"] = "brackets[/are].png"
    monkeypatch.setattr(cli, "console", Console(file=io.StringIO(), width=80, markup=False))
    cli.console.print(cli._predictions_table(records))
    lines = cli.console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= 80 and "…" not in "".join(lines)
    for record in records:
        assert sum(line.split()[0] == Path(record["image"]).name for line in lines) == 1
    for top in (top for record in records for top in record["top"][1:]):  # in one line each
        assert any(f"{top['label']} {top['probability']:.1%}" in line for line in lines)


def test_eval_on_subfolders_and_on_a_table(run, network, tmp_path):
    data, rows = tmp_path / "data", ["file,label"]
    hits = {1: 0, 5: 0}
    pictures = sorted(IMAGES.glob("*.png"))
    for picture in pictures:
        (data / picture.stem).mkdir(parents=True)
        shutil.copy(picture, data / picture.stem)
        rows.append(f"{picture.stem}/{picture.name},{network.labels.index(picture.stem)}")
        for k in hits:
            hits[k] += picture.stem in [prediction.label for prediction in network.predict(picture, k=k)]
    expected = {"pictures": len(pictures), "top1": hits[1] / len(pictures), "top5": hits[5] / len(pictures)}
    arguments = ("eval", "--data", data, "--device", "cpu")
    for _ in ("subfolders", "table"):
        code, out, err = run(*arguments, "--json")
        assert code == 0, err
        record = json.loads(out)
        assert {key: record[key] for key in expected} == expected
        (data / "labels.csv").write_text("\n".join(rows) + "\n")
    assert f"{len(pictures)} pictures" in run(*arguments)[1]
    (data / "labels.csv").write_text("file,label\ncat/cat.png,10\n")
    code, _, err = run(*arguments)
    assert code == 2 and "cat.png" in err


@pytest.mark.parametrize("data", ["cifar10", "a folder"])
def test_eval_on_cifar10(run, cifar10, monkeypatch, data):
    """The test pictures are found by name and by folder; a hundred of them are enough here."""
    few = cifar.cifar10_pictures(cifar10, train=False).subset(torch.arange(100))
    asked = []
    monkeypatch.setattr(cifar, "load_cifar10", lambda folder, train: asked.append((str(folder), train)) or few)
    monkeypatch.setenv("NASNET_ZOO_DATA", str(cifar10))
    code, out, err = run("eval", "--data", data if data == "cifar10" else cifar10, "--device", "cpu", "--json")
    record = json.loads(out)
    assert code == 0 and record["pictures"] == 100 and asked == [(str(cifar10), False)], err
    assert 0.6 < record["top1"] < record["top5"] and record["top1"] == round(record["top1"], 2)


def test_eval_on_cifar10_needs_ten_classes(run, tmp_path):
    nasnet_zoo.save(nasnet_zoo.create("nasnet-a-cifar", filters=2, stages=(1,), num_classes=3), tmp_path / "net")
    code, _, err = run("eval", "--data", "cifar10", "--model", tmp_path / "net", "--device", "cpu")
    assert code == 2 and "this network 3" in err and err.count("\n") == 1


def test_eval_on_cifar10_needs_a_network_for_its_pictures(run, tmp_path):
    nasnet_zoo.save(nasnet_zoo.create("nasnet-a-mobile", filters=8, num_classes=10), tmp_path / "net")
    code, _, err = run("eval", "--data", "cifar10", "--model", tmp_path / "net", "--device", "cpu")
    assert code == 2 and "this network takes 224 x 224 in 3" in err and err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        "list no-such-*",
        "info nasnet-b",
        "info no-such-model",
        *(f"draw {name}.json -o out.svg" for name in ("junk", "cut", "deep", "list", "forward", "nowhere")),
        "draw empty -o out.svg",
        "draw no-such-genotype -o out.svg",
        "draw NASNet-A -o out.pdf",
        "draw NASNet-A -o empty",
        "draw NASNet-A -o text.png/out.svg",
        f"draw NASNet-A -o {'a' * 300}.svg",
        *(f"predict {name}" for name in ("nowhere.png", "empty.png", "text.png", "empty")),
        f"predict {CAT} text.png",
        f"predict {CAT} -m no-such-model",
        f"predict {CAT} -m ./nowhere",
        f"predict {CAT} -m empty",
        f"predict {CAT} -m text.png",
        f"predict {CAT} -m nasnet-a-cifar",
        f"predict {CAT} --device nonsense",
        f"predict {CAT} --device meta",
        *(f"eval --data {name}" for name in ("empty", "nowhere", "text.png", "not-utf8", "none", "gone")),
        *(f"convert {name} -m nasnet-a-mobile -o out" for name in ("junk.h5", "junk.pth", "junk.safetensors", "empty")),
        *(f"convert {name} -m nasnet-a-mobile -o out" for name in ("junk.tar.gz", "nowhere", "nowhere.h5")),
        "convert junk.h5 -m no-such-model -o out",
        "convert junk.h5 -m text.png -o out",
        "convert junk.h5 -m darts-v2-cifar -o out",
        "train -m no-such-model -o out",
        "train -m nasnet-a-cifar-small -o out --recipe no-such-recipe",
        "train -m nasnet-a-cifar-small -o out --data empty",
    ],
)
def test_whatever_is_wrong_is_one_sentence_and_leaves_nothing(run, here, arguments):
    before = tree(here)
    code, out, err = run(*arguments.split())
    assert code == 2 and out == "" and err.startswith("nasnet-zoo: ") and err.count("\n") == 1 and len(err) > 40
    assert tree(here) == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_told(run):
    code, _, err = run("predict", CAT, "--device", "cuda")
    assert code == 2 and "--device cpu" in err and err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments", ["nonsense", "predict", "draw", "eval", "info", f"predict {CAT} -k 0", "eval --data x --batch-size 0"]
)
def test_a_wrong_use_is_told_with_the_usage(run, arguments):
    code, out, err = run(*arguments.split())
    assert code == 2 and out == "" and err.startswith("Usage: ") and "Error: " in err


def test_help_says_what_everything_is(run):
    listed = run("--help")[1]
    for command in COMMANDS:
        code, out, err = run(command, "--help")
        assert code == 0 and err == "" and f"  {command} " in listed
    assert run("--version")[1] == f"nasnet-zoo {nasnet_zoo.__version__}\n"


@pytest.mark.parametrize("arguments", [f"predict {CAT}", f"eval --data {IMAGES.parent}"])
def test_ctrl_c_ends_quietly(run, monkeypatch, arguments):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "read_weights", interrupted)
    code, out, err = run(*arguments.split())
    assert code == 130 and out == "" and "Traceback" not in err


def test_ctrl_c_leaves_nothing_half_written(run, tmp_path, monkeypatch):
    def interrupted(figure, path, **options):
        path.write_text("half a picture")
        raise KeyboardInterrupt

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", interrupted)
    (tmp_path / "cells.svg").write_text("the old one")
    code, _, _ = run("draw", "NASNet-A", "-o", tmp_path / "cells.svg")
    assert code == 130 and (tmp_path / "cells.svg").read_text() == "the old one"
    assert tree(tmp_path) == [tmp_path / "cells.svg"]
