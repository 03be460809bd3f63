"""A web server for a built demo, with the headers that onnxruntime-web's threads need."""

import socket
import sys
import threading
import webbrowser
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, BinaryIO

from nasnet_zoo.errors import ZooError

# The page's <meta> says the same, for hosts that send no headers; for its workers only the header counts.
CONTENT_SECURITY_POLICY = (
    "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; object-src 'none'; base-uri 'none'; form-action 'none'"
)
HEADERS = {
    "Cross-Origin-Opener-Policy": "same-origin",  # these three give the page shared memory, and so threads
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Cache-Control": "no-cache",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
# A system's own table may lack these, or on Windows say text/plain for scripts, which browsers then refuse.
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".txt": "text/plain; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".webp": "image/webp",
    ".wasm": "application/wasm",
    ".onnx": "application/octet-stream",
    ".gz": "application/gzip",
}


def serve(folder: str | Path, host: str = "127.0.0.1", port: int = 0, open_browser: bool = True) -> None:
    """Serves a folder that `build_site` made until Ctrl-C, and prints the address; port 0 is any free one.

    Raises ZooError if there is no page in the folder or the address cannot be used.
    """
    with site_server(folder, host, port) as server:
        print(f"The demo is at {server.address} until you press Ctrl-C.", flush=True)
        if server.everywhere:
            others = f"http://{socket.gethostname()}:{server.server_port}/"
            print(f"Every address of this machine serves it, so from other machines it is at {others}.", flush=True)
        if open_browser:  # in a thread, as a browser in the terminal returns only when it is closed
            threading.Thread(target=webbrowser.open, args=(server.address,), daemon=True).start()
        with suppress(KeyboardInterrupt):
            server.serve_forever()


class SiteServer(ThreadingHTTPServer):
    """Serves the files of one folder at `address`, and if `everywhere` at every address of this machine."""

    daemon_threads = True

    def __init__(self, folder: Path, host: str, port: int) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), partial(_Handler, directory=str(folder)))
        bound = self.server_address[0]
        self.everywhere = bound in ("0.0.0.0", "::")
        reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}[bound] if self.everywhere else host
        self.address = f"http://{f'[{reachable}]' if ':' in reachable else reachable}:{self.server_port}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Prints what went wrong with a request, unless its browser has gone away, which is nobody's error."""
        if not isinstance(sys.exception(), (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)


def site_server(folder: str | Path, host: str = "127.0.0.1", port: int = 0) -> SiteServer:
    """The server of `serve`, listening but not yet answering. Raises ZooError as `serve` does."""
    folder = Path(folder).resolve()
    if not (folder / "index.html").is_file():
        raise ZooError(f"There is no demo in {folder}: make one with nasnet-zoo demo --build {folder}.")
    return _listening(folder, host, port)


def check_address(host: str, port: int) -> None:
    """Raises the ZooError with which `serve` would refuse the address, for work that takes long before it serves."""
    _listening(Path(), host, port).server_close()


def _listening(folder: Path, host: str, port: int) -> SiteServer:
    if not host:  # which the system takes for every address
        raise ZooError("Cannot serve at an empty host: give 127.0.0.1, or 0.0.0.0 for every address of this machine.")
    try:
        return SiteServer(folder, host, port)
    except (OSError, OverflowError, UnicodeError) as error:  # UnicodeError: of a host's name
        reason = getattr(error, "strerror", None) or error
        raise ZooError(f"Cannot serve at {host}, port {port}: {reason}; choose another port or host.") from error


class _Handler(SimpleHTTPRequestHandler):
    extensions_map = TYPES | {"": "application/octet-stream"}

    def send_head(self) -> BinaryIO | None:
        path = Path(self.translate_path(self.path)).resolve()
        if not path.is_relative_to(self.directory):  # a symbolic link; translate_path drops every ".."
            self.send_error(HTTPStatus.NOT_FOUND)
            return None
        return super().send_head()

    def list_directory(self, path: str) -> None:
        self.send_error(HTTPStatus.NOT_FOUND)

    def end_headers(self) -> None:
        for name, value in HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        pass
