"""The data sets of a training: what is a class, in which order, what is held out, and what is refused. No picture is
opened, so that empty files serve."""

import json
import os
from collections import Counter
from pathlib import Path
from unicodedata import normalize

import pytest

from nasnet_zoo.data.classes import class_folders
from nasnet_zoo.data.folders import labelled_folder
from nasnet_zoo.data.label_file import read_labels
from nasnet_zoo.data.labels import label_set, wnids
from nasnet_zoo.errors import ConfigError, DataError

CAFE, DECOMPOSED = normalize("NFC", "café"), normalize("NFD", "café")


def made(folder, *names):
    """The folder, with these files in it; a name that ends with a slash is an empty folder."""
    for name in names:
        path = folder / name
        path.mkdir(parents=True) if name.endswith("/") else path.parent.mkdir(parents=True, exist_ok=True)
        if not name.endswith("/"):
            path.touch()
    return folder


def several(*names, count=2):
    return [f"{name}/{i}.jpg" for name in names for i in range(count)]


def written(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_labels(path)


def shown(part, root):
    """A part's pictures, relative to a folder, with their classes."""
    return {Path(path).relative_to(root).as_posix(): index for path, index in part}


TWO = ["train/cat/a.jpg", "train/dog/b.PNG", "val/cat/c.webp", "val/dog/d.jpeg"]


@pytest.mark.parametrize("val", ["val", "validation", "valid", "test", "Val", "TEST"])
@pytest.mark.parametrize("train", ["train", "training", "Train"])
def test_folders_for_training_and_validation(tmp_path, train, val):
    names = [name.replace("train", train).replace("val", val) for name in TWO]
    data = class_folders(made(tmp_path, *names))
    assert shown(data.train, tmp_path) == {names[0]: 0, names[1]: 1}
    assert shown(data.val, tmp_path) == {names[2]: 0, names[3]: 1}
    assert (data.labels, data.held_out, data.unmeasured) == (("cat", "dog"), False, ())


def test_the_folder_called_val_is_read_before_one_called_test(tmp_path):
    data = class_folders(str(made(tmp_path, *TWO, "test/cat/e.jpg", "validation/fish/f.jpg")))
    assert shown(data.val, tmp_path) == {"val/cat/c.webp": 0, "val/dog/d.jpeg": 1}


def test_subfolders_of_a_class_are_searched_and_what_is_no_picture_is_left_out(tmp_path):
    other = ("train/cat/boxes.txt", "classes.json", "preview.jpg", "train/readme.txt")
    data = class_folders(made(tmp_path, *TWO, "train/cat/images/more/z.jpg", *other))
    assert shown(data.train, tmp_path) == {"train/cat/a.jpg": 0, "train/cat/images/more/z.jpg": 0, "train/dog/b.PNG": 1}


def test_what_is_hidden_is_no_class_and_no_picture(tmp_path):
    hidden = (".git/a.jpg", "__MACOSX/cat/a.jpg", "cat/.small/a.jpg", "cat/._0.jpg", ".a.jpg", "dog/__MACOSX/b.jpg")
    data = class_folders(made(tmp_path, *several("cat", "dog"), *hidden))
    assert data.labels == ("cat", "dog") and len(data.train) == len(data.val) == 2
    inside = (".cache/a.jpg", "train/.cache/a.jpg", "train/__MACOSX/a.jpg", "val/.a.jpg", "train/.a.jpg")
    data = class_folders(made(tmp_path / "parts", *TWO, *inside))
    assert data.labels == ("cat", "dog") and len(data.train) == len(data.val) == 2


def test_a_pipe_is_no_picture(tmp_path):
    made(tmp_path, *TWO)
    os.mkfifo(tmp_path / "train" / "cat" / "pipe.jpg")
    assert len(class_folders(tmp_path).train) == 2


def test_folders_and_pictures_may_be_links(tmp_path):
    store = made(tmp_path / "store", *several("cat", "dog"))
    data = made(tmp_path / "data", "train/", "val/fish/x.jpg", "train/fish/")
    for name in ("cat", "dog"):
        (data / "train" / name).symlink_to(store / name, target_is_directory=True)
    (data / "train" / "fish" / "a.jpg").symlink_to(store / "cat" / "0.jpg")
    found = class_folders(data)
    assert found.labels == ("cat", "dog", "fish")
    links = {"cat/0.jpg": 0, "cat/1.jpg": 0, "dog/0.jpg": 1, "dog/1.jpg": 1, "fish/a.jpg": 2}
    assert shown(found.train, data / "train") == links
    assert found.unmeasured == ("cat", "dog")


def test_without_a_folder_to_train_on_its_subfolders_are_the_classes(tmp_path):
    """Even if they have the names that a part of a data set has."""
    assert class_folders(made(tmp_path, *several("valid", "invalid"))).labels == ("invalid", "valid")


def test_a_share_of_each_class_is_held_out(tmp_path):
    made(tmp_path, *several("a", count=100), *several("b", count=30), *several("c"), "d/0.jpg")
    data = class_folders(tmp_path)
    assert data.held_out and data.unmeasured == ("d",)
    assert Counter(index for _, index in data.val) == {0: 10, 1: 3, 2: 1}
    assert Counter(index for _, index in data.train) == {0: 90, 1: 27, 2: 1, 3: 1}
    assert not set(data.train) & set(data.val)
    assert Counter(index for _, index in class_folders(tmp_path, share=0.99).train) == {0: 1, 1: 1, 2: 1, 3: 1}


def test_what_is_held_out_depends_on_nothing_but_the_names_in_the_class(tmp_path, monkeypatch):
    def held(folder, root):
        return {path for path in shown(class_folders(folder).val, root) if path.startswith("a/")}

    first = made(tmp_path / "first", *several("a", "b", count=50))
    expected = {"a/15.jpg", "a/20.jpg", "a/23.jpg", "a/48.jpg", "a/6.jpg"}  # on every machine, of every version
    assert held(first, first) == expected
    second = made(tmp_path / "elsewhere" / "second", *several("train/a", "train/z", "train/0", count=50))
    assert held(second, second / "train") == expected
    monkeypatch.chdir(first)
    assert held(".", ".") == expected


def test_what_is_held_out_is_the_same_where_names_are_decomposed(tmp_path):
    parts = [made(tmp_path / str(i), *several(name, "b", count=50)) for i, name in enumerate((CAFE, DECOMPOSED))]
    held = [[Path(path).name for path, index in class_folders(part).val if index == 1] for part in parts]
    assert held[0] == held[1] and len(held[0]) == 5


@pytest.mark.parametrize("share", [0, 1, -0.1, 1.5, float("nan"), "0.1"])
def test_a_share_is_a_part(tmp_path, share):
    with pytest.raises(ConfigError, match="^.*share"):
        class_folders(made(tmp_path, *several("cat", "dog")), share=share)


@pytest.mark.parametrize(
    "ordered",
    [
        ("B", "a", "b"),
        ("9", "10", "011"),
        ("10", "9", "x"),
        ("T-shirt", "T_shirt", "t shirt"),
        ("red fox", "ñandú", "狐"),
        ("n01440764", "n99999999"),
        ("dog", "n01440764"),
    ],
)
def test_labels_are_the_folders_names_in_their_order(tmp_path, ordered):
    data = class_folders(made(tmp_path, *several(*reversed(ordered))))
    assert data.labels == ordered
    assert [Path(path).parent.name for path, _ in data.train] == [ordered[index] for _, index in data.train]


@pytest.mark.parametrize(("start", "step"), [(0, 1), (134, 383)])
def test_the_folders_of_imagenet_or_of_a_part_have_its_labels_in_its_order(tmp_path, start, step):
    labels = label_set("imagenet-1k")[start::step]
    ids = wnids(label_set("imagenet-1k"))[start::step]
    data = class_folders(made(tmp_path, *several(*reversed(ids))))
    assert data.labels == labels
    assert [Path(path).parent.name for path, _ in data.train] == [ids[index] for _, index in data.train]


def test_decomposed_names_are_equal_to_typed_ones_and_paths_stay(tmp_path):
    data = class_folders(made(tmp_path, f"train/{DECOMPOSED}/a.jpg", "train/b/b.jpg", f"val/{CAFE}/c.jpg"))
    assert data.labels == ("b", CAFE)
    assert shown(data.train, tmp_path) == {f"train/{DECOMPOSED}/a.jpg": 1, "train/b/b.jpg": 0}
    assert shown(data.val, tmp_path) == {f"val/{CAFE}/c.jpg": 1}
    assert class_folders(tmp_path, ("b", DECOMPOSED)).labels == ("b", DECOMPOSED)
    assert class_folders(tmp_path, written(tmp_path / "l.txt", f"{DECOMPOSED}\nb")).labels == (CAFE, "b")


def test_the_labels_of_a_network_fix_the_indices_and_need_not_all_have_a_folder(tmp_path):
    made(tmp_path, "train/Dog/a.jpg", "train/polar_bear/b.jpg", "val/Dog/c.jpg")
    data = class_folders(tmp_path, ["polar bear", "cat", "dog"])
    assert shown(data.train, tmp_path) == {"train/Dog/a.jpg": 2, "train/polar_bear/b.jpg": 0}
    assert shown(data.val, tmp_path) == {"val/Dog/c.jpg": 2}
    assert data.labels == ("polar bear", "cat", "dog") and data.unmeasured == ("polar bear", "cat")


@pytest.mark.parametrize("background", [(), ("background",)])
def test_wordnet_ids_stand_for_the_labels_of_a_network_of_imagenet(tmp_path, background):
    made(tmp_path, *several("n01440764", "tiger shark"))
    data = class_folders(tmp_path, (*background, *label_set("imagenet-1k")))
    assert {index for _, index in data.train} == {len(background), 3 + len(background)}


def test_a_networks_labels_are_not_taken_for_folders_of_other_names(tmp_path):
    made(tmp_path, *several("cat", "hors"))
    with pytest.raises(DataError, match=r"hors is the name of none of the network's 2 classes \(horse is one\)"):
        class_folders(tmp_path, ("horse", "cat"))
    with pytest.raises(DataError, match="hors may be 2 of the network's classes"):
        class_folders(tmp_path, ("cat", "Hors", "HORS"))


@pytest.mark.parametrize("name", ["l.txt", "l.json"])
def test_a_file_of_names_that_the_folders_have_gives_the_order(tmp_path, name):
    lines = ["red fox", "cat", "unseen"]
    content = json.dumps(lines) if name.endswith("json") else "\ufeff" + "\r\n".join(lines) + "\n\n \n"
    data = class_folders(made(tmp_path, *several("cat", "Red_Fox")), written(tmp_path / name, content))
    assert data.labels == ("red fox", "cat", "unseen")
    assert {Path(path).parent.name: index for path, index in data.train} == {"Red_Fox": 0, "cat": 1}


def test_a_file_of_other_names_names_the_folders_in_their_order(tmp_path):
    made(tmp_path, *several("10", "9", "11"))
    data = class_folders(tmp_path, written(tmp_path / "l.txt", "crane\ncrane\ncat"))
    assert data.labels == ("crane", "crane", "cat")
    assert {Path(path).parent.name: index for path, index in data.train} == {"9": 0, "10": 1, "11": 2}
    with pytest.raises(DataError, match=r"l.txt has 2 names, which are not those of the 3 folders in .*: write one"):
        class_folders(tmp_path, written(tmp_path / "l.txt", "a\nb"))


def test_a_file_of_names_of_which_the_folders_have_some_is_not_taken_for_their_order(tmp_path):
    made(tmp_path, *several("cat", "hors"))
    with pytest.raises(DataError, match=r"hors is the name of none of .*l.txt's 2 classes \(horse is one\)"):
        class_folders(tmp_path, written(tmp_path / "l.txt", "horse\ncat"))


def test_an_object_names_each_folder(tmp_path):
    made(tmp_path, *several("n01440764", "n2", DECOMPOSED))
    names = {"n2": "two", CAFE: "Café", "n01440764": "tench, Tinca tinca", "n3": "unseen"}
    data = class_folders(tmp_path, written(tmp_path / "l.json", json.dumps(names)))
    assert data.labels == ("Café", "tench, Tinca tinca", "two") and {index for _, index in data.train} == {0, 1, 2}
    names = {"n2": "two"}
    with pytest.raises(DataError, match=rf"l.json has no names for folders in .* \({CAFE}, n01440764\): add them"):
        class_folders(tmp_path, written(tmp_path / "l.json", json.dumps(names)))


def test_the_classes_of_tiny_imagenet(shared, tmp_path):
    names = read_labels(shared / "data" / "tiny-imagenet-50" / "classes.json")
    made(tmp_path, *several(*(f"train/{wnid}/images" for wnid in names.names)))
    assert class_folders(tmp_path, names).labels == tuple(names.names[wnid] for wnid in sorted(names.names))
    plain = class_folders(tmp_path).labels
    assert len(plain) == 50 and plain[0] == "goldfish" and set(plain) <= set(label_set("imagenet-1k"))


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("l.txt", "cat\n\ndog\n", "l.txt, line 2 is empty: write the name of a class there"),
        ("l.txt", "\ncat", "l.txt, line 1 is empty"),
        ("l.txt", " \n", "l.txt has no names in it"),
        ("l.txt", b"caf\xe9", "l.txt is no text in UTF-8 .*: save it as one"),
        ("l.json", "[]", "l.json has no names in it"),
        ("l.json", "{}", "l.json has no names in it"),
        ("l.json", "[1, 2]", "l.json is no list of names: write a JSON list"),
        ("l.json", '["cat", " "]', "l.json is no list of names"),
        ("l.json", '{"a": ["cat"]}', "l.json is no list of names"),
        ("l.json", '"cat"', "l.json is no list of names"),
        ("l.JSON", "cat\ndog", "l.JSON is not valid JSON"),
    ],
)
def test_a_file_that_is_no_list_of_names_is_refused(tmp_path, name, content, problem):
    with pytest.raises(DataError, match=problem):
        written(tmp_path / name, content)


@pytest.mark.parametrize("name", ["none.txt", "none.json", "folder", "folder.json"])
def test_labels_that_cannot_be_read_are_named(tmp_path, name):
    if name.startswith("folder"):
        (tmp_path / name).mkdir()
    with pytest.raises(DataError, match=f"cannot read the .*labels .*{name}"):
        read_labels(str(tmp_path / name))


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        ([], "FOLDER has no pictures: put a subfolder of pictures for each class there"),
        (["train/cat/", "train/dog/notes.txt", "val/cat/a.jpg"], "FOLDER/train has no pictures: put"),
        (
            ["a.jpg", *several("cat", "dog")],
            "pictures lie directly in FOLDER, such as a.jpg: put each into the",
        ),
        (["train/b.jpg", "train/a.jpg"], "pictures lie directly in FOLDER/train, such as a.jpg"),
        ([*TWO, "val/a.jpg"], "pictures lie directly in FOLDER/val, such as a.jpg"),
        (
            ["labels.csv", "a.jpg"],
            "FOLDER has a labels.csv, which is for `nasnet-zoo eval`: a training needs a",
        ),
        (["data/train/cat/a.jpg"], "FOLDER has one class, data, .*: add another .* or name FOLDER/data if that is the"),
        (["train/cat/a.jpg", "val/cat/a.jpg"], "FOLDER/train has one class, cat, and a training needs two"),
        ([*TWO, "train/fish/"], r"FOLDER/train has folders without pictures \(fish\): put .*, or delete them"),
        (
            [*several("cat", "dog"), *(f"{name}/" for name in "ABCDE")],
            r"FOLDER has folders without pictures \(A, B, C and 2 more\)",
        ),
        (
            [*TWO, "val/fish/x.jpg"],
            r"FOLDER/val has classes that FOLDER/train lacks \(fish\): name the folders as",
        ),
        (["val/cat/a.jpg", "test/dog/a.jpg"], "FOLDER has a folder val and none to train on: call that one train"),
        ([*TWO[:2], "val/cat/"], "FOLDER/val has no pictures: put a subfolder .*, or delete it"),
        (["cat/a.jpg", "dog/a.jpg"], "FOLDER has one picture of each class, and none to spare for measuring"),
    ],
)
def test_what_is_no_data_set_is_refused(tmp_path, names, problem):
    made(tmp_path, *names)
    with pytest.raises(DataError, match="^" + problem.replace("FOLDER", str(tmp_path))):
        class_folders(tmp_path)


def test_an_empty_folder_for_validation_is_a_class_that_is_not_measured(tmp_path):
    assert class_folders(made(tmp_path, *TWO[:3], "val/dog/", "val/fish/")).unmeasured == ("dog",)


@pytest.mark.parametrize("name", ["nowhere", "a.jpg", "x" * 300])
def test_a_folder_that_is_none_is_named(tmp_path, name):
    made(tmp_path, "a.jpg")
    gone = f"there is no folder .*{name}: name one with a subfolder of pictures"
    with pytest.raises(DataError, match="a.jpg is no folder: unpack it" if name == "a.jpg" else gone):
        class_folders(tmp_path / name)


def test_addresses_are_not_fetched():
    with pytest.raises(DataError, match="^https://example.org/data is an address, and addresses are not fetched"):
        class_folders("https://example.org/data")


def test_a_name_that_is_no_text_is_to_be_renamed(tmp_path):
    made(tmp_path, *several("cat", "dog"))
    try:
        os.rename(tmp_path / "cat", os.fsencode(tmp_path) + b"/caf\xe9")
    except OSError:
        pytest.skip("this file system takes names in UTF-8 only")
    with pytest.raises(DataError, match=r"/caf\\udce9 is no name in UTF-8: rename the folder"):
        class_folders(tmp_path)


def test_a_folder_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    def refuse(folder):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr(os, "scandir", refuse)
        with pytest.raises(DataError, match=f"cannot read the folder {tmp_path}: Permission denied; check who may"):
            class_folders(tmp_path)


def test_a_network_of_some_of_imagenets_classes_knows_their_folders(tmp_path):
    """Its labels are the classes' names, and the folders' are WordNet ids."""
    for wnid in ("n02012849", "n03126707", "n01443537"):
        for split in ("train", "val"):
            (tmp_path / split / wnid).mkdir(parents=True)
            (tmp_path / split / wnid / "1.jpg").touch()
    found = class_folders(tmp_path)
    assert found.labels == ("goldfish", "crane bird", "crane")
    again = class_folders(tmp_path, found.labels)
    assert (again.train, again.val, again.labels) == (found.train, found.val, found.labels)
    assert [label for _, label in labelled_folder(tmp_path / "val", found.labels, 3)] == [0, 1, 2]
