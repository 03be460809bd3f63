"""Search spaces: from a sequence of decisions to an architecture and back. Imports no torch.

A space gives its decisions one by one, so that a searcher only needs to know the outcomes of each. `table.py` has the
table of spaces.
"""

import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import Field, dataclass
from math import prod
from typing import Any, ClassVar

from nasnet_zoo.errors import ConfigError

Tokens = tuple[int, ...]

MAX_DECISIONS = 10_000  # in a sequence: a longer one means that the space's decisions never end
MAX_ELEMENTS = 62  # of a subset: its token is a signed 64-bit integer in a tensor


@dataclass(frozen=True, slots=True)
class Choice:
    """One out of `choices`; `name` says what is chosen, "reduction.3.right.op". Its token is the number of the
    choice."""

    name: str
    choices: int

    def __post_init__(self) -> None:
        if self.choices < 1:
            raise ConfigError(f"{self.name}: a choice out of {self.choices}; leave out what is no decision")

    @property
    def outcomes(self) -> int:
        """How many tokens there are: 0 to outcomes - 1."""
        return self.choices


@dataclass(frozen=True, slots=True)
class Subset:
    """Any of `choices` elements, from none to all. Its token has bit i set if element i was chosen."""

    name: str
    choices: int

    def __post_init__(self) -> None:
        if not 1 <= self.choices <= MAX_ELEMENTS:
            raise ConfigError(
                f"{self.name}: a subset of {self.choices} elements; one has 1 to {MAX_ELEMENTS}, and more can be "
                f"decided in several subsets"
            )

    @property
    def outcomes(self) -> int:
        """How many tokens there are: 0 to outcomes - 1."""
        return 1 << self.choices


Decision = Choice | Subset


class Space(ABC):
    """What can be decided, in which order, and which architecture the decisions make.

    A decision may depend on those before it and on the stage of the search: a space may let its architectures grow, as
    in Zoph & Le 2016, section 4.1. The meaning of tokens must not depend on the stage. A name must always stand for the
    same decision, because searchers learn by the name. `kind` is the registry's kind of the architectures, or None if
    they can be looked up but not built, and `stages` is the number of stages.
    """

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]  # every space is a dataclass
    name: str
    kind: str | None
    stages: int = 1

    @abstractmethod
    def next(self, prefix: Sequence[int], stage: int = 0) -> Decision | None:
        """The decision after `prefix`, the beginning of a sequence of that stage, or None if the sequence is
        complete."""

    def stage(self, proposed: int) -> int:
        """The stage of a search that has proposed this many architectures."""
        return 0

    @property
    def size(self) -> int | None:
        """How many token sequences there are, or None if that is not known."""
        return None

    def following(self, prefix: Sequence[int], stage: int = 0) -> Decision | None:
        """`next`, but raises ConfigError if there is no decision at all, or if the decisions never end."""
        decision = self.next(prefix, stage)
        if decision is None:
            if not prefix:
                raise ConfigError(f"{self.name}: there is nothing to decide at stage {stage}, and so nothing to search")
        elif len(prefix) >= MAX_DECISIONS:
            raise ConfigError(
                f"{self.name}: after {len(prefix):,} decisions {decision.name} is still to be decided; `next` of a "
                f"space has to return None in the end"
            )
        return decision

    def walk(self, decide: Callable[[Decision], int], stage: int = 0) -> Tokens:
        """The tokens of a sequence in which `decide` has made every decision; raises ConfigError if it never ends."""
        tokens: list[int] = []
        while (decision := self.following(tokens, stage)) is not None:
            tokens.append(decide(decision))
        return tuple(tokens)

    def sample(self, rng: random.Random, stage: int = 0) -> Tokens:
        """A sequence of that stage, each of its decisions made uniformly over its outcomes."""
        return self.walk(lambda decision: rng.randrange(decision.outcomes), stage)

    def along(self, tokens: Sequence[int], stage: int = 0) -> tuple[Decision, ...]:
        """The decisions that the tokens have made; raises ConfigError if they are no sequence of that stage."""
        decisions: list[Decision] = []
        for place, token in enumerate(tokens):
            decision = self.following(tokens[:place], stage)
            if decision is None:
                raise ConfigError(f"{self.name}: {len(tokens)} tokens; a sequence with the first {place} ends there")
            self._check_token(token, decision)
            decisions.append(decision)
        if (missing := self.following(tokens, stage)) is not None:
            raise ConfigError(f"{self.name}: {len(tokens)} tokens; {missing.name} is to be decided after them")
        return tuple(decisions)

    def _check_token(self, token: Any, decision: Decision) -> None:
        if type(token) is not int or not 0 <= token < decision.outcomes:
            raise ConfigError(f"{self.name}: {decision.name} is {token!r}, not one of 0 to {decision.outcomes - 1}")

    def check(self, tokens: Sequence[int]) -> Tokens:
        """The tokens; raises ConfigError if they are not a sequence of this space at any stage."""
        for stage in range(self.stages - 1):
            with suppress(ConfigError):
                self.along(tokens, stage)
                return tuple(tokens)
        self.along(tokens, self.stages - 1)
        return tuple(tokens)

    @abstractmethod
    def decode(self, tokens: Sequence[int]) -> Any:
        """The architecture of a complete sequence; raises ConfigError."""

    @abstractmethod
    def encode(self, architecture: Any) -> Tokens:
        """The tokens that decode to the architecture; raises ConfigError if it is not in the space."""

    def project(self, architecture: Any) -> tuple[Tokens, tuple[str, ...]]:
        """The tokens of the architecture of the space that is closest to one that may be just outside it, and how the
        two differ, a sentence for each difference; raises ConfigError if nothing in the space is close to it."""
        return self.encode(architecture), ()

    @abstractmethod
    def to_json(self, architecture: Any) -> Any: ...

    @abstractmethod
    def hash(self, architecture: Any) -> str:
        """Equal for architectures that compute the same function up to reordering."""


class FixedSpace(Space):
    """A space whose `decisions` are always the same, each with a name of its own."""

    decisions: tuple[Decision, ...]

    def next(self, prefix: Sequence[int], stage: int = 0) -> Decision | None:
        return self.decisions[len(prefix)] if len(prefix) < len(self.decisions) else None

    @property
    def size(self) -> int:
        return prod(decision.outcomes for decision in self.decisions)

    def along(self, tokens: Sequence[int], stage: int = 0) -> tuple[Decision, ...]:
        if len(tokens) != len(self.decisions):
            raise ConfigError(f"{self.name}: {len(tokens)} tokens; this space takes {len(self.decisions)}")
        for token, decision in zip(tokens, self.decisions):
            self._check_token(token, decision)
        return self.decisions


def check_selection(space: str, what: str, chosen: tuple[str, ...], known: Iterable[str]) -> None:
    """Raises ConfigError unless a space has some of the known ops or combinations (`what`), and none twice."""
    if unknown := [choice for choice in chosen if choice not in known]:
        raise ConfigError(f"{space}: there is no {what} {', '.join(unknown)}; there are {', '.join(known)}")
    if not chosen or len(set(chosen)) != len(chosen):
        raise ConfigError(f"{space}: a space needs at least one {what} and none twice, not {list(chosen)}")
