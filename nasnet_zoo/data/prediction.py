"""What a prediction is. Imports no torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np


@dataclass(frozen=True)
class Prediction:
    """A class: its index among the logits, its name if it is known, and its probability, 0 to 1."""

    index: int
    label: str | None
    probability: float


class Predictions(list[Prediction]):
    """The predictions for one picture, the most probable first: a list that a notebook shows as a table with bars."""

    def _repr_html_(self) -> str:
        return f"<table>{''.join(map(_row, self))}</table>"


def _row(prediction: Prediction) -> str:
    label, share = escape(prediction.label or f"class {prediction.index}"), f"{prediction.probability:.1%}"
    bar = f'<div style="width: {share}; height: 0.8em; background: #4c8dca"></div>'
    cells = f'<td style="text-align: left">{label}</td><td style="min-width: 12em">{bar}</td>'
    return f'<tr>{cells}<td style="text-align: right">{share}</td></tr>'


def ranked(logits: np.ndarray, labels: Sequence[str] | None, k: int) -> Predictions:
    """The k most probable classes of one picture's logits (classes,), the most probable first. Labels of another number
    than the logits name nothing."""
    exponentials = np.exp(logits.astype(np.float64) - logits.max())
    probabilities = exponentials / exponentials.sum()
    order = np.argsort(-logits, kind="stable")[:k]
    names = labels if labels is not None and len(labels) == len(logits) else None
    return Predictions(Prediction(int(i), names[i] if names else None, float(probabilities[i])) for i in order)
