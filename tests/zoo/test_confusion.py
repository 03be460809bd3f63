"""Where a network errs: what `eval --per-class` and `--confusion` count, print and draw."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import nasnet_zoo
from nasnet_zoo.data.cifar import Pictures
from nasnet_zoo.data.labels import example_pictures
from nasnet_zoo.errors import ConfigError, DataError
from nasnet_zoo.export import Session, to_onnx
from nasnet_zoo.training.confusion import FORMATS, check_drawable, draw_confusion
from nasnet_zoo.training.evaluate import Measured, evaluate, evaluate_folder, measure
from nasnet_zoo.training.mistakes import ClassResult, Mistake, most_frequent, per_class

SHIPPED = "nasnet-a-cifar-small"
EXAMPLES = example_pictures("cifar10")
# Four classes: ten pictures of class 0, five of 1, none of 2, four of 3.
MATRIX = np.array([[6, 1, 3, 0], [0, 5, 0, 0], [0, 0, 0, 0], [2, 2, 0, 0]])


@pytest.fixture(scope="module")
def network():
    return nasnet_zoo.load(SHIPPED)


@pytest.fixture(scope="module")
def pictures(network):
    """The examples, many times over, with noise that makes the network err."""
    generator = torch.Generator().manual_seed(0)
    images = torch.stack([torch.from_numpy(np.array(Image.open(path).convert("RGB"))) for path in EXAMPLES])
    images = images.permute(0, 3, 1, 2).repeat(6, 1, 1, 1)
    noise = torch.randint(-30, 31, images.shape, generator=generator)
    labels = [network.labels.index(path.stem) for path in EXAMPLES]
    return Pictures((images + noise).clamp(0, 255).to(torch.uint8), torch.tensor(labels).repeat(6))


@pytest.fixture
def folder(tmp_path):
    """Two pictures of cats, one of them in truth a dog; a frog; and an empty class."""
    for label, names in {"cat": ["cat", "dog"], "frog": ["frog"], "ship": []}.items():
        (tmp_path / "data" / label).mkdir(parents=True)
        for name in names:
            shutil.copy(EXAMPLES[0].parent / f"{name}.png", tmp_path / "data" / label)
    return tmp_path / "data"


def test_the_counts_of_a_hand_made_example():
    truth, predicted = torch.tensor([0, 0, 1, 2, 2, 2]), torch.tensor([0, 1, 1, 0, 2, 0])
    measured = Measured(truth, predicted, classes=4, top5=1.0)
    assert measured.confusion.tolist() == [[1, 1, 0, 0], [0, 1, 0, 0], [2, 0, 1, 0], [0, 0, 0, 0]]
    assert measured.confusion.dtype == np.int64 and measured.top1 == 0.5


def test_a_network_and_its_graph_are_counted_alike_in_batches_of_any_size(network, pictures, tmp_path):
    to_onnx(network, tmp_path / "graph")
    measured = measure(network, pictures, 7)
    assert measured.confusion.shape == (10, 10)
    assert measured.confusion.sum(1).tolist() == torch.bincount(pictures.labels, minlength=10).tolist()
    assert 0.2 < measured.top1 < 1 and measured.top1 == np.trace(measured.confusion) / len(pictures)
    assert evaluate(network, pictures) == (measured.top1, measured.top5)
    session = measure(Session(tmp_path / "graph", ["cpu"]), pictures, 25)
    assert np.array_equal(session.confusion, measured.confusion) and session.top5 == measured.top5


def test_files_are_counted_too(network):
    files = [(path, label % 10) for label, path in enumerate(EXAMPLES)]
    done = []
    measured = measure(network, files, 3, lambda *progress: done.append(progress))
    assert measured.confusion.sum() == len(files) and done[0] == (3, len(files)) and done[-1] == (len(files),) * 2
    assert evaluate_folder(network, files) == (measured.top1, measured.top5)
    with pytest.raises(DataError, match="no picture to measure on"):
        measure(network, [], 3)


def test_the_classes_come_worst_first_with_what_they_are_taken_for():
    assert per_class(MATRIX) == [
        ClassResult(3, 4, 0.0, Mistake(0, 2, 0.5)),
        ClassResult(0, 10, 0.6, Mistake(2, 3, 0.3)),
        ClassResult(1, 5, 1.0, None),
    ]
    assert most_frequent(MATRIX, 2) == [(0, Mistake(2, 3, 0.3)), (3, Mistake(0, 2, 0.5))]
    assert len(most_frequent(MATRIX, 99)) == 4 and most_frequent(np.eye(3, dtype=np.int64), 5) == []


def test_eval_prints_the_classes(run, folder):
    code, out, err = run("eval", "--data", folder, "--device", "cpu", "--per-class")
    assert code == 0, err
    first, heading, *rows = out.splitlines()
    assert "top-1 66.67%" in first and heading.split() == "class pictures top-1 most often taken for".split()
    assert [row.split() for row in rows] == [["cat", "2", "50.0%", "dog", "50.0%"], ["frog", "1", "100.0%"]]


def test_eval_prints_the_classes_as_json(run, folder):
    arguments = ("eval", "--data", folder, "--device", "cpu", "--json")
    dog = {"label": "dog", "index": 5, "pictures": 1, "share": 0.5}
    record = json.loads(run(*arguments, "--per-class")[1])
    assert record.pop("classes") == [
        {"label": "cat", "index": 3, "pictures": 2, "top1": 0.5, "taken_for": dog},
        {"label": "frog", "index": 6, "pictures": 1, "top1": 1.0, "taken_for": None},
    ]
    assert json.loads(run(*arguments)[1]) == record


def test_classes_without_names_are_numbers(run, tmp_path):
    network = nasnet_zoo.create("nasnet-a-cifar", filters=2, stages=(1,), num_classes=2)
    nasnet_zoo.save(network, tmp_path / "net")
    for number, path in enumerate(EXAMPLES[:2]):
        (tmp_path / "data" / f"class {number}").mkdir(parents=True)
        shutil.copy(path, tmp_path / "data" / f"class {number}")
    arguments = ("eval", "--data", tmp_path / "data", "--model", tmp_path / "net", "--device", "cpu")
    code, out, err = run(*arguments, "--per-class", "--confusion", tmp_path / "c.svg")
    assert code == 0 and {line.split()[0] for line in out.splitlines()[2:4]} == {"0", "1"}, err


@pytest.mark.parametrize("json_too", [False, True], ids=["text", "json"])
def test_eval_draws_the_matrix(run, folder, tmp_path, json_too):
    arguments = ("eval", "--data", folder, "--device", "cpu", "--confusion", tmp_path / "c.svg")
    code, out, err = run(*arguments, *["--json"] * json_too)
    assert code == 0 and ("wrote" in out) is not json_too, err
    drawn = (tmp_path / "c.svg").read_text()
    for text in ("cat", "dog", "frog", "50.0%", "100%", "3 pictures of 2 classes: top-1 66.67%"):
        assert f">{text}<" in drawn
    assert ">ship<" not in drawn and sorted(os.listdir(tmp_path)) == ["c.svg", "data"]


@pytest.mark.parametrize("classes", [1, 2, 20, 21, 60, 61, 1000])
def test_any_number_of_classes_can_be_drawn(tmp_path, classes):
    generator = np.random.default_rng(0)
    matrix = np.diag(np.full(classes, 40))
    np.add.at(matrix, tuple(generator.integers(classes, size=(2, 5 * classes))), 1)
    names = [f"number ${i}_x$" for i in range(classes)]  # which is not for TeX
    draw_confusion(matrix, names, tmp_path / "c.svg")
    drawn = (tmp_path / "c.svg").read_text()
    assert ("%<" in drawn) and ("→" in drawn) is (classes > 60)
    assert classes > 60 or all(drawn.count(f">{name}<") == 2 for name in names)


def test_every_suffix_that_is_promised_can_be_written(tmp_path):
    for suffix in FORMATS:
        draw_confusion(MATRIX, "abcd", tmp_path / f"c{suffix.upper()}")
        assert (tmp_path / f"c{suffix.upper()}").stat().st_size > 1000, suffix


@pytest.mark.parametrize(
    "name, problem",
    [
        ("c.txt", "give a name that ends in .* .png, .* or .webp"),
        ("c", "give a name that ends in"),
        ("nowhere/c.png", "there is no folder .*nowhere; make it"),
        ("text/c.png", "there is no folder .*text; make it"),
        ("folder.png", "it is a folder"),
    ],
)
def test_what_cannot_be_drawn_to_is_told_before_anything_is_measured(run, tmp_path, monkeypatch, name, problem):
    (tmp_path / "text").touch()
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(ConfigError, match=problem):
        check_drawable(tmp_path / name)
    monkeypatch.setattr("nasnet_zoo.weights.loading.load", None)  # the model is not even loaded
    code, out, err = run("eval", "--data", tmp_path, "--confusion", tmp_path / name)
    assert code == 2 and out == "" and err.startswith("nasnet-zoo: cannot draw to ") and err.count("\n") == 1


def test_a_folder_that_may_not_be_written_to_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # whoever runs the tests may write anywhere
    with pytest.raises(ConfigError, match="may not be written to; name another folder"):
        check_drawable(tmp_path / "c.png")
    monkeypatch.undo()
    check_drawable(tmp_path / "c.png")
    monkeypatch.chdir(tmp_path)
    check_drawable("c.PDF")


def test_what_was_measured_is_printed_though_the_disk_is_full(run, folder, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", full)
    code, out, err = run("eval", "--data", folder, "--device", "cpu", "--confusion", tmp_path / "c.png")
    assert code == 2 and "top-1 66.67%" in out and "the disk is full" in err and err.count("\n") == 1
    assert os.listdir(tmp_path) == ["data"]


def test_who_draws_nothing_waits_for_no_matplotlib(folder):
    code = "import sys; from nasnet_zoo import cli; import atexit; " + (
        "atexit.register(lambda: print('matplotlib' in sys.modules)); cli.main()"
    )
    command = [sys.executable, "-c", code, "eval", "--data", folder, "--device", "cpu", "--per-class"]
    assert subprocess.run(command, capture_output=True, text=True).stdout.endswith("False\n")
