"""The driver with 1,000 simulated workers: how busy it keeps them, and how many proposals it makes per second.

    python benchmarks/search_driver.py [--children 10000] [--workers 1000]

Children take 30 to 300 s of a simulated clock, to which all of the driver's own time, its journal's disk included, is
charged. Space nasnet, PPO with the paper's settings; a child's accuracy is a fixed function of its architecture.
"""

import argparse
import random
import tempfile
import time
from dataclasses import replace
from typing import Any

import torch
from common import write
from simulated_fleet import SimulatedFleet

from nasnet_zoo.search.children.base import Task
from nasnet_zoo.search.config import SearchConfig
from nasnet_zoo.search.driver import Driver
from nasnet_zoo.search.folder import open_journal
from nasnet_zoo.search.presets import preset
from nasnet_zoo.search.searchers.table import make_searcher

SHORTEST, LONGEST = 30.0, 300.0


class FixedChild:
    """An accuracy that depends on the architecture alone."""

    def prepare(self, device: str) -> None:
        pass

    def __call__(self, architecture: Any, seed: int) -> dict[str, Any]:
        blocks = architecture.normal.blocks + architecture.reduction.blocks
        return {"accuracy": sum(b.left.op.startswith("sep") + b.right.op.startswith("sep") for b in blocks) / 20}


def seconds(task: Task) -> float:
    return random.Random(task.seed).uniform(SHORTEST, LONGEST)


def proposals_per_second(config: SearchConfig, updates: bool) -> float:
    """In batches of 20, with the searcher's learning from each batch or without."""
    from nasnet_zoo.search.searchers.base import Observation

    searcher = make_searcher(config, config.space.space())
    rounds, rng = 30, random.Random(0)
    start = time.perf_counter()
    for _ in range(rounds):
        proposals = searcher.propose(searcher.batch)
        if updates:
            searcher.observe([Observation(proposal, rng.random()) for proposal in proposals])
    return rounds * searcher.batch / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--children", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=1_000)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        config = replace(preset("nasnet"), folder=folder, children=arguments.children)
        rates = [proposals_per_second(config, updates) for updates in (False, True)]
        space = config.space.space()
        journal, session = open_journal(config)
        driver = Driver(config, space, make_searcher(config, space), journal, session=session)
        fleet = SimulatedFleet(FixedChild(), arguments.workers, seconds)
        start = time.perf_counter()
        with fleet:
            driver.run(fleet)
        wall = time.perf_counter() - start
        journal.close()
    last = max(start for start, _ in fleet.spans)  # after it workers stand still because the search ends
    busy = fleet.busy(last)
    record = {
        "workers": arguments.workers,
        "children": arguments.children,
        "busy": busy,
        "driver_seconds": wall,
        "driver_ms_per_child": 1000 * wall / arguments.children,
        "simulated_hours": fleet.clock / 3600,
        "proposals_per_second": rates[0],
        "proposals_and_updates_per_second": rates[1],
    }
    for name, value in record.items():
        print(f"{name}: {value:,.4g}")
    write("search_driver", record)


if __name__ == "__main__":
    main()
