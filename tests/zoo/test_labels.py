"""Own labels: given, kept, and never shown where they do not fit."""

import dataclasses

import numpy as np
import pytest
import torch
from changed_networks import small_network
from torch import nn

import nasnet_zoo
from nasnet_zoo.data.labels import label_names, label_set, with_classes
from nasnet_zoo.data.prediction import ranked
from nasnet_zoo.errors import ConfigError
from nasnet_zoo.export import Session, to_onnx

PICTURE = np.zeros((40, 40, 3), np.uint8)
PETS = ("cat", "dög", "guinea pig")


def shown(network):
    """The label of each class, by its index, as predict shows it."""
    return [p.label for p in sorted(network.predict(PICTURE, k=99), key=lambda p: p.index)]


def test_own_labels_go_all_the_way(tmp_path):
    network = small_network()
    network.reset_classifier(3, labels=PETS)
    assert network.labels == PETS and shown(network) == list(PETS)
    nasnet_zoo.save(network, tmp_path / "net")
    again = nasnet_zoo.load(tmp_path / "net")
    assert again.labels == PETS and shown(again) == list(PETS)
    to_onnx(again, tmp_path / "graph")
    session = Session(tmp_path / "graph", ["cpu"])
    assert session.labels == PETS and shown(session) == list(PETS)


def test_as_many_classes_as_labels():
    network = small_network()
    network.reset_classifier(labels=list(PETS))
    assert network.config.num_classes == 3 and network.labels == PETS
    network.reset_classifier(labels="cifar10")
    assert network.config.num_classes == 10 and network.labels == label_set("cifar10")
    network.reset_classifier(10)
    assert network.labels is None  # other classes, although as many
    with pytest.raises(ConfigError, match="give the number of classes, or their labels"):
        network.reset_classifier()


def test_labels_for_what_is_loaded(tmp_path):
    network = small_network()
    nasnet_zoo.save(network, tmp_path)
    other = nasnet_zoo.load(tmp_path, labels=PETS)
    assert other.config.num_classes == other.classifier.out_features == 3 and shown(other) == list(PETS)
    assert torch.equal(other.stem["0"].conv.weight, network.stem["0"].conv.weight)
    renamed = nasnet_zoo.load(tmp_path, labels=tuple("ABCDEFG"))
    assert torch.equal(renamed.classifier.weight, network.classifier.weight) and shown(renamed) == list("ABCDEFG")
    assert nasnet_zoo.load(tmp_path, num_classes=7).labels == network.labels
    grey = nasnet_zoo.load(tmp_path, in_channels=1, num_classes=3, labels=PETS)
    assert grey.config.in_channels == 1 and shown(grey) == list(PETS)


def test_labels_for_what_is_created():
    create = nasnet_zoo.create
    network = create("nasnet-a-cifar-small", stages=(1,), labels=PETS, num_classes=3)
    assert network.labels == PETS and network(torch.randn(1, 3, 32, 32)).shape == (1, 3)
    assert create("nasnet-a-cifar-small", stages=(1,), labels=list(PETS)).labels == PETS
    assert create("nasnet-a-cifar-small", stages=(1,), num_classes=11).labels is None


WRONG = [
    (dict(num_classes=4, labels=PETS), "there are 3 labels for 4 classes"),
    (dict(num_classes=11, labels=("x",) * 10), "there are 10 labels for 11 classes"),
    (dict(labels=()), "no list of names"),
    (dict(labels=(1, 2)), "labels"),
    (dict(labels={"0": "cat"}), "labels"),
    (dict(labels=("cat", "", "dog", " ")), "the label of class 1 is empty"),
    (dict(labels=("cat", "dog", " ")), "the label of class 2 is empty"),
    (dict(labels="pets"), "unknown label set 'pets'"),
]


@pytest.mark.parametrize(("options", "said"), WRONG)
def test_labels_that_name_no_classes_are_refused(options, said, tmp_path):
    network = small_network()
    nasnet_zoo.save(network, tmp_path)
    for take in (
        lambda: nasnet_zoo.load(tmp_path, **options),
        lambda: network.reset_classifier(**options),
        lambda: nasnet_zoo.create("nasnet-a-cifar-small", **options),
    ):
        with pytest.raises(ConfigError, match=said) as caught:
            take()
        assert "\n" not in str(caught.value)
    assert network.config.num_classes == 7 and network.classifier.out_features == 7


def test_labels_may_be_equal_as_in_many_lists_of_imagenets(tmp_path):
    names = ("crane", "maillot", "crane")
    network = small_network()
    network.reset_classifier(labels=names)
    nasnet_zoo.save(network, tmp_path)
    assert nasnet_zoo.load(tmp_path, labels=network.labels).labels == names


HEADS = {
    "Linear": lambda inputs: nn.Linear(inputs, 5),
    "Sequential": lambda inputs: nn.Sequential(nn.Linear(inputs, 5)),
    "Identity": lambda inputs: nn.Identity(),
}


@pytest.mark.parametrize("head", HEADS)
def test_labels_of_another_classifier_are_not_shown(head):
    network = small_network()
    network.classifier = HEADS[head](network.num_features)
    assert network.labels is None and set(shown(network)) == {None}


def test_labels_that_do_not_fit_the_config_are_not_shown(tmp_path):
    network = small_network()
    network.config = dataclasses.replace(network.config, labels=PETS)
    assert label_names(network.config) is None and network.labels is None and set(shown(network)) == {None}
    to_onnx(network, tmp_path / "graph")
    assert Session(tmp_path / "graph", ["cpu"]).labels is None


def test_labels_of_another_number_name_no_logits():
    assert [p.label for p in ranked(np.array([1.0, 3.0, 2.0]), ["a", "b"], 3)] == [None] * 3
    assert [p.label for p in ranked(np.array([1.0, 3.0]), ["a", "b"], 3)] == ["b", "a"]


def test_the_background_class_is_a_label_sets_alone():
    config = small_network().config
    for number, first in ((1001, "background"), (1000, "tench")):
        named = label_names(dataclasses.replace(config, num_classes=number, labels="imagenet-1k"))
        assert named is not None and named[0] == first and len(named) == number
    assert label_names(dataclasses.replace(config, num_classes=4, labels=PETS)) is None
    assert with_classes(config, 1001, "imagenet-1k").num_classes == 1001
