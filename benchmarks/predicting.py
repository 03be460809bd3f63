"""How long `nasnet-zoo predict` takes for a hundred photos, against `network.predict` on the list of them.

    python benchmarks/predicting.py           three to ten minutes

Both classify with nasnet-a-mobile, with fresh weights, on the CPU: the command in a process of its own, the function in
a process that has loaded the network. Each is also given one photo alone, so that the start of the command, and what
both do once, can be taken away. They take turns. The photos are ImageNet's beside the repository, or else made up.
"""

import io
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from common import SHARED, write

COUNT, ROUNDS, ASIDE = 100, 5, 1  # the first round warms up the disk and the caches


def photos(folder: Path) -> list[Path]:
    """Photos of the reference data, or pictures of 500 x 375 pixels as JPEGs."""
    found = sorted((SHARED / "data" / "imagenet-val-100").glob("*.JPEG"))
    if len(found) >= COUNT:
        return found[:COUNT]
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    for i in range(COUNT):
        small = Image.fromarray(rng.integers(0, 256, (15, 20, 3), dtype=np.uint8))
        file = io.BytesIO()
        small.resize((500, 375), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
        (folder / f"{i:03}.jpg").write_bytes(file.getvalue())
    return sorted(folder.glob("*.jpg"))


def main() -> None:
    import nasnet_zoo

    with tempfile.TemporaryDirectory() as temporary:
        model = str(Path(temporary) / "model")
        nasnet_zoo.save(nasnet_zoo.create("nasnet-a-mobile"), model)
        network = nasnet_zoo.load(model)
        paths = photos(Path(temporary))

        def command(count: int) -> None:
            given = [sys.executable, "-m", "nasnet_zoo.cli", "predict", *paths[:count], "--model", model]
            subprocess.run([*given, "--device", "cpu"], check=True, capture_output=True)

        calls: dict[str, Callable[[], object]] = {
            "command": lambda: command(COUNT),
            "function": lambda: network.predict(paths),
            "command, one photo": lambda: command(1),
            "function, one photo": lambda: network.predict(paths[:1]),
        }
        rounds = []
        for _ in range(ROUNDS + ASIDE):
            seconds = {}
            for name, call in calls.items():
                start = time.perf_counter()
                call()
                seconds[name] = time.perf_counter() - start
            rounds.append(seconds)
    rounds = rounds[ASIDE:]
    ratios = [
        (row["command"] - row["command, one photo"]) / (row["function"] - row["function, one photo"]) for row in rounds
    ]
    medians = {name: statistics.median(row[name] for row in rounds) for name in calls}
    for name, value in medians.items():
        print(f"{name}: {value:.2f} s")
    print(f"without the start: {statistics.median(ratios):.2f} times ({min(ratios):.2f} to {max(ratios):.2f})")
    kind = "ImageNet's, 227 px" if paths[0].suffix == ".JPEG" else "made up, 500 x 375 px"
    record = {"photos": COUNT, "kind": kind, "rounds": ROUNDS, "seconds": medians}
    write("predicting", {**record, "ratio": statistics.median(ratios), "ratios": ratios})


if __name__ == "__main__":
    main()
