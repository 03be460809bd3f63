"""Transfer to 600 M multiply-adds at 224 px from ten random genotypes of each cell space: how far below the target the
networks come out, and that each builds, runs and writes a config that reads back as it was.

    python benchmarks/search_transfer.py [--genotypes 10]
"""

import argparse
import json
import random
import tempfile

import torch
from common import write

import nasnet_zoo
from nasnet_zoo.arch.config import NetworkConfig
from nasnet_zoo.search.scaling import Target, Variant, transfer
from nasnet_zoo.search.spaces.table import SPACES, get_space

MULTIPLY_ADDS = 600e6


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--genotypes", type=int, default=10)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    record = {}
    for name in SPACES:
        space = get_space(name)
        if space.kind is None:
            continue
        rng, shares, sizes = random.Random(0), [], []
        for _ in range(arguments.genotypes):
            genotype = space.decode(space.sample(rng))
            config = transfer(genotype, Target(multiply_adds=MULTIPLY_ADDS))
            with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
                network = nasnet_zoo.create(config).eval()
                logits = network(torch.zeros(1, 3, *config.preprocess.size))
                assert logits.shape == (1, 1000) and torch.isfinite(logits).all(), (name, genotype)
                nasnet_zoo.save(network, folder)
                with open(f"{folder}/config.json", encoding="utf-8") as file:
                    assert NetworkConfig.from_json(json.load(file)["network"]) == config, (name, genotype)
            variant = Variant(config, config.scale.stages[0], config.scale.filters)
            shares.append(variant.cost.multiply_adds / MULTIPLY_ADDS)
            sizes.append(f"{variant.cells} @ {variant.penultimate}")
        record[name] = {"least": min(shares), "most": max(shares), "networks": sizes}
        print(f"{name}: {min(shares):.1%} to {max(shares):.1%} of the target; {', '.join(sizes)}", flush=True)
    write("search_transfer", {"target": MULTIPLY_ADDS, "spaces": record})


if __name__ == "__main__":
    main()
