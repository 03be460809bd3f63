"""One bad worker neither ends a search nor eats it, and a child that fails everywhere is not blamed on a worker."""

import logging
from collections import deque

import pytest
from search_workers import BAD, searched
from simulated_fleet import place

from nasnet_zoo.errors import SearchError
from nasnet_zoo.search.children.base import Result
from nasnet_zoo.search.health import LIMIT, Health

PLACES = {"a", "b", "c"}


class Court:
    """A Health, and the places that it has left in."""

    def __init__(self, stop: int = 20, places=PLACES) -> None:
        self.health, self.places = Health(stop), set(places)

    def judge(self, where: str, child: int, status: str = "error", again: bool = False):
        verdict = self.health.judge(Result(child, status, worker=where, place=where), again, self.places)
        self.places -= {verdict.excluded}
        self.places |= set(verdict.included)
        return verdict

    def failed(self, where: str, *children: int) -> list[int]:
        """The children whose failure counts."""
        return [r.child for child in children for r in self.judge(where, child).final]


def test_failures_between_successes_are_the_childrens_own():
    court = Court()
    assert court.failed("a", 1, 2) == []  # not yet
    assert [(r.child, r.status) for r in court.judge("a", 3, "done").final] == [(1, "error"), (2, "error"), (3, "done")]
    assert court.places == PLACES


def test_a_place_where_everything_fails_is_left_out_and_its_children_are_trained_elsewhere():
    court = Court()
    assert court.failed("a", *range(LIMIT - 1)) == []
    verdict = court.judge("a", LIMIT - 1)
    assert (verdict.excluded, verdict.returned, verdict.final) == ("a", list(range(LIMIT)), [])
    assert court.places == {"b", "c"}
    verdict = court.judge("b", 0, "done")
    assert verdict.guilty == ["a"] and [r.status for r in verdict.final] == ["done"]
    assert court.failed("c", 1) == [1]  # this one fails on both
    assert court.failed("c", 2) == [2] and court.places == {"b", "c"}  # a stays out: it failed child 0


def test_a_place_is_taken_in_again_when_its_children_fail_elsewhere_too():
    court = Court()
    court.failed("a", 0, 1, 2)
    assert court.failed("b", 0) == [0] and court.failed("c", 1) == [1] and court.places == {"b", "c"}
    verdict = court.judge("b", 2)
    assert verdict.included == ["a"] and [r.child for r in verdict.final] == [2] and court.places == PLACES


def test_two_bad_places_do_not_blame_the_children_for_each_other():
    court = Court()
    court.failed("a", 0)  # b fails a child of its own first: it may be bad as well
    court.failed("b", 9)
    court.failed("a", 1, 2)
    assert court.failed("b", 0, 1) == [] and court.places == {"c"}
    for child in (0, 1, 2, 9):
        assert [r.status for r in court.judge("c", child, "done").final] == ["done"]
    assert court.health.places["a"].guilty and court.health.places["b"].guilty


def test_lost_children_that_are_trained_again_in_any_case_count_against_their_place():
    court = Court()
    assert court.judge("a", 0, "lost", again=True).final == []
    assert court.judge("a", 0, "lost", again=True).excluded == ""
    verdict = court.judge("a", 0, "lost")  # its last attempt
    assert (verdict.excluded, verdict.returned, verdict.forgiven) == ("a", [0], [0, 0, 0])


def test_where_there_is_one_place_every_failure_counts():
    court = Court(places={"a"})
    assert court.failed("a", *range(10)) == list(range(10))
    assert Court(places=()).failed("a", 1, 2, 3, 4) == [1, 2, 3, 4]  # a fleet that does not tell its places


def test_where_all_places_fail_the_failures_count():
    """The cause is common: the search has to stop, not to wait for a place that works."""
    court, fresh, waiting, final = Court(), iter(range(1000)), deque(), []
    while len(final) < 20 and next(fresh) < 100:
        for where in sorted(court.places):
            verdict = court.judge(where, waiting.popleft() if waiting else next(fresh))
            waiting += verdict.returned
            final += verdict.final
    assert len(final) >= 20


@pytest.mark.parametrize("since", [0.0, 300.0])
def test_a_bad_worker_among_a_hundred_costs_three_children_a_second_training(since, caplog):
    with caplog.at_level(logging.WARNING, "nasnet_zoo"):
        found = searched(600, 100, {BAD: since})
    assert (found["children"], found["floored"], found["left out"]) == (600, 0, [place(BAD)])
    assert f"{place(BAD)} gets no more children: they fail there (oom: out of memory) and not elsewhere" in caplog.text


def test_a_cause_that_all_workers_share_stops_the_search():
    with pytest.raises(SearchError, match=r"the last \d+ children failed \(oom: out of memory\)"):
        searched(600, 8, dict.fromkeys(range(8), 0.0))
    with pytest.raises(SearchError, match=r"the last \d+ children failed \(oom: out of memory\)"):
        searched(6000, 100, dict.fromkeys(range(100), 300.0))
