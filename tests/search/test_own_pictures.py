"""Searches on a user's own pictures: which are taken, what is refused, and that their classes go all the way."""

import json
import shutil
import zipfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from toy_search import ToyChild

import nasnet_zoo
from nasnet_zoo.arch.genotypes import GENOTYPES
from nasnet_zoo.arch.preprocess import TORCH_IMAGENET
from nasnet_zoo.data.images import resized
from nasnet_zoo.errors import ConfigError, DataError, JournalError
from nasnet_zoo.search import ChildSettings, SearchConfig, SpaceSettings, read_children, rerank, run
from nasnet_zoo.search.children.folders import FolderChild, read_pictures
from nasnet_zoo.search.children.own_pictures import OwnPictures
from nasnet_zoo.search.own_data import for_own_data
from nasnet_zoo.search.presets import preset
from nasnet_zoo.training.recipe import Recipe

COLOURS = {"cat": (200, 40, 40), "dog": (40, 200, 40), "fox": (40, 40, 200), "cow": (200, 200, 40)}
SHORT = Recipe(1, batch_size=8, learning_rate=0.1, warmup_epochs=0.2, pad=1)
SETTINGS = ChildSettings("folders", filters=4, cells=1, stem=2.0, side=8, calibration=16, recipe=SHORT)
NASNET_A = GENOTYPES["NASNet-A"]


def photos(folder: Path, **counts: int) -> Path:
    """Noise around each class's colour, some upright and some not."""
    random = np.random.default_rng(0)
    for name, count in counts.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            shape = (14, 20, 3) if index % 2 else (18, 12, 3)
            pixels = np.clip(random.normal(COLOURS[name], 30, shape), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{index:03}.png")
    return folder


@pytest.fixture(scope="module")
def flat(tmp_path_factory):
    """Three classes without a folder for validation."""
    return photos(tmp_path_factory.mktemp("flat") / "pets", cat=40, dog=20, fox=20)


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    """Three classes with one."""
    folder = tmp_path_factory.mktemp("split") / "pets"
    photos(folder / "train", cat=20, dog=10, fox=10)
    photos(folder / "val", cat=8, dog=4, fox=4)
    return folder


@pytest.fixture
def mine(flat, tmp_path):
    """A copy that a test may change."""
    return Path(shutil.copytree(flat, tmp_path / "pets"))


def config(folder, data, children=2, **changes) -> SearchConfig:
    child = replace(SETTINGS, data=str(data), **changes)
    return SearchConfig(str(folder), SpaceSettings("nasnet", blocks=1), "random", child=child, children=children)


def shares(part) -> list[int]:
    return [count for _, count in sorted(Counter(label for _, label in part).items())]


# Which pictures


def test_classes_keep_their_shares_and_the_seed_draws(flat):
    found = OwnPictures(str(flat))
    assert found.labels == ("cat", "dog", "fox") and len(found.train) == 72  # a tenth is left for a training
    learned, measured = found.divided(36, 18, 0)
    assert shares(learned) == [18, 9, 9]
    assert [abs(found - fair) for found, fair in zip(shares(measured), (9, 4.5, 4.5))] == [0, 0.5, 0.5]
    held_out = {path for path, _ in found.held_out}
    assert len(held_out) == 8 and not {*learned} & {*measured}
    assert not held_out & {path for path, _ in (*learned, *measured)}
    assert found.divided(36, 18, 0) == OwnPictures(str(flat)).divided(36, 18, 0) == (learned, measured)
    assert found.divided(20, 18, 0)[0] == learned[:20]
    others, _ = found.divided(36, 18, 1)
    assert shares(others) == [18, 9, 9] and {*others} != {*learned}
    assert shares(found.divided(3, 69, 0)[0]) == [1, 1, 1]


def test_a_folder_for_validation_is_what_is_measured_on(split):
    found = OwnPictures(str(split))
    learned, measured = found.divided(20, 8, 0)
    assert shares(learned) == [10, 5, 5] and shares(measured) == [4, 2, 2]
    assert all("/train/" in Path(path).as_posix() for path, _ in learned)
    assert all("/val/" in Path(path).as_posix() for path, _ in measured)
    assert len({*found.divided(20, 8, 0)[1]} ^ {*found.divided(20, 8, 1)[1]}) > 0
    assert shares(found.divided(20, 3, 0)[1]) == [1, 1, 1]


def test_the_same_pictures_elsewhere_are_divided_alike(flat, mine):
    there, here = OwnPictures(str(flat)).divided(36, 18, 5), OwnPictures(str(mine)).divided(36, 18, 5)
    for before, now in zip(there, here):
        assert [Path(a).relative_to(flat) for a, _ in before] == [Path(b).relative_to(mine) for b, _ in now]


def test_how_many_there_are(flat, split):
    assert OwnPictures(str(flat)).counts(0, 0) == (65, 7)
    assert OwnPictures(str(flat)).counts(10, 0) == (10, 7)
    assert OwnPictures(str(flat)).counts(0, 30) == (42, 30)
    assert OwnPictures(str(split)).counts(0, 0) == (40, 16)
    assert OwnPictures(str(flat)).fitted(30, 30) == (30, 30)
    assert OwnPictures(str(flat)).fitted(45_000, 5_000) == (65, 7)
    assert OwnPictures(str(flat)).fitted(2_000, 2_000) == (36, 36)
    assert OwnPictures(str(split)).fitted(2_000, 10) == (40, 10)


@pytest.mark.parametrize(
    ("data", "pictures", "validation", "said"),
    [
        ("flat", 70, 3, "pictures 70 and validation 3 are more than .*pets has, which is 72 for both"),
        ("flat", 0, 70, "one of each class at least to learn from: give fewer, or 0 for all"),
        ("split", 41, 0, "which is 40 to learn from and 16 to measure on: give fewer"),
        ("split", 0, 17, "validation 17 are more"),
    ],
)
def test_more_than_there_are(request, tmp_path, data, pictures, validation, said):
    folder = request.getfixturevalue(data)
    with pytest.raises(ConfigError, match=said):
        run(config(tmp_path / "run", folder, pictures=pictures, validation=validation))
    assert not (tmp_path / "run").exists()


def test_settings_that_make_no_sense():
    for changes, said in (
        (dict(side=4), "side 4 is not between 8 and 256"),
        (dict(side=512), "side 512 is not between 8 and 256"),
        (dict(pictures=-1), "must not be negative"),
        (dict(filters=0), "filters and cells must be at least 1"),
    ):
        with pytest.raises(ConfigError, match=said):
            replace(SETTINGS, **changes)


# Reading them


def test_the_middle_of_each_picture_at_the_childs_side(flat):
    child = FolderChild(replace(SETTINGS, data=str(flat), side=10), "cell")
    child.prepare("cpu")
    network = child.config(NASNET_A)
    assert network.preprocess == replace(TORCH_IMAGENET, size=(10, 10), crop=1.0)
    assert (network.num_classes, network.labels) == (3, ("cat", "dog", "fox"))
    learned, measured = OwnPictures(str(flat)).divided(65, 7, 0)
    for part, pictures in ((learned, child.training), (measured, child.validation)):
        assert pictures.images.shape == (len(part), 3, 10, 10) and pictures.images.dtype == torch.uint8
        assert pictures.labels.tolist() == [label for _, label in part]
        for (path, _), image in zip(part, pictures.images):
            assert np.array_equal(image.permute(1, 2, 0).numpy(), resized(path, network.preprocess))
    before = child.training
    child.prepare("cpu")
    assert child.training is before


def test_a_child_learns_its_classes(flat):
    child = FolderChild(replace(SETTINGS, data=str(flat), recipe=replace(SHORT, epochs=12)), "cell")
    child.prepare("cpu")
    metrics = child(NASNET_A, 1)
    assert set(metrics) == {"accuracy", "top5", "losses", "parameters", "multiply_adds"}
    assert metrics["accuracy"] > 0.5 and metrics["top5"] == 1 and metrics["losses"][-1] < metrics["losses"][0]
    assert child(NASNET_A, 1) == metrics
    network = nasnet_zoo.create(child.config(NASNET_A))
    assert metrics["parameters"] == sum(parameter.numel() for parameter in network.parameters())


def test_whitened_pictures_are_cut_alike():
    whitened = replace(SETTINGS, whiten=True, labels=("a", "b")).network(NASNET_A, None).preprocess
    assert (whitened.per_image, whitened.resize, whitened.size) == (True, "shortest", (8, 8))


def test_broken_pictures_are_named_and_left_out(mine, caplog):
    whole = (mine / "dog" / "001.png").read_bytes()
    (mine / "dog" / "001.png").write_bytes(whole[: len(whole) // 2])
    (mine / "cat" / "002.png").write_bytes(b"no picture")
    pictures = sorted((str(path), 0) for path in mine.rglob("*.png"))
    read = read_pictures(pictures, SETTINGS.preprocess)
    assert len(read) == 78 and len(caplog.messages) == 2
    assert "cat/002.png" in caplog.text and "dog/001.png" in caplog.text
    good = [pair for pair in pictures if not pair[0].endswith(("dog/001.png", "cat/002.png"))]
    assert torch.equal(read.images, read_pictures(good, SETTINGS.preprocess).images)


def test_too_many_broken_pictures_end_it_before_it_begins(mine, tmp_path):
    for path in (mine / "cat").iterdir():
        path.write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"11 of 65 pictures cannot be used; the last: cannot read .*cat/\d+\.png"):
        run(config(tmp_path / "run", mine))
    assert not (tmp_path / "run").exists()
    with pytest.raises(DataError, match="none of 2 pictures can be used; the last: cannot read .*001.png"):
        read_pictures([(str(mine / "cat" / f"00{i}.png"), 0) for i in range(2)], SETTINGS.preprocess)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: [shutil.rmtree(folder / name) for name in ("dog", "fox")], "has one class, cat"),
        (lambda folder: [path.unlink() for path in (folder / "dog").iterdir()], r"without pictures \(dog\)"),
        (lambda folder: [path.unlink() for path in folder.rglob("*.png")], "has no pictures: put a subfolder"),
        (lambda folder: shutil.move(folder / "cat" / "000.png", folder), "pictures lie directly in"),
        (lambda folder: [p.unlink() for p in folder.rglob("*.png") if p.name > "001.png"], "too few pictures to meas"),
        (lambda folder: [p.unlink() for p in folder.rglob("*.png") if p.name > "002.png"], "fewer than a batch of 8"),
        (shutil.rmtree, "there is no folder"),
    ],
)
def test_folders_that_are_no_data(mine, tmp_path, spoil, said):
    spoil(mine)
    with pytest.raises((DataError, ConfigError), match=said) as error:
        run(config(tmp_path / "run", mine))
    assert "\n" not in str(error.value) and not (tmp_path / "run").exists()


def test_no_data_at_all(tmp_path):
    with pytest.raises(DataError, match="the task folders needs pictures: name with --data"):
        run(replace(config(tmp_path / "run", "x"), child=SETTINGS))


# A search


@pytest.fixture(scope="module")
def searched(flat, tmp_path_factory):
    """A finished search of two children."""
    folder = tmp_path_factory.mktemp("searched") / "found"
    run(config(folder, flat, pictures=40, validation=24))
    return folder


@pytest.fixture
def again(searched, tmp_path):
    return Path(shutil.copytree(searched, tmp_path / "found"))


def test_a_search_says_what_its_data_are(searched, flat):
    child = json.loads((searched / "config.json").read_text())["child"]
    assert (child["task"], child["data"], child["labels"]) == ("folders", str(flat), ["cat", "dog", "fox"])
    best = json.loads((searched / "best.json").read_text())
    assert (best["data"], best["labels"]) == (str(flat), ["cat", "dog", "fox"])
    assert "trained on 40 pictures of pets (3 classes) for one epoch" in (searched / "report.html").read_text()
    shutil.rmtree(flat.parent / "moved", ignore_errors=True)
    flat.rename(flat.parent / "moved")  # whoever reads a search needs no data
    try:
        assert all(row["multiply_adds"] > 0 for row in read_children(searched))
    finally:
        (flat.parent / "moved").rename(flat)


def test_other_data_are_refused_when_it_goes_on(again, mine, flat):
    moved = config(again, mine, 3, pictures=40, validation=24)
    assert run(moved).children == 3  # the same pictures elsewhere
    (mine / "cat" / "000.png").unlink()
    for data in (moved, replace(moved, child=replace(moved.child, labels=("cat", "dog", "fox")))):
        with pytest.raises(JournalError, match="children had another data set .* name the same, or another folder"):
            run(replace(data, children=4))
    assert run(config(again, flat, 4, pictures=40, validation=24)).children == 4


@pytest.mark.parametrize("change", ["size", "name", "class", "label"])
def test_what_makes_other_data(mine, change):
    child = FolderChild(replace(SETTINGS, data=str(mine)), "cell")
    before, path = child.context(), mine / "cat" / "000.png"
    path.touch()  # a copy may be newer
    assert child.context() == before and len(before["data set"]) == 64
    if change == "size":
        path.write_bytes(path.read_bytes() + b"\n")
    else:
        to = {"name": "cat/x.png", "class": "dog/x.png"}.get(change)
        path.rename(mine / to) if to else (mine / "cat").rename(mine / "kitten")
    assert child.context() != before


def test_a_search_whose_data_have_gone(again, mine):
    run(config(again, mine, 2, pictures=40, validation=24))  # is finished: it needs none
    shutil.rmtree(mine)
    going_on = json.loads((again / "config.json").read_text())
    with pytest.raises(DataError, match="there is no folder .*pets"):
        run(replace(SearchConfig.from_json(going_on), children=3))


def test_labels_of_other_data(flat, tmp_path):
    with pytest.raises(DataError, match="has other classes than child.labels says"):
        run(config(tmp_path / "run", flat, pictures=40, validation=24, labels=("a", "b", "c")))


def test_rerank_with_the_same_data_alone(again, mine):
    result = rerank(again, 2, epochs=2, data=str(mine))
    assert {entry["child"] for entry in result.children} == {0, 1}
    assert all(len(entry["longer"]["losses"]) == 2 for entry in result.children)
    (mine / "dog" / "000.png").unlink()
    with pytest.raises(JournalError, match="another data set"):
        rerank(again, 2, epochs=1, data=str(mine))


def test_rerank_uses_as_many_threads_as_the_search(again):
    class Counting(ToyChild):
        def __call__(self, architecture, seed):
            return {"accuracy": float(torch.get_num_threads())}

    torch.set_num_threads(2)
    try:
        result = rerank(again, 2, epochs=1, child=Counting())
    finally:
        torch.set_num_threads(1)
    assert {entry["accuracy"] for entry in result.children} == {1.0}


# From a config for CIFAR-10


def test_class_folders_in_the_place_of_cifar10(flat, split):
    changes, (task, fewer) = for_own_data(preset("quick"), {"child.data": str(flat), "children": 3})
    numbers = {"child.pictures": 36, "child.validation": 36}
    assert changes == {"child.data": str(flat), "children": 3, "child.task": "folders", **numbers}
    assert task == f"{flat} has pictures in 3 class folders: the task is folders"
    assert fewer.endswith("asked for: pictures 36 in place of 2,000 and validation 36 in place of 2,000")
    explicit = {"child.data": str(split), "child.pictures": 12}
    assert for_own_data(preset("nasnet"), explicit)[0]["child.pictures"] == 12
    assert for_own_data(preset("nasnet"), explicit)[0]["child.validation"] == 16
    explicit = {"child.data": str(flat), "child.task": "folders", "child.validation": 20}
    assert for_own_data(preset("quick"), explicit)[0]["child.pictures"] == 52


def test_what_stays_cifar10(tmp_path, flat):
    for name in ("cifar-10-batches-py", "cifar-10-python.tar.gz"):
        (tmp_path / name / name).mkdir(parents=True)
        for data in (tmp_path / name, tmp_path / name / name, tmp_path / "nowhere"):
            changes = {"child.data": str(data)}
            assert for_own_data(preset("quick"), changes) == (changes, [])
    for changes in ({}, {"child.data": str(flat), "child.task": "cifar10"}):
        assert for_own_data(preset("quick"), changes) == (changes, [])
    table = {"child.data": str(flat)}
    assert for_own_data(preset("tabular"), table) == (table, [])


# On the command line


@pytest.fixture
def done(run):
    """Runs a command that succeeds; gives its stdout and stderr."""

    def done(*arguments):
        code, out, err = run(*arguments)
        assert code == 0, err
        return out, err

    return done


SMALL = ["--searcher", "random", "--fleet", "inline", "--set", "space.blocks=1", "--set", "child.filters=4"]
SMALL += ["--set", "child.side=8", "--set", "child.recipe.batch_size=8"]


def test_from_pictures_to_predictions(tmp_path, monkeypatch, flat, done):
    monkeypatch.chdir(flat.parent)
    found, net = tmp_path / "found", tmp_path / "net"
    _, err = done("search", found, "--preset", "quick", "--data", "pets", "--children", 2, *SMALL)
    assert "pets has pictures in 3 class folders: the task is folders" in err and "36 in place of 2,000" in err
    monkeypatch.chdir(tmp_path)
    out, err = done("search", found, "--children", 3)  # from another folder, without saying any of it again
    assert "best of 3 children" in out and "class folders" not in err
    out, _ = done("transfer", found, "--stem", "cifar", "--size", 16, "-n", 1, "-p", 48, "-o", net)
    command = f"nasnet-zoo train -m {net} --data {flat} -o {net}-trained"
    assert out.splitlines()[-1] == f"next: {command}"
    assert nasnet_zoo.load(net).labels == ("cat", "dog", "fox")
    options = ["--epochs", 1, "--recipe", "cifar-quick", "--set", "sizes=[]", "--set", "batch_size=8", "--workers", 0]
    out, _ = done(*command.split()[1:], *options)
    assert "the classifier is new" not in out
    assert nasnet_zoo.load(f"{net}-trained").labels == ("cat", "dog", "fox")
    out, _ = done("export", f"{net}-trained", "-o", tmp_path / "graph")
    out, _ = done("predict", flat / "cat" / "000.png", "-m", tmp_path / "graph")
    assert "cat" in out and "dog" in out


def test_several_searches_on_pictures_of_one_s_own(tmp_path, flat, done):
    options = ["--preset", "quick", "--data", flat, "--children", 2, "--seeds", 2, *SMALL]
    out, err = done("search", tmp_path / "found", *options)
    assert out.splitlines()[1].split()[:3] == ["random", "search", "2"]
    assert f"search 2 of 2: random search, seed 1, in {tmp_path / 'found-seed1'}" in err
    assert done("search", tmp_path / "found", "--seeds", 2)[0] == out  # and it is found finished


def test_transfer_takes_the_classes_of_the_data(searched, tmp_path, flat, done):
    size = ["--stem", "cifar", "--size", 16, "-n", 1, "-p", 48]
    for source in (searched, searched / "best.json"):
        network = json.loads(done("transfer", source, *size, "--json")[0])
        assert (network["num_classes"], network["labels"]) == (3, ["cat", "dog", "fox"])
    network = json.loads(done("transfer", searched, *size, "--classes", 7, "--json")[0])
    assert (network["num_classes"], network["labels"]) == (7, None)
    assert "--data DIR" in done("transfer", searched, *size, "--classes", 7, "-o", tmp_path / "seven")[0]


def test_transfer_reranks_on_the_data(again, tmp_path, flat, done):
    options = ["--stem", "cifar", "--size", 16, "-n", 1, "-p", 48, "--rerank", 2, "--epochs", 1]
    out, _ = done("transfer", again, *options, "-o", tmp_path / "net")
    assert (
        out.splitlines()[-1] == f"next: nasnet-zoo train -m {tmp_path / 'net'} --data {flat} -o {tmp_path}/net-trained"
    )
    assert json.loads((again / "reranked-best.json").read_text())["labels"] == ["cat", "dog", "fox"]
    assert nasnet_zoo.load(tmp_path / "net").labels == ("cat", "dog", "fox")


def test_a_searchs_own_network_is_trained_on_its_data(searched, tmp_path, flat, done):
    options = ["--epochs", 1, "--recipe", "cifar-quick", "--set", "sizes=[]", "--set", "batch_size=8", "--workers", 0]
    done("train", "-m", searched, "-o", tmp_path / "trained", *options)
    assert json.loads((tmp_path / "trained" / "training.json").read_text())["data"] == str(flat)
    network = nasnet_zoo.load(tmp_path / "trained")
    assert network.labels == ("cat", "dog", "fox") and network.config.preprocess.size == (8, 8)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--set", "child.pictures=500"], "pictures 500 and validation"),
        (["--set", "child.validation=500"], "validation 500 are more"),
        (["--set", "child.pictures=many"], "child.pictures: Input should be a valid integer"),
        (["--set", "child.data=5"], "child.data: Input should be a valid string"),
        (["--set", "child.side=4"], "side 4 is not between 8 and 256"),
        (["--set", "child.recipe.batch_size=50"], "36 pictures are fewer than a batch of 50"),
    ],
)
def test_what_the_command_refuses(tmp_path, flat, run, options, said):
    code, _, err = run("search", tmp_path / "run", "--preset", "quick", "--data", flat, *SMALL, *options)
    assert code == 2 and said in err.splitlines()[-1]
    assert not (tmp_path / "run").exists()


def test_a_best_json_with_odd_labels(again, run):
    best = json.loads((again / "best.json").read_text())
    for changes in ({"labels": "cats"}, {"labels": []}, {"labels": ["cat", 1]}, {"data": 3}):
        (again / "best.json").write_text(json.dumps(best | changes))
        code, _, err = run("transfer", again, "--params", "1M")
        assert code == 2 and "data must be a folder's path, and labels a list of class names" in err


# Real pictures


def test_a_search_on_a_part_of_tiny_imagenet(shared, tmp_path):
    archive = shared / "data" / "tiny-imagenet-50" / "tiny-imagenet-50.zip"
    if not archive.is_file():
        pytest.skip(f"Tiny ImageNet is not in {archive.parent}")
    with zipfile.ZipFile(archive) as file:
        names = [name for name in file.namelist() if name.endswith(".JPEG")]
        classes = sorted({name.split("/")[1] for name in names})[:3]
        for label in classes:
            for part, count in (("train", 60), ("val", 20)):
                file.extractall(tmp_path / "data", [n for n in names if n.startswith(f"{part}/{label}/")][:count])
    recipe = replace(SHORT, epochs=10)
    result = run(config(tmp_path / "run", tmp_path / "data", 1, side=16, filters=8, recipe=recipe))
    child = json.loads((tmp_path / "run" / "config.json").read_text())["child"]
    assert child["labels"] == ["goldfish", "European fire salamander", "bullfrog"]
    assert (child["pictures"], child["validation"]) == (180, 60)
    assert result.best.metrics["accuracy"] > 0.5  # chance is a third, and this 2.7 deviations above it
