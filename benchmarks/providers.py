"""The CUDA provider's options on an exported graph: how long a first run takes, and how long the later ones.

    python benchmarks/providers.py [--models nasnet-a-mobile] [--precisions fp32 fp16]      results/providers_gpu.json

A session's first run of each batch size has cuDNN plan every convolution, which is what users wait for; the options
decide how thoroughly. Each combination is a process of its own, since cuDNN keeps what it has compiled.
"""

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from common import Clock, add_options, write

from nasnet_zoo.export.providers import LONG, preload, provider_options

SEARCHES = ("HEURISTIC", "EXHAUSTIVE", "DEFAULT")
BATCHES = (64, 1)
RUNS = 30


def measured(model: Path, search: str, nhwc: str, device: str) -> dict[str, Any]:
    """Seconds of the session, and for each batch size seconds of its first run and milliseconds of the later ones."""
    options, provider = onnxruntime.SessionOptions(), LONG["cuda" if device == "cuda" else "cpu"]
    options.log_severity_level = 4
    chosen: dict[str, str] = {}
    if device == "cuda":
        preload(onnxruntime)
        ours = provider_options(provider, model, "fp32")
        chosen = {**ours, "cudnn_conv_algo_search": search, "prefer_nhwc": nhwc}
    start = time.perf_counter()
    session = onnxruntime.InferenceSession(model, options, providers=[(provider, chosen)], enable_fallback=0)
    record: dict[str, Any] = {"session": time.perf_counter() - start, "batches": {}}
    taken, given = session.get_inputs()[0], session.get_outputs()[0]
    rng = np.random.default_rng(0)
    for count in BATCHES:
        x = rng.standard_normal((count, *taken.shape[1:])).astype(np.float32)
        binding = session.io_binding()
        binding.bind_ortvalue_input(taken.name, onnxruntime.OrtValue.ortvalue_from_numpy(x, device, 0))
        binding.bind_output(given.name, device, 0)
        times = []
        for _ in range(RUNS + 1):
            start = time.perf_counter()
            session.run_with_iobinding(binding)
            binding.synchronize_outputs()
            times.append(time.perf_counter() - start)
        later = [1e3 * seconds for seconds in times[1:]]
        record["batches"][count] = {"first": times[0], "p50": statistics.median(later), "least": min(later)}
    return record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["nasnet-a-mobile"])
    parser.add_argument("--precisions", nargs="+", default=["fp32", "fp16"])
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)  # what this script calls itself with
    add_options(parser)
    arguments = parser.parse_args()
    if arguments.one:
        model, search, nhwc, device = arguments.one
        print(json.dumps(measured(Path(model), search, nhwc, device)))
        return
    import torch
    from inference import ruled

    import nasnet_zoo
    from nasnet_zoo.export.exporter import write_graph

    clock, device = Clock(arguments.minutes), "cuda" if torch.cuda.is_available() else "cpu"
    models, searches = arguments.models, product(SEARCHES, "01")
    if arguments.rehearse:
        models, searches = ["nasnet-a-cifar-small"], [("HEURISTIC", "0")]
    rows: list[dict[str, Any]] = []
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        graphs = {}
        for model, precision in product(models, arguments.precisions):
            network, where = ruled(nasnet_zoo.create(model)), Path(folder, f"{model}-{precision}")
            where.mkdir()
            write_graph(network, where, precision, network.config.preprocess.size, name=model, license="", source="")
            graphs[model, precision] = where / "model.onnx"
        for (search, nhwc), (model, precision) in product(searches, graphs):
            what = f"{model}, {precision}, {search}, nhwc {nhwc}"
            if clock.over(what):
                continue
            command = [sys.executable, __file__, "--one", str(graphs[model, precision]), search, nhwc, device]
            try:
                limit = max(clock.left, 1) if clock.left < math.inf else None
                done = subprocess.run(command, capture_output=True, text=True, timeout=limit)
            except subprocess.TimeoutExpired:
                clock.leave_out(what)
                continue
            if done.returncode:
                failed = True
                print(f"{what}: exit code {done.returncode}, {done.stderr.strip()[-200:]}", flush=True)
                continue
            row = {"model": model, "precision": precision, "search": search, "nhwc": nhwc == "1"}
            rows.append(row | json.loads(done.stdout.splitlines()[-1]))
            for count, found in rows[-1]["batches"].items():
                print(f"{what}, batch {count}: first {found['first']:.1f} s, then {found['p50']:.2f} ms", flush=True)
            write("providers" + "_gpu" * (device == "cuda"), {"rows": rows}, arguments.rehearse)
    if failed:
        sys.exit(1)
    clock.finish()


if __name__ == "__main__":
    main()
