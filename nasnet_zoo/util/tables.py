"""Tables: rows by name, from which choices, help texts, configs and reports are made.

A new entry is a file of its own and one row in its table. The config, the command line and the report find it there.
An entry's settings are a frozen dataclass with a default for every field, in the entry's file, or in `settings.py`
beside it where that file imports torch: a config is read without it.
"""

from typing import Generic, Protocol, TypeVar

from ..errors import ConfigError


class Titled(Protocol):
    """`title` is what help texts say of a row, in one line."""

    @property
    def title(self) -> str: ...


Row = TypeVar("Row", bound=Titled)


class Table(dict[str, Row], Generic[Row]):
    """Rows by name, of which the first is the default; `what` is what one of them is."""

    def __init__(self, what: str, rows: dict[str, Row]) -> None:
        super().__init__(rows)
        self.what = what

    def row(self, name: str) -> Row:
        """The row of that name; raises ConfigError."""
        if name not in self:
            raise ConfigError(f"there is no {self.what} {name!r}; there are {', '.join(self)}")
        return self[name]
