"""What the test modules share. Tests of the package's core need only torch on a CPU."""

from pathlib import Path

import pytest
import torch

SHARED = Path(__file__).resolve().parents[2] / "shared"
GOLDEN = Path(__file__).resolve().parent / "golden"

# The networks of the tests are tiny: one thread is faster than several, and lets several workers run side by side.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seeded():
    """Every test starts from the same random state, whatever ran before it."""
    torch.manual_seed(0)


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
