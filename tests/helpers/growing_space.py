"""Toy spaces: a chain that grows, whose decisions depend on those before them and on the stage; and a fixed one."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

from nasnet_zoo.errors import ConfigError
from nasnet_zoo.search.spaces.base import Choice, Decision, FixedSpace, Space, Subset, Tokens

OPS = ("skip", "pool", "conv")


class Layer(NamedTuple):
    op: str
    width: int | None  # of a convolution
    inputs: tuple[int, ...]  # earlier layers


@dataclass(frozen=True)
class GrowingSpace(Space):
    """`depth` layers at first, and one more at each further stage, of which every one takes `each` proposals.

    A layer has an op, a width if that is a convolution, and any of the layers before it as its inputs.
    """

    name: str = "growing"
    depth: int = 2
    stages: int = 3
    each: int = 100
    kind = None

    def next(self, prefix: Sequence[int], stage: int = 0) -> Decision | None:
        """Reads the prefix from its start, as a space without any memory does."""
        decisions = self._decisions(prefix, stage)
        return next((decision for place, decision in enumerate(decisions) if place == len(prefix)), None)

    def _decisions(self, tokens: Sequence[int], stage: int) -> Iterator[Decision]:
        place = 0
        for layer in range(self.depth + stage):
            yield Choice(f"{layer}.op", len(OPS))
            place += 1
            if OPS[tokens[place - 1]] == "conv":
                yield Choice(f"{layer}.width", 2)
                place += 1
            if layer:
                yield Subset(f"{layer}.inputs", layer)
                place += 1

    def stage(self, proposed: int) -> int:
        return min(proposed // self.each, self.stages - 1)

    @property
    def size(self) -> int:
        layers = [(len(OPS) + 1) * 2**layer for layer in range(self.depth + self.stages - 1)]
        return sum(prod(layers[: self.depth + stage]) for stage in range(self.stages))

    def decode(self, tokens: Sequence[int]) -> tuple[Layer, ...]:
        layers, left = [], list(self.check(tokens))
        while left:
            op = OPS[left.pop(0)]
            width = left.pop(0) if op == "conv" else None
            chosen = left.pop(0) if layers else 0
            layers.append(Layer(op, width, tuple(i for i in range(len(layers)) if chosen >> i & 1)))
        return tuple(layers)

    def encode(self, architecture: Sequence[Layer]) -> Tokens:
        tokens: list[int] = []
        for place, layer in enumerate(architecture):
            if layer.op not in OPS:
                raise ConfigError(f"layer {place}: the space {self.name} has no {layer.op}")
            tokens.append(OPS.index(layer.op))
            tokens += [] if layer.width is None else [layer.width]
            tokens += [sum(1 << source for source in layer.inputs)] if place else []
        return self.check(tokens)

    def to_json(self, architecture: Sequence[Layer]) -> Any:
        return [[layer.op, layer.width, list(layer.inputs)] for layer in architecture]

    def hash(self, architecture: Sequence[Layer]) -> str:
        return hashlib.sha256(json.dumps(self.to_json(architecture)).encode()).hexdigest()[:16]


class MixedSpace(FixedSpace):
    """Always the same decisions, choices and a subset; the architecture is the tokens."""

    name, kind = "mixed", None
    decisions = (Choice("op", 3), Subset("inputs", 4), Choice("width", 2))

    def decode(self, tokens: Sequence[int]) -> Tokens:
        return self.check(tokens)

    encode = to_json = decode

    def hash(self, architecture: Tokens) -> str:
        return " ".join(map(str, architecture))


def worth(architecture: Sequence[Layer]) -> float:
    """From 0 to 1, whatever the depth: wide convolutions are good, and so is a layer that reads the last one alone."""
    layers = list(enumerate(architecture))
    ops = sum(layer.op == "conv" for _, layer in layers) + sum(layer.width == 1 for _, layer in layers)
    links = [(source in layer.inputs) == (source == place - 1) for place, layer in layers for source in range(place)]
    return ops / len(layers) / 3 + sum(links) / max(len(links), 1) / 3


class GrowingChild:
    """Worth what `worth` says, and a little luck of the seed."""

    def prepare(self, device: str) -> None:
        pass

    def __call__(self, architecture: Any, seed: int) -> dict[str, Any]:
        return {"accuracy": worth(architecture) + seed % 1000 / 1e5}


def every_sequence(space: Space, stage: int = 0) -> Iterator[Tokens]:
    """All sequences of one stage of a small space."""
    prefixes: list[Tokens] = [()]
    while prefixes:
        prefix = prefixes.pop()
        decision = space.next(prefix, stage)
        if decision is None:
            yield prefix
        else:
            prefixes += [(*prefix, token) for token in range(decision.outcomes)]
