"""Presets: searches by name, with the papers' values or with values for smaller machines. Imports no torch.

Values that a paper does not give are TF-slim's CIFAR-10 values, scaled with the batch.
"""

import dataclasses
import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from nasnet_zoo.errors import ConfigError
from nasnet_zoo.training.recipes import RECIPES
from nasnet_zoo.util.tables import Table, nearest

from .children.nasbench import TableChildSettings
from .children.settings import CifarChildSettings
from .config import ROWS, SearchConfig, section_types
from .fleet.base import FleetSettings
from .searchers.evolution import EvolutionSettings
from .searchers.settings import ControllerSettings
from .spaces.table import SpaceSettings

_NASNET_CHILD = CifarChildSettings(whiten=True, recipe=RECIPES["nasnet-child"].recipe)
_NDS_CHILD = CifarChildSettings(filters=16, cells=2, recipe=RECIPES["nds-child"].recipe)
_QUICK_CHILD = CifarChildSettings(
    filters=8,
    cells=1,
    stem=2.0,
    side=16,
    pictures=2000,
    validation=2000,
    calibration=256,
    recipe=RECIPES["quick-child"].recipe,
)
_RULE: dict[str, Any] = {"normalise": True, "baseline": "batch-mean"}


class Preset(NamedTuple):
    title: str
    config: SearchConfig


PRESETS = Table(
    "preset",
    {
        "nasnet": Preset(
            "the NASNet paper's search: PPO, 20,000 children of N = 2, F = 32 and 20 epochs",
            # Learning rate, epochs and baseline chosen on planted rewards, with nothing and with 450 children in flight
            # (benchmarks/search_planted.py --choose).
            SearchConfig(
                "", controller=ControllerSettings(learning_rate=1.5e-3, epochs=2, **_RULE), child=_NASNET_CHILD
            ),
        ),
        "nasnet-paper": Preset(
            "the same with the paper's learning rate, and its moving average as the baseline",
            SearchConfig("", child=_NASNET_CHILD),
        ),
        "amoebanet": Preset(
            "regularized evolution (P = 100, S = 25) over the NDS variant of AmoebaNet's space",
            SearchConfig("", SpaceSettings("nds-amoeba"), "evolution", child=_NDS_CHILD),
        ),
        "quick": Preset(
            "320 children of a few seconds each, eight minutes on two idle CPU cores: cells of three blocks at 16 px",
            # The learning rate was chosen on planted rewards with the spread and noise of such children.
            SearchConfig(
                "",
                SpaceSettings("nasnet", blocks=3),
                controller=ControllerSettings(learning_rate=0.015, epochs=3, clip=0.3, **_RULE),
                evolution=EvolutionSettings(population=20, sample=10),
                child=_QUICK_CHILD,
                children=320,
                fleet=FleetSettings("processes"),
            ),
        ),
        "tabular": Preset(
            "500 look-ups in a NAS-Bench-201 table (--data FILE.csv)",
            # Its settings were chosen on the CIFAR-100 columns (benchmarks/search_tabular.py --choose).
            SearchConfig(
                "",
                SpaceSettings("nasbench201"),
                controller=ControllerSettings(
                    learning_rate=0.01, entropy_weight=0.2, epochs=2, ratio="sequence", **_RULE
                ),
                child=TableChildSettings(),
                children=500,
                repeats="serve",
            ),
        ),
    },
)


def preset(name: str) -> SearchConfig:
    """The preset of that name, without a folder; raises ConfigError."""
    return PRESETS.row(name).config


def changed(config: SearchConfig, changes: dict[str, Any]) -> SearchConfig:
    """The config with some of its fields, named like "controller.batch", set to other values. Raises ConfigError."""
    value = config.to_json()
    rows = [f"{section}.{tag}" for section, (tag, _) in ROWS.items()]
    value = _changed(value, {path: new for path, new in changes.items() if path in rows})
    for section, settings in section_types(value).items():  # the settings depend on the chosen rows
        default = dataclasses.asdict(settings())
        value[section] = default | {key: old for key, old in value.get(section, {}).items() if key in default}
    return SearchConfig.from_json(_changed(value, changes))


def _changed(value: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    value = json.loads(json.dumps(value))
    for path, new in changes.items():
        *above, last = path.split(".")
        place = value
        for part in above:
            place = place.get(part) if isinstance(place, dict) else None
        if not isinstance(place, dict) or last not in place:
            raise ConfigError(
                f"a search has no setting {path!r}; its config.json shows them all{nearest(path, _paths(value))}"
            )
        place[last] = new
    return value


def _paths(value: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, entry in value.items():
        yield f"{prefix}{key}"
        if isinstance(entry, dict):
            yield from _paths(entry, f"{prefix}{key}.")
