"""The commands of the zoo itself: list, draw, convert."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from ..errors import ConfigError, ZooError
from ..registry import MODELS, ModelInfo, accuracy, list_models, stated
from .app import (
    ArchitectureArgument,
    ConfigOption,
    JsonOption,
    app,
    console,
    million,
    print_json,
    print_table,
)

DATA = {"imagenet-1k": "ImageNet", "cifar10": "CIFAR-10"}  # by the label set


@app.command("list")
def list_command(
    pattern: Annotated[str, typer.Argument(help="A shell pattern in quotes, such as 'nasnet-*'.")] = "*",
    pretrained: Annotated[bool, typer.Option(help="Only models that have weights.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List the models of the zoo."""
    models = [MODELS[name] for name in list_models(pattern, pretrained)]
    if as_json:
        print_json([_row(model) for model in models])
        return
    if not models:
        raise ZooError(f"no model matches {pattern!r}; `nasnet-zoo list` shows them all")
    table = Table(box=None, pad_edge=False)
    for column in ("model", "px", "params", "madds", "data", "top-1 %", "weights"):
        table.add_column(column, no_wrap=True, justify="right" if column in ("px", "params", "madds") else "left")
    top1 = {model.name: _top1(model) for model in models}
    for model in models:
        figures = (model.config.preprocess.size[0], million(model.cost.parameters), million(model.cost.multiply_adds))
        tags = " ".join(f".{source.tag}" for source in model.weights)
        table.add_row(model.name, *map(str, figures), DATA.get(model.config.labels, ""), top1[model.name], tags)
    print_table(table)
    if any("*" in text for text in top1.values()):
        console.print("* measured here, of the weights; the others are the papers'", soft_wrap=True)
    for model in [model for model in models if model.weights][:1]:
        console.print(f"weights: {model.name}.{model.weights[0].tag} names those of one source", soft_wrap=True)


def _top1(model: ModelInfo) -> str:
    """The paper's, or with a star behind it that of the weights."""
    if model.published.top1 is not None:
        return f"{model.published.top1:6.2f}"
    return next((f"{found[0]:6.2f}*" for found in map(accuracy, model.weights) if found), "")


def _row(model: ModelInfo) -> dict[str, Any]:
    """What `list` says of a model."""
    figures = [(source, accuracy(source) or (None, None)) for source in model.weights]
    return {
        "name": model.name,
        "labels": model.config.labels,
        "classes": model.config.num_classes,
        "px": model.config.preprocess.size,
        "parameters": model.cost.parameters,
        "multiply_adds": model.cost.multiply_adds,
        "published": {"top1": model.published.top1, "top5": model.published.top5, "source": model.published.source},
        "weights": [
            {"name": f"{model.name}.{source.tag}", "top1": top1, "top5": top5, "source": stated(source)[2]}
            for source, (top1, top5) in figures
        ],
    }


@app.command()
def draw(
    what: ArchitectureArgument,
    out: Annotated[Path, typer.Option("--out", "-o", help="The picture to write: .svg or .png.")],
) -> None:
    """Draw the cells of an architecture."""
    from ..arch.kinds import get_kind
    from ..lookup import find_architecture

    kind, architecture, title, *_ = find_architecture(what)
    get_kind(kind).draw(architecture, out, title=title)
    console.print(f"wrote {out}", soft_wrap=True)


@app.command()
def convert(
    source: Annotated[
        Path,
        typer.Argument(
            help="TF-slim checkpoint or tar.gz, Keras .h5, .safetensors, .pth, .pth.tar, .pt, .ckpt; or a training's "
            "folder or a checkpoint, which know their network."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The checkpoint folder to write.")],
    model: ConfigOption = None,
    half: Annotated[bool, typer.Option("--float16", help="Store the weights as float16.")] = False,
) -> None:
    """Convert foreign weights, or the checkpoint of your own training, into a checkpoint folder with a card."""
    from ..lookup import CONFIG as CONFIG_FILE
    from ..lookup import find_config, identify_path
    from ..weights.cards import write_card
    from ..weights.checkpoint import copy_checkpoint
    from ..weights.foreign import convert_file
    from ..weights.training_checkpoint import averages

    named = identify_path(source) if source.exists() else None
    if named is not None and model is not None and source.is_dir() and named.form in ("checkpoint", "training"):
        raise ConfigError(f"{source} knows its network: leave -m away")
    if named is not None and model is None:
        if named.form == "training" and not (named.path / CONFIG_FILE).is_file():
            raise named.refused("and has no checkpoint yet")
        if named.form in ("checkpoint", "training"):
            copy_checkpoint(named.path, out, "float16" if half else None)
            write_card(out)
            console.print(f"wrote {out}", soft_wrap=True)
            return
        if named.form not in ("foreign", "file", "folder", "half"):
            raise named.refused("and a file of weights, a checkpoint or a training is needed here")
    if model is None:
        problem = "does not say of which network it holds the weights" if source.exists() else "is not there"
        raise ConfigError(f"{source} {problem}: name a file that is, and its network with -m")
    entry = convert_file(source, find_config(model), out, half)
    what = "the averaged weights, " if entry and averages(entry) else ""
    write_card(out)
    console.print(f"wrote {out}" + (f": {what}the file's {entry}" if entry else ""), soft_wrap=True)
