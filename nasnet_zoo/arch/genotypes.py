"""Cells as literals: the published ones, and the one that this project found. State 0 is the current input and state 1
the previous one (see genotype.py).

Sources: TF-slim's nasnet and pnasnet code (NASNet-A, PNASNet-5), the TPU AmoebaNet specifications, the ENAS micro
arcs of `scripts/cifar10_micro_final.sh`, and the genotypes of DARTS, P-DARTS and PC-DARTS with their two input
numbers exchanged. NASNet-B and NASNet-C are absent: their wiring is published only as figures of the paper.
Quick-PPO is the best cell of a search with the preset `quick`, whose record is search/found/quick.json.
"""

from .genotype import PUBLISHED, Block, Cell, Edge, Genotype


def _cell(*blocks: tuple[tuple[int, str], tuple[int, str]], outputs: tuple[int, ...]) -> Cell:
    return Cell(tuple(Block(Edge(*left), Edge(*right)) for left, right in blocks), outputs)


NASNET_A_NORMAL = _cell(
    ((0, "sep_conv_5x5"), (1, "sep_conv_3x3")),
    ((1, "sep_conv_5x5"), (1, "sep_conv_3x3")),
    ((0, "avg_pool_3x3"), (1, "identity")),
    ((1, "avg_pool_3x3"), (1, "avg_pool_3x3")),
    ((0, "sep_conv_3x3"), (0, "identity")),
    outputs=(1, 2, 3, 4, 5, 6),
)
NASNET_A_REDUCTION = _cell(
    ((0, "sep_conv_5x5"), (1, "sep_conv_7x7")),
    ((0, "max_pool_3x3"), (1, "sep_conv_7x7")),
    ((0, "avg_pool_3x3"), (1, "sep_conv_5x5")),
    ((3, "identity"), (2, "avg_pool_3x3")),
    ((2, "sep_conv_3x3"), (0, "max_pool_3x3")),
    outputs=(3, 4, 5, 6),
)
NASNET_A = Genotype(NASNET_A_NORMAL, NASNET_A_REDUCTION)

PNASNET_5_NORMAL = _cell(
    ((1, "sep_conv_5x5"), (1, "max_pool_3x3")),
    ((0, "sep_conv_7x7"), (0, "max_pool_3x3")),
    ((0, "sep_conv_5x5"), (0, "sep_conv_3x3")),
    ((4, "sep_conv_3x3"), (0, "max_pool_3x3")),
    ((1, "sep_conv_3x3"), (0, "identity")),
    outputs=(2, 3, 4, 5, 6),
)
PNASNET_5 = Genotype(PNASNET_5_NORMAL, PNASNET_5_NORMAL)

AMOEBANET_A_NORMAL = _cell(
    ((0, "avg_pool_3x3"), (0, "max_pool_3x3")),
    ((1, "sep_conv_3x3"), (1, "identity")),
    ((0, "identity"), (1, "avg_pool_3x3")),
    ((0, "sep_conv_3x3"), (2, "sep_conv_5x5")),
    ((5, "avg_pool_3x3"), (0, "sep_conv_3x3")),
    outputs=(1, 3, 4, 6),
)
AMOEBANET_A_REDUCTION = _cell(
    ((1, "sep_conv_3x3"), (0, "avg_pool_3x3")),
    ((0, "max_pool_3x3"), (2, "sep_conv_7x7")),
    ((1, "max_pool_3x3"), (0, "max_pool_3x3")),
    ((4, "sep_conv_3x3"), (0, "bottleneck_1x7_7x1")),
    ((1, "avg_pool_3x3"), (0, "sep_conv_7x7")),
    outputs=(2, 3, 4, 5, 6),
)
AMOEBANET_A = Genotype(AMOEBANET_A_NORMAL, AMOEBANET_A_REDUCTION)

AMOEBANET_B_NORMAL = _cell(
    ((1, "conv_1x1"), (1, "max_pool_3x3")),
    ((1, "identity"), (0, "sep_conv_3x3")),
    ((1, "conv_1x1"), (0, "sep_conv_3x3")),
    ((2, "conv_1x1"), (2, "identity")),
    ((1, "avg_pool_3x3"), (5, "conv_1x1")),
    outputs=(0, 3, 4, 6),
)
AMOEBANET_B_REDUCTION = _cell(
    ((0, "max_pool_2x2"), (0, "max_pool_3x3")),
    ((2, "identity"), (1, "bottleneck_3x3")),
    ((2, "dil_sep_conv_5x5"), (2, "max_pool_3x3")),
    ((3, "identity"), (1, "sep_conv_3x3")),
    ((4, "avg_pool_3x3"), (3, "conv_1x1")),
    outputs=(5, 6),
)
AMOEBANET_B = Genotype(AMOEBANET_B_NORMAL, AMOEBANET_B_REDUCTION)

AMOEBANET_C_NORMAL = _cell(
    ((0, "avg_pool_3x3"), (0, "sep_conv_3x3")),
    ((0, "identity"), (0, "sep_conv_3x3")),
    ((2, "avg_pool_3x3"), (1, "sep_conv_3x3")),
    ((0, "identity"), (1, "sep_conv_3x3")),
    ((3, "avg_pool_3x3"), (0, "sep_conv_3x3")),
    outputs=(1, 2, 4, 5, 6),
)
AMOEBANET_C_REDUCTION = _cell(
    ((0, "max_pool_3x3"), (0, "max_pool_3x3")),
    ((2, "sep_conv_7x7"), (0, "sep_conv_3x3")),
    ((0, "sep_conv_7x7"), (1, "max_pool_3x3")),
    ((4, "sep_conv_5x5"), (4, "sep_conv_5x5")),
    ((1, "max_pool_3x3"), (1, "sep_conv_3x3")),
    outputs=(0, 2, 3, 4, 5, 6),
)
AMOEBANET_C = Genotype(AMOEBANET_C_NORMAL, AMOEBANET_C_REDUCTION)

AMOEBANET_D_NORMAL = _cell(
    ((1, "conv_1x1"), (1, "max_pool_3x3")),
    ((1, "identity"), (0, "bottleneck_1x7_7x1")),
    ((0, "conv_1x1"), (0, "bottleneck_1x7_7x1")),
    ((2, "max_pool_3x3"), (2, "identity")),
    ((1, "avg_pool_3x3"), (5, "conv_1x1")),
    outputs=(0, 3, 4, 6),
)
AMOEBANET_D_REDUCTION = _cell(
    ((0, "max_pool_2x2"), (0, "max_pool_3x3")),
    ((2, "identity"), (1, "bottleneck_3x3")),
    ((2, "bottleneck_1x7_7x1"), (2, "max_pool_3x3")),
    ((3, "identity"), (1, "max_pool_2x2")),
    ((2, "avg_pool_3x3"), (3, "conv_1x1")),
    outputs=(4, 5, 6),
)
AMOEBANET_D = Genotype(AMOEBANET_D_NORMAL, AMOEBANET_D_REDUCTION)

DARTS_V1_NORMAL = _cell(
    ((0, "sep_conv_3x3"), (1, "sep_conv_3x3")),
    ((1, "identity"), (0, "sep_conv_3x3")),
    ((1, "identity"), (0, "sep_conv_3x3")),
    ((1, "sep_conv_3x3"), (2, "identity")),
    outputs=(2, 3, 4, 5),
)
DARTS_V1_REDUCTION = _cell(
    ((1, "max_pool_3x3"), (0, "max_pool_3x3")),
    ((2, "identity"), (1, "max_pool_3x3")),
    ((1, "max_pool_3x3"), (2, "identity")),
    ((2, "identity"), (1, "avg_pool_3x3")),
    outputs=(2, 3, 4, 5),
)
DARTS_V1 = Genotype(DARTS_V1_NORMAL, DARTS_V1_REDUCTION, "nds")

DARTS_V2_NORMAL = _cell(
    ((1, "sep_conv_3x3"), (0, "sep_conv_3x3")),
    ((1, "sep_conv_3x3"), (0, "sep_conv_3x3")),
    ((0, "sep_conv_3x3"), (1, "identity")),
    ((1, "identity"), (2, "dil_conv_3x3")),
    outputs=(2, 3, 4, 5),
)
DARTS_V2_REDUCTION = _cell(
    ((1, "max_pool_3x3"), (0, "max_pool_3x3")),
    ((2, "identity"), (0, "max_pool_3x3")),
    ((1, "max_pool_3x3"), (2, "identity")),
    ((2, "identity"), (0, "max_pool_3x3")),
    outputs=(2, 3, 4, 5),
)
DARTS_V2 = Genotype(DARTS_V2_NORMAL, DARTS_V2_REDUCTION, "nds")

P_DARTS_NORMAL = _cell(
    ((1, "identity"), (0, "dil_conv_3x3")),
    ((1, "identity"), (0, "sep_conv_3x3")),
    ((0, "sep_conv_3x3"), (3, "sep_conv_3x3")),
    ((1, "sep_conv_3x3"), (4, "dil_conv_5x5")),
    outputs=(2, 3, 4, 5),
)
P_DARTS_REDUCTION = _cell(
    ((1, "avg_pool_3x3"), (0, "sep_conv_5x5")),
    ((1, "sep_conv_3x3"), (2, "dil_conv_5x5")),
    ((1, "max_pool_3x3"), (0, "dil_conv_3x3")),
    ((0, "dil_conv_3x3"), (3, "dil_conv_5x5")),
    outputs=(2, 3, 4, 5),
)
P_DARTS = Genotype(P_DARTS_NORMAL, P_DARTS_REDUCTION, "nds")

PC_DARTS_CIFAR10_NORMAL = _cell(
    ((0, "sep_conv_3x3"), (1, "identity")),
    ((1, "sep_conv_3x3"), (0, "dil_conv_3x3")),
    ((1, "sep_conv_5x5"), (0, "sep_conv_3x3")),
    ((1, "avg_pool_3x3"), (0, "dil_conv_3x3")),
    outputs=(2, 3, 4, 5),
)
PC_DARTS_CIFAR10_REDUCTION = _cell(
    ((0, "sep_conv_5x5"), (1, "max_pool_3x3")),
    ((0, "sep_conv_5x5"), (2, "sep_conv_5x5")),
    ((1, "sep_conv_3x3"), (3, "sep_conv_3x3")),
    ((0, "sep_conv_3x3"), (2, "sep_conv_3x3")),
    outputs=(2, 3, 4, 5),
)
PC_DARTS_CIFAR10 = Genotype(PC_DARTS_CIFAR10_NORMAL, PC_DARTS_CIFAR10_REDUCTION, "nds")

PC_DARTS_IMAGENET_NORMAL = _cell(
    ((0, "identity"), (1, "sep_conv_3x3")),
    ((1, "sep_conv_3x3"), (0, "identity")),
    ((0, "sep_conv_3x3"), (3, "sep_conv_3x3")),
    ((0, "sep_conv_3x3"), (4, "dil_conv_5x5")),
    outputs=(2, 3, 4, 5),
)
PC_DARTS_IMAGENET_REDUCTION = _cell(
    ((1, "sep_conv_3x3"), (0, "identity")),
    ((2, "dil_conv_5x5"), (0, "max_pool_3x3")),
    ((2, "sep_conv_3x3"), (0, "sep_conv_3x3")),
    ((1, "sep_conv_5x5"), (3, "sep_conv_3x3")),
    outputs=(2, 3, 4, 5),
)
PC_DARTS_IMAGENET = Genotype(PC_DARTS_IMAGENET_NORMAL, PC_DARTS_IMAGENET_REDUCTION, "nds")

ENAS_MICRO_NORMAL = _cell(
    ((1, "avg_pool_3x3"), (1, "sep_conv_3x3")),
    ((1, "identity"), (1, "sep_conv_5x5")),
    ((1, "identity"), (0, "sep_conv_5x5")),
    ((0, "sep_conv_3x3"), (1, "sep_conv_5x5")),
    ((1, "avg_pool_3x3"), (0, "sep_conv_5x5")),
    outputs=(2, 3, 4, 5, 6),
)
ENAS_MICRO_REDUCTION = _cell(
    ((0, "sep_conv_3x3"), (0, "sep_conv_3x3")),
    ((1, "max_pool_3x3"), (1, "avg_pool_3x3")),
    ((0, "sep_conv_5x5"), (3, "sep_conv_5x5")),
    ((0, "sep_conv_3x3"), (1, "identity")),
    ((1, "max_pool_3x3"), (0, "sep_conv_5x5")),
    outputs=(2, 4, 5, 6),
)
ENAS_MICRO = Genotype(ENAS_MICRO_NORMAL, ENAS_MICRO_REDUCTION)

QUICK_PPO_NORMAL = _cell(
    ((0, "conv_3x3_dilated"), (1, "conv_3x3")),
    ((1, "conv_3x3"), (1, "avg_pool_3x3")),
    ((2, "avg_pool_3x3"), (1, "max_pool_3x3")),
    outputs=(3, 4),
)
QUICK_PPO_REDUCTION = _cell(
    ((1, "conv_1x1"), (1, "avg_pool_3x3")),
    ((2, "conv_3x3_dilated"), (1, "max_pool_3x3")),
    ((1, "max_pool_3x3"), (2, "conv_1x1")),
    outputs=(3, 4),
)
QUICK_PPO = Genotype(QUICK_PPO_NORMAL, QUICK_PPO_REDUCTION)

GENOTYPES: dict[str, Genotype] = {
    "NASNet-A": NASNET_A,
    "PNASNet-5": PNASNET_5,
    "AmoebaNet-A": AMOEBANET_A,
    "AmoebaNet-B": AMOEBANET_B,
    "AmoebaNet-C": AMOEBANET_C,
    "AmoebaNet-D": AMOEBANET_D,
    "DARTS-V1": DARTS_V1,
    "DARTS-V2": DARTS_V2,
    "P-DARTS": P_DARTS,
    "PC-DARTS-CIFAR10": PC_DARTS_CIFAR10,
    "PC-DARTS-ImageNet": PC_DARTS_IMAGENET,
    "ENAS-micro": ENAS_MICRO,
    "Quick-PPO": QUICK_PPO,
}
PUBLISHED.update(GENOTYPES)
