"""What the test modules share. Tests of the package's core need only torch on a CPU."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from nasnet_zoo import cli
from nasnet_zoo.training.tasks.classify import Classify
from nasnet_zoo.util.files import atomic_folder, locked

SHARED = Path(__file__).resolve().parents[2] / "shared"
GOLDEN = Path(__file__).resolve().parent / "golden"

# The networks of the tests are tiny: one thread is faster than several, and lets several workers run side by side.
torch.set_num_threads(1)

# Under nohup, or in the background of a script, these are ignored, and tests that send them would wait for nothing.
for name, handler in (("SIGINT", signal.default_int_handler), ("SIGHUP", signal.SIG_DFL)):
    if hasattr(signal, name):
        signal.signal(getattr(signal, name), handler)


def pytest_runtest_setup(item):
    """Tests for a GPU are skipped without one."""
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("there is no GPU")


@pytest.fixture(autouse=True)
def seeded():
    """Every test starts from the same random state, whatever ran before it."""
    torch.manual_seed(0)


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs the command line in this process; gives its exit code, stdout and stderr."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["nasnet-zoo", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code or 0, *capsys.readouterr()

    return run


@pytest.fixture
def measured(monkeypatch):
    """On how many pictures each evaluation was made, in order."""
    counts, own = [], Classify.evaluate

    def counted(task, network):
        counts.append(len(task.held_out))
        return own(task, network)

    monkeypatch.setattr(Classify, "evaluate", counted)
    return counts


@pytest.fixture(scope="session")
def shared():
    """The folder of reference files beside the repository; tests that need it skip where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"the reference files in {SHARED} are not here")
    return SHARED


@pytest.fixture(scope="session")
def golden():
    """The small reference arrays that are kept with the tests."""
    return GOLDEN


@pytest.fixture(scope="session")
def cifar10(shared, tmp_path_factory):
    """A folder with the official CIFAR-10 files, unpacked from the reference data; skips where these are absent."""
    unpack = shared / "data" / "cifar10" / "unpack.py"
    if not unpack.is_file():
        pytest.skip(f"CIFAR-10 is not in {unpack.parent}")
    folder = tmp_path_factory.getbasetemp().parent / "cifar10"  # shared by the workers of one run
    with locked(folder):
        if not (folder / "cifar-10-batches-py").is_dir():
            with atomic_folder(folder, ()) as temporary:
                subprocess.run([sys.executable, unpack, temporary], check=True, capture_output=True)
    return folder
