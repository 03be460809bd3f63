"""Run folders of searches, written without a search."""

import json
from contextlib import closing
from pathlib import Path

from nasnet_zoo.search import ChildSettings, ControllerSettings, SearchConfig, SpaceSettings
from nasnet_zoo.search.journal import Journal

TABLE = dict(space=SpaceSettings("nasbench201"), child=ChildSettings("nasbench201", "none.csv"))


def small(folder: Path, **changes) -> SearchConfig:
    return SearchConfig(str(folder), controller=ControllerSettings(hidden=8), **{"children": 60} | changes)


def write_folder(folder: Path, config: SearchConfig, children: list[dict], sessions: int = 1) -> Path:
    """A run folder with the events of children that were proposed and, if there is a status, finished; a child's
    `updated` are the statistics of an update after it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config.to_json()))
    space = config.space.space()
    with closing(Journal.create(folder / "journal.sqlite", {"identity": config.identity()})) as opened:
        with opened.transaction():
            for _ in range(sessions):
                opened.add("session")
            for number, child in enumerate(children):
                tokens = child.get("tokens", tuple(number % decision.choices for decision in space.decisions))
                digest = child.get("hash", space.hash(space.decode(tokens)))
                opened.add("proposed", number, tokens=list(tokens), hash=digest, notes={}, place=0, of=1)
                opened.add("started", number, attempt=1)
                if "status" in child:
                    defaults = {"metrics": {"accuracy": child["reward"]}, "seconds": 1.0, "worker": "host:1:cpu"}
                    opened.add("finished", number, **defaults | child)
                if "updated" in child:
                    opened.add("updated", children=[number], statistics=child["updated"])
    return folder


def done(*rewards: float) -> list[dict]:
    return [{"status": "done", "reward": reward} for reward in rewards]
