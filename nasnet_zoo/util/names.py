"""The names that a package offers: imported when they are first used, and what an editor completes."""

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from types import FrameType
from typing import Any


def lazily(package: str, where: Mapping[str, str]) -> Callable[[str], Any]:
    """A package's `__getattr__`: imports a name's module when the name is first used.

    `where` says, relative to the package, which module each name is in; ".search" for the name search is the module
    itself.
    """

    def __getattr__(name: str) -> Any:
        if name not in where:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = import_module(where[name], package)
        value = module if where[name] == f".{name}" else getattr(module, name)
        vars(sys.modules[package])[name] = value
        return value

    return __getattr__


def listed(package: str) -> Callable[[], list[str]]:
    """A package's `__dir__`: its `__all__` and Python's own names, not what it has imported to work.

    `help()` gets none. It would otherwise import everything and print all classes with what they inherit, torch's among
    it, below the docstring in which these names stand.
    """

    def __dir__() -> list[str]:
        namespace = vars(sys.modules[package])
        own = [name for name in namespace if name.startswith("__")]
        return [] if _asked_by_help() else sorted({*own, *namespace["__all__"]})

    return __dir__


def _asked_by_help() -> bool:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_name != "docmodule":  # pydoc's, for text and for HTML
        frame = frame.f_back
    return frame is not None
