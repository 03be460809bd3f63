"""A config that was meant for CIFAR-10, as it is for a user's own pictures. Imports no torch."""

from pathlib import Path
from typing import Any

from .children.own_pictures import OwnPictures
from .config import SearchConfig

PARTS = "pictures", "validation"


def for_own_data(config: SearchConfig, changes: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The changes to a config (see presets.changed), with those that class folders in the place of CIFAR-10 bring
    about, and what a user should know of these.

    The task becomes "folders" where nothing else was asked for. Numbers of pictures that the config had for another
    task become as many as there are, if that is fewer; a number among the changes stays as it is. Raises DataError for
    folders that are no data set.
    """
    data = changes.get("child.data", config.child.data)
    task = changes.get("child.task", config.child.task)
    notes = []
    if task == "cifar10" and "child.task" not in changes and "child.data" in changes and _is_other(data):
        task = "folders"
        notes.append(f"{data} is no CIFAR-10: the task is folders, on its class folders")
    if task != "folders" or config.child.task == "folders":
        return changes, notes
    found = OwnPictures(data)
    asked = {part: getattr(config.child, part, 0) for part in PARTS}
    fitted = dict(zip(PARTS, found.fitted(*(changes.get(f"child.{part}", asked[part]) for part in PARTS))))
    fewer = {part: fitted[part] for part in PARTS if f"child.{part}" not in changes and fitted[part] != asked[part]}
    if fewer:
        said = " and ".join(f"{part} {number:,} in place of {asked[part]:,}" for part, number in fewer.items())
        notes.append(f"{data} has fewer pictures than were asked for: {said}")
    return changes | {"child.task": task} | {f"child.{part}": number for part, number in fewer.items()}, notes


def _is_other(data: str) -> bool:
    """Whether a user's data are a folder that has nothing of CIFAR-10."""
    folder = Path(data)
    return folder.is_dir() and not folder.resolve().name.startswith("cifar-10") and not any(folder.glob("cifar-10*"))
