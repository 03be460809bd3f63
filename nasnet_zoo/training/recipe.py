"""How a network is trained, as data. Imports no torch."""

from dataclasses import dataclass, field
from typing import Literal

from ..arch.checks import check_fields
from ..errors import ConfigError

# Of a recipe: how fast, where and in how many parts a training runs, and how long. It may change when one goes on.
FREE = ("epochs", "separable", "capture", "compile")


@dataclass(frozen=True)
class Recipe:
    """How a network is trained: optimiser, schedule, regularisation, augmentation, and how it is computed.

    Optimiser. `batch_size` is how many pictures make a step, whatever number of processes share them; each process
    computes its share in `accumulate` parts, and `bn_momentum` (torch's, one minus TF-slim's decay) is of a step.
    "sgd" has `momentum`, in Nesterov's form or not, "adamw" takes `momentum` and `square_decay` for its two betas, and
    "rmsprop" is TensorFlow's (`optim.RMSpropTF`), with `square_decay` and `epsilon`. `weight_decay` is that of
    convolutions and classifiers, not of batch norms and biases. `clip_norm` limits the gradient's norm; 0 is no limit.
    With `layer_decay` d the rate of what lies k cells below the classifier is d**k times as high. With an `ema_decay`
    a moving average of the weights is what is measured and kept.

    Schedule. A linear rise over `warmup_epochs`, then a "cosine" to zero, or `decay_rate` for every `decay_epochs`,
    gradually ("exponential") or at once ("step"), or a "constant". For the first `head_epochs` the classifier alone
    learns, at `learning_rate`, above a network that does not change; the schedule begins after them.

    Regularisation. `drop_path_keep` and `dropout` act in training only; `aux_weight` is the auxiliary loss's.
    `freeze_norms` leaves the statistics of batch norms as they are, and `sync_norms` computes them over all processes,
    which needs GPUs.

    Augmentation. `crop` "pad" adds `pad` pixels on each side before the random crop: black ones, or with `enlarge` by
    scaling the picture up, as the children of the NASNet search were. "inception" takes a random part of at least
    `crop_area` of the picture, of an aspect from 3/4 to 4/3. `brightness` is added at random, up to this much of white,
    and colours are made stronger or weaker by up to `saturation`, in random order (much as TF-slim's fast colours).
    `rand_augment` is RandAugment's magnitude, with two operations, and `erase` the probability of random erasing.
    `cutout` is the side of the square that is blanked, in pixels at full size. `mixup` and `cutmix` are the alphas of
    their Beta distributions; with both, each batch gets one of them. 0 is none of any. `sizes` are (epoch, side) pairs:
    from that epoch on pictures are trained at that many pixels, which lets a CPU see them more often before it sees
    them sharp; empty means full size throughout.

    Computation. `precision` is the forward pass's; "auto" is bfloat16 on GPUs that have it, else float32. `separable`
    "fused" computes separable convolutions by the kernels of training/separable.py, which need a GPU and channels_last
    and were slower where they were measured; else torch does ("auto" is "torch", as files of before have it). With
    `capture` "auto" a GPU's steps are replays of a CUDA graph, "off" runs them kernel by kernel. `compile` has
    torch.compile make the step's forward and backward pass.
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
    optimizer: Literal["sgd", "rmsprop", "adamw"] = "sgd"
    nesterov: bool = True
    square_decay: float = 0.999
    epsilon: float = 1e-8
    accumulate: int = 1
    layer_decay: float = 1.0
    ema_decay: float = 0.0
    schedule: Literal["cosine", "exponential", "step", "constant"] = "cosine"
    decay_rate: float = 0.97
    decay_epochs: float = 2.4
    head_epochs: int = 0
    freeze_norms: bool = False
    sync_norms: bool = False
    crop: Literal["pad", "inception"] = "pad"
    crop_area: float = 0.05
    brightness: float = 0.0
    saturation: float = 0.0
    rand_augment: int = 0
    erase: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    compile: bool = False

    def __post_init__(self) -> None:
        check_fields(self, "recipe")
        # Lists in them would be another recipe, and so would another order.
        object.__setattr__(self, "sizes", tuple(sorted(map(tuple, self.sizes))))
        for names, fits, words in _RANGES:
            for name in names.split():
                if not fits(getattr(self, name)):
                    raise ConfigError(f"recipe: {name} is {getattr(self, name):g}, and must {words}")
        if not all(start >= 0 and side >= 1 for start, side in self.sizes):
            raise ConfigError("recipe: sizes are pairs of an epoch, from 0, and a side of at least one pixel")
        if self.batch_size % self.accumulate or self.batch_size < 2 * self.accumulate:
            raise ConfigError(
                f"recipe: accumulate {self.accumulate} does not divide batch_size {self.batch_size} into equal parts "
                f"of at least 2"
            )
        if self.head_epochs >= self.epochs and self.head_epochs:
            raise ConfigError(
                f"recipe: head_epochs {self.head_epochs} must be fewer than the {self.epochs} epochs: give more "
                f"epochs, or head_epochs 0"
            )

    def side(self, epoch: int, full: int) -> int:
        """The side in pixels at which an epoch is trained."""
        return [full, *(side for start, side in self.sizes if start <= epoch)][-1]

    @property
    def by_picture(self) -> bool:
        """Whether the augmentation works on one picture at a time, as workers do it."""
        return self.crop != "pad" or bool(self.brightness or self.saturation or self.rand_augment)


_RANGES = (
    ("epochs accumulate", lambda value: value >= 1, "be at least 1"),
    ("batch_size", lambda value: value >= 2, "be at least 2"),
    ("learning_rate epsilon decay_epochs", lambda value: 0 < value < float("inf"), "be above 0 and finite"),
    (
        "drop_path_keep bn_momentum layer_decay crop_area decay_rate",
        lambda value: 0 < value <= 1,
        "be above 0 and at most 1",
    ),
    ("momentum square_decay", lambda value: 0 < value < 1, "lie between 0 and 1"),
    (
        "dropout label_smoothing brightness saturation ema_decay",
        lambda value: 0 <= value < 1,
        "be at least 0 and below 1",
    ),
    ("erase", lambda value: 0 <= value <= 1, "be from 0 to 1"),
    ("rand_augment", lambda value: 0 <= value <= 30, "be from 0 to 30"),
    (
        "pad cutout weight_decay aux_weight warmup_epochs clip_norm head_epochs mixup cutmix",
        lambda value: 0 <= value < float("inf"),
        "be at least 0 and finite",
    ),
)
