"""Where a network errs, from its confusion matrix: rows are the true classes, columns what they were taken for."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Mistake:
    """A class that pictures of another one were taken for: how many, and their `share` of the other one's pictures."""

    index: int
    pictures: int
    share: float


@dataclass(frozen=True)
class ClassResult:
    """What became of a class's pictures; `taken_for` is the most frequent mistake, None if there is none."""

    index: int
    pictures: int
    top1: float
    taken_for: Mistake | None


def per_class(confusion: np.ndarray) -> list[ClassResult]:
    """The classes that have pictures, worst first; of equals the one with more pictures."""
    results = []
    for index, row in enumerate(confusion):
        if count := int(row.sum()):
            wrong = row.copy()
            wrong[index] = 0
            other = int(wrong.argmax())
            mistake = Mistake(other, int(wrong[other]), int(wrong[other]) / count) if wrong[other] else None
            results.append(ClassResult(index, count, int(row[index]) / count, mistake))
    return sorted(results, key=lambda result: (result.top1, -result.pictures))


def most_frequent(confusion: np.ndarray, count: int) -> list[tuple[int, Mistake]]:
    """The mistakes, each with the true class, that most pictures are an example of."""
    wrong = confusion.copy()
    np.fill_diagonal(wrong, 0)
    totals = confusion.sum(1)
    places = np.argsort(-wrong, axis=None, kind="stable")[: min(count, np.count_nonzero(wrong))]
    pairs = zip(*(each.tolist() for each in np.unravel_index(places, wrong.shape)))
    return [(a, Mistake(b, int(wrong[a, b]), int(wrong[a, b]) / int(totals[a]))) for a, b in pairs]
