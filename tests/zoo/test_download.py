import errno
import hashlib
import io
import logging
import multiprocessing
import os
import random
import re
import socket
import ssl
import threading
import time
from collections import Counter
from contextlib import suppress

import httpx2
import pytest
from loopback import Server

from nasnet_zoo.errors import DownloadError, ZooError
from nasnet_zoo.util.environment import offline
from nasnet_zoo.util.files import locked
from nasnet_zoo.weights import download, pace
from nasnet_zoo.weights.download import fetch

DATA = random.Random(0).randbytes(300_000)
SHA256 = hashlib.sha256(DATA).hexdigest()
MD5 = hashlib.md5(DATA).hexdigest()


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    for name in ("HF_HUB_OFFLINE", "NASNET_ZOO_OFFLINE", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(download, "PAUSE_SECONDS", 0.0)


@pytest.fixture
def server():
    with Server({"/a.bin": DATA}) as server:
        yield server


@pytest.fixture
def target(tmp_path):
    return tmp_path / "cache" / "a.bin"


def left(target):
    return sorted(path.name for path in target.parent.iterdir()) if target.parent.exists() else []


def ranges(server):
    return [request.range for request in server.requests]


def refused(server, target, path="/a.bin", **expected):
    """The sentence of the DownloadError that fetching ends with; nothing may be left."""
    with pytest.raises(DownloadError) as caught:
        fetch(server.url(path), target, **expected)
    assert left(target) == []
    sentence = str(caught.value)
    assert server.url(path) in sentence and "\n" not in sentence and sentence.endswith(".")
    return sentence


def test_a_file_arrives(server, target):
    assert fetch(server.url("/a.bin"), target, md5=MD5.upper()) == SHA256
    assert target.read_bytes() == DATA and left(target) == ["a.bin"]
    assert server.requests == [("GET", "/a.bin", None)]


def test_an_empty_file_arrives(server, target):
    server.files["/empty"] = b""
    assert fetch(server.url("/empty"), target) == hashlib.sha256(b"").hexdigest()
    assert target.read_bytes() == b""


def test_a_redirect_is_followed(server, target):
    server.fault("/old", redirect="/a.bin")
    assert fetch(server.url("/old"), target) == SHA256


def test_a_redirect_in_a_circle_is_an_error(server, target):
    server.fault("/a.bin", redirect="/a.bin")
    assert "redirect" in refused(server, target)


def test_a_cut_download_is_resumed(server, target):
    server.fault("/a.bin", cut=100_000, times=1)
    assert fetch(server.url("/a.bin"), target) == SHA256
    assert target.read_bytes() == DATA and ranges(server) == [None, "bytes=100000-"]


def test_each_attempt_goes_on_where_the_last_one_stopped(server, target):
    server.fault("/a.bin", cut=120_000, times=2)
    assert fetch(server.url("/a.bin"), target) == SHA256
    assert target.read_bytes() == DATA and ranges(server) == [None, "bytes=120000-", "bytes=240000-"]


def test_a_server_without_ranges_starts_again(server, target, monkeypatch):
    server.fault("/a.bin", cut=100_000, times=1)
    monkeypatch.setattr(time, "sleep", lambda seconds: server.fault("/a.bin", ignore_range=True))
    assert fetch(server.url("/a.bin"), target) == SHA256
    assert target.read_bytes() == DATA and ranges(server) == [None, "bytes=100000-"]


@pytest.mark.parametrize("length", [200_000, 50_000])
def test_a_file_that_changed_meanwhile_starts_again(server, target, monkeypatch, length):
    changed = random.Random(1).randbytes(length)
    server.fault("/a.bin", cut=100_000, times=1)
    monkeypatch.setattr(time, "sleep", lambda seconds: server.files.update({"/a.bin": changed}))
    assert fetch(server.url("/a.bin"), target) == hashlib.sha256(changed).hexdigest()
    assert target.read_bytes() == changed


def test_a_download_that_is_always_cut_fails(server, target):
    server.fault("/a.bin", cut=1000)
    assert "3 attempts" in refused(server, target) and "at byte 3000 of 300000" in refused(server, target)
    assert ranges(server)[:3] == [None, "bytes=1000-", "bytes=2000-"]


def test_a_server_that_stalls_fails(server, target, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT", httpx2.Timeout(0.2))
    server.fault("/a.bin", stall=300)
    assert "timed out" in refused(server, target)


def test_a_busy_server_is_asked_again(server, target):
    server.fault("/a.bin", status=503, times=2)
    assert fetch(server.url("/a.bin"), target) == SHA256
    server.fault("/b.bin", status=503)
    assert "503" in refused(server, target.parent.parent / "b" / "b.bin", "/b.bin")


@pytest.mark.parametrize("status", [204, 403, 404])
def test_a_refusal_is_not_repeated(server, target, status):
    server.fault("/a.bin", status=status)
    assert f"status {status}" in refused(server, target) and len(server.requests) == 1


def test_a_file_damaged_once_is_downloaded_again(server, target):
    server.fault("/a.bin", flip=5, times=1)
    assert fetch(server.url("/a.bin"), target, md5=MD5) == SHA256
    assert target.read_bytes() == DATA and ranges(server) == [None, None]


def test_a_wrong_file_names_both_digests(server, target):
    server.fault("/a.bin", flip=5)
    sentence = refused(server, target, md5=MD5)
    damaged = DATA[:5] + bytes([DATA[5] ^ 0xFF]) + DATA[6:]
    assert MD5 in sentence and hashlib.md5(damaged).hexdigest() in sentence and len(server.requests) == 2


def test_a_failed_download_leaves_the_old_file(server, target):
    fetch(server.url("/a.bin"), target)
    server.fault("/a.bin", flip=5)
    with pytest.raises(DownloadError):
        fetch(server.url("/a.bin"), target, md5=MD5)
    assert target.read_bytes() == DATA and left(target) == ["a.bin"]


def test_a_closed_port_is_an_error(target):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/a.bin"
        with pytest.raises(DownloadError, match="could not be reached.*check the network"):
            fetch(url, target)
    assert left(target) == []


@pytest.mark.parametrize(
    "url",
    [
        *("ftp://127.0.0.1/a", "nonsense", "http://[::1", "http://" + "a" * 64 + ".example/a", "http://a..b/a"),
        *("http://host\udcff/a", "http://127.0.0.1/\udcff", "http://127.0.0.1/\0"),
    ],
)
def test_an_address_that_is_none_is_an_error(target, url):
    with pytest.raises(DownloadError, match="not an http or https address") as caught:
        fetch(url, target)
    assert str(caught.value).encode()
    assert left(target) == []


OK = b"HTTP/1.1 200 OK\r\n"
ENDLESS = {
    "status": (b"HTTP/1.1 2", b"0"),
    "headers": (OK + b"X: ", b"x"),
    "continue": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "body": (OK + b"Content-Length: 300000\r\n\r\n", b"x"),
    "body of no length": (OK + b"\r\n", b"x"),
    "chunk": (OK + b"Transfer-Encoding: chunked\r\n\r\n1;", b"x"),
    "trailer": (OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX: ", b"x"),
}


@pytest.mark.parametrize(("raw", "drip"), ENDLESS.values(), ids=ENDLESS)
def test_a_server_that_drips_fails(server, target, monkeypatch, raw, drip):
    monkeypatch.setattr(pace, "SECONDS", 0.2)
    server.fault("/a.bin", raw=raw, drip=drip)
    assert "less than 60000 bytes in 0.2 seconds arrived" in refused(server, target)
    assert len(server.requests) == 3


def test_a_secure_connection_that_drips_fails(target, monkeypatch):
    monkeypatch.setattr(pace, "SECONDS", 0.2)
    monkeypatch.setattr(download, "ATTEMPTS", 1)
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def drip():
            connection, _ = listening.accept()
            with connection, suppress(OSError):
                connection.sendall(b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc\x03\x03")  # a long hello
                while True:
                    connection.sendall(b"x")
                    time.sleep(0.01)

        threading.Thread(target=drip, daemon=True).start()
        with pytest.raises(DownloadError, match="less than 60000 bytes in 0.2 seconds arrived"):
            fetch(f"https://127.0.0.1:{listening.getsockname()[1]}/a.bin", target)


def test_a_server_that_dripped_once_goes_on(server, target, monkeypatch):
    monkeypatch.setattr(pace, "SECONDS", 1.0)
    server.files["/a.bin"] = data = bytes(300_000)
    head = OK + f'Content-Length: 300000\r\nETag: "{hashlib.sha256(data).hexdigest()[:16]}"\r\n\r\n'.encode()
    server.fault("/a.bin", raw=head + data[:1000], drip=b"\0", times=1)
    assert fetch(server.url("/a.bin"), target) == hashlib.sha256(data).hexdigest()
    assert len(ranges(server)) == 2 and re.fullmatch(r"bytes=1\d\d\d-", ranges(server)[1])


def test_a_slow_line_is_fast_enough(server, target, monkeypatch):
    monkeypatch.setattr(pace, "SECONDS", 1.0)
    monkeypatch.setattr(pace, "LEAST_BYTES", 1)
    server.fault("/a.bin", raw=OK + b"Content-Length: 300000\r\n\r\n", drip=bytes(2000))
    assert fetch(server.url("/a.bin"), target) == hashlib.sha256(bytes(300_000)).hexdigest()


def test_a_file_that_never_ends_is_refused(server, target, monkeypatch):
    monkeypatch.setattr(download, "MOST_BYTES", 1 << 20)
    server.fault("/a.bin", raw=OK + b"\r\n", drip=bytes(1 << 16))
    assert "larger than 1 MiB" in refused(server, target) and len(server.requests) == 1
    server.fault("/a.bin", raw=OK + b"Content-Length: 1048577\r\n\r\nabc")
    assert "larger than 1 MiB" in refused(server, target)


@pytest.mark.parametrize("length", ["9" * 5000, "-1", "1e3", "0x10"])
def test_a_length_that_is_no_number(server, target, length):
    server.fault("/a.bin", raw=OK + f"Content-Length: {length}\r\n\r\nabc".encode())
    assert "3 attempts" in refused(server, target)


@pytest.mark.parametrize("rest", ["9" * 5000 + "-9/9", "100000-299999/" + "9" * 5000, "\xb2-9/9"])
def test_a_range_that_is_no_number(server, target, monkeypatch, rest):
    part = b"HTTP/1.1 206 Partial Content\r\nContent-Length: 1\r\nContent-Range: bytes " + rest.encode("latin1")
    faults = iter([lambda: server.fault("/a.bin", raw=part + b"\r\n\r\nx", times=1), lambda: None])
    monkeypatch.setattr(time, "sleep", lambda seconds: next(faults)())
    server.fault("/a.bin", cut=100_000, times=1)
    assert fetch(server.url("/a.bin"), target) == SHA256
    assert ranges(server) == [None, "bytes=100000-", None]  # what came instead of the rest is not used


@pytest.mark.parametrize("to", ["file:///etc/passwd", "ftp://x/y", "http://" + "a" * 64 + ".example/", "data:,x"])
def test_a_redirect_to_what_is_no_address(server, target, to):
    server.fault("/a.bin", redirect=to)
    assert refused(server, target)


def test_a_secure_address_leads_to_no_insecure_one(target, monkeypatch):
    def answer(transport, request):
        location = {"Location": "http://127.0.0.1/a.bin"}
        return httpx2.Response(302, headers=location) if request.url.scheme == "https" else httpx2.Response(200)

    monkeypatch.setattr(httpx2.HTTPTransport, "handle_request", answer)
    with pytest.raises(DownloadError, match="https://127.0.0.1/a.bin leads to http://127.0.0.1/a.bin"):
        fetch("https://127.0.0.1/a.bin", target)
    assert left(target) == []


def test_a_certificate_that_cannot_be_verified_is_an_error(server, target, monkeypatch):
    def connect(*args, **kwargs):
        try:
            raise ssl.SSLCertVerificationError("certificate verify failed")
        except ssl.SSLError as error:
            raise httpx2.ConnectError("certificate verify failed") from error

    monkeypatch.setattr(httpx2.Client, "stream", connect)
    assert "SSL_CERT_FILE" in refused(server, target)


def test_a_proxy_that_cannot_be_used_is_an_error(server, target, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "nonsense://proxy")
    assert "HTTP_PROXY" in refused(server, target)


@pytest.mark.parametrize("name", ["HF_HUB_OFFLINE", "NASNET_ZOO_OFFLINE"])
def test_offline_opens_no_connection(server, target, monkeypatch, name):
    for value, expected in {"1": True, "on": True, "Yes": True, "TRUE": True, "0": False, "": False}.items():
        monkeypatch.setenv(name, value)
        assert offline() is expected
    monkeypatch.setenv(name, "1")
    assert "is set" in refused(server, target) and server.requests == []


def test_a_full_disk_is_one_sentence(server, target, monkeypatch):
    class Full(io.FileIO):
        def write(self, piece):
            if self.tell() > 100_000:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return super().write(piece)

    monkeypatch.setattr(download, "open", lambda path, mode: Full(path, mode), raising=False)
    with pytest.raises(ZooError, match="the disk is full") as caught:
        fetch(server.url("/a.bin"), target)
    assert not isinstance(caught.value, DownloadError) and left(target) == [] and len(server.requests) == 1


def test_ctrl_c_leaves_nothing(server, target, monkeypatch):
    def interrupt(self, response):
        raise KeyboardInterrupt

    monkeypatch.setattr(download._Transfer, "_restart", interrupt)
    with pytest.raises(KeyboardInterrupt):
        fetch(server.url("/a.bin"), target)
    assert left(target) == []


@pytest.mark.parametrize("page", ["<!DOCTYPE html><title>Log in</title>", "\ufeff\n<html>", "<HTML lang='en'>"])
def test_a_login_page_is_not_the_file(server, target, page):
    """A proxy answers with one, and with status 200; another attempt would get it again."""
    server.files["/a.bin"] = page.encode()
    for expected in ({}, {"md5": MD5}):
        server.requests.clear()
        assert "web page instead of the file" in refused(server, target, **expected)
        assert len(server.requests) == 1


def test_progress(server, target, monkeypatch, caplog, capsys):
    caplog.set_level(logging.INFO, "nasnet_zoo")
    fetch(server.url("/a.bin"), target, label="weights")
    assert [message.split(" in ")[0] for message in caplog.messages] == ["Downloading weights", "Downloaded weights"]
    assert capsys.readouterr() == ("", "downloading weights\n")  # a log has no terminal's bar
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    fetch(server.url("/a.bin"), target, label="[weights]")
    assert "[weights]" in capsys.readouterr().err


def test_validator_prefers_a_strong_etag():
    date = "Tue, 01 Aug 2017 00:00:00 GMT"
    assert download._validator(httpx2.Headers({"ETag": '"x"', "Last-Modified": date})) == '"x"'
    assert download._validator(httpx2.Headers({"ETag": 'W/"x"', "Last-Modified": date})) == date
    assert download._validator(httpx2.Headers()) is None


def fetch_once(url, target):
    with locked(target):
        if not target.exists():
            fetch(url, target)


def test_of_four_processes_one_downloads(server, target):
    server.fault("/a.bin", stall=0.2)
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=fetch_once, args=(server.url("/a.bin"), target)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert Counter(process.exitcode for process in processes) == {0: 4}
    assert target.read_bytes() == DATA and len(server.requests) == 1
