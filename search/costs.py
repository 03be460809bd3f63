"""What an architecture costs, in the reward and as a limit. Imports no torch."""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from nasnet_zoo.arch.checks import check_fields
from nasnet_zoo.arch.cost import network_cost
from nasnet_zoo.arch.layers import Cost
from nasnet_zoo.errors import ConfigError, SearchError

from .children.base import BaseChildSettings
from .spaces.base import Space

DEVICE = "latency_device"  # the metric that says where a latency was measured
SAMPLED = 200  # random architectures, at the start of a search, of which some must meet its target and limits
UNITS = {"multiply_adds": "multiply-adds", "parameters": "parameters", "latency_ms": "ms", "latency_batch_ms": "ms"}


@dataclass(frozen=True)
class CostSettings:
    """What a child's cost does to its reward, and how much it may be.

    If a `measure` is named, the reward is multiplied by (cost / target) ** exponent, as in MnasNet (Tan et al. 2019,
    equation 2); above the target the exponent is `beyond`, if that is given. With -0.07 on both sides, twice the cost
    is worth a twentieth of the accuracy; 0 and -1 make the target a limit that few cross. Children with more than
    `max_multiply_adds` or `max_parameters` are rejected before they are trained. (The limit of a latency is the child's
    `max_latency_ms`, because it has to be measured.) All of it is about the child's own network, for one picture: a
    network that is transferred from its cell costs more in about the same ratio.
    """

    measure: Literal["", "multiply_adds", "parameters", "latency_ms", "latency_batch_ms"] = ""
    target: float | None = None
    exponent: float = -0.07
    beyond: float | None = None
    max_multiply_adds: float | None = None
    max_parameters: float | None = None

    def __post_init__(self) -> None:
        check_fields(self, "cost")
        if bool(self.measure) != (self.target is not None):
            raise ConfigError("cost: a measure and its target go together; give both, or neither")
        amounts = (self.target, self.max_multiply_adds, self.max_parameters)
        if any(amount is not None and amount <= 0 for amount in amounts):
            raise ConfigError("cost: the target and the limits must be above 0")
        if not -10 <= self.exponent <= 0 or not -10 <= (self.beyond or 0) <= 0:
            raise ConfigError("cost: exponents lie between -10 and 0: what costs more is worth less")

    def factor(self, metrics: Mapping[str, Any]) -> float:
        """What the reward of a child with these metrics is multiplied by; raises KeyError if one is missing."""
        if self.target is None:
            return 1.0
        share = float(metrics[self.measure]) / self.target
        exponent = self.beyond if share > 1 and self.beyond is not None else self.exponent
        return float(share**exponent)

    @property
    def limits(self) -> dict[str, float]:
        """The most of each measure that a child may have."""
        given = {"multiply_adds": self.max_multiply_adds, "parameters": self.max_parameters}
        return {measure: limit for measure, limit in given.items() if limit is not None}

    def excess(self, cost: Cost) -> str | None:
        """Which limit a child goes beyond, and how far; None if it goes beyond none."""
        for measure, limit in self.limits.items():
            if getattr(cost, measure) > limit:
                return f"{getattr(cost, measure):,} {UNITS[measure]}, and {limit:,.0f} are the most"
        return None


class Latencies:
    """The device on which a search's latencies were measured; those of another one cannot be compared with them."""

    def __init__(self) -> None:
        self.device: str | None = None

    def check(self, child: int, metrics: Mapping[str, Any]) -> None:
        """Raises SearchError for a child with a latency of another device than those before it."""
        here = metrics.get(DEVICE, self.device)
        self.device = self.device or here
        if here != self.device:
            raise SearchError(
                f"the latency of child {child} was measured on {here}, and those before it on {self.device}: they "
                f"cannot be compared, so go on with devices of that kind alone, or begin another search"
            )


def child_cost(child: BaseChildSettings, space: Space, architecture: Any) -> Cost | None:
    """The cost of the network that such a child is; None if it is none, or cannot be built."""
    try:
        network = child.network(architecture, space.kind)
    except ConfigError:
        return None
    return None if network is None else network_cost(network)


def check_measured(settings: CostSettings, child: BaseChildSettings) -> None:
    """Raises ConfigError if the reward needs a latency that such children do not measure."""
    if settings.measure.startswith("latency") and not getattr(child, "latency", 0):
        raise ConfigError(
            f"search: the reward is measured by {settings.measure}, and children measure none: set child.latency to a "
            f"batch's size, 32 for instance, if the children are networks"
        )


def check_reachable(settings: CostSettings, child: BaseChildSettings, space: Space, seed: int) -> None:
    """Raises ConfigError if no cell of a sample of the space meets the target and the limits, or if they cannot be
    known."""
    wanted = dict(settings.limits)
    if settings.measure in ("multiply_adds", "parameters") and settings.target is not None:
        wanted[settings.measure] = min(settings.target, wanted.get(settings.measure, settings.target))
    if not wanted:
        return
    rng = random.Random(seed)
    sampled = [child_cost(child, space, space.decode(space.sample(rng))) for _ in range(SAMPLED)]
    costs = [cost for cost in sampled if cost is not None]
    if not costs:
        raise ConfigError(
            f"search: children of the task {child.task} are no networks, so that their cost is not known: leave "
            f"out the target and the limits of cost"
        )
    if any(all(getattr(cost, measure) <= most for measure, most in wanted.items()) for cost in costs):
        return
    said = " and ".join(f"{most:,.0f} {UNITS[measure]}" for measure, most in wanted.items())
    least = " and ".join(f"{min(getattr(c, measure) for c in costs):,} {UNITS[measure]}" for measure in wanted)
    raise ConfigError(
        f"search: none of {SAMPLED} random cells of the space {space.name} has at most {said}; the least is {least} at "
        f"the size of the children: raise the target or the limits, or make the children smaller"
    )
