"""A config that was meant for CIFAR-10, as it is for a user's own pictures. Imports no torch."""

import os
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
    if task == "cifar10" and "child.task" not in changes and "child.data" in changes and _is_other(data):
        task = "folders"
    if task != "folders" or config.child.task == "folders" or not isinstance(data, str):
        return changes, []
    found = OwnPictures(data)
    notes = [f"{data} has pictures in {len(found.labels)} class folders: the task is folders"]
    had = {part: getattr(config.child, part, 0) for part in PARTS}
    given = {part: changes[f"child.{part}"] for part in PARTS if f"child.{part}" in changes}
    fewer = {part: number for part, number in _fitted(found, had, given).items() if number != had[part]}
    if fewer:
        said = " and ".join(f"{part} {number:,} in place of {had[part]:,}" for part, number in fewer.items())
        notes.append(f"{data} has fewer pictures than were asked for: {said}")
    return changes | {"child.task": task} | {f"child.{part}": number for part, number in fewer.items()}, notes


def _fitted(found: OwnPictures, had: dict[str, int], given: dict[str, Any]) -> dict[str, int]:
    """The numbers that were not given, as far as there are pictures beside those that were."""
    if not given or found.val is not None:
        fitted = dict(zip(PARTS, found.fitted(**had)))
    else:  # both come from the same pictures
        rest = len(found.train) - sum(number for number in given.values() if type(number) is int)
        fitted = {part: max(1, min(number, rest)) for part, number in had.items() if number}
    return {part: number for part, number in fitted.items() if part not in given}


def _is_other(data: Any) -> bool:
    """Whether a user's data are a folder that has nothing of CIFAR-10."""
    if not isinstance(data, str) or not os.path.isdir(data):  # False, unlike Path's, for a name that is too long
        return False
    folder = Path(data)
    return not folder.resolve().name.startswith("cifar-10") and not any(folder.glob("cifar-10*"))
