"""The table of models: one row makes a model.

Published figures are the papers' own; where our networks count differently, docs/fidelity.md shows both.
"""

from .arch.cells import CellScale, cifar, imagenet
from .arch.genotypes import GENOTYPES
from .registry import ModelInfo, Published, WeightSource, register

SLIM_URL = "https://storage.googleapis.com/download.tensorflow.org/models"
KERAS_URL = "https://storage.googleapis.com/tensorflow/keras-applications/nasnet"

NASNET, PNASNET = "arXiv:1707.07012", "arXiv:1712.00559"
AMOEBANET, ENAS, DARTS = "arXiv:1802.01548", "arXiv:1802.03268", "arXiv:1806.09055"
P_DARTS, PC_DARTS = "arXiv:1904.12760", "arXiv:1907.05737"


def _slim(archive: str, top1: float, top5: float) -> WeightSource:
    """TF-slim's released weights; the accuracies are its README's."""
    return WeightSource(
        "tf", "tf-slim", f"{SLIM_URL}/{archive}.tar.gz", accuracy=(top1, top5), accuracy_source="TF-slim README"
    )


def _keras(file: str, md5: str) -> WeightSource:
    return WeightSource("keras", "keras", f"{KERAS_URL}/{file}.h5", md5=md5)


register(
    ModelInfo(
        name="nasnet-a-mobile",
        config=imagenet(
            GENOTYPES["NASNet-A"], CellScale("imagenet", stem_channels=32, filters=44, stages=(4, 4, 4)), size=224
        ),
        description="NASNet-A (4 @ 1056) for ImageNet at 224 px",
        paper=NASNET,
        published=Published(
            parameters=5.3e6, multiply_adds=564e6, top1=74.0, top5=91.6, source="NASNet paper v4, table 3"
        ),
        weights=(
            _slim("nasnet-a_mobile_04_10_2017", 74.0, 91.6),
            _keras("NASNet-mobile", "020fb642bf7360b370c678b08e0adf61"),
        ),
    )
)
register(
    ModelInfo(
        name="nasnet-a-large",
        config=imagenet(
            GENOTYPES["NASNet-A"],
            CellScale("imagenet", stem_channels=96, filters=168, stages=(6, 6, 6), skip_reduction_input=True),
            size=331,
        ),
        description="NASNet-A (6 @ 4032) for ImageNet at 331 px",
        paper=NASNET,
        published=Published(
            parameters=88.9e6, multiply_adds=23.8e9, top1=82.7, top5=96.2, source="NASNet paper v4, table 2"
        ),
        weights=(
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
        ),
    )
)
register(
    ModelInfo(
        name="nasnet-a-5@1536",
        config=imagenet(
            GENOTYPES["NASNet-A"],
            CellScale("imagenet", stem_channels=96, filters=64, stages=(5, 5, 5), skip_reduction_input=True),
            size=299,
        ),
        description="NASNet-A (5 @ 1536) for ImageNet at 299 px; the paper prints 5 @ 1538, which 24 does not divide",
        paper=NASNET,
        published=Published(
            parameters=10.9e6, multiply_adds=2.35e9, top1=78.6, top5=94.2, source="NASNet paper v4, table 2"
        ),
    )
)
register(
    ModelInfo(
        name="nasnet-a-7@1920",
        config=imagenet(
            GENOTYPES["NASNet-A"],
            CellScale("imagenet", stem_channels=96, filters=80, stages=(7, 7, 7), skip_reduction_input=True),
            size=299,
        ),
        description="NASNet-A (7 @ 1920) for ImageNet at 299 px",
        paper=NASNET,
        published=Published(
            parameters=22.6e6, multiply_adds=4.93e9, top1=80.8, top5=95.3, source="NASNet paper v4, table 2"
        ),
    )
)
register(
    ModelInfo(
        name="nasnet-a-cifar",
        config=cifar(GENOTYPES["NASNet-A"], filters=32, stages=(6, 6, 6), stem_channels=96),
        description="NASNet-A (6 @ 768) for CIFAR-10",
        paper=NASNET,
        published=Published(parameters=3.3e6, top1=96.59, source="NASNet paper v4, table 1, without cutout"),
    )
)
register(
    ModelInfo(
        name="nasnet-a-cifar-small",
        config=cifar(GENOTYPES["NASNet-A"], filters=16, stages=(1, 1, 1), stem_channels=32),
        description="NASNet-A (1 @ 384, a stem of 32) for CIFAR-10, small and quick; its weights are in the package",
        paper=NASNET,
        published=Published(source="this project's own; its weights' config.json has the measured accuracy"),
        weights=(WeightSource("cifar10", "package", "nasnet-a-cifar-small"),),
    )
)
register(
    ModelInfo(
        name="quick-ppo-cifar",
        config=cifar(GENOTYPES["Quick-PPO"], filters=16, stages=(5, 5, 5), stem_channels=48),
        description="the cell that this project's preset quick found on two CPU cores (5 @ 128), for CIFAR-10; its "
        "weights are in the package",
        paper=NASNET,
        published=Published(source="this project's own; its weights' config.json has the measured accuracy"),
        weights=(WeightSource("cifar10", "package", "quick-ppo-cifar"),),
    )
)
register(
    ModelInfo(
        name="nasnet-a-cifar-7@2304",
        config=cifar(GENOTYPES["NASNet-A"], filters=96, stages=(7, 7, 7), stem_channels=288),
        description="NASNet-A (7 @ 2304) for CIFAR-10",
        paper=NASNET,
        published=Published(parameters=27.6e6, top1=97.03, source="NASNet paper v4, table 1, without cutout"),
    )
)
register(
    ModelInfo(
        name="pnasnet-5-mobile",
        config=imagenet(
            GENOTYPES["PNASNet-5"], CellScale("imagenet", stem_channels=32, filters=54, stages=(3, 2, 2)), size=224
        ),
        description="PNASNet-5 (N = 3, F = 54) for ImageNet at 224 px",
        paper=PNASNET,
        published=Published(
            parameters=5.1e6,
            multiply_adds=588e6,
            top1=74.2,
            top5=91.9,
            source="PNASNet paper, as table 3 of the DARTS paper quotes it",
        ),
        weights=(_slim("pnasnet-5_mobile_2017_12_13", 74.2, 91.9),),
    )
)
register(
    ModelInfo(
        name="pnasnet-5-large",
        config=imagenet(
            GENOTYPES["PNASNet-5"], CellScale("imagenet", stem_channels=96, filters=216, stages=(4, 3, 3)), size=331
        ),
        description="PNASNet-5 (N = 4, F = 216) for ImageNet at 331 px",
        paper=PNASNET,
        published=Published(
            parameters=86.1e6,
            multiply_adds=25e9,
            top1=82.9,
            top5=96.2,
            source="PNASNet paper, as table 2 of the AmoebaNet paper quotes it",
        ),
        weights=(_slim("pnasnet-5_large_2017_12_13", 82.9, 96.2),),
    )
)
register(
    ModelInfo(
        name="amoebanet-a",
        config=imagenet(
            GENOTYPES["AmoebaNet-A"],
            CellScale("imagenet", stem_channels=96, filters=190, stages=(6, 6, 6), skip_reduction_input=True),
            size=331,
        ),
        description="AmoebaNet-A (N = 6, F = 190) for ImageNet at 331 px",
        paper=AMOEBANET,
        published=Published(
            parameters=86.7e6, multiply_adds=23.1e9, top1=82.8, top5=96.1, source="AmoebaNet paper, table 2"
        ),
    )
)
register(
    ModelInfo(
        name="amoebanet-a-mobile",
        config=imagenet(
            GENOTYPES["AmoebaNet-A"], CellScale("imagenet", stem_channels=32, filters=50, stages=(4, 4, 4)), size=224
        ),
        description="AmoebaNet-A (N = 4, F = 50) for ImageNet at 224 px",
        paper=AMOEBANET,
        published=Published(
            parameters=5.1e6,
            multiply_adds=555e6,
            top1=74.5,
            top5=92.0,
            source="AmoebaNet paper, as table 3 of the DARTS paper quotes it",
        ),
    )
)
register(
    ModelInfo(
        name="amoebanet-a-cifar",
        config=cifar(GENOTYPES["AmoebaNet-A"], filters=32, stages=(6, 6, 6), stem_channels=96),
        description="AmoebaNet-A (N = 6, F = 32) for CIFAR-10",
        paper=AMOEBANET,
        published=Published(parameters=2.6e6, top1=96.6, source="AmoebaNet paper, table 1, without cutout"),
    )
)
register(
    ModelInfo(
        name="enas-micro-cifar",
        config=cifar(GENOTYPES["ENAS-micro"], filters=36, stages=(5, 5, 5), stem_channels=108),
        description="The ENAS micro cells (15 normal cells, 36 channels) for CIFAR-10",
        paper=ENAS,
        published=Published(
            parameters=4.6e6, top1=97.11, source="ENAS paper, as table 1 of the DARTS paper quotes it, with cutout"
        ),
    )
)
register(
    ModelInfo(
        name="darts-v1-cifar",
        config=cifar(GENOTYPES["DARTS-V1"], filters=36, stages=(6, 6, 6), stem_channels=108),
        description="DARTS-V1 cells (20 cells, 36 channels) for CIFAR-10",
        paper=DARTS,
        published=Published(parameters=3.3e6, top1=97.0, source="DARTS paper, table 1, with cutout"),
    )
)
register(
    ModelInfo(
        name="darts-v2-cifar",
        config=cifar(GENOTYPES["DARTS-V2"], filters=36, stages=(6, 6, 6), stem_channels=108),
        description="DARTS-V2 cells (20 cells, 36 channels) for CIFAR-10",
        paper=DARTS,
        published=Published(parameters=3.3e6, top1=97.24, source="DARTS paper, table 1, with cutout"),
    )
)
register(
    ModelInfo(
        name="p-darts-cifar",
        config=cifar(GENOTYPES["P-DARTS"], filters=36, stages=(6, 6, 6), stem_channels=108),
        description="P-DARTS cells (20 cells, 36 channels) for CIFAR-10",
        paper=P_DARTS,
        published=Published(parameters=3.4e6, top1=97.5, source="as later papers quote it, with cutout"),
    )
)
register(
    ModelInfo(
        name="pc-darts-cifar",
        config=cifar(GENOTYPES["PC-DARTS-CIFAR10"], filters=36, stages=(6, 6, 6), stem_channels=108),
        description="PC-DARTS-CIFAR10 cells (20 cells, 36 channels) for CIFAR-10",
        paper=PC_DARTS,
        published=Published(parameters=3.6e6, top1=97.43, source="authors' README, with cutout"),
    )
)
register(
    ModelInfo(
        name="darts-v2-mobile",
        config=imagenet(
            GENOTYPES["DARTS-V2"], CellScale("imagenet-nds", stem_channels=48, filters=48, stages=(4, 4, 4)), size=224
        ),
        description="DARTS-V2 cells (14 cells, 48 channels) for ImageNet at 224 px",
        paper=DARTS,
        published=Published(parameters=4.7e6, multiply_adds=574e6, top1=73.3, top5=91.3, source="DARTS paper, table 3"),
    )
)
register(
    ModelInfo(
        name="p-darts-mobile",
        config=imagenet(
            GENOTYPES["P-DARTS"], CellScale("imagenet-nds", stem_channels=48, filters=48, stages=(4, 4, 4)), size=224
        ),
        description="P-DARTS cells (14 cells, 48 channels) for ImageNet at 224 px",
        paper=P_DARTS,
        published=Published(
            parameters=4.9e6, multiply_adds=557e6, top1=75.6, top5=92.6, source="authors' README, size as quoted later"
        ),
    )
)
register(
    ModelInfo(
        name="pc-darts-mobile",
        config=imagenet(
            GENOTYPES["PC-DARTS-ImageNet"],
            CellScale("imagenet-nds", stem_channels=48, filters=48, stages=(4, 4, 4)),
            size=224,
        ),
        description="PC-DARTS-ImageNet cells (14 cells, 48 channels) for ImageNet at 224 px",
        paper=PC_DARTS,
        published=Published(
            parameters=5.3e6, multiply_adds=597e6, top1=75.8, top5=92.7, source="authors' README, size as quoted later"
        ),
    )
)
