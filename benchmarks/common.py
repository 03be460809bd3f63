"""What the benchmark scripts share: their options, where results go, the machine's name, and interleaved timing."""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from nasnet_zoo.errors import ZooError
from nasnet_zoo.util.environment import processor
from nasnet_zoo.util.files import atomic_file

RESULTS = Path(__file__).parent / "results"
REHEARSAL = Path(os.environ.get("REHEARSAL", Path(__file__).parents[1] / "runs" / "rehearsal"))
INCOMPLETE = 3  # the exit code of a script that left something out for want of time
SHARED = Path(__file__).resolve().parents[2] / "shared"


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options that benchmarks/gpu.py gives to every part."""
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin nothing new after that time")
    parser.add_argument("--rehearse", action="store_true", help="tiny, to see that it runs; writes to runs/rehearsal")


class Clock:
    """The time that a script has, from now on."""

    def __init__(self, minutes: float) -> None:
        self.end, self.incomplete = time.monotonic() + 60 * minutes, False

    @property
    def left(self) -> float:
        """Seconds; below 0 when the time is over."""
        return self.end - time.monotonic()

    def over(self, what: str) -> bool:
        """Whether the time is over, so that `what` is left out; says so."""
        if self.left >= 0:
            return False
        self.leave_out(what)
        return True

    def leave_out(self, what: str) -> None:
        print(f"no time for {what}", flush=True)
        self.incomplete = True

    def finish(self) -> None:
        """Ends a script that had no time for all of it with the exit code that says so."""
        if self.incomplete:
            sys.exit(INCOMPLETE)


def in_a_sentence(main: Callable[[], None]) -> None:
    """Runs a script. Of an error that its user can mend it says the sentence, and exits with 2 as nasnet-zoo does."""
    try:
        main()
    except ZooError as error:
        print(error, file=sys.stderr, flush=True)
        sys.exit(2)


@cache
def machine() -> str:
    """The processor with the instruction sets that make a difference, cores, the GPU if there is one with its driver
    and CUDA's version, and the versions of torch and onnxruntime."""
    import onnxruntime
    import torch

    name = processor()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        said = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
        sets = {"avx2": "AVX2", "avx512f": "AVX-512", "avx512_vnni": "VNNI", "amx_int8": "AMX"}
        name += "".join(f" {sets[flag]}" for flag in sets if flag in said.get("flags", "").split())
    gpu = ""
    if torch.cuda.is_available():
        gpu = f", {torch.cuda.get_device_name()}, driver {driver()}, CUDA {torch.version.cuda}"
    versions = f"torch {torch.__version__}, onnxruntime {onnxruntime.__version__}"
    return f"{name}, {os.cpu_count()} cores{gpu}, {versions}"


def driver() -> str:
    """The version of the GPU's driver; "unknown" where nvidia-smi does not say it."""
    asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(asked, capture_output=True, text=True, check=True, timeout=30).stdout.split()[0]
    except (OSError, subprocess.SubprocessError, IndexError):
        return "unknown"


def results(rehearse: bool = False) -> Path:
    """Where JSON files go: a rehearsal's figures say nothing, and are never mixed with the others."""
    return REHEARSAL if rehearse else RESULTS


def write(name: str, record: dict[str, Any], rehearse: bool = False) -> None:
    """Writes NAME.json, whole or not at all, with the machine beside the figures."""
    text = json.dumps({"machine": machine(), **record}, indent=1)
    with atomic_file(results(rehearse) / f"{name}.json") as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def interleaved(functions: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median seconds of each function, one call of each in turn, after a call of each to warm up."""
    import torch

    times: dict[str, list[float]] = {name: [] for name in functions}
    for function in functions.values():
        function()
    for _ in range(rounds):
        for name, function in functions.items():
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            start = time.perf_counter()
            function()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}
