"""Eager forward of nasnet-a-large against timm's in one run: float32 on a CPU, bfloat16 channels_last on a GPU.

python benchmarks/forward.py [--device cuda] [--rounds 5] [--size 331]       needs timm
"""

import argparse

import timm
import torch
from common import Clock, add_options, interleaved, machine, write

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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, default=331)
    add_options(parser)
    options = parser.parse_args()
    clock, rows, batches = Clock(options.minutes), [], (1, 8) if options.device == "cpu" else (64, 8, 1)
    if options.rehearse:
        options.size, options.rounds, batches = 64, 1, (1,)
    for batch in batches:
        if clock.over(f"a batch of {batch}"):
            continue
        seconds = compare(options.device, batch, options.size, options.rounds)
        ratio = seconds["ours"] / seconds["timm"]
        rows.append({"device": options.device, "batch": batch, "size": options.size, **seconds, "ratio": ratio})
        print(
            f"{options.device}, batch {batch}: ours {1000 * seconds['ours']:.1f} ms, "
            f"timm {1000 * seconds['timm']:.1f} ms, ratio {ratio:.3f}",
            flush=True,
        )
        write("forward" + ("_cuda" if options.device == "cuda" else ""), {"rows": rows}, options.rehearse)
    print(machine())
    clock.finish()


if __name__ == "__main__":
    main()
