"""benchmarks/weights.py: whatever ends a training, its state and weights come back whole, and it goes on from there."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import common
import gpu
import pieces
import pytest
import torch
import trial_weights
import weights
import weights_copies
import weights_curve
from full_disk import no_file_above
from gpu import Part
from pieces import read_pieces, write_pieces
from safetensors import safe_open
from safetensors.torch import load_file
from trial_weights import before_step
from weights_copies import Copies

import nasnet_zoo
from nasnet_zoo.arch.cost import network_cost
from nasnet_zoo.errors import CheckpointError, ConfigError, ZooError
from nasnet_zoo.training.step import TrainingStep

pytest.importorskip("resource", reason="sets limits and sends signals, as POSIX has them")

TRIAL = Path(trial_weights.__file__)
TINY = "--data none --pictures 32 --cells 1 --filters 4 --batch 8 --epochs 3".split()  # four steps an epoch
NAME = "weights-state"


class Place:
    """Calls weights.py in this process, as `python weights.py` would be called, with an $OUT of each one's own."""

    def __init__(self, folder, monkeypatch, capsys):
        self.root, self.monkeypatch, self.capsys = folder, monkeypatch, capsys
        self.said = self.erred = ""
        monkeypatch.setattr(common, "REHEARSAL", folder / "rehearsal")
        monkeypatch.setattr(weights, "load_cifar10", trial_weights.pictures)
        monkeypatch.setattr(Copies, "SECONDS", 0.0)  # so that states and copies come with every step

    def call(self, name, *options, out=None, at=0, do=None):
        """The exit code; before the step of number `at` it does something."""
        arguments = [*TINY, "--folder", self.folder(name), *options]
        with self.monkeypatch.context() as context:
            context.setenv("OUT", str(out or self.out(name)))
            context.setattr(sys, "argv", ["weights.py", *map(str, arguments)])
            if at:
                context.setattr(TrainingStep, "__call__", before_step(at, do))
            self.capsys.readouterr()
            try:
                common.in_a_sentence(weights.main)
                return 0
            except SystemExit as ended:
                return ended.code
            finally:
                self.said, self.erred = self.capsys.readouterr()

    def stopped(self, name, at=6):
        """Has a training stopped in mid-epoch; gives its $OUT."""
        assert self.call(name, at=at, do=terminate) == common.INCOMPLETE
        return self.out(name)

    def folder(self, name):
        return self.root / name

    def out(self, name):
        return self.root / f"{name}-out"

    def record(self):
        return json.loads((self.root / "rehearsal" / "weights.json").read_text())


@pytest.fixture
def place(tmp_path, monkeypatch, capsys):
    return Place(tmp_path, monkeypatch, capsys)


class Unbroken(NamedTuple):
    """A training that nothing has stopped."""

    folder: Path

    def same_as(self, folder):
        """Whether a training has ended with the same weights and momenta, bit for bit."""
        one, other = (load_file(each / "state.safetensors") for each in (self.folder, folder))
        return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unbroken")
    options = [*TINY, "--folder", str(folder)]
    environment = {**os.environ, "OUT": str(folder / "out"), "REHEARSAL": str(folder / "rehearsal")}
    subprocess.run([sys.executable, TRIAL, "run", "0", *options], env=environment, check=True, capture_output=True)
    return Unbroken(folder)


def steps_done(folder):
    """(epochs, steps of the next one) of the state in a folder."""
    with safe_open(folder / "state.safetensors", "pt") as file:
        kept = file.metadata()
    return len(json.loads(kept["history"])), json.loads(kept["steps"])


def terminate():
    signal.raise_signal(signal.SIGTERM)


def one_sentence(text):
    return text.count("\n") == 1 and "Traceback" not in text


def files_in(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# Whatever ends it, it goes on


def test_a_killed_training_goes_on_to_the_same_weights(place, unbroken):
    options = [*TINY, "--folder", str(place.folder("killed"))]
    environment = {**os.environ, "OUT": str(place.out("killed"))}
    with subprocess.Popen(
        [sys.executable, TRIAL, "hold", "6", *options], env=environment, stdout=subprocess.PIPE
    ) as process:
        assert any(line == b"holding\n" for line in process.stdout)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    weights_copies.take_over(place.out("killed"), place.folder("copy"), NAME)
    assert steps_done(place.folder("killed")) == (1, 1) and steps_done(place.folder("copy")) == (1, 0)
    assert place.call("killed") == 0
    assert "goes on after epoch 1 of 3" in place.said and unbroken.same_as(place.folder("killed"))


def test_a_stopped_training_goes_on_on_another_machine(place, unbroken):
    out = place.stopped("here")
    assert "the same command goes on" in place.said
    assert 2 <= len(files_in(out)) <= 5
    seconds = json.loads((place.folder("here") / "times.json").read_text())["spent"]
    assert place.call("there", "--continue", out) == 0
    assert "goes on after epoch 1 of 3" in place.said and unbroken.same_as(place.folder("there"))
    curve = place.record()["curve"]
    assert [each["epoch"] for each in curve] == [1, 2, 3]
    assert 0 < curve[0]["seconds"] < seconds < curve[1]["seconds"] < curve[2]["seconds"]


def test_it_stops_when_its_time_is_over(place):
    assert place.call("short", "--minutes", 0) == common.INCOMPLETE
    with tarfile.open(fileobj=io.BytesIO(read_pieces(place.out("short"), NAME))) as archive:
        held = set(archive.getnames())
    assert held == {"state.safetensors", "plan.json", "times.json", *WEIGHTS}


WEIGHTS = ("weights", "weights/config.json", "weights/model.safetensors")


def test_float16_weights_come_back_beside_the_state_that_they_are_of(place, tmp_path):
    weights_copies.take_over(place.stopped("some"), tmp_path / "taken", NAME)
    network = nasnet_zoo.load(tmp_path / "taken" / "weights").state_dict()
    state = load_file(tmp_path / "taken" / "state.safetensors")
    assert all(torch.equal(value, state[f"network.{key}"].half().float()) for key, value in network.items())
    stored = load_file(tmp_path / "taken" / "weights" / "model.safetensors")
    assert {value.dtype for value in stored.values()} == {torch.float16}


def test_a_state_that_is_there_is_not_replaced_by_an_older_one(place, unbroken):
    out = place.stopped("here")
    older = shutil.copytree(out, place.root / "older")
    assert place.call("here", at=4, do=terminate) == common.INCOMPLETE
    assert place.call("here", "--continue", older) == 0
    assert "is not read" in place.said and "goes on after epoch 2 of 3" in place.said
    assert unbroken.same_as(place.folder("here"))


def test_a_gpu_that_dies_is_a_part_that_fails_in_one_line(place, unbroken, tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "results", lambda rehearse: tmp_path / "results")
    monkeypatch.setenv("OUT", str(place.out("dying")))
    options = ["fail", "6", *TINY, "--folder", str(place.folder("dying"))]
    run = gpu.Run("none", False, tmp_path / "archive", tmp_path / "run", options)
    assert not run.perform(["weights"], {"weights": Part(9, (str(TRIAL),), "a part of a test")}, minutes=9)
    assert run.outcomes["weights"][0] == "FAIL (2)"
    said = (tmp_path / "run" / "weights.log").read_text()
    assert "Traceback" not in said and said.count("CUDA") == 1
    assert "the GPU has failed (CUDA error: an illegal memory access was encountered)" in said
    weights_copies.take_over(place.out("dying"), place.folder("copy"), NAME)
    assert steps_done(place.folder("copy")) == (1, 1)
    assert place.call("elsewhere", "--continue", place.out("dying")) == 0
    assert unbroken.same_as(place.folder("elsewhere"))


def test_what_is_no_failure_of_the_gpu_keeps_its_traceback(place):
    def fail():
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1"):
        place.call("wrong", at=3, do=fail)


# A full disk


def test_the_training_goes_on_when_only_the_copy_finds_the_disk_full(place, unbroken):
    out = place.stopped("full")
    before = files_in(out)
    with no_file_above(int(1.1 * (place.folder("full") / "state.safetensors").stat().st_size)):
        code = place.call("full")
    assert code == 2 and one_sentence(place.erred) and str(out) in place.erred
    assert f"the training goes on without a new copy in {out}: Cannot write" in place.said
    assert files_in(out) == before and read_pieces(out, NAME)
    assert unbroken.same_as(place.folder("full"))
    assert place.call("full") == 0 and files_in(out) != before


def test_a_disk_that_is_too_full_for_the_state_ends_the_training_in_a_sentence(place, unbroken):
    out = place.stopped("full")
    state = place.folder("full") / "state.safetensors"
    before, copied = state.read_bytes(), files_in(out)
    with no_file_above(len(before) // 2):
        assert place.call("full") == 2
    assert one_sentence(place.erred) and f"Cannot write {state}" in place.erred
    assert state.read_bytes() == before and files_in(out) == copied
    assert place.call("full") == 0 and unbroken.same_as(place.folder("full"))


# Pieces


def test_no_piece_is_larger_than_the_limit(tmp_path):
    data = os.urandom(2500)
    written = write_pieces(data, tmp_path, "some", limit=1000)
    assert [path.stat().st_size for path in written] == [1000, 1000, 500]
    assert b"".join(path.read_bytes() for path in written) == data == read_pieces(tmp_path, "some")
    write_pieces(data[:700], tmp_path, "some", limit=1000)
    assert read_pieces(tmp_path, "some") == data[:700] and len(files_in(tmp_path)) == 2


def test_a_training_goes_on_from_many_small_pieces(place, unbroken, monkeypatch):
    monkeypatch.setattr(weights_copies, "write_pieces", partial(write_pieces, limit=100_000))
    out = place.stopped("here")
    assert len(files_in(out)) > 3 and max(map(len, files_in(out).values())) <= 100_000
    assert place.call("there", "--continue", out) == 0 and unbroken.same_as(place.folder("there"))


@pytest.mark.parametrize("files", range(4))
def test_who_is_interrupted_leaves_the_pieces_of_before(tmp_path, monkeypatch, files):
    write_pieces(b"old" * 50, tmp_path, "some", limit=70)
    before, usual, made = files_in(tmp_path), pieces.atomic_file, []

    @contextmanager
    def interrupted(path):
        with usual(path) as temporary:
            yield temporary
            if len(made) == files:
                raise KeyboardInterrupt
            made.append(path)

    monkeypatch.setattr(pieces, "atomic_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_pieces(b"new" * 50, tmp_path, "some", limit=70)
    assert files_in(tmp_path) == before and read_pieces(tmp_path, "some") == b"old" * 50


@pytest.mark.parametrize("files", range(1, 5))
def test_who_is_killed_leaves_one_whole(tmp_path, files):
    write_pieces(b"old" * 50, tmp_path, "some", limit=70)
    child = os.fork()
    if not child:
        usual, made = pieces.atomic_file, []

        @contextmanager
        def killed(path):
            with usual(path) as temporary:
                yield temporary
            made.append(path)
            if len(made) == files:
                os._exit(9)

        pieces.atomic_file = killed
        write_pieces(b"new" * 50, tmp_path, "some", limit=70)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert read_pieces(tmp_path, "some") == (b"new" if files == 4 else b"old") * 50
    write_pieces(b"last", tmp_path, "some")
    assert read_pieces(tmp_path, "some") == b"last" and len(files_in(tmp_path)) == 2


def cut(folder):
    path = next(folder.glob("*.001"))
    path.write_bytes(path.read_bytes()[:-1])


def changed(folder):
    path = next(folder.glob("*.000"))
    path.write_bytes(path.read_bytes()[:-1] + b"?")


def missing(folder):
    next(folder.glob("*.001")).unlink()


def mixed(folder):
    """A piece of another state under this one's name."""
    shutil.copy(next(folder.glob("*.000")), next(folder.glob("*.001")))


def swapped(folder):
    """Pieces that are all right, in an order that is not."""
    index = json.loads((folder / f"{NAME}.json").read_text())
    index["pieces"].reverse()
    (folder / f"{NAME}.json").write_text(json.dumps(index))


def no_index(folder):
    (folder / f"{NAME}.json").unlink()


def cut_index(folder):
    (folder / f"{NAME}.json").write_text('{"pieces": [')


def foreign_index(folder):
    (folder / f"{NAME}.json").write_text('{"pieces": [{"name": "../secret", "bytes": 1, "sha256": ""}]}')


def no_archive(folder):
    write_pieces(b"no archive at all", folder, NAME)


def nothing_in_it(folder):
    memory = io.BytesIO()
    tarfile.open(fileobj=memory, mode="w").close()
    write_pieces(memory.getvalue(), folder, NAME)


DAMAGE = {
    cut: "damaged",
    changed: "damaged",
    missing: "cannot be read",
    mixed: "damaged",
    swapped: "are not a whole",
    no_index: f"there is no {NAME}.json",
    cut_index: "not valid JSON",
    foreign_index: "no index",
    no_archive: "hold no training",
    nothing_in_it: "hold no state",
}


@pytest.mark.parametrize("damage, words", DAMAGE.items())
def test_pieces_that_are_not_whole_are_refused_in_a_sentence(place, unbroken, damage, words):
    out = place.root / "out"
    write_pieces(read_pieces(unbroken.folder / "out", NAME), out, NAME, limit=100_000)
    damage(out)
    assert place.call("there", "--continue", out) == 2
    assert one_sentence(place.erred) and words in place.erred and str(out) in place.erred and not place.said
    assert not place.folder("there").exists()


# What is measured, and the plan


def test_the_test_pictures_are_read_once_at_the_end(place, monkeypatch):
    read = []

    def load(folder, train):
        if not train:
            read.append(len(load_file(place.folder("some") / "state.safetensors")))
            print("the test pictures")
        return trial_weights.pictures(folder, train)

    monkeypatch.setattr(weights, "load_cifar10", load)
    place.stopped("some")
    assert not read
    assert place.call("some") == 0
    lines = place.said.splitlines()
    assert lines.index("the test pictures") > max(i for i, line in enumerate(lines) if line.startswith("epoch 3"))
    accuracy = place.record()["accuracy"]
    assert place.call("some") == 0 and place.record()["accuracy"] == accuracy and len(read) == 1


def test_the_published_weights_are_those_that_were_measured(place, tmp_path):
    assert place.call("some") == 0
    weights_copies.take_over(place.out("some"), tmp_path / "taken", NAME)
    recorded = json.loads((tmp_path / "taken" / "weights" / "config.json").read_text())["weights"]
    network = nasnet_zoo.load(tmp_path / "taken" / "weights")
    top1, _ = weights.evaluate(network, trial_weights.pictures("none", train=False))
    assert recorded["accuracy"] == place.record()["accuracy"]
    assert recorded["accuracy"]["cifar10_test_top1"] == top1 and recorded["epoch"] == 3


def test_accuracy_is_measured_on_training_pictures_or_on_those_held_back(place):
    pictures = trial_weights.pictures("none", train=True)
    learned, watched = weights.parted(pictures, 0)
    assert learned is pictures and len(watched) == len(pictures)
    learned, watched = weights.parted(pictures, 12)
    together = torch.cat([learned.images, watched.images]).flatten(1).unique(dim=0)
    assert (len(learned), len(watched), len(together)) == (20, 12, 32)
    assert place.call("some", "--hold-back", 12) == 0
    assert place.record()["curve_of"] == "12 training pictures, held back"
    for wrong in (-1, 32):
        with pytest.raises(ConfigError, match="--hold-back"):
            weights.parted(pictures, wrong)


def test_the_plan_stays_as_it_was(place, monkeypatch):
    def planned(*options):
        monkeypatch.setattr(sys.modules[__name__], "TINY", [each for each in TINY if each not in ("--epochs", "3")])
        return place.call("some", *options, at=3, do=terminate)

    monkeypatch.setattr(weights, "epoch_seconds", lambda network, task: 60.0)
    assert planned("--minutes", 9, "--plan-minutes", 11) == common.INCOMPLETE
    assert "there is time for 9" in place.said
    monkeypatch.setattr(weights, "epoch_seconds", None)
    assert planned("--minutes", 2) == common.INCOMPLETE and "goes on after epoch 0 of 9" in place.said
    for option in ("--epochs", "--hold-back"):
        assert planned(option, 7) == 2 and one_sentence(place.erred) and "leave the option as it was" in place.erred


def test_a_damaged_plan_or_times_is_a_sentence(place):
    for name in ("plan.json", "times.json"):
        place.stopped(name)
        (place.folder(name) / name).write_text("{}")
        assert place.call(name) == 2 and one_sentence(place.erred) and name in place.erred


def test_an_epoch_is_its_steps_and_its_measuring(monkeypatch):
    readings = iter([10.0, 16.0, 20.0, 50.0, 55.0])  # two steps, something else, a slow first measuring, the second
    clock = SimpleNamespace(perf_counter=lambda: next(readings))
    monkeypatch.setattr(weights, "time", clock)
    monkeypatch.setattr(weights, "TIMED_STEPS", 2)
    config = weights.network_config("NASNet-A", 1, 4)
    pictures = trial_weights.pictures("none", train=True)
    task = weights.Classify(pictures, weights.recipe_of(1, 4, 0.1), config.preprocess, pictures)
    assert weights.epoch_seconds(nasnet_zoo.create(config), task) == 3 * 8 + 5


def test_the_projects_own_cell_costs_as_much():
    wanted = network_cost(weights.network_config("NASNet-A", 6, 32)).multiply_adds
    assert weights.network_config("NASNet-A", 6, 32) == nasnet_zoo.info("nasnet-a-cifar").config
    config = weights.network_config("Quick-PPO", 6, 32)
    filters, off = config.scale.filters, abs(network_cost(config).multiply_adds - wanted)
    assert config.scale.stages == (6, 6, 6) and off < 0.01 * wanted
    for other in (filters - 1, filters + 1):
        near = weights.cifar(config.architecture, other, (6, 6, 6), 3 * other)
        assert abs(network_cost(near).multiply_adds - wanted) > off


def test_another_cell_has_a_record_and_pieces_of_its_own(place):
    assert place.call("own", "--cell", "Quick-PPO", "--epochs", 1) == 0
    record = json.loads((place.root / "rehearsal" / "weights_quick.json").read_text())
    assert record["cell"] == "Quick-PPO" and record["scale"]["filters"] == 5
    assert read_pieces(place.out("own"), "weights_quick-state")
    assert place.call("nasnet", "--continue", place.out("own")) == 2 and f"no {NAME}.json" in place.erred


def test_the_curve_is_drawn(place, tmp_path, monkeypatch, capsys):
    assert place.call("some") == 0
    record = tmp_path / "rehearsal" / "weights.json"
    monkeypatch.setattr(sys, "argv", ["weights_curve.py", str(record), str(tmp_path / "curve.svg")])
    weights_curve.main()
    drawn = (tmp_path / "curve.svg").read_text()
    assert "minutes" in drawn and "32 training pictures, without augmentation" in drawn and "test pictures" in drawn
    record.write_text('{"curve": []}')
    with pytest.raises(ZooError, match="no record"):
        weights_curve.main()


def test_pieces_of_an_absent_folder(tmp_path):
    with pytest.raises(CheckpointError, match="no some.json"):
        read_pieces(tmp_path / "absent", "some")
