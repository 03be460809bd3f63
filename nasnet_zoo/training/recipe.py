"""How a network is trained, as data. Imports no torch."""

from dataclasses import dataclass, field
from typing import Literal

from ..arch.checks import check_fields
from ..errors import ConfigError


@dataclass(frozen=True)
class Recipe:
    """SGD with momentum (in Nesterov's form) and one cosine period (NASNet paper, appendix A.6), and what goes with it.

    `sizes` are (epoch, side) pairs: from that epoch on pictures are trained at that many pixels, which lets a CPU
    see them more often before it sees them sharp; empty means full size throughout. `bn_momentum` is torch's, one
    minus TF-slim's decay. `drop_path_keep` and `dropout` act in training only; `aux_weight` is the auxiliary loss's.
    `pad` pixels are added on each side before the random crop: black ones, or with `enlarge` by scaling the picture
    up, as the children of the NASNet search were. `cutout` is the side of the square that is blanked, in pixels at
    full size. `precision` is the forward pass's; "auto" is bfloat16 on a GPU and float32 on a CPU. `separable` says how
    separable convolutions are computed: "torch" layer by layer, "fused" by the kernels of training/separable.py, which
    need a GPU and channels_last, "auto" on a GPU by the faster of the two for each shape, elsewhere by torch. With
    `capture` "auto" a GPU's steps are replays of a CUDA graph, "off" runs them kernel by kernel.
    """

    epochs: int
    batch_size: int = 128
    learning_rate: float = 0.1
    warmup_epochs: float = 1.0
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_smoothing: float = 0.0
    clip_norm: float = 5.0
    bn_momentum: float = 0.1
    drop_path_keep: float = 1.0
    dropout: float = 0.0
    aux_weight: float = 0.4
    pad: int = 4
    enlarge: bool = False
    flip: bool = True
    cutout: int = 0
    sizes: tuple[tuple[int, int], ...] = field(default=())
    channels_last: bool = True
    precision: Literal["float32", "bfloat16", "auto"] = "float32"
    separable: Literal["torch", "fused", "auto"] = "auto"
    capture: Literal["auto", "off"] = "auto"

    def __post_init__(self) -> None:
        check_fields(self, "recipe")
        if self.epochs < 1 or self.batch_size < 2 or self.learning_rate <= 0:
            raise ConfigError("recipe: epochs must be at least 1, batch_size at least 2 and learning_rate above 0")
        if not 0 < self.drop_path_keep <= 1 or not 0 <= self.dropout < 1:
            raise ConfigError("recipe: drop_path_keep must lie in (0, 1] and dropout in [0, 1)")
        if not 0 < self.momentum < 1 or not 0 <= self.label_smoothing < 1 or not 0 < self.bn_momentum <= 1:
            raise ConfigError(
                "recipe: momentum must lie in (0, 1), label_smoothing in [0, 1) and bn_momentum in (0, 1]"
            )
        if (
            min(self.pad, self.cutout, self.weight_decay, self.aux_weight, self.warmup_epochs) < 0
            or self.clip_norm <= 0
        ):
            raise ConfigError(
                "recipe: pad, cutout, weight_decay, aux_weight and warmup_epochs must be at least 0, clip_norm above 0"
            )
        if not all(start >= 0 and side >= 1 for start, side in self.sizes):
            raise ConfigError("recipe: sizes are pairs of an epoch, from 0, and a side of at least one pixel")

    def side(self, epoch: int, full: int) -> int:
        """The side in pixels at which an epoch is trained."""
        return [full, *(side for start, side in self.sizes if start <= epoch)][-1]


RECIPES: dict[str, Recipe] = {
    # NASNet-A on CIFAR-10 with TF-slim's figures, drop path 0.6 and cutout: 600 epochs, batch 32, lr 0.025. Its
    # auxiliary loss counts where the config has a head (aux_size 16 x 16), which the zoo's nasnet-a-cifar has not.
    "nasnet-cifar": Recipe(
        600, 32, 0.025, warmup_epochs=0, drop_path_keep=0.6, cutout=16, bn_momentum=0.1, channels_last=True
    ),
    # What fits into half an hour on two CPU cores.
    "cifar-quick": Recipe(13, 128, 0.15, weight_decay=3e-4, pad=3, sizes=((0, 16), (7, 20), (10, 24), (12, 32))),
}
