"""Search spaces: from a sequence of decisions to an architecture and back. Imports no torch.

A space yields its decisions one by one, so that a controller needs to know nothing but how many choices each has.
`spaces.py` has the table of spaces.
"""

import random
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from math import prod
from typing import Any, NamedTuple

from nasnet_zoo.errors import ConfigError

Tokens = tuple[int, ...]


class Decision(NamedTuple):
    """One choice out of `choices`; `name` says which, "reduction.3.right.op"."""

    name: str
    choices: int


class Space(ABC):
    """What can be chosen, in which order, and what architecture the choices make.

    `kind` is the registry's kind of the architectures, or None where they can be looked up but not built, and
    `decisions` what is decided, in order.
    """

    name: str
    kind: str | None
    decisions: tuple[Decision, ...]

    def next(self, prefix: Sequence[int]) -> Decision | None:
        """What is decided after `prefix`, or None if that is all."""
        return self.decisions[len(prefix)] if len(prefix) < len(self.decisions) else None

    @property
    def size(self) -> int:
        """How many token sequences there are."""
        return prod(decision.choices for decision in self.decisions)

    def sample(self, rng: random.Random) -> Tokens:
        """Uniform over the space's token sequences."""
        tokens: list[int] = []
        while (decision := self.next(tokens)) is not None:
            tokens.append(rng.randrange(decision.choices))
        return tuple(tokens)

    def check(self, tokens: Sequence[int]) -> Tokens:
        """The tokens, or ConfigError if they are not a sequence of this space."""
        if len(tokens) != len(self.decisions):
            raise ConfigError(f"{self.name}: {len(tokens)} tokens; this space takes {len(self.decisions)}")
        for token, decision in zip(tokens, self.decisions):
            if type(token) is not int or not 0 <= token < decision.choices:
                raise ConfigError(f"{self.name}: {decision.name} is {token!r}, not one of 0 to {decision.choices - 1}")
        return tuple(tokens)

    @abstractmethod
    def decode(self, tokens: Sequence[int]) -> Any:
        """The architecture of a complete sequence; raises ConfigError."""

    @abstractmethod
    def encode(self, architecture: Any) -> Tokens:
        """The tokens that decode to the architecture; raises ConfigError if it is not in the space."""

    @abstractmethod
    def to_json(self, architecture: Any) -> Any: ...

    @abstractmethod
    def hash(self, architecture: Any) -> str:
        """Equal for architectures that compute the same function up to reordering."""


def _check_choices(space: str, what: str, chosen: tuple[str, ...], known: Iterable[str]) -> None:
    if unknown := [choice for choice in chosen if choice not in known]:
        raise ConfigError(f"{space}: there is no {what} {', '.join(unknown)}; there are {', '.join(known)}")
    if not chosen or len(set(chosen)) != len(chosen):
        raise ConfigError(f"{space}: a space needs at least one {what} and none twice, not {list(chosen)}")
