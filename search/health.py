"""Which failures are the children's own, and which their workers'. Imports no torch.

One worker whose every child fails, because its GPU is taken or its disk is full, is always free first: it would eat a
search. So a failure waits until it is known whose it is.

- A place (a worker, or those that follow it when it dies) that succeeds next is healthy: its failures before were the
  children's own.
- A place that fails LIMIT times in a row gets no more children, and those that failed are trained elsewhere. If one
  of them succeeds there, the place stays out for the rest of the session. If all fail there too, it is innocent.
- A child that fails on a second place, which is healthy as far as is known, failed by its own fault.
- If as many places as a search's `stop` are on trial at a time, all are innocent: the cause is common.
"""

from collections.abc import Collection
from dataclasses import dataclass, field

from .children.base import SUCCESSES, Result

LIMIT = 3  # failures in a row


@dataclass
class Place:
    """What it did since its last success: the failures that are nobody's yet, the children that it `lost` and that are
    trained again in any case, and how many failures of suspected children it confirmed. `witnesses` are the children
    that tell whether a place is to blame that gets no more of them."""

    failed: list[Result] = field(default_factory=list)
    lost: list[int] = field(default_factory=list)
    confirmed: int = 0
    witnesses: set[int] = field(default_factory=set)
    guilty: bool = False


@dataclass
class Verdict:
    """What is known after a result: the results that are `final`, the place that is `excluded` and gets no more
    children, those that are `included` again, and those that are `guilty`. `returned` are failed children that are to
    be trained elsewhere, and `forgiven` those whose attempt does not count, once for each attempt."""

    final: list[Result] = field(default_factory=list)
    excluded: str = ""
    returned: list[int] = field(default_factory=list)
    forgiven: list[int] = field(default_factory=list)
    included: list[str] = field(default_factory=list)
    guilty: list[str] = field(default_factory=list)


class Health:
    """The places of a fleet, by name. `stop` is a search's."""

    def __init__(self, stop: int) -> None:
        self.stop = stop
        self.places: dict[str, Place] = {}
        self.suspects: dict[int, set[str]] = {}  # by child: the places that are on trial because of it

    def judge(self, result: Result, again: bool, working: Collection[str]) -> Verdict:
        """What a result tells. `again` says that its child is trained again in any case. `working` are the fleet's
        places that get children; where there is no other to compare with, every result is final."""
        name, verdict = result.place or result.worker, Verdict()
        place = self.places.setdefault(name, Place())
        if result.status in SUCCESSES:
            verdict.final = [*place.failed, result]
            place.failed, place.lost, place.confirmed = [], [], 0
            for accused in self.suspects.pop(result.child, set()):
                self.places[accused].guilty = True
                verdict.guilty.append(accused)
        elif not again and result.child in self.suspects and (self._is_trusted(place) or not set(working) - {name}):
            place.confirmed += 1
            verdict.final = [result]
            self._acquit(result.child, verdict)
        elif not set(working) - {name}:
            verdict.final = [] if again else [result]
        else:
            (place.lost if again else place.failed).append(result.child if again else result)
            if len(place.failed) + len(place.lost) >= LIMIT:
                self._put_on_trial(name, place, verdict)
        return verdict

    def rest(self) -> list[Result]:
        """The failures that are nobody's when nothing more runs."""
        left = [result for place in self.places.values() for result in place.failed]
        for place in self.places.values():
            place.failed = []
        return left

    def _is_trusted(self, place: Place) -> bool:
        return not place.failed and not place.lost and place.confirmed < LIMIT

    def _put_on_trial(self, name: str, place: Place, verdict: Verdict) -> None:
        verdict.excluded = name
        verdict.returned = [result.child for result in place.failed]
        verdict.forgiven = [*verdict.returned, *place.lost]
        place.witnesses |= set(verdict.forgiven)
        place.failed, place.lost = [], []
        for child in verdict.forgiven:
            self.suspects.setdefault(child, set()).add(name)
        on_trial = [other for other, each in self.places.items() if each.witnesses and not each.guilty]
        if len(on_trial) >= self.stop:
            for other in on_trial:
                self.places[other] = Place()
            verdict.included = on_trial

    def _acquit(self, child: int, verdict: Verdict) -> None:
        """A child failed elsewhere too, so it says nothing against the places that are on trial because of it."""
        for accused in self.suspects.pop(child):
            place = self.places[accused]
            place.witnesses.discard(child)
            if not place.witnesses and not place.guilty and accused not in verdict.included:
                verdict.included.append(accused)
