"""Architectures as data: cells of blocks, validated, hashable, readable from JSON. Imports no torch.

A cell turns hidden states into hidden states (NASNet paper, section 3 and figure 3). The states are numbered:
first the cell's inputs, then one per block in order. With the usual two inputs, state 0 is the *current* input
(the output of the cell before) and state 1 the *previous* one (the output of the cell before that), as in TF-slim;
DARTS numbers these two the other way round.

A cell whose output is "concat" has one output map, the concatenation of the states in `outputs`. A cell whose output
is "separate" (NASNet-B, appendix B) outputs each of those states separately, and the next cell reads them as its
inputs 0, 1, 2, ...
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ..errors import GenotypeError
from ..util.arguments import checked, described
from .checks import read_json
from .kinds import svg
from .ops import COMBINES, OPS

OUTPUT_MODES = ("concat", "separate")
STYLES = ("slim", "nds")
MAX_BLOCKS = 64  # the published cells have 4 or 5; a file with more than this is a mistake or an attack
MAX_INPUTS = 8


class Edge(NamedTuple):
    """One operation of a block: what it reads, and what it does to it."""

    state: int
    op: str


class Block(NamedTuple):
    """Two operations and how their results become one new hidden state."""

    left: Edge
    right: Edge
    combine: str = "add"


@dataclass(frozen=True)
class Cell:
    """`blocks` over `inputs` input states; the states in `outputs` leave the cell, as one map or separately."""

    blocks: tuple[Block, ...]
    outputs: tuple[int, ...]
    inputs: int = 2
    output: str = "concat"

    @property
    def num_states(self) -> int:
        return self.inputs + len(self.blocks)

    def loose_ends(self) -> tuple[int, ...]:
        """The states that no block of the cell reads."""
        read = {edge.state for block in self.blocks for edge in (block.left, block.right)}
        return tuple(state for state in range(self.num_states) if state not in read)

    def live_blocks(self) -> set[int]:
        """Indices of the blocks that an output depends on; the others have no effect."""
        live, pending = set(), [state - self.inputs for state in self.outputs]
        while pending:
            index = pending.pop()
            if index >= 0 and index not in live:
                live.add(index)
                pending += [edge.state - self.inputs for edge in (self.blocks[index].left, self.blocks[index].right)]
        return live

    def to_json(self) -> dict[str, Any]:
        blocks = [{"left": list(b.left), "right": list(b.right), "combine": b.combine} for b in self.blocks]
        return {"inputs": self.inputs, "blocks": blocks, "outputs": list(self.outputs), "output": self.output}


@dataclass(frozen=True)
class Genotype:
    """A normal cell and a reduction cell (stride 2), and the family whose rules make them into a network.

    `style` "slim" (TF-slim's NASNet, PNASNet) projects the previous input only if its channels do not fit, and a
    strided identity is a 1x1 convolution. "nds" (DARTS and its relatives, Radosavovic et al. 2019) always projects both
    inputs, a strided identity is a factorized reduction, and there is no ReLU before the global average. Two genotypes
    are equal only if they are written in the same order, because the order decides which weights are where. Raises
    GenotypeError, naming the cell and the block, for a genotype that is not valid.
    """

    normal: Cell
    reduction: Cell
    style: Literal["slim", "nds"] = "slim"

    def __post_init__(self) -> None:
        for name in ("normal", "reduction"):
            _check_cell(getattr(self, name), name)
        if self.style not in STYLES:
            raise GenotypeError(f"unknown style {_short(self.style)}; choose one of {', '.join(STYLES)}")
        normal, reduction = self.normal, self.reduction
        if (normal.inputs, normal.output) != (reduction.inputs, reduction.output):
            raise GenotypeError(
                f"the normal cell has {normal.inputs} inputs and a {normal.output!r} output but the reduction cell "
                f"{reduction.inputs} and {reduction.output!r}: give both the same, so that they can be stacked"
            )

    def __repr__(self) -> str:
        name = next((name for name, genotype in PUBLISHED.items() if genotype == self), None)
        blocks = f"{len(self.normal.blocks)} + {len(self.reduction.blocks)} blocks"
        return f"Genotype({name or self.canonical_hash}, {blocks}, {self.style})"

    def _repr_svg_(self) -> str:
        """The picture that a notebook shows."""
        return svg(self)

    @property
    def canonical_hash(self) -> str:
        """A 16-digit hash that is equal for genotypes that compute the same function up to reordering.

        The order of blocks, of the two sides of a block and of concatenated states does not count, nor do blocks
        that no output depends on. For de-duplication only: two genotypes with equal hashes have weights in
        different places unless they are also equal.
        """
        cells = [_canonical_cell(self.normal), _canonical_cell(self.reduction)]
        text = json.dumps(cells if self.style == "slim" else [*cells, self.style])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def to_json(self) -> dict[str, Any]:
        return {"normal": self.normal.to_json(), "reduction": self.reduction.to_json(), "style": self.style}

    @classmethod
    def from_json(cls, value: Any) -> "Genotype":
        """The genotype in a decoded JSON value; its style is "slim" if it names none. Raises GenotypeError."""
        value = _fields(value, "the genotype", required=("normal", "reduction"), optional=("style",))
        normal, reduction = (_cell_from_json(value[name], name) for name in ("normal", "reduction"))
        style: Any = _text(value.get("style", "slim"), "style")  # the constructor checks that it is one of STYLES
        return cls(normal, reduction, style)


PUBLISHED: dict[str, Genotype] = {}  # by name; genotypes.py adds them


@checked
def read_genotype(path: str | Path) -> Genotype:
    """Reads a genotype from a JSON file.

    Args:
        path: the file.

    Returns:
        The genotype; its style is "slim" if the file names none.

    Raises:
        GenotypeError: if the file cannot be read or does not describe a genotype; the error names the file.
    """
    value = read_json(path, "genotype", GenotypeError)
    try:
        return Genotype.from_json(value)
    except GenotypeError as error:
        raise GenotypeError(f"{path}: {error}") from error


def _check_cell(cell: Cell, name: str) -> None:
    _expect(cell, Cell, f"{name} cell")
    _expect(cell.blocks, tuple | list, f"{name} cell, blocks")
    _expect(cell.outputs, tuple | list, f"{name} cell, outputs")
    for number in (cell.inputs, *cell.outputs):
        if type(number) is not int:
            raise GenotypeError(f"{name} cell: inputs and outputs are whole numbers, {_short(number)} is not one")
    if not 1 <= cell.inputs <= MAX_INPUTS:
        raise GenotypeError(f"{name} cell: {cell.inputs} inputs; a cell has 1 to {MAX_INPUTS}")
    if not 1 <= len(cell.blocks) <= MAX_BLOCKS:
        raise GenotypeError(f"{name} cell: {len(cell.blocks)} blocks; a cell has 1 to {MAX_BLOCKS}")
    if cell.output not in OUTPUT_MODES:
        raise GenotypeError(f"{name} cell: unknown output {cell.output!r}; choose one of {', '.join(OUTPUT_MODES)}")
    for index, block in enumerate(cell.blocks):
        where = f"{name} cell, block {index}"
        _expect(block, Block, where)
        if _text(block.combine, f"{where}, combine") not in COMBINES:
            raise GenotypeError(f"{where}: unknown combine {block.combine!r}; choose one of {', '.join(COMBINES)}")
        for side, edge in (("left", block.left), ("right", block.right)):
            _expect(edge, Edge, f"{where}, {side}")
            if _text(edge.op, f"{where}, {side}, op") not in OPS:
                raise GenotypeError(f"{where}, {side}: unknown op {edge.op!r}; choose one of {', '.join(OPS)}")
            if type(edge.state) is not int:
                raise GenotypeError(f"{where}, {side}: a state is a whole number, {_short(edge.state)} is not one")
            if not 0 <= edge.state < cell.inputs + index:
                raise GenotypeError(
                    f"{where}, {side}: reads state {edge.state}, which is not there yet; "
                    f"it can read states 0 to {cell.inputs + index - 1}"
                )
    if not cell.outputs:
        raise GenotypeError(f"{name} cell: no outputs; name at least one state")
    for state in cell.outputs:
        if not 0 <= state < cell.num_states:
            raise GenotypeError(f"{name} cell: output state {state} does not exist; states go to {cell.num_states - 1}")
    if len(set(cell.outputs)) != len(cell.outputs):
        raise GenotypeError(f"{name} cell: an output state is named twice in {list(cell.outputs)}")
    if not cell.live_blocks():
        raise GenotypeError(f"{name} cell: no output depends on any block")
    if cell.output == "separate" and len(cell.outputs) != cell.inputs:
        raise GenotypeError(
            f"{name} cell: {len(cell.outputs)} separate outputs but {cell.inputs} inputs; make them equal, "
            f"because the outputs are the next cell's inputs"
        )
    if cell.output == "concat" and cell.inputs > 2:
        raise GenotypeError(f"{name} cell: {cell.inputs} inputs need separate outputs; a concat cell has 1 or 2")


def _fields(value: Any, where: str, required: tuple[str, ...], optional: tuple[str, ...] = ()) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise GenotypeError(f"{where}: expected an object with {', '.join(required)}, got {_short(value)}")
    missing = [key for key in required if key not in value]
    unknown = [key for key in value if key not in required + optional]
    if missing or unknown:
        problem = f"has no {', '.join(missing)}" if missing else f"has unknown fields {_short(unknown)}"
        raise GenotypeError(f"{where}: {problem}; it takes {', '.join(required + optional)}")
    return value


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _expect(value: Any, kind: Any, where: str) -> None:
    if not isinstance(value, kind):
        raise GenotypeError(f"{where}: expected {described(kind)}, got {_short(value)}")


def _integer(value: Any, where: str) -> int:
    if type(value) is not int:
        raise GenotypeError(f"{where}: expected a whole number, got {_short(value)}")
    return value


def _list(value: Any, where: str, limit: int) -> list[Any]:
    if not isinstance(value, list):
        raise GenotypeError(f"{where}: expected a list, got {_short(value)}")
    if len(value) > limit:
        raise GenotypeError(f"{where}: {len(value)} entries; at most {limit} make sense")
    return value


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise GenotypeError(f"{where}: expected a name, got {_short(value)}")
    return value


def _edge_from_json(value: Any, where: str) -> Edge:
    if not isinstance(value, list) or len(value) != 2:
        raise GenotypeError(f"{where}: expected [state, op], got {_short(value)}")
    return Edge(_integer(value[0], f"{where}, state"), _text(value[1], f"{where}, op"))


def _cell_from_json(value: Any, name: str) -> Cell:
    where = f"{name} cell"
    value = _fields(value, where, required=("blocks", "outputs"), optional=("inputs", "output"))
    blocks = []
    for index, block in enumerate(_list(value["blocks"], f"{where}, blocks", MAX_BLOCKS)):
        here = f"{where}, block {index}"
        block = _fields(block, here, required=("left", "right"), optional=("combine",))
        left, right = (_edge_from_json(block[side], f"{here}, {side}") for side in ("left", "right"))
        blocks.append(Block(left, right, _text(block.get("combine", "add"), f"{here}, combine")))
    outputs = _list(value["outputs"], f"{where}, outputs", MAX_BLOCKS + MAX_INPUTS)
    return Cell(
        tuple(blocks),
        tuple(_integer(state, f"{where}, outputs") for state in outputs),
        _integer(value.get("inputs", 2), f"{where}, inputs"),
        _text(value.get("output", "concat"), f"{where}, output"),
    )


def _canonical_cell(cell: Cell) -> list[Any]:
    """The live blocks in an order that depends only on the graph, with sides and outputs sorted.

    Blocks are placed one at a time, always the smallest by (what it reads in the new numbering, colour). A block's
    colour says how later blocks use it, so that equal blocks with different uses are distinguished. If several blocks
    are still alike, each is tried, up to a limit that no cell of a normal size reaches, and the smallest result counts.
    """
    inputs = cell.inputs
    live = {inputs + index: cell.blocks[index] for index in cell.live_blocks()}
    users: dict[int, list[tuple[int, str, str, str]]] = {state: [] for state in live}
    for user, block in live.items():
        for this, other in ((block.left, block.right), (block.right, block.left)):
            if this.state in users:
                users[this.state].append((user, this.op, block.combine, other.op))
    tries = 500

    def output_key(state: int) -> int:
        if cell.output == "separate":  # the order is the next cell's input order
            return cell.outputs.index(state) if state in cell.outputs else -1
        return int(state in cell.outputs)

    def colours(position: dict[int, int]) -> dict[int, str]:
        found: dict[int, str] = {}
        for state in sorted(users, reverse=True):  # users come after what they read, so theirs are known
            if state in position:
                found[state] = f"placed {position[state]}"
                continue
            block = live[state]
            used = sorted([op, combine, other, found[user]] for user, op, combine, other in users[state])
            reads = sorted([str(position.get(e.state, "?")), e.op] for e in (block.left, block.right))
            text = json.dumps([output_key(state), used, reads])
            found[state] = hashlib.sha256(text.encode()).hexdigest()
        return found

    def smallest(position: dict[int, int], placed: list[Any]) -> list[Any]:
        nonlocal tries
        if len(placed) == len(live):
            outputs = [position[state] for state in cell.outputs]
            return [placed, outputs if cell.output == "separate" else sorted(outputs)]
        colour, keys = colours(position), {}
        for state, block in live.items():
            if state not in position and all(e.state in position for e in (block.left, block.right)):
                reads = sorted([position[e.state], e.op] for e in (block.left, block.right))
                keys[state] = ([block.combine, reads], colour[state])
        least = min(keys.values())
        results = []
        for state in [state for state, key in keys.items() if key == least]:
            results.append(smallest({**position, state: inputs + len(placed)}, [*placed, least[0]]))
            tries -= 1
            if tries <= 0:
                break
        return min(results)

    return [inputs, cell.output, *smallest({state: state for state in range(inputs)}, [])]
