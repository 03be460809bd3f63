"""Folders that a command must not write into are refused before anything is fetched, computed or written."""

import shutil

import pytest

from nasnet_zoo.data.labels import example_pictures
from nasnet_zoo.errors import ZooError
from nasnet_zoo.util.files import check_replaceable, check_run_folder
from nasnet_zoo.weights import loading

IMAGES = example_pictures("cifar10")[0].parent
SMALL = "nasnet-a-cifar-small"


@pytest.fixture
def photos(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(IMAGES, tmp_path / "photos")
    shutil.copytree(IMAGES, tmp_path / "models" / SMALL)
    return tmp_path / "photos"


def contents(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("place", ["photos", "photos/cat.png", "photos/cat.png/below"])
@pytest.mark.parametrize(
    "command",
    [
        f"convert nowhere.h5 -m {SMALL} -o",
        f"train -m {SMALL} --data nowhere -o",
        f"export {SMALL} -o",
        f"demo {SMALL} --build",
        "transfer nowhere --rerank 2 -o",
        "search --preset tabular --data nowhere.csv",
        f"export {SMALL} --triton models -o",
    ],
)
def test_a_folder_of_photos_is_refused_at_once(run, photos, monkeypatch, command, place):
    monkeypatch.setattr(loading, "load", lambda *_, **__: pytest.fail("it was loaded"))
    before = contents(photos.parent)
    if "--triton" in command:
        place = "new"
    code, out, err = run(*command.split(), place)
    assert code == 2 and out == "" and err.count("\n") == 1, err
    if place == "photos":
        assert "photos holds airplane.png" in err and "choose a new or an empty folder" in err
    elif "search" not in command:  # there the missing table is found first
        assert "airplane.png" in err if "--triton" in command else "something else has this name" in err
    assert contents(photos.parent) == before and not list(photos.parent.rglob("*.lock"))


def test_a_run_folder_may_hold_its_logs(tmp_path):
    (tmp_path / "slurm-1.out").touch()
    (tmp_path / ".hidden").touch()
    check_run_folder(tmp_path, ("state",), "training")
    (tmp_path / "notes.pdf").touch()
    with pytest.raises(ZooError, match="holds notes.pdf and no training"):
        check_run_folder(tmp_path, ("state",), "training")
    (tmp_path / "state").touch()
    check_run_folder(tmp_path, ("state",), "training")


def test_a_folder_without_permission_is_refused_at_once(tmp_path, monkeypatch):
    check_replaceable(tmp_path / "a" / "b")
    monkeypatch.setattr("os.access", lambda place, mode: place != tmp_path)
    with pytest.raises(ZooError, match="permission denied"):
        check_replaceable(tmp_path / "a" / "b")
    assert not list(tmp_path.iterdir())
