"""What the commands share: the application, its options, and how it prints."""

import json
from typing import Annotated, Any

import typer
from rich.console import Console

from .. import __version__
from ..util.environment import check_device

app = typer.Typer(
    name="nasnet-zoo",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # brackets in the help are literal
)
console = Console(markup=False)  # brackets in names of files and models are literal too

SHIPPED = "nasnet-a-cifar-small"
# What every command takes that needs weights, an architecture with its size, or only the architecture.
WEIGHTS = "Zoo name, name.tag, checkpoint or training folder, or org/repo[@revision]"
CONFIG = "Zoo name, config.json, checkpoint or training folder, or org/repo[@revision]"
ARCHITECTURE = f"Genotype's name or JSON file, search folder, best.json; or: {CONFIG}"
GRAPH = "or an exported graph's folder"
ModelOption = Annotated[str, typer.Option("--model", "-m", help=f"{WEIGHTS}, {GRAPH}.")]
DeviceOption = Annotated[
    str | None, typer.Option(help="Where to run: cpu, cuda, ...; by default a GPU if there is one.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def _version(asked: bool) -> None:
    if asked:
        print(f"nasnet-zoo {__version__}")
        raise typer.Exit()


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", is_eager=True, callback=_version)
    ] = False,
) -> None:
    """A model zoo for NASNet and its relatives."""


def million(value: float | None) -> str:
    return "" if value is None else f"{value / 1e6:,.1f} M" if value < 1e9 else f"{value / 1e9:,.1f} G"


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=1))


def chosen_device(device: str | None) -> str:
    if device is None:
        import torch

        return "cuda" if torch.cuda.is_available() else "cpu"
    check_device(device)
    return device


def loaded(model: str, device: str | None):
    from ..weights.loading import load

    return load(model, device=chosen_device(device))


def classifier(model: str, device: str | None):
    """The network that a user named, or the session of an exported graph: both have `predict` and `labels`."""
    from ..lookup import identify

    if identify(model).form != "export":
        return loaded(model, device)
    from nasnet_zoo.export import Session

    return Session(model, None if device is None else [device.partition(":")[0]])


def progress_bar():
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
