"""The history of a search, read from its journal, for reports and studies. Imports no torch."""

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from nasnet_zoo.errors import ZooError

from .bodies import check_event
from .config import SearchConfig
from .folder import JOURNAL, read_config
from .journal import Event, damaged, read_events
from .records import Proposed, Record
from .spaces.base import Space


@dataclass
class History:
    """`records` has all children that were proposed, `finished` those that have finished, in the order in which they
    finished, and `updates` the searcher's statistics after each update: (children finished by then, statistics).

    `context` has the hashes of what the children were given, by name (children/base.py).
    `excluded` are the places of fleets that got no more children until their session ended, as children failed there
    and not elsewhere: (the last worker there, why).
    `seconds` is how long drivers ran, and `device_seconds` how long devices were busy: the time of children that were
    trained on a device at the same time counts once.
    """

    config: SearchConfig
    space: Space
    records: list[Record] = field(default_factory=list)
    finished: list[Record] = field(default_factory=list)
    updates: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    context: dict[str, str] = field(default_factory=dict)
    excluded: dict[str, tuple[str, str]] = field(default_factory=dict)
    sessions: int = 0
    seconds: float = 0.0
    device_seconds: float = 0.0

    @property
    def evaluated(self) -> int:
        """How many children are finished that count: those that were rejected do not."""
        return sum(record.status != "rejected" for record in self.finished)


def read_history(folder: str | Path) -> History:
    """The history of the search in a run folder, which may be running; raises JournalError or ConfigError."""
    folder = Path(folder)
    _, events = read_events(folder / JOURNAL)
    config = read_config(folder)
    history = History(config, config.space.space())
    try:
        _enter(history, events)
    except (ValueError, IndexError, ZooError) as error:
        raise damaged(folder / JOURNAL, error) from error
    return history


def _enter(history: History, events: list[Event]) -> None:
    records, busy, proposed = history.records, defaultdict(list), Proposed(history.space)
    started = last = 0.0
    for event in events:
        check_event(event)
        body = event.body
        if event.kind == "session":
            history.sessions += 1
            history.context |= body.get("context", {})
            history.seconds += last - started
            started = event.time
        elif event.kind == "proposed":
            records.append(proposed.record(event.child, body))
        elif event.kind == "started":
            records[event.child].attempts = body["attempt"]
        elif event.kind == "finished":
            record = records[event.child]
            record.status, record.reward, record.metrics = body["status"], body["reward"], body["metrics"]
            record.message, record.seconds, record.served = body.get("message", ""), body["seconds"], body.get("served")
            record.time, record.worker, record.rung = event.time, body.get("worker", ""), body.get("stopped")
            history.finished.append(record)
            busy[_device(record.worker)].append((event.time - record.seconds, event.time))
        elif event.kind == "excluded":
            history.excluded[body["place"]] = body.get("worker", ""), body.get("message", "")
        elif event.kind == "included":
            history.excluded.pop(body["place"], None)
        elif event.kind == "updated":
            history.updates.append((len(history.finished), body["statistics"]))
        last = event.time
    history.seconds += last - started
    history.device_seconds = sum(map(_covered, busy.values()))


def _device(worker: str) -> str:
    """host:process:device without the process."""
    host, _, rest = worker.partition(":")
    return f"{host}:{rest.partition(':')[2]}"


def _covered(intervals: list[tuple[float, float]]) -> float:
    """How much time the intervals cover together."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(intervals):
        total += max(end - max(start, reached), 0.0)
        reached = max(reached, end)
    return total
