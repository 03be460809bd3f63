"""Files and folders that appear complete or not at all, locks between processes, and digests."""

import errno
import glob
import hashlib
import mmap
import os
import platform
import re
import shutil
import stat
import sys
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from filelock import FileLock, Timeout

from ..errors import BusyError, ZooError
from .environment import cache_root

STALE_SECONDS = 24 * 3600  # no writer leaves its temporary untouched for a day
LITTER = {".DS_Store", "Thumbs.db", "desktop.ini"}  # what looking into a folder leaves there
LOGS = {".log", ".out", ".err", ".txt"}  # what a shell or SLURM may have begun in the folder of a run
PATIENCE_SECONDS = 2.0  # a shorter wait for a lock needs no explanation

_HOST = hashlib.sha256(platform.node().encode()).hexdigest()[:8]  # a cache may be shared between hosts
_TEMPORARY = re.compile(r"(?P<host>[0-9a-f]{8})-(?P<pid>\d+)-[0-9a-f]{32}\.(?P<kind>tmp|old)")

_SPACE = "free some space or choose another folder (NASNET_ZOO_CACHE moves the cache)"
_ACCESS = (
    "check who may write there and that no other program has it open, or choose another folder "
    "(NASNET_ZOO_CACHE moves the cache)"
)
_IN_THE_WAY = "something else has this name; move it away or choose another one"
_REASONS = {
    errno.ENOSPC: f"the disk is full; {_SPACE}",
    errno.EDQUOT: f"the disk quota is used up; {_SPACE}",
    errno.EFBIG: f"the file is larger than the file system or a limit allows; {_SPACE}",
    errno.EACCES: f"permission denied; {_ACCESS}",
    errno.EPERM: f"permission denied; {_ACCESS}",
    errno.EROFS: "the file system is read-only; choose another folder (NASNET_ZOO_CACHE moves the cache)",
    errno.EIO: "the disk reports an error; check it or choose another folder (NASNET_ZOO_CACHE moves the cache)",
    errno.EEXIST: _IN_THE_WAY,
    errno.ENOTEMPTY: _IN_THE_WAY,
    errno.EISDIR: _IN_THE_WAY,
    errno.ENOTDIR: _IN_THE_WAY,
    errno.ENOENT: "its folder has gone or takes no files; choose another folder",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
}


@contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a temporary path beside `path`; the file written there is renamed to `path` when the block succeeds.

    When the block raises, Ctrl-C included, the temporary is removed and `path` is as it was before. The file has the
    permissions of a new one, whichever library wrote it and whatever was at `path`.
    Raises ZooError if the disk is full, the folder may not be written, or a folder has that name.
    """
    path = Path(path).absolute()
    with _explained(path):
        if path.is_dir():  # before the block has worked
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path)
        temporary = _beside(path, "tmp")
        try:
            mode = _mode_of_new(temporary)
            yield temporary
            _set_mode(temporary, mode)
            _sync(temporary)
            os.replace(temporary, path)
        finally:
            _discard(temporary)
        _sync_entries(path.parent)


@contextmanager
def atomic_folder(path: str | os.PathLike[str], own: Collection[str] = ()) -> Iterator[Path]:
    """Yields a new temporary folder beside `path`; it takes the place of `path` when the block succeeds.

    When the block raises, Ctrl-C included, the temporary is removed and a folder that was at `path` is still there.
    A symbolic link at `path` is followed, not replaced. `own` are the names that a folder to be replaced may hold.
    Everything in it has the permissions of new files and folders.
    Raises ZooError if there are others in it, the disk is full, the parent may not be written, or a file has that name.
    """
    path = Path(path).resolve()
    check_replaceable(path, own)
    with _explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path)
        temporary = _beside(path, "tmp")
        try:
            temporary.mkdir()
            mode = stat.S_IMODE(temporary.stat().st_mode)
            yield temporary
            for folder, _, names in os.walk(temporary):
                _set_mode(Path(folder), mode)
                for name in names:
                    _set_mode(Path(folder, name), mode & 0o666)
                    _sync(Path(folder, name))
                _sync_entries(Path(folder))
            _swap(temporary, path)
        finally:
            _discard(temporary)
        _sync_entries(path.parent)


def check_replaceable(path: str | os.PathLike[str], own: Collection[str] = ()) -> None:
    """Raises the ZooErrors with which `atomic_folder` would begin, for work that takes long before it writes; changes
    nothing."""
    path = Path(path).resolve()
    with _explained(path):
        names = sorted(entry.name for entry in path.iterdir()) if path.is_dir() else []
        if foreign := next((name for name in names if name not in own and name not in LITTER), None):
            raise ZooError(f"{path} holds {foreign}, which would be lost: move it, or choose a new or an empty folder")
        above = next((folder for folder in path.parents if folder.exists()), path.parent)
        for place in (above, path):
            if place.exists() and not place.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
        if not os.access(above, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))


def check_run_folder(path: str | os.PathLike[str], own: Collection[str], what: str) -> None:
    """Raises ZooError if there is something at `path` that is no run folder of ours: other files than logs, and none of
    `own`. `what` is the word for what a run folder holds."""
    path = Path(path)
    with _explained(path):
        if path.is_dir() and not any((path / name).exists() for name in own):
            entries = sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))
            if foreign := [entry.name for entry in entries if entry.suffix not in LOGS]:
                raise ZooError(f"{path} holds {foreign[0]} and no {what}: choose a new or an empty folder")


@contextmanager
def locked(path: str | os.PathLike[str], timeout: float | None = None) -> Iterator[None]:
    """Holds a lock between processes (and threads) for the work on `path`, in a hidden file beside it.

    Waits at most `timeout` seconds, without limit if None, and says on stderr that it waits. Do not nest for one
    `path`. When the block raises, a lock file and folders that were not there before are removed.
    Raises BusyError when the time is over, and ZooError if the lock file cannot be written.
    """
    path = Path(path).absolute()
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    with _explained(path):
        new = [place for place in (Path(lock.lock_file), *path.parents) if not place.exists()]
        try:
            _acquire(lock, path, timeout)
        except Timeout:
            since = f"has been working on {path} for more than {timeout:g} s" if timeout else f"is working on {path}"
            raise BusyError(f"Another process {since}; wait until it has finished, or end it, and try again.") from None
    refused: list[Path] = []
    try:
        yield
    except BaseException:
        refused = new
        if refused:
            _discard(refused[0])  # while it is held: who waits for it sees that it has gone, and makes another one
        raise
    finally:
        lock.release()
        with suppress(OSError):
            for folder in refused[1:]:
                folder.rmdir()


def is_web_page(start: bytes) -> bool:
    """Whether a file that begins like this is HTML: what a proxy or a network's login page sends in place of a file."""
    return re.match(rb"(\xef\xbb\xbf)?\s*<(!doctype html|html|head|body)\b", start[:1024], re.IGNORECASE) is not None


def holds(path: str | os.PathLike[str], pattern: bytes) -> bool:
    """Whether a file has bytes that fit a regular expression. They are mapped, not copied into memory."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return re.search(pattern, data, re.DOTALL) is not None


def sha256_file(path: str | os.PathLike[str]) -> str:
    """The SHA-256 of a file in hex, read in pieces. Raises OSError if it cannot be read."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def md5_file(path: str | os.PathLike[str]) -> str:
    """The MD5 of a file in hex, read in pieces: for publishers that give no better hash. Raises OSError likewise."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def read_checked(path: str | os.PathLike[str], md5: str) -> bytes:
    """A file's bytes, whose MD5 (hex) has to be this one.

    That it was is remembered in the cache, by an empty file whose name stands for the path, size, inode and times, so
    that no other process has to compute it until the file changes. Raises OSError if the file cannot be read, and
    ValueError if its MD5 is another one.
    """
    path = Path(path).absolute()
    with open(path, "rb") as file:
        status, data = os.fstat(file.fileno()), file.read()
    state = (path, md5, status.st_size, status.st_ino, status.st_mtime_ns, status.st_ctime_ns)
    mark = None
    with suppress(OSError, ZooError):  # without a cache it is computed each time
        mark = cache_root() / "checked" / hashlib.sha256(repr(state).encode()).hexdigest()
        if mark.is_file():
            return data
    if hashlib.md5(data, usedforsecurity=False).hexdigest() != md5:
        raise ValueError(f"the MD5 of {path.name} is not {md5}")
    with suppress(OSError):
        if mark is not None:
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.touch()
    return data


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turns the OSErrors that a user can do something about into one sentence about `path`."""
    try:
        yield
    except OSError as error:
        # The block may also have read other files; errors there are for the caller to explain.
        other = isinstance(error.filename, str) and not (
            Path(error.filename).is_relative_to(path.parent) or path.is_relative_to(error.filename)
        )
        if other or error.errno not in _REASONS:
            raise
        raise ZooError(f"Cannot write {path}: {_REASONS[error.errno]}.") from error


def _beside(path: Path, kind: str) -> Path:
    """A free hidden name in the same folder that says who made it; `kind` is "tmp" (unfinished) or "old" (replaced)."""
    return path.with_name(f".{path.name}.{_HOST}-{os.getpid()}-{uuid4().hex}.{kind}")


def _sweep(path: Path) -> None:
    """Removes the temporaries that killed processes left beside `path`; a folder that one had moved aside is
    restored."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*"):
        match = _TEMPORARY.fullmatch(left.name.removeprefix(f".{path.name}."))
        with suppress(OSError):  # another process may be sweeping too
            if match is None or not _is_stale(left, match["host"], int(match["pid"])):
                continue
            if match["kind"] == "old" and not path.exists():
                os.replace(left, path)
            else:
                _discard(left)


def _is_stale(temporary: Path, host: str, pid: int) -> bool:
    status = temporary.stat()
    touched = max(status.st_mtime, status.st_ctime)  # on POSIX a rename sets only ctime
    return time.time() - touched > STALE_SECONDS or (host == _HOST and not _is_running(pid))


def _is_running(pid: int) -> bool:
    if os.name == "nt":
        return True  # there os.kill would end the process instead of looking; age alone decides
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it runs, as another user
    return True


def _swap(new: Path, path: Path) -> None:
    """Puts the folder `new` at `path`; the folder that was there is restored if that fails."""
    old = _beside(path, "old")
    try:
        if path.exists():
            os.replace(path, old)
        os.replace(new, path)
    except BaseException:
        if old.exists() and not path.exists():
            os.replace(old, path)
        raise
    _discard(old)


def _discard(path: Path) -> None:
    """Removes a file or folder if it exists; if it cannot be removed now, `_sweep` does it later."""
    with suppress(OSError):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()


def _mode_of_new(path: Path) -> int:
    """The permissions that a new file gets here: what the umask and the folder's own rules leave. The file is made and
    removed again, because Python reads the umask only by changing it for a moment, for all threads."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        return stat.S_IMODE(os.fstat(descriptor).st_mode)
    finally:
        os.close(descriptor)
        path.unlink()


def _set_mode(path: Path, mode: int) -> None:
    """Sets permissions that some libraries narrow: safetensors writes files that only their owner may read."""
    if stat.S_IMODE(path.stat().st_mode) != mode:
        with suppress(OSError):  # some network file systems have none
            path.chmod(mode)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)  # Windows flushes only writable ones
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_entries(folder: Path) -> None:
    """Makes renames in `folder` durable; Windows and some network file systems cannot."""
    with suppress(OSError):
        _sync(folder)


def _acquire(lock: FileLock, path: Path, timeout: float | None) -> None:
    if timeout is not None and timeout <= PATIENCE_SECONDS:
        _acquire_file(lock, timeout)
        return
    try:
        _acquire_file(lock, PATIENCE_SECONDS)
    except Timeout:
        print(f"Waiting for another process that is working on {path}", file=sys.stderr, flush=True)
        _acquire_file(lock, -1 if timeout is None else timeout - PATIENCE_SECONDS)


def _acquire_file(lock: FileLock, timeout: float) -> None:
    """Acquires the lock in a file that still has its name: a holder whose block raised may have removed it."""
    file = Path(lock.lock_file)
    while True:
        file.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=timeout)
        if file.exists():
            return
        lock.release()
