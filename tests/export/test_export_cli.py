"""The commands export, bench and demo."""

import json
import sys
import time
from pathlib import Path

import pytest
import torch

import nasnet_zoo
from nasnet_zoo import cli
from nasnet_zoo.cli.app import SHIPPED as DEFAULT
from nasnet_zoo.data.labels import example_pictures
from nasnet_zoo.errors import ConfigError
from nasnet_zoo.export import Session
from nasnet_zoo.export.bench import Job, _begun, bench
from nasnet_zoo.export.demo.network import build_demo

IMAGES = example_pictures("cifar10")[0].parent
SHIPPED = "nasnet-a-cifar-small"  # the smaller one


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    """Runs the command line in an empty folder: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["nasnet-zoo", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            cli.main()
            sys.exit(0)
        out, err = capsys.readouterr()
        return end.value.code or 0, out, err

    return run


def test_export_writes_a_folder_that_predicts_what_the_network_predicts(run):
    code, out, _ = run("export", SHIPPED, "--triton", "models")
    assert code == 0 and "logits within" in out and "wrote models/nasnet-a-cifar-small" in out.replace("\n", "")
    assert json.loads(Path(f"{SHIPPED}-fp32/export.json").read_text())["checks"][-1]["provider"] == "cpu"
    found = Session(f"{SHIPPED}-fp32").predict(IMAGES / "cat.png")
    expected = nasnet_zoo.load(SHIPPED).predict(IMAGES / "cat.png")
    assert [p.label for p in found] == [p.label for p in expected]
    assert Path(f"models/{SHIPPED}/1/model.onnx").read_bytes() == Path(f"{SHIPPED}-fp32/model.onnx").read_bytes()


def test_a_name_that_triton_does_not_take_is_said_before_the_work(run):
    nasnet_zoo.save(nasnet_zoo.create(SHIPPED, filters=4), "my model")
    code, out, err = run("export", "my model", "--triton", "models")
    assert code == 2 and out == "" and "'my model' is no name for a model of Triton's: rename the folder" in err
    assert [path.name for path in Path().iterdir()] == ["my model"]


def test_export_takes_its_options(run):
    options = ("--precision", "int8", "--images", IMAGES, "--pixels", "--top", 3, "-o", "graph", "--size", "40x48")
    code, out, _ = run("export", SHIPPED, *options, "--json")
    report = json.loads(out)
    assert code == 0 and (report["precision"], report["size"], report["pixels"]) == ("int8", [40, 48], True)
    assert report["calibrated"] == len(list(IMAGES.glob("*.png"))) and report["before"][0]["relative_error"] < 1e-5
    data = Session("graph").metadata
    assert (data.name, data.license, data.top, data.preprocess.size) == (SHIPPED, "apache-2.0", 3, (40, 48))
    assert data.source == f"nasnet_zoo.load('{SHIPPED}')"
    assert run("export", SHIPPED, "--size", "any", "-o", "graph")[0] == 0  # an export may be replaced
    assert not Session("graph").metadata.fixed


@pytest.mark.parametrize(
    "options, sentence",
    [
        (["--precision", "int8"], "int8 has to be calibrated"),
        (["--size", "7"], "takes 8 pixels and more"),
        (["--size", "x7"], "write native, any"),
        (["--size", "any", "--pixels"], "pixels in need a fixed size"),
        (["--images", "nowhere"], "--images nowhere: there is no such folder"),
        (["--top", "3"], "add --pixels or leave it out"),
        (["--images", "empty"], "there is no picture in it"),
        (["-o", "mine"], "mine holds thesis.tex, which would be lost"),
    ],
)
def test_bad_options_are_one_sentence_and_leave_nothing(run, options, sentence):
    Path("empty").mkdir()
    Path("mine").mkdir()
    Path("mine/thesis.tex").write_text("mine")
    code, out, err = run("export", SHIPPED, *options)
    assert code == 2 and sentence in err and err.count("\n") == 1 and not out
    assert sorted(path.name for path in Path().rglob("*")) == ["empty", "mine", "thesis.tex"]


@pytest.mark.parametrize(
    "arguments, choices",
    [
        (("export", SHIPPED, "--precision", "int4"), ("fp32", "fp16", "int8")),
        (("bench", SHIPPED, "--precision", "int4"), ("fp32", "fp16", "int8")),
        (("bench", SHIPPED, "--provider", "tpu"), ("tensorrt", "cuda", "cpu")),
        (("demo", "--build", "site", "--precision", "int4"), ("fp32", "fp16", "int8")),
    ],
)
def test_a_choice_that_there_is_not_is_told_with_those_there_are(run, arguments, choices):
    code, out, err = run(*arguments)
    what = arguments[-2].removeprefix("--")
    assert code == 2 and not out and what in err and all(choice in err for choice in choices)
    assert not list(Path().iterdir())
    assert "|".join(choices) in run(arguments[0], "--help")[1]


def test_a_model_that_is_not_there(run):
    code, _, err = run("export", "nasnet-a-cifar-smal")
    assert code == 2 and "nasnet-a-cifar-small" in err and not list(Path().iterdir())


def test_bench_prints_a_row_per_contender_and_why_others_have_none(run):
    code, out, _ = run("bench", SHIPPED, "--rounds", 2, "--provider", "cpu", "--only", "nasnet_zoo", "--only", "timm")
    assert code == 0 and "left out: nasnet-a-cifar-small, batch 1, timm: timm has no nasnet-a-cifar-small" in out
    (row,) = [line.split() for line in out.splitlines() if line.startswith(SHIPPED)]
    assert (
        row[1:3] == ["1", "nasnet_zoo"] and 0 < float(row[4]) <= float(row[5]) and float(row[6].replace(",", "")) > 50
    )


def test_bench_of_what_is_not_there(tmp_path, run):
    code, out, err = run("bench", "nasnet-a-cifar-smal")
    assert code == 2 and "nasnet-a-cifar-small" in err and err.count("\n") == 1 and not out
    for wrong in (dict(provider="tpu"), dict(precision="int4"), dict(batch=0), dict(contenders=["tvm"])):
        with pytest.raises(ConfigError):
            bench(SHIPPED, tmp_path, **wrong)


def test_int8_says_what_it_is(run):
    code, out, err = run("export", SHIPPED, "--precision", "int8", "--images", IMAGES, "-o", "graph")
    count = len(list(IMAGES.glob("*.png")))
    assert code == 0, err
    for said in (
        f"within ranges that {count} pictures of {IMAGES} gave; the same graph in float32 was verified before",
        f"{count} pictures are few: give about a hundred",
        f"of {count} pictures\n",
    ):
        assert said in out
    for stage in ("verifying before int8", f"calibrating: picture 1 of {count}", "rounding to int8", "verifying"):
        assert stage in err.splitlines()


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_bench_of_nothing_is_an_error_with_the_reasons(run, options):
    code, out, err = run("bench", SHIPPED, "--provider", "cpu", "--only", "timm", *options)
    assert (
        code == 2
        and not out
        and err.splitlines()[-1]
        == (f"nasnet-zoo: nothing was measured: {SHIPPED}, batch 1, timm: timm has no {SHIPPED}")
    )


def test_bench_hands_a_row_over_as_soon_as_it_is_measured(tmp_path):
    told = []
    rows, failed = bench(SHIPPED, tmp_path, rounds=2, contenders=["nasnet_zoo", "timm"], on_row=told.append)
    assert [row.contender for row in told] == [row.contender for row in rows] == ["nasnet_zoo"] and "timm" in failed
    assert told[0].runs == rows[0].runs == 2 and told[0].p50 != rows[0].p50  # once alone, once in turns


def test_bench_begins_nothing_when_its_time_is_over(tmp_path):
    assert bench(SHIPPED, tmp_path, seconds=-1, contenders=["nasnet_zoo", "eager"]) == (
        [],
        {"nasnet_zoo": "no time was left", "eager": "no time was left"},
    )


def never_ready(job, pipe):
    time.sleep(600)


def test_bench_leaves_out_who_is_not_ready_in_time(tmp_path):
    job = Job("compile_max", SHIPPED, "cpu", "fp32", 1, str(tmp_path))
    status, reason, process, _ = _begun(never_ready, job, time.monotonic() + 0.2)
    assert status == "failed" and "not ready" in reason and not process.is_alive()


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without a GPU")
def test_bench_on_a_gpu_that_is_not_there(tmp_path):
    rows, failed = bench(SHIPPED, tmp_path, "cuda", rounds=1, contenders=["nasnet_zoo"])
    assert not rows and failed["nasnet_zoo"]


def test_demo_builds_a_site(run):
    code, out, _ = run("demo", "--build", "site", "--examples", IMAGES)
    card = json.loads(Path("site/card.json").read_text())
    assert code == 0 and "wrote site" in out
    assert (card["name"], card["precision"], card["size"]) == (DEFAULT, "fp16", [32, 32])
    assert [cell["caption"] for cell in card["cells"]] == ["normal cell", "reduction cell"]
    assert len(card["examples"]) == len(list(IMAGES.glob("*.png")))
    normal, reduction = (Path("site", cell["file"]).read_text() for cell in card["cells"])
    assert "Normal cell" in normal and "Reduction cell" not in normal and "Reduction cell" in reduction


def test_a_demo_with_bad_options_is_one_sentence(run):
    for options, sentence in (
        (["--precision", "int8"], "int8 has to be calibrated"),
        (["--examples", "nowhere"], "--examples nowhere: there is no such folder"),
    ):
        code, out, err = run("demo", "--build", "site", *options)
        assert code == 2 and sentence in err and err.count("\n") == 1 and not out and not Path("site").exists()


def test_a_network_with_too_many_weights_for_a_page(tmp_path, monkeypatch):
    monkeypatch.setattr("nasnet_zoo.export.emit.EXTERNAL_BYTES", 1000)
    with pytest.raises(ConfigError, match="too many weights for a page"):
        build_demo(nasnet_zoo.load(SHIPPED), tmp_path / "site")
    assert not (tmp_path / "site").exists()
