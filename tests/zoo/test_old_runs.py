"""Run folders of trainings that earlier versions began, of which tests/golden has one of each form: they go on."""

import json
import shutil

import pytest
import torch

from nasnet_zoo.data.cifar import Pictures
from nasnet_zoo.training.begin import Request, begin

# What tests/golden/v2/training was made with.
MODEL = dict(name_or_config="nasnet-a-cifar", filters=4, stages=(1, 1), stem_channels=4)


def small_cifar10(folder, train):
    generator = torch.Generator().manual_seed(int(train))
    labels = torch.randint(10, (64,), generator=generator)
    base = (labels * 25).view(64, 1, 1, 1)
    noise = torch.randint(-20, 20, (64, 3, 32, 32), generator=generator)
    return Pictures((base + noise).clamp(0, 255).to(torch.uint8), labels)


def test_a_run_folder_of_the_second_version_goes_on(tmp_path, monkeypatch, golden):
    """Two of four epochs and a step were done, with averaged weights, TensorFlow's RMSProp and gradients in parts."""
    monkeypatch.setattr("nasnet_zoo.data.sets.cifar10_pictures", small_cifar10)
    expected = json.loads((golden / "v2" / "training-end.json").read_text())
    shutil.copytree(golden / "v2" / "training", tmp_path / "run")
    run, network, data, _ = begin(Request(tmp_path / "run"), "cpu")
    steps = []
    history = run.perform(network, data, on_step=lambda epoch, done, of: steps.append((epoch, done))).epochs
    assert steps[0] == (2, 2) and steps[-1] == (3, 4)
    assert [epoch.loss for epoch in history] == pytest.approx(expected["losses"], abs=1e-3)
    assert [epoch.metrics["top1"] for epoch in history] == pytest.approx(expected["top1"], abs=0.04)
    with torch.inference_mode():
        logits = network(torch.linspace(-2, 2, 6144).view(2, 3, 32, 32))
    torch.testing.assert_close(logits, torch.tensor(expected["logits"]), rtol=0, atol=1e-2)
