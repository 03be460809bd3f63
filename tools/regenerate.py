"""Reruns the search that found a shipped cell, from its recorded config and seed, and says whether it finds it again.

    python tools/regenerate.py FOLDER [--data DIR] [--found FILE]      (or `make regenerate`)

Same seed, same machine, same search: on another kind of processor float32 sums round otherwise, and a search may then
take another way.
"""

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import nasnet_zoo.search
from nasnet_zoo.errors import ConfigError, ZooError
from nasnet_zoo.search.config import SearchConfig
from nasnet_zoo.search.folder import best_record
from nasnet_zoo.search.progress import Progress
from nasnet_zoo.search.runner import run

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="the run folder; interrupted, the same call goes on")
    parser.add_argument("--data", help="the folder that holds CIFAR-10")
    parser.add_argument("--found", default=FOUND, help="the record, if not the shipped one")
    arguments = parser.parse_args()
    try:
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
