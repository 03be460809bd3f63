"""Output where it is not a modern terminal's: code pages, pipes and logs."""

import ast
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from rich.console import Console

import nasnet_zoo
from nasnet_zoo.data.cifar import Pictures
from nasnet_zoo.data.labels import example_pictures
from nasnet_zoo.training.recipe import Recipe
from nasnet_zoo.training.recipes import RECIPES, Named
from nasnet_zoo.util import progress
from nasnet_zoo.util.progress import LINE_SECONDS, Progress, stages

ROOT = Path(__file__).parents[2]
CAT = example_pictures("cifar10")[2]


def command(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "nasnet_zoo.cli", *map(str, arguments)],
        capture_output=True,
        env=os.environ | {"PYTHONUTF8": "0"} | environment,
    )


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8"])
def test_every_name_can_be_printed(tmp_path, encoding):
    """What a code page lacks is escaped in tables; JSON is the same everywhere."""
    names = ["кот.png", "猫.png"]
    if os.name == "posix":
        names.append(os.fsdecode(b"cat\xff.png"))  # no encoding has this one
    pictures = [tmp_path / name for name in names]
    for picture in pictures:
        shutil.copy(CAT, picture)
    done = command("predict", *pictures, "--device", "cpu", PYTHONIOENCODING=encoding)
    assert done.returncode == 0 and not done.stderr, done.stderr
    shown = done.stdout.decode(encoding)
    assert "cat" in shown and (names[0] in shown) == (encoding == "utf-8")
    done = command("predict", *pictures, "--device", "cpu", "--json", PYTHONIOENCODING=encoding)
    assert [record["image"] for record in json.loads(done.stdout)] == list(map(str, pictures))
    gone = command("draw", tmp_path / "нет.json", "-o", tmp_path / "out.svg", PYTHONIOENCODING=encoding)
    assert gone.returncode == 2 and gone.stderr.startswith(b"nasnet-zoo: ") and b"Traceback" not in gone.stderr


def test_text_files_name_their_encoding():
    """Otherwise it would be the system's: on Windows a code page."""
    unsaid = []
    for path in (path for package in ("nasnet_zoo", "search", "export") for path in (ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and not any(keyword.arg == "encoding" for keyword in node.keywords):
                opens = isinstance(node.func, ast.Name) and node.func.id == "open"
                binary = opens and any("b" in str(getattr(mode, "value", "")) for mode in node.args[1:2])
                texts = isinstance(node.func, ast.Attribute) and node.func.attr in ("read_text", "write_text")
                if opens and not binary or texts:
                    unsaid.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert not unsaid


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass only when the test says so."""
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def work(console, clock, seconds, pictures=800):
    """Works through some pictures, each of which takes so many seconds, and gives what was written."""
    with Progress(console) as bar:
        task = bar.add_task("working", total=None, unit="pictures")
        for done in range(1, pictures + 1):
            clock[0] += seconds
            bar.update(task, completed=done, total=pictures)
        bar.update(task, description="measuring")
    return console.file.getvalue()


def test_a_log_gets_a_line_now_and_then(clock):
    assert work(Console(file=io.StringIO(), width=20), clock, 0.125).splitlines() == [
        *("working: 240 of 800 pictures, 8/s, 70 s left", "working: 480 of 800 pictures, 8/s, 40 s left"),
        *("working: 720 of 800 pictures, 8/s, 10 s left", "measuring: 800 of 800 pictures, 8/s"),
    ]


def test_a_log_gets_no_line_about_what_takes_no_time(clock):
    assert work(Console(file=io.StringIO()), clock, 0.0).splitlines() == ["measuring: 800 of 800 pictures"]


@pytest.mark.parametrize("width", [80, 40])
def test_a_terminal_gets_a_bar_of_one_line(clock, width):
    console = Console(file=io.StringIO(), force_terminal=True, width=width)
    with Progress(console) as bar:
        task = bar.add_task("[brackets]", total=800, unit="pictures")
        clock[0] += 1
        bar.update(task, completed=20)
        clock[0] += 1
        bar.update(task, completed=40, refresh=True)
        bar.say("only in a log")
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", console.file.getvalue())
    assert "[brackets]" in text and "only in a log" not in text
    if width == 80:
        lines = text.replace("\r", "\n").splitlines()
        assert any(line.endswith(" 40 of 800 pictures, 20/s, 38 s left") and len(line) <= 80 for line in lines)


@pytest.mark.parametrize("width", [60, 78])
def test_a_narrow_terminal_gets_whole_names_and_figures(run, monkeypatch, width):
    """It wraps the lines that are too long for it, and no blanks at their ends."""
    whole = run("list")[1]
    terminal = Console(force_terminal=True, width=width, color_system=None)
    monkeypatch.setattr(sys.modules["nasnet_zoo.cli.app"], "console", terminal)
    shown = run("list")[1]
    assert shown == whole and not any(line.endswith(" ") for line in shown.splitlines())
    assert "nasnet-a-large         331  88.8 M   23.8 G  ImageNet   82.70   .tf .keras .timm\n" in shown
    described = run("info", "nasnet-a-large")[1].splitlines()
    assert max(map(len, described)) <= width  # what may wrap still does


def test_stages_are_lines_in_a_log(clock, capsys):
    with stages("loading") as stage:
        for done in range(100):
            stage(f"calibrating: picture {done + 1} of 100")
            clock[0] += LINE_SECONDS / 50
        stage("verifying")
    said = [*(f"calibrating: picture {done} of 100" for done in (1, 51)), "verifying"]
    assert capsys.readouterr() == ("", "".join(f"{line}\n" for line in said))


def test_a_training_in_a_log_says_how_far_it_is(run, tmp_path, monkeypatch):
    """A line with the time of day per epoch on stderr, and the result on stdout."""
    noise = Pictures(torch.randint(256, (40, 3, 32, 32)).to(torch.uint8), torch.arange(40) % 10)
    monkeypatch.setattr("nasnet_zoo.data.sets.cifar10_pictures", lambda *arguments, **options: noise)
    monkeypatch.setitem(RECIPES, "short", Named("short", Recipe(3, 20)))
    nasnet_zoo.save(nasnet_zoo.create("nasnet-a-cifar", filters=2, stages=(1, 1, 1)), tmp_path / "net")
    arguments = ("train", "-m", tmp_path / "net", "-o", tmp_path / "run", "--recipe", "short", "--device", "cpu")
    code, out, err = run(*arguments)
    assert code == 0 and f"wrote {tmp_path / 'run' / 'checkpoint'}: top-1 " in out, err
    assert [line.split()[0] for line in out.splitlines()[:3]] == ["epoch", "best", "last"]
    line = r"\d\d:\d\d:\d\d epoch {}/3: loss \d\.\d{{4}}, top1 [\d.]+%, top5 [\d.]+%, \d+ s(, [\d.]+ \w+ left)?"
    shown = [line for line in err.splitlines() if " training: " not in line]  # of which a slow machine shows some
    assert len(shown) == 3 and all(re.fullmatch(line.format(i), each) for i, each in enumerate(shown, 1)), err


@pytest.mark.parametrize(
    "arguments", ["list", "info nasnet-a-mobile", "--help", "search --help", "draw NASNet-A -o a.svg"]
)
def test_quick_commands_import_nothing_slow(tmp_path, arguments):
    code = "import sys\nfrom nasnet_zoo.cli import main\ntry:\n main()\nfinally:\n print(*sys.modules, file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments.split()], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    slow = {"torch", "torchvision", "onnx", "onnxruntime", "tensorboard", "huggingface_hub", "sklearn"}
    if not arguments.startswith("draw"):
        slow |= {"matplotlib", "scipy", "PIL"}
    assert not slow & set(done.stderr.split())
