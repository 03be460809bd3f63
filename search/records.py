"""What is known of a child."""

from dataclasses import dataclass, field
from typing import Any

from .spaces.base import Tokens


@dataclass
class Record:
    """What is known of one child."""

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
    served: int | None = None  # the child whose metrics it was answered with
    time: float = field(default=0.0, compare=False)  # when it finished, in seconds since 1970

    @property
    def tries(self) -> int:
        """The attempts that the child has had a fair chance in."""
        return self.attempts - self.stopped

    @property
    def finished(self) -> bool:
        return self.status is not None
