"""The kind "cell": a genotype's cells stacked by a scale, lowered to a plan.

The rules of the macro-architecture (TF-slim's `_build_nasnet_base`, NASNet paper section 3 and appendix A.4) are all in
this file, and so are the functions that make a whole config from a genotype.
"""

import dataclasses
import reprlib
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal

from ..errors import ConfigError
from .checks import MAX_CHANNELS, check_fields
from .config import NetworkConfig
from .genotype import Cell, Genotype
from .kinds import Kind, Sizing, register_kind
from .layers import Conv, Layers, Norm, ReLU
from .ops import COMBINES, OPS, conv, factorized
from .plan import PICTURE, Auxiliary, Plan, Step
from .preprocess import CIFAR10, INCEPTION, TORCH_IMAGENET

MAX_CELLS = 1000
MAX_STEPS = 1 << 13  # the published networks have hundreds; these take ten seconds to build
WIDE = 64  # published networks of this F or more have the wide stem and skip the reduction's input
# Of the map that an auxiliary head reads: its pool takes 5 pixels, and for 64 its second convolution would have 39
# million parameters. Published ones have 14 to 21.
AUXILIARY_SIDES = range(5, 33)


@dataclass(frozen=True)
class CellScale:
    """How many of a genotype's cells are stacked and how wide they are (NASNet paper, section 3 and appendix A).

    `stages` counts the normal cells of each stage; a reduction cell is between two stages, and `filters` (the
    paper's F; P = 24 F for NASNet-A's last map) doubles there. `stem` is "cifar" (3x3, stride 1), "imagenet" (3x3,
    stride 2, valid, then two reduction cells) or "imagenet-nds" (DARTS' three convolutions). With
    `skip_reduction_input` the cell after a reduction reads, as its previous input, the map two cells before the
    reduction instead of the one just before it. `aux_size` is the (height, width) of the map that the auxiliary head
    was made for, or None for no auxiliary head.
    """

    stem: Literal["cifar", "imagenet", "imagenet-nds"]
    stem_channels: int
    filters: int
    stages: tuple[int, ...]
    skip_reduction_input: bool = False
    bn_eps: float = 1e-3
    aux_size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        check_fields(self, "scale")
        object.__setattr__(self, "stages", tuple(self.stages))
        if not 1 <= self.filters <= MAX_CHANNELS or not 2 <= self.stem_channels <= MAX_CHANNELS:
            raise ConfigError(
                f"scale: filters {self.filters} and stem_channels {self.stem_channels} must lie between 2 and "
                f"{MAX_CHANNELS}"
            )
        if self.stem == "imagenet" and self.filters < 8:
            raise ConfigError(f"scale: the imagenet stem starts at filters / 4, so filters {self.filters} is too few")
        if not self.stages or min(self.stages) < 1 or sum(self.stages) > MAX_CELLS or len(self.stages) > 6:
            raise ConfigError(
                f"scale: stages {reprlib.repr(list(self.stages))} must be 1 to 6 counts of at least one cell each"
            )
        if not 0 < self.bn_eps < 1:
            raise ConfigError(f"scale: bn_eps {self.bn_eps} is not between 0 and 1")
        if self.aux_size is not None and (len(self.stages) < 2 or min(self.aux_size) < 5 or max(self.aux_size) > 256):
            raise ConfigError("scale: an auxiliary head needs at least two stages and a map of 5x5 to 256x256")

    @property
    def minimum_size(self) -> int:
        """The least side of a picture, in pixels, that the stem takes."""
        return 8 if self.stem == "cifar" else 32


def cifar(
    genotype: Genotype, filters: int, stages: tuple[int, ...], stem_channels: int, size: int = 32, classes: int = 10
) -> NetworkConfig:
    """A network of this genotype for CIFAR-10, or other pictures of `size` pixels (NASNet paper, appendix A.6)."""
    scale = CellScale("cifar", stem_channels, filters, stages, bn_eps=1e-5)
    preprocess = dataclasses.replace(CIFAR10, size=(size, size))
    return NetworkConfig(genotype, scale, preprocess, classes, labels="cifar10" if classes == 10 else None)


def imagenet(genotype: Genotype, scale: CellScale, size: int = 224, classes: int = 1000) -> NetworkConfig:
    """A network of this genotype for ImageNet's pictures at `size` pixels, with the preprocessing of its family."""
    preprocess = dataclasses.replace(TORCH_IMAGENET if genotype.style == "nds" else INCEPTION, size=(size, size))
    return NetworkConfig(genotype, scale, preprocess, classes, labels="imagenet-1k" if classes == 1000 else None)


def sized(genotype: Genotype, sizing: Sizing) -> NetworkConfig:
    """The config of a given size: N normal cells per stage, F filters (NASNet paper, section 3, table 2)."""
    filters, stages, wide = sizing.width, (sizing.depth,) * 3, sizing.width >= WIDE
    if sizing.data == "cifar10":
        stem = max(round(filters * sizing.stem), 2)
        config = cifar(genotype, filters, stages, stem, sizing.size or 32, sizing.classes or 10)
    elif genotype.style == "nds":
        scale = CellScale("imagenet-nds", filters, filters, stages)
        config = imagenet(genotype, scale, sizing.size or 224, sizing.classes or 1000)
    else:
        scale = CellScale("imagenet", 96 if wide else 32, filters, stages, skip_reduction_input=wide)
        config = imagenet(genotype, scale, sizing.size or 224, sizing.classes or 1000)
    return _with_auxiliary(config) if sizing.auxiliary else config


def _with_auxiliary(config: NetworkConfig) -> NetworkConfig:
    """The network with TF-slim's auxiliary head, made for the map before its last reduction; as it is if that map is
    none for a head."""
    scale, size = config.scale, config.preprocess.size
    for layer in chain.from_iterable(_stem(scale, config.in_channels)):
        size = layer.size_after(size)
    halved = 2 ** (2 * (scale.stem == "imagenet") + len(scale.stages) - 2)
    height, width = (-(-side // halved) for side in size)
    if height not in AUXILIARY_SIDES or width not in AUXILIARY_SIDES:
        return config
    return dataclasses.replace(config, scale=dataclasses.replace(scale, aux_size=(height, width)))


def make_plan(genotype: Genotype, scale: CellScale, in_channels: int) -> Plan:
    """The wiring of a genotype at a scale, channel by channel."""
    return _Planner(genotype, scale, in_channels).plan()


class _Planner:
    """Adds the steps, cell by cell. A *map* is the output of a part of the stem or of a cell: one step, or several for
    a cell with separate outputs."""

    def __init__(self, genotype: Genotype, scale: CellScale, in_channels: int) -> None:
        self.genotype, self.scale, self.in_channels = genotype, scale, in_channels
        self.steps: list[Step] = []
        self.channels: list[int] = []
        self.maps: list[tuple[int, ...]] = []
        self.strides: list[int] = []  # of the maps
        self.cells = 2 * (scale.stem == "imagenet") + sum(scale.stages) + len(scale.stages) - 1
        self.laid = 0  # cells

    def plan(self) -> Plan:
        scale, slim = self.scale, self.genotype.style == "slim"
        self.stem()
        if scale.stem == "imagenet":
            for index in range(2):  # two reduction cells at a quarter and half of the width
                self.cell(f"stem_{index}", self.genotype.reduction, int(scale.filters / 4 * 2**index), 2, self.behind)
        normals = reductions = 0
        auxiliary = None
        for stage, depth in enumerate(scale.stages):
            channels, before = scale.filters * 2**stage, self.behind
            if stage:
                self.cell(f"reduction_{reductions}", self.genotype.reduction, channels, 2, before)
                reductions += 1
            for position in range(depth):
                skips = scale.skip_reduction_input and stage and position == 0
                self.cell(f"normal_{normals}", self.genotype.normal, channels, 1, before if skips else self.behind)
                normals += 1
            if stage == len(scale.stages) - 2 and scale.aux_size is not None:
                auxiliary = Auxiliary(self.maps[-1], scale.aux_size)
        features = [m for i, m in enumerate(self.maps) if self.strides[i] not in self.strides[i + 1 :]]
        last = self.step("head.joined", self.maps[-1], join="concat")
        output = self.step("head", (last,), (ReLU("relu"),) if slim else ())
        return Plan(
            steps=tuple(self.steps),
            output=output,
            in_channels=self.in_channels,
            features=tuple(features),
            bn_eps=scale.bn_eps,
            minimum_size=scale.minimum_size,
            auxiliary=auxiliary,
        )

    @property
    def behind(self) -> int | None:
        """The map before the last one, or None if the network has only one so far."""
        return len(self.maps) - 2 if len(self.maps) > 1 else None

    def step(
        self,
        name: str,
        inputs: tuple[int, ...],
        layers: Layers = (),
        join: Literal["only", "add", "concat"] = "only",
        drop_path: float = 0.0,
    ) -> int:
        """Adds a step, unless it would only pass on what it reads, and returns the index of its map."""
        if len(inputs) == 1 and join != "add":
            if not layers:
                return inputs[0]
            join = "only"
        if len(self.steps) == MAX_STEPS:
            cells = f"{self.cells} cells of {len(self.genotype.normal.blocks)} blocks"
            raise ConfigError(f"scale: {cells} are more than {MAX_STEPS} steps: use fewer cells or blocks")
        step = Step(name, inputs, layers, join, drop_path)
        self.steps.append(step)
        self.channels.append(step.channels(self.channels, self.in_channels))
        return len(self.steps) - 1

    def stem(self) -> None:
        read, stride = PICTURE, 1
        for index, layers in enumerate(_stem(self.scale, self.in_channels)):
            read = self.step(f"stem.{index}", (read,), layers)
            for layer in layers:
                stride *= layer.reduction
            self.maps.append((read,))
            self.strides.append(stride)

    def cell(self, name: str, cell: Cell, channels: int, stride: int, previous: int | None) -> None:
        """Adds a cell. Names: `inputs.i` fits input i, `blocks.b.left` and `.right` are the operations,
        `outputs.s` fits state s to the others."""
        prefix, share = f"cells.{name}", (self.laid + 1) / self.cells
        states = self.inputs(prefix, cell, channels, previous)
        for index, block in enumerate(cell.blocks):
            where, sides = f"{prefix}.blocks.{index}", []
            for side, edge in (("left", block.left), ("right", block.right)):
                read = states[edge.state]
                layers = self.op(edge.op, self.channels[read], channels, stride if edge.state < cell.inputs else 1)
                drop = 0.0 if edge.op == "identity" else share  # drop path is not applied to identities
                sides.append(self.step(f"{where}.{side}", (read,), layers, drop_path=drop))
            join: Literal["add", "concat"] = "concat" if block.combine == "concat" else "add"
            joined = self.step(f"{where}.joined", (sides[0], sides[1]), join=join)
            states.append(self.step(f"{where}.combine", (joined,), COMBINES[block.combine](channels)))
        outputs = []
        for state in cell.outputs:
            c_in = self.channels[states[state]]
            if stride == 2 and state < cell.inputs:  # TF-slim's _combine_unused_states has no ReLU here
                fit = factorized(c_in, channels)[1:]
            else:
                fit = () if c_in == channels else conv(1, c_in, channels, 1)[1:]
            outputs.append(self.step(f"{prefix}.outputs.{state}", (states[state],), fit))
        whole = tuple(outputs) if cell.output == "separate" else (self.step(prefix, tuple(outputs), join="concat"),)
        self.maps.append(whole)
        self.strides.append(self.strides[-1] * stride)
        self.laid += 1

    def op(self, op: str, c_in: int, channels: int, stride: int) -> Layers:
        if op == "identity" and stride == 2 and self.genotype.style == "nds":
            return factorized(c_in, channels)
        return OPS[op](c_in, channels, stride)

    def inputs(self, prefix: str, cell: Cell, channels: int, previous: int | None) -> list[int]:
        """The indices of the cell's input states, after the layers that fit them to its width and size."""
        current, always = len(self.maps) - 1, self.genotype.style == "nds"
        if cell.output == "separate":
            parts = self.maps[current]
            return [
                self.fit(f"{prefix}.inputs.{i}", current, i % len(parts), channels, always) for i in range(cell.inputs)
            ]
        states = [self.fit(f"{prefix}.inputs.0", current, 0, channels, True)]
        if cell.inputs == 2:
            # If there is no map before the current one, the previous input is the current one, unchanged.
            if previous is None and not always:
                states.append(self.maps[current][0])
            else:
                source = current if previous is None else previous
                states.append(self.fit(f"{prefix}.inputs.1", source, 0, channels, always))
        return states

    def fit(self, name: str, source: int, part: int, channels: int, always: bool) -> int:
        read = self.maps[source][part]
        c_in = self.channels[read]
        if self.strides[source] != self.strides[-1]:
            return self.step(name, (read,), factorized(c_in, channels))
        return self.step(name, (read,), conv(1, c_in, channels, 1) if always or c_in != channels else ())


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


def _with_style(architecture: Any, scale: Any) -> tuple[Any, Any]:
    """Before version 2 the style was in the scale."""
    if isinstance(architecture, dict) and isinstance(scale, dict):
        scale = dict(scale)
        architecture = {**architecture, "style": scale.pop("style", "slim")}
    return architecture, scale


def _draw(genotype: Genotype, path: Any, **options: Any) -> None:
    from .draw.cells import draw_genotype  # matplotlib takes longer to import than all of this package

    draw_genotype(genotype, path, **options)


register_kind(
    "cell",
    Kind(
        architecture=Genotype,
        scale=CellScale,
        read=Genotype.from_json,
        write=Genotype.to_json,
        hash=lambda genotype: genotype.canonical_hash,
        plan=make_plan,
        sized=sized,
        draw=_draw,
        parts=("normal", "reduction"),
        recognise=lambda value: isinstance(value, dict) and {"normal", "reduction"} <= value.keys(),
        migrate=_with_style,
    ),
)
