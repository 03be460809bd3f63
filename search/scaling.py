"""From a found cell to a network of the size that is wanted (NASNet paper, section 3 and table 2). Imports no torch."""

import dataclasses
from dataclasses import dataclass
from typing import Literal

from nasnet_zoo.arch.cells import CellScale, make_plan
from nasnet_zoo.arch.config import NetworkConfig, Preprocess
from nasnet_zoo.arch.cost import Cost, cell_cost, layers_cost
from nasnet_zoo.arch.genotype import Genotype
from nasnet_zoo.errors import SearchError
from nasnet_zoo.models import CIFAR10, INCEPTION

MAX_CELLS = 12  # N; the published networks have 2 to 7
MAX_FILTERS = 2048  # F; the published networks have 32 to 216
CLOSE = 0.05  # how far below the target still counts as on it
PROPORTION = 11  # F / N of NASNet-A mobile, 4 @ 1056, which the choice among variants of one cost goes by
WIDE = 64  # from this F on the published networks have the wide stem and skip the reduction's input


@dataclass(frozen=True)
class Target:
    """What the network may cost for one picture, or what it shall be: `multiply_adds` or `parameters` at most, `cells`
    (N) normal cells per stage, `penultimate` (P) channels of the last map. Raises SearchError if nothing is given or
    nothing sensible."""

    multiply_adds: float | None = None
    parameters: float | None = None
    cells: int | None = None
    penultimate: int | None = None

    def __post_init__(self) -> None:
        given = [value for value in dataclasses.astuple(self) if value is not None]
        if not given or min(given) <= 0:
            raise SearchError("transfer: give --max-madds, --params, or both -n and -p, each above zero")
        if self.cells is not None and self.cells > MAX_CELLS:
            raise SearchError(f"transfer: N = {self.cells} is more than the {MAX_CELLS} that make sense")
        if self.multiply_adds is None and self.parameters is None and None in (self.cells, self.penultimate):
            raise SearchError("transfer: without --max-madds or --params both -n and -p are needed")
        if self.penultimate is not None and (self.multiply_adds or self.parameters):
            raise SearchError("transfer: -p says how wide the network is, so it goes with -n alone")


@dataclass(frozen=True)
class Variant:
    """One rung of the ladder: a network and what it costs. `memory` is bytes: float32 weights and the hidden states
    of the largest cell for one picture."""

    config: NetworkConfig
    cost: Cost
    penultimate: int
    memory: int

    @property
    def cells(self) -> int:
        return self.config.scale.stages[0]

    @property
    def filters(self) -> int:
        return self.config.scale.filters


def transfer(
    genotype: Genotype,
    target: Target,
    *,
    stem: Literal["imagenet", "cifar"] = "imagenet",
    style: Literal["slim", "nds"] = "slim",
    size: int | None = None,
    num_classes: int | None = None,
) -> NetworkConfig:
    """The config of the variant that fits the target best: within 5 % below it if any is, and of those the one whose
    width and depth stand closest to NASNet-A mobile's proportion. Raises SearchError if none fits."""
    rungs = ladder(genotype, target, stem=stem, style=style, size=size, num_classes=num_classes)
    used = [max(_shares(rung.cost, target)) for rung in rungs]
    least = min(1 - CLOSE, max(used))
    close = [rung for rung, share in zip(rungs, used) if share >= least]
    return min(close, key=lambda rung: abs(rung.filters / rung.cells - PROPORTION)).config


def ladder(
    genotype: Genotype,
    target: Target,
    *,
    stem: Literal["imagenet", "cifar"] = "imagenet",
    style: Literal["slim", "nds"] = "slim",
    size: int | None = None,
    num_classes: int | None = None,
) -> list[Variant]:
    """For every number of cells N the widest variant within the target; raises SearchError if there is none."""

    def variant(cells: int, filters: int) -> Variant:
        return measured(_config(genotype, cells, filters, stem, style, size, num_classes))

    narrowest = 8 if stem == "imagenet" else 2
    if target.penultimate is not None:
        per_filter = variant(1, 16).penultimate // 16
        filters, rest = divmod(target.penultimate, per_filter)
        if rest or not narrowest <= filters <= MAX_FILTERS:
            near = max(round(target.penultimate / per_filter), narrowest) * per_filter
            raise SearchError(
                f"transfer: the last map of this cell's networks has {per_filter} F channels, which is never "
                f"{target.penultimate}; the nearest is {near}"
            )
        return [variant(target.cells, filters)]
    rungs, guess = [], WIDE
    for cells in [target.cells] if target.cells else range(1, MAX_CELLS + 1):
        low, high = narrowest - 1, MAX_FILTERS + 1  # `low` fits, or is too narrow to be; `high` does not fit
        while high - low > 1:
            guess = min(max(guess, low + 1), high - 1)
            config = _config(genotype, cells, guess, stem, style, size, num_classes)
            share = max(_shares(cell_cost(config, config.preprocess.size), target))
            low, high = (guess, high) if share <= 1 else (low, guess)
            guess = int(guess / share**0.5)  # the cost grows about as F squared
        if low >= narrowest:
            rungs.append(variant(cells, low))
    if not rungs:
        least = variant(target.cells or 1, narrowest)
        raise SearchError(
            f"transfer: no network of this cell fits; the smallest has {least.cost.parameters:,} parameters and "
            f"{least.cost.multiply_adds:,} multiply-adds"
        )
    return rungs


def _shares(cost: Cost, target: Target) -> list[float]:
    """How much of each limit a network uses up."""
    limits = (cost.multiply_adds, target.multiply_adds), (cost.parameters, target.parameters)
    return [used / limit for used, limit in limits if limit is not None] or [1.0]


def _config(
    genotype: Genotype, cells: int, filters: int, stem: str, style: str, size: int | None, num_classes: int | None
) -> NetworkConfig:
    stages = (cells,) * 3
    if stem == "cifar":
        scale = CellScale("cifar", 3 * filters, filters, stages, style=style, bn_eps=1e-5)
        preprocess = dataclasses.replace(CIFAR10, size=(size or 32,) * 2)
        config = NetworkConfig(genotype, scale, preprocess, num_classes or 10)
    else:
        wide = filters >= WIDE
        if style == "nds":
            scale = CellScale("imagenet-nds", filters, filters, stages, style=style)
        else:
            scale = CellScale("imagenet", 96 if wide else 32, filters, stages, skip_reduction_input=wide)
        labels = "imagenet-1k" if num_classes in (None, 1000) else None
        preprocess = Preprocess((size or 224,) * 2, **INCEPTION)
        config = NetworkConfig(genotype, scale, preprocess, num_classes or 1000, labels=labels)
    if min(preprocess.size) < scale.minimum_size:
        least = scale.minimum_size
        raise SearchError(f"transfer: the {stem} stem takes pictures of at least {least} pixels, not {size}")
    return config


def measured(config: NetworkConfig) -> Variant:
    """A config with its exact cost, true penultimate width and memory."""
    size = config.preprocess.size
    cost = cell_cost(config, size)
    plan = make_plan(config)
    return Variant(config, cost, plan.head_channels, 4 * (cost.parameters + _largest_cell(config, size)))


def _largest_cell(config: NetworkConfig, size: tuple[int, int]) -> int:
    """Values in the maps that the largest cell reads, makes and hands on."""
    plan = make_plan(config)
    maps: list[int] = []  # values per channel of each step's map
    for layers in plan.stem:
        size = layers_cost(layers, size)[1]
        maps.append(size[0] * size[1])
    largest = 0
    for cell in plan.cells:
        size = tuple(-(-n // cell.stride) for n in size)
        area = size[0] * size[1]
        read = sum(maps[feed.step] * feed.channels for feed in cell.feeds)
        made = (len(cell.blocks) * cell.channels + sum(cell.parts)) * area
        largest = max(largest, read + made)
        maps.append(area)
    return largest
