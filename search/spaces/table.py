"""The table of spaces: one row each. Imports no torch.

The ops of the NDS variants, their blocks and loose-end rules are those of Radosavovic et al. 2019; their cells per
type are the counts of that paper's table.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from nasnet_zoo.errors import ConfigError
from nasnet_zoo.util.tables import Table

from .base import Space
from .cells import CellSpace, Outputs
from .nasbench import NasBench201Space
from .recipes import RecipeSpace

# NASNet paper, appendix A.1: the thirteen operations.
NASNET_OPS = (
    *("identity", "conv_1x3_3x1", "conv_1x7_7x1", "conv_3x3_dilated", "avg_pool_3x3", "max_pool_3x3", "max_pool_5x5"),
    *("max_pool_7x7", "conv_1x1", "conv_3x3", "sep_conv_3x3", "sep_conv_5x5", "sep_conv_7x7"),
)
# Radosavovic et al. mean a depthwise-separable convolution by their dilated one.
NDS_NASNET_OPS = tuple("dil_conv_3x3" if op == "conv_3x3_dilated" else op for op in NASNET_OPS)
NDS_AMOEBA_OPS = (
    *("identity", "sep_conv_3x3", "sep_conv_5x5", "sep_conv_7x7", "avg_pool_3x3", "max_pool_3x3"),
    *("dil_sep_conv_3x3", "conv_1x7_7x1"),
)
NDS_PNAS_OPS = (
    *("sep_conv_3x3", "sep_conv_5x5", "sep_conv_7x7", "conv_1x7_7x1", "identity", "avg_pool_3x3", "max_pool_3x3"),
    "dil_conv_3x3",
)
NDS_ENAS_OPS = ("identity", "sep_conv_3x3", "sep_conv_5x5", "avg_pool_3x3", "max_pool_3x3")
NDS_DARTS_OPS = (
    *("zero", "max_pool_3x3", "avg_pool_3x3", "identity", "sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3"),
    "dil_conv_5x5",
)
ADD_CONCAT = ("add", "concat")
NORMALISED = (*ADD_CONCAT, "add_layer_norm", "add_instance_norm")


@dataclass(frozen=True)
class SpaceSettings:
    """A row of the table; `blocks`, `ops`, `combines` and `outputs` replace its own if they are given. A space with
    other fields to change has a subclass with these; None leaves a field unchanged."""

    name: str = "nasnet"
    blocks: int | None = None
    ops: tuple[str, ...] | None = None
    combines: tuple[str, ...] | None = None
    outputs: Outputs | None = None

    def space(self) -> Space:
        """The space; raises ConfigError."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "name"}
        return get_space(self.name, **fields)


@dataclass(frozen=True)
class RecipeSpaceSettings(SpaceSettings):
    """`grid` are the fields and their values: see RecipeSpace."""

    grid: tuple[str, ...] | None = None


class SpaceEntry(NamedTuple):
    """`make` takes the space's name. Only fields of the dataclass that it returns can be changed."""

    title: str
    make: Callable[[str], Space]
    settings: type[SpaceSettings] = SpaceSettings


SPACES = Table(
    "space",
    {
        "nasnet": SpaceEntry("the NASNet paper's", lambda name: CellSpace(name, NASNET_OPS, 5, ADD_CONCAT)),
        # NASNet paper, appendix B: 4 blocks and 4 states in and out, nothing concatenated; C is A with B's combinations
        # (the text gives no number of blocks for C).
        "nasnet-b": SpaceEntry(
            "its variant B: four inputs, nothing concatenated",
            lambda name: CellSpace(name, NASNET_OPS, 4, NORMALISED, inputs=4, outputs="separate"),
        ),
        "nasnet-c": SpaceEntry(
            "its variant C: A with B's combinations", lambda name: CellSpace(name, NASNET_OPS, 5, NORMALISED)
        ),
        "nds-nasnet": SpaceEntry(
            "NASNet's as in the NDS paper (Radosavovic et al. 2019)",
            lambda name: CellSpace(name, NDS_NASNET_OPS, 5, style="nds"),
        ),
        "nds-amoeba": SpaceEntry(
            "AmoebaNet's as there",
            lambda name: CellSpace(name, NDS_AMOEBA_OPS, 5, style="nds"),
        ),
        "nds-pnas": SpaceEntry(
            "PNASNet's as there", lambda name: CellSpace(name, NDS_PNAS_OPS, 5, outputs="blocks", style="nds")
        ),
        "nds-enas": SpaceEntry("ENAS's as there", lambda name: CellSpace(name, NDS_ENAS_OPS, 5, style="nds")),
        "nds-darts": SpaceEntry(
            "DARTS's as there", lambda name: CellSpace(name, NDS_DARTS_OPS, 4, outputs="blocks", style="nds")
        ),
        "nasbench201": SpaceEntry("NAS-Bench-201's, whose cells are looked up", lambda name: NasBench201Space(name)),
        "recipes": SpaceEntry(
            "a grid of a recipe's settings, for one network (`nasnet-zoo tune`)", RecipeSpace, RecipeSpaceSettings
        ),
    },
)


def get_space(name: str, **changes: Any) -> Space:
    """The space of that name, with `blocks`, `ops`, `combines` or `outputs` changed; raises ConfigError."""
    space = SPACES.row(name).make(name)
    changes = {key: value for key, value in changes.items() if value is not None}
    known = {field.name for field in dataclasses.fields(space)} if dataclasses.is_dataclass(space) else set()
    if unknown := sorted(set(changes) - (known - {"name"})):
        raise ConfigError(f"the space {name} has no {', '.join(unknown)} to change")
    return dataclasses.replace(space, **changes) if changes else space
