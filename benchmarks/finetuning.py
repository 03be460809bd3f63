"""Fine-tuning against training from scratch: a shipped network on 10 classes of 100 pictures of Tiny ImageNet.

    python benchmarks/finetuning.py        three seeds; about an hour on one core, resumed where it was stopped

The pictures are the first 100 of each of the first 10 classes' training folders, measured on those classes' 500
validation pictures. Fine-tuned with the recipe `finetune`, and the same network with fresh weights with the recipe
`scratch`, three times as long, whose other settings are alike.
"""

import argparse
import statistics
import tempfile
import zipfile
from pathlib import Path

import torch
from common import SHARED, add_options, write

import nasnet_zoo
from nasnet_zoo.data.sets import find_data
from nasnet_zoo.training.recipes import find_recipe
from nasnet_zoo.training.run import train

ARCHIVE = SHARED / "data" / "tiny-imagenet-50" / "tiny-imagenet-50.zip"
RUNS = Path(__file__).parents[1] / "runs" / "finetuning"
MODEL = "nasnet-a-cifar-small"


def unpack(folder: Path, classes: int, pictures: int) -> None:
    """The first pictures of the first classes, in the order of their numbers, as train/ and val/."""
    with zipfile.ZipFile(ARCHIVE) as archive:
        names = [name for name in archive.namelist() if name.endswith((".JPEG", ".jpg"))]
        chosen = sorted({name.split("/")[-2] for name in names if "train/" in name})[:classes]
        for split, count in (("train", pictures), ("val", None)):
            for each in chosen:
                own = [name for name in names if f"{split}/{each}/" in name]
                for name in sorted(own, key=lambda name: (len(name), name))[:count]:
                    target = folder / split / each / Path(name).name
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(archive.read(name))


def accuracy(data: Path, way: str, seed: int, epochs: int | None) -> float:
    """Top-1 on the validation pictures after the last epoch."""
    labels = find_data(data).labels
    torch.manual_seed(seed)
    if way == "finetune":
        network = nasnet_zoo.load(MODEL)
        network.reset_classifier(labels=labels)
    else:
        network = nasnet_zoo.create(MODEL, labels=labels)
    recipe = find_recipe(way, {} if epochs is None else {"epochs": epochs})
    folder = RUNS / f"{way}-{seed}" if epochs is None else None
    history = train(network, str(data), recipe, seed=seed, folder=folder, workers=1, on_epoch=print)
    return history[-1].metrics["top1"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    seeds, epochs = (1, 3) if arguments.rehearse else (arguments.seeds, None)
    with tempfile.TemporaryDirectory() as temporary:
        data = Path(temporary)
        unpack(data, 10, 20 if arguments.rehearse else 100)
        found = {way: [accuracy(data, way, seed, epochs) for seed in range(seeds)] for way in ("finetune", "scratch")}
    differences = [a - b for a, b in zip(found["finetune"], found["scratch"])]
    for way, values in found.items():
        print(f"{way:9} {statistics.mean(values):.2%}  ({', '.join(f'{value:.1%}' for value in values)})")
    print(f"fine-tuning is better by {100 * statistics.mean(differences):.1f} points on average")
    write("finetuning", {"top1": found, "difference": statistics.mean(differences)}, arguments.rehearse)


if __name__ == "__main__":
    main()
