"""The rule by which the reference logits were made: a variable's value depends on its name and shape only."""

import math
import zlib
from collections.abc import Sequence

import numpy as np


def golden_value(name: str, shape: Sequence[int]) -> np.ndarray:
    """The float32 value of TF-slim's variable; moving averages have that of the plain name."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    leaf = name.rpartition("/")[2]
    if leaf == "gamma":
        value = rng.uniform(0.5, 1.5, shape)
    elif leaf == "moving_variance":
        value = rng.uniform(1.0, 3.0, shape)
    elif leaf in ("beta", "moving_mean", "biases"):
        value = 0.1 * rng.standard_normal(shape)
    else:
        fan_in = math.prod(shape[:2] if leaf == "depthwise_weights" else shape[:-1])
        value = rng.standard_normal(shape) * math.sqrt(1 / fan_in)
    return value.astype(np.float32)


def golden_pictures(height: int, width: int) -> np.ndarray:
    """The input of a reference case: two float32 pictures, (2, 3, height, width)."""
    values = np.random.default_rng(height * 1000 + width).uniform(-1, 1, (2, height, width, 3))
    return values.astype(np.float32).transpose(0, 3, 1, 2)
