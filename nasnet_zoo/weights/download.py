"""Downloads of public weights: resumed when the connection is lost, verified, and visible only when complete."""

import logging
import os
import re
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import httpx2

from ..errors import DownloadError
from ..util.environment import offline
from ..util.files import atomic_file, is_web_page, md5_file, sha256_file
from . import pace

TIMEOUT = httpx2.Timeout(10.0, read=30.0)  # seconds; `read` is between two pieces, not for the whole file
ATTEMPTS = 3
PAUSE_SECONDS = 1.0  # before the second attempt; twice that before the third, and so on
MOST_BYTES = 8 << 30  # the largest original has 1 GB; a server that never stops would fill the disk

_BUSY = {408, 429, 500, 502, 503, 504}  # answers after which another attempt may succeed
_NETWORK = "check the network and the proxy settings"
_UNREACHABLE = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.ProxyError, httpx2.UnsupportedProtocol)

_log = logging.getLogger("nasnet_zoo")
_Show = Callable[[int, int | None], None]  # (bytes received, bytes in all, if known)


def fetch(url: str, path: str | os.PathLike[str], *, md5: str | None = None, label: str | None = None) -> str:
    """Downloads `url` to `path`, which appears only when complete and verified, and returns its SHA-256 in hex.

    `md5` (hex) is the hash that the file must have; a file with another one is downloaded once more from the start. A
    connection is tried ATTEMPTS times and continues where the last one stopped, if the server can do that. `label`
    names the file in the progress on stderr and in the log "nasnet_zoo".

    Raises DownloadError if the host cannot be reached, refuses, loses the connection, or sends another file than
    expected, and at once when `offline()`; ZooError if the file cannot be written. Nothing is left behind then.
    """
    if offline():
        raise DownloadError(f"{url} is not downloaded because HF_HUB_OFFLINE or NASNET_ZOO_OFFLINE is set; unset it.")
    if not url.isprintable():  # from the environment, in which names need not be UTF-8
        raise DownloadError(f"{url!a} is not an http or https address (it has bytes that are no text); check it.")
    name = label or url.partition("?")[0].rpartition("/")[2] or url
    with _client(url) as client, atomic_file(path) as part, _meter(name) as show:
        for _ in range(2):
            with open(part, "wb") as file:
                _Transfer(url, file, show).run(client)
            received = md5_file(part) if md5 is not None else None
            if md5 is None or received == md5.lower():
                return sha256_file(part)
        raise DownloadError(
            f"{url} is not the expected file: MD5 {md5.lower()} expected, {received} received; a proxy may have "
            "replaced it, or its publisher has: try another network or a newer nasnet_zoo."
        )


class _Interrupted(Exception):
    """The server stopped in a way after which another attempt may succeed."""


class _Transfer:
    """The download of one file from `url` into `file`, whose position is the number of bytes received so far."""

    def __init__(self, url: str, file: BinaryIO, show: _Show) -> None:
        self.url, self.file, self.show = url, file, show
        self.total: int | None = None
        self.validator: str | None = None

    def run(self, client: httpx2.Client) -> None:
        trouble: Exception | None = None
        for attempt in range(ATTEMPTS):
            if attempt:
                time.sleep(PAUSE_SECONDS * attempt)
            try:
                return self._receive(client)
            except (httpx2.TransportError, _Interrupted) as error:
                if isinstance(error, _UNREACHABLE) and not self.file.tell():
                    raise DownloadError(_explanation(self.url, error)) from error
                trouble = error
            except (httpx2.RequestError, httpx2.InvalidURL, UnicodeError) as error:  # UnicodeError: of a host's name
                raise DownloadError(_explanation(self.url, error)) from error
        raise DownloadError(
            f"{self.url} could not be downloaded in {ATTEMPTS} attempts ({_reason(trouble)}, "
            f"at byte {self.file.tell()} of {self.total or 'an unknown number'}); {_NETWORK}."
        ) from trouble

    def _receive(self, client: httpx2.Client) -> None:
        """Asks for what is missing and writes it. Raises httpx2's errors, _Interrupted and DownloadError."""
        with pace.Pace() as watch:
            try:
                self._ask(client, watch)
            except httpx2.TransportError:
                if not watch.slow:
                    raise
        if watch.slow:
            raise _Interrupted(f"less than {pace.LEAST_BYTES} bytes in {pace.SECONDS:g} seconds arrived")

    def _ask(self, client: httpx2.Client, watch: pace.Pace) -> None:
        headers = {"Accept-Encoding": "identity"}  # or the byte counts would be those of the compressed file
        if done := self.file.tell():
            headers["Range"] = f"bytes={done}-"
            if self.validator:
                headers["If-Range"] = self.validator
        with client.stream("GET", self.url, headers=headers, extensions={"trace": watch.trace}) as response:
            if response.status_code in _BUSY:
                raise _Interrupted(f"the server answers {response.status_code}")
            if not self._continues(response, done):
                self._restart(response)
            for piece in response.iter_raw():
                if not self.file.tell() and is_web_page(piece):
                    raise DownloadError(
                        f"{self.url} is answered with a web page instead of the file, as a proxy or the login page of "
                        "a network does: log in with a browser or use another network."
                    )
                if max(self.total or 0, self.file.tell() + len(piece)) > MOST_BYTES:
                    raise DownloadError(f"{self.url} is larger than {MOST_BYTES >> 20} MiB, which no weights are.")
                self.file.write(piece)
                watch.received += len(piece)
                self.show(self.file.tell(), self.total)
        if self.total is not None and self.file.tell() != self.total:
            raise _Interrupted("the connection was closed early")

    def _continues(self, response: httpx2.Response, done: int) -> bool:
        """Whether the answer is the rest of the same file."""
        rest = re.fullmatch(r"bytes ([0-9]{1,18})-[0-9]+/([0-9]+|\*)", response.headers.get("Content-Range", ""))
        return (
            done > 0
            and response.status_code == 206
            and rest is not None
            and int(rest[1]) == done
            and (self.total is None or rest[2] in ("*", str(self.total)))
            and _validator(response.headers) in (None, self.validator)  # None: a 206 may leave Last-Modified out
        )

    def _restart(self, response: httpx2.Response) -> None:
        """Discards the bytes received so far and reads the answer as the file from its first byte."""
        asked_for_rest = self.file.tell() > 0
        self.file.seek(0)
        self.file.truncate()
        if asked_for_rest and response.status_code in (206, 416):
            raise _Interrupted("the file changed while it was being downloaded")
        if response.status_code != 200:
            raise DownloadError(_refusal(self.url, response.status_code))
        self.validator = _validator(response.headers)
        length = response.headers.get("Content-Length", "")
        self.total = int(length) if re.fullmatch("[0-9]{1,18}", length) else None


def _validator(headers: httpx2.Headers) -> str | None:
    """The header that identifies a version of the file in If-Range; weak ETags (W/"...") are not allowed there."""
    etag = headers.get("ETag", "")
    return etag if etag.startswith('"') else headers.get("Last-Modified")


def _client(url: str) -> httpx2.Client:
    def check(request: httpx2.Request) -> None:
        if url.startswith("https:") and request.url.scheme == "http":
            raise DownloadError(
                f"{url} leads to {request.url}, where anyone on the way can change the file: try another network."
            )

    hooks: dict[str, list[Callable[..., Any]]] = {"request": [check]}
    limits = httpx2.Limits(max_keepalive_connections=0)  # each request has a connection of its own, which Pace watches
    try:
        return httpx2.Client(follow_redirects=True, timeout=TIMEOUT, limits=limits, event_hooks=hooks)
    except OSError as error:
        raise DownloadError(
            f"The certificates for {url} cannot be read ({error}); check SSL_CERT_FILE and SSL_CERT_DIR."
        ) from error
    except (ImportError, ValueError, httpx2.InvalidURL) as error:
        raise DownloadError(
            f"The proxy for {url} cannot be used ({_reason(error)}); check HTTP_PROXY, HTTPS_PROXY and ALL_PROXY."
        ) from error


def _explanation(url: str, error: Exception) -> str:
    match error:
        case httpx2.UnsupportedProtocol() | httpx2.InvalidURL() | UnicodeError():
            return f"{url} is not an http or https address ({_reason(error)}); check it."
        case httpx2.ProxyError():
            return f"The proxy refuses {url} ({_reason(error)}); check HTTP_PROXY, HTTPS_PROXY and NO_PROXY."
        case _ if _is_tls(error):
            return (
                f"The secure connection to {url} failed ({_reason(error)}); check the clock, and behind a proxy that "
                "opens connections set SSL_CERT_FILE to its certificate."
            )
    return f"{url} could not be reached ({_reason(error)}); {_NETWORK}."


def _refusal(url: str, status: int) -> str:
    if status in (404, 410):
        what, remedy = "does not exist", "its publisher may have moved it: try a newer nasnet_zoo"
    elif status in (401, 403, 407, 451):
        what, remedy = "refuses access", "check whether a proxy or a firewall blocks it"
    else:
        what, remedy = "answers without the file", "try again later"
    return f"{url} {what} (status {status}); {remedy}."


def _reason(error: Exception | None) -> str:
    return str(error).rstrip(".") or type(error).__name__  # some time-outs carry no text


def _is_tls(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLError):
            return True
        error = error.__cause__ or error.__context__
    return False


@contextmanager
def _meter(name: str) -> Iterator[_Show]:
    """Yields a function that shows the progress of the download on stderr."""
    from ..util.progress import Progress

    start = time.monotonic()
    _log.info("Downloading %s", name)
    with Progress() as bar:
        bar.say(f"downloading {name}")
        task = bar.add_task(name, total=None, unit="MB")
        yield lambda done, total: bar.update(task, completed=done / 1e6, total=total and total / 1e6)
    _log.info("Downloaded %s in %.1f s", name, time.monotonic() - start)
