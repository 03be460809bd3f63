"""Rungs: epochs after which children report how they do, and those that fall behind are stopped (asynchronous
successive halving, ASHA: Li et al. 2018). Imports no torch."""

from bisect import bisect_right, insort
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field

from nasnet_zoo.arch.checks import check_fields
from nasnet_zoo.errors import ConfigError

LINE_OF = 100  # children, the last ones: a searcher that learns proposes others than at first
LINE_LEAST = 10  # children; a line through fewer could point anywhere


@dataclass(frozen=True)
class RungSettings:
    """After so many `epochs`, the rungs, a child reports its accuracy. It goes on if its reward for that is among the
    best `keep`, a share, of all that were reported there so far; until `least` have reported, all go on. Without epochs
    no child is stopped."""

    epochs: tuple[int, ...] = ()
    keep: float = 1 / 3
    least: int = 3

    def __post_init__(self) -> None:
        check_fields(self, "rungs")
        object.__setattr__(self, "epochs", tuple(self.epochs))
        if min(self.epochs, default=1) < 1 or any(a >= b for a, b in zip(self.epochs, self.epochs[1:])):
            said = ", ".join(map(str, self.epochs))
            raise ConfigError(f"rungs: epochs {said} must be at least 1, and each more than the one before")
        if not 0 < self.keep < 1:
            raise ConfigError(f"rungs: keep {self.keep} does not lie between 0 and 1")
        if self.least < 1:
            raise ConfigError(f"rungs: least {self.least} must be at least 1")


@dataclass
class Rung:
    """What was reported at one rung: `rewards` and whether the child `goes_on`, by child, and all rewards `ranked`, the
    lowest first. `pairs` are (reward here, reward there) of the last that came to the next rung, or to the end."""

    rewards: dict[int, float] = field(default_factory=dict)
    goes_on: dict[int, bool] = field(default_factory=dict)
    ranked: list[float] = field(default_factory=list)
    pairs: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=LINE_OF))


class Rungs:
    """Decides which children go on, each when it reports: nobody waits until a whole generation has."""

    def __init__(self, settings: RungSettings) -> None:
        self.settings = settings
        self.rungs = {epoch: Rung() for epoch in settings.epochs}

    def goes_on(self, epoch: int, reward: float) -> bool:
        """Whether a child would go on that reported this reward now."""
        ranked = self.rungs[epoch].ranked
        better, reports = len(ranked) - bisect_right(ranked, reward), len(ranked) + 1
        return reports < self.settings.least or better < self.settings.keep * reports

    def answer(self, child: int, epoch: int) -> bool | None:
        """What the child was told when it reported there; None if it has not."""
        return self.rungs[epoch].goes_on.get(child)

    def enter(self, child: int, epoch: int, reward: float, goes_on: bool) -> None:
        """Takes over a report and the answer to it. Raises ValueError if there is no such rung, or the child has
        reported there before."""
        if epoch not in self.rungs or child in self.rungs[epoch].rewards:
            why = "it has before" if epoch in self.rungs else "there is no such rung"
            raise ValueError(f"child {child} cannot report after {epoch} epochs: {why}")
        rung = self.rungs[epoch]
        self._come_to(child, reward, before=epoch)
        rung.rewards[child], rung.goes_on[child] = reward, goes_on
        insort(rung.ranked, reward)

    def trained(self, child: int, reward: float) -> None:
        """Takes over the reward of a child that was trained to the end."""
        self._come_to(child, reward)

    def expected(self, child: int) -> float:
        """What a child that has reported would be worth in the end, by the line from each rung to the next."""
        last = max(place for place, rung in enumerate(self.rungs.values()) if child in rung.rewards)
        above = [*self.rungs.values()][last:]
        reward = above[0].rewards[child]
        for rung in above:
            reward = on_line(rung.pairs, reward)
        return reward

    def _come_to(self, child: int, reward: float, before: float = float("inf")) -> None:
        """Adds to the pairs of the rung before, if the child has reported there."""
        earlier = [rung for epoch, rung in self.rungs.items() if epoch < before]
        if earlier and child in earlier[-1].rewards:
            earlier[-1].pairs.append((earlier[-1].rewards[child], reward))


def on_line(pairs: Collection[tuple[float, float]], x: float) -> float:
    """The y at x of the line through pairs (x, y) with the least squares, where its slope is held between 0 and 1: the
    less an early reward says about a later one, the closer to the mean is what is expected.

    Through fewer than LINE_LEAST pairs, or pairs that are all at one place, the slope is 1, which adds to x how much
    more y was on average; and without pairs y is x.
    """
    if not pairs:
        return x
    xs, ys = zip(*pairs)
    mean_x, mean_y, slope = sum(xs) / len(xs), sum(ys) / len(ys), 1.0
    spread = sum((a - mean_x) ** 2 for a in xs)  # by rounding above 0 where all are the same, or 0 where they are not
    if len(pairs) >= LINE_LEAST and min(xs) < max(xs) and spread > 0:
        slope = min(max(sum((a - mean_x) * (b - mean_y) for a, b in pairs) / spread, 0.0), 1.0)
    return mean_y + slope * (x - mean_x)
