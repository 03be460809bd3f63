"""Which of onnxruntime's execution providers to use, and with which options. Imports no torch."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from importlib import import_module
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any, Literal

import numpy as np

from nasnet_zoo.errors import SessionError
from nasnet_zoo.util.environment import cache_root
from nasnet_zoo.util.files import sha256_file

from .precisions import PRECISIONS

Provider = Literal["tensorrt", "cuda", "cpu"]
LONG: dict[Provider, str] = {
    "tensorrt": "TensorrtExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "cpu": "CPUExecutionProvider",
}
SHORT = {long: short for short, long in LONG.items()}


def choose(providers: Sequence[str] | None, precision: str) -> list[str]:
    """onnxruntime's names of the providers to try, in order: those asked for, or all that may work here with graphs of
    a precision. A provider that is not in this onnxruntime, or does not accept such graphs, is left out with a message.
    Raises SessionError if none is left."""
    import onnxruntime

    if providers is not None and not providers:
        raise SessionError(f"no provider was named: choose of {', '.join(LONG)}")
    there, refused = onnxruntime.get_available_providers(), PRECISIONS.row(precision).refused
    wanted = [providers] if isinstance(providers, str) else list(providers or [])
    wanted = [LONG.get(name.lower(), name) if isinstance(name, str) else name for name in wanted]
    for name in wanted:
        if name not in there and name not in LONG.values():
            raise SessionError(f"there is no provider {name!r}: choose of {', '.join(LONG)}")
    if not wanted:
        wanted = []
        if _has_nvidia_gpu():
            wanted = [LONG["tensorrt"]] if find_spec("tensorrt_libs") and "tensorrt" not in refused else []
            wanted = [name for name in (*wanted, LONG["cuda"]) if name in there]
    for name in [name for name in wanted if SHORT.get(name) in refused]:
        say(f"{SHORT[name]} {refused[SHORT[name]]}: leaving it out")
        wanted.remove(name)
    for name in [name for name in wanted if name not in there]:
        say(f"{SHORT[name]} is not in this onnxruntime ({', '.join(SHORT.get(n, n) for n in there)}): leaving it out")
    wanted = [name for name in wanted if name in there]
    if LONG["cpu"] not in wanted:
        wanted.append(LONG["cpu"])
    if any(name != LONG["cpu"] for name in wanted):
        preload(onnxruntime)
    return wanted


def provider_options(
    provider: str, model: str | Path, precision: str, cuda_graph: bool = False, cache: str | Path | None = None
) -> dict[str, Any]:
    """Options of a provider that is to run the graph in the file `model`. `cache` is where TensorRT keeps its engines,
    which take minutes to make."""
    if provider == LONG["cuda"]:
        options = {"cudnn_conv_algo_search": "EXHAUSTIVE", "cudnn_conv_use_max_workspace": "1", "use_tf32": "0"}
        return options | ({"enable_cuda_graph": "1"} if cuda_graph else {})
    if provider == LONG["tensorrt"]:
        # TensorRT identifies an engine only by the names of the graph's file and nodes, which do not depend on weights.
        half = PRECISIONS.row(precision).dtype == np.float16
        timings = Path(cache) if cache is not None else cache_root() / "tensorrt"
        folder = timings / sha256_file(model)
        folder.mkdir(parents=True, exist_ok=True)
        return {
            "trt_engine_cache_enable": "1",
            "trt_engine_cache_path": str(folder),
            "trt_timing_cache_enable": "1",
            "trt_timing_cache_path": str(timings),  # of layers; all graphs share them
            "trt_fp16_enable": "1" if half else "0",  # only allows it: the graph says what is computed in float16
        }
    return {}


def say(sentence: str) -> None:
    print(f"nasnet-zoo: {sentence}", file=sys.stderr, flush=True)


@contextmanager
def quiet(provider: str) -> Iterator[None]:
    """Silences onnxruntime's own messages about a GPU provider that does not start; the session reports it once."""
    import onnxruntime

    if provider == LONG["cpu"]:
        yield
        return
    onnxruntime.set_default_logger_severity(4)
    try:
        yield
    finally:
        onnxruntime.set_default_logger_severity(2)  # the default; the setting before cannot be read


def _has_nvidia_gpu() -> bool:
    """Whether a driver is loaded: onnxruntime-gpu lists CUDA on every machine, and fails only when it starts."""
    if os.name == "nt":
        return Path(os.environ.get("SYSTEMROOT", r"C:\Windows"), "System32", "nvcuda.dll").exists()
    return Path("/proc/driver/nvidia/version").exists() or Path("/dev/nvidiactl").exists() or Path("/dev/dxg").exists()


def preload(onnxruntime: Any) -> None:
    """Loads CUDA, cuDNN and TensorRT from the packages that pip installed, so that no system-wide ones are needed."""
    if hasattr(onnxruntime, "preload_dlls"):
        try:
            with redirect_stdout(StringIO()):  # it prints what it does not find; the provider then does not start
                onnxruntime.preload_dlls()
        except (OSError, RuntimeError) as error:
            say(f"CUDA could not be loaded ({error})")
    if find_spec("tensorrt_libs"):
        with suppress(ImportError, OSError):  # then TensorRT does not start, and the session says so
            import_module("tensorrt_libs")
