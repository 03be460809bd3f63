"""Every space: what it holds, that decisions and architectures translate both ways, that its cells build and run."""

import random
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from math import prod

import pytest
import torch
from growing_space import GrowingSpace, MixedSpace, every_sequence

import nasnet_zoo
from nasnet_zoo.arch.cells import CellScale
from nasnet_zoo.arch.config import NetworkConfig
from nasnet_zoo.arch.genotype import Block, Cell, Edge, Genotype
from nasnet_zoo.arch.genotypes import GENOTYPES
from nasnet_zoo.arch.ops import COMBINES
from nasnet_zoo.arch.preprocess import CIFAR10
from nasnet_zoo.errors import ConfigError
from nasnet_zoo.search import SPACES, SpaceSettings, get_space
from nasnet_zoo.search.spaces.base import Choice, Subset
from nasnet_zoo.search.spaces.cells import CellSpace

CELL_SPACES = [name for name in SPACES if get_space(name).kind == "cell"]


def over(*spaces) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("space", spaces, ids=lambda space: space.name)


SPACE_OF_THE_TABLE = over(*map(get_space, SPACES))
FIXED_SPACE = over(*map(get_space, SPACES), MixedSpace())
ANY_SPACE = over(*map(get_space, SPACES), MixedSpace(), GrowingSpace())
CELL_SPACE = over(*map(get_space, CELL_SPACES))


def samples(space, n: int, seed: int = 0) -> list[tuple[int, ...]]:
    """As many of one stage of the space as of another."""
    rng = random.Random(seed)
    return [space.sample(rng, place % space.stages) for place in range(n)]


def cells(genotype: Genotype) -> tuple[Cell, Cell]:
    return genotype.normal, genotype.reduction


# Decisions, sequences per cell, states that leave it, and lineage: the NASNet paper's grammar, and the table of NAS
# spaces of Radosavovic et al. 2019.
CELL_SPACE_FACTS = [
    ("nasnet", 50, prod((b + 1) ** 2 * 13**2 * 2 for b in range(1, 6)), "unread-blocks", "slim"),
    ("nasnet-b", 40, prod((b + 3) ** 2 * 13**2 * 4 for b in range(1, 5)), "separate", "slim"),
    ("nasnet-c", 50, prod((b + 1) ** 2 * 13**2 * 4 for b in range(1, 6)), "unread-blocks", "slim"),
    ("nds-nasnet", 40, pytest.approx(71_465_842e9, rel=1e-7), "unread-blocks", "nds"),
    ("nds-amoeba", 40, pytest.approx(556_628e9, rel=1e-6), "unread-blocks", "nds"),
    ("nds-pnas", 40, pytest.approx(556_628e9, rel=1e-6), "blocks", "nds"),
    ("nds-enas", 40, 5_062_500_000_000, "unread-blocks", "nds"),
    ("nds-darts", 32, pytest.approx(242e9, rel=2e-3), "blocks", "nds"),
]


@pytest.mark.parametrize(("name", "decisions", "cell_size", "outputs", "style"), CELL_SPACE_FACTS)
def test_facts_of_the_spaces_of_cells(name, decisions, cell_size, outputs, style):
    space = get_space(name)
    assert (len(space.decisions), space.outputs, space.style) == (decisions, outputs, style)
    assert space.cell_size == cell_size
    assert space.size == space.cell_size**2


def test_sizes_that_papers_state():
    assert get_space("nasnet").size == pytest.approx(5.2e36, rel=0.01)
    assert get_space("nasbench201").size == 15_625
    assert len(get_space("nasbench201").decisions) == 6


def test_the_space_of_recipes_is_the_product_of_its_values():
    space = get_space("recipes", grid=("learning_rate=0.1,0.2,0.4", "schedule=step,cosine"))
    assert space.size == 6 and [decision.name for decision in space.decisions] == ["learning_rate", "schedule"]
    assert space.decode((2, 1)) == {"learning_rate": 0.4, "schedule": "cosine"}
    assert get_space("recipes", grid=("sizes=[],[[0,16],[3,32]]",)).decode((1,)) == {"sizes": [[0, 16], [3, 32]]}
    with pytest.raises(ConfigError, match="learning_rate 0.3 is none of 0.1, 0.2, 0.4"):
        space.encode({"learning_rate": 0.3, "schedule": "step"})


def test_the_facts_of_every_space_are_checked():
    assert {name for name, *_ in CELL_SPACE_FACTS} == set(CELL_SPACES) == set(SPACES) - {"nasbench201", "recipes"}


@ANY_SPACE
def test_next_yields_the_decisions_one_by_one(space):
    for stage, tokens in enumerate(samples(space, space.stages)):
        decisions = []
        for length in range(len(tokens)):
            decision = space.next(tokens[:length], stage)
            assert 0 <= tokens[length] < decision.outcomes
            decisions.append(decision)
        assert space.next(tokens, stage) is None
        assert space.along(tokens, stage) == tuple(decisions)
        assert len({decision.name for decision in decisions}) == len(decisions)


@ANY_SPACE
def test_samples_decode_and_encode_to_themselves(space):
    for tokens in samples(space, 200):
        assert space.encode(space.decode(tokens)) == tokens == space.check(tokens)


@FIXED_SPACE
def test_sampling_is_uniform_for_every_decision_and_reproducible(space):
    n = 2000
    drawn = samples(space, n)
    assert drawn == samples(space, n) != samples(space, n, seed=1)
    for place, decision in enumerate(space.decisions):
        counts = Counter(tokens[place] for tokens in drawn)
        expected = n / decision.outcomes
        chi_square = sum((counts[choice] - expected) ** 2 / expected for choice in range(decision.outcomes))
        freedom = decision.outcomes - 1
        assert chi_square < freedom + 5 * (2 * freedom) ** 0.5 + 5, decision.name  # five sigma and a tail's length


@CELL_SPACE
def test_samples_are_of_the_space_and_hand_on_what_its_rule_says(space):
    for tokens in samples(space, 100):
        for cell in cells(space.decode(tokens)):
            assert (len(cell.blocks), cell.inputs) == (space.blocks, space.inputs)
            assert {edge.op for block in cell.blocks for edge in (block.left, block.right)} <= set(space.ops)
            assert {block.combine for block in cell.blocks} <= set(space.combines)
            read = {edge.state for block in cell.blocks for edge in (block.left, block.right)}
            inputs, made = range(space.inputs), range(space.inputs, space.inputs + space.blocks)
            expected = {
                "unread": [state for state in (*inputs, *made) if state not in read],
                "unread-blocks": [state for state in made if state not in read],
                "blocks": list(made),
                "separate": list(made)[-space.inputs :],
            }
            assert list(cell.outputs) == expected[space.outputs]
            assert cell.output == ("separate" if space.outputs == "separate" else "concat")


def test_the_rules_of_loose_ends_differ_where_they_should():
    tokens = (0, 0, 0, 0) * 4  # two blocks a cell, all of which read state 0
    outputs = {
        rule: CellSpace("test", ("identity",), 2, outputs=rule).decode(tokens).normal.outputs
        for rule in ("unread", "unread-blocks", "blocks", "separate")
    }
    assert outputs == {"unread": (1, 2, 3), "unread-blocks": (2, 3), "blocks": (2, 3), "separate": (2, 3)}
    chained = (0, 0, 0, 0, 2, 0, 0, 0) * 2  # the second block reads the first
    assert CellSpace("test", ("identity",), 2, outputs="unread-blocks").decode(chained).normal.outputs == (3,)
    assert CellSpace("test", ("identity",), 2, outputs="blocks").decode(chained).normal.outputs == (2, 3)


@pytest.mark.parametrize(
    ("name", "genotype"),
    [
        ("nds-darts", "DARTS-V1"),
        ("nds-darts", "DARTS-V2"),
        ("nds-darts", "P-DARTS"),
        ("nds-darts", "PC-DARTS-CIFAR10"),
        ("nds-darts", "PC-DARTS-ImageNet"),
        ("nds-pnas", "PNASNet-5"),
        ("nds-enas", "ENAS-micro"),
    ],
)
def test_published_cells_that_are_in_a_space(name, genotype):
    space, published = get_space(name), replace(GENOTYPES[genotype], style="nds")
    tokens = space.encode(published)
    assert space.decode(tokens) == published
    assert space.check(tokens) == tokens
    with pytest.raises(ConfigError, match="the genotype is of the style slim, and cells of the space"):
        space.encode(replace(published, style="slim"))


def test_the_published_nasnet_a_is_projected_into_the_papers_space():
    """The paper concatenates the unused states that a cell generated; its published cells hand on others too."""
    space, published = get_space("nasnet"), GENOTYPES["NASNet-A"]
    with pytest.raises(ConfigError, match="the normal cell hands on states"):
        space.encode(published)
    tokens, notes = space.project(published)
    projected = space.decode(tokens)
    assert [cell.blocks for cell in cells(projected)] == [cell.blocks for cell in cells(published)]
    assert [cell.outputs for cell in cells(projected)] == [(2, 3, 4, 5, 6), (4, 5, 6)]  # as in DARTS, pycls and NDS
    assert notes == (
        "the normal cell hands on states [1, 2, 3, 4, 5, 6], but by the rule of the space nasnet (unread-blocks) a "
        "cell with these blocks hands on [2, 3, 4, 5, 6]",
        "the reduction cell hands on states [3, 4, 5, 6], but by the rule of the space nasnet (unread-blocks) a cell "
        "with these blocks hands on [4, 5, 6]",
    )
    assert space.project(projected) == (tokens, ())
    with pytest.raises(ConfigError, match="bottleneck_1x7_7x1 is not in the space"):
        space.project(GENOTYPES["AmoebaNet-D"])


@ANY_SPACE
def test_what_is_in_the_space_is_its_own_projection(space):
    for tokens in samples(space, 5):
        assert space.project(space.decode(tokens)) == (space.encode(space.decode(tokens)), ())


@FIXED_SPACE
def test_wrong_tokens_are_refused(space):
    tokens = samples(space, 1)[0]
    for wrong in (tokens[:-1], (*tokens, 0), ()):
        with pytest.raises(ConfigError, match=f"{space.name}: {len(wrong)} tokens; this space takes {len(tokens)}"):
            space.decode(wrong)
    for place, decision in enumerate(space.decisions):
        for value in (decision.outcomes, -1, "0", 0.0, True, None):
            with pytest.raises(ConfigError) as told:
                space.decode((*tokens[:place], value, *tokens[place + 1 :]))
            limit = decision.outcomes - 1
            assert str(told.value) == f"{space.name}: {decision.name} is {value!r}, not one of 0 to {limit}"


@pytest.mark.parametrize(
    ("name", "genotype", "message"),
    [
        ("nds-darts", "PNASNet-5", "the normal cell has 5 blocks and 2 inputs; cells of the space nds-darts have 4"),
        ("nasnet-b", "DARTS-V2", "the normal cell has 4 blocks and 2 inputs; cells of .* nasnet-b have 4 and 4"),
        ("nasnet", "AmoebaNet-D", "normal cell, block 1: bottleneck_1x7_7x1 is not in the space nasnet, which has id"),
        (
            "nasnet",
            "PNASNet-5",
            r"hands on states \[2, 3, 4, 5, 6\], but by the rule .* \(unread-blocks\) .* \[2, 3, 5, 6\]",
        ),
    ],
)
def test_genotypes_that_do_not_fit_the_space_are_refused(name, genotype, message):
    with pytest.raises(ConfigError, match=message):
        get_space(name).encode(GENOTYPES[genotype])


def test_a_combination_that_is_not_in_the_space_is_refused():
    adds, concatenates = get_space("nasnet", combines=("add",)), get_space("nasnet", combines=("concat",))
    tokens = samples(adds, 1)[0]
    mixed = Genotype(adds.decode(tokens).normal, concatenates.decode(tokens).reduction)
    with pytest.raises(ConfigError, match="reduction cell, block 0: concat is not in the space nasnet, which has add"):
        adds.encode(mixed)


def test_the_order_of_concatenated_states_does_not_matter_but_that_of_separate_ones_does():
    darts, separate = get_space("nds-darts"), get_space("nasnet-b")

    def turned(cell: Cell) -> Cell:
        return Cell(cell.blocks, cell.outputs[::-1], cell.inputs, cell.output)

    tokens = samples(darts, 1)[0]
    assert darts.encode(Genotype(*map(turned, cells(darts.decode(tokens))), "nds")) == tokens
    genotype = separate.decode(samples(separate, 1)[0])
    with pytest.raises(ConfigError, match="the normal cell hands on states"):
        separate.encode(Genotype(*map(turned, cells(genotype))))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "|none~0|",
        "|none~0|+|none~0|none~1|",
        "|conv~0|+|none~0|none~1|+|none~0|none~1|none~2|",
        "|none~1|+|none~0|none~1|+|none~0|none~1|none~2|",
        "none~0|+|none~0|none~1|+|none~0|none~1|none~2|",
    ],
)
def test_texts_that_are_no_cells_of_nasbench201(text):
    with pytest.raises(ConfigError, match="space nasbench201"):
        get_space("nasbench201").encode(text)


def test_nasbench201_writes_cells_as_the_benchmark_does():
    space = get_space("nasbench201")
    assert space.decode((3, 0, 1, 2, 4, 3)) == (
        "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|nor_conv_1x1~0|avg_pool_3x3~1|nor_conv_3x3~2|"
    )


@CELL_SPACE
def test_swapped_sides_of_a_block_are_another_sequence_and_the_same_function(space):
    each = len(space.decisions) // 2 // space.blocks
    for tokens in samples(space, 20):
        left, right, left_op, right_op = tokens[:4]
        swapped = (right, left, right_op, left_op, *tokens[4:])
        assert space.hash(space.decode(swapped)) == space.hash(space.decode(tokens))
        assert (space.decode(swapped) == space.decode(tokens)) == (swapped == tokens)
        last = len(tokens) - each + 2  # the op of a block that nothing reads but the output
        other = (*tokens[:last], (tokens[last] + 1) % len(space.ops), *tokens[last + 1 :])
        assert space.hash(space.decode(other)) != space.hash(space.decode(tokens))


def test_hashes_of_nasbench201_tell_all_its_cells_apart():
    space = get_space("nasbench201")
    tokens = set(samples(space, 500))
    assert len({space.hash(space.decode(each)) for each in tokens}) == len(tokens)


@SPACE_OF_THE_TABLE
def test_architectures_have_json(space):
    architecture = space.decode(samples(space, 1)[0])
    value = space.to_json(architecture)
    assert (value if space.kind is None else Genotype.from_json(value)) == architecture


# Decisions that depend on those before them and on the stage


def test_a_space_that_grows_has_longer_sequences_at_later_stages():
    space = GrowingSpace(depth=1, stages=3, each=10)
    assert [space.stage(proposed) for proposed in (0, 9, 10, 19, 20, 10**6)] == [0, 0, 1, 1, 2, 2]
    by_stage = [list(every_sequence(space, stage)) for stage in range(3)]
    assert [len(sequences) for sequences in by_stage] == [4, 4 * 8, 4 * 8 * 16]
    assert space.size == sum(map(len, by_stage))
    for stage, sequences in enumerate(by_stage):
        assert {len(space.decode(tokens)) for tokens in sequences} == {1 + stage}
        rng, counts = random.Random(stage), Counter()
        for _ in range(2000):
            tokens = space.sample(rng, stage)
            counts[tokens[0]] += 1
            counts["all inputs of the last layer"] += bool(stage) and tokens[-1] == 2**stage - 1
        assert set(map(tuple, sequences)) >= {space.sample(rng, stage) for _ in range(100)}
        assert all(counts[op] == pytest.approx(2000 / 3, abs=100) for op in range(3))
        assert counts["all inputs of the last layer"] == pytest.approx(bool(stage) * 2000 / 2**stage, abs=100)


def test_tokens_that_no_stage_of_a_growing_space_has_are_refused():
    space = GrowingSpace(depth=2, stages=2)
    for wrong, message in (
        ((), "growing: 0 tokens; 0.op is to be decided after them"),
        ((0, 2, 1), "growing: 3 tokens; 1.inputs is to be decided after them"),
        ((0, 1, 1, 2, 0), "growing: 5 tokens; 2.inputs is to be decided after them"),
        ((0, 1, 1, 1, 3, 0), "growing: 6 tokens; a sequence with the first 5 ends there"),
        ((3, 1, 1), "growing: 0.op is 3, not one of 0 to 2"),
        ((0, 1, 2, 0, 0), "growing: 1.inputs is 2, not one of 0 to 1"),
        ((0, 1, 1, 1, 4), "growing: 2.inputs is 4, not one of 0 to 3"),
        ((0, 1, 1, 1, -1), "growing: 2.inputs is -1, not one of 0 to 3"),
        ((0, 1, True), "growing: 1.inputs is True, not one of 0 to 1"),
    ):
        with pytest.raises(ConfigError) as told:
            space.decode(wrong)
        assert str(told.value) == message


class Endless(GrowingSpace):
    """Its layers never end."""

    def next(self, prefix, stage=0):
        return Choice(f"{len(prefix)}.op", 2)


def test_decisions_that_never_end_are_refused():
    message = "endless: after 10,000 decisions 10000.op is still to be decided; `next` of a space has to return None"
    for ask in (lambda space: space.sample(random.Random(0)), lambda space: space.check((0,) * 10_001)):
        with pytest.raises(ConfigError, match=message):
            ask(Endless("endless"))


@pytest.mark.parametrize(
    ("kind", "choices", "message"),
    [
        (Subset, 63, "9.inputs: a subset of 63 elements; one has 1 to 62, and more can be decided in several subsets"),
        (Subset, 0, "9.inputs: a subset of 0 elements; one has 1 to 62, and more can be decided in several subsets"),
        (Choice, 0, "9.inputs: a choice out of 0; leave out what is no decision"),
    ],
)
def test_decisions_out_of_nothing_or_of_too_much_are_refused(kind, choices, message):
    with pytest.raises(ConfigError) as told:
        kind("9.inputs", choices)
    assert str(told.value) == message


def test_a_size_counts_the_subsets():
    assert MixedSpace().size == len(set(every_sequence(MixedSpace()))) == 3 * 2**4 * 2


def test_blocks_ops_and_combinations_are_settings():
    space = SpaceSettings("nasnet", 2, ("identity", "sep_conv_3x3", "max_pool_3x3"), ("add", "concat")).space()
    assert space.cell_size == (2**2 * 3**2 * 2) * (3**2 * 3**2 * 2)
    assert [decision.choices for decision in space.decisions[:10]] == [2, 2, 3, 3, 2, 3, 3, 3, 3, 2]
    one = get_space("nasnet", combines=("concat",))
    assert len(one.decisions) == 40  # what leaves no choice is not a decision
    assert {block.combine for cell in cells(one.decode(samples(one, 1)[0])) for block in cell.blocks} == {"concat"}
    smaller = get_space("nasbench201", ops=("none", "nor_conv_3x3"))
    assert smaller.size == 2**6
    assert SpaceSettings("nds-enas").space() == get_space("nds-enas")


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("nasnet-z", {}, "there is no space 'nasnet-z'; there are nasnet, .*nasbench201"),
        ("nasbench201", {"blocks": 3}, "the space nasbench201 has no blocks to change"),
        ("nasbench201", {"ops": ()}, "nasbench201: .* at least one op"),
        ("nasnet", {"blocks": 0}, "nasnet: 0 blocks; a cell has 1 to 64"),
        ("nasnet", {"blocks": 10**9}, "nasnet: 1000000000 blocks"),
        ("nasnet", {"ops": ()}, "nasnet: .* at least one op"),
        ("nasnet", {"combines": ()}, "nasnet: .* at least one combination"),
        ("nasnet-b", {"blocks": 3}, "nasnet-b: 3 blocks cannot make 4 separate outputs"),
        ("nasnet", {"ops": ("identity", "conv_9x9")}, "nasnet: there is no op conv_9x9; there are identity, .*"),
        (
            "nasnet",
            {"combines": ("add", "multiply")},
            "nasnet: there is no combination multiply; there are add, concat",
        ),
        ("nasnet", {"ops": ("identity", "identity")}, "nasnet: .* none twice"),
    ],
)
def test_impossible_spaces_are_refused_at_once(name, changes, message):
    with pytest.raises(ConfigError, match=message):
        get_space(name, **changes)


@CELL_SPACE
def test_samples_build_at_a_tiny_scale_and_run(space):
    assert set(space.combines) <= set(COMBINES)
    for tokens in samples(space, 3, seed=2):
        scale = CellScale("cifar", 8, 4, (1, 1, 1), bn_eps=1e-5)
        network = nasnet_zoo.create(NetworkConfig(space.decode(tokens), scale, CIFAR10, 10)).eval()
        with torch.no_grad():
            logits = network(torch.randn(2, 3, 16, 16))
        assert logits.shape == (2, 10) and logits.isfinite().all()


@CELL_SPACE
def test_every_op_of_a_space_builds_at_both_strides(space):
    """A cell whose blocks read the inputs, so that the reduction has every op with a stride."""
    edges = [Edge(place % space.inputs, op) for place, op in enumerate(space.ops)]
    edges += edges[: len(edges) % 2]
    blocks = tuple(Block(left, right) for left, right in zip(edges[::2], edges[1::2]))
    made = tuple(range(space.inputs, space.inputs + len(blocks)))
    separate = space.outputs == "separate"
    cell = Cell(blocks, made[-space.inputs :] if separate else made, space.inputs, "separate" if separate else "concat")
    scale = CellScale("cifar", 8, 4, (1, 1, 1))
    network = nasnet_zoo.create(NetworkConfig(Genotype(cell, cell, space.style), scale, CIFAR10, 10)).eval()
    with torch.no_grad():
        assert network(torch.randn(1, 3, 9, 9)).shape == (1, 10)


def test_importing_the_search_imports_no_torch():
    code = "import sys, nasnet_zoo.search; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
