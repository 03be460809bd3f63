"""What an editor, a shell and a type checker know of the package."""

import os
import pydoc
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import typer.main

import nasnet_zoo
from nasnet_zoo.cli.app import app

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("nasnet_zoo", "nasnet_zoo.convert", "nasnet_zoo.search", "nasnet_zoo.export")


def python(code, **environment):
    """Runs code in a fresh interpreter and gives what it prints."""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", PACKAGES)
def test_completion_shows_the_public_names_and_no_others(name):
    code = f"import {name}; print([n for n in dir({name}) if not n.startswith('_')] == sorted({name}.__all__))"
    assert python(code) == "True\n"


def test_a_name_is_completed_before_it_is_imported():
    code = "import rlcompleter, nasnet_zoo; print(rlcompleter.Completer(vars()).complete('nasnet_zoo.lo', 0))"
    assert python(code) == "nasnet_zoo.load(\n"


@pytest.mark.parametrize("name", PACKAGES)
def test_help_is_short_and_has_a_line_for_every_name(name):
    code = f"import pydoc, sys, {name}; print(pydoc.plain(pydoc.render_doc({name}))); assert 'torch' not in sys.modules"
    text = python(code)
    assert text.count("\n") <= 70
    package = import_module(name)
    for public in package.__all__:
        assert re.search(rf"\b{public}s?\b", text), public
    # What stands at the beginning of a line of the list is a public name.
    rows = re.findall(r"^    (\w+(?:, \w+)*)  +\S", package.__doc__, re.MULTILINE)
    assert rows and {word for row in rows for word in row.split(", ")} <= set(package.__all__)


def test_help_of_a_public_name_is_its_own():
    assert "Loads a trained network" in pydoc.render_doc(nasnet_zoo.load)


def test_the_packages_are_there_after_the_import_and_without_torch():
    code = "import sys, nasnet_zoo as z; z.search.run, z.export.Session, z.convert; print('torch' in sys.modules)"
    assert python(code) == "False\n"


def test_the_package_runs_as_a_module():
    command = [sys.executable, "-m", "nasnet_zoo"]
    listed = subprocess.run([*command, "list", "nasnet-a-mobile"], capture_output=True, text=True)
    assert listed.returncode == 0 and "nasnet-a-mobile" in listed.stdout
    wrong = subprocess.run([*command, "info", "nasnet-a-mobil"], capture_output=True, text=True)
    assert wrong.returncode == 2 and wrong.stderr.count("\n") == 1


@pytest.mark.parametrize("command", ["", *typer.main.get_command(app).commands])
def test_h_is_help_for_every_command(run, command):
    short, long = run(*command.split(), "-h"), run(*command.split(), "--help")
    assert short == long and short[0] == 0 and "-h, --help" in short[1]


def completed(*words):
    """What the shell gets for the words of a line when TAB is pressed behind the last."""
    line = {"COMP_WORDS": " ".join(["nasnet-zoo", *words]), "COMP_CWORD": str(len(words))}
    code = (
        "import atexit, sys; from nasnet_zoo.cli import main; sys.argv = ['nasnet-zoo']; "
        "atexit.register(lambda: print('torch' in sys.modules)); main()"
    )
    *names, torch = python(code, _NASNET_ZOO_COMPLETE="complete_bash", **line).split()
    assert torch == "False"
    return names


def test_the_shell_completes_commands_and_the_names_of_models():
    assert completed("tra") == ["train", "transfer"]
    assert sorted(completed("info", "pnas")) == nasnet_zoo.list_models("pnas*")
    assert completed("predict", "cat.png", "--model", "nasnet-a-la") == ["nasnet-a-large"]
    tags = [f"nasnet-a-large.{source.tag}" for source in nasnet_zoo.info("nasnet-a-large").weights]
    assert completed("export", "nasnet-a-large") == ["nasnet-a-large", *tags]
    assert completed("draw", "NASN") == ["NASNet-A"]
    assert completed("export", "./folder") == []  # bash then completes files


def test_every_argument_that_takes_a_model_is_completed():
    for name, command in typer.main.get_command(app).commands.items():
        for parameter in command.params:
            if re.search("[Zz]oo name|model's name|genotype's name", getattr(parameter, "help", None) or ""):
                assert parameter._custom_shell_complete is not None, f"{name} {parameter.name}"


def test_completion_can_be_installed(run):
    options = run("--help")[1]
    assert "--install-completion" in options and "--show-completion" in options


# What a type checker makes of each expression; torch's Tensor is Any to one that does not see torch.
TYPES = {
    'nasnet_zoo.load("nasnet-a-mobile")': "ImageNetwork",
    'nasnet_zoo.create("nasnet-a-mobile", filters=8)': "ImageNetwork",
    'network.predict("x.jpg")': "list[Prediction]",
    'network.predict(Path("x.jpg"), k=3)[0].label': "str | None",
    'network.predict(["x.jpg", Path("y.jpg")], batch_size=8)': "list[list[Prediction]]",
    "network.predict(paths)": "list[list[Prediction]]",
    "network.features(network.transform(picture)[None], out_indices=(1, 2))": "list[Tensor]",
    "network.forward_features(picture)": "Tensor",
    "network.forward_head(picture, pre_logits=True)": "Tensor",
    "network.config": "NetworkConfig",
    "network.labels": "tuple[str, ...] | None",
    'nasnet_zoo.info("nasnet-a-mobile").cost.parameters': "int",
    "nasnet_zoo.list_models()": "list[str]",
    'nasnet_zoo.GENOTYPES["NASNet-A"].normal': "Cell",
    'nasnet_zoo.export.to_onnx(network, "folder")': "ExportReport",
    'nasnet_zoo.export.Session("folder").predict("x.jpg")': "list[Prediction]",
    'nasnet_zoo.export.Session("folder").predict(paths)': "list[list[Prediction]]",
    'nasnet_zoo.search.run(nasnet_zoo.search.SearchConfig("runs/first"))': "SearchResult",
    "nasnet_zoo.convert.from_timm({}, network.config)": "dict[str, Tensor]",
}


def checked(folder, lines, *options):
    """What mypy says of a user's file, line by line, when the packages lie as they do when installed."""
    pytest.importorskip("mypy")
    for source, package in (("nasnet_zoo", "."), ("search", "search"), ("export", "export")):
        for path in (ROOT / source).rglob("*.py"):
            target = folder / "installed" / "nasnet_zoo" / package / path.relative_to(ROOT / source)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    head = ["import nasnet_zoo", "from pathlib import Path", "from typing import Any"]
    head += ['network = nasnet_zoo.load("nasnet-a-mobile")', "paths: list[str] = []", "picture: Any = None"]
    (folder / "user.py").write_text("\n".join([*head, *lines, ""]))
    command = [sys.executable, "-m", "mypy", "--config-file=", f"--cache-dir={folder / 'cache'}", *options, "user.py"]
    environment = {**os.environ, "MYPYPATH": str(folder / "installed")}
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment)
    said = re.findall(r"^user\.py:(\d+): (.*)$", done.stdout, re.MULTILINE)
    return {int(line) - len(head) - 1: re.sub(r"\w+\.(?=\w)", "", text) for line, text in said}


WITHOUT_TORCH = ("--no-site-packages", "--ignore-missing-imports")  # seconds instead of minutes


@pytest.mark.parametrize("options", [WITHOUT_TORCH, pytest.param((), marks=pytest.mark.slow)])
def test_a_type_checker_knows_what_the_public_names_give(tmp_path, options):
    lines = [f"reveal_type({expression})" for expression in TYPES] + ['network.predict(["x.jpg"])[0].label']
    said = checked(tmp_path, [*lines, "nasnet_zoo.laod"], *options)
    tensor = "Any" if options else "Tensor"
    for place, wanted in enumerate(TYPES.values()):
        assert said[place] == f'note: Revealed type is "{wanted.replace("Tensor", tensor)}"', lines[place]
    assert 'has no attribute "label"' in said[len(TYPES)] and 'has no attribute "laod"' in said[len(TYPES) + 1]
    assert len(said) == len(lines) + 1
