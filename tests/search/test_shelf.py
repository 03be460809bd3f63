"""docs/shelf.md, command by command: what it says a user does works, here with short trainings on few pictures."""

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
import torch
from shelf_choose import RUN

import nasnet_zoo
from nasnet_zoo.arch.cost import network_cost
from nasnet_zoo.data.cifar import Pictures
from nasnet_zoo.data.labels import example_pictures
from nasnet_zoo.registry import MODELS

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "shelf.md").read_text(encoding="utf-8")
(BLOCK,) = re.findall(r"^```sh\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
COMMANDS = [shlex.split(line)[1:] for line in BLOCK.splitlines()]
# What makes each command short; the last of an option that is given twice counts.
SHORT = {
    "search": "--children 4 --fleet inline --device cpu --set child.pictures=60 --set child.validation=20 "
    "--set child.calibration=0 --set child.recipe.batch_size=20 --set controller.batch=2 --set child.filters=4",
    "transfer": "--rerank 2 --epochs 1 --params 150k --device cpu",
    "train": "--epochs 1 --set batch_size=20 --set sizes=[[0,16]] --device cpu",
}


def few(folder=None, train=True):
    generator = torch.Generator().manual_seed(int(train))
    labels = torch.arange(100) % 10
    base = torch.randint(256, (10, 3, 1, 1), generator=generator)[labels]
    noise = torch.randint(-40, 40, (100, 3, 32, 32), generator=generator)
    return Pictures((base + noise).clamp(0, 255).to(torch.uint8), labels)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for module in ("data.sets", "search.children.cifar", "data.cifar"):
        monkeypatch.setattr(f"nasnet_zoo.{module}.cifar10_pictures", few)
    monkeypatch.setattr("nasnet_zoo.training.curve.draw_curve", lambda epochs, best, path: path.touch())
    monkeypatch.setattr("nasnet_zoo.search.report.report.write_report", lambda *arguments: None)
    for path in example_pictures("cifar10"):
        Path("photos").mkdir(exist_ok=True)
        shutil.copy(path, "photos")


def test_every_command_of_the_page(here, run):
    assert [command[0] for command in COMMANDS] == [
        *("search", "transfer", "train", "convert", "eval", "export", "predict", "demo")
    ]
    said = {}
    for command in COMMANDS:
        code, said[command[0]], err = run(*command, *shlex.split(SHORT.get(command[0], "")))
        assert code == 0, (command, err)
    weights = json.loads(Path("cell/config.json").read_text())["weights"]
    assert weights["recipe"]["name"] == "cifar-cpu" and weights["recipe"]["precision"] == "float32"
    assert list(weights["accuracy"])[2:] == ["cifar10_test_top1", "cifar10_test_top5"]
    assert weights["training"]["pictures"] == 100
    assert "recipe cifar-cpu, seed 0" in Path("cell/README.md").read_text()
    assert nasnet_zoo.load("cell").config.scale.aux_size is None
    assert "top-1" in said["eval"] and "airplane.png" in said["predict"] and Path("site/index.html").is_file()


def test_what_the_page_says_of_the_network():
    cost = MODELS["quick-ppo-cifar"].cost
    assert f"{cost.parameters:,} parameters and {cost.multiply_adds / 1e6:.1f} million" in " ".join(PAGE.split())
    transferred = nasnet_zoo.search.transfer(
        MODELS["quick-ppo-cifar"].config.architecture,
        nasnet_zoo.search.Target(parameters=1e6, cells=5),
        stem="cifar",
        auxiliary=False,
    )
    assert transferred == MODELS["quick-ppo-cifar"].config


def test_what_it_is_compared_with_costs_as_much():
    cost = {name: network_cost(config) for name, (config, _) in RUN.items()}
    assert cost["NASNet-A"].multiply_adds == pytest.approx(cost["shipped"].multiply_adds, rel=0.02)
    assert all(0.9e6 < cost[name].parameters <= 1e6 for name in cost if name != "NASNet-A")
    assert RUN["NASNet-A"][1] == RUN["shipped"][1]
