"""NAS-Bench-201's space, whose cells are looked up."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from nasnet_zoo.errors import ConfigError

from .base import Choice, FixedSpace, Tokens, check_selection


@dataclass(frozen=True)
class NasBench201Space(FixedSpace):
    """NAS-Bench-201's cells: an operation on each of the six edges between four nodes (Dong & Yang 2020).

    The architecture is the benchmark's own string. It can be looked up, but not built.
    """

    name: str
    ops: tuple[str, ...] = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
    kind = None

    def __post_init__(self) -> None:
        check_selection(self.name, "op", self.ops, self.ops)
        edges = ((target, source) for target in (1, 2, 3) for source in range(target))
        decisions = tuple(Choice(f"{source}-{target}", len(self.ops)) for target, source in edges)
        object.__setattr__(self, "decisions", decisions)

    def decode(self, tokens: Sequence[int]) -> str:
        ops = iter([self.ops[token] for token in self.check(tokens)])
        nodes = ("|" + "|".join(f"{next(ops)}~{source}" for source in range(target)) + "|" for target in (1, 2, 3))
        return "+".join(nodes)

    def encode(self, architecture: str) -> Tokens:
        edges = [edge for node in architecture.split("+") for edge in node.strip("|").split("|")]
        ops = [edge.rpartition("~")[0] for edge in edges]
        unknown = [op for op in ops if op not in self.ops]
        if unknown or len(ops) != len(self.decisions):
            raise ConfigError(f"{architecture[:80]!r} is not a cell of the space {self.name}")
        tokens = tuple(self.ops.index(op) for op in ops)
        if self.decode(tokens) != architecture:
            raise ConfigError(f"{architecture[:80]!r} is not how the space {self.name} writes a cell")
        return tokens

    def to_json(self, architecture: str) -> str:
        return architecture

    def hash(self, architecture: str) -> str:
        return hashlib.sha256(architecture.encode()).hexdigest()[:16]
