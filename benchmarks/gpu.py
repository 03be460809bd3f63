"""The figures and checks that need a GPU, in parts, each in a process and with a time of its own.

    benchmarks/gpu.sh all                       smoke, training, providers and mobile: eight minutes together
    benchmarks/gpu.sh large --minutes 9         one part, or several, in that time together
    benchmarks/gpu.sh all --rehearse            the same on a CPU, tiny, to see that it runs
    benchmarks/gpu.sh weights -- --cell Quick-PPO      one part, whose scripts get what stands after --

A part that fails, or is not done in its time, is ended and does not end the others; what it leaves of its time the
next ones have. A row is in benchmarks/results as soon as it is measured. The archive gpu-results.tar.gz, in $OUT or
else in runs/gpu, has what was measured and every part's output, also while the parts run; unpacked in the project's
root it puts the results in their place. It stays below 16 MB: what is too large for it is named in left-out.txt and
lies in benchmarks/results or runs/gpu. A rehearsal's figures stay in runs/rehearsal. Exits 1 if a part failed.
"""

import argparse
import importlib.metadata
import io
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from common import INCOMPLETE, results

from nasnet_zoo.errors import ZooError
from nasnet_zoo.util.files import atomic_file

ROOT = Path(__file__).resolve().parents[1]
REFRESH = 20.0  # seconds between two archives of what there is: whoever ends this program may not say so before
GRACE = 15.0  # seconds of its time that a part has to end by itself, at most a fifth
LOG_LIMIT = 1 << 20  # bytes of a log's beginning, and as many of its end, that go into the archive
ARCHIVE = "gpu-results.tar.gz"
ARCHIVE_LIMIT = 15 << 20  # bytes: a machine may give back no larger file


class Part(NamedTuple):
    """`minutes` is a part's time, or its share of what several have together. The commands are arguments of Python;
    {data}, {provider}, {tests} and {options} stand for the run's own."""

    minutes: float
    commands: tuple[str, ...]
    says: str


def script(line: str) -> str:
    return f"benchmarks/{line} {{options}}"


PARTS: Mapping[str, Part] = {
    "smoke": Part(1.75, (script("smoke.py"),), "is what the GPU computes right?"),
    "training": Part(
        1.75,
        (script("training_speed.py --rounds 5"),),
        "a training's step against a plain one, and both with torch.compile",
    ),
    "providers": Part(2.5, (script("providers.py"),), "first and later runs by the CUDA provider's options"),
    "large": Part(
        8,
        (script("inference.py speed --provider {provider} --rounds 20 --models nasnet-a-large"),),
        "the speed of nasnet-a-large's graph against torch, torch.compile, timm's export and the unfused one",
    ),
    "mobile": Part(
        2,
        (script("inference.py speed --provider {provider} --rounds 30 --models nasnet-a-mobile"),),
        "the same for nasnet-a-mobile",
    ),
    "children": Part(
        2,
        (script("search_speed.py --paper --data {data}"),),
        "child training against the plain loop, and the paper's child",
    ),
    "graphs": Part(
        6,
        (
            script("inference.py precision --provider {provider} --data {data}"),
            script("inference.py fidelity --provider {provider}"),
        ),
        "exported graphs: float16 and int8 on CIFAR-10, float32 of every model",
    ),
    "forward": Part(2, (script("forward.py --device {device} --rounds 20"),), "torch's forward pass against timm's"),
    "weights": Part(
        8,
        (script("weights.py --data {data}"),),
        "a network for CIFAR-10, trained in the time there is; benchmarks/weights.py says how it goes on",
    ),
    "search": Part(9, (script("search_gpu.py --data {data}"),), "a whole search, PPO and random, and a re-ranking"),
    "fusions": Part(
        4,
        (script("inference.py fusions --provider {provider} --rounds 12"),),
        "what each rewrite of the graphs is worth",
    ),
    "profile": Part(1.25, (script("step_profile.py"),), "where the time of a training's step goes"),
    "tests": Part(2, ("-m pytest -m gpu -rfE {tests}",), "the tests that need a GPU, but for the checks of smoke"),
}
ALL = ("smoke", "training", "providers", "mobile")


class Run:
    """A run of some parts: where things go, what the commands are told, and what came of each part."""

    def __init__(self, data: str, rehearse: bool, out: Path, folder: Path, more: Sequence[str] = ()) -> None:
        self.data, self.rehearse, self.folder, self.more = data, rehearse, folder, more
        self.archive = out / ARCHIVE
        self.results = results(rehearse)
        self.outcomes: dict[str, tuple[str, float]] = {}
        self.left_out: list[str] = []
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        if rehearse:
            shutil.rmtree(self.results, ignore_errors=True)
        self.started = time.time()
        (folder / "versions.txt").write_text(versions(), encoding="utf-8")

    def perform(self, names: Sequence[str], parts: Mapping[str, Part], minutes: float) -> bool:
        """Runs the parts one after the other; whether all of them passed."""
        end = time.monotonic() + 60 * minutes
        self.outcomes = dict.fromkeys(names, ("not run", 0.0))
        try:
            for index, name in enumerate(names):
                shares = [parts[each].minutes for each in names[index:]]
                seconds = max(end - time.monotonic(), 0) * shares[0] / sum(shares)
                print(f"\n== {name}: {parts[name].says} ({seconds:.0f} s)", flush=True)
                start = time.monotonic()
                self.outcomes[name] = ("interrupted", 0.0)
                result = self.part(name, parts[name], start + seconds)
                self.outcomes[name] = (result, time.monotonic() - start)
                self.pack()
        finally:
            print(f"\n{self.table()}", flush=True)
            if self.pack():
                print(f"everything is in {self.archive}", flush=True)
        return all(result == "PASS" for result, _ in self.outcomes.values())

    def part(self, name: str, part: Part, end: float) -> str:
        """PASS, FAIL with the exit codes, INCOMPLETE or timeout."""
        said = []
        for line in part.commands:
            left = end - time.monotonic()
            options = f"--minutes {max(left - GRACE, 0.8 * left) / 60:.3f}" + (" --rehearse" if self.rehearse else "")
            place = {"provider": "cpu", "device": "cpu"} if self.rehearse else {"provider": "cuda", "device": "cuda"}
            line = line.format(data=shlex.quote(self.data), tests=shlex.join(gpu_tests()), options=options, **place)
            code = self.process(name, [sys.executable, *shlex.split(line), *self.more], left)
            known = {None: "timeout", 0: "", INCOMPLETE: "INCOMPLETE"}
            said.append(known.get(code, f"FAIL ({code})"))
        with (self.folder / "nvidia-smi.txt").open("a", encoding="utf-8") as file:
            file.write(f"after {name}\n{nvidia_smi()}\n")
        return ", ".join(filter(None, said)) or "PASS"

    def process(self, name: str, command: list[str], seconds: float) -> int | None:
        """The exit code of a command whose output goes to the terminal and a log; None if it was ended for its time."""
        temporary = tempfile.mkdtemp(prefix="gpu-")  # not in the folder, whose path may be too long for sockets
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1", "TMPDIR": temporary}
        if self.rehearse:
            environment["CUDA_VISIBLE_DEVICES"] = ""
        end = time.monotonic() + seconds
        with (self.folder / f"{name}.log").open("ab", buffering=0) as log:
            log.write(f"$ {shlex.join(command)}\n".encode())
            pipes = dict(stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            process = subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True, **pipes)
            copier = threading.Thread(target=copy, args=(process.stdout, log), daemon=True)
            copier.start()
            try:
                while (left := end - time.monotonic()) > 0:
                    with suppress(subprocess.TimeoutExpired):
                        return process.wait(min(left, REFRESH))
                    self.pack()
                print(f"{name}: its time is over", flush=True)
                return None
            finally:
                end_group(process)
                copier.join(5)
                shutil.rmtree(temporary, ignore_errors=True)

    def table(self) -> str:
        width = max(map(len, self.outcomes))
        return "\n".join(f"{name:{width}}  {result}  {took:.0f} s" for name, (result, took) in self.outcomes.items())

    def pack(self) -> bool:
        """Puts what this run has measured and said so far into the archive. Whether that went well: a full disk is no
        reason to end a part."""
        try:
            self._pack()
        except (OSError, ZooError) as error:
            print(f"no new {ARCHIVE}: {error}", flush=True)
            return False
        return True

    def _pack(self) -> None:
        (self.folder / "parts.txt").write_text(self.table() + "\n", encoding="utf-8")
        where = "runs/rehearsal" if self.rehearse else "benchmarks/results"
        written = [*self.results.glob("*.json"), *self.results.glob("*.txt")]
        measured = [path for path in sorted(written) if path.stat().st_mtime >= self.started]
        entries = {f"{where}/{path.name}": path.read_bytes() for path in measured}
        for path in sorted([*self.folder.glob("*.log"), *self.folder.glob("*.txt")]):
            text = path.read_bytes()
            if len(text) > 2 * LOG_LIMIT:
                text = text[:LOG_LIMIT] + b"\n[...]\n" + text[-LOG_LIMIT:]
            entries[f"runs/gpu/{path.name}"] = text
        left_out: list[str] = []
        with atomic_file(self.archive) as temporary:
            while write_archive(temporary, entries) > ARCHIVE_LIMIT:
                left_out.append(largest := max(entries, key=lambda name: len(entries[name])))
                del entries[largest]
                entries["runs/gpu/left-out.txt"] = "\n".join([*left_out, ""]).encode()
        if left_out != self.left_out:
            print(f"too large for {ARCHIVE}, and left out: {', '.join(left_out)}", flush=True)
        self.left_out = left_out


def write_archive(path: Path, entries: Mapping[str, bytes]) -> int:
    """The size of an archive of these files."""
    with tarfile.open(path, "w:gz") as archive:
        for name, content in entries.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mtime = len(content), int(time.time())
            archive.addfile(entry, io.BytesIO(content))
    return path.stat().st_size


def copy(source: io.BufferedReader, log: io.FileIO) -> None:
    """Copies a process's output line by line; a full disk costs the log, and not the process."""
    for line in source:
        with suppress(OSError):
            log.write(line)
        sys.stdout.write(line.decode(errors="replace"))
        sys.stdout.flush()


def end_group(process: subprocess.Popen) -> None:
    """Ends a process and all that it started: asks first, and does not wait for long."""
    with suppress(ProcessLookupError, subprocess.TimeoutExpired):
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(3)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def gpu_tests() -> list[str]:
    """The test files that have tests for a GPU, but for those of the part `smoke`: the others may need more than the
    machine has, even to be read."""
    files = (path for path in sorted((ROOT / "tests").rglob("test_*.py")) if path.name != "test_gpu.py")
    return [str(path) for path in files if "mark.gpu" in path.read_text("utf-8")]


def nvidia_smi() -> str:
    try:
        return subprocess.run(["nvidia-smi"], capture_output=True, text=True, timeout=30).stdout
    except (OSError, subprocess.SubprocessError) as error:
        return f"nvidia-smi: {error}\n"


def versions() -> str:
    """Python's, those of all packages, and what nvidia-smi says."""
    packages = {f"{package.name}=={package.version}" for package in importlib.metadata.distributions()}
    return "\n".join([sys.version, *sorted(packages, key=str.lower), "", nvidia_smi()])


def before_and_after(arguments: list[str]) -> tuple[list[str], list[str]]:
    """This script's arguments, and those for the part, which stand after a --."""
    place = arguments.index("--") if "--" in arguments else len(arguments)
    return arguments[:place], arguments[place + 1 :]


def main() -> None:
    rows = "\n".join(f"  {name:9} {part.minutes:4g} min  {part.says}" for name, part in PARTS.items())
    parser = argparse.ArgumentParser(
        description=f"{__doc__}\nparts:\n{rows}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="+", choices=["all", *PARTS], metavar="part")
    parser.add_argument("--data", default=os.environ.get("CIFAR", "data"), help="the folder that holds CIFAR-10")
    parser.add_argument("--minutes", type=float, help="for all of them together")
    parser.add_argument("--rehearse", action="store_true")
    own, more = before_and_after(sys.argv[1:])
    arguments = parser.parse_args(own)
    names = [name for part in arguments.parts for name in (ALL if part == "all" else (part,))]
    if more and len(names) > 1:
        parser.error(f"what stands after -- is for one part, and not for {len(names)}")
    minutes = sum(PARTS[name].minutes for name in names) if arguments.minutes is None else arguments.minutes
    folder = ROOT / "runs" / "gpu"
    out = Path(os.environ["OUT"]) if os.environ.get("OUT") else folder
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        run = Run(str(Path(arguments.data).resolve()), arguments.rehearse, out, folder, more)
        sys.exit(0 if run.perform(list(dict.fromkeys(names)), PARTS, minutes) else 1)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
