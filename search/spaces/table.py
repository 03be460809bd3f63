"""The table of spaces: one row each. Imports no torch.

The ops of the NDS variants, their blocks and loose-end rules are those of Radosavovic et al. 2019; their cells per
type are the counts of that paper's table.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

from nasnet_zoo.errors import ConfigError

from .base import Space
from .cells import CellSpace
from .nasbench import NasBench201Space

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

SPACES: dict[str, Callable[..., Space]] = {
    "nasnet": lambda name: CellSpace(name, NASNET_OPS, 5, ADD_CONCAT),
    # NASNet paper, appendix B: 4 blocks and 4 states in and out, nothing concatenated; C is A with B's combinations
    # (the text gives no number of blocks for C).
    "nasnet-b": lambda name: CellSpace(name, NASNET_OPS, 4, NORMALISED, inputs=4, outputs="separate"),
    "nasnet-c": lambda name: CellSpace(name, NASNET_OPS, 5, NORMALISED),
    "nds-nasnet": lambda name: CellSpace(name, NDS_NASNET_OPS, 5, outputs="unread-blocks", style="nds"),
    "nds-amoeba": lambda name: CellSpace(name, NDS_AMOEBA_OPS, 5, outputs="unread-blocks", style="nds"),
    "nds-pnas": lambda name: CellSpace(name, NDS_PNAS_OPS, 5, outputs="blocks", style="nds"),
    "nds-enas": lambda name: CellSpace(name, NDS_ENAS_OPS, 5, outputs="unread-blocks", style="nds"),
    "nds-darts": lambda name: CellSpace(name, NDS_DARTS_OPS, 4, outputs="blocks", style="nds"),
    "nasbench201": lambda name: NasBench201Space(name),
}


def get_space(name: str, **changes: Any) -> Space:
    """The space of that name, with `blocks`, `ops` or `combines` changed; raises ConfigError."""
    if name not in SPACES:
        raise ConfigError(f"there is no space {name!r}; there are {', '.join(SPACES)}")
    space = SPACES[name](name)
    changes = {key: value for key, value in changes.items() if value is not None}
    unknown = sorted(set(changes) - {field.name for field in dataclasses.fields(space) if field.name != "name"})
    if unknown:
        raise ConfigError(f"the space {name} has no {', '.join(unknown)} to change")
    return dataclasses.replace(space, **changes)
