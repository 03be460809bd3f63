import errno
import hashlib
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from nasnet_zoo.errors import ZooError
from nasnet_zoo.util import files
from nasnet_zoo.util.environment import cache_root
from nasnet_zoo.util.files import atomic_file, atomic_folder, locked, md5_file, read_checked, sha256_file


def raiser(error):
    def fail(*args, **kwargs):
        raise error

    return fail


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_atomic_file_appears_only_when_complete(tmp_path):
    target = tmp_path / "deep" / "a.bin"
    with atomic_file(target) as part:
        part.write_bytes(b"new")
        assert not target.exists() and part.parent == target.parent
    assert target.read_bytes() == b"new" and names(target.parent) == ["a.bin"]


@pytest.fixture(params=[0o022, 0o027, 0o002])
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no umask")
@pytest.mark.parametrize("library", [save_file, lambda tensors, path: path.write_bytes(b"new")])
def test_files_have_the_permissions_of_new_ones(tmp_path, umask, library):
    """safetensors alone would write files that nobody but their owner may read."""
    tensors = {"a": np.zeros(3, np.float32)}
    (tmp_path / "old").write_bytes(b"old")
    (tmp_path / "old").chmod(0o600)
    for name in ("new", "old"):
        with atomic_file(tmp_path / name) as part:
            library(tensors, part)
        assert mode(tmp_path / name) == 0o666 & ~umask
    with atomic_folder(tmp_path / "folder") as part:
        library(tensors, part / "a")
        (part / "deep").mkdir(0o700)
        library(tensors, part / "deep" / "b")
    assert [mode(tmp_path / "folder" / name) for name in ("a", "deep/b")] == [0o666 & ~umask] * 2
    assert [mode(tmp_path / "folder" / name) for name in (".", "deep")] == [0o777 & ~umask] * 2
    assert names(tmp_path) == ["folder", "new", "old"]


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt()])
def test_atomic_file_leaves_the_old_one_when_the_block_raises(tmp_path, error):
    target = tmp_path / "a.bin"
    target.write_bytes(b"old")
    with pytest.raises(type(error)), atomic_file(target) as part:
        part.write_bytes(b"half")
        raise error
    assert target.read_bytes() == b"old" and names(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS])
@pytest.mark.parametrize("atomic", [atomic_file, atomic_folder])
def test_a_failing_disk_is_one_sentence(tmp_path, monkeypatch, atomic, code):
    monkeypatch.setattr(os, "fsync", raiser(OSError(code, os.strerror(code))))
    target = tmp_path / "a"
    with pytest.raises(ZooError, match="NASNET_ZOO_CACHE") as caught, atomic(target) as part:
        (part if atomic is atomic_file else part / "b").write_bytes(b"new")
    assert str(target) in str(caught.value) and "\n" not in str(caught.value)
    assert names(tmp_path) == []


@pytest.mark.parametrize("atomic", [atomic_file, atomic_folder])
def test_a_name_that_is_too_long_is_one_sentence(tmp_path, atomic):
    with pytest.raises(ZooError, match="choose a shorter one"), atomic(tmp_path / ("a" * 300)) as part:
        part.write_bytes(b"new")
    assert names(tmp_path) == []


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps a folder that is in use")
def test_a_folder_that_goes_meanwhile_is_one_sentence(tmp_path):
    with pytest.raises(ZooError, match="has gone"), atomic_file(tmp_path / "folder" / "a") as part:
        part.parent.rmdir()
        part.write_bytes(b"new")
    assert names(tmp_path) == []


def test_errors_about_other_files_pass_unchanged(tmp_path):
    elsewhere = str(tmp_path / "secret")
    with pytest.raises(PermissionError), atomic_file(tmp_path / "cache" / "a"):
        raise PermissionError(errno.EACCES, "denied", elsewhere)


def test_a_file_in_the_way_is_kept(tmp_path):
    blocker = tmp_path / "a"
    blocker.write_bytes(b"mine")
    with pytest.raises(ZooError, match="something else has this name"), atomic_folder(blocker, ()):
        pytest.fail("the work must not begin")
    with pytest.raises(ZooError, match="something else has this name"), atomic_file(blocker / "b"):
        pytest.fail("the work must not begin")
    assert blocker.read_bytes() == b"mine" and names(tmp_path) == ["a"]


def test_a_folder_in_the_way_of_a_file_is_kept(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(ZooError), atomic_file(tmp_path / "a") as part:
        part.write_bytes(b"new")
    assert (tmp_path / "a").is_dir() and names(tmp_path) == ["a"]


def write_folder(path, content):
    with atomic_folder(path, ("sub", "a", "extra")) as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "a.txt").write_text(content)


def test_atomic_folder_replaces_the_old_one(tmp_path):
    target = tmp_path / "model"
    write_folder(target, "old")
    (target / "extra").write_text("goes")
    write_folder(target, "new")
    assert names(target) == ["sub"] and (target / "sub" / "a.txt").read_text() == "new"
    assert names(tmp_path) == ["model"]


def test_a_folder_that_holds_anything_else_is_not_replaced(tmp_path):
    write_folder(tmp_path / "model", "old")
    (tmp_path / "model" / "thesis.tex").write_text("mine")
    with pytest.raises(ZooError, match="holds thesis.tex, .* lost: move it, or choose a new or an empty folder"):
        write_folder(tmp_path / "model", "new")
    assert names(tmp_path / "model") == ["sub", "thesis.tex"] and names(tmp_path) == ["model"]


def test_atomic_folder_leaves_the_old_one_when_the_block_raises(tmp_path):
    target = tmp_path / "model"
    write_folder(target, "old")
    with pytest.raises(KeyboardInterrupt), atomic_folder(target, ["sub"]) as folder:
        (folder / "half").write_text("x")
        raise KeyboardInterrupt
    assert names(target) == ["sub"] and names(tmp_path) == ["model"]


def test_atomic_folder_restores_the_old_one_when_the_renaming_fails(tmp_path, monkeypatch):
    target = tmp_path / "model"
    write_folder(target, "old")
    replace = os.replace

    def failing(source, destination):
        if str(source).endswith(".tmp"):
            raise OSError(errno.EACCES, "denied")
        replace(source, destination)

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(ZooError, match="permission denied"):
        write_folder(target, "new")
    assert (target / "sub" / "a.txt").read_text() == "old" and names(tmp_path) == ["model"]


def dead_pid():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def leave(path, pid, kind="tmp", host=files._HOST):
    left = path.with_name(f".{path.name}.{host}-{pid}-{'0' * 32}.{kind}")
    left.mkdir()
    (left / "a").write_text("left")
    return left


@pytest.mark.skipif(os.name == "nt", reason="Windows cannot ask whether a process runs")
def test_what_dead_processes_left_is_swept(tmp_path):
    target, pid = tmp_path / "model", dead_pid()
    gone = leave(target, pid)
    running, foreign = leave(target, os.getpid()), leave(target, pid, host="00000000")
    write_folder(target, "new")
    assert names(tmp_path) == sorted(["model", running.name, foreign.name]) and not gone.exists()


def test_what_is_a_day_old_is_swept(tmp_path, monkeypatch):
    leave(tmp_path / "model", os.getpid(), host="00000000")
    monkeypatch.setattr(files, "STALE_SECONDS", -1)
    write_folder(tmp_path / "other", "new")
    assert len(names(tmp_path)) == 2
    write_folder(tmp_path / "model", "new")
    assert names(tmp_path) == ["model", "other"]


@pytest.mark.skipif(os.name == "nt", reason="Windows cannot ask whether a process runs")
def test_a_folder_that_a_killed_process_moved_aside_comes_back(tmp_path):
    target = tmp_path / "model"
    leave(target, dead_pid(), kind="old")
    with pytest.raises(ValueError), atomic_folder(target, ["a"]):
        raise ValueError
    assert (target / "a").read_text() == "left" and names(tmp_path) == ["model"]


def test_a_lock_times_out_with_one_sentence(tmp_path):
    with locked(tmp_path / "a"):
        caught = []

        def other():
            try:
                with locked(tmp_path / "a", timeout=0.1):
                    pytest.fail("the lock is held")
            except ZooError as error:
                caught.append(str(error))

        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert "0.1 s" in caught[0] and str(tmp_path / "a") in caught[0]
    with locked(tmp_path / "a", timeout=0):
        pass


def test_a_lock_says_that_it_waits(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(files, "PATIENCE_SECONDS", 0.1)
    held, said = threading.Event(), threading.Event()
    monkeypatch.setattr(files, "print", lambda *text, **options: (print(*text, **options), said.set()), raising=False)

    def other():
        with locked(tmp_path / "a"):
            held.set()
            said.wait(300)

    thread = threading.Thread(target=other)
    thread.start()
    held.wait()
    with locked(tmp_path / "a"):
        pass
    thread.join()
    assert capsys.readouterr().err == f"Waiting for another process that is working on {tmp_path / 'a'}\n"


def test_a_block_that_raises_leaves_no_new_lock(tmp_path):
    for path in (tmp_path / "new" / "deep" / "a", tmp_path / "a"):
        with pytest.raises(ValueError), locked(path):
            raise ValueError
    assert names(tmp_path) == []
    with locked(tmp_path / "a"):
        pass
    with pytest.raises(ValueError), locked(tmp_path / "a"):
        raise ValueError
    assert os.name == "nt" or names(tmp_path) == [".a.lock"]  # there it may be another process's
    with pytest.raises(ValueError), locked(tmp_path / "new" / "b"):
        (tmp_path / "new" / "kept").touch()
        raise ValueError
    assert names(tmp_path / "new") == ["kept"]


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps a file that is in use")
def test_who_waits_for_a_lock_that_is_removed_gets_the_next_one(tmp_path, monkeypatch):
    """The lock that it gets first is of a file without a name, which nobody else would see."""
    path, acquire = tmp_path / "a", files.FileLock.acquire
    files_seen = []

    def overtaken(lock, *arguments, **options):
        result = acquire(lock, *arguments, **options)
        files_seen.append(Path(lock.lock_file).stat().st_ino)
        if len(files_seen) == 1:
            Path(lock.lock_file).unlink()
        return result

    monkeypatch.setattr(files.FileLock, "acquire", overtaken)
    with locked(path):
        assert (tmp_path / ".a.lock").is_file() and len(files_seen) == 2


def test_a_folder_in_the_way_is_told_before_the_work(tmp_path):
    with pytest.raises(ZooError, match="something else has this name"), atomic_file(tmp_path):
        pytest.fail("it began")


@pytest.fixture
def hashed(monkeypatch, tmp_path):
    """The data whose MD5 was computed by `read_checked`; it has a cache of its own."""
    plain, seen = hashlib.md5, []
    monkeypatch.setattr(files.hashlib, "md5", lambda data, **options: seen.append(bytes(data)) or plain(data))
    monkeypatch.setenv("NASNET_ZOO_CACHE", str(tmp_path / "cache"))
    return seen


MD5 = hashlib.md5(b"data").hexdigest()


def test_a_file_is_checked_once(tmp_path, hashed):
    path, other = tmp_path / "a", tmp_path / "b"
    path.write_bytes(b"data")
    other.write_bytes(b"data")
    assert read_checked(path, MD5) == read_checked(path, MD5) == b"data" and hashed == [b"data"]
    assert read_checked(other, MD5) == b"data" and len(hashed) == 2
    with pytest.raises(ValueError, match="the MD5 of a is not 0000"):
        read_checked(path, "0" * 32)  # it was another MD5 that was checked


def test_a_file_that_has_changed_is_checked_again(tmp_path, hashed):
    path = tmp_path / "a"
    path.write_bytes(b"data")
    read_checked(path, MD5)
    times = path.stat()
    path.write_bytes(b"Data")  # of the same size
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    for _ in range(2):
        with pytest.raises(ValueError, match=f"the MD5 of a is not {MD5}"):
            read_checked(path, MD5)
    assert hashed == [b"data", b"Data", b"Data"]
    path.write_bytes(b"data")
    assert read_checked(path, MD5) == b"data" and len(hashed) == 4


@pytest.mark.parametrize("blocked", ["cache", "cache/checked", "home"])
def test_a_cache_that_cannot_be_written_disturbs_no_check(tmp_path, hashed, monkeypatch, blocked):
    (tmp_path / "a").write_bytes(b"data")
    if blocked == "home":
        monkeypatch.setattr(files, "cache_root", raiser(ZooError("The home folder is unknown.")))
    else:
        (tmp_path / blocked).parent.mkdir(exist_ok=True)
        (tmp_path / blocked).write_text("in the way")
    assert read_checked(tmp_path / "a", MD5) == read_checked(tmp_path / "a", MD5) == b"data" and len(hashed) == 2
    (tmp_path / "a").write_bytes(b"other")
    with pytest.raises(ValueError, match="MD5"):
        read_checked(tmp_path / "a", MD5)


def test_digests(tmp_path):
    data = bytes(range(256)) * 5000
    (tmp_path / "a").write_bytes(data)
    assert sha256_file(tmp_path / "a") == hashlib.sha256(data).hexdigest()
    assert md5_file(tmp_path / "a") == hashlib.md5(data).hexdigest()


def test_cache_root(tmp_path, monkeypatch):
    for name in ("NASNET_ZOO_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert cache_root() == Path.home() / ".cache" / "nasnet_zoo"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_root() == tmp_path / "xdg" / "nasnet_zoo"
    monkeypatch.setenv("NASNET_ZOO_CACHE", str(tmp_path / "zoo"))
    assert cache_root() == tmp_path / "zoo"
    assert names(tmp_path) == []
