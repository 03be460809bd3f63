"""What a training leaves in its folder for its user to look at: a table, a picture and TensorBoard's events."""

import csv
import logging
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ..util.files import atomic_file
from .state import Epoch

log = logging.getLogger("nasnet_zoo")

TABLE, CURVE, EVENTS = "history.csv", "curve.png", "tensorboard"
CURVE_SHARE = 0.01  # of the training's time, that drawing may take


class History:
    """Keeps the table, the picture and the events up to date. A failure is a warning, once, and never ends a training:
    what could not be written is tried again after the next epoch."""

    def __init__(self, folder: str | Path, *, best: bool = True) -> None:
        """`best`: whether the picture marks the best epoch, which says nothing on pictures that are learned from."""
        self.folder, self.best = Path(folder), best
        self._epochs: Sequence[Epoch] = ()
        self._events = EventFile(self.folder / EVENTS)
        self._drawn, self._due = 0, 0.0  # how many epochs are in the picture, and when it may be drawn again
        self._warned = False

    def epoch(self, epochs: Sequence[Epoch]) -> None:
        """To be called after every epoch, with all there have been, those before a resume included."""
        self._epochs = tuple(epochs)
        self._attempt(TABLE, lambda: write_table(self._epochs, self.folder / TABLE))
        self._attempt(EVENTS, lambda: self._events.write(self._epochs))
        if time.monotonic() >= self._due:
            self._attempt(CURVE, self._draw)

    def close(self) -> None:
        """Draws what has not been drawn yet."""
        if self._drawn < len(self._epochs):
            self._attempt(CURVE, self._draw)

    def _draw(self) -> None:
        from .curve import draw_curve  # with matplotlib, which takes half a second to import

        start = time.monotonic()
        draw_curve(self._epochs, best_of(self._epochs) if self.best else None, self.folder / CURVE)
        end = time.monotonic()
        self._drawn, self._due = len(self._epochs), end + (end - start) / CURVE_SHARE

    def _attempt(self, name: str, write: Callable[[], None]) -> None:
        try:
            write()
        except Exception as error:
            if not self._warned:
                log.warning("%s could not be written, and the training goes on: %s", self.folder / name, error)
            self._warned = True


def best_of(epochs: Sequence[Epoch]) -> Epoch | None:
    """The epoch with the highest first metric, the first one of equals; None if nothing was measured."""
    name = next((name for epoch in epochs for name in epoch.metrics), None)
    measured = [epoch for epoch in epochs if math.isfinite(epoch.metrics.get(name, math.nan))]
    return max(measured, key=lambda epoch: epoch.metrics[name], default=None)


def scalars(epoch: Epoch) -> dict[str, float]:
    """What there is to say of an epoch, by name."""
    values = {"loss": epoch.loss, **epoch.metrics, "learning_rate": epoch.learning_rate, "seconds": epoch.seconds}
    if epoch.pictures and epoch.seconds:
        values["pictures_per_second"] = epoch.pictures / epoch.seconds
    return values


def spent(epochs: Sequence[Epoch], pictures: int) -> dict[str, float]:
    """The `seconds` of a training whose epochs have so many pictures, without the measuring, and its
    `pictures_per_second`; nothing if an epoch was not timed. Of one that was interrupted only the later part was; it is
    counted as if all of it had been as fast."""
    if not all(epoch.pictures and epoch.seconds for epoch in epochs):
        return {}
    seconds = sum(epoch.seconds * pictures / epoch.pictures for epoch in epochs)
    return {"seconds": round(seconds, 1), "pictures_per_second": round(len(epochs) * pictures / seconds, 1)}


def write_table(epochs: Sequence[Epoch], path: Path) -> None:
    """One row an epoch; a cell is empty where a value is missing or no number."""
    metrics = dict.fromkeys(name for epoch in epochs for name in epoch.metrics)
    columns = ["loss", *metrics, "learning_rate", "seconds", "pictures_per_second"]
    with atomic_file(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["epoch", *columns])
        for epoch in epochs:
            values = [scalars(epoch).get(column, math.nan) for column in columns]
            rows.writerow([epoch.epoch, *(f"{value:.6g}" if math.isfinite(value) else "" for value in values)])


class EventFile:
    """The scalars in a folder for TensorBoard, without its writer, whose thread would print what goes wrong.

    A new object begins a new file in place of all others, and writes to it all epochs that it is given: a training that
    is resumed shows none of them twice.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._path: Path | None = None
        self._written = 0

    def write(self, epochs: Sequence[Epoch]) -> None:
        """Appends the epochs that are new. After a failure the next call begins a new file."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.record_writer import RecordWriter

        now = time.time()
        path, events = self._path, []
        if path is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            for old in self.folder.glob("events.*"):
                old.unlink()
            path, self._written = self.folder / f"events.out.tfevents.{time.time_ns()}", 0
            events = [Event(wall_time=now, file_version="brain.Event:2")]
        new = epochs[self._written :]
        for place, epoch in enumerate(new, 1):
            values = [Summary.Value(tag=tag, simple_value=value) for tag, value in scalars(epoch).items()]
            ended = now - sum(later.seconds for later in new[place:])
            events.append(Event(wall_time=ended, step=epoch.epoch, summary=Summary(value=values)))
        self._path = None  # until all of this is written
        with open(path, "ab") as file:
            records = RecordWriter(file)
            for event in events:
                records.write(event.SerializeToString())
        self._path, self._written = path, len(epochs)
