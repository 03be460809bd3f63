"""What a notebook and a prompt show of the package's objects."""

import copy
import json
import pickle
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import tiny_kind
from changed_networks import small_network

import nasnet_zoo
from nasnet_zoo.arch import kinds
from nasnet_zoo.data.prediction import Answers, Prediction, Predictions, ranked
from nasnet_zoo.errors import ImageError
from nasnet_zoo.export import ExportReport, Session, to_onnx
from nasnet_zoo.export.verify import Check
from nasnet_zoo.registry import MODELS
from nasnet_zoo.search import SearchConfig, SearchResult
from nasnet_zoo.search.records import Record

CELL = nasnet_zoo.Cell((nasnet_zoo.Block(nasnet_zoo.Edge(0, "identity"), nasnet_zoo.Edge(1, "sep_conv_3x3")),), (2,))
OWN = nasnet_zoo.Genotype(CELL, CELL)


def shown(value, *words):
    """Its repr, in one line that has these words."""
    text = repr(value)
    assert "\n" not in text and len(text) <= 200 and text.startswith(f"{type(value).__name__}("), text
    for word in words:
        assert str(word) in text, (word, text)


@pytest.mark.parametrize("name", sorted(MODELS))
def test_a_model_and_its_config_are_one_line(name):
    model = nasnet_zoo.info(name)
    shown(model, name, *(f"{name}.{source.tag}" for source in model.weights))
    genotype = next(name for name, genotype in nasnet_zoo.GENOTYPES.items() if genotype == model.config.architecture)
    scale, config = model.config.scale, model.config
    size = "{} x {} px".format(*config.preprocess.size)
    shown(config, genotype, f"filters={scale.filters}", f"stages={scale.stages}", size, f"{config.num_classes} classes")
    shown(config.plan, f"{len(config.plan.steps)} steps")


def test_a_genotype_is_one_line_with_its_name_or_else_its_hash():
    for name, genotype in nasnet_zoo.GENOTYPES.items():
        shown(genotype, name, genotype.style)
    shown(OWN, OWN.canonical_hash, "1 + 1 blocks")


def test_results_are_one_line():
    report = ("out", "tiny", "fp32", (32, 32), False, 18, 7, 1_500_000, 0.1, *"abc")
    check = Check("cpu", "1", 3e-7, 1.0, 8, False)
    shown(ExportReport(*report, checks=(check,)), "tiny fp32", "32 x 32 px", "1.5 MB", "3.0e-07", "out")
    shown(SearchConfig("runs/first"), "runs/first", "nasnet", "ppo", "cifar10")
    result = SearchResult(Path("runs/first"), Record(7, (1,) * 40, "0", status="done", reward=0.5), OWN, 20)
    shown(result, "child 7 of 20", "0.5000", "runs/first")


def test_a_notebook_draws_a_genotype():
    picture = ElementTree.fromstring(OWN._repr_svg_())
    assert picture.tag == "{http://www.w3.org/2000/svg}svg"
    text = "".join(picture.itertext())
    assert "Normal and reduction cell (equal)" in text and "3x3" in text


def test_architectures_of_every_kind_can_be_drawn(monkeypatch):
    monkeypatch.setattr(kinds, "KINDS", dict(kinds.KINDS))
    tiny_kind.register()
    assert kinds.svg(tiny_kind.PlainNet(1)).startswith("<svg")


def test_a_notebook_shows_predictions_as_a_table_with_bars():
    labels = ["<script>alert('x')</script>", "b & c", 'the "third"']
    predictions = ranked(np.log([0.125, 0.625, 0.25]), labels, k=3)
    table = ElementTree.fromstring(predictions._repr_html_())  # so nothing of a label is markup
    rows = [list(row) for row in table]
    assert [row[0].text for row in rows] == [labels[1], labels[2], labels[0]]
    assert [row[2].text for row in rows] == ["62.5%", "25.0%", "12.5%"]
    assert [row[1][0].get("style").split(";")[0] for row in rows] == ["width: 62.5%", "width: 25.0%", "width: 12.5%"]
    assert "class 2" in ranked(np.zeros(3), None, k=3)._repr_html_()


@pytest.mark.parametrize("exported", [False, True])
def test_a_notebook_shows_what_is_said_of_several_pictures(exported, tmp_path):
    classifier = small_network()
    if exported:
        to_onnx(classifier, tmp_path / "graph")
        classifier = Session(tmp_path / "graph", ["cpu"])
    picture = np.zeros((8, 8, 3), np.uint8)
    answers = classifier.predict([picture, "<b>nowhere.png"], k=2, errors="return")
    table = ElementTree.fromstring(answers._repr_html_())  # so nothing of an error is markup
    assert [row[0].text for row in table] == ["1", "2"]
    assert [row[0].text for row in table[0][1][0]] == [p.label for p in answers[0]]
    assert table[1][1].text == str(answers[1]) and "<b>nowhere.png" in table[1][1].text
    assert answers[:1] == [classifier.predict(picture, k=2)] and classifier.predict([]) == []


def test_a_notebook_shows_the_first_of_many_pictures():
    answers = Answers([ranked(np.zeros(2), ["a", "b"], k=1)] * 1050)
    *rows, last = ElementTree.fromstring(answers._repr_html_())
    assert len(rows) == 50 and last[1].text == "and 1,000 more"
    assert len(ElementTree.fromstring(answers[:50]._repr_html_())) == 50
    assert answers[:0]._repr_html_() is None  # the notebook then shows []


def test_slices_are_shown_as_the_whole_is():
    predictions = ranked(np.zeros(4), list("abcd"), k=4)
    several = Answers([predictions, ImageError("damaged")])
    for whole in (predictions, several):
        assert type(whole[:1]) is type(whole[::-1]) is type(whole) and whole[:1] == [whole[0]] == [*whole][:1]
    assert type(predictions[0]) is Prediction and several[-1].args == ("damaged",)


def test_what_is_said_of_several_pictures_is_a_list():
    predictions = ranked(np.zeros(2), ["a", "b"], k=2)
    several = Answers([predictions])
    assert several == [predictions] and repr(several) == repr([[*predictions]])
    assert type(pickle.loads(pickle.dumps(several))) is type(copy.deepcopy(several)) is Answers
    assert json.dumps(Answers([[1, "a"]])) == '[[1, "a"]]'


def test_predictions_are_a_list():
    predictions = ranked(np.zeros(2), ["a", "b"], k=5)
    assert predictions == [Prediction(0, "a", 0.5), Prediction(1, "b", 0.5)]
    assert repr(predictions) == repr([*predictions])
    assert type(pickle.loads(pickle.dumps(predictions))) is type(copy.deepcopy(predictions)) is Predictions
    assert json.loads(json.dumps([vars(p) for p in predictions]))[0]["label"] == "a"
