"""The spaces of cells: pairs of a normal and a reduction cell."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

from nasnet_zoo.arch.genotype import MAX_BLOCKS, Block, Cell, Edge, Genotype
from nasnet_zoo.arch.kinds import get_kind
from nasnet_zoo.arch.ops import COMBINES, OPS
from nasnet_zoo.errors import ConfigError

from .base import Choice, Decision, FixedSpace, Tokens, check_selection

Outputs = Literal["unread-blocks", "unread", "blocks", "separate"]


@dataclass(frozen=True)
class CellSpace(FixedSpace):
    """Pairs of a normal and a reduction cell of `blocks` blocks: (state, state, op, op, combine) each.

    If there is only one combination, it is not a decision. `outputs` is the rule for which states are the cell's
    outputs. "unread-blocks": all blocks that no other block reads (NASNet paper, section 3: "all of the unused hidden
    states generated in the convolutional cell"; the NDS spaces marked L). "unread": also cell inputs that no block
    reads; searches of the first version had it. "blocks": all blocks, marked A in the NDS paper. "separate": the last
    blocks, as many as there are inputs, each as an output of its own (NASNet-B). `style` is the family whose
    macro-architecture belongs to the space (see Genotype).
    """

    name: str
    ops: tuple[str, ...]
    blocks: int = 5
    combines: tuple[str, ...] = ("add",)
    inputs: int = 2
    outputs: Outputs = "unread-blocks"
    style: Literal["slim", "nds"] = "slim"
    kind = "cell"

    def __post_init__(self) -> None:
        if not 1 <= self.blocks <= MAX_BLOCKS:
            raise ConfigError(f"{self.name}: {self.blocks} blocks; a cell has 1 to {MAX_BLOCKS}")
        check_selection(self.name, "op", self.ops, OPS)
        check_selection(self.name, "combination", self.combines, COMBINES)
        if self.outputs == "separate" and self.blocks < self.inputs:
            raise ConfigError(f"{self.name}: {self.blocks} blocks cannot make {self.inputs} separate outputs")
        object.__setattr__(self, "decisions", tuple(self._decisions()))
        self.decode((0,) * len(self.decisions))  # invalid genotypes raise a ZooError here, not during the search

    def _decisions(self) -> Iterator[Decision]:
        for cell in ("normal", "reduction"):
            for block in range(self.blocks):
                where, states = f"{cell}.{block}", self.inputs + block
                yield Choice(f"{where}.left.state", states)
                yield Choice(f"{where}.right.state", states)
                yield Choice(f"{where}.left.op", len(self.ops))
                yield Choice(f"{where}.right.op", len(self.ops))
                if len(self.combines) > 1:
                    yield Choice(f"{where}.combine", len(self.combines))

    @property
    def cell_size(self) -> int:
        """How many sequences one of the two cells has."""
        return prod(decision.outcomes for decision in self.decisions[: len(self.decisions) // 2])

    def decode(self, tokens: Sequence[int]) -> Genotype:
        tokens = self.check(tokens)
        half = len(tokens) // 2
        return Genotype(self._cell(tokens[:half]), self._cell(tokens[half:]), self.style)

    def _cell(self, tokens: Tokens) -> Cell:
        each = len(tokens) // self.blocks
        blocks = []
        for start in range(0, len(tokens), each):
            left, right, left_op, right_op, *combine = tokens[start : start + each]
            edges = Edge(left, self.ops[left_op]), Edge(right, self.ops[right_op])
            blocks.append(Block(*edges, self.combines[combine[0] if combine else 0]))
        return self._with_outputs(tuple(blocks))

    def _with_outputs(self, blocks: tuple[Block, ...]) -> Cell:
        made = range(self.inputs, self.inputs + len(blocks))
        if self.outputs == "separate":
            return Cell(blocks, tuple(made)[-self.inputs :], self.inputs, "separate")
        loose = Cell(blocks, (), self.inputs).loose_ends()
        leaving = {"unread": loose, "unread-blocks": tuple(s for s in loose if s in made), "blocks": tuple(made)}
        return Cell(blocks, leaving[self.outputs], self.inputs)

    def encode(self, architecture: Genotype) -> Tokens:
        tokens = self._tokens(architecture)
        for reason in self._strange(architecture):
            raise ConfigError(reason)
        return tokens

    def project(self, architecture: Genotype) -> tuple[Tokens, tuple[str, ...]]:
        return self._tokens(architecture), tuple(self._strange(architecture))

    def _tokens(self, architecture: Genotype) -> Tokens:
        """What the blocks of an architecture say; raises ConfigError if there are no such blocks in the space."""
        tokens: list[int] = []
        for name in ("normal", "reduction"):
            cell = getattr(architecture, name)
            if len(cell.blocks) != self.blocks or cell.inputs != self.inputs:
                raise ConfigError(
                    f"the {name} cell has {len(cell.blocks)} blocks and {cell.inputs} inputs; cells of the space "
                    f"{self.name} have {self.blocks} and {self.inputs}"
                )
            for index, block in enumerate(cell.blocks):
                tokens += block.left.state, block.right.state
                for op in (block.left.op, block.right.op):
                    tokens.append(self._index(self.ops, op, f"{name} cell, block {index}"))
                combine = self._index(self.combines, block.combine, f"{name} cell, block {index}")
                tokens += [combine] if len(self.combines) > 1 else []
        return tuple(tokens)

    def _strange(self, architecture: Genotype) -> Iterator[str]:
        """What the blocks of an architecture do not say, and is otherwise in this space."""
        for name in ("normal", "reduction"):
            cell = getattr(architecture, name)
            expected = self._with_outputs(cell.blocks)
            order = tuple if self.outputs == "separate" else sorted  # separate ones are inputs of the next cell
            if (order(cell.outputs), cell.output) != (order(expected.outputs), expected.output):
                yield (
                    f"the {name} cell hands on states {list(cell.outputs)}, but by the rule of the space {self.name} "
                    f"({self.outputs}) a cell with these blocks hands on {list(expected.outputs)}"
                )
        if architecture.style != self.style:
            yield (
                f"the genotype is of the style {architecture.style}, and cells of the space {self.name} of the style "
                f"{self.style}"
            )

    def _index(self, choices: tuple[str, ...], chosen: str, where: str) -> int:
        if chosen not in choices:
            raise ConfigError(f"{where}: {chosen} is not in the space {self.name}, which has {', '.join(choices)}")
        return choices.index(chosen)

    def to_json(self, architecture: Genotype) -> Any:
        return architecture.to_json()

    def hash(self, architecture: Genotype) -> str:
        return get_kind(self.kind).hash(architecture)
