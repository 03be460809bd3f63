"""Tables: rows by name, from which choices, help texts, configs and reports are made.

A new entry is a file of its own and one row in its table. The config, the command line and the report find it there.
An entry's settings are a frozen dataclass with a default for every field, in the entry's file. If that file imports
torch, they are in `settings.py` beside it, so that a config can be read without torch.
"""

import difflib
from collections.abc import Iterable
from typing import Generic, Protocol, TypeVar

from ..errors import ConfigError


class Titled(Protocol):
    """`title` describes a row in help texts, in one line."""

    @property
    def title(self) -> str: ...


Row = TypeVar("Row", bound=Titled)


class Table(dict[str, Row], Generic[Row]):
    """Rows by name; the first is the default. `what` is the word for one of them in error messages."""

    def __init__(self, what: str, rows: dict[str, Row]) -> None:
        super().__init__(rows)
        self.what = what

    def row(self, name: str) -> Row:
        """The row of that name; raises ConfigError."""
        if name not in self:
            raise ConfigError(f"there is no {self.what} {name!r}; there are {', '.join(self)}{nearest(name, self)}")
        return self[name]

    def known(self, name: str) -> str:
        """The name, if it is a row's; raises ConfigError."""
        self.row(name)
        return name


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of a sentence about a name that does not exist: "; did you mean ...?" with the known ones that are most
    like it, or nothing."""
    near = difflib.get_close_matches(name, list(known), n=3, cutoff=0.7)
    return f"; did you mean {', '.join(near)}?" if near else ""
