"""Labelled pictures: tables as spreadsheets write them, and a download that is there whole or not at all."""

import shutil
from pathlib import Path

import pytest
import torch
import torchvision

import nasnet_zoo
from nasnet_zoo.data import sets
from nasnet_zoo.data.cifar import CIFAR_FOLDER, Pictures, cifar10_folder, in_classes_of
from nasnet_zoo.data.folders import labelled_folder, pictures_in
from nasnet_zoo.data.labels import example_pictures, label_set, wnids
from nasnet_zoo.data.sets import find_data
from nasnet_zoo.errors import ConfigError, DataError

IMAGES = example_pictures("cifar10")[0].parent


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


def test_a_table_whose_files_are_missing_says_how_many_and_which(tmp_path, network):
    folder = table(tmp_path, b"cat.png,3\ngone/a.png,5\nb.png,5\n")
    with pytest.raises(DataError, match=r"names 3 pictures, and 2 of them are not there, the first being .*a\.png"):
        labelled_folder(folder, network.labels, 10)
    with pytest.raises(DataError, match="names 1 pictures, and 1 of them"):
        labelled_folder(table(tmp_path, b"a" * 300 + b",3\n"), network.labels, 10)


def classes(folder, *names):
    """A folder with a picture in a subfolder of each name."""
    for name in names:
        (folder / name).mkdir(parents=True)
        shutil.copy(IMAGES / "cat.png", folder / name / "a.png")
    return folder


def found(folder, labels, num_classes=None):
    """The class of each subfolder."""
    pictures = labelled_folder(folder, labels, len(labels) if num_classes is None else num_classes)
    return {path.parent.name: label for path, label in pictures}


@pytest.mark.parametrize("background", [0, 1])
def test_imagenets_folders_are_named_after_wordnet_ids(tmp_path, background):
    labels = ("background", *label_set("imagenet-1k")) if background else label_set("imagenet-1k")
    folder = classes(tmp_path, "n01440764", "n02012849", "n03126707", "n15075141", "tiger shark")
    expected = {"n01440764": 0, "n02012849": 134, "n03126707": 517, "n15075141": 999, "tiger shark": 3}
    assert found(folder, labels) == {name: index + background for name, index in expected.items()}
    with pytest.raises(DataError, match="n01440764 is the name of none of the network's 10 classes"):
        found(folder, label_set("cifar10"))


def test_the_wordnet_ids_are_in_the_order_of_the_labels(shared):
    ids = wnids(label_set("imagenet-1k"))
    assert list(ids) == sorted(ids) and len(set(ids)) == 1000 and wnids(label_set("cifar10")) is None
    lines = (shared / "data" / "imagenet-val-100" / "synsets.txt").read_text(encoding="utf-8").splitlines()
    synsets = [line.split(" ", 1) for line in lines]
    assert [wnid for wnid, _ in synsets] == list(ids)
    other = {label for label, (_, names) in zip(label_set("imagenet-1k"), synsets) if label not in names.split(", ")}
    assert other == {"crane bird", "maillot tank suit"}  # which tell two classes of one name apart


def test_labels_may_differ_in_case_spaces_and_underscores(tmp_path):
    labels = ("great white shark", "T-shirt", "cardigan", "Cardigan")
    folder = classes(tmp_path / "some", "Great_White-Shark", "t shirt", "Cardigan")
    assert found(folder, labels) == {"Great_White-Shark": 0, "t shirt": 1, "Cardigan": 3}
    assert found(classes(tmp_path / "others", "cardigan", "T-shirt"), labels) == {"cardigan": 2, "T-shirt": 1}
    with pytest.raises(DataError, match="CARDIGAN may be 2 of the network's classes"):
        found(classes(tmp_path / "more", "CARDIGAN"), labels)


def test_folders_whose_names_match_no_label_are_refused(tmp_path, network):
    """Their order is not assumed to be that of the classes, however many they are."""
    ten = classes(tmp_path / "ten", *(f"class{i}" for i in range(10)))
    with pytest.raises(DataError, match="class0 is the name of none of the network's 10 classes"):
        found(ten, network.labels)
    with pytest.raises(DataError, match=r"hors is the name of none .* \(horse is one\)"):
        found(classes(tmp_path / "some", "cat", "hors"), network.labels)


def test_without_labels_subfolders_are_in_the_order_of_the_classes(tmp_path):
    folder = classes(tmp_path / "named", "b", "a", "c")
    assert found(folder, None, 3) == {"a": 0, "b": 1, "c": 2}
    with pytest.raises(DataError, match="has 3 subfolders, and the network 4 classes without names"):
        found(folder, None, 4)
    assert found(classes(tmp_path / "numbered", "9", "10", "11"), None, 3) == {"9": 0, "10": 1, "11": 2}


def test_what_is_hidden_is_no_class_and_no_picture(tmp_path, network):
    folder = classes(tmp_path, "cat", ".cache", "dog/.thumbnails")
    shutil.copy(IMAGES / "cat.png", folder / "cat" / "._a.png")
    (folder / "cat" / "notes.txt").touch()
    assert labelled_folder(folder, network.labels, 10) == [(folder / "cat" / "a.png", 3)]


def test_pictures_are_sorted_as_paths_are(tmp_path):
    """A folder's before those of a folder whose name is longer, whatever character follows."""
    folder = classes(tmp_path, "b", "b-c", "b/d", "b.jpg")
    assert pictures_in(folder) == [folder / name / "a.png" for name in ("b", "b/d", "b-c", "b.jpg")]


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


def test_cifar10_is_measured_by_the_names_of_a_networks_classes():
    pictures = Pictures(torch.zeros(3, 3, 1, 1, dtype=torch.uint8), torch.tensor([0, 3, 9]))
    names = label_set("cifar10")
    assert in_classes_of(pictures, None) is pictures and in_classes_of(pictures, list(names)) is pictures
    assert in_classes_of(pictures, names[::-1]).labels.tolist() == [9, 6, 0]
    with pytest.raises(ConfigError, match=r"CIFAR-10's classes are airplane, .* others \(a, b, c, ...\): choose other"):
        in_classes_of(pictures, list("abcdefghij"))


def test_cifar10_as_a_data_set_has_a_networks_classes(monkeypatch):
    pictures = Pictures(torch.zeros(3, 3, 1, 1, dtype=torch.uint8), torch.tensor([0, 3, 9]))
    monkeypatch.setattr(sets, "cifar10_pictures", lambda folder, train: pictures)
    names = label_set("cifar10")
    assert find_data("cifar10").labels == find_data("cifar10", names).labels == "cifar10"
    found = find_data("cifar10", names[::-1])
    assert found.names == names[::-1] and found.train.labels.tolist() == found.val.labels.tolist() == [9, 6, 0]
    with pytest.raises(ConfigError, match="the network has others"):
        nasnet_zoo.train(nasnet_zoo.create("nasnet-a-cifar-small", labels=list("abcdefghij")), "cifar10", "cifar-quick")
