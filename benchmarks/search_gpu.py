"""A whole search on one GPU in the time there is: PPO and random with a short proxy, then the best of both and
NASNet-A's own cell under one longer recipe.

    python benchmarks/search_gpu.py --data DIR [--minutes 8] [--workers 6] [--children 400]

Both searches run at the same time, half of the workers each, until they are done or their share of the minutes is
over. What is measured is written at once. `--rehearse` shrinks everything, for a CPU.
"""

import argparse
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

import torch
from common import add_options, write

from nasnet_zoo.arch.genotypes import GENOTYPES
from nasnet_zoo.search import ChildSettings, ControllerSettings, FleetSettings, SearchConfig, SpaceSettings, run
from nasnet_zoo.search.children.cifar import CifarChild
from nasnet_zoo.search.history import read_history
from nasnet_zoo.search.reranking import distinct_best
from nasnet_zoo.training.recipe import Recipe

PROXIES = {
    "short": (
        ChildSettings(filters=16, cells=1, pictures=20_000, recipe=Recipe(2, 256, 0.2, precision="auto")),
        Recipe(8, 256, 0.2, precision="auto"),
    ),
    "tiny": (
        ChildSettings(filters=8, cells=1, stem=2.0, side=16, pictures=512, validation=512, recipe=Recipe(1, 64, 0.1)),
        Recipe(2, 64, 0.1),
    ),
}
BEST = 3  # of each search go into the re-ranking
SEARCH_SHARE = 0.7  # of the minutes


class TimeOver(Exception):
    """Ends a search at a result, with everything before it in the journal."""


def search_until(config: SearchConfig, end: float) -> None:
    def changed(driver) -> None:
        if time.monotonic() > end:
            raise TimeOver

    try:
        run(config, on_change=changed)
    except TimeOver:
        pass


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True)
    parser.add_argument("--folder", default="runs/search_gpu")
    parser.add_argument("--workers", type=int, default=6)
    parser.add_argument("--children", type=int, default=400)
    add_options(parser)
    parser.set_defaults(minutes=8.0)
    arguments = parser.parse_args()
    if arguments.rehearse:
        arguments.workers, arguments.children, arguments.folder = 2, 3, tempfile.mkdtemp()
    proxy = "tiny" if arguments.rehearse else "short"
    child, longer = PROXIES[proxy]
    child = replace(child, data=arguments.data)
    start = time.monotonic()
    base = SearchConfig(
        "",
        SpaceSettings("nasnet"),
        controller=ControllerSettings(learning_rate=0.01, normalise=True),
        child=child,
        children=arguments.children,
        fleet=FleetSettings("processes", per_device=max(arguments.workers // 2, 1)),
    )
    configs = {name: replace(base, folder=f"{arguments.folder}/{name}", searcher=name) for name in ("ppo", "random")}
    end = start + 60 * arguments.minutes * SEARCH_SHARE
    threads = [threading.Thread(target=search_until, args=(config, end)) for config in configs.values()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows, table, candidates = {}, [], [("NASNet-A", GENOTYPES["NASNet-A"], None)]

    def keep() -> None:
        hours = (time.monotonic() - start) / 3600
        record = {"proxy": proxy, "hours": hours, "searches": rows, "reranked": table}
        write("search_gpu", record, arguments.rehearse)

    for name, config in configs.items():
        history = read_history(config.folder)
        rewards = [record.reward for record in history.finished]
        if not rewards:
            print(f"{name}: no child was done in time", flush=True)
            continue
        tail = rewards[-100:]
        rows[name] = {"children": len(rewards), "mean_of_last_100": sum(tail) / len(tail), "best": max(rewards)}
        print(f"{name}: {rows[name]}", flush=True)
        keep()
        for record in distinct_best(history.finished, BEST):
            candidates.append((f"{name}, child {record.child}", history.space.decode(record.tokens), record.reward))
    judge = CifarChild(replace(child, recipe=longer), "cell")
    judge.prepare("cpu" if arguments.rehearse or not torch.cuda.is_available() else "cuda")
    for name, architecture, reward in candidates:
        if table and time.monotonic() - start > 60 * arguments.minutes:
            break
        accuracy = judge(architecture, 0)["accuracy"]
        table.append({"cell": name, "reward": reward, "accuracy": accuracy})
        print(f"{name}: reward {reward}, accuracy {accuracy:.4f}", flush=True)
        keep()
    print(f"{(time.monotonic() - start) / 3600:.2f} h; run folders in {Path(arguments.folder)}")


if __name__ == "__main__":
    main()
