"""Reruns the search that found a shipped cell, from its recorded config and seed, and says whether it finds it again.

    python tools/regenerate.py FOLDER [--data DIR] [--found FILE]      (or `make regenerate`)
    python tools/regenerate.py FOLDER --record                         records a finished search instead

Same seed, same machine, same search: on another kind of processor, or with another torch, float32 sums round otherwise,
and a search may then take another way. The record says on what it was recorded ("made_on"): record on the machine that
searched.
"""

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import nasnet_zoo.search
from nasnet_zoo.errors import ConfigError, ZooError
from nasnet_zoo.search.config import SearchConfig
from nasnet_zoo.search.folder import best_record
from nasnet_zoo.search.history import read_history
from nasnet_zoo.search.progress import Progress
from nasnet_zoo.search.runner import run
from nasnet_zoo.util.environment import processor
from nasnet_zoo.util.files import atomic_file

FOUND = Path(nasnet_zoo.search.__file__).parent / "found" / "quick.json"


def regenerate(found: str | Path, folder: str | Path, data: str | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
    """(the recorded best, the best of the rerun), both as in best.json; raises a ZooError."""
    try:
        record = json.loads(Path(found).read_text(encoding="utf-8"))
        config, best = SearchConfig.from_json(record["search"]), record["best"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{found} is no record of a search and its best cell: {error}") from error
    child = replace(config.child, data=data or config.child.data)
    config = replace(config, folder=str(folder), child=child)
    with Progress() as progress:
        result = run(config, on_change=progress.changed)
    return best, best_record(config, config.space.space(), result.best)


def record(folder: str | Path, found: str | Path) -> dict[str, Any]:
    """Writes the record of a finished search and returns its best cell; raises a ZooError."""
    history = read_history(folder)
    if history.evaluated < history.config.children:
        raise ConfigError(f"{folder} holds a search that is not finished: run it to its end first")
    config = replace(history.config, folder="", child=replace(history.config.child, data=None))
    done = [each for each in history.finished if each.status == "done"]
    if not done:
        raise ConfigError(f"{folder} holds a search of which no child has a result: see its report.html")
    best = max(done, key=lambda each: each.reward)
    made_on = {"processor": processor(), "torch": torch.__version__}
    value = {"search": config.to_json(), "best": best_record(config, history.space, best), "made_on": made_on}
    with atomic_file(Path(found)) as temporary:
        temporary.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    return value["best"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="the run folder; interrupted, the same call goes on")
    parser.add_argument("--data", help="the folder that holds CIFAR-10")
    parser.add_argument("--found", default=FOUND, help="the record, if not the shipped one")
    parser.add_argument("--record", action="store_true", help="write the record of the finished search in FOLDER")
    arguments = parser.parse_args()
    try:
        if arguments.record:
            best = record(arguments.folder, arguments.found)
            print(f"recorded in {arguments.found}: child {best['child']}, reward {best['reward']}")
            return
        recorded, again = regenerate(arguments.found, arguments.folder, arguments.data)
    except ZooError as error:
        sys.exit(f"regenerate: {error}")
    if (recorded["tokens"], recorded["reward"]) == (again["tokens"], again["reward"]):
        print(f"the same cell: child {again['child']}, reward {again['reward']}")
    else:
        sys.exit(
            f"another cell: child {again['child']} with reward {again['reward']}, "
            f"where child {recorded['child']} had {recorded['reward']}"
        )


if __name__ == "__main__":
    main()
