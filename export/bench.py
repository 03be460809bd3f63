"""How fast a network runs: this project's graph against the alternatives that a user has, interleaved in one run.

Every contender has a process of its own, so that threads and memory of one are not counted for another. They take
turns, run by run.
"""

import hashlib
import multiprocessing
import os
import re
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from math import inf
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nasnet_zoo.arch.config import NetworkConfig
from nasnet_zoo.errors import ConfigError, SessionError, first_line
from nasnet_zoo.lookup import GRAPH, find_config, identify

from .folder import find_export
from .precisions import PRECISIONS
from .providers import LONG, preload, provider_options

if TYPE_CHECKING:
    import torch

TIMM = {"nasnet-a-large": "nasnetalarge", "pnasnet-5-large": "pnasnet5large"}
CONTENDERS = ("nasnet_zoo", "unfused", "torch_onnx", "timm", "eager", "compile")
ON_REQUEST = ("compile_max",)  # torch.compile's max-autotune takes minutes for a large network
WITHOUT_GRAPH = ("eager", "compile", *ON_REQUEST)
LATE = ("no time was left", "it was not ready in the time there was")  # why a contender may be left out
CORES_TO_MAKE = 4  # per graph that is made at the same time as others
WARM_UP = 3
PAUSE = 0.02  # seconds between turns, in which torch's threads fall asleep


@dataclass(frozen=True)
class Job:
    """One contender's work. `name` is whatever a user names; `folder` is for files."""

    contender: str
    name: str
    provider: str
    precision: str
    batch: int
    folder: str


@dataclass(frozen=True)
class Row:
    """A contender's result: milliseconds per run at the median and the 99th percentile of `runs`, images per second
    from the median, and MiB: of the device's memory, or on a CPU the process's peak."""

    contender: str
    batch: int
    images_per_second: float
    p50: float
    p99: float
    fastest: float
    mebibytes: float | None
    runs: int


def bench(
    name: str,
    folder: Path,
    provider: str = "cpu",
    precision: str | None = None,
    batch: int = 1,
    rounds: int = 20,
    contenders: Sequence[str] = CONTENDERS,
    on_round: Callable[[str], None] = lambda stage: None,
    *,
    on_row: Callable[[Row], None] | None = None,
    seconds: float = inf,
) -> tuple[list[Row], dict[str, str]]:
    """(a row per contender, the reasons why the others have none).

    `name` is whatever has a config, or an exported graph's folder, whose own graph is then timed. Weights are fresh
    unless they are at hand, because their values do not change the time.

    With `on_row`, each contender is also timed alone as soon as it is ready, and its row is handed over at once. After
    `seconds` nothing new begins: a contender that is not ready by then is left out, and if no time is left for turns,
    no rows are returned. Raises ConfigError or SessionError."""
    if unknown := sorted(set(contenders) - {*CONTENDERS, *ON_REQUEST}):
        raise ConfigError(f"unknown contender {unknown[0]}: choose of {', '.join((*CONTENDERS, *ON_REQUEST))}")
    if provider not in LONG:
        raise ConfigError(f"unknown provider {provider!r}: choose one of {', '.join(LONG)}")
    if batch < 1 or rounds < 1:
        raise ConfigError(f"batch {batch} and rounds {rounds} must be at least 1")
    precision = precision_of(name, precision)
    _config(name)  # so that a missing model is reported once, not by every contender
    end = time.monotonic() + seconds
    jobs = {contender: Job(contender, name, provider, precision, batch, str(folder)) for contender in contenders}
    workers: dict[str, tuple[Any, Connection]] = {}
    failed: dict[str, str] = {}
    alone: dict[str, list[float]] = {}

    def row(contender: str, times: list[float]) -> Row:
        status, value = _asked(workers[contender][1], "memory")
        return _row(contender, batch, times, value if status == "mebibytes" else None)

    # Graphs are made in other processes than those that run them, whose memory is measured.
    makers = ThreadPoolExecutor(max(1, (os.cpu_count() or 1) // CORES_TO_MAKE))
    try:
        made = {c: makers.submit(_begun, _prepare, job, end) for c, job in jobs.items() if c not in WITHOUT_GRAPH}
        for contender, job in jobs.items():
            on_round(f"{contender}: getting ready")
            status, value, *worker = made[contender].result() if contender in made else ("made", None)
            if status == "made":
                status, value, *worker = _begun(_work, job, end)
            if status != "ready":
                failed[contender] = value
                continue
            workers[contender], alone[contender] = tuple(worker), []
            if on_row is not None:
                _take_turns([contender], workers, rounds, alone, failed)
                if contender in workers:
                    on_row(row(contender, alone[contender]))
        turns: dict[str, list[float]] = {contender: [] for contender in workers}
        for done in range(rounds):
            if on_row is not None and time.monotonic() > end:
                break
            on_round(f"batch {batch}: {done} of {rounds} rounds")
            _take_turns(list(workers), workers, 1, turns, failed)
        return [row(contender, turns[contender]) for contender in workers if turns[contender]], failed
    finally:
        makers.shutdown(cancel_futures=True)
        for process, pipe in workers.values():
            with suppress(OSError):
                pipe.send("end")
            process.join(10)
            if process.is_alive():
                process.kill()


def _take_turns(
    names: Sequence[str],
    workers: dict[str, tuple[Any, Connection]],
    rounds: int,
    times: dict[str, list[float]],
    failed: dict[str, str],
) -> None:
    """Adds the seconds of some workers' runs to `times`; a worker that fails goes from `workers` into `failed`."""
    for _ in range(rounds):
        for contender in names:
            if contender not in workers:
                continue
            time.sleep(PAUSE)
            status, value = _asked(workers[contender][1], "run")
            if status == "seconds":
                times[contender].append(value)
            else:
                failed[contender] = value
                del workers[contender]


def _begun(task: Callable[[Job, Connection], None], job: Job, end: float) -> tuple[Any, ...]:
    """(status, value, the process and its pipe) of a task in a process of its own, once it has said how it is: "made",
    "ready" or "failed", also where it has not by the time `end`. Only a ready process goes on."""
    if time.monotonic() > end:
        return "failed", LATE[0]
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=task, args=(job, there), daemon=True)
    process.start()
    there.close()
    left = None if end == inf else max(end - time.monotonic(), 0)
    status, value = _received(here) if here.poll(left) else ("failed", LATE[1])
    if status == "failed":
        process.kill()
    if status != "ready":
        process.join()
    return status, value, process, here


def _asked(pipe: Connection, question: str) -> tuple[str, Any]:
    try:
        pipe.send(question)
    except (BrokenPipeError, OSError):
        return "failed", "its process died"
    return _received(pipe)


def _received(pipe: Connection) -> tuple[str, Any]:
    try:
        return pipe.recv()
    except (EOFError, OSError):
        return "failed", "its process died"


def _row(contender: str, batch: int, seconds: list[float], mebibytes: float | None) -> Row:
    p50, p99 = 1e3 * statistics.median(seconds), 1e3 * float(np.quantile(seconds, 0.99))
    return Row(contender, batch, 1e3 * batch / p50, p50, p99, 1e3 * min(seconds), mebibytes, len(seconds))


def _prepare(job: Job, pipe: Connection) -> None:
    """Makes a contender's graph, once for all batches of a run."""
    try:
        if not _graph(job).exists():
            _make_graph(job, _graph(job))
        pipe.send(("made", None))
    except BaseException as error:
        pipe.send(("failed", first_line(error)))


def _work(job: Job, pipe: Connection) -> None:
    """A contender's process: answers `run` with seconds, `memory` with MiB, until `end`."""
    try:
        before = _device_memory(job.provider)
        run = (_torch if job.contender in WITHOUT_GRAPH else _onnxruntime)(job)
        for _ in range(WARM_UP):
            run()
        device = _device_memory(job.provider) - before  # the other contenders sleep meanwhile
        pipe.send(("ready", None))
        for message in iter(pipe.recv, "end"):
            if message == "memory":
                pipe.send(("mebibytes", _memory() if job.provider == "cpu" else device))
                continue
            start = time.perf_counter()
            run()
            pipe.send(("seconds", time.perf_counter() - start))
    except (EOFError, KeyboardInterrupt):
        pass
    except BaseException as error:
        pipe.send(("failed", first_line(error)))


def _network(name: str):
    import nasnet_zoo

    if identify(name).form in ("checkpoint", "training", "repo"):
        return nasnet_zoo.load(name)
    return nasnet_zoo.create(_config(name)).eval()


def _dtype(precision: str) -> "torch.dtype":
    import torch

    return getattr(torch, np.dtype(PRECISIONS.row(precision).dtype).name)


def _torch(job: Job) -> Callable[[], Any]:
    import torch

    if PRECISIONS.row(job.precision).calibrated:
        raise SessionError(f"torch has no {job.precision} of this network")
    torch.backends.cudnn.allow_tf32 = False  # nor do the graphs
    device = "cuda" if job.provider != "cpu" else "cpu"
    options = dict(device=device, dtype=_dtype(job.precision))
    network = _timm(job.name) if job.name in TIMM else _network(job.name)
    network = network.eval().to(**options, memory_format=torch.channels_last)
    x = torch.randn(job.batch, *_shape(job.name), **options).contiguous(memory_format=torch.channels_last)
    if job.contender in ("compile", "compile_max"):
        network = torch.compile(network, mode="max-autotune" if job.contender == "compile_max" else None)

    def run() -> None:
        with torch.inference_mode():
            network(x)
        if device == "cuda":
            torch.cuda.synchronize()

    return run


def _timm(name: str):
    try:
        import timm
    except ImportError as error:
        raise SessionError("timm is not installed: pip install nasnet-zoo[bench]") from error
    if name not in TIMM:
        raise SessionError(f"timm has no {name}")
    return timm.create_model(TIMM[name], pretrained=False).eval()


def _shape(name: str) -> tuple[int, int, int]:
    """(channels, height, width) of the network's pictures."""
    config = _config(name)
    return config.in_channels, *config.preprocess.size


def _config(name: str) -> NetworkConfig:
    """The network's config, for the pictures of the graph if it is that of one; raises a ZooError if it has none."""
    if identify(name).form != "export":
        return find_config(name)
    data = find_export(name).metadata
    return replace(NetworkConfig.from_json(data.config), preprocess=data.preprocess)


def precision_of(name: str, precision: str | None) -> str:
    """The precision to time, which is fp32 or that of an exported graph if None; raises ConfigError if a graph has
    another one."""
    if identify(name).form != "export":
        return "fp32" if precision is None else PRECISIONS.known(precision)
    own = find_export(name).metadata.precision
    if precision not in (None, own):
        raise ConfigError(f"{name} is a graph in {own}: leave out --precision {precision}, or name the network")
    return own


def _onnxruntime(job: Job) -> Callable[[], Any]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # Waiting threads would spin, and take the processor from the contender whose turn is next.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    long = LONG[job.provider]
    if job.provider != "cpu":
        preload(onnxruntime)
    captured = job.provider == "cuda"  # for all contenders: it is not an advantage of the graph
    extra = provider_options(long, _graph(job), job.precision, captured, job.folder)
    session = onnxruntime.InferenceSession(str(_graph(job)), options, providers=[(long, extra)], enable_fallback=0)
    if session.get_providers()[0] != long:
        raise SessionError(f"onnxruntime could not start {long}")
    entry = session.get_inputs()[0]
    x = np.random.default_rng(0).normal(size=(job.batch, *_shape(job.name)))
    if entry.type == "tensor(uint8)":
        x = np.ascontiguousarray((x * 64 + 128).clip(0, 255).astype(np.uint8).transpose(0, 2, 3, 1))
    else:
        x = x.astype(np.float16 if entry.type == "tensor(float16)" else np.float32)
    device = "cpu" if job.provider == "cpu" else "cuda"
    binding = session.io_binding()
    value = onnxruntime.OrtValue.ortvalue_from_numpy(x, device, 0)  # on the device, as torch's is
    binding.bind_ortvalue_input(entry.name, value)
    output = session.get_outputs()[0]
    shape = [job.batch, output.shape[1]]
    kind = np.float16 if output.type == "tensor(float16)" else np.float32
    binding.bind_ortvalue_output(output.name, onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, kind, device, 0))

    def run() -> None:
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()

    return run


def _graph(job: Job) -> Path:
    if job.contender == "nasnet_zoo" and identify(job.name).form == "export":
        return find_export(job.name).model
    which = hashlib.sha256(str(Path(job.name).resolve()).encode()).hexdigest()[:8]  # names of checkpoints may be alike
    return Path(job.folder) / f"{job.contender}-{which}-{job.precision}" / GRAPH


def _make_graph(job: Job, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if job.contender in ("timm", "torch_onnx"):
        return _export_by_torch(job, path)
    from .exporter import write_graph
    from .fuse import FUSIONS

    size = _shape(job.name)[1:]
    options = dict(images=list(_made_up(size)) if PRECISIONS.row(job.precision).calibrated else [])
    options |= dict(name=Path(job.name).name, license="", source="")
    fusions = FUSIONS if job.contender == "nasnet_zoo" else ()
    write_graph(_network(job.name), path.parent, job.precision, size, fusions=fusions, **options)


def _export_by_torch(job: Job, path: Path) -> None:
    """Does what timm's own onnx_export does: torch's exporter on timm's model, or on this project's, unchanged."""
    import torch

    if PRECISIONS.row(job.precision).calibrated:
        raise SessionError(f"torch exports no {job.precision}")
    dtype = _dtype(job.precision)
    model = (_timm(job.name) if job.contender == "timm" else _network(job.name)).to(dtype)
    x = torch.randn(2, *_shape(job.name), dtype=dtype)
    shapes = ({0: torch.export.Dim("batch")},)
    program = torch.onnx.export(model, (x,), dynamo=True, dynamic_shapes=shapes, verbose=False)
    program.save(path, external_data=True)


def _made_up(size: tuple[int, int], count: int = 8) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(0)
    for _ in range(count):
        yield rng.integers(0, 256, (*size, 3), dtype=np.uint8)


def _device_memory(provider: str) -> float:
    """MiB in use on the GPU by all processes; 0 on a CPU."""
    if provider == "cpu":
        return 0.0
    import torch

    free, total = torch.cuda.mem_get_info()
    return (total - free) / 2**20


def _memory() -> float | None:
    """The peak memory of this process in MiB; None if the system does not say."""
    status = Path("/proc/self/status")
    pattern = r"VmHWM:\s+(\d+)"
    return int(re.search(pattern, status.read_text(encoding="utf-8"))[1]) / 1024 if status.exists() else None
