"""The commands of the zoo itself: list, info, draw, convert."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from ..errors import ZooError
from ..registry import MODELS, get_model, list_models, stated
from .app import JsonOption, app, console, million, print_json


@app.command("list")
def list_command(
    pattern: Annotated[str, typer.Argument(help="A shell pattern in quotes, such as 'nasnet-*'.")] = "*",
    pretrained: Annotated[bool, typer.Option(help="Only models that have weights.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List the models of the zoo."""
    names = list_models(pattern, pretrained)
    if as_json:
        print_json(names)
        return
    if not names:
        raise ZooError(f"no model matches {pattern!r}; `nasnet-zoo list` shows them all")
    table = Table(box=None)
    for column in ("model", "px", "params", "madds", "top-1 %", "weights"):
        table.add_column(column, no_wrap=True)
    for name in names:
        model = MODELS[name]
        cost, size = model.cost, model.config.preprocess.size[0]
        weights = ", ".join(source.tag for source in model.weights)
        top1 = f"{model.published.top1:.2f}" if model.published.top1 else ""
        table.add_row(name, str(size), million(cost.parameters), million(cost.multiply_adds), top1, weights)
    console.print(table)


@app.command()
def info(name: Annotated[str, typer.Argument(help="A zoo name.")], as_json: JsonOption = False) -> None:
    """Show a model's scale, size, cost, published figures and weights."""
    model = get_model(name)
    cost, config, published = model.cost, model.config, model.published
    if as_json:
        weights = [vars(source) for source in model.weights]
        counted = {"parameters": cost.parameters, "multiply_adds": cost.multiply_adds}
        record = {"name": name, "description": model.description, "paper": model.paper, "license": model.license}
        print_json({**record, **counted, "published": vars(published), "weights": weights, "config": config.to_json()})
        return
    prepared = config.preprocess
    figures = ", ".join(f"{kind} {v} %" for kind, v in (("top-1", published.top1), ("top-5", published.top5)) if v)
    table = Table(box=None, show_header=False)
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    for key, value in (
        ("model", f"{name}: {model.description}"),
        ("paper", f"{model.paper}; licence of the weights {model.license}"),
        ("scale", ", ".join(f"{field} {value}" for field, value in vars(config.scale).items())),
        (
            "picture",
            f"{prepared.size[0]} x {prepared.size[1]} px, middle {prepared.crop:.1%}, {prepared.interpolation}",
        ),
        ("mean, std", f"{list(prepared.mean)}, {list(prepared.std)}"),
        ("classes", f"{config.num_classes} ({config.labels})"),
        ("parameters", f"{cost.parameters:,} (published: {million(published.parameters) or 'none'})"),
        ("multiply-adds", f"{cost.multiply_adds:,} (published: {million(published.multiply_adds) or 'none'})"),
        ("published", f"{figures or 'nothing'}: {published.source}"),
        *([] if model.weights else [("weights", "none yet: nasnet_zoo.create() gives it freshly initialised")]),
    ):
        table.add_row(key, value)
    for source in model.weights:
        address, accuracy, who = stated(source)
        measured = "" if accuracy == "-" else f"; top-1 / top-5 {accuracy} % ({who})"
        table.add_row("weights", f"{name}.{source.tag}: {source.form}, {address}{measured}")
    console.print(table)


@app.command()
def draw(
    what: Annotated[
        str, typer.Argument(help="A genotype's or model's name, or a JSON file with a genotype or config.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The picture to write: .svg or .png.")],
) -> None:
    """Draw the cells of an architecture."""
    from ..arch.kinds import get_kind
    from ..lookup import find_architecture

    kind, architecture, title = find_architecture(what)
    get_kind(kind).draw(architecture, out, title=title)
    console.print(f"wrote {out}", soft_wrap=True)


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(help="TF-slim checkpoint or tar.gz, Keras .h5, .pth or .safetensors.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The checkpoint folder to write.")],
    model: Annotated[str, typer.Option("--model", "-m", help="The zoo name of the architecture, or a config.json.")],
    half: Annotated[bool, typer.Option("--float16", help="Store the weights as float16.")] = False,
) -> None:
    """Convert foreign weights into a checkpoint folder."""
    from ..lookup import find_config
    from ..weights.foreign import convert_file

    convert_file(source, find_config(model), out, half)
    console.print(f"wrote {out}", soft_wrap=True)
