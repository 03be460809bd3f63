"""Eager forward of nasnet-a-large against timm's in one run: CPU float32, and bf16 channels_last on a GPU if there is
one.

    python benchmarks/forward.py [--rounds 5] [--size 331]       needs timm
"""

import argparse

import timm
import torch
from common import interleaved, machine, write

import nasnet_zoo


@torch.inference_mode()
def compare(device: str, batch: int, size: int, rounds: int) -> dict[str, float]:
    """Median seconds of a forward pass of ours and timm's."""
    ours = nasnet_zoo.create("nasnet-a-large").eval().to(device)
    theirs = timm.create_model("nasnetalarge", num_classes=1000).eval().to(device)
    x = torch.randn(batch, 3, size, size, device=device)
    if device == "cuda":
        ours, theirs = (m.to(torch.bfloat16, memory_format=torch.channels_last) for m in (ours, theirs))
        x = x.to(torch.bfloat16, memory_format=torch.channels_last)
    return interleaved({"ours": lambda: ours(x), "timm": lambda: theirs(x)}, rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, default=331)
    options = parser.parse_args()
    rows = []
    for device in ["cpu"] + (["cuda"] if torch.cuda.is_available() else []):
        for batch in (1, 8) if device == "cpu" else (1, 8, 64):
            seconds = compare(device, batch, options.size, options.rounds)
            ratio = seconds["ours"] / seconds["timm"]
            rows.append({"device": device, "batch": batch, "size": options.size, **seconds, "ratio": ratio})
            print(
                f"{device}, batch {batch}: ours {1000 * seconds['ours']:.1f} ms, timm {1000 * seconds['timm']:.1f} ms, "
                f"ratio {ratio:.3f}",
                flush=True,
            )
    print(machine())
    write("forward", {"rows": rows})


if __name__ == "__main__":
    main()
