"""Files of Hub repos. Imports no torch."""

import logging
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from ..errors import DownloadError, first_line
from ..util.files import sha256_file

log = logging.getLogger("nasnet_zoo")

_SHA256 = re.compile(r"[0-9a-f]{64}")
_REPO = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?")


def parse_repo(source: str) -> tuple[str, str | None] | None:
    """(repo, revision) of "org/repo" or "org/repo@revision"; None for what is rather a path."""
    match = _REPO.fullmatch(source)
    return None if match is None or source.startswith((".", "/")) else (match["repo"], match["revision"])


def hub_files(repo: str, names: Sequence[str], revision: str | None = None, *, local_files_only: bool = False) -> Path:
    """The folder, in the Hub's own cache, that holds these files of a repo, all of one commit.

    What is large is checked against the SHA-256 that the Hub states for the file. Where the Hub cannot be reached,
    what the cache has of the repo serves. Raises DownloadError.
    """
    from httpx2 import TransportError
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache

    from ..util.environment import offline

    try:
        found = [try_to_load_from_cache(repo, name, revision=revision) for name in names]
    except ValueError as error:
        raise DownloadError(
            f"{repo} is neither a folder nor a name that the Hub allows ({first_line(error)})"
        ) from error
    cached = _folder(found[0], names[0]) if all(isinstance(path, str) for path in found) else None
    if local_files_only or offline():  # hf_hub_download may open connections of its own even then
        if cached is None:
            raise DownloadError(
                f"{repo} cannot be had from the Hub: it is not in the cache, and no connection may be opened"
            )
        return cached
    try:
        # Asks once, so that a Hub out of reach is told at once: hf_hub_download would try again for 23 seconds.
        get_hf_file_metadata(hf_hub_url(repo, names[0], revision=revision))
        folder = _folder(hf_hub_download(repo, names[0], revision=revision), names[0])
        # The folder's name is the commit, so that all files are of one, whatever is pushed meanwhile.
        paths = [Path(hf_hub_download(repo, name, revision=folder.name)) for name in names[1:]]
    except Exception as error:  # huggingface_hub's errors come from three packages with no common base
        if cached is not None and isinstance(error, TransportError):
            log.info("%s from the cache, for the Hub cannot be reached: %s", repo, error)
            return cached
        raise DownloadError(
            f"{repo}{f'@{revision}' if revision else ''} cannot be had from the Hub ({first_line(error)}); check the "
            f"name, the network, and for a private repo your token"
        ) from error
    for path in paths:
        _check_blob(path)
    return folder


def _folder(path: str, name: str) -> Path:
    """The repo's folder from one file's path and its name there."""
    return Path(path).parents[name.count("/")]


def _check_blob(path: Path) -> None:
    """The Hub's cache names a large file's blob by the SHA-256 that the Hub states for it."""
    blob = path.resolve()
    if _SHA256.fullmatch(blob.name) and sha256_file(blob) != blob.name:
        with suppress(OSError):  # another process may have removed it
            blob.unlink()
        raise DownloadError(f"{path.name} arrived damaged (its SHA-256 is not {blob.name[:16]}...); load it again")
