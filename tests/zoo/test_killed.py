"""kill -9 costs a training at most the time since its last state: it ends with the weights of an unbroken one."""

import os
import subprocess
import sys

import killed_training
import pytest


@pytest.mark.skipif(not hasattr(os, "fork"), reason="lives are forks")
@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", ["memory", "files"])
def test_a_training_that_is_killed_ends_like_an_unbroken_one(tmp_path, kind, kills):
    command = [sys.executable, killed_training.__file__, str(tmp_path), kind, str(kills)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout == f"killed {kills} times, the same weights\n", done.stderr[-2000:]
