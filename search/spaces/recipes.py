"""The space of a grid: some values for each of several settings of a training. Imports no torch."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from nasnet_zoo.arch.checks import json_or_text, parse_json
from nasnet_zoo.errors import ConfigError

from .base import Choice, FixedSpace, Tokens

# Of a space that is given no grid: Zoph & Le 2016, section 4.1, tried these four after the search. The values are ours.
SMALL_GRID = (
    "learning_rate=0.05,0.1,0.2",
    "weight_decay=0.0002,0.0005",
    "bn_eps=1e-05,0.001",
    "decay_epochs=5,10",
)


@dataclass(frozen=True)
class RecipeSpace(FixedSpace):
    """All combinations of the values in a `grid`, whose texts are FIELD=VALUE,VALUE: fields of a recipe, or of the
    network's scale. The architecture is a dict of the fields and their values. It is no network of its own."""

    name: str
    grid: tuple[str, ...] = SMALL_GRID
    values: dict[str, list[Any]] = field(init=False, repr=False, compare=False)
    kind = None

    def __post_init__(self) -> None:
        fields = [_field(text) for text in self.grid]
        names = [name for name, _ in fields]
        if not names or len(set(names)) != len(names):
            raise ConfigError(f"{self.name}: a grid needs at least one field and none twice, not {', '.join(names)}")
        object.__setattr__(self, "grid", tuple(self.grid))
        object.__setattr__(self, "values", dict(fields))
        object.__setattr__(self, "decisions", tuple(Choice(name, len(values)) for name, values in fields))

    def decode(self, tokens: Sequence[int]) -> dict[str, Any]:
        return {name: values[token] for (name, values), token in zip(self.values.items(), self.check(tokens))}

    def encode(self, architecture: dict[str, Any]) -> Tokens:
        if not isinstance(architecture, dict) or set(architecture) != set(self.values):
            raise ConfigError(f"{self.name}: give a value for each of {', '.join(self.values)}")
        for name, value in architecture.items():
            if value not in self.values[name]:
                raise ConfigError(f"{self.name}: {name} {value!r} is none of {', '.join(map(str, self.values[name]))}")
        return tuple(values.index(architecture[name]) for name, values in self.values.items())

    def to_json(self, architecture: dict[str, Any]) -> dict[str, Any]:
        return architecture

    def hash(self, architecture: dict[str, Any]) -> str:
        return hashlib.sha256(json.dumps(architecture, sort_keys=True).encode()).hexdigest()[:16]


def _field(text: str) -> tuple[str, list[Any]]:
    """learning_rate=0.1,0.2 as a name and values, which are JSON or else texts; raises ConfigError."""
    name, equals, said = text.partition("=")
    try:
        values = parse_json(f"[{said}]")
    except ValueError:
        values = [json_or_text(each.strip()) for each in said.split(",")]
    if not equals or not name.strip() or not values or len({json.dumps(value) for value in values}) != len(values):
        raise ConfigError(
            f"the grid's {text!r}: write a field's name, =, and different values with commas between, as in "
            f"learning_rate=0.05,0.1"
        )
    return name.strip(), values
