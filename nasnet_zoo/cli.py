"""The command line: `nasnet-zoo COMMAND --help` explains each command. Torch is imported only by those that need it."""

import json
import sys
import textwrap
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from . import __version__
from .devices import check_device
from .errors import ZooError
from .models import MODELS, get_model, list_models

app = typer.Typer(
    name="nasnet-zoo",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # brackets in the help are meant as they stand
)
console = Console(markup=False)  # names of files and models are meant as they stand too

SHIPPED = "nasnet-a-cifar-small"
ModelOption = Annotated[str, typer.Option("--model", "-m", help="Zoo name, name.tag, org/repo[@revision] or folder.")]
DeviceOption = Annotated[str | None, typer.Option(help="Where to run: cpu, cuda, ...; a GPU if there is one.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def _version(asked: bool) -> None:
    if asked:
        print(f"nasnet-zoo {__version__}")
        raise typer.Exit()


def main() -> None:
    """Runs the command line; an error the user can mend becomes one sentence and exit code 2."""
    from . import cli_export, cli_search  # noqa: F401 - they register their commands

    try:
        app()
    except ZooError as error:
        print(f"nasnet-zoo: {error}", file=sys.stderr)
        sys.exit(2)


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", is_eager=True, callback=_version)
    ] = False,
) -> None:
    """A model zoo for NASNet and its relatives."""


def _million(value: float | None) -> str:
    return "" if value is None else f"{value / 1e6:,.1f} M" if value < 1e9 else f"{value / 1e9:,.1f} G"


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=1))


@app.command("list")
def list_command(
    pattern: Annotated[str, typer.Argument(help="A shell pattern, quoted.")] = "*",
    pretrained: Annotated[bool, typer.Option(help="Only models that have weights.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List the models of the zoo."""
    names = list_models(pattern, pretrained)
    if as_json:
        _print_json(names)
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
        table.add_row(name, str(size), _million(cost.parameters), _million(cost.multiply_adds), top1, weights)
    console.print(table)


@app.command()
def info(name: Annotated[str, typer.Argument(help="A zoo name.")], as_json: JsonOption = False) -> None:
    """Show a model's scale, size, cost, published figures and weights."""
    from .card import stated

    model = get_model(name)
    cost, config, published = model.cost, model.config, model.published
    if as_json:
        weights = [vars(source) for source in model.weights]
        counted = {"parameters": cost.parameters, "multiply_adds": cost.multiply_adds}
        record = {"name": name, "description": model.description, "paper": model.paper, "license": model.license}
        _print_json({**record, **counted, "published": vars(published), "weights": weights, "config": config.to_json()})
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
        ("parameters", f"{cost.parameters:,} (published: {_million(published.parameters) or 'none'})"),
        ("multiply-adds", f"{cost.multiply_adds:,} (published: {_million(published.multiply_adds) or 'none'})"),
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
    from .architectures import find_architecture
    from .kinds import get_kind

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
    network = _loaded(model, device)
    records = []
    for path in images:
        start = time.perf_counter()
        predictions = network.predict(path, k=top)
        milliseconds = round(1000 * (time.perf_counter() - start), 1)
        records.append({"image": str(path), "ms": milliseconds, "top": [vars(p) for p in predictions]})
    if as_json:
        _print_json(records)
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
    batch_size: Annotated[int, typer.Option(min=1, help="Pictures at a time; of a folder at most 32.")] = 250,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a model's top-1 and top-5 accuracy on labelled pictures."""
    from .datasets import CIFAR_FOLDER, cifar10_pictures, evaluate_folder, labelled_folder
    from .train.data import check_cifar10
    from .train.loop import evaluate

    network = _loaded(model, device)
    with _progress() as progress:
        task = progress.add_task("evaluating", total=None)

        def on_batch(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        if data == "cifar10" or (Path(data) / CIFAR_FOLDER).is_dir():
            check_cifar10(network.config)
            pictures = cifar10_pictures(None if data == "cifar10" else data, train=False)
            pictures, count = pictures.to(next(network.parameters()).device), len(pictures)
            top1, top5 = evaluate(network, pictures, batch_size, on_batch)
        else:
            files = labelled_folder(data, network)
            count = len(files)
            top1, top5 = evaluate_folder(network, files, min(batch_size, 32), on_batch)
    if as_json:
        _print_json({"model": model, "data": data, "pictures": count, "top1": top1, "top5": top5})
    else:
        console.print(f"{model} on {count:,} pictures of {data}: top-1 {top1:.2%}, top-5 {top5:.2%}", soft_wrap=True)


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(help="TF-slim checkpoint or tar.gz, Keras .h5, .pth or .safetensors.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The checkpoint folder to write.")],
    model: Annotated[str, typer.Option("--model", "-m", help="The zoo name of the architecture, or a config.json.")],
    half: Annotated[bool, typer.Option("--float16", help="Store the weights as float16.")] = False,
) -> None:
    """Convert foreign weights into a checkpoint folder."""
    from .architectures import find_config
    from .convert.files import convert_file

    convert_file(source, find_config(model), out, half)
    console.print(f"wrote {out}", soft_wrap=True)


@app.command()
def train(
    out: Annotated[Path, typer.Option("--out", "-o", help="The run folder; a training that is there goes on.")],
    model: Annotated[str, typer.Option("--model", "-m", help="The zoo name of the architecture, or a config.json.")],
    recipe: Annotated[str, typer.Option(help="The name of a recipe.")] = "cifar-quick",
    data: Annotated[str, typer.Option(help="cifar10, or a folder that holds it.")] = "cifar10",
    seed: Annotated[int, typer.Option(help="Of the first weights and of the augmentation.")] = 0,
    device: DeviceOption = None,
) -> None:
    """Train a model. Interrupted, the same command goes on where it stopped."""
    from .architectures import find_config
    from .train.run import train_cifar10

    with _progress() as progress:
        task = progress.add_task("training", total=None)

        def on_step(done: int, total: int, note: str) -> None:
            progress.update(task, completed=done, total=total, description=note)

        folder = None if data == "cifar10" else data
        top1, _ = train_cifar10(find_config(model), recipe, out, folder, seed, _device(device), on_step)
    console.print(f"wrote {out / 'checkpoint'}: top-1 {top1:.2%} on the test pictures", soft_wrap=True)


def _device(device: str | None) -> str:
    if device is None:
        import torch

        return "cuda" if torch.cuda.is_available() else "cpu"
    check_device(device)
    return device


def _loaded(model: str, device: str | None):
    from .loading import load

    return load(model, device=_device(device))


def _progress():
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


if __name__ == "__main__":  # the other commands register with the module, not with this copy of it
    from nasnet_zoo.cli import main as registered

    registered()
