"""A web server on 127.0.0.1 for tests: serves files with ETag and Range, and misbehaves on request.

with Server({"/weights.bin": data}) as server:  # or Server(folder)
    server.fault("/weights.bin", cut=1000, times=1)
    fetch(server.url("/weights.bin"), path)
assert [request.range for request in server.requests] == [None, "bytes=1000-"]

A proxy in the environment must be unset or know 127.0.0.1 in NO_PROXY.
"""

import hashlib
import json
import re
import threading
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple, Self


class Request(NamedTuple):
    method: str
    path: str  # without the query
    range: str | None  # the Range header


@dataclass
class Fault:
    """How a path misbehaves; see Server.fault."""

    cut: int | None = None
    flip: int | None = None
    status: int | None = None
    redirect: str | None = None
    stall: float = 0.0
    ignore_range: bool = False
    raw: bytes | None = None
    drip: bytes = b""
    times: int | None = None


class Server:
    """Serves a dict from "/path" to bytes (which may change while it runs) or a folder, inside a `with` block."""

    def __init__(self, files: dict[str, bytes] | str | Path) -> None:
        self.files = files
        self.headers: dict[str, dict[str, str]] = {}  # from "/path" to headers of its answers
        self.requests: list[Request] = []
        self._faults: dict[str, Fault] = {}
        self._lock = threading.Lock()
        self._closing = threading.Event()

    def __enter__(self) -> Self:
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"served": self}))
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._closing.set()
        self._http.shutdown()
        self._http.server_close()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}{path}"

    def fault(self, path: str, **fault: int | float | str | bytes | bool | None) -> None:
        """Makes `path` misbehave, `times` times (always if left out), in one of these ways or several together:

        cut=n            close the connection after n bytes of the body
        flip=n           turn over the bits of byte n of the file
        status=n         answer with this status and no file
        redirect=target  answer with 302 to a path or a URL
        stall=seconds    wait before the first byte of the body
        ignore_range     send the whole file whatever was asked
        raw=bytes        answer with these bytes, status line and headers included
        drip=bytes       and then with these, again and again, until the client leaves
        """
        self._faults[path] = Fault(**fault)

    def add_hub_repo(self, repo: str, files: dict[str, bytes], revision: str = "main") -> None:
        """Serves `files` as the Hugging Face Hub would, with model.safetensors as a large file; HF_ENDPOINT is url("").

        What is asked for by the commit's hash is served too.
        """
        named = re.fullmatch(r"[0-9a-f]{40}", revision)
        commit = revision if named else hashlib.sha1(b"".join(files.values())).hexdigest()
        for name, data in files.items():
            headers = {"X-Repo-Commit": commit, "ETag": f'"{hashlib.sha1(data).hexdigest()}"'}
            if name.endswith(".safetensors"):
                headers |= {"X-Linked-Etag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Linked-Size": str(len(data))}
            for version in (revision, commit):
                path = f"/{repo}/resolve/{version}/{name}"
                self.files[path], self.headers[path] = data, headers
        tree = [{"type": "file", "path": name, "size": len(data), "oid": ""} for name, data in files.items()]
        info = {"id": repo, "sha": commit, "siblings": [{"rfilename": name} for name in files]}
        api = f"/api/models/{repo}"
        answers = {f"{api}/revision/{revision}": info, f"{api}/revision/{commit}": info, f"{api}/tree/{commit}": tree}
        if revision == "main":
            answers[api] = info
        self.files |= {path: json.dumps(answer).encode() for path, answer in answers.items()}

    def _next_fault(self, path: str) -> Fault:
        with self._lock:
            fault = self._faults.get(path, Fault())
            if fault.times is not None:
                fault.times -= 1
                if fault.times <= 0:
                    del self._faults[path]
            return fault

    def _read(self, path: str) -> bytes | None:
        if isinstance(self.files, dict):
            return self.files.get(path)
        file = Path(self.files, path.lstrip("/"))
        return file.read_bytes() if file.is_file() else None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    served: Server

    def handle(self) -> None:
        with suppress(ConnectionError):  # the client may leave when it likes
            super().handle()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.served.requests.append(Request(self.command, path, self.headers.get("Range")))
        fault, data = self.served._next_fault(path), self.served._read(path)
        if fault.raw is not None:
            self.close_connection = True
            self.wfile.write(fault.raw)
            while fault.drip and not self.served._closing.wait(0.01):
                self.wfile.write(fault.drip)
            return
        if fault.status or data is None and not fault.redirect:
            return self._answer(fault.status or 404, b"no file here")
        if fault.redirect:
            return self._answer(302, b"", Location=fault.redirect)
        own = self.served.headers.get(path, {})
        etag = own.get("ETag") or f'"{hashlib.sha256(data).hexdigest()[:16]}"'
        if fault.flip is not None:
            data = data[: fault.flip] + bytes([data[fault.flip] ^ 0xFF]) + data[fault.flip + 1 :]
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked is None or fault.ignore_range or self.headers.get("If-Range", etag) != etag:
            return self._answer(200, data, fault, **{"ETag": etag, **own})
        start, stop = int(asked[1]), min(int(asked[2] or len(data)) + 1, len(data))
        if start >= len(data):
            return self._answer(416, b"", **{"Content-Range": f"bytes */{len(data)}"})
        part = {"Content-Range": f"bytes {start}-{stop - 1}/{len(data)}"}
        self._answer(206, data[start:stop], fault, **{"ETag": etag, **own, **part})

    do_HEAD = do_GET

    def _answer(self, status: int, body: bytes, fault: Fault | None = None, **headers: str) -> None:
        fault = fault or Fault()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), "Accept-Ranges": "bytes", **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.served._closing.wait(fault.stall)
        if self.command == "HEAD":
            return
        self.wfile.write(body[: fault.cut])
        self.close_connection = fault.cut is not None

    def log_message(self, *message: object) -> None:
        """Says nothing; the tests read `requests`."""
