"""The table of precisions: the numbers that a graph computes with, one row each."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf

import numpy as np

from nasnet_zoo.util.tables import Table


@dataclass(frozen=True)
class Precision:
    """One row.

    `dtype` is that of the graph's constants and maps. The channels of convolutions are padded to multiples of
    `multiple`. `calibrated`: the graph is then quantised with the ranges that its maps have on pictures. `tolerance` is
    the largest allowed difference of a logit from torch's, divided by the largest logit, by provider ("" for all
    others). `agreement` is the share of real pictures whose best class must be the same. `largest` is the largest value
    that a map may reach. `refused` gives, by provider, the reason why it does not accept such a graph, and `advice`
    says what to do when a verification fails.
    """

    title: str
    dtype: type[np.floating]
    tolerance: Mapping[str, float]
    agreement: float
    multiple: int = 16  # onnxruntime's CPU kernels compute with up to sixteen channels at a time
    calibrated: bool = False
    largest: float = inf
    advice: str = ""
    refused: Mapping[str, str] = field(default_factory=dict)

    def limit(self, provider: str) -> float:
        """The tolerance on a provider."""
        return self.tolerance.get(provider, self.tolerance[""])


PRECISIONS = Table(
    "precision",
    {
        "fp32": Precision(
            "float32: torch's logits to rounding",
            np.float32,
            tolerance={"": 1e-5, "cuda": 1e-4, "tensorrt": 1e-3},
            agreement=1.0,
        ),
        "fp16": Precision(
            "float16, for GPUs: half the size",
            np.float16,
            tolerance={"": 3e-2},
            agreement=0.9,
            multiple=8,  # GPUs compute with eight channels at a time
            largest=65504.0,
            advice="; export it in fp32",
        ),
        "int8": Precision(
            "eight-bit integers, calibrated on pictures: fastest on CPUs with VNNI",
            np.float32,
            tolerance={"": 0.5},  # loose, because only the ranking has to be right
            agreement=0.75,
            calibrated=True,
            advice="; give more pictures of the kind it will see, or export it in fp16 or fp32",
            refused={"tensorrt": "takes no int8 graph with zero points"},
        ),
    },
)
