"""The commands of the zoo itself: list, draw, predict, eval, convert."""

import textwrap
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from ..errors import ZooError
from ..registry import MODELS, ModelInfo, accuracy, list_models, stated
from .app import (
    SHIPPED,
    ArchitectureArgument,
    ConfigOption,
    DeviceOption,
    JsonOption,
    ModelOption,
    app,
    classifier,
    console,
    loaded,
    million,
    print_json,
    print_table,
    progress_bar,
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

    kind, architecture, title = find_architecture(what)
    get_kind(kind).draw(architecture, out, title=title)
    console.print(f"wrote {out}", soft_wrap=True)


@app.command()
def predict(
    images: Annotated[list[Path], typer.Argument(help="Pictures.")],
    model: ModelOption = SHIPPED,
    top: Annotated[int, typer.Option("--top", "-k", min=1, help="How many classes to show.")] = 5,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Classify pictures and print the most probable classes."""
    network = classifier(model, device)
    records = []
    for path in images:
        start = time.perf_counter()
        predictions = network.predict(path, k=top)
        milliseconds = round(1000 * (time.perf_counter() - start), 1)
        records.append({"image": str(path), "ms": milliseconds, "top": [vars(p) for p in predictions]})
    if as_json:
        print_json(records)
    else:
        console.print(_predictions_table(records))


def _predictions_table(records: list[dict[str, Any]]) -> Table:
    """A row per picture: the most probable class, then the others in as many lines as the terminal's width needs."""
    widest = 24  # of a picture's or a class's name; longer ones are folded
    tops = [[(str(p["label"] or p["index"]), f"{p['probability']:.1%}") for p in record["top"]] for record in records]
    names = [Path(record["image"]).name for record in records]
    times = [f"{record['ms']:.0f}" for record in records]
    columns = (["picture", *names], ["class", *(top[0][0] for top in tops)], ["ms", *times])
    fixed = [min(max(map(len, texts)), widest) for texts in columns]
    room = console.width - sum(fixed) - len("100.0%") - 10  # 10: the spaces between and around five columns
    table = Table(box=None)
    table.add_column("picture", max_width=widest, overflow="fold")
    table.add_column("class", max_width=widest, overflow="fold", style="bold")
    table.add_column("", justify="right")
    table.add_column("then" if len(tops[0]) > 1 else "")
    table.add_column("ms", justify="right")
    for name, (first, *others), milliseconds in zip(names, tops, times):
        # Lines break between classes only: within one, the spaces are no-break spaces until the lines are made.
        then = ", ".join(f"{label} {probability}".replace(" ", "\xa0") for label, probability in others)
        lines = textwrap.wrap(then, max(room, 12), break_long_words=False, break_on_hyphens=False)
        table.add_row(name, *first, "\n".join(lines).replace("\xa0", " "), milliseconds)
    return table


@app.command("eval")
def eval_command(
    data: Annotated[
        str, typer.Option(help="cifar10, or a folder: CIFAR-10's, one subfolder per class, or labels.csv.")
    ],
    model: ModelOption = SHIPPED,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Pictures at a time; at most 32 if they come from a folder.")
    ] = 250,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a model's top-1 and top-5 accuracy on labelled pictures."""
    from ..data.cifar import CIFAR_FOLDER, check_cifar10, cifar10_pictures
    from ..data.folders import labelled_folder
    from ..training.evaluate import evaluate, evaluate_folder

    network = loaded(model, device)
    with progress_bar() as progress:
        task = progress.add_task("evaluating", total=None, unit="pictures")

        def on_batch(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        if data == "cifar10" or (Path(data) / CIFAR_FOLDER).is_dir():
            check_cifar10(network.config)
            pictures = cifar10_pictures(None if data == "cifar10" else data, train=False)
            pictures, count = pictures.to(next(network.parameters()).device), len(pictures)
            top1, top5 = evaluate(network, pictures, batch_size, on_batch)
        else:
            files = labelled_folder(data, network.labels, network.config.num_classes)
            count = len(files)
            top1, top5 = evaluate_folder(network, files, min(batch_size, 32), on_batch)
    if as_json:
        print_json({"model": model, "data": data, "pictures": count, "top1": top1, "top5": top5})
    else:
        console.print(f"{model} on {count:,} pictures of {data}: top-1 {top1:.2%}, top-5 {top5:.2%}", soft_wrap=True)


@app.command()
def convert(
    source: Annotated[
        Path,
        typer.Argument(help="TF-slim checkpoint or tar.gz, Keras .h5, .safetensors, .pth, .pth.tar, .pt, .ckpt."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The checkpoint folder to write.")],
    model: ConfigOption,
    half: Annotated[bool, typer.Option("--float16", help="Store the weights as float16.")] = False,
) -> None:
    """Convert foreign weights, or the checkpoint of your own training, into a checkpoint folder."""
    from ..lookup import find_config
    from ..weights.foreign import convert_file
    from ..weights.training_checkpoint import AVERAGED

    entry = convert_file(source, find_config(model), out, half)
    what = "the averaged weights, " if entry in AVERAGED else ""
    console.print(f"wrote {out}" + (f": {what}the file's {entry}" if entry else ""), soft_wrap=True)
