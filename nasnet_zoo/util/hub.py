"""Files of Hub repos. Imports no torch."""

import logging
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from json import JSONDecodeError
from pathlib import Path

from ..errors import DownloadError, first_line
from .environment import offline
from .files import sha256_file

log = logging.getLogger("nasnet_zoo")

_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_REPO = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?")


def parse_repo(source: str) -> tuple[str, str | None] | None:
    """(repo, revision) of "org/repo" or "org/repo@revision"; None if the text looks like a path."""
    match = _REPO.fullmatch(source)
    return None if match is None or source.startswith((".", "/")) else (match["repo"], match["revision"])


def hub_files(repo: str, names: Sequence[str], revision: str | None = None, *, local_files_only: bool = False) -> Path:
    """The folder, in the Hub's own cache, that holds these files of a repo, all of one commit.

    A commit that is in the cache is taken from there. A branch or tag may have moved, so the Hub is asked once which
    commit it is now, and only the files of that commit that are not in the cache are downloaded. If the Hub cannot be
    reached, the cached files are used. Large files are checked against the SHA-256 that the Hub states, once each, and
    again when they change on disk. With `local_files_only`, or HF_HUB_OFFLINE set, only the cache is used. Raises
    DownloadError.
    """
    from huggingface_hub import try_to_load_from_cache

    try:
        found = [try_to_load_from_cache(repo, name, revision=revision) for name in names]
    except ValueError as error:
        raise DownloadError(
            f"{repo} is neither a folder nor a name that the Hub allows ({first_line(error)})"
        ) from error
    complete = all(isinstance(path, str) for path in found)
    cached = Path(found[0]).parents[names[0].count("/")] if complete else None
    if local_files_only or offline():
        if cached is None:
            raise DownloadError(
                f"{repo} cannot be had from the Hub: it is not in the cache, and no connection may be opened"
            )
        return cached
    pinned = revision is not None and _COMMIT.fullmatch(revision)
    folder = cached if cached and pinned else _newest(repo, names, revision, cached)
    for name in names:
        _check(folder / name)
    return folder


def _newest(repo: str, names: Sequence[str], revision: str | None, cached: Path | None) -> Path:
    """The folder of the commit that the revision points to now; `cached` is that of the commit it pointed to before."""
    from huggingface_hub import HfApi, constants, snapshot_download

    what = f"{repo}@{revision}" if revision else repo
    try:
        # snapshot_download would ask this too, but without a time limit, and for a commit it would try for 23 seconds.
        info = HfApi().model_info(repo, revision=revision, timeout=constants.HF_HUB_ETAG_TIMEOUT)
        absent = sorted(set(names) - {file.rfilename for file in info.siblings or ()})
        if not absent and (cached is None or cached.name != info.sha):
            return Path(snapshot_download(repo, revision=revision, allow_patterns=list(names)))
    except Exception as error:  # huggingface_hub's errors come from three packages with no common base
        if cached is not None and _is_out_of_reach(error):
            log.info("%s from the cache, because the Hub cannot be reached: %s", what, error)
            return cached
        reason = first_line(error)
        if isinstance(error, JSONDecodeError):
            reason = "it answers with something else than JSON, as a proxy or a login page does"
        raise DownloadError(
            f"{what} cannot be had from the Hub ({reason}); check the name, the network, and for a private "
            f"repo your token"
        ) from error
    if absent:
        raise DownloadError(
            f"{what} cannot be had from the Hub, because it has no {absent[0]}: check the name, or try another revision"
        )
    return cached


def _is_out_of_reach(error: Exception) -> bool:
    from huggingface_hub.errors import HfHubHTTPError

    if isinstance(error, HfHubHTTPError):
        return error.response.status_code >= 500
    # huggingface_hub 1 speaks through httpx, 2 through httpx2: whichever raised this error has been imported.
    clients = [sys.modules[name] for name in ("httpx", "httpx2") if name in sys.modules]
    return isinstance(error, tuple(client.TransportError for client in clients))


def _check(path: Path) -> None:
    """Checks a large file against its SHA-256, which is its name in the Hub's cache. A marker file beside it says that
    it was checked, so that the next call need not do it."""
    if not path.is_symlink():  # a small file, or a system where the cache uses no links
        return
    blob = path.parent / path.readlink()  # one step only: this may be a link itself, to a file that several repos share
    if not _SHA256.fullmatch(blob.name):
        return
    size, changed = blob.stat().st_size, blob.stat().st_mtime_ns
    mark, state = blob.parent.with_name("checked") / blob.name, f"{size} {changed}"
    with suppress(OSError):
        if mark.read_text(encoding="utf-8") == state:
            return
    if sha256_file(blob) != blob.name:
        for place in (blob.resolve(), blob):
            with suppress(OSError):  # another process may have removed it
                place.unlink()
        raise DownloadError(f"{path.name} arrived damaged (its SHA-256 is not {blob.name[:16]}...); load it again")
    with suppress(OSError):  # a cache that cannot be written is checked each time
        mark.parent.mkdir(exist_ok=True)
        mark.write_text(state, encoding="utf-8")
