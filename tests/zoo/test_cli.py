"""The command line: what it prints, and that whatever goes wrong is one sentence and leaves nothing behind."""

import dataclasses
import io
import json
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.cells import cell_len
from rich.console import Console

import nasnet_zoo
from nasnet_zoo.arch.config import NetworkConfig
from nasnet_zoo.cli import predict as cli
from nasnet_zoo.data import cifar
from nasnet_zoo.data.images import open_image
from nasnet_zoo.data.labels import example_pictures
from nasnet_zoo.export import to_onnx
from nasnet_zoo.networks.planned import PlannedNetwork
from nasnet_zoo.registry import MODELS
from nasnet_zoo.weights import checkpoint

IMAGES = example_pictures("cifar10")[0].parent
CAT = IMAGES / "cat.png"
SHIPPED = Path(nasnet_zoo.__file__).parent / "assets" / cli.SHIPPED
COMMANDS = ["list", "info", "draw", "predict", "eval", "convert", "train"]


def shipped_accuracy():
    """Top-1 and top-5 in percent, as the config of the weights has them."""
    accuracy = json.loads((SHIPPED / "config.json").read_text())["weights"]["accuracy"]
    return 100 * accuracy["cifar10_test_top1"], 100 * accuracy["cifar10_test_top5"]


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


def tops(predictions):
    """As JSON says them."""
    return [[vars(prediction) for prediction in each] for each in predictions]


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
    assert "CIFAR-10" in found[cli.SHIPPED] and f"{shipped_accuracy()[0]:.2f}*" in found[cli.SHIPPED]
    assert "measured here" in star
    assert found["nasnet-a-large"].split()[-5:] == ["ImageNet", "82.70", ".tf", ".keras", ".timm"]
    measured = [row for row in rows if "." in row[heading.index("top-1") :]]
    assert len({row.index(".", heading.index("top-1")) for row in measured}) == 1  # the decimal points
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
    (weights,) = shipped["weights"]
    assert shipped["published"]["top1"] is None and "measured" in weights["source"]
    assert (weights["top1"], weights["top5"]) == pytest.approx(shipped_accuracy())
    pretrained = json.loads(run("list", "nasnet-a-*", "--pretrained", "--json")[1])
    assert [row["name"] for row in pretrained] == nasnet_zoo.list_models("nasnet-a-*", pretrained=True)


def test_info(run):
    code, out, _ = run("info", "nasnet-a-mobile")
    assert code == 0 and "5,289,978" in out and "nasnet-a-mobile.keras" in out
    record = json.loads(run("info", "nasnet-a-mobile", "--json")[1])
    top1, top5 = shipped_accuracy()
    assert f"{top1:.2f} / {top5:.2f} %" in run("info", cli.SHIPPED)[1]
    assert "82.94 / 99.20 %" in run("info", "nasnet-a-cifar-small")[1]
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
        assert record["image"] == str(picture) and record["trained"]
    assert [record["top"] for record in json.loads(out)] == tops(network.predict(pictures, k=3))
    code, out, _ = run("predict", pictures[0], "--device", "cpu")
    assert code == 0 and pictures[0].name in out and network.predict(pictures[0], k=1)[0].label in out


def test_predict_takes_files_folders_patterns_and_a_list(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hidden = ("a/.hidden.png", "a/.dir/x.png", ".top.png")
    for name in ("b.png", "a/2.png", "a/10.PNG", "a/deep/c.png", "[d].png", *hidden):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(CAT, name)
    Path("a/notes.txt").write_text("no picture")

    def images(*arguments):
        code, out, err = run("predict", *arguments, "--device", "cpu", "--json")
        assert code == 0, err
        return [record["image"].replace("\\", "/") for record in json.loads(out)]

    folder = ["a/10.PNG", "a/2.png", "a/deep/c.png"]
    assert images("b.png", "a", "[d].png", ".top.png") == ["b.png", *folder, "[d].png", ".top.png"]
    assert images("*.png") == ["[d].png", "b.png"] and images("a/*") == folder and images("a/**") == folder
    assert images("**/*.png") == ["[d].png", "a/2.png", "a/deep/c.png", "b.png"]
    listed = b"\xef\xbb\xbfb.png\r\n\na\n  \n[d].png"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(listed)))
    assert images(".top.png", "-", "b.png") == [".top.png", "b.png", *folder, "[d].png", "b.png"]


def test_a_tilde_is_the_home_folder_in_a_name_as_in_a_pattern(run, tmp_path, monkeypatch):
    for variable in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(variable, str(tmp_path))
    shutil.copy(CAT, tmp_path / "x.png")
    shown = [run("predict", name, "--device", "cpu", "--json") for name in ("~/x.png", "~/*.png", "~")]
    assert {code for code, _, _ in shown} == {0} and len({out for _, out, _ in shown}) == 1


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no FIFOs in folders here")
def test_a_pipe_is_no_picture_of_a_folder(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a").mkdir()
    shutil.copy(CAT, "a")
    os.mkfifo("a/x.png")
    Path("a/gone.jpg").symlink_to("nowhere")  # which is told
    for name in ("a", "a/*"):
        code, out, _ = run("predict", name, "--device", "cpu", "--json")
        assert code == 1 and [record["image"] for record in json.loads(out)] == ["a/cat.png", "a/gone.jpg"]
    code, out, _ = run("predict", "a/x.png", CAT, "--device", "cpu", "--json")
    pipe, cat = json.loads(out)
    assert code == 1 and "a/x.png: it is empty or not a picture" in pipe["error"] and "top" in cat
    end = os.open("a/x.png", os.O_RDWR)  # which waits for no reader; the picture fits into the pipe
    os.write(end, Path(CAT).read_bytes())
    with ThreadPoolExecutor() as pool:
        pool.submit(close_when_read, end)
        code, out, err = run("predict", "a/x.png", "--device", "cpu", "--json")
    assert (code, json.loads(out)[0]["top"]) == (0, cat["top"]), err


def close_when_read(end):
    """Closes a pipe's end when all that was written has been read."""
    import fcntl
    import termios

    while fcntl.ioctl(end, termios.FIONREAD, bytes(4)) != bytes(4):
        time.sleep(0.01)
    os.close(end)


@pytest.mark.parametrize(("given", "said"), [(b"\n \n", "is empty"), (b"\x89PNG\r\n\0", "takes a list of names")])
def test_what_is_no_list_of_names_is_told(run, monkeypatch, given, said):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(given)))
    code, out, err = run("predict", "-")
    assert code == 2 and out == "" and said in err and err.count("\n") == 1


@pytest.mark.parametrize("wrong", ["nowhere.png", "empty.png", "text.png", "empty", "no-*.png", "https://x.y/cat.png"])
def test_a_picture_that_cannot_be_used_is_a_row_of_its_own(run, here, network, wrong):
    code, out, err = run("predict", CAT, wrong, IMAGES / "dog.png", "--device", "cpu", "--json", "--batch-size", 2)
    first, second, third = json.loads(out)
    assert code == 1 and err == "nasnet-zoo: 1 of 3 pictures could not be used\n"
    expected = tops(network.predict([CAT, IMAGES / "dog.png"]))
    close = [(top["index"], round(top["probability"], 5)) for each in expected for top in each]
    assert [(top["index"], round(top["probability"], 5)) for each in (first, third) for top in each["top"]] == close
    assert second["image"] == wrong and "top" not in second and len(second["error"]) > 30
    code, out, err = run("predict", wrong, CAT, "--device", "cpu")
    assert code == 1 and second["error"] in out and "cat.png" in out and err.count("\n") == 1
    code, out, err = run("predict", wrong)
    assert code == 1 and second["error"] in out and "1 of 1" in err


def test_pictures_are_computed_in_batches(run, monkeypatch):
    counts = []
    forward = PlannedNetwork.forward
    monkeypatch.setattr(PlannedNetwork, "forward", lambda self, x: counts.append(len(x)) or forward(self, x))
    assert run("predict", IMAGES, "--device", "cpu")[0] == 0
    assert run("predict", IMAGES, "--device", "cpu", "--batch-size", 3)[0] == 0
    assert counts == [8, 3, 3, 2]


def test_progress_is_shown_on_a_terminal_only(run):
    assert run("predict", IMAGES, "--device", "cpu")[2] == ""
    command = [sys.executable, "-m", "nasnet_zoo.cli", "predict", IMAGES, "--device", "cpu"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "FORCE_COLOR": "1"})
    assert done.returncode == 0 and "predicting" in done.stderr and "8 of 8" in done.stderr


def test_a_graph_serves_where_a_network_does(run, network, tmp_path):
    to_onnx(network, tmp_path / "graph", name="small")
    pictures = sorted(IMAGES.glob("*.png"))
    expected = [[top["index"] for top in each] for each in tops(network.predict(pictures))]
    for model in (tmp_path / "graph", tmp_path / "graph" / "model.onnx"):
        code, out, err = run("predict", IMAGES, "--model", model, "--device", "cpu", "--json")
        assert code == 0 and err == ""
        assert [[top["index"] for top in record["top"]] for record in json.loads(out)] == expected
    code, _, err = run("predict", CAT, "--model", tmp_path / "graph", "--device", "nonsense")
    assert code == 2 and err.count("\n") == 1 and "nonsense" in err


def test_weights_that_were_never_trained_are_told(run, tmp_path):
    network = nasnet_zoo.create("nasnet-a-cifar", filters=4, stages=(1,))
    nasnet_zoo.save(network, tmp_path / "fresh", origin="nasnet-zoo transfer", trained=False)
    to_onnx(network.eval(), tmp_path / "graph")
    (tmp_path / "data" / "cat").mkdir(parents=True)
    shutil.copy(CAT, tmp_path / "data" / "cat")
    for model in (tmp_path / "fresh", tmp_path / "graph"):
        for command in (("predict", CAT), ("eval", "--data", tmp_path / "data")):
            code, out, err = run(*command, "--model", model, "--device", "cpu", "--json")
            said = json.loads(out)
            assert code == 0 and (said[0] if isinstance(said, list) else said)["trained"] is False
            assert err.startswith(f"nasnet-zoo: {model} is not trained") and err.count("\n") == 1
    assert run("predict", CAT, "--device", "cpu")[2] == ""


def printed(records, width):
    console = Console(file=io.StringIO(), width=width, markup=False)
    console.print(cli._table(records, width))
    return console.file.getvalue().splitlines()


def test_the_table_of_predictions_fits_an_80_column_terminal(network):
    pictures = sorted(IMAGES.glob("*.png"))
    records = [{"image": str(path), "top": top} for path, top in zip(pictures, tops(network.predict(pictures)))]
    records[0]["image"] = "brackets[/are].png"
    records[1] = {"image": "gone.png", "error": "cannot open gone.png: there is no such file, so give another path"}
    lines = printed(records, 80)
    assert max(map(len, lines)) <= 80 and "…" not in "".join(lines)
    for record in records:
        assert sum(line.split()[:1] == [Path(record["image"]).name] for line in lines) == 1
    for top in (top for record in records for top in record.get("top", ())[1:]):  # in one line each
        assert any(f"{top['label']} {top['probability']:.1%}" in line for line in lines)
    assert any(line.split()[:4] == ["gone.png", "error", "cannot", "open"] for line in lines)


def test_names_are_as_wide_as_the_terminal_and_whole_when_piped(run, tmp_path):
    name = f"{'a-long-name-of-a-picture-' * 3}.png"  # 79 characters
    record = {"image": f"folder/{name}", "top": [{"index": i, "label": "cat", "probability": 0.2} for i in range(5)]}
    assert any(name in line for line in printed([record], 140))
    narrow = printed([record], 80)
    assert max(map(len, narrow)) <= 80 and len(narrow[1].split()[0]) > 40
    shutil.copy(CAT, tmp_path / name)
    out = run("predict", tmp_path / name, "--device", "cpu")[1]
    assert len(out.splitlines()) == 2 and name in out and out.count("%") == 5
    wide = printed([{**record, "image": "\u732b" * 60 + ".png"}], 80)
    assert all(cell_len(line) <= 80 for line in wide)


def test_equal_names_are_told_apart():
    paths = ["x/a/1.png", "x/b/1.png", "x/2.png", "y/a/1.png", "x/2.png", "3.png", "z/3.png"]
    assert cli._short(paths) == ["x/a/1.png", "b/1.png", "2.png", "y/a/1.png", "2.png", "3.png", "z/3.png"]
    assert cli._short(["https://a/1.png", "b/1.png", "/1.png"]) == ["https://a/1.png", "b/1.png", "/1.png"]


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


def test_eval_says_where_pictures_must_lie(run, tmp_path):
    shutil.copy(CAT, tmp_path)
    code, _, err = run("eval", "--data", tmp_path, "--device", "cpu")
    assert code == 2 and "its pictures lie directly in it; it needs a subfolder of pictures per class" in err
    code, _, err = run("eval", "--data", "https://x.y/cifar", "--device", "cpu")
    assert code == 2 and "https://x.y/cifar is an address, and addresses are not fetched" in err


@pytest.mark.parametrize("options", [{}, {"pixels": True}, {"size": "any"}], ids=str)
def test_eval_of_a_graph_is_that_of_its_network(run, network, tmp_path, monkeypatch, options):
    to_onnx(network, tmp_path / "graph", **options)
    pictures = sorted(IMAGES.glob("*.png"))
    labels = [network.labels.index(picture.stem) for picture in pictures[:-2]] + [0, 0]  # the last two are wrong
    for i, (picture, label) in enumerate(zip(pictures, labels)):
        (tmp_path / "data" / network.labels[label]).mkdir(parents=True, exist_ok=True)
        shutil.copy(picture, tmp_path / "data" / network.labels[label] / f"{i}.png")
    images = torch.stack([torch.from_numpy(np.array(open_image(path))) for path in pictures])
    tensors = cifar.Pictures(images.permute(0, 3, 1, 2).contiguous(), torch.tensor(labels))
    monkeypatch.setattr(cifar, "load_cifar10", lambda folder, train: tensors)
    (tmp_path / "cifar" / cifar.CIFAR_FOLDER).mkdir(parents=True)
    measured = []
    for data in ("data", "cifar"):
        for model in (SHIPPED, tmp_path / "graph"):
            code, out, err = run("eval", "--data", tmp_path / data, "--model", model, "--device", "cpu", "--json")
            assert code == 0, err
            measured.append([json.loads(out)[key] for key in ("pictures", "top1", "top5")])
    assert measured == [measured[0]] * 4 and measured[0][0] == 8 and 0 < measured[0][1] < 0.8 < measured[0][2] + 0.2


def test_a_graph_of_another_size_is_not_for_cifar10(run, network, tmp_path):
    to_onnx(network, tmp_path / "graph", size=(24, 32))
    code, _, err = run("eval", "--data", "cifar10", "--model", tmp_path / "graph", "--device", "cpu")
    assert code == 2 and "this network takes 24 x 32 in 3" in err and err.count("\n") == 1


def test_eval_on_what_a_training_takes_measures_its_validation_pictures(run, network, tmp_path):
    for split, name in (("Train", "cat"), ("val", "dog"), ("val", "frog")):
        (tmp_path / "photos" / split / name).mkdir(parents=True)
        Image.new("RGB", (32, 32)).save(tmp_path / "photos" / split / name / "1.png")
    code, out, err = run("eval", "--data", tmp_path / "photos", "--device", "cpu", "--json")
    record = json.loads(out)
    assert code == 0 and record["pictures"] == 2 and record["data"] == str(tmp_path / "photos" / "val"), err
    code, _, err = run("eval", "--data", tmp_path / "photos" / "Train", "--device", "cpu", "--json")
    assert code == 0, err


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
        f"predict {CAT} -m no-such-model",
        f"predict {CAT} -m ./nowhere",
        f"predict {CAT} -m empty",
        f"predict {CAT} -m {'a' * 300}",
        f"eval --data {'a' * 300}",
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


RESUMED = {
    "train -m nasnet-a-cifar-small -o runs/a": ("nasnet_zoo.training.begin.begin", "the same command"),
    "search runs/a --preset quick": ("nasnet_zoo.search.several.run", "`nasnet-zoo search runs/a`"),
    "transfer {} --rerank 2 --max-madds 600M": ("nasnet_zoo.search.reranking.rerank", "the same command"),
}


@pytest.mark.parametrize("arguments", RESUMED)
def test_ctrl_c_in_long_work_says_what_continues_it(run, tmp_path, monkeypatch, arguments):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    found = json.loads((files("nasnet_zoo.search") / "found" / "quick.json").read_text())
    (tmp_path / "best.json").write_text(json.dumps(found["best"]))  # a search's folder, as far as transfer asks
    function, command = RESUMED[arguments]
    monkeypatch.setattr(function, interrupted)
    code, out, err = run(*arguments.format(tmp_path).split())
    assert (code, out) == (130, "") and err.endswith(f"nasnet-zoo: stopped; {command} continues from here\n")


def test_ctrl_c_leaves_nothing_half_written(run, tmp_path, monkeypatch):
    def interrupted(figure, path, **options):
        path.write_text("half a picture")
        raise KeyboardInterrupt

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", interrupted)
    (tmp_path / "cells.svg").write_text("the old one")
    code, _, _ = run("draw", "NASNet-A", "-o", tmp_path / "cells.svg")
    assert code == 130 and (tmp_path / "cells.svg").read_text() == "the old one"
    assert tree(tmp_path) == [tmp_path / "cells.svg"]
