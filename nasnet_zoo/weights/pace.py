"""Ends connections that are too slow.

A time limit on each piece of an answer is none on the whole: a server that sends a byte now and then, in headers or
body, or "100 Continue" again and again, would never end. httpx2 cannot be stopped from within while it waits for
headers, so a thread shuts the connection down.
"""

import socket
from contextlib import suppress
from threading import Event, Thread
from typing import Any, Self

SECONDS = 60.0
LEAST_BYTES = 60_000  # in that time: 1 kB/s, an eighth of what a telephone modem did


class Pace:
    """Watches the connections of one request, redirects included, inside a `with` block.

    They are shut down, and `slow` is set, when less than LEAST_BYTES have been added to `received` within SECONDS.
    `trace` goes into the request's extensions.
    """

    def __init__(self) -> None:
        self.received, self.slow = 0, False
        self._sockets: list[socket.socket] = []
        self._done = Event()
        self._thread = Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._done.set()
        self._thread.join()
        for connection in self._sockets:
            connection.close()

    def trace(self, event: str, info: dict[str, Any]) -> None:
        """Notes each new connection, as a duplicate that stays valid when TLS takes the socket over."""
        if event.endswith("connect_tcp.complete"):
            self._sockets.append(info["return_value"].get_extra_info("socket").dup())

    def _watch(self) -> None:
        before = 0
        while not self.slow and not self._done.wait(SECONDS):
            self.slow, before = self.received - before < LEAST_BYTES, self.received
        while self.slow and not self._done.wait(0.1):  # again and again, as a redirect may open another one
            for connection in list(self._sockets):
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
