"""The record of a child, and how records are made from a journal's events."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from nasnet_zoo.errors import ConfigError

from .children.base import SUCCESSES
from .spaces.base import Space, Tokens


@dataclass
class Record:
    """Everything that is known about one child."""

    child: int
    tokens: Tokens
    hash: str
    notes: dict[str, Any] = field(default_factory=dict)
    attempts: int = 0  # how often it was started
    stopped: int = field(default=0, compare=False)  # how often the search was stopped meanwhile
    status: str | None = None  # None until it is finished
    reward: float | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    message: str = ""
    seconds: float = 0.0
    served: int | None = None  # the child whose metrics it got
    rung: int | None = None  # the epochs after which it was told to stop, if it was
    worker: str = field(default="", compare=False)  # host:process:device
    time: float = field(default=0.0, compare=False)  # when it finished, in seconds since 1970

    @property
    def tries(self) -> int:
        """The attempts that count: those in which the search was not stopped."""
        return self.attempts - self.stopped

    @property
    def finished(self) -> bool:
        return self.status is not None

    @property
    def failed(self) -> bool:
        return self.status is not None and self.status not in SUCCESSES


class Proposed:
    """Makes the records of a journal's "proposed" events, in order.

    The first version's hashes of cells did not include the style. If the first child's hash is not the one that this
    version computes, all are computed again, so that repeats are recognised. `numbers` are the notes that its searcher
    needs.
    """

    def __init__(self, space: Space, numbers: Sequence[str] = ()) -> None:
        self.space, self.numbers = space, numbers
        self.made, self.anew = 0, False

    def record(self, child: int, body: dict[str, Any]) -> Record:
        """The record of a checked event; raises ConfigError if it is not the next child, its tokens or stage are not of
        the space, or a note is missing."""
        if child != self.made:
            raise ConfigError(f"child {child} is proposed after {self.made} children")
        self.made += 1
        tokens, digest = self.space.check(body["tokens"]), body["hash"]
        for name in self.numbers:
            value = body["notes"].get(name)
            values = value if isinstance(value, list) and len(value) == len(tokens) else [value]
            if not all(type(each) is float and math.isfinite(each) for each in values):
                raise ConfigError(
                    f"child {child} has the note {name} {repr(value)[:60]}, not a number or one for each token"
                )
        stage = body["notes"].get("stage", 0)
        if type(stage) is not int or not 0 <= stage < self.space.stages:
            raise ConfigError(f"{self.space.name}: child {child} is of stage {stage!r}; it has {self.space.stages}")
        if child == 0 or self.anew:
            now = self.space.hash(self.space.decode(tokens))
            self.anew, digest = self.anew or now != digest, now
        return Record(child, tokens, digest, body["notes"])
