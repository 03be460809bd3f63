"""Draws what weights.py has written: accuracy against the minutes of training.

python benchmarks/weights_curve.py benchmarks/results/weights.json PICTURE     (.svg or .png)
"""

import argparse
from pathlib import Path
from typing import Any

from common import in_a_sentence

from nasnet_zoo.arch.checks import read_json
from nasnet_zoo.errors import ConfigError
from nasnet_zoo.util.charts import AMBER, BLUE, chart


def draw(record: dict[str, Any], path: Path) -> None:
    """Draws a record; ConfigError if it is none of weights.py's."""
    try:
        points = [(each["seconds"] / 60, 100 * each["accuracy"]) for each in record["curve"]]
        label, test = record["curve_of"], 100 * record["accuracy"]["cifar10_test_top1"]
        title = f"{record['cell']}, {record['parameters'] / 1e6:.1f} M parameters"
    except (KeyError, TypeError) as error:
        raise ConfigError(
            f"this is no record of benchmarks/weights.py (it has no {error}): name another file"
        ) from error
    with chart(path, (7, 4)) as figure:
        axes = figure.add_subplot()
        axes.plot(*zip(*points), color=BLUE, marker=".", label=label)
        axes.plot(points[-1][0], test, "o", color=AMBER, label=f"test pictures, once: {test:.2f} %")
        axes.set(xlabel="minutes", ylabel="accuracy, per cent", title=title, xlim=(0, None))
        axes.grid()
        axes.legend(loc="lower right", edgecolor="none")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("record", type=Path)
    parser.add_argument("picture", type=Path)
    arguments = parser.parse_args()
    draw(read_json(arguments.record, "record"), arguments.picture)


if __name__ == "__main__":
    in_a_sentence(main)
