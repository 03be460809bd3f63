"""A searcher that proposes given architectures first. Imports no torch."""

from collections.abc import Sequence
from typing import Any

from ..spaces.base import Tokens
from .base import Observation, Proposal, Searcher, checked_count


class Enqueued:
    """Another searcher, which learns from the given architectures as if it had proposed them itself."""

    def __init__(self, searcher: Searcher, given: Sequence[Tokens]) -> None:
        self.searcher, self.given, self.batch = searcher, given, searcher.batch
        self.numbers = getattr(searcher, "numbers", ())
        self.taken = 0

    def propose(self, n: int) -> list[Proposal]:
        given = [self.searcher.proposal(tokens) for tokens in self.given[self.taken : self.taken + n]]
        self.taken += len(given)
        return given + self.searcher.propose(n - len(given))

    def proposal(self, tokens: Tokens) -> Proposal:
        return self.searcher.proposal(tokens)

    def observe(self, observations: Sequence[Observation]) -> dict[str, float]:
        return self.searcher.observe(observations)

    def state_dict(self) -> dict[str, Any]:
        return self.searcher.state_dict() | {"given": self.taken}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.taken = checked_count(state["given"])
        self.searcher.load_state_dict({key: value for key, value in state.items() if key != "given"})
