"""`transfer`: from a found architecture to a network of a given size (NASNet paper, section 3, table 2)."""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from nasnet_zoo.arch.checks import check_fields
from nasnet_zoo.arch.config import NetworkConfig
from nasnet_zoo.arch.cost import Cost, network_cost, peak_values
from nasnet_zoo.arch.kinds import Sizing, get_kind, kind_of
from nasnet_zoo.errors import ConfigError, SearchError
from nasnet_zoo.util.arguments import checked

MAX_CELLS = 12  # N; the published networks have 2 to 7
MAX_FILTERS = 2048  # F; the published networks have 32 to 216
CLOSE = 0.05  # how far below the target still counts as on it
# F / N of the paper's networks of NASNet-A, by their parameters: 4 @ 1056, 5 @ 1536, 7 @ 1920 and 6 @ 4032 for
# ImageNet, 6 @ 768 and 7 @ 2304 for CIFAR.
PROPORTIONS = {
    "imagenet": {5.3e6: 44 / 4, 12.3e6: 64 / 5, 24.6e6: 80 / 7, 88.8e6: 168 / 6},
    "cifar": {3.3e6: 32 / 6, 32.6e6: 96 / 7},
}
FIRST_GUESS = 64  # of F


@dataclass(frozen=True)
class Target:
    """The largest cost of the network for one picture, or its size: at most `multiply_adds` or `parameters`, `cells`
    (N) normal cells per stage, `penultimate` (P) channels of the last map. Raises SearchError if nothing is given or
    the values make no sense."""

    multiply_adds: float | None = None
    parameters: float | None = None
    cells: int | None = None
    penultimate: int | None = None

    def __post_init__(self) -> None:
        check_fields(self, "transfer")
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
    """One rung of the ladder: a network of `cells` (N) and `filters` (F), and its cost. `memory` is in bytes: the
    float32 weights plus the peak memory of the maps in the forward pass of one picture."""

    config: NetworkConfig
    cells: int
    filters: int

    @cached_property
    def cost(self) -> Cost:
        return network_cost(self.config)

    @property
    def penultimate(self) -> int:
        """P, the channels of the last map."""
        return self.config.plan.num_features

    @property
    def memory(self) -> int:
        weights = self.cost.parameters + self.cost.bn_statistics
        return 4 * (weights + peak_values(self.config.plan, self.config.preprocess.size))


@checked
def transfer(
    architecture: Any,
    target: Target,
    *,
    kind: str | None = None,
    stem: Literal["imagenet", "cifar"] = "imagenet",
    size: int | None = None,
    num_classes: int | None = None,
    auxiliary: bool = True,
) -> NetworkConfig:
    """The network of an architecture that fits a target best.

    Args:
        architecture: a genotype, or another kind's architecture.
        target: how much it may cost, or how large it is.
        kind: the architecture's kind, if its type does not say.
        stem: for ImageNet's pictures or for CIFAR's.
        size: pixels a side; 224 for ImageNet and 32 for CIFAR.
        num_classes: 1000 for ImageNet and 10 for CIFAR.
        auxiliary: whether it gets the auxiliary head that the paper trains such networks with, where its pictures are
            large enough; no cost here includes it. With one it cannot be trained on much smaller pictures.

    Returns:
        The config of the variant at most 5 % below the target, if there is one; of several the one whose ratio of width
        to depth is closest to that of the paper's networks of its size (PROPORTIONS).

    Raises:
        SearchError: if no variant fits.
    """
    scale = dict(kind=kind, stem=stem, size=size, num_classes=num_classes, auxiliary=auxiliary)
    return best_of(ladder(architecture, target, **scale), target, stem).config


def best_of(rungs: list[Variant], target: Target, stem: Literal["imagenet", "cifar"]) -> Variant:
    """The rung that `transfer` chooses."""
    used = [max(_shares(rung.cost, target)) for rung in rungs]
    least = min(1 - CLOSE, max(used))
    close = [rung for rung, share in zip(rungs, used) if share >= least]
    return min(close, key=lambda rung: abs(rung.filters / rung.cells - _proportion(rung.cost.parameters, stem)))


def _proportion(parameters: int, stem: Literal["imagenet", "cifar"]) -> float:
    """F / N of the paper's networks of that size: linear in its logarithm between two of them, constant beyond."""
    sizes, proportions = zip(*PROPORTIONS[stem].items())
    return float(np.interp(math.log(parameters), np.log(sizes), proportions))


def ladder(
    architecture: Any,
    target: Target,
    *,
    kind: str | None = None,
    stem: Literal["imagenet", "cifar"] = "imagenet",
    size: int | None = None,
    num_classes: int | None = None,
    auxiliary: bool = True,
) -> list[Variant]:
    """The widest variant within the target, for every number of cells N; raises SearchError if there is none."""
    variant, narrowest = _variants(architecture, target, kind, stem, size, num_classes, auxiliary=auxiliary)
    if target.penultimate is not None and target.cells is not None:
        return [variant(target.cells, _filters_of(target.penultimate, variant, narrowest))]
    rungs, guess = [], FIRST_GUESS
    for cells in [target.cells] if target.cells else range(1, MAX_CELLS + 1):
        low, high = narrowest - 1, MAX_FILTERS + 1  # `low` fits, or is too narrow to be; `high` does not fit
        while high - low > 1:
            guess = min(max(guess, low + 1), high - 1)
            share = max(_shares(variant(cells, guess).cost, target))
            low, high = (guess, high) if share <= 1 else (low, guess)
            guess = int(guess / share**0.5)  # the cost grows about as F squared
        if low >= narrowest:
            rungs.append(variant(cells, low))
    return rungs


def check_target(
    architecture: Any,
    target: Target,
    *,
    kind: str | None = None,
    stem: Literal["imagenet", "cifar"] = "imagenet",
    size: int | None = None,
    num_classes: int | None = None,
) -> None:
    """Raises the SearchError of `transfer` if no variant of the architecture fits, without looking for the best."""
    _variants(architecture, target, kind, stem, size, num_classes)


def _variants(
    architecture: Any,
    target: Target,
    kind: str | None,
    stem: Literal["imagenet", "cifar"],
    *scale: int | None,
    auxiliary: bool = True,
) -> tuple[Callable[[int, int], Variant], int]:
    """What makes a variant of N and F, and the least F; raises SearchError if no variant fits the target."""
    sized = get_kind(kind or kind_of(architecture)).sized

    def variant(cells: int, filters: int) -> Variant:
        sizing = Sizing(cells, filters, "cifar10" if stem == "cifar" else "imagenet", *scale, auxiliary=auxiliary)
        return Variant(sized(architecture, sizing), cells, filters)

    narrowest = _narrowest(variant)
    _check_size(variant(1, narrowest).config, stem)
    if target.penultimate is not None:
        _filters_of(target.penultimate, variant, narrowest)
    least = variant(target.cells or 1, narrowest).cost
    if max(_shares(least, target)) > 1:
        raise SearchError(
            f"transfer: no network of this cell fits; the smallest has {least.parameters:,} parameters and "
            f"{least.multiply_adds:,} multiply-adds"
        )
    return variant, narrowest


def _narrowest(variant: Callable[[int, int], Variant]) -> int:
    """The least F that the kind can build."""
    for filters in range(1, FIRST_GUESS):
        try:
            variant(1, filters)
            return filters
        except ConfigError:
            continue
    return FIRST_GUESS


def _check_size(config: NetworkConfig, stem: str) -> None:
    least, side = config.plan.minimum_size, min(config.preprocess.size)
    if side < least:
        raise SearchError(f"transfer: the {stem} stem takes pictures of at least {least} pixels, not {side}")


def _filters_of(penultimate: int, variant: Callable[[int, int], Variant], narrowest: int) -> int:
    """The F whose last map has `penultimate` channels."""
    per_filter = variant(1, 16).penultimate // 16
    filters, rest = divmod(penultimate, per_filter)
    if rest or not narrowest <= filters <= MAX_FILTERS:
        near = max(round(penultimate / per_filter), narrowest) * per_filter
        raise SearchError(
            f"transfer: the last map of this cell's networks has {per_filter} F channels, which is never "
            f"{penultimate}; the nearest is {near}"
        )
    return filters


def _shares(cost: Cost, target: Target) -> list[float]:
    """How much of each limit a network uses up."""
    limits = (cost.multiply_adds, target.multiply_adds), (cost.parameters, target.parameters)
    return [used / limit for used, limit in limits if limit is not None] or [1.0]
