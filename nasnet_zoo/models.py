"""The table of models: one entry makes a model. Imports no torch.

Published figures are the papers' own; where our networks count differently, docs/fidelity.md shows both.
"""

from .arch.cells import CellScale
from .arch.config import NetworkConfig, Preprocess
from .arch.genotypes import GENOTYPES
from .registry import MODELS, ModelInfo, Published, WeightSource

SLIM_URL = "https://storage.googleapis.com/download.tensorflow.org/models"
KERAS_URL = "https://storage.googleapis.com/tensorflow/keras-applications/nasnet"

NASNET, PNASNET = "arXiv:1707.07012", "arXiv:1712.00559"
AMOEBANET, ENAS, DARTS = "arXiv:1802.01548", "arXiv:1802.03268", "arXiv:1806.09055"
P_DARTS, PC_DARTS = "arXiv:1904.12760", "arXiv:1907.05737"

# TF-slim's inception preprocessing at evaluation.
INCEPTION = dict(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), crop=0.875, resize="squash", antialias=False)
TORCH_IMAGENET = dict(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), crop=0.875, resize="shortest")
CIFAR10 = Preprocess((32, 32), (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))


def _imagenet(genotype: str, size: int, scale: CellScale, preprocess: dict = INCEPTION) -> NetworkConfig:
    prepared = Preprocess((size, size), **preprocess)
    return NetworkConfig(GENOTYPES[genotype], scale, prepared, 1000, labels="imagenet-1k")


def _cifar(genotype: str, filters: int, stages: tuple[int, ...], stem: int, style: str = "slim") -> NetworkConfig:
    scale = CellScale("cifar", stem, filters, stages, style=style, bn_eps=1e-5)
    return NetworkConfig(GENOTYPES[genotype], scale, CIFAR10, 10, labels="cifar10")


def _slim(archive: str, top1: float, top5: float) -> WeightSource:
    """TF-slim's released weights; the accuracies are its README's."""
    return WeightSource(
        "tf", "tf-slim", f"{SLIM_URL}/{archive}.tar.gz", accuracy=(top1, top5), accuracy_source="TF-slim README"
    )


def _keras(file: str, md5: str) -> WeightSource:
    return WeightSource("keras", "keras", f"{KERAS_URL}/{file}.h5", md5=md5)


def _add(
    name: str, config: NetworkConfig, description: str, paper: str, published: Published, *weights: WeightSource
) -> None:
    MODELS[name] = ModelInfo(name, config, description, paper, published, weights)


_add(
    "nasnet-a-mobile",
    _imagenet("NASNet-A", 224, CellScale("imagenet", 32, 44, (4, 4, 4))),
    "NASNet-A (4 @ 1056) for ImageNet at 224 px",
    NASNET,
    Published(5.3e6, 564e6, 74.0, 91.6, "NASNet paper v4, table 3"),
    _slim("nasnet-a_mobile_04_10_2017", 74.0, 91.6),
    _keras("NASNet-mobile", "020fb642bf7360b370c678b08e0adf61"),
)
_add(
    "nasnet-a-large",
    _imagenet("NASNet-A", 331, CellScale("imagenet", 96, 168, (6, 6, 6), skip_reduction_input=True)),
    "NASNet-A (6 @ 4032) for ImageNet at 331 px",
    NASNET,
    Published(88.9e6, 23.8e9, 82.7, 96.2, "NASNet paper v4, table 2"),
    _slim("nasnet-a_large_04_10_2017", 82.7, 96.2),
    _keras("NASNet-large", "11577c9a518f0070763c2b964a382f17"),
    WeightSource(
        "timm",
        "timm",
        "timm/nasnetalarge.tf_in1k",
        revision="2188423afb58a54ecc6eb20e22179f24bfb92275",
        accuracy=(82.638, 96.066),
        accuracy_source="timm results, bicubic, crop 0.911",
    ),
)
_add(
    "nasnet-a-5@1536",
    _imagenet("NASNet-A", 299, CellScale("imagenet", 96, 64, (5, 5, 5), skip_reduction_input=True)),
    "NASNet-A (5 @ 1536) for ImageNet at 299 px; the paper prints 5 @ 1538, which 24 does not divide",
    NASNET,
    Published(10.9e6, 2.35e9, 78.6, 94.2, "NASNet paper v4, table 2"),
)
_add(
    "nasnet-a-7@1920",
    _imagenet("NASNet-A", 299, CellScale("imagenet", 96, 80, (7, 7, 7), skip_reduction_input=True)),
    "NASNet-A (7 @ 1920) for ImageNet at 299 px",
    NASNET,
    Published(22.6e6, 4.93e9, 80.8, 95.3, "NASNet paper v4, table 2"),
)
_add(
    "nasnet-a-cifar",
    _cifar("NASNet-A", 32, (6, 6, 6), 96),
    "NASNet-A (6 @ 768) for CIFAR-10",
    NASNET,
    Published(3.3e6, None, 96.59, None, "NASNet paper v4, table 1, without cutout"),
)
_add(
    "nasnet-a-cifar-small",
    _cifar("NASNet-A", 16, (1, 1, 1), 32),
    "NASNet-A (1 @ 384, a stem of 32) for CIFAR-10, trained by this project and shipped in the package",
    NASNET,
    Published(None, None, None, None, "this project's own; its weights' config.json has the measured accuracy"),
    WeightSource("cifar10", "package", "nasnet-a-cifar-small"),
)
_add(
    "nasnet-a-cifar-7@2304",
    _cifar("NASNet-A", 96, (7, 7, 7), 288),
    "NASNet-A (7 @ 2304) for CIFAR-10",
    NASNET,
    Published(27.6e6, None, 97.03, None, "NASNet paper v4, table 1, without cutout"),
)
_add(
    "pnasnet-5-mobile",
    _imagenet("PNASNet-5", 224, CellScale("imagenet", 32, 54, (3, 2, 2))),
    "PNASNet-5 (N = 3, F = 54) for ImageNet at 224 px",
    PNASNET,
    Published(5.1e6, 588e6, 74.2, 91.9, "PNASNet paper, as table 3 of the DARTS paper quotes it"),
    _slim("pnasnet-5_mobile_2017_12_13", 74.2, 91.9),
)
_add(
    "pnasnet-5-large",
    _imagenet("PNASNet-5", 331, CellScale("imagenet", 96, 216, (4, 3, 3))),
    "PNASNet-5 (N = 4, F = 216) for ImageNet at 331 px",
    PNASNET,
    Published(86.1e6, 25.0e9, 82.9, 96.2, "PNASNet paper, as table 2 of the AmoebaNet paper quotes it"),
    _slim("pnasnet-5_large_2017_12_13", 82.9, 96.2),
)
_add(
    "amoebanet-a",
    _imagenet("AmoebaNet-A", 331, CellScale("imagenet", 96, 190, (6, 6, 6), skip_reduction_input=True)),
    "AmoebaNet-A (N = 6, F = 190) for ImageNet at 331 px",
    AMOEBANET,
    Published(86.7e6, 23.1e9, 82.8, 96.1, "AmoebaNet paper, table 2"),
)
_add(
    "amoebanet-a-mobile",
    _imagenet("AmoebaNet-A", 224, CellScale("imagenet", 32, 50, (4, 4, 4))),
    "AmoebaNet-A (N = 4, F = 50) for ImageNet at 224 px",
    AMOEBANET,
    Published(5.1e6, 555e6, 74.5, 92.0, "AmoebaNet paper, as table 3 of the DARTS paper quotes it"),
)
_add(
    "amoebanet-a-cifar",
    _cifar("AmoebaNet-A", 32, (6, 6, 6), 96),
    "AmoebaNet-A (N = 6, F = 32) for CIFAR-10",
    AMOEBANET,
    Published(2.6e6, None, 96.60, None, "AmoebaNet paper, table 1, without cutout"),
)
_add(
    "enas-micro-cifar",
    _cifar("ENAS-micro", 36, (5, 5, 5), 108),
    "The ENAS micro cells (15 normal cells, 36 channels) for CIFAR-10",
    ENAS,
    Published(4.6e6, None, 97.11, None, "ENAS paper, as table 1 of the DARTS paper quotes it, with cutout"),
)
for _name, _genotype, _paper, _published in (
    ("darts-v1", "DARTS-V1", DARTS, Published(3.3e6, None, 97.00, None, "DARTS paper, table 1, with cutout")),
    ("darts-v2", "DARTS-V2", DARTS, Published(3.3e6, None, 97.24, None, "DARTS paper, table 1, with cutout")),
    ("p-darts", "P-DARTS", P_DARTS, Published(3.4e6, None, 97.50, None, "as later papers quote it, with cutout")),
    ("pc-darts", "PC-DARTS-CIFAR10", PC_DARTS, Published(3.6e6, None, 97.43, None, "authors' README, with cutout")),
):
    _add(
        f"{_name}-cifar",
        _cifar(_genotype, 36, (6, 6, 6), 108, "nds"),
        f"{_genotype} cells (20 cells, 36 channels) for CIFAR-10",
        _paper,
        _published,
    )
for _name, _genotype, _paper, _published in (
    ("darts-v2", "DARTS-V2", DARTS, Published(4.7e6, 574e6, 73.3, 91.3, "DARTS paper, table 3")),
    ("p-darts", "P-DARTS", P_DARTS, Published(4.9e6, 557e6, 75.6, 92.6, "authors' README, size as quoted later")),
    (
        "pc-darts",
        "PC-DARTS-ImageNet",
        PC_DARTS,
        Published(5.3e6, 597e6, 75.8, 92.7, "authors' README, size as quoted later"),
    ),
):
    _add(
        f"{_name}-mobile",
        _imagenet(_genotype, 224, CellScale("imagenet-nds", 48, 48, (4, 4, 4), style="nds"), TORCH_IMAGENET),
        f"{_genotype} cells (14 cells, 48 channels) for ImageNet at 224 px",
        _paper,
        _published,
    )
