"""Pictures read by workers: which come when, what is done to them, and that nobody's random numbers matter to it."""

import dataclasses
import math
import os
import random
from io import BytesIO

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from scipy.stats import kstest

import nasnet_zoo
from nasnet_zoo.arch.preprocess import Preprocess
from nasnet_zoo.data.images import open_image
from nasnet_zoo.training import distributed
from nasnet_zoo.training.recipe import Recipe
from nasnet_zoo.training.stream import ASPECTS, Key, Stream, inception_crop, trained
from nasnet_zoo.training.tasks import classify
from nasnet_zoo.training.tasks.classify import Classify

COUNT, BATCH, SIDE = 22, 4, 8
PREPROCESS = Preprocess((SIDE, SIDE), antialias=False)
PLAIN = Recipe(3, batch_size=BATCH, pad=0, flip=False)
FULL = dataclasses.replace(
    PLAIN, crop="inception", flip=True, brightness=0.2, saturation=0.5, rand_augment=9, cutout=3, erase=0.5
)
WHOLE = dataclasses.replace(PLAIN, crop="inception", crop_area=1.0)  # of a square picture, all of it


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Files of noise; a picture's class is its number, which tells them apart."""
    folder, generator = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    made = []
    for label in range(COUNT):
        height, width = generator.integers(6, 20, 2)
        noise = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{label}.png")
        made.append((str(folder / f"{label}.png"), label))
    return made


def epoch(pictures, number=0, seed=0, start=0, recipe=FULL, preprocess=PREPROCESS, **options):
    """An epoch's batches, from a step on."""
    task = Classify(pictures, recipe, preprocess, **{"workers": 0, **options})
    batches = task.batches(number, torch.Generator().manual_seed(seed))
    if start:
        batches.skip(start)
    return list(batches)


def assert_same(batches, expected):
    assert len(batches) == len(expected) > 0
    for ours, theirs in zip(batches, expected):
        assert all(torch.equal(one, other) for one, other in zip(ours, theirs))


def labels_of(batches):
    return [label for _, labels in batches for label in labels.tolist()]


def seeds(picture, recipe, count=300, preprocess=PREPROCESS, channels=3, side=SIDE):
    """A picture as a training sees it with so many seeds: uint8 (count, channels, side, side)."""
    made = Stream([(picture, 0)], recipe, preprocess, channels, 0).samples
    return torch.stack([made[Key(0, seed, side)][0] for seed in range(count)])


# The order


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")  # on a machine with fewer cores
@pytest.mark.parametrize("workers", [1, 3])
def test_any_number_of_workers_makes_the_same_epoch(pictures, workers):
    assert_same(epoch(pictures, workers=workers), epoch(pictures))


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_that_stay_make_the_same_second_epoch(pictures, workers):
    task = Classify(pictures, FULL, PREPROCESS, workers=workers)
    for seed in range(2):
        assert_same(list(task.batches(seed, torch.Generator().manual_seed(seed))), epoch(pictures, seed=seed))


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_begins_at_any_step(pictures, workers):
    whole = epoch(pictures)
    for start in range(len(whole)):
        assert_same(epoch(pictures, start=start, workers=workers if start in (1, 4) else 0), whole[start:])
    assert epoch(pictures, start=len(whole)) == []


def test_an_epoch_that_is_given_up_leaves_nothing_to_the_next(pictures):
    """Its batches are on their way from the workers when the next begins."""
    task = Classify(pictures, FULL, PREPROCESS, workers=2)
    next(task.batches(0, torch.Generator().manual_seed(5)))
    assert_same(list(task.batches(0, torch.Generator().manual_seed(0))), epoch(pictures))


def test_a_seed_is_an_epoch(pictures):
    first, again, other = (epoch(pictures, seed=seed) for seed in (7, 7, 8))
    assert_same(first, again)
    assert labels_of(first) != labels_of(other)
    shown = dict(zip(labels_of(first), torch.cat([images for images, _ in first])))
    others = dict(zip(labels_of(other), torch.cat([images for images, _ in other])))
    same = [torch.equal(shown[label], others[label]) for label in shown.keys() & others.keys()]
    assert len(same) >= COUNT - 4 and not any(same)  # they are cut out elsewhere too


def test_every_picture_at_most_once(pictures):
    labels = labels_of(epoch(pictures, workers=2))
    assert len(labels) == len({*labels}) == COUNT // BATCH * BATCH and {*labels} <= {*range(COUNT)}


def test_shares_of_two_processes_are_the_batches_of_one(pictures, monkeypatch):
    whole, parts = epoch(pictures), []
    monkeypatch.setattr(distributed, "world", lambda: 2)
    for rank in range(2):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        parts.append(epoch(pictures, workers=rank))
    assert all(len(images) == BATCH // 2 for part in parts for images, _ in part)
    together = [tuple(torch.cat(pair) for pair in zip(*batches)) for batches in zip(*parts)]
    assert_same(together, whole)


def test_shares_of_two_processes_measure_every_picture_once(pictures, monkeypatch):
    network = nasnet_zoo.create("nasnet-a-cifar", filters=4, stem_channels=8, stages=(1, 1, 1), num_classes=COUNT)
    stream = Stream(pictures, PLAIN, network.config.preprocess, 3, 0)
    whole, parts = classify.stream_hits(network, stream), []
    monkeypatch.setattr(classify, "world", lambda: 2)
    for rank in range(2):
        monkeypatch.setattr(classify, "rank", lambda rank=rank: rank)
        parts.append(classify.stream_hits(network, stream))
    assert whole[2] == COUNT and 0 < whole[1] < COUNT and torch.equal(parts[0] + parts[1], whole)


@pytest.mark.parametrize("workers", [0, 2])
def test_the_trainings_random_numbers_stay(pictures, workers):
    before = torch.get_rng_state(), random.getstate(), str(np.random.get_state())
    task = Classify(pictures, FULL, PREPROCESS, workers=workers)
    generator = torch.Generator().manual_seed(0)
    state = generator.get_state()
    for _ in task.batches(0, generator):
        assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1] and str(np.random.get_state()) == before[2]
    assert torch.equal(generator.get_state(), state)


@pytest.mark.gpu
def test_the_trainings_random_numbers_on_a_gpu_stay(pictures):
    torch.cuda.manual_seed(3)
    before = torch.cuda.get_rng_state()
    epoch(pictures)
    assert torch.equal(torch.cuda.get_rng_state(), before)


def test_where_the_callers_random_numbers_stand_does_not_matter(pictures):
    torch.manual_seed(1)
    expected = epoch(pictures)
    torch.manual_seed(2)
    assert_same(epoch(pictures), expected)


# Inception's crops


def test_inception_crops_are_uniform_in_area_aspect_and_place():
    least, side = 0.05, 2000
    crops = [inception_crop(side, side, least) for _ in range(4000)]
    for left, top, width, height in crops:
        assert 0 <= left <= side - width and 0 <= top <= side - height
        assert least - 0.001 <= width * height / side**2 <= 1
        assert ASPECTS[0] - 0.004 <= width / height <= ASPECTS[1] + 0.004
    # Up to three quarters of a square, every aspect fits. Above, those that do are more often square.
    fit = [crop for crop in crops if crop[2] * crop[3] <= 0.75 * side**2]
    assert 0.8 < len(fit) / len(crops) < 0.9
    span = 2 * math.log(ASPECTS[1])
    drawn = {
        "area": [(width * height / side**2 - least) / (0.75 - least) for _, _, width, height in fit],
        "aspect": [math.log(width / height) / span + 0.5 for _, _, width, height in fit],
        "left": [left / (side - width) for left, _, width, _ in fit],
        "top": [top / (side - height) for _, top, _, height in fit],
    }
    for name, values in drawn.items():
        assert kstest(values, "uniform").pvalue > 0.01, name


@pytest.mark.parametrize(
    "size, crop",
    [
        ((1, 1), (0, 0, 1, 1)),
        ((1000, 1), (499, 0, 1, 1)),
        ((1, 1000), (0, 499, 1, 1)),
        ((3000, 30), (1480, 0, 40, 30)),
        ((30, 3001), (0, 1480, 30, 40)),
    ],
)
def test_where_no_crop_fits_it_is_the_middle(size, crop):
    assert {inception_crop(*size, least=0.5) for _ in range(20)} == {crop}


# What is done to a picture


def saved(image, kind, **options):
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def odd_pictures():
    noise = np.random.default_rng(1).integers(0, 256, (24, 30, 4), dtype=np.uint8)
    rgb = Image.fromarray(noise[..., :3])
    turned = Image.Exif()
    turned[0x0112] = 6
    return {
        "one-pixel.png": saved(rgb.crop((0, 0, 1, 1)), "PNG"),
        "grey.png": saved(rgb.convert("L"), "PNG"),
        "rgba.png": saved(Image.fromarray(noise), "PNG"),
        "grey-alpha.png": saved(Image.fromarray(noise).convert("LA"), "PNG"),
        "16-bit.png": saved(Image.fromarray(noise[..., 0].astype(np.uint16) * 257), "PNG"),
        "cmyk.jpg": saved(rgb.convert("CMYK"), "JPEG"),
        "turned.jpg": saved(rgb, "JPEG", exif=turned),
        "palette.gif": saved(rgb.convert("P"), "GIF"),
        "bits.png": saved(rgb.convert("1"), "PNG"),
        "wide.png": saved(rgb.resize((900, 2)), "PNG"),
        "tall.png": saved(rgb.resize((1, 900)), "PNG"),
    }


@pytest.mark.parametrize("crop", ["inception", "pad"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", odd_pictures())
def test_a_picture_of_any_kind_is_its_pixels(tmp_path, name, channels, crop):
    (tmp_path / name).write_bytes(odd_pictures()[name])
    image = np.asarray(open_image(str(tmp_path / name)))
    recipe = dataclasses.replace(FULL, crop=crop, pad=2)
    out, expected = (seeds(source, recipe, 5, channels=channels) for source in (str(tmp_path / name), image))
    assert out.shape == (5, channels, SIDE, SIDE) and torch.equal(out, expected)


def test_a_picture_is_turned_as_its_exif_says(tmp_path):
    red_over_blue = np.zeros((SIDE, SIDE, 3), np.uint8)
    red_over_blue[: SIDE // 2, :, 0] = red_over_blue[SIDE // 2 :, :, 2] = 255
    turned = Image.Exif()
    turned[0x0112] = 6  # to be turned clockwise: what is stored above is seen at the right
    (tmp_path / "a.png").write_bytes(saved(Image.fromarray(red_over_blue), "PNG", exif=turned))
    (seen,) = seeds(str(tmp_path / "a.png"), WHOLE, 1)
    assert (seen[0, :, SIDE // 2 :] == 255).all() and (seen[2, :, : SIDE // 2] == 255).all()


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("antialias", [False, True])
def test_a_crop_is_scaled_as_for_an_evaluation(interpolation, antialias):
    """To a grey level: bytes are rounded once more between rows and columns. Mild noise, which needs no cutting off."""
    noise = np.random.default_rng(0).integers(64, 192, (31, 31, 3), dtype=np.uint8)
    preprocess = Preprocess((12, 12), (0.0,), (1.0,), interpolation=interpolation, antialias=antialias)
    (seen,) = seeds(noise, WHOLE, 1, preprocess, side=12)
    evaluated = nasnet_zoo.data.images.prepare(noise, preprocess) * 255
    assert np.abs(seen.numpy() - evaluated).max() <= 1.01


def windows(padded, flips=(False, True)):
    edge = padded.shape[1] - SIDE + 1
    cut = [padded[:, top : top + SIDE, left : left + SIDE] for top in range(edge) for left in range(edge)]
    return torch.stack([window.flip(2) if flip else window for window in cut for flip in flips])


@pytest.mark.parametrize("enlarge", [False, True])
def test_a_padded_or_enlarged_picture_is_cropped_everywhere_and_flipped(enlarge):
    noise = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    picture = torch.from_numpy(noise).permute(2, 0, 1)
    recipe = dataclasses.replace(PLAIN, pad=1, enlarge=enlarge, flip=True, crop="pad")
    larger = F.interpolate(picture[None].float(), (SIDE + 2, SIDE + 2), mode="bilinear")[0]
    expected = windows(larger if enlarge else F.pad(picture, (1, 1, 1, 1)).float())
    distances = (seeds(noise, recipe).float().unsqueeze(1) - expected).abs().amax((2, 3, 4))
    nearest = distances.min(1)
    assert nearest.values.max() <= (1 if enlarge else 0)  # bytes are interpolated to one grey level
    counts = nearest.indices.bincount(minlength=18)
    assert counts.min() >= 5 and counts.max() <= 40  # 300 in 18 places


def test_half_of_the_pictures_are_flipped():
    noise = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    out, picture = seeds(noise, dataclasses.replace(WHOLE, flip=True)), torch.from_numpy(noise).permute(2, 0, 1)
    straight, flipped = ((out == kind).flatten(1).all(1) for kind in (picture, picture.flip(2)))
    assert (straight ^ flipped).all() and 120 <= flipped.sum() <= 180
    assert (seeds(noise, WHOLE) == picture).all()


def test_early_epochs_have_smaller_pictures(pictures):
    recipe = dataclasses.replace(FULL, sizes=((0, 4), (1, 6), (2, SIDE)))
    for number, side in enumerate((4, 6, SIDE)):
        assert {tuple(images.shape) for images, _ in epoch(pictures, number, recipe=recipe)} == {(BATCH, 3, side, side)}


@pytest.mark.parametrize("side", [4, 8])
def test_a_cutout_is_as_large_a_part_of_a_smaller_picture(side):
    """Its size is in pixels of the full picture."""
    white = [(np.full((8, 8, 3), 255, np.uint8), 0)] * 64
    recipe = dataclasses.replace(WHOLE, batch_size=64, cutout=4, sizes=((0, side),))
    ((images, _),) = epoch(white, recipe=recipe)
    blank = images[:, 0] == 0
    assert blank.any(2).sum(1).max() == blank.any(1).sum(1).max() == side // 2


def test_pictures_that_are_not_square_are_full_size_or_square(pictures):
    preprocess = dataclasses.replace(PREPROCESS, size=(8, 12))
    recipe = dataclasses.replace(FULL, sizes=((1, 6),))
    assert epoch(pictures, 0, recipe=recipe, preprocess=preprocess)[0][0].shape == (BATCH, 3, 8, 12)
    assert epoch(pictures, 1, recipe=recipe, preprocess=preprocess)[0][0].shape == (BATCH, 3, 6, 6)


def bands():
    """A picture of three bands: a grey that shows the brightness alone, a colour that shows the saturation, and a
    red that is cut off by either, so that their order shows."""
    picture = np.zeros((SIDE, SIDE, 3), np.uint8)
    picture[:, :2], picture[:, 2:4], picture[:, 4:] = (128, 128, 128), (190, 128, 66), (255, 0, 0)
    return picture


def test_colours_are_shifted_and_strengthened_within_bounds_in_either_order():
    recipe = dataclasses.replace(WHOLE, brightness=0.1, saturation=0.4)
    out = seeds(bands(), recipe, 400).float()
    grey, colour, red = (out[:, :, 0, column] for column in (0, 2, 5))
    shift = grey[:, 0] - 128
    assert (grey == grey[:, :1]).all()
    assert shift.abs().max() <= 26 and kstest((shift / 51 + 0.5).tolist(), "uniform").pvalue > 0.01
    factor = (colour[:, 0] - colour[:, 2]) / (190 - 66)
    assert 0.59 <= factor.min() < 0.65 and 1.35 < factor.max() <= 1.41
    assert kstest(((factor - 0.6) / 0.8).tolist(), "uniform").pvalue > 0.01

    def saturated(value):
        level = (value * torch.tensor([0.299, 0.587, 0.114])).sum(1, keepdim=True)
        return (level + factor[:, None] * (value - level)).clamp(0, 255)

    plain = torch.tensor([[255.0, 0.0, 0.0]]).expand(400, 3)
    shifted_first = saturated((plain + shift[:, None]).clamp(0, 255))
    shifted_last = (saturated(plain) + shift[:, None]).clamp(0, 255)
    first, last = ((red - kind).abs().amax(1) <= 2.5 for kind in (shifted_first, shifted_last))
    assert (first | last).all()  # but for what rounding leaves open of the shift and the factor
    assert (first & ~last).sum() > 40 and (last & ~first).sum() > 40


def test_brightness_alone_and_saturation_alone():
    out = seeds(bands(), dataclasses.replace(WHOLE, brightness=0.1), 50)
    assert len(out[:, 0, 0, 0].unique()) > 10
    assert torch.equal(out[:, 0, 0, 2] - out[:, 2, 0, 2], torch.full((50,), 190 - 66, dtype=torch.uint8))
    out = seeds(bands(), dataclasses.replace(WHOLE, saturation=0.4), 50)
    assert (out[:, :, :, :2] == 128).all() and len(out[:, 0, 0, 2].unique()) > 10


def test_rand_augment_changes_pictures_more_with_its_magnitude():
    noise = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    plain = torch.from_numpy(noise).permute(2, 0, 1)
    changed = []
    for magnitude in (1, 9, 30):
        out = seeds(noise, dataclasses.replace(WHOLE, rand_augment=magnitude), 60)
        assert torch.equal(out, seeds(noise, dataclasses.replace(WHOLE, rand_augment=magnitude), 60))
        changed.append((out.float() - plain).abs().mean())
    assert 0 < changed[0] < changed[1] < changed[2]


def test_a_grey_network_gets_grey_pictures_normalised_as_for_an_evaluation(tmp_path):
    preprocess = dataclasses.replace(PREPROCESS, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    flat = [(np.full((9, 9, 3), 90, np.uint8), 0)] * BATCH
    evaluated = nasnet_zoo.data.images.prepare(flat[0][0], preprocess, 1)
    ((images, _),) = epoch(flat, recipe=WHOLE, preprocess=preprocess, channels=1)
    assert images.shape == (BATCH, 1, SIDE, SIDE)
    torch.testing.assert_close(images, torch.from_numpy(evaluated).expand_as(images), rtol=0, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 3])
def test_each_picture_is_whitened_by_itself(pictures, channels):
    preprocess = dataclasses.replace(PREPROCESS, per_image=True)
    recipe = dataclasses.replace(FULL, cutout=0, erase=0.0, rand_augment=0)
    images = torch.cat(
        [images for images, _ in epoch(pictures, recipe=recipe, preprocess=preprocess, channels=channels)]
    )
    assert images.mean((1, 2, 3)).abs().max() < 1e-5
    assert (images.std((1, 2, 3), correction=0) - 1).abs().max() < 1e-4
    flat = [(np.full((9, 9, 3), 90, np.uint8), 0)] * BATCH
    ((images, _),) = epoch(flat, recipe=WHOLE, preprocess=preprocess, channels=channels)
    assert images.abs().max() < 1e-4


def test_trained_takes_the_global_random_numbers():
    noise = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    states = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        states.append(trained(noise, FULL, PREPROCESS, 3, SIDE))
    assert torch.equal(states[0], states[1]) and not torch.equal(states[0], states[2])


# Sources


def test_arrays_are_the_files_that_hold_them(pictures):
    arrays = [(np.asarray(Image.open(path)), label) for path, label in pictures]  # of different sizes
    for workers in (0, 2):
        assert_same(epoch(arrays, workers=workers), epoch(pictures))


def test_names_of_any_kind(tmp_path, pictures):
    names = [b"with space.png", "ñandú ☃ 狐.png".encode(), b"caf\xe9 \xff.png", b"a\nb.png", b"%s{0}.png"]
    renamed = []
    for name, (path, label) in zip(names, pictures):
        target = os.path.join(str(tmp_path), os.fsdecode(name))
        os.symlink(path, target)
        renamed.append((target, label))
    recipe = dataclasses.replace(FULL, batch_size=len(names))
    assert_same(epoch(renamed, recipe=recipe, workers=1), epoch(pictures[: len(names)], recipe=recipe))


def test_paths_may_be_of_any_kind(pictures, tmp_path):
    from pathlib import Path

    assert_same(epoch([(Path(path), label) for path, label in pictures]), epoch(pictures))


@pytest.mark.parametrize("workers", [0, 2])
def test_an_evaluation_sees_what_the_network_transforms(pictures, workers):
    network = nasnet_zoo.create("nasnet-a-cifar", filters=4, stem_channels=8, stages=(1, 1, 1), num_classes=COUNT)
    stream = Stream(pictures, FULL, network.config.preprocess, 3, workers)
    order = [[Key(3), Key(0)], [Key(21)]]
    (first, labels), (last, _) = stream.batches(order, torch.device("cpu"))
    assert labels.tolist() == [3, 0] and first.dtype == torch.float32
    expected = [network.transform(pictures[index][0]) for index in (3, 0, 21)]
    assert torch.equal(torch.cat([first, last]), torch.stack(expected))
