"""A search that takes a second: children whose accuracy is a fixed function of their ops."""

from typing import Any

from nasnet_zoo.search import SearchConfig, SpaceSettings, run
from nasnet_zoo.search.children.base import Reports


class ToyChild:
    """The share of separable convolutions among the ops, and a little for where they are, so that few cells tie."""

    def prepare(self, device: str) -> None:
        pass

    def __call__(self, architecture: Any, seed: int) -> dict[str, Any]:
        edges = [edge for cell in (architecture.normal, architecture.reduction) for b in cell.blocks for edge in b[:2]]
        worth = sum((1 + i / 100) * edge.op.startswith("sep") for i, edge in enumerate(edges))
        tie = sum((i + 1) * edge.state for i, edge in enumerate(edges)) / 1e6
        return {"accuracy": worth / (1.2 * len(edges)) + tie}


class LearningChild(ToyChild):
    """It comes to that accuracy in nine epochs, from below, some sooner than others."""

    def __call__(self, architecture: Any, seed: int, report: Reports) -> dict[str, Any]:
        end = super().__call__(architecture, seed)["accuracy"]
        for epoch in range(1, 10):
            report(epoch, {"accuracy": end - (0.3 + seed % 100 / 1000) * (1 - epoch / 9)})
        return {"accuracy": end}


def toy_config(folder, children: int, **changes) -> SearchConfig:
    options = dict(space=SpaceSettings("nasnet", blocks=2), searcher="random", children=children)
    return SearchConfig(str(folder), **{**options, **changes})


def toy_run(folder, children: int, keep_distinct: bool = False, **changes):
    """A finished toy search in `folder`; `keep_distinct` trains no architecture twice."""
    repeats = "serve" if keep_distinct else "train"
    return run(toy_config(folder, children, repeats=repeats, **changes), child=ToyChild())
