"""A search with one worker on which every child fails at once, among 100 and among 450 that take 60 to 100 s a child.

    python benchmarks/search_workers.py [--children 3000]

The worker is bad from the start, or from the 300th second on. Simulated clock, space nasnet, random search; a child's
accuracy is a fixed function of its architecture. Says how many children were floored, on which worker they ran, and
which workers were left out.
"""

import argparse
import logging
import random
import tempfile
from dataclasses import replace
from typing import Any

import torch
from common import write
from search_driver import FixedChild
from simulated_fleet import SimulatedFleet, place

from nasnet_zoo.search.children.base import Task
from nasnet_zoo.search.driver import Driver
from nasnet_zoo.search.folder import open_journal
from nasnet_zoo.search.presets import preset
from nasnet_zoo.search.searchers.table import make_searcher

SHORTEST, LONGEST, LATE = 60.0, 100.0, 300.0
BAD = 3  # the number of the bad worker


def seconds(task: Task) -> float:
    return random.Random(task.seed).uniform(SHORTEST, LONGEST)


def searched(children: int, workers: int, bad: dict[int, float]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        config = replace(preset("nasnet"), folder=folder, children=children, searcher="random")
        space = config.space.space()
        journal, session = open_journal(config)
        driver = Driver(config, space, make_searcher(config, space), journal, session=session)
        fleet = SimulatedFleet(FixedChild(), workers, seconds, bad)
        with fleet:
            driver.run(fleet)
        journal.close()
    floored = [record for record in driver.records if record.status != "done"]
    return {
        "children": len(driver.finished),
        "floored": len(floored),
        "of healthy workers": sum(record.worker != place(BAD) for record in floored),
        "left out": sorted(driver.excluded),
        "hours": fleet.clock / 3600,
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--children", type=int, default=3000)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable()
    found = {}
    for workers in (100, 450):
        for name, since in (("none is bad", None), ("from the start", 0.0), ("after 300 s", LATE)):
            bad = {} if since is None else {BAD: since}
            found[f"{workers} workers, {name}"] = searched(arguments.children, workers, bad)
            print(f"{workers} workers, {name}: {found[f'{workers} workers, {name}']}", flush=True)
    write("search_workers", {"children": arguments.children, "searches": found})


if __name__ == "__main__":
    main()
