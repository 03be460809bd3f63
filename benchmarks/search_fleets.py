"""Children per hour of the preset `quick` on a CPU: one child at a time with all cores, as it was, one at a time with
one core, and one child per core in processes of their own, as it is now.

    python benchmarks/search_fleets.py --data DIR [--children 20] [--rounds 2]

Random search, the same children each time; the fleets take turns. The time is the driver's, from its start to the last
result: with the start of the workers, and without python's and the imports. On an idle machine it takes six minutes.
"""

import argparse
import os
import statistics
import tempfile
from dataclasses import replace

from common import write

from nasnet_zoo.search import FleetSettings, run
from nasnet_zoo.search.fleet.base import cores
from nasnet_zoo.search.history import read_history
from nasnet_zoo.search.presets import preset

FLEETS = {
    "inline, all cores": (FleetSettings("inline"), cores()),
    "inline, one core": (FleetSettings("inline"), 1),
    "processes, one core each": (preset("quick").fleet, 1),
}


def children_per_hour(fleet: FleetSettings, threads: int, data: str, children: int) -> float:
    quick = preset("quick")
    child = replace(quick.child, data=data, threads=threads)
    with tempfile.TemporaryDirectory() as folder:
        run(replace(quick, folder=folder, searcher="random", child=child, children=children, fleet=fleet))
        return 3600 * children / read_history(folder).seconds


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data")
    parser.add_argument("--children", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    load, found = os.getloadavg()[0], {name: [] for name in FLEETS}
    for _ in range(arguments.rounds):
        for name, (fleet, threads) in FLEETS.items():
            found[name].append(children_per_hour(fleet, threads, arguments.data, arguments.children))
            print(f"{name}: {found[name][-1]:.0f} children per hour", flush=True)
    record = {"children": arguments.children, "load before": load, "cores": cores()}
    write("search_fleets", record | {"per hour": {name: statistics.median(each) for name, each in found.items()}})


if __name__ == "__main__":
    main()
