"""What a prediction is. Imports no torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, TypeVar

import numpy as np

from ..errors import ImageError

T = TypeVar("T")
SHOWN = 50  # pictures in a notebook's table: thousands would make the notebook slow


@dataclass(frozen=True)
class Prediction:
    """A class: its index among the logits, its name if it is known, and its probability, 0 to 1."""

    index: int
    label: str | None
    probability: float


class _Shown(list[T]):
    """A list that a notebook shows as a table, and a slice of it too. An empty one it shows as a list."""

    def _rows(self) -> list[str]:
        raise NotImplementedError

    def _repr_html_(self) -> str | None:
        return f"<table>{''.join(self._rows())}</table>" if self else None

    def __getitem__(self, place: Any) -> Any:
        found = super().__getitem__(place)
        return type(self)(found) if isinstance(place, slice) else found


class Predictions(_Shown[Prediction]):
    """The predictions for one picture, the most probable first: a list that a notebook shows as a table with bars."""

    def _rows(self) -> list[str]:
        return [_row(prediction) for prediction in self]


class Answers(_Shown[list[Prediction] | ImageError]):
    """What is said of several pictures: a list that a notebook shows as a table, the pictures counted from 1."""

    def _rows(self) -> list[str]:
        rows = [f"<tr><td>{count}</td><td>{_answer(each)}</td></tr>" for count, each in enumerate(self[:SHOWN], 1)]
        if len(self) > SHOWN:
            rows.append(f"<tr><td></td><td>and {len(self) - SHOWN:,} more</td></tr>")
        return rows


def _answer(answer: list[Prediction] | ImageError) -> str:
    table = answer._repr_html_() if isinstance(answer, Predictions) else None
    return table or escape(str(answer))


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
