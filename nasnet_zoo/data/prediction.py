"""What a prediction is. Imports no torch."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Prediction:
    """A class: its index among the logits, its name if it is known, and its probability, 0 to 1."""

    index: int
    label: str | None
    probability: float


def ranked(logits: np.ndarray, labels: Sequence[str] | None, k: int) -> list[Prediction]:
    """The k most probable classes of one picture's logits (classes,), the most probable first. Labels of another number
    than the logits name nothing."""
    exponentials = np.exp(logits.astype(np.float64) - logits.max())
    probabilities = exponentials / exponentials.sum()
    order = np.argsort(-logits, kind="stable")[:k]
    names = labels if labels is not None and len(labels) == len(logits) else None
    return [Prediction(int(i), names[i] if names else None, float(probabilities[i])) for i in order]
