"""What the maps of a forward pass hold at their fullest: `cost.peak_values` against the tensors that live meanwhile.

python benchmarks/memory.py            two minutes, and 2 GB
"""

import torch
from common import write
from live_bytes import peak_bytes

import nasnet_zoo
from nasnet_zoo.arch.cost import peak_values

MODELS = ("nasnet-a-mobile", "nasnet-a-large", "pnasnet-5-large", "darts-v2-mobile")


def main() -> None:
    rows = []
    print(f"{'model':16} {'pixels':>6} {'predicted':>12} {'measured':>12} {'ratio':>7}")
    for name in MODELS:
        network = nasnet_zoo.create(name).eval()
        size = network.config.preprocess.size
        predicted = 4 * peak_values(network.config.plan, size)
        measured = peak_bytes(network, torch.randn(1, network.config.in_channels, *size))
        print(f"{name:16} {size[0]:6} {predicted:12,} {measured:12,} {predicted / measured:7.4f}")
        rows.append({"model": name, "size": size, "predicted_bytes": predicted, "measured_bytes": measured})
    write("memory", {"batch": 1, "rows": rows})


if __name__ == "__main__":
    main()
