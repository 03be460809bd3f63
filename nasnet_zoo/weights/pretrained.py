"""Where pretrained weights come from: the package, the zoo's own Hub repos, then the public originals, which are
converted once and cached as checkpoint folders."""

import json
import logging
import os
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import numpy as np
from torch import Tensor

from ..convert import from_keras, from_tf_slim, from_timm
from ..convert.keras_h5 import keras_tensors
from ..convert.ports import most_bytes
from ..convert.tf_checkpoint import masked_crc32c, opened
from ..errors import CheckpointError, ConversionError, DownloadError, UnknownModelError
from ..registry import ZOO, ModelInfo, WeightSource
from ..util.environment import cache_root
from ..util.files import locked, sha256_file
from ..util.hub import hub_files
from .checkpoint import CONFIG, WEIGHTS, read_weights, write_checkpoint

log = logging.getLogger("nasnet_zoo")

HUB = "https://huggingface.co"


def hub_owner() -> str:
    """The owner of the zoo's Hub repos: NASNET_ZOO_HUB_OWNER, or nasnet-zoo."""
    return os.environ.get("NASNET_ZOO_HUB_OWNER", "nasnet-zoo")


def mirrored(url: str) -> str:
    """`url` on the server NASNET_ZOO_MIRROR (scheme://host[:port]) if that is set; the path stays. Raises DownloadError
    if it is no address."""
    mirror = os.environ.get("NASNET_ZOO_MIRROR")
    if not mirror:
        return url
    try:
        place, original = urlsplit(mirror), urlsplit(url)
    except ValueError as error:
        raise DownloadError(
            f"NASNET_ZOO_MIRROR={mirror!a} is no address ({error}): give scheme://host[:port]"
        ) from error
    return urlunsplit((place.scheme, place.netloc, place.path.rstrip("/") + original.path, original.query, ""))


def pretrained_folder(model: ModelInfo, tag: str | None = None, *, local_files_only: bool = False) -> Path:
    """The checkpoint folder of a model's weights: shipped, cached, or else fetched from the first source that works.

    The weights of a model's name do not change. So if the cache has them from any source, they are used and no
    connection is opened. (A repo given as org/repo may change; hub.hub_files checks that.) A folder appears in the
    cache only when it is complete; a lock keeps other processes from doing the same work. Raises UnknownModelError if
    the model has no such weights, and DownloadError, with the error of each source, if none of them works.
    """
    tags = ", ".join(source.tag for source in model.weights) or "none"
    sources = [source for source in model.weights if tag in (None, source.tag)]
    if not sources and tag != ZOO:
        raise UnknownModelError(
            f"{model.name} has no weights {'yet' if tag is None else repr(tag)} (it has: {tags}); "
            f"nasnet_zoo.create({model.name!r}) gives it freshly initialised"
        )
    for source in sources:
        if source.form == "package":
            return Path(str(files("nasnet_zoo") / "assets" / source.address))
    if tag in (None, ZOO):
        sources = [WeightSource(ZOO, "hub", f"{hub_owner()}/{model.name.replace('@', '-')}"), *sources]
    places = [(source, cache_root() / model.name / source.tag) for source in sources]
    for source, folder in places:
        if found := _local_copy(source, folder):
            return found
    said = []
    for source, folder in places:
        try:
            if source.form == "hub":
                return hub_folder(source.address, source.revision, local_files_only=local_files_only)
            if local_files_only:
                raise DownloadError(f"{source.address} is not cached")
            with locked(folder):
                if not (folder / CONFIG).is_file():  # otherwise another process made it while this one waited
                    _fetch_and_convert(model, source, folder)
            return folder
        except (DownloadError, CheckpointError, ConversionError) as error:
            log.info("%s from %s: %s", model.name, source.address, error)
            reason = re.sub(r"; check the (name|network)\b.*", "", str(error))  # said once, before all reasons
            said.append(f"{source.tag}: {reason}")
    what = "is not in the cache" if local_files_only else "could not be had from any of its sources"
    raise DownloadError(
        f"{model.name} {what}: check the network and the proxy settings{_by_hand(model, sources)} ({' | '.join(said)})"
    )


def _by_hand(model: ModelInfo, sources: list[WeightSource]) -> str:
    """How to use a file that was fetched in another way."""
    public = [source for source in sources if source.form != "hub"]
    if not public:
        return ""
    first = public[0]
    where = f"{HUB}/{first.address}/resolve/{first.revision}/{WEIGHTS}" if first.form == "timm" else first.address
    return (
        f", or fetch {where} by hand and name the FOLDER that `nasnet-zoo convert FILE -m {model.name} -o FOLDER` "
        f"makes of it"
    )


def hub_folder(repo: str, revision: str | None = None, *, local_files_only: bool = False) -> Path:
    """The folder of a Hub repo's `config.json` and `model.safetensors`; see hub.hub_files."""
    return hub_files(repo, (CONFIG, WEIGHTS), revision, local_files_only=local_files_only)


def _local_copy(source: WeightSource, folder: Path) -> Path | None:
    """The local copy of a source: a repo in the Hub's cache, or the converted original in the zoo's cache."""
    if source.form != "hub":
        return folder if (folder / CONFIG).is_file() else None
    with suppress(DownloadError):
        return hub_folder(source.address, source.revision, local_files_only=True)


def _fetch_and_convert(model: ModelInfo, source: WeightSource, folder: Path) -> None:
    """Downloads a public original, converts it and writes the checkpoint folder, which records where it came from.

    The caller holds the folder's lock, so an unfinished download in the folder was left by a process that was killed.
    """
    from .download import fetch

    temporary = folder.with_name(f".{folder.name}.download")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        if source.form == "timm":
            path, sha256, url = _fetch_timm(source)
        else:
            url = mirrored(source.address)
            path = temporary / url.rsplit("/", 1)[1]
            sha256 = fetch(url, path, md5=source.md5, label=f"{model.name} ({source.tag})")
        try:
            state = CONVERTERS[source.form](path, model)
        except (CheckpointError, ConversionError) as error:
            raise type(error)(f"{url}: {error}") from error
        write_checkpoint(
            state,
            model.config,
            folder,
            model=model.name,
            tag=source.tag,
            origin=url,
            origin_form=source.form,
            origin_sha256=sha256,
            license=model.license,
        )
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _fetch_timm(source: WeightSource) -> tuple[Path, str, str]:
    folder = hub_folder(source.address, source.revision)
    path = folder / WEIGHTS
    return path, sha256_file(path), f"hf://{source.address}@{source.revision}"


def published_checksums(model: ModelInfo) -> dict[str, int] | None:
    """The masked CRC32C of each tensor of Keras's published weights by `layer/leaf`, or None if they are not known."""
    known = files("nasnet_zoo") / "assets" / f"keras-{model.name}.json"
    return json.loads(known.read_text(encoding="utf-8")) if known.is_file() else None


def _from_published_tf_slim(path: Path, model: ModelInfo) -> dict[str, Tensor]:
    with opened(path, most_bytes(model.config)) as variables:
        return from_tf_slim(variables, model.config)


def _from_published_keras(path: Path, model: ModelInfo) -> dict[str, Tensor]:
    with keras_tensors(path) as variables:
        state, checksums = from_keras(variables, model.config), published_checksums(model)
        if checksums is not None:
            wrong = sorted(set(checksums) ^ set(variables))
            wrong += [
                name for name, value in variables.items() if masked_crc32c(np.asarray(value)) != checksums.get(name)
            ]
            if wrong:
                raise ConversionError(f"{len(wrong)} tensors are not the published ones, the first being {wrong[0]}")
    return state


CONVERTERS: dict[str, Callable[[Path, ModelInfo], dict[str, Tensor]]] = {
    "tf-slim": _from_published_tf_slim,
    "keras": _from_published_keras,
    "timm": lambda path, model: from_timm(read_weights(path), model.config),
}
