"""Labelled pictures: tables as spreadsheets write them, and a download that is there whole or not at all."""

import hashlib
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision

import nasnet_zoo
from nasnet_zoo.data import cifar, sets
from nasnet_zoo.data.cifar import CIFAR_FOLDER, Pictures, cifar10_folder, in_classes_of, load_cifar10
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


def batch(place, count):
    """A file as CIFAR-10's are, of pictures whose first value is their number."""
    data = np.zeros((count, 3 * 32 * 32), dtype=np.uint8)
    data[:, 0], data[:, 1024], data[:, 2 * 1024 + 33] = np.arange(count) + 10 * place, 7, 9
    return pickle.dumps({"data": data, "labels": [(place + index) % 10 for index in range(count)]})


def test_cifar10_is_read_in_order_and_only_if_it_is_the_official_one(monkeypatch, tmp_path):
    folder = tmp_path / CIFAR_FOLDER
    folder.mkdir()
    official = {f"data_batch_{place}": batch(place, 3) for place in (1, 2)} | {"test_batch": batch(5, 2)}
    digests = {name: hashlib.md5(content).hexdigest() for name, content in official.items()}
    test = {"test_batch": digests.pop("test_batch")}
    monkeypatch.setattr(cifar, "FILES", {True: digests, False: test})
    monkeypatch.setenv("NASNET_ZOO_CACHE", str(tmp_path / "cache"))
    for name, content in official.items():
        (folder / name).write_bytes(content)
    found = load_cifar10(tmp_path, train=True)
    assert found.images.shape == (6, 3, 32, 32) and found.images.dtype == torch.uint8 and found.images.is_contiguous()
    assert found.images[:, 0, 0, 0].tolist() == [10, 11, 12, 20, 21, 22] and found.labels.tolist() == [1, 2, 3, 2, 3, 4]
    assert {*found.images[:, 1, 0, 0].tolist()} == {7} and {*found.images[:, 2, 1, 1].tolist()} == {9}
    assert load_cifar10(tmp_path, train=False).labels.tolist() == [5, 6]

    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("a file that is not the official one was unpickled",))

    (folder / "data_batch_2").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(DataError, match=r"does not hold the official CIFAR-10 \(the MD5 of data_batch_2 is not"):
        load_cifar10(tmp_path, train=True)
    (folder / "data_batch_2").unlink()
    with pytest.raises(DataError, match="does not hold the official CIFAR-10"):
        load_cifar10(tmp_path, train=True)
    assert len(load_cifar10(tmp_path, train=False)) == 2  # which needs no other file


def test_cifar10s_digests_are_torchvisions():
    from torchvision.datasets import CIFAR10

    assert {True: dict(CIFAR10.train_list), False: dict(CIFAR10.test_list)} == cifar.FILES
    assert CIFAR10.base_folder == CIFAR_FOLDER


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
