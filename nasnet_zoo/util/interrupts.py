"""Ctrl-C and SIGTERM, deferred until the program can stop safely."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def deferred_interrupts(wanted: bool = True) -> Iterator[Callable[[], bool]]:
    """Inside the block a first Ctrl-C or SIGTERM only makes the yielded function return True; a second one interrupts
    at once. Outside the main thread, where signals cannot be handled, or if not `wanted`, nothing changes."""
    asked: list[int] = []
    if not wanted or threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return

    def ask(number: int, frame: Any) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    before = {number: signal.signal(number, ask) for number in SIGNALS}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # None: another language's
