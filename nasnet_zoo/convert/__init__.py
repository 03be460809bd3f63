"""Converts foreign weights to this package's state_dicts. Every tensor must be used, and every key must be filled.

Each `from_...` takes the foreign tensors and a NetworkConfig and returns a float32 state_dict that fits the config, or
raises ConversionError, which lists what is missing, left over or of another shape.
"""

from .ports import from_cadene, from_keras, from_tf_slim, from_timm

__all__ = ["from_cadene", "from_keras", "from_tf_slim", "from_timm"]
