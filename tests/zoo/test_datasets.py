"""Labelled pictures: tables as spreadsheets write them, and a download that is there whole or not at all."""

import shutil
from pathlib import Path

import pytest
import torchvision

import nasnet_zoo
from nasnet_zoo.data.cifar import CIFAR_FOLDER, cifar10_folder
from nasnet_zoo.data.folders import labelled_folder
from nasnet_zoo.errors import DataError

IMAGES = Path(__file__).parents[1] / "images"


@pytest.fixture(scope="module")
def network():
    return nasnet_zoo.create("nasnet-a-cifar-small", filters=4)


def table(folder, content):
    for name in ("cat.png", "dog.png"):
        shutil.copy(IMAGES / name, folder)
    (folder / "labels.csv").write_bytes(content)
    return folder


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "with a byte-order mark"])
@pytest.mark.parametrize("heading", [b"", b"file,class\n"], ids=["no heading", "heading"])
def test_tables_with_and_without_a_heading(mark, heading, tmp_path, network):
    found = labelled_folder(
        table(tmp_path, mark + heading + b"cat.png,3\ndog.png,5\n"), network.labels, network.config.num_classes
    )
    assert found == [(tmp_path / "cat.png", 3), (tmp_path / "dog.png", 5)]


def test_a_first_row_that_names_a_picture_is_no_heading(tmp_path, network):
    with pytest.raises(DataError, match="line 1: expected a file and a class index"):
        labelled_folder(table(tmp_path, b"cat.png,cat\ndog.png,5\n"), network.labels, network.config.num_classes)


@pytest.fixture
def downloads(monkeypatch, tmp_path):
    """torchvision's download, which writes an archive and unpacks it in place; fails in the middle if told to."""
    fails = []

    class Fake:
        base_folder, filename = CIFAR_FOLDER, "cifar-10-python.tar.gz"

        def __init__(self, root, download):
            (Path(root) / self.filename).write_bytes(b"archive")
            (Path(root) / CIFAR_FOLDER).mkdir()
            (Path(root) / CIFAR_FOLDER / "data_batch_1").write_bytes(b"pictures")
            if fails:
                raise fails.pop()
            (Path(root) / CIFAR_FOLDER / "test_batch").write_bytes(b"pictures")

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", Fake)
    monkeypatch.setenv("NASNET_ZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NASNET_ZOO_DATA", str(tmp_path / "none"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    return fails


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError("cut off")])
def test_a_download_that_was_cut_off_leaves_nothing_and_is_tried_again(downloads, error, tmp_path):
    downloads.append(error)
    with pytest.raises((KeyboardInterrupt, DataError)):
        cifar10_folder()
    assert not (tmp_path / "cache" / "data" / CIFAR_FOLDER).exists()
    folder = cifar10_folder()
    assert folder == tmp_path / "cache" / "data"
    assert sorted(path.name for path in (folder / CIFAR_FOLDER).iterdir()) == ["data_batch_1", "test_batch"]


def test_the_folder_that_was_looked_in_is_named(downloads, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(DataError, match=f"neither in {tmp_path / 'none'} nor in"):
        cifar10_folder()
