import hashlib
import itertools
import json
import os
import random
import subprocess
import sys
from dataclasses import replace

import pytest

from nasnet_zoo.arch.genotype import MAX_BLOCKS, Block, Cell, Edge, Genotype, read_genotype
from nasnet_zoo.arch.genotypes import GENOTYPES, NASNET_A, NASNET_A_NORMAL
from nasnet_zoo.arch.ops import COMBINES, OPS
from nasnet_zoo.errors import GenotypeError

every_genotype = pytest.mark.parametrize("genotype", GENOTYPES.values(), ids=GENOTYPES)

PLAIN = Cell((Block(Edge(0, "identity"), Edge(1, "conv_1x1")),), (2,))


def cell(*blocks, outputs, **options):
    """A cell from ((state, op), (state, op)[, combine]) tuples."""
    return Cell(tuple(Block(Edge(*b[0]), Edge(*b[1]), *b[2:]) for b in blocks), outputs, **options)


def hash_of(normal, reduction=None):
    return Genotype(normal, reduction or replace(PLAIN, inputs=normal.inputs)).canonical_hash


# JSON


@every_genotype
def test_json_round_trip(genotype):
    text = json.dumps(genotype.to_json())
    again = Genotype.from_json(json.loads(text))
    assert again == genotype
    assert hash(again) == hash(genotype)
    assert json.dumps(again.to_json()) == text


def test_json_round_trip_of_separate_outputs_and_combines():
    block = ((0, "identity"), (1, "conv_1x1"))
    normal = cell(*(block + (name,) for name in COMBINES), outputs=(5, 2), output="separate")
    genotype = Genotype(normal, normal)
    assert Genotype.from_json(json.loads(json.dumps(genotype.to_json()))) == genotype


def test_json_defaults():
    plain = {"blocks": [{"left": [0, "identity"], "right": [1, "conv_1x1"]}], "outputs": [2]}
    assert Genotype.from_json({"normal": plain, "reduction": plain}) == Genotype(PLAIN, PLAIN)


def test_read_genotype(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(NASNET_A.to_json()), encoding="utf-8")
    assert read_genotype(path) == NASNET_A


def test_the_genotype_files_import_no_torch():
    names = (f"nasnet_zoo.arch.{name}" for name in ("genotypes", "kinds", "cost", "draw.cells"))
    code = f"import sys, {', '.join(names)}; sys.exit('torch' in sys.modules)"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", code], env=environment).returncode == 0


# Equality and the canonical hash


def renumbered(old: Cell, rng: random.Random) -> Cell:
    """The same function written otherwise: blocks in another order, sides swapped, outputs shuffled, a dead block."""
    order, place = [], {state: state for state in range(old.inputs)}
    while len(order) < len(old.blocks):
        ready = [
            i
            for i, b in enumerate(old.blocks)
            if i + old.inputs not in place and b.left.state in place and b.right.state in place
        ]
        index = rng.choice(ready)
        place[index + old.inputs] = old.inputs + len(order)
        order.append(index)
    blocks = []
    for index in order:
        sides = [Edge(place[e.state], e.op) for e in old.blocks[index][:2]]
        rng.shuffle(sides)
        blocks.append(Block(*sides, old.blocks[index].combine))
    blocks.append(Block(Edge(old.inputs, "zero"), Edge(0, "conv_3x3")))  # nobody reads it
    outputs = [place[state] for state in old.outputs]
    if old.output == "concat":
        rng.shuffle(outputs)
    return replace(old, blocks=tuple(blocks), outputs=tuple(outputs))


@every_genotype
def test_hash_ignores_order_and_dead_blocks(genotype):
    rng = random.Random(1)
    for _ in range(20):
        other = Genotype(renumbered(genotype.normal, rng), renumbered(genotype.reduction, rng), genotype.style)
        assert other != genotype
        assert other.canonical_hash == genotype.canonical_hash


def test_hashes_of_the_published_cells_differ():
    assert len({genotype.canonical_hash for genotype in GENOTYPES.values()}) == len(GENOTYPES)


@every_genotype
def test_hash_notices_every_single_change(genotype):
    seen = {genotype.canonical_hash}
    normal = genotype.normal
    changed = []
    for index in sorted(normal.live_blocks()):
        block = normal.blocks[index]
        op = "conv_3x3_dilated"  # in none of them
        for new in (block._replace(left=Edge(block.left.state, op)), block._replace(combine="concat")):
            changed.append(replace(normal, blocks=normal.blocks[:index] + (new,) + normal.blocks[index + 1 :]))
    changed += [replace(normal, outputs=normal.outputs[:-1])] if len(normal.outputs) > 1 else []
    seen |= {Genotype(other, genotype.reduction).canonical_hash for other in changed}
    # Where two blocks are alike, changing one or the other is the same function.
    forms = {brute_force_form(normal)} | {brute_force_form(other) for other in changed}
    assert len(seen) == len(forms) > len(normal.live_blocks())


def test_hash_tells_normal_from_reduction():
    a, b = NASNET_A.normal, replace(NASNET_A.normal, outputs=(2, 3, 4, 5, 6))
    assert Genotype(a, b).canonical_hash != Genotype(b, a).canonical_hash


def test_hash_is_stable():
    """The hash is written into journals and file names, so it must not change from one version to the next."""
    assert len(NASNET_A.canonical_hash) == 16
    assert NASNET_A.canonical_hash == "47de2a1b4a4645bb"


def test_shared_and_duplicated_blocks_differ():
    twin, user = ((0, "conv_3x3"), (1, "conv_3x3")), "identity"
    shared = cell(twin, ((2, user), (2, user)), outputs=(3,))
    duplicated = cell(twin, twin, ((2, user), (3, user)), outputs=(4,))
    assert hash_of(shared) != hash_of(duplicated)


def test_blocks_that_only_the_whole_graph_tells_apart():
    """Five equal blocks read in pairs: a ring of two and a ring of three, written in either order."""
    twin = ((0, "conv_1x1"), (1, "conv_1x1"))

    def rings(*pairs):
        return cell(*[twin] * 5, *(((a, "identity"), (b, "identity")) for a, b in pairs), outputs=(7, 8, 9, 10, 11))

    two_then_three = rings((2, 3), (2, 3), (4, 5), (5, 6), (6, 4))
    three_then_two = rings((2, 3), (3, 4), (4, 2), (5, 6), (5, 6))
    ring_of_five = rings((2, 3), (3, 4), (4, 5), (5, 6), (6, 2))
    assert hash_of(two_then_three) == hash_of(three_then_two) != hash_of(ring_of_five)


def test_alike_blocks_with_different_uses():
    """Two equal blocks, one of which goes on to be read: it must not matter which of the two is written first."""
    twin, user = ((0, "conv_3x3"), (1, "conv_3x3")), "conv_1x1"
    first = cell(twin, twin, ((2, user), (0, user)), outputs=(3, 4))
    second = cell(twin, twin, ((3, user), (0, user)), outputs=(2, 4))
    read_and_out = cell(twin, twin, ((2, user), (0, user)), outputs=(2, 3, 4))
    assert hash_of(first) == hash_of(second) != hash_of(read_and_out)


def test_alike_blocks_whose_uses_differ_only_further_on():
    """The readers of two equal blocks look alike as well; only what becomes of the readers tells them apart."""
    twin, user = ((0, "conv_3x3"), (1, "conv_3x3")), "conv_1x1"

    def chain(long, short):
        return cell(
            twin, twin, ((long, user), (0, user)), ((short, user), (0, user)), ((4, user), (4, user)), outputs=(5, 6)
        )

    assert hash_of(chain(2, 3)) == hash_of(chain(3, 2)) != hash_of(chain(2, 2))


def test_order_of_separate_outputs_counts():
    blocks = ((0, "conv_3x3"), (1, "identity")), ((0, "identity"), (1, "identity"))
    a, b = (cell(*blocks, outputs=outputs, output="separate") for outputs in ((2, 3), (3, 2)))
    assert Genotype(a, a).canonical_hash != Genotype(b, b).canonical_hash


def brute_force_form(c: Cell):
    """The smallest way to write down the live blocks, over every numbering of them."""
    live = sorted(c.live_blocks())
    forms = []
    for order in itertools.permutations(range(len(live))):
        place = {state: state for state in range(c.inputs)}
        place |= {c.inputs + index: c.inputs + new for index, new in zip(live, order, strict=True)}
        blocks = {
            place[c.inputs + i]: (c.blocks[i].combine, sorted((place[e.state], e.op) for e in c.blocks[i][:2]))
            for i in live
        }
        outputs = [place[state] for state in c.outputs]
        forms.append((sorted(blocks.items()), outputs if c.output == "separate" else sorted(outputs)))
    return repr((c.inputs, c.output, min(forms)))


def small_cells(num_blocks, ops, output):
    edges = [[Edge(state, op) for state in range(2 + i) for op in ops] for i in range(num_blocks)]
    pairs = [[Block(*pair) for pair in itertools.product(e, e)] for e in edges]
    states = range(2 + num_blocks)
    if output == "separate":
        chosen = list(itertools.permutations(states, 2))
    else:
        chosen = [o for n in (1, 2, 3) for o in itertools.combinations(states, n)]
    for blocks in itertools.product(*pairs):
        for outputs in chosen:
            if max(outputs) >= 2:
                yield Cell(blocks, outputs, output=output)


@pytest.mark.parametrize("num_blocks, ops", [(2, ("conv_1x1", "identity")), (3, ("conv_1x1",))])
@pytest.mark.parametrize("output", ["concat", "separate"])
def test_hash_classes_are_isomorphism_classes(num_blocks, ops, output):
    partner = replace(PLAIN, output=output, outputs=(2,) if output == "concat" else (2, 0))
    classes = {(hash_of(c, partner), brute_force_form(c)) for c in small_cells(num_blocks, ops, output)}
    hashes, forms = zip(*classes, strict=True)
    assert len(classes) == len(set(hashes)) == len(set(forms)) > 100


def test_hash_classes_of_larger_random_cells():
    """Five blocks with one op and few inputs, where many cells are nearly alike."""
    rng = random.Random(2)
    cells = []
    for _ in range(60):
        blocks = [Block(*(Edge(rng.choice([0, rng.randrange(2 + i)]), "identity") for _ in range(2))) for i in range(5)]
        outputs = Cell(tuple(blocks), (6,)).loose_ends()
        base = Cell(tuple(blocks), outputs)
        cells += [base, renumbered(base, rng)]
    classes = {(hash_of(c), brute_force_form(c)) for c in cells}
    assert len(classes) == len({h for h, _ in classes}) == len({f for _, f in classes}) > 20


def alike(chains: int) -> Cell:
    """As many blocks as are allowed, in equal chains side by side: every chain could be numbered first."""
    below = [0] * chains + [*range(2, 2 + MAX_BLOCKS - chains)]
    blocks = [Block(Edge(state, "identity"), Edge(0, "identity")) for state in below]
    return Cell(tuple(blocks), tuple(range(2 + MAX_BLOCKS - chains, 2 + MAX_BLOCKS)))


def ring() -> Cell:
    """Equal blocks, each read by two neighbours in a ring: none differs from the others."""
    half = MAX_BLOCKS // 2
    leaves = [Block(Edge(0, "identity"), Edge(0, "identity"))] * half
    joins = [Block(Edge(2 + i, "identity"), Edge(2 + (i + 1) % half, "identity")) for i in range(half)]
    return Cell((*leaves, *joins), tuple(range(2 + half, 2 + 2 * half)))


@pytest.mark.parametrize("cell", [*map(alike, (2, 4, 8, 16, 32, MAX_BLOCKS)), ring()])
def test_the_hash_of_blocks_that_are_all_alike_takes_a_limited_number_of_steps(cell, monkeypatch):
    steps = []
    monkeypatch.setattr(hashlib, "sha256", lambda text, real=hashlib.sha256: steps.append(text) or real(text))
    assert len(hash_of(cell)) == 16
    assert len(steps) < 600 * MAX_BLOCKS  # less than a second; there are up to 64! orders


# What is refused


def broken(change):
    """NASNet-A's JSON with `change` applied to it."""
    value = json.loads(json.dumps(NASNET_A.to_json()))
    change(value)
    return value


def put(*path, to):
    def change(value):
        for key in path[:-1]:
            value = value[key]
        value[path[-1]] = to

    return change


def drop(*path):
    def change(value):
        for key in path[:-1]:
            value = value[key]
        del value[path[-1]]

    return change


LEFT = ("normal", "blocks", 2, "left")
REFUSED = {
    "unknown op": (put(*LEFT, to=[0, "conv_9x9"]), ["normal cell, block 2, left", "conv_9x9", "conv_3x3"]),
    "unknown op on the right": (put("reduction", "blocks", 0, "right", 1, to=""), ["reduction cell, block 0, right"]),
    "unknown combine": (put("normal", "blocks", 1, "combine", to="mul"), ["normal cell, block 1", "mul", "add"]),
    "forward reference": (put(*LEFT, to=[5, "identity"]), ["normal cell, block 2, left", "state 5", "0 to 3"]),
    "reads itself": (put(*LEFT, to=[4, "identity"]), ["normal cell, block 2, left", "state 4"]),
    "negative state": (put(*LEFT, to=[-1, "identity"]), ["normal cell, block 2, left", "-1"]),
    "huge state": (put(*LEFT, to=[10**30, "identity"]), ["normal cell, block 2, left"]),
    "bool state": (put(*LEFT, to=[True, "identity"]), ["normal cell, block 2, left", "True"]),
    "float state": (put(*LEFT, to=[1.0, "identity"]), ["normal cell, block 2, left", "1.0"]),
    "text state": (put(*LEFT, to=["1", "identity"]), ["normal cell, block 2, left", "'1'"]),
    "null state": (put(*LEFT, to=[None, "identity"]), ["normal cell, block 2, left", "None"]),
    "op is a number": (put(*LEFT, to=[1, 3]), ["normal cell, block 2, left", "3"]),
    "op is a list": (put(*LEFT, to=[1, ["identity"]]), ["normal cell, block 2, left"]),
    "edge of three": (put(*LEFT, to=[1, "identity", 1]), ["normal cell, block 2, left", "[state, op]"]),
    "edge is an object": (put(*LEFT, to={"state": 1}), ["normal cell, block 2, left"]),
    "edge is text": (put(*LEFT, to="01"), ["normal cell, block 2, left"]),
    "combine is null": (put("normal", "blocks", 1, "combine", to=None), ["normal cell, block 1", "combine"]),
    "combine is a list": (put("normal", "blocks", 1, "combine", to=["add"]), ["normal cell, block 1", "combine"]),
    "block is a list": (put("normal", "blocks", 3, to=[1, 2]), ["normal cell, block 3"]),
    "missing side": (drop("normal", "blocks", 3, "right"), ["normal cell, block 3", "no right"]),
    "unknown block field": (put("normal", "blocks", 3, "op", to=1), ["normal cell, block 3", "unknown", "op"]),
    "missing cell": (drop("reduction"), ["no reduction"]),
    "missing blocks": (drop("normal", "blocks"), ["normal cell", "no blocks"]),
    "missing outputs": (drop("normal", "outputs"), ["normal cell", "no outputs"]),
    "unknown field": (put("name", to="x"), ["unknown", "name"]),
    "unknown cell field": (put("normal", "concat", to=[2]), ["normal cell", "unknown", "concat"]),
    "no blocks": (put("normal", "blocks", to=[]), ["normal cell", "0 blocks"]),
    "blocks is an object": (put("normal", "blocks", to={}), ["normal cell, blocks"]),
    "blocks is null": (put("normal", "blocks", to=None), ["normal cell, blocks"]),
    "no outputs": (put("normal", "outputs", to=[]), ["normal cell", "no outputs"]),
    "output out of range": (put("normal", "outputs", to=[2, 7]), ["normal cell", "state 7"]),
    "negative output": (put("normal", "outputs", to=[-1]), ["normal cell", "state -1"]),
    "output twice": (put("normal", "outputs", to=[2, 3, 2]), ["normal cell", "twice"]),
    "bool output": (put("normal", "outputs", to=[True]), ["normal cell, outputs", "True"]),
    "output is a number": (put("normal", "outputs", to=3), ["normal cell, outputs"]),
    "only inputs leave": (put("normal", "outputs", to=[0, 1]), ["normal cell", "any block"]),
    "unknown output mode": (put("normal", "output", to="sum"), ["normal cell", "sum", "concat"]),
    "no inputs": (put("normal", "inputs", to=0), ["normal cell", "0 inputs"]),
    "too many inputs": (put("normal", "inputs", to=10**9), ["normal cell", "inputs"]),
    "concat of four inputs": (put("normal", "inputs", to=4), ["normal cell", "4 inputs"]),
    "bool inputs": (put("normal", "inputs", to=True), ["normal cell, inputs"]),
    "separate outputs of another number": (put("normal", "output", to="separate"), ["normal cell", "6 separate"]),
    "cells that do not stack": (put("normal", "inputs", to=1), ["normal cell"]),
}


@pytest.mark.parametrize("change, words", REFUSED.values(), ids=REFUSED)
def test_refused(change, words):
    with pytest.raises(GenotypeError) as error:
        Genotype.from_json(broken(change))
    for word in words:
        assert word in str(error.value)
    assert len(str(error.value)) < 600


@pytest.mark.parametrize("value", [None, [], "normal", 3, True, {}])
def test_something_that_is_no_genotype(value):
    with pytest.raises(GenotypeError, match="the genotype"):
        Genotype.from_json(value)


def test_cells_of_different_inputs_do_not_stack():
    one = cell(((0, "identity"), (0, "conv_1x1")), outputs=(1,), inputs=1)
    Genotype(one, one)
    with pytest.raises(GenotypeError, match="1 inputs .* reduction cell 2"):
        Genotype(one, PLAIN)


@pytest.mark.parametrize("state", [True, 0.5, "0", None])
def test_states_are_whole_numbers_without_json_too(state):
    with pytest.raises(GenotypeError, match="normal cell, block 0, left"):
        Genotype(cell(((state, "identity"), (1, "conv_1x1")), outputs=(2,)), PLAIN)


GOOD = Block(Edge(0, "identity"), Edge(1, "identity"))
NOT_DATA = [
    (5, "normal cell: expected a Cell, got 5"),
    (Cell(5, (2,)), "normal cell, blocks: expected a tuple or a list, got 5"),
    (Cell((GOOD,), 2), "normal cell, outputs: expected a tuple or a list, got 2"),
    (Cell((GOOD, 5), (2,)), "normal cell, block 1: expected a Block, got 5"),
    (Cell((Block(1, 2),), (2,)), "normal cell, block 0, left: expected an Edge, got 1"),
    (Cell((Block(GOOD.left, (1, "identity")),), (2,)), "normal cell, block 0, right: expected an Edge, got"),
    (Cell((GOOD._replace(left=Edge("a", 5)),), (2,)), "normal cell, block 0, left, op: expected a name, got 5"),
    (Cell((GOOD._replace(left=Edge(0, ["identity"])),), (2,)), "normal cell, block 0, left, op: expected a name, got"),
    (Cell((GOOD._replace(combine={}),), (2,)), "normal cell, block 0, combine: expected a name, got {}"),
]


@pytest.mark.parametrize(("wrong", "said"), NOT_DATA)
def test_cells_of_other_things_are_told_what_and_where(wrong, said):
    with pytest.raises(GenotypeError, match=said):
        Genotype(wrong, PLAIN)
    with pytest.raises(GenotypeError, match=said.replace("normal", "reduction")):
        Genotype(PLAIN, wrong)


def test_a_list_of_very_many_blocks_is_refused_at_once():
    block = {"left": [0, "identity"], "right": [0, "identity"]}
    with pytest.raises(GenotypeError, match="1000000 entries"):
        Genotype.from_json(broken(put("normal", "blocks", to=[block] * 10**6)))
    with pytest.raises(GenotypeError, match="1000000 entries"):
        Genotype.from_json(broken(put("normal", "outputs", to=[0] * 10**6)))


def test_as_many_blocks_as_are_allowed():
    block = Block(Edge(0, "identity"), Edge(1, "identity"))
    most = Cell((block,) * MAX_BLOCKS, (2,))
    assert len(Genotype(most, most).canonical_hash) == 16
    with pytest.raises(GenotypeError, match=f"{MAX_BLOCKS + 1} blocks"):
        Genotype(Cell((block,) * (MAX_BLOCKS + 1), (2,)), most)


BAD_FILES = {
    "deep nesting": b"[" * 200_000 + b"]" * 200_000,
    "deep objects": b'{"normal":' * 50_000 + b"1" + b"}" * 50_000,
    "truncated": json.dumps(NASNET_A.to_json()).encode()[:-20],
    "empty": b"",
    "not utf-8": b'{"normal": "\xff"}',
    "long number": b'{"normal": ' + b"9" * 10_000 + b"}",
    "larger than any genotype": b" " * (1 << 20) + b"{}",
    "nan": b'{"normal": NaN, "reduction": NaN}',
    "another thing": b'{"weights": []}',
}


@pytest.mark.parametrize("content", BAD_FILES.values(), ids=BAD_FILES)
def test_bad_files(tmp_path, content):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(GenotypeError, match="a.json") as error:
        read_genotype(path)
    assert len(str(error.value)) < 500


def test_a_file_of_a_billion_blocks_is_not_read(tmp_path):
    path = tmp_path / "a.json"
    with open(path, "wb") as file:
        file.truncate(60 * 10**9)  # sparse: takes no room
    with pytest.raises(GenotypeError, match="larger than"):
        read_genotype(path)


def test_missing_file(tmp_path):
    for path in (tmp_path / "a.json", tmp_path):
        with pytest.raises(GenotypeError, match="cannot read"):
            read_genotype(path)


@pytest.mark.parametrize("op", OPS)
def test_every_op_is_valid(op):
    c = cell(((0, op), (1, op)), outputs=(2,))
    assert Genotype.from_json(Genotype(c, c).to_json()).normal.blocks[0].left.op == op


@pytest.mark.parametrize("combine", COMBINES)
def test_every_combine_is_valid(combine):
    c = cell(((0, "identity"), (1, "identity"), combine), outputs=(2,))
    assert Genotype.from_json(Genotype(c, c).to_json()).normal.blocks[0].combine == combine


def test_loose_ends_and_live_blocks():
    assert NASNET_A_NORMAL.loose_ends() == (2, 3, 4, 5, 6)
    assert NASNET_A.reduction.loose_ends() == (4, 5, 6)  # the cell hands on state 3 as well
    chain = cell(((0, "identity"), (0, "identity")), ((2, "identity"), (1, "identity")), outputs=(2,))
    assert chain.loose_ends() == (3,)
    assert chain.live_blocks() == {0}


# The published cells, against the lists of the code they come from

TF_OPS = {
    "none": "identity",
    "1x1": "conv_1x1",
    "3x3": "bottleneck_3x3",
    "1x7_7x1": "bottleneck_1x7_7x1",
    "dil_2_separable_5x5_2": "dil_sep_conv_5x5",
    **{f"separable_{k}x{k}_2": f"sep_conv_{k}x{k}" for k in (3, 5, 7)},
}
DARTS_OPS = {"skip_connect": "identity"}
DARTS_NAMES = {"DARTS-V1": "DARTS_V1", "DARTS-V2": "DARTS_V2", "P-DARTS": "PDARTS"}
DARTS_NAMES |= {"PC-DARTS-CIFAR10": "PCDARTS_C10", "PC-DARTS-ImageNet": "PCDARTS_IN1K", "ENAS-micro": "ENAS_micro"}


@pytest.fixture(scope="module")
def facts(shared):
    return json.loads((shared / "facts" / "genotypes.json").read_text())


@pytest.mark.parametrize("name", [n for n in GENOTYPES if n.split("-")[0] in ("NASNet", "PNASNet", "AmoebaNet")])
def test_cells_of_the_tf_form(facts, name):
    for role in ("normal", "reduction"):
        published = facts["tf_form"]["cells"][name][role]
        if role == "reduction" and isinstance(published, str):
            published = facts["tf_form"]["cells"][name]["normal"]
        ops = [TF_OPS.get(op, op) for op in published["operations"]]
        edges = [Edge(*pair) for pair in zip(published["indices"], ops, strict=True)]
        ours = getattr(GENOTYPES[name], role)
        assert [edge for block in ours.blocks for edge in block[:2]] == edges
        assert ours.outputs == tuple(state for state, used in enumerate(published["used"]) if not used)
        assert {block.combine for block in ours.blocks} == {"add"}


@pytest.mark.parametrize("name", DARTS_NAMES)
def test_cells_of_the_darts_form(facts, name):
    published = facts["darts_form"]["cells"][DARTS_NAMES[name]]
    for role, theirs in (("normal", "normal"), ("reduction", "reduce")):
        edges = [Edge({0: 1, 1: 0}.get(state, state), DARTS_OPS.get(op, op)) for op, state in published[theirs]]
        ours = getattr(GENOTYPES[name], role)
        assert [edge for block in ours.blocks for edge in block[:2]] == edges
        if f"{theirs}_concat" in published:
            assert ours.outputs == tuple(published[f"{theirs}_concat"])


ENAS_ARCS = {
    "normal": "0 2 0 0 0 4 0 1 0 4 1 1 1 0 0 1 0 2 1 1",
    "reduction": "1 0 1 0 0 3 0 2 1 1 3 1 1 0 0 4 0 3 1 1",
}
ENAS_OPS = ("sep_conv_3x3", "sep_conv_5x5", "avg_pool_3x3", "max_pool_3x3", "identity")


@pytest.mark.parametrize("role", ENAS_ARCS)
def test_cells_of_enas(role):
    numbers = [int(number) for number in ENAS_ARCS[role].split()]
    edges = [Edge({0: 1, 1: 0}.get(s, s), ENAS_OPS[op]) for s, op in zip(numbers[::2], numbers[1::2], strict=True)]
    ours = getattr(GENOTYPES["ENAS-micro"], role)
    assert [edge for block in ours.blocks for edge in block[:2]] == edges
    assert ours.outputs == tuple(state for state in ours.loose_ends() if state >= 2)
