"""Memory and speed of the pictures that a training reads from files.

    python benchmarks/streaming.py           two to three minutes

Memory: two epochs of 20,000 JPEGs of 96 pixels through two workers, with the augmentation of the recipe imagenet-mobile
at 96 pixels and no network. MiB of the training's process and of the workers, each page counted by its share (PSS), at
ten points of each epoch. The training's process may go up and down, as the C library keeps much of what is freed: after
each epoch it is made to give that back, and what is left is what may not grow.

Speed: 500 x 375 pictures to 224 pixels in one process, as each worker does it, against torchvision's own pipeline with
the same crop, flip and colours, on tensors as here and on Pillow's pictures. They take turns.
"""

import ctypes
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import SHARED, write
from PIL import Image

from nasnet_zoo.arch.preprocess import INCEPTION
from nasnet_zoo.training.recipes import RECIPES
from nasnet_zoo.training.stream import Key, Stream
from nasnet_zoo.training.tasks.classify import Classify

COUNT, CLASSES, SIDE, WORKERS, EPOCHS, POINTS = 20_000, 50, 96, 2, 2, 10
BATCH, ROUNDS, PHOTOS = 100, 25, 40
RECIPE = RECIPES["imagenet-mobile"].recipe


def photos() -> Iterator[Image.Image]:
    """A hundred: ImageNet's beside the repository, or made-up ones."""
    found = sorted((SHARED / "data" / "imagenet-val-100").glob("*.JPEG"))
    yield from (Image.open(path).convert("RGB") for path in found)
    rng = np.random.default_rng(0)
    for _ in range(100 - len(found)):
        small = Image.fromarray(rng.integers(0, 256, (15, 20, 3), dtype=np.uint8))
        yield small.resize((227, 227), Image.Resampling.BICUBIC)


def jpegs(folder: Path, size: tuple[int, int]) -> list[Path]:
    """The photos as files, of a size of (width, height) pixels."""
    paths = []
    for number, image in enumerate(photos()):
        paths.append(folder / f"{number:03}.jpg")
        image.resize(size, Image.Resampling.BICUBIC).save(paths[-1], quality=90)
    return paths


def many_files(folder: Path) -> list[tuple[str, int]]:
    """Paths with their classes; each photo is in many files."""
    encoded = [path.read_bytes() for path in jpegs(folder, (SIDE, SIDE))]
    made = []
    for number in range(COUNT):
        label = number % CLASSES
        path = folder / f"{label:02}" / f"{number:06}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encoded[number % len(encoded)])
        made.append((str(path), label))
    return made


def proportional(process: int) -> float:
    """A process's memory in MiB, shared pages divided among those who share them."""
    for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise ValueError(f"process {process} has no Pss")


def resident(process: int) -> float:
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1024**2


def given_back() -> float:
    """This process's memory in MiB after the C library has given back what it keeps of freed memory."""
    ctypes.CDLL(None).malloc_trim(0)
    return proportional(os.getpid())


def children() -> list[int]:
    return [int(number) for number in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


def memory() -> dict[str, Any]:
    preprocess = replace(INCEPTION, size=(SIDE, SIDE))
    recipe = replace(RECIPE, batch_size=BATCH, epochs=EPOCHS)
    rows: list[dict[str, Any]] = []
    rates, used = [], []
    with tempfile.TemporaryDirectory() as temporary:
        task = Classify(many_files(Path(temporary)), recipe, preprocess, workers=WORKERS)
        points = {task.steps * part // POINTS: part for part in range(1, POINTS + 1)}
        for epoch in range(EPOCHS):
            start = time.perf_counter()
            for step, _ in enumerate(task.batches(epoch, torch.Generator().manual_seed(epoch)), 1):
                if step in points:
                    workers = children()
                    assert len(workers) == WORKERS
                    row = {
                        "epoch": epoch + 1,
                        "percent": 100 * points[step] // POINTS,
                        "main": proportional(os.getpid()),
                        "workers": [proportional(worker) for worker in workers],
                        "main_rss": resident(os.getpid()),
                        "workers_rss": [resident(worker) for worker in workers],
                    }
                    row["all"] = row["main"] + sum(row["workers"])
                    rows.append(row)
            rates.append(COUNT / (time.perf_counter() - start))
            used.append(given_back())
        task.close()
    print("epoch   %   main  workers    all  (PSS, MiB)   main  workers (RSS)")
    for row in rows:
        each, resting = (" ".join(f"{value:.0f}" for value in row[key]) for key in ("workers", "workers_rss"))
        print(
            f"{row['epoch']:5} {row['percent']:3} {row['main']:6.1f}  {each:>7} {row['all']:6.1f}                "
            f"{row['main_rss']:6.1f}  {resting}"
        )
    growth = {"main_given_back": used[-1] - used[0], "workers": sum(rows[-1]["workers"]) - sum(rows[0]["workers"])}
    print(f"main without what the C library keeps, after each epoch: {', '.join(f'{value:.1f}' for value in used)} MiB")
    print(f"the workers grew by {growth['workers']:.1f} MiB; {', '.join(f'{rate:.0f}' for rate in rates)} pictures/s")
    shown = [row for row in rows if row["percent"] in (10, 50, 100)]
    return {
        "pictures": COUNT,
        "side": SIDE,
        "workers": WORKERS,
        "mib": [{key: rounded(value) for key, value in row.items()} for row in shown],
        "peak_mib": rounded(max(row["all"] for row in rows)),
        "main_given_back_mib": rounded(used),
        "growth_mib": {name: rounded(value) for name, value in growth.items()},
        "pictures_per_second": [round(rate) for rate in rates],
    }


def rounded(value: Any) -> Any:
    return [round(each, 1) for each in value] if isinstance(value, list) else round(value, 1)


def pipelines(files: list[Path]) -> dict[str, Callable[[], object]]:
    """Each makes all of the pictures once."""
    from torchvision.transforms import v2

    made = Stream([(file, 0) for file in files], RECIPE, INCEPTION, 3, 0).samples
    colours = v2.ColorJitter(brightness=RECIPE.brightness, saturation=RECIPE.saturation)
    crop = dict(scale=(RECIPE.crop_area, 1))
    on_tensors = v2.Compose(
        [
            v2.PILToTensor(),
            v2.RandomResizedCrop(INCEPTION.size, antialias=False, **crop),
            v2.RandomHorizontalFlip(),
            colours,
        ]
    )
    on_pictures = v2.Compose(
        [v2.RandomResizedCrop(INCEPTION.size, **crop), v2.RandomHorizontalFlip(), colours, v2.PILToTensor()]
    )

    def torchvision(transform: v2.Compose) -> Callable[[], object]:
        return lambda: [transform(Image.open(file).convert("RGB")) for file in files]

    return {
        "ours": lambda: [made[Key(index, 0, INCEPTION.size[0])] for index in range(len(files))],
        "torchvision on tensors": torchvision(on_tensors),
        "torchvision on pictures": torchvision(on_pictures),
        "decoding alone": lambda: [Image.open(file).convert("RGB") for file in files],
    }


def interleaved_once(functions: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Seconds of a call of each, in turn."""
    seconds = {}
    for name, function in functions.items():
        start = time.perf_counter()
        function()
        seconds[name] = time.perf_counter() - start
    return seconds


def speed() -> dict[str, Any]:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        files = jpegs(Path(temporary), (500, 375))[:PHOTOS]
        functions = pipelines(files)
        rounds = [interleaved_once(functions) for _ in range(ROUNDS + 1)][1:]  # the first warms up
    seconds = {name: statistics.median(row[name] for row in rounds) for name in functions}
    rates = {name: len(files) / value for name, value in seconds.items()}
    for name, rate in rates.items():
        print(f"{name}: {rate:.0f} pictures/s of 500 x 375 on one core")
    ratios = [row["torchvision on tensors"] / row["ours"] for row in rounds]
    ratio = statistics.median(ratios)
    print(f"{ratio:.2f} times torchvision's on tensors ({min(ratios):.2f} to {max(ratios):.2f})")
    rates = {name: round(rate) for name, rate in rates.items()}
    return {"size": [500, 375], "side": INCEPTION.size[0], "pictures_per_second": rates, "ratio": round(ratio, 2)}


def main() -> None:
    write("streaming", {"memory": memory(), "speed": speed()})


if __name__ == "__main__":
    main()
