"""The family's model card, made from the table of models: `python tools/family_card.py > MODEL_CARD.md`."""

from nasnet_zoo.registry import MODELS, ModelInfo, stated

HEAD = """# Model card: the nasnet_zoo family

Made by `make card` from the table in `nasnet_zoo/models.py`; do not edit it by hand.

**What they are.** Image classifiers built of cells that an architecture search found: NASNet-A, PNASNet-5,
the AmoebaNets, ENAS and the DARTS family. One program builds all of them from their genotype and scale; NASNet and
PNASNet agree with TF-slim's networks to float32 rounding (docs/fidelity.md).

**What they are for.** Classifying photographs into ImageNet's 1000 or CIFAR-10's 10 classes, transfer to other tasks,
and research on architecture search. They are not suitable for decisions about people, and have the biases of the
photographs and labels that were collected from the web.

**Licence.** Apache-2.0, for the code and for the weights listed here.

Parameters and multiply-adds are counted exactly, for one picture of the stated size and without the auxiliary head.
"Published" is what the paper prints; where it differs from our count, docs/fidelity.md gives the reason if it is known.
Accuracies are those of the papers or publishers. This project has measured only those that say so.
"""


def _amount(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value / 1e9:.2f} G" if value >= 1e9 else f"{value / 1e6:.1f} M"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _row(model: ModelInfo) -> str:
    published, cost = model.published, model.cost
    cells = (
        f"`{model.name}`",
        str(model.config.preprocess.size[0]),
        f"{cost.parameters:,}",
        _amount(published.parameters),
        f"{cost.multiply_adds:,}",
        _amount(published.multiply_adds),
        _percent(published.top1),
        _percent(published.top5),
        published.source,
        model.paper,
    )
    return f"| {' | '.join(cells)} |"


def _weights() -> list[str]:
    lines = ["## Weights", "", "| name and tag | form | address | top-1 / top-5 % | who says so |", "| --- " * 5 + "|"]
    for model in MODELS.values():
        for source in model.weights:
            address, accuracy, who = stated(source)
            lines.append(f"| `{model.name}.{source.tag}` | {source.form} | {address} | {accuracy} | {who} |")
    return lines


def card() -> str:
    """MODEL_CARD.md's text."""
    table = [
        "## Models",
        "",
        "| model | px | parameters | published | multiply-adds | published | top-1 % | top-5 % | source | paper |",
        "| --- " * 10 + "|",
        *(_row(model) for model in MODELS.values()),
    ]
    return "\n".join([HEAD, *table, "", *_weights()]) + "\n"


if __name__ == "__main__":
    print(card(), end="")
