"""How far a long work is, on stderr: drawn again and again on a terminal, a line now and then in a log."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich import progress
from rich.console import Console
from rich.table import Column
from rich.text import Text

LINE_SECONDS = 30.0  # between two lines of a log about the same thing
_SPEED_SECONDS = 300.0  # the speed is that of the last minutes


class Pace:
    """Says when there is news: another topic at once, the same one only after `seconds`."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.topic, self.next = seconds, "", 0.0

    def due(self, topic: str = "") -> bool:
        """Whether to say something about the topic now; if so, the time runs from here on."""
        now = time.monotonic()
        if topic == self.topic and now < self.next:
            return False
        self.topic, self.next = topic, now + self.seconds
        return True


class Progress(progress.Progress):
    """rich's Progress, which in a log, where nothing can be drawn, writes lines: one for each new description, and one
    every LINE_SECONDS; with `times` they begin with the time of day. `add_task(..., unit="pictures")` names what is
    counted."""

    def __init__(self, console: Console | None = None, *, times: bool = False) -> None:
        console = console or Console(stderr=True)
        super().__init__(
            progress.TextColumn("{task.description}", markup=False),
            progress.BarColumn(bar_width=None),
            _Figures(Column(no_wrap=True)),
            console=console,
            transient=True,
            expand=True,
            disable=not console.is_terminal,
            speed_estimate_period=_SPEED_SECONDS,
            get_time=time.monotonic,
        )
        self.pace, self.times = Pace(LINE_SECONDS), times

    def add_task(self, description: str, *args: Any, **options: Any) -> progress.TaskID:
        self.pace.due(description)  # a short work ends before its first line
        return super().add_task(description, *args, **options)

    def update(self, task_id: progress.TaskID, **changes: Any) -> None:
        super().update(task_id, **changes)
        self._note(task_id)

    def advance(self, task_id: progress.TaskID, advance: float = 1) -> None:
        super().advance(task_id, advance)
        self._note(task_id)

    def say(self, text: str) -> None:
        """Writes a line if this is a log."""
        if self.disable:
            _line(self.console, time.strftime("%H:%M:%S ") + text if self.times else text)

    def _note(self, task_id: progress.TaskID) -> None:
        task = self._tasks[task_id]
        if self.disable and self.pace.due(task.description):
            self.say(f"{task.description}: {figures(task)}")


class _Figures(progress.ProgressColumn):
    """The same words beside the bar as in a log."""

    def render(self, task: progress.Task) -> Text:
        return Text(figures(task))


def figures(task: progress.Task) -> str:
    """How much of a task is done, how fast it goes and how long it will take: "500 of 800 pictures, 20/s, 15 s"."""
    unit = task.fields.get("unit", "")
    of = "" if task.total is None else f" of {task.total:,.0f}"
    words = [f"{int(task.completed):,}{of} {unit}".rstrip()]
    if task.speed and task.speed >= 1:
        words.append(f"{task.speed:,.0f}/s")
    if task.time_remaining:
        words.append(f"{duration(task.time_remaining)} left")
    if task.fields.get("note"):
        words.append(task.fields["note"])
    return ", ".join(words)


@contextmanager
def stages(first: str) -> Iterator[Callable[[str], None]]:
    """Yields a function that says what is being done now. A log gets no line about the first stage, in which a command
    may be refused. What follows a colon may change often: a log gets it every LINE_SECONDS."""
    console, pace = Console(stderr=True), Pace(LINE_SECONDS)
    if console.is_terminal:
        with console.status(Text(first), spinner="line" if console.options.ascii_only else "dots") as status:
            yield lambda stage: status.update(Text(stage))
        return

    def say(stage: str) -> None:
        if pace.due(stage.partition(":")[0]):
            _line(console, stage)

    pace.due(first)
    yield say


def _line(console: Console, text: str) -> None:
    console.print(text, soft_wrap=True, markup=False, highlight=False)


def duration(seconds: float) -> str:
    """A length of time in words: "12 s", "5 min", "3.4 h", "2.1 days"."""
    for unit, size, limit in (("s", 1, 90), ("min", 60, 90), ("h", 3600, 48)):
        if seconds < limit * size:
            value = seconds / size
            return f"{value:.1f} {unit}" if value < 10 and unit != "min" else f"{value:.0f} {unit}"
    return f"{seconds / 86400:.1f} days"
