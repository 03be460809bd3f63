"""Converts foreign weights to this package's state_dicts. Every tensor must be used, and every key must be filled.

    from_tf_slim    TF-slim's checkpoints
    from_keras      the .h5 files of keras.applications
    from_timm       timm's nasnetalarge and pnasnet5large
    from_cadene     the NASNets of Cadene's pretrained-models.pytorch

Each takes the foreign tensors and a NetworkConfig and returns a float32 state_dict that fits the config, or raises
ConversionError, which lists what is missing, left over or of another shape.
"""

from typing import TYPE_CHECKING

from ..util.names import lazily, listed

if TYPE_CHECKING:
    from .ports import from_cadene, from_keras, from_tf_slim, from_timm
else:
    __getattr__ = lazily(__name__, dict.fromkeys(("from_cadene", "from_keras", "from_tf_slim", "from_timm"), ".ports"))
__dir__ = listed(__name__)

__all__ = ["from_cadene", "from_keras", "from_tf_slim", "from_timm"]
