"""benchmarks/gpu.sh: a part that crashes or hangs costs nothing but itself, and what was measured is in the archive."""

import errno
import json
import os
import signal
import subprocess
import sys
import tarfile
import textwrap
import time
from pathlib import Path

import common
import gpu
import inference
import onnxruntime
import pytest
import smoke
import torch
from gpu import PARTS, Part, Run

from nasnet_zoo.export.bench import Row

pytestmark = pytest.mark.skipif(os.name != "posix", reason="ends groups of processes, as POSIX has them")

BENCHMARKS = Path(gpu.__file__).parent


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run whose results and archive lie in the test's own folder."""
    monkeypatch.setattr(gpu, "results", lambda rehearse: tmp_path / "results")
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "older.json").write_text("{}")
    os.utime(tmp_path / "results" / "older.json", (0, 0))
    return Run("data", False, tmp_path / "out", tmp_path / "run")


@pytest.fixture
def parts(tmp_path):
    """Parts by name; each is a program."""

    def part(name, code, minutes=1.0):
        path = tmp_path / f"{name}.py"
        path.write_text(f"RESULTS = {str(tmp_path / 'results')!r}\n" + textwrap.dedent(code))
        return Part(minutes, (str(path),), "a part of a test")

    write = "from pathlib import Path\nprint('measured')\nPath(RESULTS, '{0}.json').write_text('[1]')\n"
    return {
        "first": part("first", write.format("first")),
        "crashing": part("crashing", write.format("crashing") + "raise MemoryError('out of memory')"),
        "last": part("last", write.format("last")),
        "slow": part("slow", write.format("slow") + f"raise SystemExit({common.INCOMPLETE})"),
        "hanging": part("hanging", write.format("hanging") + HANGS),
    }


# A part that does not end, nor when it is asked to, with a process of its own that would go on.
HANGS = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
Path(RESULTS, "child").write_text(str(child.pid))
time.sleep(600)
"""


def packed(archive):
    with tarfile.open(archive) as file:
        return {member.name: file.extractfile(member).read().decode() for member in file}


def test_a_part_that_crashes_does_not_end_the_others(run, parts, tmp_path, capsys):
    assert not run.perform(["first", "crashing", "last"], parts, minutes=3)
    files = packed(tmp_path / "out" / gpu.ARCHIVE)
    assert {name for name in files if name.endswith(".json")} == {
        f"benchmarks/results/{name}.json" for name in ("first", "crashing", "last")
    }
    assert "measured" in files["runs/gpu/first.log"] and "MemoryError: out of memory" in files["runs/gpu/crashing.log"]
    table = [line.split()[:2] for line in files["runs/gpu/parts.txt"].splitlines()]
    assert table == [["first", "PASS"], ["crashing", "FAIL"], ["last", "PASS"]]
    assert "torch==" in files["runs/gpu/versions.txt"] and "nvidia-smi" in files["runs/gpu/nvidia-smi.txt"]
    said = capsys.readouterr().out
    assert "MemoryError" in said and files["runs/gpu/parts.txt"] in said


def test_parts_that_pass(run, parts):
    assert run.perform(["first", "last"], parts, minutes=2)


def test_a_part_that_had_no_time_for_all_of_it_has_not_passed(run, parts):
    assert not run.perform(["slow"], parts, minutes=2)
    assert run.outcomes["slow"][0] == "INCOMPLETE"


def test_a_smoke_without_time_checks_nothing_and_does_not_pass(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(common, "REHEARSAL", tmp_path)
    monkeypatch.setattr(smoke, "kernel_checks", lambda place: {})
    monkeypatch.setenv("TRITON_INTERPRET", "1")  # as the script sets it
    monkeypatch.setattr(sys, "argv", ["smoke.py", "--rehearse", "--minutes", "-1"])
    with pytest.raises(SystemExit) as ended:
        smoke.main()
    assert ended.value.code == common.INCOMPLETE and "PASS" not in capsys.readouterr().out


def test_max_autotune_comes_after_all_that_is_quick():
    assert [contender for row in inference.PASSES[:-1] for contender in row if "max" in contender] == []
    assert inference.PASSES[-1] == ("compile_max",) and "compile" in inference.PASSES[0] + inference.PASSES[1]


def test_a_part_whose_time_is_over_is_ended_with_all_that_it_started(run, parts, tmp_path, monkeypatch):
    started = tmp_path / "results" / "child"

    class Clock:
        """Its time is over as soon as it hangs, however slow the machine is."""

        @staticmethod
        def monotonic():
            return time.monotonic() + (1e4 if started.exists() and started.read_text() else 0)

        time, sleep = staticmethod(time.time), staticmethod(time.sleep)

    monkeypatch.setattr(gpu, "time", Clock)
    monkeypatch.setattr(gpu, "REFRESH", 0.05)
    assert not run.perform(["hanging"], parts, minutes=60)
    assert run.outcomes["hanging"][0] == "timeout"
    assert not alive(int(started.read_text()))
    assert "benchmarks/results/hanging.json" in packed(run.archive)


def alive(pid):
    """Whether a process still runs; one that is dead and not yet reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_time_that_is_left_goes_to_the_parts_after(run, parts, monkeypatch):
    given = []
    monkeypatch.setattr(run, "part", lambda name, part, end: given.append(end - time.monotonic()) or "PASS")
    table = {"a": parts["first"]._replace(minutes=1), "b": parts["first"]._replace(minutes=3)}
    assert run.perform(["a", "b"], table, minutes=4)
    assert given == [pytest.approx(60, abs=5), pytest.approx(240, abs=20)]  # the first took no time


def test_an_interrupted_run_leaves_the_archive(run, parts, tmp_path, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    usual = run.part
    monkeypatch.setattr(run, "part", lambda name, *rest: (interrupted if name == "last" else usual)(name, *rest))
    with pytest.raises(KeyboardInterrupt):
        run.perform(["first", "last"], parts, minutes=2)
    files = packed(run.archive)
    assert "benchmarks/results/first.json" in files and "interrupted" in files["runs/gpu/parts.txt"]


def test_long_logs_are_cut_in_the_archive(run, monkeypatch):
    monkeypatch.setattr(gpu, "LOG_LIMIT", 10)
    (run.folder / "long.log").write_text("b" * 10 + "x" * 1000 + "e" * 10)
    run.outcomes = {"long": ("PASS", 1.0)}
    run.pack()
    assert packed(run.archive)["runs/gpu/long.log"] == "b" * 10 + "\n[...]\n" + "e" * 10


def test_the_archive_leaves_out_what_is_too_large_and_says_so(run, parts, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gpu, "ARCHIVE_LIMIT", 20_000)
    (tmp_path / "results" / "large.json").write_text(os.urandom(20_000).hex())
    assert run.perform(["first"], parts, minutes=1)
    files = packed(run.archive)
    assert run.archive.stat().st_size <= 20_000 and "benchmarks/results/first.json" in files
    assert "benchmarks/results/large.json" not in files
    assert files["runs/gpu/left-out.txt"] == "benchmarks/results/large.json\n"
    said = [line for line in capsys.readouterr().out.splitlines() if "too large" in line]
    assert said == [f"too large for {gpu.ARCHIVE}, and left out: benchmarks/results/large.json"]


def test_a_disk_that_is_full_costs_the_archive_and_no_part(run, parts, monkeypatch, capsys):
    def full(path, entries):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(gpu, "write_archive", full)
    monkeypatch.setattr(gpu, "REFRESH", 0.01)
    assert run.perform(["first", "last"], parts, minutes=2)
    said = capsys.readouterr().out
    assert f"no new {gpu.ARCHIVE}: Cannot write" in said and "everything is in" not in said


def test_what_stands_after_two_dashes_is_for_the_part(parts, tmp_path, monkeypatch, capsys):
    (tmp_path / "asked.py").write_text("import sys\nprint(sys.argv[1:])\n")
    table = {**parts, "asked": parts["first"]._replace(commands=(f"{tmp_path / 'asked.py'} its own",))}
    monkeypatch.setattr(gpu, "PARTS", table)
    monkeypatch.setattr(gpu, "ROOT", tmp_path)
    monkeypatch.setenv("OUT", str(tmp_path / "out"))
    monkeypatch.setattr(gpu, "results", lambda rehearse: tmp_path / "results")

    def called(*arguments):
        monkeypatch.setattr(sys, "argv", ["gpu.py", *arguments])
        with pytest.raises(SystemExit) as ended:
            gpu.main()
        return ended.value.code, capsys.readouterr()

    code, said = called("asked", "--minutes", "1", "--", "--cell", "a b", "--minutes", "2")
    assert code == 0 and "['its', 'own', '--cell', 'a b', '--minutes', '2']" in said.out
    code, said = called("asked", "first", "--", "--cell", "a")
    assert code == 2 and "for one part" in said.err


def test_all_is_eight_minutes():
    assert sum(PARTS[name].minutes for name in gpu.ALL) == 8
    assert all(part.minutes < 10 for part in PARTS.values())


def test_every_script_of_a_part_knows_the_options():
    scripts = {command.split()[0] for part in PARTS.values() for command in part.commands} - {"-m"}
    for script in scripts:
        assert "add_options(parser)" in (BENCHMARKS.parent / script).read_text(encoding="utf-8"), script


def test_the_shell_names_the_parts():
    environment = {**os.environ, "PYTHON": sys.executable}
    command = ["bash", str(BENCHMARKS / "gpu.sh"), "nothing"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert ended.returncode == 2 and all(name in ended.stderr for name in ("all", *PARTS))


def test_a_row_is_in_its_file_as_soon_as_it_is_measured(tmp_path, monkeypatch):
    def dies(name, folder, provider, precision, batch, rounds, contenders, on_row, seconds):
        on_row(Row(contenders[0], batch, 10.0, 100.0, 110.0, 99.0, 5.0, rounds))
        raise KeyboardInterrupt

    monkeypatch.setattr(common, "REHEARSAL", tmp_path)
    monkeypatch.setattr(inference, "bench", dies)
    monkeypatch.setattr(sys, "argv", ["inference.py", "speed", "--rehearse"])
    with pytest.raises(KeyboardInterrupt):
        inference.main()
    (row,) = json.loads((tmp_path / "inference.json").read_text())["speed"]
    assert row["contender"] == "nasnet_zoo" and row["p50"] == 100.0 and not row["in_turns"]


def test_speed_begins_nothing_when_its_time_is_over(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(common, "REHEARSAL", tmp_path)
    monkeypatch.setattr(inference, "bench", None)
    monkeypatch.setattr(sys, "argv", ["inference.py", "speed", "--rehearse", "--minutes", "-1"])
    with pytest.raises(SystemExit) as ended:
        inference.main()
    assert ended.value.code == common.INCOMPLETE
    assert "no time for nasnet-a-cifar-small" in capsys.readouterr().out and not list(tmp_path.iterdir())


def test_results_say_which_card_and_versions_made_them(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H100")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(common, "driver", lambda: "580.1")
    monkeypatch.setattr(common, "RESULTS", tmp_path)
    monkeypatch.setattr(common, "machine", common.machine.__wrapped__)
    common.write("some", {"rows": []})
    said = json.loads((tmp_path / "some.json").read_text())["machine"]
    versions = f"torch {torch.__version__}, onnxruntime {onnxruntime.__version__}"
    assert said.endswith(f", NVIDIA H100, driver 580.1, CUDA 13.0, {versions}")


@pytest.mark.slow
def test_parts_rehearsed_on_a_cpu_with_one_part_that_crashes(cifar10, tmp_path, monkeypatch):
    rehearsal = tmp_path / "rehearsal"
    monkeypatch.setenv("REHEARSAL", str(rehearsal))  # for the parts' own processes
    monkeypatch.setattr(gpu, "results", lambda rehearse: rehearsal)
    run = Run(str(cifar10), True, tmp_path / "out", tmp_path / "run")
    before = {path.name: path.read_bytes() for path in (BENCHMARKS / "results").iterdir()}
    crashing = PARTS["mobile"]._replace(commands=("-c 'import os; os.abort()'",))
    names = ("smoke", "providers", "mobile", "profile", "large", "children", "weights")
    assert not run.perform(names, {**PARTS, "mobile": crashing}, minutes=240)
    results = {name: outcome for name, (outcome, _) in run.outcomes.items()}
    assert results == {**dict.fromkeys(names, "PASS"), "mobile": f"FAIL ({-signal.SIGABRT})"}
    files = packed(run.archive)
    measured = {Path(name).stem: json.loads(text) for name, text in files.items() if name.endswith(".json")}
    assert set(measured) == {"smoke", "providers", "inference", "search_speed", "weights"}
    assert "depthwise 5x5" in files["runs/rehearsal/step_profile.txt"]
    assert all("torch" in record["machine"] and "onnxruntime" in record["machine"] for record in measured.values())
    assert {row["contender"] for row in measured["inference"]["speed"]} >= {"nasnet_zoo", "eager"}
    assert "paper" in measured["search_speed"] and measured["smoke"]["checks"]
    assert all(name.startswith("runs/") for name in files)
    assert before == {path.name: path.read_bytes() for path in (BENCHMARKS / "results").iterdir()}
