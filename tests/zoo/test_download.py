import errno
import hashlib
import io
import logging
import multiprocessing
import os
import random
import socket
import ssl
import time
from collections import Counter

import httpx2
import pytest
from loopback import Server

from nasnet_zoo.errors import DownloadError, ZooError
from nasnet_zoo.util.environment import offline
from nasnet_zoo.util.files import locked
from nasnet_zoo.weights import download
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
        with pytest.raises(DownloadError, match="could not be reached.*local_files_only"):
            fetch(url, target)
    assert left(target) == []


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/a", "nonsense", "http://[::1"])
def test_an_address_that_is_none_is_an_error(target, url):
    with pytest.raises(DownloadError, match="not an http or https address"):
        fetch(url, target)
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


def test_progress(server, target, monkeypatch, caplog, capsys):
    caplog.set_level(logging.INFO, "nasnet_zoo")
    fetch(server.url("/a.bin"), target, label="weights")
    assert [message.split(" in ")[0] for message in caplog.messages] == ["Downloading weights", "Downloaded weights"]
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    fetch(server.url("/a.bin"), target, label="[weights]")
    assert "[weights]" in capsys.readouterr().err and len(caplog.messages) == 2


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
