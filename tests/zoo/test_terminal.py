"""Output where it is not a modern terminal's: code pages, pipes and logs."""

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CAT = ROOT / "tests" / "images" / "cat.png"


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
    gone = command("predict", tmp_path / "нет.png", PYTHONIOENCODING=encoding)
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
