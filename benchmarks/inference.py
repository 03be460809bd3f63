"""The exported graphs: how right they are, how fast, and what an export costs.

    python benchmarks/inference.py fidelity            float32 of every model, in six sizes, fixed and dynamic
    python benchmarks/inference.py precision --data DIR     float16 and int8 on CIFAR-10; float16 with golden weights
    python benchmarks/inference.py speed [--provider cuda]  against this project's unfused graph, timm and torch
    python benchmarks/inference.py fusions [--provider cuda]    what each rewrite is worth
    python benchmarks/inference.py export              seconds and memory of exporting nasnet-a-large

Each row is written as soon as it is measured, and `--minutes` ends a part with what there is by then. `--rehearse`
shrinks a part to see that it runs; its figures go to a folder of their own.
"""

import argparse
import dataclasses
import hashlib
import itertools
import json
import re
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from common import Clock, add_options, machine, results, write
from unproven_fusions import UNPROVEN

import nasnet_zoo
from nasnet_zoo.cli.app import SHIPPED
from nasnet_zoo.export.bench import LATE, Row, bench
from nasnet_zoo.export.emit import emit
from nasnet_zoo.export.emit import write as write_model
from nasnet_zoo.export.exporter import to_onnx, write_graph
from nasnet_zoo.export.fuse import FUSIONS, fuse
from nasnet_zoo.export.providers import LONG, provider_options
from nasnet_zoo.export.session import Session
from nasnet_zoo.export.trace import trace
from nasnet_zoo.networks.network import Network

MODELS = ("nasnet-a-large", "nasnet-a-mobile")
SMALL = "nasnet-a-cifar-small"  # for rehearsals
BATCHES = {"nasnet-a-large": (64, 1), "nasnet-a-mobile": (256, 1), SMALL: (2, 1)}  # on a GPU
PEAK_SIDE = 2048
# On a GPU in this order, the quick and important ones first: the exports of torch and the compilers take minutes.
PASSES = (("nasnet_zoo", "eager"), ("nasnet_zoo", "compile", "timm", "unfused", "torch_onnx"), ("compile_max",))
REHEARSED = (("nasnet_zoo", "eager"), ("nasnet_zoo", "compile", "timm", "torch_onnx"))


def ruled(network: Network) -> Network:
    """Weights that depend on their name alone and keep the maps' size through the depth, batch norms included."""
    with torch.no_grad():
        for key, tensor in network.state_dict().items():
            rng, leaf = np.random.default_rng(zlib.crc32(key.encode())), key.rsplit(".", 1)[-1]
            if leaf == "running_var":
                value = rng.uniform(1, 3, tensor.shape)
            elif tensor.dim() == 1:
                value = rng.uniform(0.5, 1.5, tensor.shape) if leaf == "weight" else 0.1 * rng.normal(size=tensor.shape)
            else:
                value = rng.normal(size=tensor.shape) / np.sqrt(tensor[0].numel())
            tensor.copy_(torch.from_numpy(value))
    return network.eval()


def pictures(size: tuple[int, int], batch: int = 2) -> np.ndarray:
    return np.random.default_rng(size[0] * 1000 + size[1]).uniform(-1, 1, (batch, 3, *size)).astype(np.float32)


def logits_of(path: Path, x: np.ndarray, provider: str = "cpu", precision: str = "fp32") -> np.ndarray:
    """onnxruntime's, on one provider, without its fallback."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    long = LONG[provider]
    extra = provider_options(long, path, precision)
    session = onnxruntime.InferenceSession(path, options, providers=[(long, extra)])
    assert session.get_providers()[0] == long, f"onnxruntime could not start {long}"
    return session.run(["logits"], {"image": x})[0]


@torch.inference_mode()
def torch_logits(network: Network, x: np.ndarray) -> np.ndarray:
    return network(torch.from_numpy(x)).numpy()


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def fidelity(arguments: argparse.Namespace) -> None:
    """Every model at its own size, an odd and an even one, and two that are not square; fixed and dynamic."""
    rows = {}
    for name in arguments.only or nasnet_zoo.list_models():
        if arguments.clock.over(name):
            continue
        network = ruled(nasnet_zoo.create(name))
        height, width = network.config.preprocess.size
        small = (33, 32, 47) if height <= 40 else (95, 96, 127)
        sizes = [(height, width), (small[0],) * 2, (small[1],) * 2, (small[1], small[2]), (small[2], small[0])]
        state = {key: value.numpy() for key, value in network.state_dict().items()}
        graph = fuse(trace(network.config, state))
        worst, digests = {"fixed": 0.0, "dynamic": 0.0}, set()
        with tempfile.TemporaryDirectory() as folder:
            dynamic = Path(folder) / "dynamic.onnx"
            save(*emit(graph, None), dynamic)
            for size in sizes:
                x = pictures(size)
                expected = torch_logits(network, x)
                fixed = Path(folder) / "fixed.onnx"
                save(*emit(graph, size), fixed)
                for kind, path in (("fixed", fixed), ("dynamic", dynamic)):
                    worst[kind] = max(worst[kind], relative(logits_of(path, x, arguments.provider), expected))
            for _ in range(2):
                data = save(*emit(fuse(trace(network.config, state)), sizes[0]), fixed)
                digests.add(hashlib.sha256(fixed.read_bytes()).hexdigest() + data)
        rows[name] = {**worst, "same_bytes_twice": len(digests) == 1}
        print(
            f"| {name} | {worst['fixed']:.1e} | {worst['dynamic']:.1e} | {rows[name]['same_bytes_twice']} |", flush=True
        )
        record(arguments, fidelity=rows)


def save(model, constants, path: Path) -> str:
    data = write_model(model, constants, path)
    path.write_bytes(model.SerializeToString(deterministic=True))
    return data


def precision(arguments: argparse.Namespace) -> None:
    """Top-1 of the shipped network's graphs on CIFAR-10's test pictures; float16 with golden weights."""
    from nasnet_zoo.data.cifar import cifar10_pictures

    test, train = (cifar10_pictures(arguments.data, train=train) for train in (False, True))
    count = 500 if arguments.rehearse else len(test)
    network, rows, golden = nasnet_zoo.load(SHIPPED), {}, {}
    calibration = [picture.permute(1, 2, 0).numpy() for picture in train.images[:: len(train) // 128][:128]]
    labels = test.labels[:count].numpy()
    for kind in ("fp32", "fp16", "int8"):
        with tempfile.TemporaryDirectory() as folder:
            to_onnx(network, folder, kind, pixels=True, images=calibration)
            session = Session(folder, [arguments.provider])
            batches = test.images[:count].permute(0, 2, 3, 1).contiguous().numpy()
            logits = np.concatenate([session.run(batches[i : i + 250]) for i in range(0, count, 250)])
            assert session.provider == arguments.provider, "another provider went on in its place"
        rows[kind] = {"top1": float((logits.argmax(1) == labels).mean()), "finite": bool(np.isfinite(logits).all())}
        if kind == "fp32":
            exact = logits
        rows[kind]["relative_error"] = relative(logits, exact)
        rows[kind]["same_class_as_fp32"] = float((logits.argmax(1) == exact.argmax(1)).mean())
        print(f"{SHIPPED} {kind}: {rows[kind]}", flush=True)
        record(arguments, precision={"cifar": rows, "golden": golden})
    if not arguments.rehearse:
        for name, row in golden_half(arguments.provider):
            golden[name] = row
            print(f"{name} fp16, golden weights: {row}", flush=True)
            record(arguments, precision={"cifar": rows, "golden": golden})


def golden_half(provider: str) -> Iterator[tuple[str, dict[str, float]]]:
    """float16 graphs of the large networks with golden weights on the golden pictures; none without these files."""
    from fidelity import GOLDEN, network_of, picture
    from golden_rule import golden_value

    if not GOLDEN.is_dir():
        print(f"no golden weights: {GOLDEN} is not here")
        return
    shapes = json.loads((GOLDEN / "visible.variables.json").read_text(encoding="utf-8"))
    for name in MODELS:
        config = dataclasses.replace(nasnet_zoo.info(name).config, num_classes=1001)
        network = network_of({key: golden_value(key, shape) for key, shape in shapes[name]}, config)
        x = picture(*config.preprocess.size)
        expected = torch_logits(network, x.numpy())
        with tempfile.TemporaryDirectory() as folder:
            about = dict(name=name, license="", source="")
            write_graph(network, Path(folder), "fp16", config.preprocess.size, **about)
            found = logits_of(Path(folder) / "model.onnx", x.numpy(), provider, "fp16")
        yield (
            name,
            {
                "relative_error": relative(found, expected),
                "finite": bool(np.isfinite(found).all()),
                "same_class": float((found.argmax(1) == expected.argmax(1)).mean()),
            },
        )


def peak(provider: str, precision: str, side: int) -> float:
    """Floating-point operations per second of a large matrix product, the machine's own."""
    device = "cpu" if provider == "cpu" else "cuda"
    dtype = torch.float16 if precision == "fp16" else torch.float32
    a, seconds = torch.randn(side, side, device=device, dtype=dtype), []
    for _ in range(8):
        start = time.perf_counter()
        a @ a
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return 2 * side**3 / min(seconds)


def speed(arguments: argparse.Namespace) -> None:
    """Every contender at every precision and batch; its row is written when it is ready, and again after the turns."""
    on_gpu = arguments.provider != "cpu"
    precisions = ("fp16", "fp32") if on_gpu else ("fp32",) if arguments.rehearse else ("fp32", "int8")
    passes = PASSES if on_gpu else [("nasnet_zoo", "unfused", "torch_onnx", "timm", "eager")]
    passes = REHEARSED if arguments.rehearse else passes
    side = 256 if arguments.rehearse else PEAK_SIDE * (4 if on_gpu else 1)
    rows: dict[tuple, dict] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, contenders, kind in itertools.product(arguments.models, passes, precisions):
            flops = 2 * nasnet_zoo.info(name).cost.multiply_adds
            for batch in BATCHES[name] if on_gpu else (1,):
                if arguments.clock.over(f"{name}, {kind}, batch {batch}: {', '.join(contenders)}"):
                    continue
                rate = peak(arguments.provider, kind, side)

                def keep(row: Row, in_turns: bool = False, name=name, kind=kind, rate=rate, flops=flops) -> None:
                    share = flops * row.batch / (row.p50 / 1e3) / rate
                    kept = {"model": name, "precision": kind, **dataclasses.asdict(row), "share": share}
                    rows[name, kind, row.batch, row.contender] = kept | {"in_turns": in_turns}
                    record(arguments, speed=list(rows.values()))
                    print(
                        f"| {name} | {kind} | {row.batch} | {row.contender} | {row.p50:.1f} | {row.p99:.1f} | "
                        f"{row.images_per_second:.1f} | {row.mebibytes or 0:.0f} | {share:.0%} |"
                        f"{'' if in_turns else ' alone'}",
                        flush=True,
                    )

                done, failed = bench(
                    *(name, Path(folder), arguments.provider, kind, batch, arguments.rounds, contenders),
                    on_row=keep,
                    seconds=arguments.clock.left,
                )
                for row in done:
                    keep(row, in_turns=True)
                print(f"left out: {failed}", flush=True)
                if not {*LATE}.isdisjoint(failed.values()):
                    arguments.clock.leave_out("some of these")


def fusions(arguments: argparse.Namespace) -> None:
    """Each rewrite left out of those that are used, and each unproven one added: the fastest of all runs, in turns."""
    long = LONG[arguments.provider]
    table = {}
    for name in arguments.models:
        network = ruled(nasnet_zoo.create(name))
        size = network.config.preprocess.size
        graph = trace(network.config, {key: value.numpy() for key, value in network.state_dict().items()})
        chosen = {"all": FUSIONS, "none": ()}
        chosen |= {f"without {f.__name__}": tuple(g for g in FUSIONS if g is not f) for f in FUSIONS}
        chosen |= {f"with {f.__name__}": (*FUSIONS[:-1], f, FUSIONS[-1]) for f in UNPROVEN}
        best = dict.fromkeys(chosen, float("inf"))
        x = pictures(size, 1)
        with tempfile.TemporaryDirectory() as folder:
            for index, some in enumerate(chosen.values()):
                save(*emit(fuse(graph, some), size), Path(folder) / f"{index}.onnx")
            # A session's speed depends on where its memory happens to lie, so each is made anew in every round.
            for _ in range(max(arguments.rounds // 4, 2)):
                if min(best.values()) < float("inf") and arguments.clock.over("more rounds"):
                    break
                for index, label in enumerate(chosen):
                    options = onnxruntime.SessionOptions()
                    options.log_severity_level = 3
                    options.intra_op_num_threads = 1
                    path = f"{folder}/{index}.onnx"
                    extra = provider_options(long, path, "fp32")
                    session = onnxruntime.InferenceSession(path, options, providers=[(long, extra)])
                    for _ in range(5):
                        start = time.perf_counter()
                        session.run(["logits"], {"image": x})
                        best[label] = min(best[label], time.perf_counter() - start)
                    del session
        table[name] = {label: {"ms": 1e3 * s, "against_all": s / best["all"]} for label, s in best.items()}
        for label, row in table[name].items():
            print(f"| {name} | {label} | {row['ms']:.1f} | {row['against_all']:.3f} |", flush=True)
        record(arguments, fusions=table)


EXPORT = """
import re, sys, time, torch, nasnet_zoo
from nasnet_zoo.export import to_onnx
network = nasnet_zoo.load("nasnet-a-cifar-small")
to_onnx(network, sys.argv[2] + "/small")  # loads every library: what comes after is the large network's
peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024
before = int(re.search(r"VmRSS:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024
open("/proc/self/clear_refs", "w").write("5")  # the peak begins here
start = time.perf_counter()
network = nasnet_zoo.load(sys.argv[1])
report = to_onnx(network, sys.argv[2] + "/large")
print(time.perf_counter() - start, peak() - before, report.checks[-1].relative_error)  # the CPU's is the last
"""


def export(arguments: argparse.Namespace) -> None:
    """In a process of its own: seconds with the load and the verification, and the peak of its memory."""
    name = SMALL if arguments.rehearse else "nasnet-a-large"
    with tempfile.TemporaryDirectory() as folder:
        nasnet_zoo.save(ruled(nasnet_zoo.create(name)), f"{folder}/checkpoint")
        weights = (Path(folder) / "checkpoint" / "model.safetensors").stat().st_size / 2**20
        command = [sys.executable, "-c", EXPORT, f"{folder}/checkpoint", folder]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    seconds, mebibytes, error = map(float, re.findall(r"[\d.e-]+", said)[-3:])
    row = {"model": name, "seconds": seconds, "mebibytes": mebibytes, "weights": weights, "relative_error": error}
    print(f"{row}, {mebibytes / weights:.2f} times the weights")
    record(arguments, export=row)


def record(arguments: argparse.Namespace, **part: object) -> None:
    """Adds a part to inference.json, or inference_cuda.json and so on."""
    name = "inference" if arguments.provider == "cpu" else f"inference_{arguments.provider}"
    path = results(arguments.rehearse) / f"{name}.json"
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    before.pop("machine", None)
    if "speed" in part:  # of other models, measured in another call
        others = [row for row in before.get("speed", []) if row["model"] not in arguments.models]
        part["speed"] = others + part["speed"]
    if "fidelity" in part:
        part["fidelity"] = dict(sorted((before.get("fidelity", {}) | part["fidelity"]).items()))
    if "fusions" in part:
        part["fusions"] = before.get("fusions", {}) | part["fusions"]
    made_by = before.get("made_by", {})
    for key in part:  # where rows of another machine stay, both are named
        others = [each for each in made_by.get(key, "").split("; ") if each and arguments.only]
        made_by[key] = "; ".join(dict.fromkeys([*others, machine()]))
    write(name, before | {"made_by": made_by} | part, arguments.rehearse)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = {"fidelity": fidelity, "precision": precision, "speed": speed, "fusions": fusions, "export": export}
    parser.add_argument("part", choices=parts)
    parser.add_argument("--data", help="the folder that holds CIFAR-10")
    parser.add_argument("--provider", default="cpu", choices=("cpu", "cuda", "tensorrt"))
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--models", nargs="+", help="of speed and fusions; of fidelity, if not all")
    add_options(parser)
    arguments = parser.parse_args()
    arguments.clock = Clock(arguments.minutes)
    if arguments.rehearse:
        arguments.models, arguments.rounds = [SMALL], 2
    arguments.only, arguments.models = arguments.models, arguments.models or MODELS
    if arguments.provider != "cpu":
        onnxruntime.preload_dlls()
    parts[arguments.part](arguments)
    arguments.clock.finish()


if __name__ == "__main__":
    main()
