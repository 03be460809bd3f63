"""The record of a child, and how records are made from a journal's events."""

from dataclasses import dataclass, field
from typing import Any

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
    worker: str = field(default="", compare=False)  # host:process:device
    time: float = field(default=0.0, compare=False)  # when it finished, in seconds since 1970

    @property
    def tries(self) -> int:
        """The attempts that count: those in which the search was not stopped."""
        return self.attempts - self.stopped

    @property
    def finished(self) -> bool:
        return self.status is not None


class Proposed:
    """Makes the records of a journal's "proposed" events, in order.

    The first version's hashes of cells did not include the style. If the first child's hash is not the one that this
    version computes, all are computed again, so that repeats are recognised.
    """

    def __init__(self, space: Space) -> None:
        self.space, self.anew = space, False

    def record(self, child: int, body: dict[str, Any]) -> Record:
        tokens, digest = tuple(body["tokens"]), body["hash"]
        if child == 0 or self.anew:
            now = self.space.hash(self.space.decode(tokens))
            self.anew, digest = self.anew or now != digest, now
        return Record(child, tokens, digest, body["notes"])
