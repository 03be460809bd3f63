"""The child of the recorded searches in tests/golden/v1: its accuracy is made of the cell and the seed."""

import hashlib
from typing import Any

NAN_EVERY = 13  # one child in so many has no number to show


class GoldenChild:
    """Separable convolutions are good; a little luck comes from the seed."""

    def prepare(self, device: str) -> None:
        pass

    def __call__(self, architecture: Any, seed: int) -> dict[str, Any]:
        if seed % NAN_EVERY == 0:
            return {"accuracy": float("nan")}
        text = architecture if isinstance(architecture, str) else words(architecture)
        luck = hashlib.sha256(f"{text}/{seed}".encode()).digest()[0] / 2560
        good = text.count("sep_conv") + text.count("nor_conv_3x3")
        return {"accuracy": round(0.1 + 0.05 * good + luck, 6)}


def words(genotype: Any) -> str:
    """What every edge does, in order."""
    blocks = [block for cell in (genotype.normal, genotype.reduction) for block in cell.blocks]
    return " ".join(f"{e.state}:{e.op}" for b in blocks for e in (b.left, b.right)) + " ".join(
        b.combine for b in blocks
    )
