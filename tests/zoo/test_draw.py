import random
import re
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from itertools import combinations, pairwise

import matplotlib
import pytest
from PIL import Image

from nasnet_zoo.arch.draw.cells import _Layout, draw_genotype, op_label
from nasnet_zoo.arch.draw.layout import CROSSING, GAP, Layered
from nasnet_zoo.arch.genotype import MAX_BLOCKS, Block, Cell, Edge, Genotype
from nasnet_zoo.arch.genotypes import GENOTYPES
from nasnet_zoo.arch.ops import COMBINES, OPS
from nasnet_zoo.errors import ZooError

SVG = "{http://www.w3.org/2000/svg}"


def random_cell(inputs: int, blocks: int, seed: int, output: str = "concat") -> Cell:
    rng = random.Random(seed)
    chosen = tuple(
        Block(*(Edge(rng.randrange(inputs + i), rng.choice(list(OPS))) for _ in range(2)), rng.choice(list(COMBINES)))
        for i in range(blocks)
    )
    if output == "separate":
        return Cell(chosen, tuple(range(blocks, blocks + inputs)), inputs, output)
    return Cell(chosen, Cell(chosen, (), inputs).loose_ends(), inputs)


def texts(path) -> list[str]:
    return ["".join(element.itertext()).strip() for element in ET.parse(path).iter(f"{SVG}text")]


def words_of(cell: Cell) -> list[str]:
    """The lines of the labels of every op."""
    edges = [edge for block in cell.blocks for edge in (block.left, block.right)]
    return [line for edge in edges for line in op_label(edge.op)[0].split("\n")]


@pytest.mark.parametrize("name", GENOTYPES)
def test_every_published_genotype_draws_with_its_labels_as_text(name, tmp_path):
    genotype, path = GENOTYPES[name], tmp_path / "cell.svg"
    draw_genotype(genotype, path, title=name)
    cells = [genotype.normal] if genotype.normal == genotype.reduction else [genotype.normal, genotype.reduction]
    expected = [line for cell in cells for line in words_of(cell)] + ["h[i] current", "h[i-1] previous"] * len(cells)
    found = texts(path)
    assert name in found
    assert all(found.count(text) >= expected.count(text) for text in expected)
    assert found.count("concat") == len(cells)
    assert ("Normal and reduction cell (equal)" in found) == (len(cells) == 1)


@pytest.mark.parametrize("name", ["NASNet-A", "PNASNet-5"])
def test_png(name, tmp_path):
    path = tmp_path / "cell.PNG"
    draw_genotype(GENOTYPES[name], path)
    with Image.open(path) as image:
        image.load()
        assert image.format == "PNG"
        assert 600 < image.width < 2000 and 600 < image.height < 1400
        assert image.convert("RGB").getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("suffix", ["svg", "png"])
def test_same_bytes_twice_whatever_the_users_settings(suffix, tmp_path):
    first, second = tmp_path / f"a.{suffix}", tmp_path / f"b.{suffix}"
    draw_genotype(GENOTYPES["DARTS-V2"], first)
    with matplotlib.rc_context({"font.size": 30, "svg.fonttype": "path", "savefig.facecolor": "black"}):
        draw_genotype(GENOTYPES["DARTS-V2"], second)
    assert first.read_bytes() == second.read_bytes()


def test_separate_outputs(tmp_path):
    path = tmp_path / "cell.svg"
    draw_genotype(Genotype(random_cell(4, 8, 0, "separate"), random_cell(4, 8, 1, "separate")), path)
    found = texts(path)
    for index in range(4):
        assert found.count(f"input {index}") == found.count(f"output {index}") == 2
    assert {"add + LN", "add + IN", "not used by any output"} <= set(found)


def test_a_cell_smaller_than_its_inputs(tmp_path):
    cell = Cell((Block(Edge(0, "identity"), Edge(0, "zero")),), (4, 1, 2, 3), 4, "separate")
    draw_genotype(Genotype(cell, cell), tmp_path / "cell.svg")
    assert "zero" in texts(tmp_path / "cell.svg")


def test_a_title_is_plain_text(tmp_path):
    path = tmp_path / "cell.svg"
    draw_genotype(GENOTYPES["DARTS-V1"], path, title="<$x_1$ & co>")
    assert "<$x_1$ & co>" in texts(path)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("form", [(1, "concat"), (2, "concat"), (4, "separate")])
def test_boxes_and_lines_keep_apart(form, seed):
    inputs, output = form
    layout = _Layout(random_cell(inputs, 16, seed, output))
    for row in layout.rows:
        for left, right in pairwise(row):
            room = layout.x[right] - layout.x[left] - (layout.width(left) + layout.width(right)) / 2
            assert room > GAP - 1e-6
    assert sum(len(row) for row in layout.rows) == len(layout.x)
    assert all(low[1] + 1 == high[1] for low, high in layout.links)  # no line skips a row


class Squares(Layered):
    def width(self, node):
        return 10


def test_any_graph_is_laid_out():
    """A chain of three with a shortcut, beside a fan of four that are two to a row at most."""
    reads = [[], [], [0], [2], [3, 0], [1], [1], [1], [1, 1, 1]]
    layout = Squares(reads, leaving=[4, 8], sources=[1, 0], per_row=2)
    assert layout.row_of == [0, 0, 1, 2, 3, 1, 2, 3, 4] and layout.top == 5
    assert layout.rows[0] == [(1, 0), (0, 0)] and sorted(layout.rows[5]) == [(4, 5), (8, 5)]
    assert layout.links.count(((1, 3), (8, 4))) == 3
    assert {((0, 0), (0, 1)), ((0, 1), (0, 2)), ((0, 2), (4, 3))} <= set(layout.links)  # past the rows between
    for row in layout.rows:
        assert all(layout.x[right] - layout.x[left] > 10 + GAP - 1e-6 for left, right in pairwise(row))
    assert layout.left == min(layout.x.values()) - 5 and layout.right == max(layout.x.values()) + 5


def chained(blocks: int) -> Cell:
    """Every block reads the one before it, and the output reads all: the most lines that pass by other blocks."""
    return Cell(
        tuple(Block(Edge(i % 2, "identity"), Edge(1 + i, "identity")) for i in range(blocks)),
        tuple(range(2, 2 + blocks)),
    )


@pytest.mark.parametrize("cell", [chained(12), *(random_cell(2, 16, seed) for seed in range(3))])
def test_the_cost_of_a_layout_counts_every_crossing(cell):
    layout = _Layout(cell)
    x, length, crossings = layout.x, sum(abs(layout.x[low] - layout.x[high]) for low, high in layout.links), 0
    for (a, b), (c, d) in combinations(layout.links, 2):
        crossings += a[1] == c[1] and (x[a] - x[c]) * (x[b] - x[d]) < 0
    assert crossings > 0 and layout._cost() == CROSSING * crossings + length


def test_the_largest_cell_is_laid_out_at_once():
    """It took half a minute while every line was compared with every other one."""
    start = time.process_time()  # which other programs on the machine do not lengthen
    layout = _Layout(chained(MAX_BLOCKS))
    assert len(layout.links) > 2000 and time.process_time() - start < 4


def test_every_op_has_a_short_label_of_its_own():
    labels = {op: op_label(op)[0] for op in OPS}
    assert all(a != b for a, b in combinations(labels.values(), 2))
    assert max(len(line) for label in labels.values() for line in label.split("\n")) <= 8
    assert (labels["sep_conv_5x5"], labels["avg_pool_3x3"], labels["identity"]) == ("sep\n5x5", "avg\n3x3", "identity")


@pytest.mark.parametrize("name", ["cell.pdf", "cell", "cell.svg.gz"])
def test_another_suffix_is_an_error(name, tmp_path):
    with pytest.raises(ZooError, match=re.escape(name) + r".* \.svg or \.png\.$"):
        draw_genotype(GENOTYPES["NASNet-A"], tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_is_one_sentence(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ZooError, match="Cannot write"):
        draw_genotype(GENOTYPES["NASNet-A"], tmp_path / "file" / "cell.svg")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_failed_drawing_leaves_the_old_picture_and_nothing_else(tmp_path, monkeypatch):
    def fail(self, path, **options):
        path.write_text("half")
        raise RuntimeError("no ink")

    path = tmp_path / "cell.svg"
    path.write_text("old")
    monkeypatch.setattr("nasnet_zoo.arch.draw.cells.Figure.savefig", fail)
    with pytest.raises(RuntimeError, match="no ink"):
        draw_genotype(GENOTYPES["NASNet-A"], path)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_imports_neither_torch_nor_pyplot():
    code = "import sys, nasnet_zoo.arch.draw.cells; print({'torch', 'matplotlib.pyplot'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"
