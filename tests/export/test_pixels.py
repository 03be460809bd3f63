"""Graphs that take pixels: the numbers of the prepared picture, and numpy's best classes."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image
from random_networks import difference, plain_session, random_network

from nasnet_zoo.arch.genotypes import GENOTYPES
from nasnet_zoo.arch.preprocess import Preprocess
from nasnet_zoo.data.images import prepare
from nasnet_zoo.data.labels import example_pictures
from nasnet_zoo.export import Session, to_onnx
from nasnet_zoo.export.folder import GRAPH, find_export

IMAGES = example_pictures("cifar10")


@pytest.fixture(autouse=True)
def few_pictures(monkeypatch):
    """To verify on, for speed."""
    monkeypatch.setattr("nasnet_zoo.export.verify.MOST", 4)


def with_preprocess(preprocess, in_channels=3):
    network = random_network(GENOTYPES["PNASNet-5"], stages=(1,), in_channels=in_channels, num_classes=10)
    network.config = dataclasses.replace(network.config, preprocess=preprocess, labels="cifar10")
    return network


SIZE = (17, 24)
PREPROCESSES = {
    "mean and std": (Preprocess(SIZE, (0.5, 0.4, 0.3), (0.3, 0.2, 0.25)), 3),
    "one for all": (Preprocess(SIZE, (0.5,), (0.25,), crop=0.875), 3),
    "grey": (Preprocess(SIZE, (0.5, 0.4, 0.3), (0.3, 0.2, 0.25)), 1),
    "per image": (Preprocess(SIZE, per_image=True), 3),
    "per image, grey": (Preprocess(SIZE, (0.5,), (0.5,), per_image=True), 1),
    "cropped, not antialiased": (Preprocess(SIZE, crop=0.8, resize="shortest", antialias=False), 3),
}


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("case", PREPROCESSES)
def test_pixels_give_what_the_prepared_picture_gives(case, precision, tmp_path):
    preprocess, channels = PREPROCESSES[case]
    network = with_preprocess(preprocess, channels)
    report = to_onnx(network, tmp_path / "pixels", precision, pixels=True)
    to_onnx(network, tmp_path / "image", precision)
    whole = dataclasses.replace(preprocess, crop=1.0, resize="squash")  # the pixels have the size already
    shape = (3, *SIZE, channels)
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    pixels[1:] //= np.array([3, 255], np.uint8).reshape(2, 1, 1, 1)  # a dark picture, and nearly a black one
    image = np.stack([prepare(picture.squeeze(), whole, channels) for picture in pixels])
    session, plain = (Session(tmp_path / name, ["cpu"]) for name in ("pixels", "image"))
    assert session.metadata.pixels and report.pixels and not plain.metadata.pixels
    got, expected = session.run(pixels), plain.run(image)
    if not preprocess.per_image:
        np.testing.assert_array_equal(got, expected)
    np.testing.assert_allclose(got, expected, atol=(1e-5 if precision == "fp32" else 5e-3) * np.abs(expected).max())


@pytest.mark.parametrize("black", [0, 255])
def test_a_picture_of_one_colour_is_not_divided_by_nothing(black, tmp_path):
    network = with_preprocess(Preprocess(SIZE, per_image=True))
    to_onnx(network, tmp_path / "out", pixels=True)
    logits = Session(tmp_path / "out", ["cpu"]).run(np.full((1, *SIZE, 3), black, np.uint8))
    expected = network(torch.zeros(1, 3, *SIZE)).detach().numpy()
    np.testing.assert_allclose(logits, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("top", [1, 3, 100])
def test_the_best_classes_are_numpys(top, tmp_path):
    network = with_preprocess(Preprocess(SIZE))
    to_onnx(network, tmp_path / "out", pixels=True, top=top)
    pixels = np.random.default_rng(0).integers(0, 256, (4, *SIZE, 3), dtype=np.uint8)
    session = plain_session((tmp_path / "out" / GRAPH).read_bytes())
    logits, probabilities, classes = session.run(["logits", "probabilities", "classes"], {"pixels": pixels})
    count = min(top, 10)
    assert find_export(tmp_path / "out").metadata.top == count
    assert classes.dtype == np.int64 and probabilities.dtype == np.float32
    np.testing.assert_array_equal(classes, np.argsort(-logits, 1, kind="stable")[:, :count])
    exponentials = np.exp(logits - logits.max(1, keepdims=True))
    softmax = exponentials / exponentials.sum(1, keepdims=True)
    np.testing.assert_allclose(probabilities, np.take_along_axis(softmax, classes, 1), rtol=1e-5)


def test_int8_takes_pixels_too(tmp_path):
    tiny = random_network(GENOTYPES["PNASNet-5"], stages=(1,))
    report = to_onnx(tiny, tmp_path / "out", "int8", pixels=True, images=IMAGES)
    (check,) = [check for check in report.checks if check.provider == "cpu"]
    pixels = np.stack([np.asarray(Image.open(path)) for path in IMAGES[: check.pictures]])
    logits = Session(tmp_path / "out", ["cpu"]).run(pixels)
    images = torch.stack([tiny.transform(path) for path in IMAGES[: check.pictures]])
    assert difference(logits, tiny, images) == pytest.approx(check.relative_error, rel=1e-3)
    assert check.relative_error < 0.1
