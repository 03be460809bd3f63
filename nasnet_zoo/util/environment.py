"""What the environment provides and sets: devices, the cache, and whether connections may be opened."""

import os
import platform
from contextlib import suppress
from pathlib import Path

from ..errors import ZooError


def check_device(device: str) -> None:
    """Raises ZooError unless torch can compute on the device. For a GPU this does not start CUDA."""
    if device == "cpu":
        return
    import torch

    try:
        place = torch.device(device)
        if place.type == "cuda" and (place.index or 0) < torch.cuda.device_count():
            return
        torch.zeros(1, device=place).item()  # "meta" exists, but holds no numbers
    except (RuntimeError, AssertionError, ImportError) as error:
        raise ZooError(
            f"the device {device!r} is not there ({str(error).splitlines()[0]}): try --device cpu"
        ) from error


def processor() -> str:
    """The processor's name as far as the system tells it, with its family and model where it tells them: virtual
    machines give many of them the same name."""
    said: dict[str, str] = {}
    with suppress(OSError):
        for line in reversed(Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()):
            key, _, value = line.partition(":")
            said[key.strip()] = value.strip()
    name = said.get("model name") or platform.processor() or platform.machine()
    if not {"cpu family", "model"} <= set(said):
        return name
    return f"{name} (family {said['cpu family']}, model {said['model']})"


def device_name(device: str) -> str:
    """What a device is, for figures that hold on such a device only: a GPU's name, or the processor's and how many
    threads torch uses there now."""
    import torch

    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{processor()}, {threads} thread{'s' * (threads > 1)}"


def offline() -> bool:
    """Whether HF_HUB_OFFLINE or NASNET_ZOO_OFFLINE asks that no connection be opened."""
    asked = (os.environ.get(name, "").upper() for name in ("HF_HUB_OFFLINE", "NASNET_ZOO_OFFLINE"))
    return any(value in {"1", "ON", "YES", "TRUE"} for value in asked)


def cache_root() -> Path:
    """NASNET_ZOO_CACHE, or `nasnet_zoo` in XDG_CACHE_HOME or else in ~/.cache; the same on every system, as for the
    Hub.

    Creates nothing. Raises ZooError if the home folder is needed and unknown.
    """
    try:
        if chosen := os.environ.get("NASNET_ZOO_CACHE"):
            return Path(chosen).expanduser().absolute()
        caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
        return Path(caches).expanduser().absolute() / "nasnet_zoo"
    except RuntimeError as error:
        raise ZooError("The home folder is unknown; set NASNET_ZOO_CACHE to a folder for the weights.") from error
