"""From a genotype and a scale to the full wiring of a network, channel by channel. Imports no torch.

The plan is what the builder builds, the cost function counts, the converters name and the exporters emit, so that
the rules of the macro-architecture (TF-slim's `_build_nasnet_base`, NASNet paper section 3 and appendix A.4) stand in
this one place.
"""

from dataclasses import dataclass
from typing import Literal

from ..errors import ConfigError
from .checks import check_choices
from .config import MAX_CHANNELS, NetworkConfig
from .genotype import Cell, Genotype
from .ops import COMBINES, OPS, Conv, Layers, Norm, ReLU, conv, factorized

MAX_CELLS = 1000


@dataclass(frozen=True)
class CellScale:
    """How often a genotype's cells are stacked and how wide (NASNet paper, section 3 and appendix A).

    `stages` counts the normal cells of each stage; a reduction cell stands between two stages, and `filters` (the
    paper's F; P = 24 F for NASNet-A's last map) doubles there. `stem` is "cifar" (3x3, stride 1), "imagenet" (3x3,
    stride 2, valid, then two reduction cells) or "imagenet-nds" (DARTS' three convolutions). `style` says which
    lineage's rules hold: "slim" projects the previous input only where it must, and a strided identity is a 1x1
    convolution; "nds" projects both inputs always, a strided identity is a factorized reduction, and no ReLU comes
    before the global average. With `skip_reduction_input` the cell after a reduction reads, as its previous input,
    the map two cells before the reduction instead of the one just before it. `aux_size` is the (height, width) of
    the map that the auxiliary head was made for, or None for no auxiliary head.
    """

    stem: Literal["cifar", "imagenet", "imagenet-nds"]
    stem_channels: int
    filters: int
    stages: tuple[int, ...]
    skip_reduction_input: bool = False
    style: Literal["slim", "nds"] = "slim"
    bn_eps: float = 1e-3
    aux_size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        check_choices(self, "scale")
        counts = (self.filters, self.stem_channels, *(self.stages if isinstance(self.stages, (tuple, list)) else "?"))
        if not all(type(count) is int for count in counts):
            raise ConfigError("scale: filters and stem_channels are whole numbers, and stages several of them")
        object.__setattr__(self, "stages", tuple(self.stages))
        if not 1 <= self.filters <= MAX_CHANNELS or not 2 <= self.stem_channels <= MAX_CHANNELS:
            raise ConfigError(
                f"scale: filters {self.filters} and stem_channels {self.stem_channels} must lie between 2 and "
                f"{MAX_CHANNELS}"
            )
        if self.stem == "imagenet" and self.filters < 8:
            raise ConfigError(f"scale: the imagenet stem starts at filters / 4, so filters {self.filters} is too few")
        if not self.stages or min(self.stages) < 1 or sum(self.stages) > MAX_CELLS or len(self.stages) > 6:
            raise ConfigError(f"scale: stages {list(self.stages)} must be 1 to 6 counts of at least one cell each")
        if not 0 < self.bn_eps < 1:
            raise ConfigError(f"scale: bn_eps {self.bn_eps} is not between 0 and 1")
        if self.aux_size is not None and (len(self.stages) < 2 or min(self.aux_size) < 5):
            raise ConfigError("scale: an auxiliary head needs at least two stages and a map of at least 5x5")

    @property
    def minimum_size(self) -> int:
        """The least side of a picture, in pixels, that the stem takes."""
        return 8 if self.stem == "cifar" else 32


@dataclass(frozen=True)
class Feed:
    """Where an input state comes from: map `part` of what step `step` of the network put out, then `layers`."""

    step: int
    part: int
    layers: Layers
    channels: int


@dataclass(frozen=True)
class BlockPlan:
    states: tuple[int, int]
    ops: tuple[Layers, Layers]
    identities: tuple[bool, bool]  # drop path spares identities
    combine: str
    combine_layers: Layers


@dataclass(frozen=True)
class CellPlan:
    """One cell. `index` counts all cells from 0 in drop path's formula; `stride` is 2 in a reduction cell."""

    name: str
    index: int
    channels: int
    stride: int
    feeds: tuple[Feed, ...]
    blocks: tuple[BlockPlan, ...]
    outputs: tuple[tuple[int, Layers], ...]  # states that leave the cell, each with what fits it to the others
    separate: bool

    @property
    def parts(self) -> tuple[int, ...]:
        """Channels of each map the cell puts out: one for a concatenation, one per state for separate outputs."""
        each = (self.channels,) * len(self.outputs)
        return each if self.separate else (sum(each),)


@dataclass(frozen=True)
class NetworkPlan:
    """The stem's layer lists and the cells in order. A *step* is one of these: stem parts first, then cells.

    `strides` has the total stride at each step, `features` the last step at each stride, `aux` the step whose output
    the auxiliary head reads, and `head` the layers between the last step and the global average.
    """

    stem: tuple[Layers, ...]
    cells: tuple[CellPlan, ...]
    strides: tuple[int, ...]
    features: tuple[int, ...]
    aux: int | None
    head: Layers
    head_channels: int


def make_plan(config: NetworkConfig) -> NetworkPlan:
    """The wiring of a config of kind "cell"."""
    return _Planner(config.architecture, config.scale, config.in_channels).plan()


class _Planner:
    def __init__(self, genotype: Genotype, scale: CellScale, in_channels: int) -> None:
        self.genotype, self.scale = genotype, scale
        self.stem = _stem(scale, in_channels)
        self.parts: list[tuple[int, ...]] = []  # channels of every map of every step
        self.strides: list[int] = []
        stride = 1
        for layers in self.stem:
            for layer in layers:
                stride *= layer.stride[0] if isinstance(layer, Conv) else 1
            self.parts.append((next(layer.channels for layer in reversed(layers) if isinstance(layer, Norm)),))
            self.strides.append(stride)
        self.cells: list[CellPlan] = []

    def plan(self) -> NetworkPlan:
        scale, last = self.scale, len(self.scale.stages) - 1
        if scale.stem == "imagenet":
            for index in range(2):  # two reduction cells at a quarter and half of the width
                self.add(f"stem_{index}", self.genotype.reduction, int(scale.filters / 4 * 2**index), 2, self.behind(1))
        normals = reductions = 0
        aux = None
        for stage, depth in enumerate(scale.stages):
            channels = scale.filters * 2**stage
            before = self.behind(1)
            if stage:
                self.add(f"reduction_{reductions}", self.genotype.reduction, channels, 2, before)
                reductions += 1
            for position in range(depth):
                skips = scale.skip_reduction_input and stage and position == 0
                previous = before if skips else self.behind(1)
                self.add(f"normal_{normals}", self.genotype.normal, channels, 1, previous)
                normals += 1
            if stage == last - 1:
                aux = len(self.parts) - 1
        features = [step for step, stride in enumerate(self.strides) if stride not in self.strides[step + 1 :]]
        return NetworkPlan(
            self.stem,
            tuple(self.cells),
            tuple(self.strides),
            tuple(features),
            aux,
            () if scale.style == "nds" else (ReLU("relu"),),
            sum(self.parts[-1]),
        )

    def behind(self, n: int) -> int | None:
        """The step n before the last one, or None where the network has not had that many."""
        step = len(self.parts) - 1 - n
        return step if step >= 0 else None

    def add(self, name: str, cell: Cell, channels: int, stride: int, previous: int | None) -> None:
        feeds = self.feeds(cell, channels, previous)
        current_stride = self.strides[-1]
        states = [feed.channels for feed in feeds] + [channels] * len(cell.blocks)
        blocks = []
        for block in cell.blocks:
            edges = (block.left, block.right)
            ops = tuple(self.op(e.op, states[e.state], channels, stride if e.state < cell.inputs else 1) for e in edges)
            identities = tuple(edge.op == "identity" for edge in edges)
            layers = COMBINES[block.combine](channels)
            blocks.append(BlockPlan((edges[0].state, edges[1].state), ops, identities, block.combine, layers))
        outputs = []
        for state in cell.outputs:
            strided = stride == 2 and state < cell.inputs
            if strided:  # TF-slim's _combine_unused_states has no ReLU here
                fit = factorized(states[state], channels)[1:]
            else:
                fit = () if states[state] == channels else conv(1, states[state], channels, 1)[1:]
            outputs.append((state, fit))
        separate = cell.output == "separate"
        index = len(self.cells)
        self.cells.append(CellPlan(name, index, channels, stride, feeds, tuple(blocks), tuple(outputs), separate))
        self.parts.append(self.cells[-1].parts)
        self.strides.append(current_stride * stride)

    def op(self, op: str, c_in: int, channels: int, stride: int) -> Layers:
        if op == "identity" and stride == 2 and self.scale.style == "nds":
            return factorized(c_in, channels)
        return OPS[op](c_in, channels, stride)

    def feeds(self, cell: Cell, channels: int, previous: int | None) -> tuple[Feed, ...]:
        current = len(self.parts) - 1
        if cell.output == "separate":
            parts = self.parts[current]
            return tuple(
                self.feed(current, i % len(parts), channels, always=self.scale.style == "nds")
                for i in range(cell.inputs)
            )
        feeds = [self.feed(current, 0, channels, always=True)]
        if cell.inputs == 2:
            # Where there is no step before the current one, the previous input is the current one, untouched.
            step = current if previous is None else previous
            untouched = previous is None and self.scale.style == "slim"
            feeds.append(
                Feed(step, 0, (), self.parts[step][0])
                if untouched
                else self.feed(step, 0, channels, always=self.scale.style == "nds")
            )
        return tuple(feeds)

    def feed(self, step: int, part: int, channels: int, always: bool) -> Feed:
        c_in = self.parts[step][part]
        if self.strides[step] != self.strides[-1]:
            return Feed(step, part, factorized(c_in, channels), channels)
        fit = always or c_in != channels
        return Feed(step, part, conv(1, c_in, channels, 1) if fit else (), channels)


def _stem(scale: CellScale, in_channels: int) -> tuple[Layers, ...]:
    c = scale.stem_channels
    if scale.stem == "imagenet":  # followed by two reduction cells
        return ((Conv("conv", in_channels, c, (3, 3), (2, 2), valid=True), Norm("bn", c)),)
    if scale.stem == "imagenet-nds":  # DARTS' and NDS' convolutional stem
        half = c // 2
        return (
            (
                *(Conv("conv_1", in_channels, half, (3, 3), (2, 2)), Norm("bn_1", half), ReLU("relu")),
                *(Conv("conv_2", half, c, (3, 3), (2, 2)), Norm("bn_2", c)),
            ),
            (ReLU("relu"), Conv("conv", c, c, (3, 3), (2, 2)), Norm("bn", c)),
        )
    return ((Conv("conv", in_channels, c, (3, 3)), Norm("bn", c)),)
