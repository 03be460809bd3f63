"""The plan of a network: a flat list of steps in the order of computation, to which every kind lowers its
architecture.

The modules that walk through a plan serve all kinds: `networks/planned.py` builds modules, `arch/cost.py` counts
parameters, multiply-adds, activations and memory, `export/trace.py` makes the graph, `convert/names.py` the names in
TensorFlow. A kind chooses the names of its steps, and with them the keys of the state_dict.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

from ..errors import ConfigError
from .layers import Layers, Size

PICTURE = -1  # the network's input, as a step that others read


class Step(NamedTuple):
    """One map: `layers` on the joined `inputs`, which are earlier steps or PICTURE.

    `name` is the prefix of its keys in the state_dict, "cells.normal_0.blocks.2.left". `join` says how several inputs
    become one. `drop_path` is the step's share of ScheduledDropPath, from 0 (none) to 1 (the last of the network).
    """

    name: str
    inputs: tuple[int, ...]
    layers: Layers = ()
    join: Literal["only", "add", "concat"] = "only"
    drop_path: float = 0.0

    def channels(self, before: Sequence[int], in_channels: int) -> int:
        """The channels of its map, from those of the steps before it and of the picture."""
        each = [in_channels if read == PICTURE else before[read] for read in self.inputs]
        channels = sum(each) if self.join == "concat" else each[0]
        for layer in self.layers:
            channels = layer.channels_after(channels)
        return channels


class Auxiliary(NamedTuple):
    """The auxiliary head: on the concatenation of `inputs`, made for maps of `size`."""

    inputs: tuple[int, ...]
    size: Size


@dataclass(frozen=True)
class Plan:
    """The steps of a network from the picture to `output`, the map that is averaged and classified.

    `features` are the last maps at each total stride, each the concatenation of some steps. `minimum_size` is the
    least side of a picture in pixels. Raises ConfigError if a step reads a step that is not before it, or if two steps
    have the same name.
    """

    steps: tuple[Step, ...]
    output: int
    in_channels: int
    features: tuple[tuple[int, ...], ...]
    bn_eps: float = 1e-3
    minimum_size: int = 1
    auxiliary: Auxiliary | None = None

    def __post_init__(self) -> None:
        if not self.steps:
            raise ConfigError("a plan without steps is no network: give it at least one")
        names: set[str] = set()
        for index, step in enumerate(self.steps):
            if missing := [read for read in step.inputs if not PICTURE <= read < index]:
                raise ConfigError(f"plan: step {index}, {step.name!r}, reads step {missing[0]}, which is not before it")
            if not step.inputs or (step.join == "only" and len(step.inputs) > 1):
                raise ConfigError(
                    f"plan: step {index}, {step.name!r}, has {len(step.inputs)} inputs to join by {step.join!r}"
                )
            if step.name in names:
                raise ConfigError(f"plan: two steps have the name {step.name!r}; their weights would be mixed up")
            names.add(step.name)
        groups = ((self.output,), *self.features, self.auxiliary.inputs if self.auxiliary else ())
        if missing := [read for group in groups for read in group if not 0 <= read < len(self.steps)]:
            raise ConfigError(
                f"plan: the output, a feature or the auxiliary head is step {missing[0]}, which is not there"
            )
        for index, step in enumerate(self.steps):
            widths = {self.width((read,)) for read in step.inputs}
            if step.join == "add" and len(widths) > 1:
                raise ConfigError(f"plan: step {index}, {step.name!r}, adds maps of {sorted(widths)} channels")
            strides = {self.strides[read] if read != PICTURE else 1 for read in step.inputs}
            if len(strides) > 1:
                raise ConfigError(f"plan: step {index}, {step.name!r}, joins maps of the strides {sorted(strides)}")

    def __repr__(self) -> str:
        return f"Plan({len(self.steps)} steps, from {self.in_channels} to {self.num_features} channels)"

    @cached_property
    def channels(self) -> tuple[int, ...]:
        """The channels of each step's map."""
        found: list[int] = []
        for step in self.steps:
            found.append(step.channels(found, self.in_channels))
        return tuple(found)

    @cached_property
    def strides(self) -> tuple[int, ...]:
        """How much smaller each step's map is than the picture."""
        found: list[int] = []
        for step in self.steps:
            stride = 1 if step.inputs[0] == PICTURE else found[step.inputs[0]]
            for layer in step.layers:
                stride *= layer.reduction
            found.append(stride)
        return tuple(found)

    @cached_property
    def last_use(self) -> dict[int, int]:
        """For each step and the picture, the last step that reads it; a step that nothing reads has no entry."""
        return {read: index for index, step in enumerate(self.steps) for read in step.inputs}

    @cached_property
    def index(self) -> dict[str, int]:
        """The steps by name."""
        return {step.name: index for index, step in enumerate(self.steps)}

    def width(self, inputs: Sequence[int]) -> int:
        """The channels of the concatenation of some steps."""
        return sum(self.in_channels if read == PICTURE else self.channels[read] for read in inputs)

    @property
    def num_features(self) -> int:
        """The channels of the last map."""
        return self.channels[self.output]
