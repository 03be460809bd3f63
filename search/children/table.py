"""The table of children: one row each."""

from collections.abc import Callable
from dataclasses import fields
from typing import Any, NamedTuple

from nasnet_zoo.errors import ConfigError
from nasnet_zoo.util.tables import Table

from ..spaces.base import Space
from .base import BaseChildSettings, Child
from .nasbench import TableChild, TableChildSettings
from .settings import CifarChildSettings, FolderChildSettings, RecipeChildSettings


class ChildEntry(NamedTuple):
    """`takes` says whether the child accepts the architectures of a space. `make` takes the settings and the space."""

    title: str
    settings: type[BaseChildSettings]
    takes: Callable[[Space], bool]
    make: Callable[[Any, Space], Child]


def make_child(settings: BaseChildSettings, space: Space) -> Child:
    """The child of the settings' task; raises ConfigError if it cannot be an architecture of that space."""
    entry = CHILDREN.row(settings.task)
    if not entry.takes(space):
        others = " or ".join(name for name, other in CHILDREN.items() if other.takes(space))
        raise ConfigError(
            f"search: children of the task {settings.task} cannot be architectures of the space {space.name}, but "
            f"those of {others or 'no task'} can: set child.task, or choose another space"
        )
    return entry.make(settings, space)


def ChildSettings(task: str = "cifar10", data: str | None = None, **settings: Any) -> BaseChildSettings:  # noqa: N802
    """The settings of a task's child; raises ConfigError. In the first version this was the class of all of them."""
    return CHILDREN.row(task).settings(task, data, **settings)


def own_settings(child: Any, settings: type[BaseChildSettings]) -> Any:
    """The section "child" of a config in JSON without other tasks' settings, which the first version wrote there
    too."""
    if not isinstance(child, dict):
        return child
    others = {field.name for entry in CHILDREN.values() for field in fields(entry.settings)}
    others -= {field.name for field in fields(settings)}
    return {key: value for key, value in child.items() if key not in others}


def _cifar(settings: CifarChildSettings, space: Space) -> Child:
    from .cifar import CifarChild  # imports torch

    return CifarChild(settings, space.kind)


def _folders(settings: FolderChildSettings, space: Space) -> Child:
    from .folders import FolderChild  # imports torch

    return FolderChild(settings, space.kind)


def _recipes(settings: RecipeChildSettings, space: Space) -> Child:
    from .recipes import RecipeChild  # imports torch

    return RecipeChild(settings)


def _table(settings: TableChildSettings, space: Space) -> Child:
    return TableChild(settings)


CHILDREN = Table(
    "child",
    {
        "cifar10": ChildEntry(
            "a small network, trained on a part of CIFAR-10's training pictures",
            CifarChildSettings,
            lambda space: space.kind is not None,
            _cifar,
        ),
        "folders": ChildEntry(
            "the same on your own pictures (--data DIR with a folder of pictures for each class)",
            FolderChildSettings,
            lambda space: space.kind is not None,
            _folders,
        ),
        "nasbench201": ChildEntry(
            "a row of a NAS-Bench-201 table (--data FILE.csv)",
            TableChildSettings,
            lambda space: space.name == "nasbench201",
            _table,
        ),
        "recipes": ChildEntry(
            "one network, trained by the recipes of a grid (`nasnet-zoo tune`)",
            RecipeChildSettings,
            lambda space: space.name == "recipes",
            _recipes,
        ),
    },
)
