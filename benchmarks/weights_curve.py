"""Draws what weights.py and shelf_record.py have written: accuracy against the minutes of training.

python benchmarks/weights_curve.py benchmarks/results/weights.json [MORE.json ...] PICTURE     (.svg or .png)
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common import in_a_sentence

from nasnet_zoo.arch.checks import read_json
from nasnet_zoo.errors import ConfigError
from nasnet_zoo.util.charts import AMBER, BLUE, PLUM, chart

COLOURS = BLUE, AMBER, PLUM


def draw(records: Sequence[dict[str, Any]], path: Path) -> None:
    """Draws up to three records; ConfigError if one is none of those scripts'."""
    if len(records) > len(COLOURS):
        raise ConfigError(f"{len(records)} records are too many for a picture: name up to {len(COLOURS)}")
    try:
        lines = [_line(record) for record in records]
    except (KeyError, TypeError) as error:
        raise ConfigError(
            f"this is no record of benchmarks/weights.py (it has no {error}): name another file"
        ) from error
    with chart(path, (7, 4)) as figure:
        axes = figure.add_subplot()
        for (name, curve_of, points, test), colour in zip(lines, COLOURS):
            axes.plot(*zip(*points), color=colour, marker=".", label=f"{name}: {curve_of}")
            axes.plot(
                points[-1][0], test, "o", ms=9, mfc="none", color=colour, label=f"test pictures, once: {test:.2f} %"
            )
        axes.set(xlabel="minutes", ylabel="accuracy, per cent", xlim=(0, None))
        axes.grid()
        # Above: a curve may go anywhere.
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), edgecolor="none")


def _line(record: dict[str, Any]) -> tuple[str, str, list[tuple[float, float]], float]:
    """A record's name, what its curve is of, the curve's points, and the accuracy on the test pictures."""
    points = [(each["seconds"] / 60, 100 * each["accuracy"]) for each in record["curve"]]
    name = f"{record['cell']}, {record['parameters'] / 1e6:.1f} M parameters"
    return name, record["curve_of"], points, 100 * record["accuracy"]["cifar10_test_top1"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("records", type=Path, nargs="+")
    parser.add_argument("picture", type=Path)
    arguments = parser.parse_args()
    draw([read_json(path, "record") for path in arguments.records], arguments.picture)


if __name__ == "__main__":
    in_a_sentence(main)
