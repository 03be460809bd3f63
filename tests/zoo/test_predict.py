import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

import nasnet_zoo
from nasnet_zoo.arch.cells import CellScale
from nasnet_zoo.arch.config import NetworkConfig
from nasnet_zoo.arch.genotypes import GENOTYPES
from nasnet_zoo.arch.preprocess import Preprocess
from nasnet_zoo.data.classify import predictions
from nasnet_zoo.data.labels import label_set
from nasnet_zoo.data.prediction import Prediction
from nasnet_zoo.errors import ConfigError, ImageError, SessionError
from nasnet_zoo.networks.build import build

CONFIG = NetworkConfig(
    GENOTYPES["NASNet-A"],
    CellScale("cifar", 12, 4, (1, 1, 1)),
    Preprocess((32, 32)),
    10,
    labels="cifar10",
)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    network = build(CONFIG).eval()
    torch.nn.init.normal_(network.classifier.weight, std=0.005)  # no probability rounds to 0 or 1
    return network


def predict(network, images, **options):
    return network.predict(images, **options)


def pictures(n):
    return list(np.random.default_rng(0).integers(0, 256, (n, 20, 30, 3), dtype=np.uint8))


def close(a, b):
    return [p.index for p in a] == [p.index for p in b] and np.allclose(
        [p.probability for p in a], [p.probability for p in b], atol=1e-5
    )


def test_one_image_gives_the_most_probable_classes_first(network):
    (image,) = pictures(1)
    with torch.inference_mode():
        probabilities = network(network.transform(image)[None]).softmax(1)[0]
    order = probabilities.argsort(descending=True).tolist()
    got = predict(network, image, k=3)
    assert [p.index for p in got] == order[:3]
    assert [p.label for p in got] == [label_set("cifar10")[i] for i in order[:3]]
    np.testing.assert_allclose([p.probability for p in got], probabilities[order[:3]], rtol=1e-5)


def test_path_pil_and_array_agree(network, tmp_path):
    (array,) = pictures(1)
    Image.fromarray(array).save(tmp_path / "a.png")
    expected = predict(network, array)
    assert len(expected) == 5
    for image in (tmp_path / "a.png", str(tmp_path / "a.png"), Image.fromarray(array)):
        assert predict(network, image) == expected
    assert network.predict(array) == expected


@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_a_list_gives_a_list_per_image_whatever_the_batches(network, batch_size):
    images = pictures(5)
    got = predict(network, images, batch_size=batch_size)
    assert len(got) == 5 and all(close(many, predict(network, image)) for many, image in zip(got, images))
    assert close(predict(network, images[:1], batch_size=batch_size)[0], got[0])
    assert close(predict(network, tuple(images), batch_size=batch_size)[4], got[4])


def test_an_empty_list_gives_an_empty_list(network):
    assert predict(network, []) == []


def test_a_large_k_gives_all_classes(network):
    got = predict(network, pictures(1)[0], k=1000)
    assert sorted(p.index for p in got) == list(range(10))
    assert sum(p.probability for p in got) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("options", [{"k": 0}, {"batch_size": 0}])
def test_k_and_batch_size_start_at_one(network, options):
    with pytest.raises(ConfigError, match="at least 1"):
        predict(network, pictures(1), **options)


def test_one_pixel_is_a_picture(network):
    (got,) = predict(network, [np.full((1, 1, 3), 200, np.uint8)])
    (again,) = predict(network, [np.full((20, 30, 3), 200, np.uint8)])
    assert close(got, again)


def test_an_undecodable_image_is_named(network, tmp_path):
    path = tmp_path / "text.png"
    path.write_text("not a picture")
    with pytest.raises(ImageError, match=r"^image 2 of 3: cannot read .*text\.png"):
        predict(network, [*pictures(1), path, *pictures(1)])
    with pytest.raises(ImageError, match=r"^cannot read .*text\.png"):
        predict(network, path)


@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_an_image_that_cannot_be_used_leaves_the_others_answered(network, tmp_path, batch_size):
    (tmp_path / "text.png").write_text("not a picture")
    first, second, third = pictures(3)
    images = [tmp_path / "text.png", first, second, tmp_path / "none.png", np.zeros((2, 2)), third]
    got = predict(network, images, batch_size=batch_size, errors="return")
    assert [isinstance(each, ImageError) for each in got] == [True, False, False, True, True, False]
    assert all(close(got[i], predict(network, images[i])) for i in (1, 2, 5))
    assert str(got[0]).startswith("cannot read ") and str(got[3]).startswith("cannot open ") and "\n" not in str(got[4])
    assert isinstance(predict(network, tmp_path / "none.png", errors="return"), ImageError)
    assert [type(each) for each in predict(network, images[3:5], errors="return")] == [ImageError, ImageError]


def test_how_errors_are_handled_is_one_of_two_words(network):
    with pytest.raises(ConfigError, match="errors is 'ignore', and has to be 'raise' or 'return'"):
        predict(network, pictures(1), errors="ignore")


def test_any_iterable_of_images_is_several(network, tmp_path):
    paths = []
    for i, array in enumerate(pictures(3)):
        paths.append(str(tmp_path / f"{i}.png"))
        Image.fromarray(array).save(paths[-1])
    expected = predict(network, paths)
    given = (tuple(paths), iter(paths), (path for path in paths), dict.fromkeys(paths).keys(), map(str, paths))
    for images in (*given, np.array(paths), np.array(paths, object)):
        assert predict(network, images) == expected
    with pytest.raises(ImageError, match="^image 2: cannot open"):
        predict(network, iter([paths[0], "nowhere.png"]))


def test_what_can_be_iterated_over_may_be_one_image(network, tmp_path):
    (array,) = pictures(1)
    Image.fromarray(array).save(tmp_path / "a.png")
    expected = predict(network, array)
    with (tmp_path / "a.png").open("rb") as file:
        for image in (file, (tmp_path / "a.png").read_bytes(), bytearray((tmp_path / "a.png").read_bytes())):
            assert predict(network, image) == expected
    for wrong in (torch.zeros(3, 32, 32), {"image": array}, 3, None):
        with pytest.raises(ImageError, match=f"^{type(wrong).__name__} is no kind of picture"):
            predict(network, wrong)


def test_a_generator_is_read_no_further_than_a_batch_ahead(network):
    taken = []

    def frames():
        for i, array in enumerate(pictures(9)):
            taken.append(i)
            yield array

    results = predictions(network, frames(), 5, 2)
    next(results)
    assert taken == [0, 1, 2, 3]
    assert len(list(results)) == 8


def test_one_open_image_may_be_there_twice(network, tmp_path):
    (array,) = pictures(1)
    Image.fromarray(array).save(tmp_path / "a.png")
    expected = predict(network, array)
    with Image.open(tmp_path / "a.png") as image, (tmp_path / "a.png").open("rb") as file:
        assert all(close(got, expected) for got in predict(network, [image] * 4 + [file] * 4))


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("can't allocate memory: you tried to allocate 9 bytes")])
def test_a_batch_larger_than_memory_is_one_sentence(network, monkeypatch, error):
    def full(array):
        raise error

    monkeypatch.setattr(network, "run", full)
    with pytest.raises(SessionError, match="a batch of 3 needs more memory than there is: give a smaller one"):
        predict(network, pictures(3))


def test_weights_that_were_never_trained_are_known(tmp_path):
    fresh = nasnet_zoo.create("nasnet-a-cifar", filters=4, stages=(1,))
    nasnet_zoo.save(fresh, tmp_path / "fresh")
    assert not fresh.trained and not nasnet_zoo.load(tmp_path / "fresh").trained
    shipped = nasnet_zoo.load("nasnet-a-cifar-small")
    assert shipped.trained
    shipped.reset_classifier(3)
    assert not shipped.trained
    optimizer = torch.optim.SGD(shipped.parameters(), 0.1)
    shipped(torch.randn(4, 3, 32, 32)).logsumexp(1).sum().backward()
    optimizer.step()
    assert shipped.trained
    shipped.classifier = torch.nn.Linear(shipped.num_features, 3, bias=False)
    assert shipped.trained  # nothing is known of it, and nothing said


def test_modes_and_statistics_are_left_as_they_were(network, tmp_path):
    network.train()
    next(m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)).eval()  # one frozen batch norm
    modes = [module.training for module in network.modules()]
    state = {name: value.clone() for name, value in network.state_dict().items()}
    try:
        trained = predict(network, pictures(2))
        assert [module.training for module in network.modules()] == modes
        with pytest.raises(ImageError):
            predict(network, tmp_path / "missing.png")
        assert [module.training for module in network.modules()] == modes
        assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    finally:
        network.eval()
    assert trained == predict(network, pictures(2))


def test_without_labels_there_is_none_and_the_dtype_is_the_networks():
    torch.manual_seed(0)
    network = build(dataclasses.replace(CONFIG, labels=None)).to(torch.bfloat16)
    got = predict(network, pictures(1)[0], k=1)
    assert len(got) == 1 and got[0].label is None and 0.1 <= got[0].probability <= 1


def test_a_network_that_takes_no_pictures_is_a_config_error():
    network = build(dataclasses.replace(CONFIG, in_channels=5))
    with pytest.raises(ConfigError, match="takes 5"):
        predict(network, pictures(1))


def test_a_prediction_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Prediction(0, None, 1.0).index = 1


@pytest.mark.parametrize("bias", [float("nan"), float("inf")])
def test_logits_that_are_no_numbers_are_no_prediction(bias):
    network = build(CONFIG).eval()
    with torch.no_grad():
        network.classifier.bias[3] = bias
    with pytest.raises(SessionError, match="the logits are no numbers: the weights are damaged"):
        network.predict(pictures(2))
