"""Draws docs/predictions.png: photos, and the bars of what the shipped network says to each.

python tools/predictions_picture.py [OUT]
"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from PIL import Image

import nasnet_zoo
from nasnet_zoo.cli.app import SHIPPED
from nasnet_zoo.data.labels import example_pictures

RIGHT, WRONG, QUIET = "#2274a8", "#c05a2b", "#d3dade"
SHOWN = 3


def main(out: Path) -> None:
    photos = example_pictures("cifar10")
    answers = nasnet_zoo.load(SHIPPED).predict(photos, k=SHOWN)
    figure = plt.figure(figsize=(12, 4.2), layout="constrained")
    grid = figure.add_gridspec(2, 8, width_ratios=[1, 1.5] * 4, wspace=0.08, hspace=0.12)
    for index, (photo, answer) in enumerate(zip(photos, answers)):
        row, column = divmod(index, 4)
        axes = figure.add_subplot(grid[row, 2 * column])
        axes.imshow(Image.open(photo), interpolation="bicubic")
        axes.set_axis_off()
        bars = figure.add_subplot(grid[row, 2 * column + 1])
        best = RIGHT if answer[0].label == photo.stem else WRONG
        places = range(SHOWN, 0, -1)
        bars.barh(places, [1] * SHOWN, color="#eef1f3", height=0.32)
        bars.barh(places, [p.probability for p in answer], color=[best, *[QUIET] * (SHOWN - 1)], height=0.32)
        for place, prediction in zip(places, answer):
            bold = "bold" if place == SHOWN else "normal"
            bars.text(0, place + 0.24, prediction.label, va="bottom", fontsize=10, fontweight=bold, color="#22303c")
            bars.text(
                1, place + 0.24, f"{prediction.probability:.0%}", va="bottom", ha="right", fontsize=10, color="#566672"
            )
        bars.set_xlim(0, 1)
        bars.set_ylim(0.6, SHOWN + 0.75)
        bars.set_axis_off()
    figure.savefig(out, dpi=100)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/predictions.png"))
