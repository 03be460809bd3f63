"""The driver: keeps the fleet busy, writes the journal and lets the searcher learn. Nothing else writes the journal.

The order of writing makes a crash harmless at any moment. A proposal is in the journal before it is submitted, the
answer to a report before the child hears it, a result before the searcher learns from it, and the searcher's state in
the same transaction as the update that changed it.
"""

import hashlib
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from nasnet_zoo.errors import JournalError, SearchError

from .bodies import check_event
from .children.base import SUCCESSES, BrokenDevice, Report, Result, Task
from .config import SearchConfig
from .costs import Latencies, child_cost
from .fleet.base import Fleet
from .health import Health, Verdict
from .journal import Event, Journal
from .records import Proposed, Record
from .rewards import MAX_REWARD
from .rungs import Rungs
from .searchers.base import Observation, Proposal, Searcher
from .spaces.base import Space
from .worth import Worth

log = logging.getLogger("nasnet_zoo")

POLL_SECONDS = 0.5
MAX_REJECTED = 10_000  # in a row; then the limits leave too little of the space
MEASURED = 50  # for how many of these a child counts that had to be built and timed


def child_seed(seed: int, child: int, *again: int) -> int:
    """A child's seed: the same for child i of any two searches with the same seed, whatever they propose; and another
    one for each number that a later training of the child is told by."""
    text = "/".join(map(str, (seed, child, *again)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "little")


class Driver:
    """One search over an open journal. `on_change(driver)` is called whenever something has happened, `on_update`
    with the searcher's statistics whenever it has learned. The journal gets the event `session` when all of it has been
    read, so that one that is damaged is not changed."""

    def __init__(
        self,
        config: SearchConfig,
        space: Space,
        searcher: Searcher,
        journal: Journal,
        on_change: Callable[["Driver"], None] = lambda driver: None,
        on_update: Callable[[int, dict[str, float]], None] = lambda count, statistics: None,
        session: dict[str, Any] | None = None,
    ) -> None:
        self.config, self.space, self.searcher, self.journal = config, space, searcher, journal
        self.on_change, self.on_update = on_change, on_update
        self.records: list[Record] = []
        self.finished: list[int] = []  # in the order in which they finished
        self.unobserved: deque[int] = deque()  # finished, but not yet shown to the searcher
        self.waiting: deque[int] = deque()  # proposed, but not yet submitted
        self.running: set[int] = set()
        self.lost: set[int] = set()  # those that were running when an earlier driver died
        self.known: dict[str, int] = {}  # by hash: the finished child whose metrics repeats get
        self.leaders: dict[str, int] = {}  # by hash: the unfinished child that repeats wait for
        self.followers: dict[int, list[int]] = {}
        self.best: Record | None = None  # of those that were trained to the end
        self.rungs = Rungs(config.rungs)
        self.worth = Worth(config, self.rungs)
        self.latencies = Latencies()
        self.rejected = self.rejected_in_row = 0
        self.statistics: dict[str, float] = {}
        self.failures_in_row = 0
        self.health = Health(config.failures.stop)
        self.excluded: dict[str, str] = {}  # the places that get no more children, and why
        self.begun = False  # whether this driver has written anything that a later one must know
        self.proposed = Proposed(space, getattr(searcher, "numbers", ()))
        self._resume(session)

    @property
    def evaluated(self) -> int:
        """How many children are finished that count: those that were rejected do not."""
        return len(self.finished) - self.rejected

    def run(self, fleet: Fleet) -> None:
        """Runs until all children are finished. After an interruption, a new driver continues from the journal."""
        fleet.decide = self._decide
        try:
            while self.evaluated < self.config.children:
                self._fill(fleet)
                if self.evaluated < self.config.children and (results := fleet.next_done(POLL_SECONDS)):
                    self._record(results, fleet)
                elif not self.running:
                    self._settle(self.health.rest())
                self.on_change(self)
        except BrokenDevice:
            self.begun = True
            raise  # raised because of the child: it counts as if the driver had died
        except BaseException:
            with suppress(JournalError), self.journal.transaction() as journal:
                journal.add("stopped")
            raise

    def _fill(self, fleet: Fleet) -> None:
        """Submits as many children as the fleet can take. Repeats that the journal can answer need no worker."""
        tasks: list[Task] = []
        while len(self.running) < fleet.capacity and (self.waiting or self._missing):
            if not self.waiting:
                self._propose()
            record = self.records[self.waiting.popleft()]
            if self._costs_too_much(record):
                continue
            if self.config.repeats == "serve":
                if record.hash in self.known:
                    self._serve([record], self.records[self.known[record.hash]])
                    continue
                if record.hash in self.leaders:
                    self.followers.setdefault(self.leaders[record.hash], []).append(record.child)
                    continue
                self.leaders[record.hash] = record.child
            self.running.add(record.child)
            record.attempts += 1
            seed, architecture = child_seed(self.config.seed, record.child), self.space.decode(record.tokens)
            seconds, rungs = self.config.child.seconds, self.config.rungs.epochs
            tasks.append(Task(record.child, architecture, seed, seconds, rungs))
        if tasks:
            with self.journal.transaction() as journal:
                for task in tasks:
                    journal.add("started", task.child, attempt=self.records[task.child].attempts)
            for task in tasks:
                fleet.submit(task)

    @property
    def _missing(self) -> int:
        """How many children are still to be proposed, if none more is rejected."""
        return self.config.children - (len(self.records) - self.rejected)

    def _costs_too_much(self, record: Record) -> bool:
        """Rejects a child that costs more than a limit. The searcher sees it, to learn what is asked for."""
        if not self.config.cost.limits:
            return False
        cost = child_cost(self.config.child, self.space, self.space.decode(record.tokens))
        excess = self.config.cost.excess(cost) if cost is not None else None
        if excess is None:
            return False
        self._settle([Result(record.child, "rejected", message=excess)])
        return True

    def _propose(self) -> None:
        batch, known = self.searcher.batch, len(self.records)
        n = min(batch - known % batch, self._missing)  # completes a batch that a shorter search began
        proposals = self.searcher.propose(n)
        with self.journal.transaction() as journal:
            for position, proposal in enumerate(proposals):
                child = len(self.records)
                digest = self.space.hash(self.space.decode(proposal.tokens))
                self.records.append(Record(child, tuple(proposal.tokens), digest, proposal.notes))
                self.waiting.append(child)
                body = dict(tokens=list(proposal.tokens), hash=digest, notes=proposal.notes, place=position, of=n)
                journal.add("proposed", child, **body)

    def _decide(self, report: Report) -> bool:
        """Whether a child that reports goes on. One that is trained again hears what it heard before."""
        self.latencies.check(report.child, report.metrics)
        answer = self.rungs.answer(report.child, report.epoch)
        if answer is None:
            reward = self.worth.of(report.child, report.metrics)
            if not abs(reward) <= MAX_REWARD:
                return True  # there is nothing to rank, and its end will show what it is
            answer = self.rungs.goes_on(report.epoch, reward)
            body = dict(epoch=report.epoch, metrics=report.metrics, reward=reward, goes_on=answer)
            with self.journal.transaction() as journal:
                journal.add("reported", report.child, **body)
            self._reported(self.records[report.child], body)
        return answer

    def _reported(self, record: Record, body: dict[str, Any]) -> None:
        """Updates the driver's state from a "reported" event."""
        if record.finished or record.rung is not None:
            raise ValueError(f"child {record.child} reports when it has ended")
        self.rungs.enter(record.child, body["epoch"], body["reward"], body["goes_on"])
        if not body["goes_on"]:
            record.rung, record.metrics = body["epoch"], body["metrics"]

    def _record(self, results: Sequence[Result], fleet: Fleet) -> None:
        """Takes results, once it is known whether they are the children's own or their workers'."""
        final: list[Result] = []
        trouble: SearchError | None = None  # raised when the other results are in the journal
        for each in results:
            try:
                self.latencies.check(each.child, each.metrics)
                result = self.worth.judged(each, self.records[each.child])
            except SearchError as error:
                trouble = trouble or error
                continue
            self.running.discard(result.child)
            if result.status == "rejected":  # which says nothing about the worker
                final.append(result)
                continue
            again = self._is_tried_again(self.records[result.child], result.status)
            if again:
                self._try_again([result.child])
            verdict = self.health.judge(result, again, fleet.places)
            final += verdict.final
            self._follow(verdict, result, fleet)
        self._settle(final)
        if trouble is not None:
            raise trouble

    def _follow(self, verdict: Verdict, result: Result, fleet: Fleet) -> None:
        """Leaves places of the fleet out, or takes them in again, as a verdict says."""
        if verdict.excluded:
            reason = f"{result.status}: {_last_line(result.message)}"
            body = dict(place=verdict.excluded, worker=result.worker, message=reason, returned=verdict.returned)
            with self.journal.transaction() as journal:
                journal.add("excluded", None, **body, forgiven=verdict.forgiven)
            self._leave_out(verdict.excluded, reason, verdict.forgiven)
            self._try_again(verdict.returned)
        for place in verdict.included:
            with self.journal.transaction() as journal:
                journal.add("included", None, place=place)
            self.excluded.pop(place, None)
        for place in verdict.guilty:
            why = self.excluded.get(place, "")
            log.warning("%s gets no more children: they fail there (%s) and not elsewhere", place, why)
        if verdict.excluded or verdict.included:
            fleet.excluded = set(self.excluded)

    def _leave_out(self, place: str, reason: str, forgiven: Sequence[int]) -> None:
        self.excluded[place] = reason
        for child in forgiven:
            self.records[child].stopped += 1

    def _try_again(self, children: Sequence[int]) -> None:
        for child in reversed(children):
            self.waiting.extendleft(reversed([child, *self._let_go(self.records[child])]))

    def _settle(self, results: Sequence[Result]) -> None:
        """Writes final results to the journal, and answers the repeats that waited for them."""
        if not results:
            return
        self._close([(self.records[result.child], result) for result in results])
        last = results[-1]
        if self.rejected_in_row >= MAX_REJECTED:
            raise SearchError(
                f"the last proposals all cost too much (the last: {last.message}): begin another search with higher "
                f"limits or smaller children"
            )
        if self.failures_in_row >= self.config.failures.stop:
            raise SearchError(
                f"the last {self.failures_in_row} children failed ({last.status}: {_last_line(last.message)}): mend "
                f"the cause, then run the same command again"
            )

    def _is_tried_again(self, record: Record, status: str) -> bool:
        policy = self.config.failures
        return status not in SUCCESSES and getattr(policy, status) == "retry" and record.tries < policy.attempts

    def _close(self, final: Sequence[tuple[Record, Result]]) -> None:
        """Writes final results to the journal, in one transaction, and learns from them."""
        with self.journal.transaction() as journal:
            for record, result in final:
                self._finish(journal, record, result)
        for record, _ in final:
            waiting = [self.records[child] for child in self._let_go(record)]
            if not record.failed:
                self._serve(waiting, record)
            else:  # back to the queue: one of them is trained instead
                self.waiting.extendleft(other.child for other in reversed(waiting))
        self._learn()

    def _let_go(self, record: Record) -> list[int]:
        """Repeats no longer wait for this child; returns those that did."""
        if self.leaders.get(record.hash) == record.child:
            del self.leaders[record.hash]
        return self.followers.pop(record.child, [])

    def _serve(self, records: list[Record], leader: Record) -> None:
        """Gives repeats the metrics of a finished child; each counts as an evaluation."""
        if not records:
            return
        with self.journal.transaction() as journal:
            for record in records:
                record.rung = leader.rung
                self._finish(journal, record, Result(record.child, leader.status or "", leader.metrics), leader)
        self._learn()

    def _finish(self, journal: Journal, record: Record, result: Result, leader: Record | None = None) -> None:
        reward = self.worth.reward(result) if leader is None else leader.reward
        body = dict(status=result.status, reward=reward, metrics=result.metrics, seconds=round(result.seconds, 3))
        if result.message:
            body["message"] = result.message
        if result.worker:
            body["worker"] = result.worker
        if leader is not None:
            body["served"] = leader.child
        if record.rung is not None:
            body["stopped"] = record.rung
        record.time, self.begun = time.time(), True
        journal.add("finished", record.child, **body)
        self._entered(record, body)

    def _entered(self, record: Record, body: dict[str, Any]) -> None:
        """Updates the driver's state from a "finished" event."""
        record.status, record.reward, record.metrics = body["status"], body["reward"], body["metrics"]
        record.message, record.seconds, record.served = body.get("message", ""), body["seconds"], body.get("served")
        record.rung = body.get("stopped")
        self.latencies.check(record.child, record.metrics)
        self.finished.append(record.child)
        if record.reward is not None:
            self.unobserved.append(record.child)
        if record.status == "rejected":
            self.rejected += 1
            self.rejected_in_row += MEASURED if record.attempts else 1
            return
        self.rejected_in_row = 0
        if record.failed:
            self.failures_in_row += 1
            return
        self.failures_in_row = 0
        self.worth.enter(body["reward"])
        self.known.setdefault(record.hash, record.child)
        if record.status == "done":
            self.rungs.trained(record.child, body["reward"])
            if self.best is None or body["reward"] > self.best.reward:
                self.best = record

    def _learn(self) -> None:
        """Shows the searcher every full batch of results."""
        while len(self.unobserved) >= self.searcher.batch:
            children = [self.unobserved.popleft() for _ in range(self.searcher.batch)]
            self.statistics = self._observe(children)
            with self.journal.transaction() as journal:
                event = journal.add("updated", None, children=children, statistics=self.statistics)
                journal.keep_state(event, self.searcher.state_dict())
            self.on_update(len(self.finished), self.statistics)

    def _observe(self, children: Sequence[int]) -> dict[str, float]:
        records = [self.records[child] for child in children]
        return self.searcher.observe(
            [Observation(Proposal(r.tokens, r.notes), r.reward) for r in records if r.reward is not None]
        )

    def _resume(self, session: dict[str, Any] | None) -> None:
        """Restores everything from the journal: the searcher from its last saved state and the events after it."""
        with self.journal.intact():
            kept, events = self.journal.state(), self.journal.events()
            if kept is not None:
                if kept[0] not in [event.id for event in events if event.kind == "updated"]:
                    raise ValueError(f"the searcher's state is of event {kept[0]}, which is no update")
                self.searcher.load_state_dict(kept[1])
            replay(events, self.searcher, kept[0] if kept else 0, self)
        if session is not None:
            with self.journal.transaction() as journal:
                journal.add("session", None, **session)
            self._begin_session()
        told = [record for record in self.records if record.rung is not None and not record.finished]
        lost = [self.records[child] for child in sorted(self.lost | self.running) if self.records[child].rung is None]
        self.running.clear()
        given_up = [record for record in lost if not self._is_tried_again(record, "lost")]
        said = "the driver died while it was trained, in attempt {}"
        # This also learns: the crash may have come between the last result of a batch and its update.
        ended = [(r, Result(r.child, "stopped", r.metrics)) for r in told]
        self._close(ended + [(r, Result(r.child, "lost", message=said.format(r.attempts))) for r in given_up])
        self.waiting.extend(record.child for record in self.records if not record.finished)
        self.failures_in_row = self.rejected_in_row = 0  # a restart means that the user has corrected the cause

    def _begin_session(self) -> None:
        """The session before did not record a stop, if anything is still running. A new fleet has new places."""
        self.lost |= self.running
        self.running.clear()
        self.excluded.clear()

    def enter(self, event: Event) -> None:
        """Applies one event of the journal to the driver, without the searcher. Raises ValueError, IndexError or
        ConfigError if it is not what it should be."""
        check_event(event)
        body: dict[str, Any] = event.body
        child: Any = event.child  # None only in events that are not about a child
        if event.kind == "proposed":
            self.records.append(self.proposed.record(child, body))
        elif event.kind == "started":
            self.records[child].attempts = body["attempt"]
            self.running.add(child)
            self.lost.discard(child)
        elif event.kind == "reported":
            self._reported(self.records[child], body)
        elif event.kind == "finished":
            self._entered(self.records[child], body)
            self.records[child].time = event.time
            self.running.discard(child)
            self.lost.discard(child)
        elif event.kind == "stopped":
            for child in self.running:
                self.records[child].stopped += 1
            self.running.clear()
        elif event.kind == "excluded":
            for child in body["returned"]:
                self.running.discard(child)
            self._leave_out(body["place"], body["message"], body["forgiven"])
        elif event.kind == "included":
            self.excluded.pop(body["place"], None)
        elif event.kind == "session":
            self._begin_session()
        elif event.kind == "updated":
            seen = set(body["children"])
            self.unobserved = deque(child for child in self.unobserved if child not in seen)
            self.statistics = body["statistics"]
            self.on_update(len(self.finished), self.statistics)


def _last_line(message: str) -> str:
    return message.splitlines()[-1] if message else "no message"


def replay(events: Sequence[Event], searcher: Searcher, after: int, driver: Driver) -> None:
    """Applies all events to the driver, and replays those after the event `after` in the searcher: it proposes, which
    advances its random numbers, and observes. A replay from event 0 gives the same state as the one that was saved."""
    proposed = sum(event.kind == "proposed" for event in events)
    for event in events:
        driver.enter(event)
        if event.id <= after:
            continue
        if event.kind == "proposed" and event.body["place"] == 0:
            if not 1 <= event.body["of"] <= proposed - driver.records[-1].child:  # they are written all together
                raise ValueError(f"event {event.id}: it is the first of {event.body['of']} proposals")
            searcher.propose(event.body["of"])
        elif event.kind == "updated":
            driver._observe(event.body["children"])
