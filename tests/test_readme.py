"""The README, command by command: what it shows is what happens, in an empty folder.

A ```console block shows commands and what they print; "..." stands for anything. A ```sh block holds commands whose
output is not shown; a search and a fine-tuning are short here, and a training is left out. A ```python block is run as
it stands. All run in one folder, in the order of the README.
"""

import os
import re
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from PIL import Image

import nasnet_zoo
from nasnet_zoo.arch.genotypes import GENOTYPES
from nasnet_zoo.data.labels import example_pictures

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(console|sh|python)\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The user's folder: some pictures, and a checkpoint that another training wrote. And the command itself."""
    place = tmp_path_factory.mktemp("user")
    photos = example_pictures("cifar10")
    for path in photos:
        for folder in (place / "photos", place / "labelled" / path.stem):
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, folder)
    shutil.copy(place / "photos" / "cat.png", place)
    generator = torch.Generator().manual_seed(0)
    for name, colour in (("cat", (200, 120, 40)), ("dog", (60, 60, 160))):
        (place / "pets" / name).mkdir(parents=True)
        for index in range(20):
            noise = torch.randint(-40, 40, (40, 50, 3), generator=generator)
            picture = (torch.tensor(colour) + noise).clamp(0, 255).to(torch.uint8).numpy()
            Image.fromarray(picture).save(place / "pets" / name / f"{index}.jpg")
    state = {f"module.{key}": value for key, value in nasnet_zoo.load("nasnet-a-cifar-small").state_dict().items()}
    torch.save({"epoch": 3, "state_dict": state}, place / "model.pth.tar")
    command = place / ".bin" / "nasnet-zoo"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m nasnet_zoo "$@"\n')
    command.chmod(0o755)
    return place


def told(place: Path, command: str) -> str:
    environment = {**os.environ, "PATH": f"{place / '.bin'}{os.pathsep}{os.environ['PATH']}", "COLUMNS": "100"}
    done = subprocess.run(["sh", "-c", command], cwd=place, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def transcript(place: Path, block: str) -> str:
    """A console block with what its commands print now."""
    commands = re.findall(r"^\$ (.*)$", block, re.MULTILINE)
    return "".join(f"$ {command}\n{told(place, command)}" for command in commands)


def fits(shown: str, printed: str) -> bool:
    """Whether what is printed is what the README shows, in which "..." stands for anything within a line."""
    shown, printed = ([line.rstrip() for line in text.strip().splitlines()] for text in (shown, printed))
    patterns = [re.escape(line).replace(r"\.\.\.", ".*") for line in shown]
    return len(patterns) == len(printed) and all(map(re.fullmatch, patterns, printed))


def test_a_block_that_shows_something_else_does_not_fit():
    assert fits("$ a\ncat 91.3% ... ms\n", "$ a\ncat 91.3%  12 ms\n")
    assert not fits("$ a\ncat 91.3%\n", "$ a\ncat 91.2%\n") and not fits("$ a\n", "$ a\ncat\n")


def test_the_first_picture_is_of_photos_and_their_classes():
    first = re.search(r"!\[(.*?)\]\((.*?)\)", TEXT)
    assert "photos" in first[1] and first[2] == "docs/predictions.png"


def test_every_genotype_and_variable_is_named():
    (listed,) = re.findall(r"^The genotypes are (.*?)\.$", TEXT, re.DOTALL | re.MULTILINE)
    names = re.split(r",\s+|\s+and\s+", listed)
    spelt = [f"AmoebaNet-{letter}" for name in names for letter in ("ABCD" if name == "AmoebaNet-A to D" else "")]
    assert set(spelt) | {name for name in names if " to " not in name} == set(GENOTYPES)
    packages = (nasnet_zoo, nasnet_zoo.search, nasnet_zoo.export)
    sources = [path for package in packages for path in Path(package.__file__).parent.rglob("*.py")]
    used = {name for path in sources for name in re.findall(r"NASNET_ZOO_[A-Z_]+", path.read_text(encoding="utf-8"))}
    (table,) = re.findall(r"^## Settings\n(.*?)^## ", TEXT, re.DOTALL | re.MULTILINE)
    assert set(re.findall(r"NASNET_ZOO_[A-Z_]+", table)) == used


@pytest.fixture(scope="module")
def data(request):
    """The folder that holds CIFAR-10, None where it is not."""
    with suppress(pytest.skip.Exception):
        return request.getfixturevalue("cifar10")


@pytest.mark.slow
def test_the_readme_command_by_command(place, data):
    assert {kind for kind, _ in BLOCKS} == {"console", "sh", "python"}
    program = place / ".program.py"
    program.write_text("")
    for kind, block in BLOCKS:
        if kind == "console":
            printed = transcript(place, block)
            assert fits(block, printed), f"the README shows\n{block}\nand this is printed\n{printed}"
        elif kind == "python":  # a block goes on where the one before it ended
            program.write_text(program.read_text() + block)
            told(place, f'"{sys.executable}" {program.name}')
        else:
            for command in (line.partition("#")[0].strip() for line in block.splitlines()):
                if shorter := _shorter(command, data):
                    told(place, shorter)


def _shorter(command: str, data: str | None) -> str | None:
    """What is run of a command that takes long, None if nothing can be."""
    words = command.split()[1]
    if words == "finetune":
        return f"{command} --epochs 3"
    if words == "train" or data is None and "runs/" in command:
        return None
    if words == "search":
        return f"{command} --data {data} --children 2 --set child.pictures=256"
    return command.replace("--rerank 5", f"--rerank 2 --epochs 1 --data {data}")
