"""weights.py with a tiny network, in a minute: planned, killed, stopped, and gone on with as on another machine."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from common import INCOMPLETE

SCRIPT = Path(__file__).with_name("weights.py")
FOLDER = Path("runs/weights_rehearsal")
EPOCHS = 6
TINY = "--pictures 400 --cells 1 --filters 4 --batch 16".split()


def rehearse(data: str) -> None:
    """Ends with an exit code other than 0 at the first thing that is not as it should be."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    out = Path(os.environ.get("OUT") or FOLDER / "out")
    environment = {**os.environ, "OUT": str(out)}
    here, there, damaged = (FOLDER / name for name in ("here", "there", "damaged"))

    def call(what: str, code: int, *options: object, at_epoch: signal.Signals | None = None) -> str:
        """What a call says, which has to end with this code. With its first epoch it gets a signal."""
        print(f"-- {what}", flush=True)
        command = [sys.executable, str(SCRIPT), "--data", data, *TINY, *map(str, options)]
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
            said = ""
            for line in process.stdout:
                said += line.decode()
                print(line.decode(), end="", flush=True)
                if at_epoch is not None and line.startswith(b"epoch "):
                    process.send_signal(at_epoch)
                    at_epoch = None
        if process.returncode != code:
            sys.exit(f"rehearsal: this ended with {process.returncode}, not {code}")
        return said

    def check(said: str, pattern: str) -> None:
        if not re.search(pattern, said):
            sys.exit(f"rehearsal: this did not say '{pattern}'")

    call("a planned training, of one epoch for want of time", 0, "--folder", FOLDER / "planned", "--plan-minutes", 0)
    first = ("--epochs", EPOCHS, "--folder", here)
    call("another one, killed after an epoch", -signal.SIGKILL, *first, at_epoch=signal.SIGKILL)
    goes_on = rf"goes on after epoch [1-{EPOCHS - 1}] of {EPOCHS}"
    check(call("goes on, and is stopped", INCOMPLETE, *first, at_epoch=signal.SIGTERM), goes_on)

    damaged.mkdir()
    for path in out.glob("weights-state.*"):
        shutil.copy(path, damaged)
    piece = next(damaged.glob("weights-state.*.000"))
    piece.write_bytes(piece.read_bytes()[:-1])
    said = call("elsewhere, with a piece that is damaged", 2, "--folder", there, "--continue", damaged)
    check(said, r"^[^\n]+ is damaged or of another whole [^\n]+\n$")
    check(call("elsewhere, with all that is in $OUT", 0, "--folder", there, "--continue", out), goes_on)
