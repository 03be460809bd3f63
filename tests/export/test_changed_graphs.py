"""Networks that users have wrapped or changed: their graph gives the same logits, or there is none."""

import numpy as np
import pytest
import torch
from changed_networks import KEPT, REFUSED, change, logits_in_eager, small_network
from random_networks import SAME

from nasnet_zoo.errors import ConfigError
from nasnet_zoo.export import Session, to_onnx


@pytest.fixture(autouse=True)
def few_pictures(monkeypatch):
    monkeypatch.setattr("nasnet_zoo.export.verify.MOST", 2)


@pytest.mark.parametrize("how", [how for how in KEPT if how not in ("a wrapper without a forward", "half")])
def test_the_graph_gives_the_same_logits(how, tmp_path):
    network = change(small_network(), KEPT[how])
    to_onnx(network, tmp_path / "out")
    session, x = Session(tmp_path / "out", ["cpu"]), torch.randn(2, 3, 32, 32)
    expected = logits_in_eager(network, x).numpy()
    assert np.abs(session.run(x.numpy()) - expected).max() <= SAME * np.abs(expected).max()
    assert session.labels == (None if how == "another classifier" else tuple("abcdefg"))
    assert {p.label for p in session.predict(np.zeros((40, 40, 3), np.uint8))} <= {None, *"abcdefg"}


@pytest.mark.parametrize("how", REFUSED)
def test_what_no_config_describes_is_not_exported(how, tmp_path):
    make, said = REFUSED[how]
    network = change(small_network(), make)
    with pytest.raises(ConfigError, match=said) as caught:
        to_onnx(network, tmp_path / "out")
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())
