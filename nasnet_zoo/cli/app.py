"""What the commands share: the application, its options, and how it prints."""

import json
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from .. import __version__
from ..arch.genotypes import GENOTYPES
from ..registry import MODELS
from ..util.environment import check_device

app = typer.Typer(
    name="nasnet-zoo",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},  # of every command
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # brackets in the help are literal
)
console = Console(markup=False)  # brackets in names of files and models are literal too
_BLANK_END = re.compile(r" +(?=(\x1b\[\d*m)*$)")  # before the end of a style too

SHIPPED = "quick-ppo-cifar"


def model_names(incomplete: str) -> list[str]:
    """The zoo names that begin so, for the shell; behind a whole name, those with the tags of its weights too."""
    whole = [model for name, model in MODELS.items() if incomplete.startswith(name)]
    tagged = [f"{model.name}.{source.tag}" for model in whole for source in model.weights]
    return [name for name in (*MODELS, *tagged) if name.startswith(incomplete)]


def architecture_names(incomplete: str) -> list[str]:
    """The genotypes and models whose names begin so, for the shell."""
    return [name for name in (*GENOTYPES, *MODELS) if name.startswith(incomplete)]


# What every command takes that needs weights, a config, or only an architecture.
WEIGHTS = "Zoo name, name.tag, checkpoint or training folder, or org/repo[@revision]"
CONFIG = "Zoo name, config.json, checkpoint or training folder, or org/repo[@revision]"
ARCHITECTURE = f"Genotype's name or JSON file, search folder, best.json; or: {CONFIG}"
GRAPH = "or an exported graph's folder"
ModelOption = Annotated[str, typer.Option("--model", "-m", help=f"{WEIGHTS}, {GRAPH}.", autocompletion=model_names)]
ConfigOption = Annotated[
    str | None, typer.Option("--model", "-m", help=f"A file's architecture: {CONFIG}.", autocompletion=model_names)
]
WeightsArgument = Annotated[str, typer.Argument(help=f"{WEIGHTS}.", autocompletion=model_names)]
ModelArgument = Annotated[str, typer.Argument(help=f"{WEIGHTS}, {GRAPH}.", autocompletion=model_names)]
ArchitectureArgument = Annotated[str, typer.Argument(help=f"{ARCHITECTURE}.", autocompletion=architecture_names)]
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


def print_table(table: Table) -> None:
    """Prints a table as wide as the screen if its texts may wrap, or else whole: a narrow screen wraps the lines
    itself, and a name that is cut is of no use."""
    if console.is_terminal and not all(column.no_wrap for column in table.columns):
        console.print(table)
        return
    whole = Console(markup=False, width=1000)
    with whole.capture() as captured:
        whole.print(table)
    for line in captured.get().splitlines():
        print(_BLANK_END.sub("", line))  # or the blanks would wrap to lines of their own


def warn_untrained(network: Any, model: str) -> None:
    """Says of a network, a session or a graph's metadata that its classes mean nothing, if they do not."""
    if not network.trained:
        print(
            f"nasnet-zoo: {model} is not trained (its classifier has fresh weights), so its classes mean nothing: "
            f"train it first",
            file=sys.stderr,
        )


def chosen_device(device: str | None) -> str:
    if device is None:
        import torch

        return "cuda" if torch.cuda.is_available() else "cpu"
    check_device(device)
    return device


def classifier(model: str, device: str | None):
    """The network that a user named, or the session of an exported graph: both have `predict` and `labels`."""
    from ..lookup import identify

    if identify(model).form != "export":
        from ..weights.loading import load

        return load(model, device=chosen_device(device))
    from nasnet_zoo.export import Session

    return Session(model, None if device is None else [device.partition(":")[0]])


@contextmanager
def resumable(command: Callable[[], str] = lambda: "the same command", says: bool = True) -> Iterator[None]:
    """Says after Ctrl-C which command continues the work inside the block; of several processes one `says` it."""
    try:
        yield
    except KeyboardInterrupt:
        if says:
            print(f"nasnet-zoo: stopped; {command()} continues from here", file=sys.stderr)
        sys.exit(130)


def progress_bar(**options: Any):
    from ..util.progress import Progress

    return Progress(**options)
