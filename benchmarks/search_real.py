"""Real searches with real children on CIFAR-10, small enough for a CPU: PPO's controller, regularized evolution and
random search, the preset `quick` with three seeds each, and the same child seeds on every side.

    python benchmarks/search_real.py --data DIR [--folder runs/quick] [--seeds 3] [--only ppo-0]

Nine searches of 320 children took some three hours on one core. Each lies in a folder of its own, FOLDER/SEARCHER-SEED;
what is finished is not run again, and after an interruption the same command goes on. With --only it runs one of them
and compares nothing. Intervals are of 95 %, by Student's t over the seeds; p is Welch's t-test between their means,
one-sided.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import write
from scipy.stats import ttest_ind

from nasnet_zoo.search import FleetSettings, SearchConfig, run
from nasnet_zoo.search.children.table import make_child
from nasnet_zoo.search.driver import child_seed
from nasnet_zoo.search.history import read_history
from nasnet_zoo.search.presets import changed, preset
from nasnet_zoo.search.report.seeds import interval
from nasnet_zoo.util.files import atomic_file

SEARCHERS = ("ppo", "evolution", "random")
LAST = 100
AGAIN = 8  # trainings of each search's best cell with other seeds


def config(name: str, arguments: argparse.Namespace) -> SearchConfig:
    """The preset `quick` with the searcher and seed that a folder's name says, in this process: a search with several
    workers could not be repeated child by child."""
    searcher, _, seed = name.partition("-")
    quick = changed(preset("quick"), {"searcher": searcher, "seed": int(seed), "child.data": arguments.data})
    return replace(quick, folder=f"{arguments.folder}/{name}", fleet=FleetSettings("inline"))


def rewards(folder: str) -> np.ndarray:
    """Every child's reward, in the order in which they finished."""
    return np.array([record.reward for record in read_history(folder).finished])


def again(folder: str, device: str = "cpu") -> float:
    """The mean accuracy of a search's best cell when it is trained with other seeds than its own, which were good luck.
    What was trained is kept in FOLDER/again.json."""
    path, history = Path(folder) / "again.json", read_history(folder)
    known: dict[str, float] = json.loads(path.read_text()) if path.exists() else {}
    best = max((record for record in history.finished), key=lambda record: record.reward)
    child = make_child(history.config.child, history.space)
    for number in range(AGAIN):
        name = f"{best.hash} {number}"
        if name not in known:
            child.prepare(device)
            seed = child_seed(history.config.seed, best.child, number)
            known[name] = child(history.space.decode(best.tokens), seed)["accuracy"]
            with atomic_file(path) as temporary:
                temporary.write_text(json.dumps(known))
    return float(np.mean([known[f"{best.hash} {number}"] for number in range(AGAIN)]))


def over_seeds(values: list[float]) -> dict[str, Any]:
    """The mean, half of its interval, and each seed's value."""
    mean, half = interval(np.array(values))
    return {"mean": float(mean), "half": float(half), "seeds": [round(float(v), 5) for v in values]}


def above(mine: dict[str, Any], theirs: dict[str, Any]) -> float:
    """Welch's t-test: how often means as far above the others would come by chance."""
    return float(ttest_ind(mine["seeds"], theirs["seeds"], equal_var=False, alternative="greater").pvalue)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data")
    parser.add_argument("--folder", default="runs/quick")
    parser.add_argument("--seeds", type=int, default=3, help="at least 2, of which there are intervals")
    parser.add_argument("--only")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    names = [f"{searcher}-{seed}" for seed in range(arguments.seeds) for searcher in SEARCHERS]
    for name in [arguments.only] if arguments.only else names:
        run(config(name, arguments))
    if arguments.only:
        return
    found = {s: [rewards(f"{arguments.folder}/{s}-{seed}") for seed in range(arguments.seeds)] for s in SEARCHERS}
    record: dict[str, Any] = {}
    for searcher, searches in found.items():
        folders = [f"{arguments.folder}/{searcher}-{seed}" for seed in range(arguments.seeds)]
        record[searcher] = {
            "all": over_seeds([each.mean() for each in searches]),
            "first": over_seeds([each[:LAST].mean() for each in searches]),
            "last": over_seeds([each[-LAST:].mean() for each in searches]),
            "best": over_seeds([each.max() for each in searches]),
            "best again": over_seeds([again(folder) for folder in folders]),
        }
        values = record[searcher].items()
        said = ", ".join(f"{name} {value['mean']:.4f} +- {value['half']:.4f}" for name, value in values)
        print(f"{searcher}: {said}", flush=True)
    tests = {}
    for searcher, other in (("ppo", "random"), ("evolution", "random"), ("ppo", "evolution")):
        for what in ("last", "best again"):
            tests[f"{searcher} above {other}, {what}"] = above(record[searcher][what], record[other][what])
    for name, p in tests.items():
        print(f"{name}: p = {p:.2g}")
    children = min(len(each) for searches in found.values() for each in searches)
    write(
        "search_real",
        {"children": children, "last": LAST, "seeds": arguments.seeds, "again": AGAIN, "searchers": record, "p": tests},
    )


if __name__ == "__main__":
    main()
