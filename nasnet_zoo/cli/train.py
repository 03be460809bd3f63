"""The commands that train: train and finetune."""

from pathlib import Path
from typing import Annotated, Any

import typer
from click import Context, HelpFormatter
from rich.table import Table
from typer.core import TyperCommand

from ..util.progress import duration
from .app import DeviceOption, app, console, model_names, print_table, progress_bar, resumable


class WithRecipes(TyperCommand):
    """A command whose help ends with the recipes, read when the help is printed."""

    def format_epilog(self, ctx: Context, formatter: HelpFormatter) -> None:
        from ..training.recipes import RECIPES

        with formatter.section("--recipe"):
            formatter.write_dl([(name, row.title) for name, row in RECIPES.items()])


RecipeOption = Annotated[
    str | None,
    typer.Option(
        help="A recipe below, or a JSON file; by default finetune for trained weights, and for fresh ones cifar-quick "
        "(cifar10 with an auxiliary head, as transfer makes them) or, for a folder of pictures, scratch."
    ),
]
EpochsOption = Annotated[
    int | None, typer.Option(help="How long, if not as the recipe says; later it may be longer.", min=1)
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="Any field of the recipe: --set learning_rate=0.01.")
]
LabelsOption = Annotated[
    Path | None, typer.Option(help="A file of class names, one a line, or JSON of folders and names.")
]
SeedOption = Annotated[int | None, typer.Option(help="Of first weights, order and augmentation; 0 if not given.")]
HoldOutOption = Annotated[
    int | None,
    typer.Option(
        help="Measure each epoch on so many of the training pictures, left out of the training, and on the test ones "
        "once, at the end; with 0 none is left out.",
        min=0,
    ),
]
WorkersOption = Annotated[
    int | None,
    typer.Option(help="Processes that read pictures; by default the cores less one, at most 8.", min=0, max=512),
]
KeepOption = Annotated[
    int | None, typer.Option(help="Keep the checkpoints of this many best epochs; 1 if not given.", min=1)
]
SaveOption = Annotated[
    float, typer.Option("--save-minutes", help="How often the state is written within an epoch.", min=0)
]


@app.command(cls=WithRecipes)
def train(
    out: Annotated[Path, typer.Option("--out", "-o", help="The run folder; a training that it holds goes on.")],
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="With fresh weights a zoo name, config.json, search folder or best.json; with its own weights a "
            "name.tag, checkpoint or training folder, or org/repo. Not needed to go on.",
            autocompletion=model_names,
        ),
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="cifar10, the default, or a folder: CIFAR-10's, or of class folders.")
    ] = None,
    recipe: RecipeOption = None,
    epochs: EpochsOption = None,
    setting: SetOption = None,
    labels: LabelsOption = None,
    seed: SeedOption = None,
    hold_out: HoldOutOption = None,
    device: DeviceOption = None,
    workers: WorkersOption = None,
    keep: KeepOption = None,
    save_minutes: SaveOption = 5.0,
) -> None:
    """Train a network. After an interruption, the same command continues where it stopped, or `train -o FOLDER`."""
    given = dict(model=model, data=data, recipe=recipe, labels=labels, seed=seed, hold_out=hold_out)
    perform(out, given, epochs, setting, device, workers, keep, save_minutes, finetune=False)


@app.command(cls=WithRecipes)
def finetune(
    data: Annotated[str, typer.Argument(help="A folder with train/ and val/, or one subfolder of pictures a class.")],
    model: Annotated[
        str,
        typer.Option(
            "--model", "-m", help="The network to adapt: zoo name, checkpoint, org/repo.", autocompletion=model_names
        ),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The run folder; by default DATA-MODEL, from their names.")
    ] = None,
    recipe: RecipeOption = None,
    epochs: EpochsOption = None,
    setting: SetOption = None,
    labels: LabelsOption = None,
    seed: SeedOption = None,
    hold_out: HoldOutOption = None,
    device: DeviceOption = None,
    workers: WorkersOption = None,
    keep: KeepOption = None,
    save_minutes: SaveOption = 5.0,
) -> None:
    """Adapt a trained network to pictures of your own: first its classifier, then all of it."""
    if out is None:
        out = Path("-".join(Path(each).resolve().name for each in (data, model)))
    given = dict(model=model, data=data, recipe=recipe, labels=labels, seed=seed, hold_out=hold_out)
    perform(out, given, epochs, setting, device, workers, keep, save_minutes, finetune=True)


def perform(
    out: Path,
    given: dict[str, Any],
    epochs: int | None = None,
    settings: list[str] | None = None,
    device: str | None = None,
    workers: int | None = None,
    keep: int | None = None,
    save_minutes: float = 5.0,
    finetune: bool = False,
) -> None:
    """Begins a training or goes on with it, shows how far it is, and says what came of it. `given` are the fields of
    the request that a user has named."""
    from ..lookup import typed
    from ..training.begin import Request, begin
    from ..training.distributed import first, processes
    from ..training.recipes import parsed_changes
    from ..training.state import has_state
    from ..util.environment import check_device

    changes = parsed_changes(settings or [])
    if epochs is not None:
        changes["epochs"] = epochs
    if device is not None:
        check_device(device)
    request = Request(out, finetune=finetune, changes=changes, search=child_network, **given)

    def command() -> str:
        return f"`nasnet-zoo train -o {typed(out)}`" if has_state(out) else "the same command"

    with processes(device) as device, resumable(command, says=first()):
        run, network, data, notes = begin(request, device, keep, workers, 60 * save_minutes)
        if not first():
            run.perform(network, data)
            return
        for note in notes:
            console.print(note, soft_wrap=True)
        with progress_bar(times=True) as progress:
            outcome = _watched(run, network, data, progress)
    _print_end(out, data, outcome)


def _watched(run: Any, network: Any, data: Any, progress: Any) -> Any:
    """Performs a training with its progress shown: as a bar, or in a log by a line for each epoch and some between."""
    from ..data.sets import SEEN

    task = progress.add_task("training", total=run.recipe.epochs, unit="epochs", note="")
    seen = " of pictures that it learns from" if data.measured == SEEN else ""
    said: dict[str, str] = {}  # the least important last: a narrow terminal cuts it off

    def on_step(epoch: int, done: int, steps: int) -> None:
        speed = progress.tasks[0].speed
        said["speed"] = f"{speed * len(data.train):,.0f} pictures/s" if speed else ""
        note = ", ".join(said[key] for key in ("loss", "accuracy", "speed") if said.get(key))
        progress.update(task, completed=epoch + done / steps, note=note)

    def on_loss(loss: float) -> None:
        said["loss"] = f"loss {loss:.3f}"

    def on_epoch(epoch: Any) -> None:
        said["accuracy"] = f"top-1 {epoch.metrics['top1']:.2%}{seen}"
        left = progress.tasks[0].time_remaining
        progress.say(f"{epoch}, {duration(left)} left" if left else str(epoch))

    return run.perform(network, data, on_step, on_loss, on_epoch)


def _print_end(out: Path, data: Any, outcome: Any) -> None:
    from ..data.sets import SEEN
    from ..lookup import typed
    from ..training.history import best_of
    from ..training.run import BEST, CHECKPOINT

    last = outcome.epochs[-1]
    best = best_of(outcome.epochs) or last
    if data.measured != SEEN:
        table = Table(box=None, pad_edge=False)
        for heading in ("", "epoch", "loss", "top-1", "top-5", "in"):
            table.add_column(heading, justify="left" if not heading else "right", no_wrap=True)
        for name, epoch, place in (("best", best, BEST), ("last", last, CHECKPOINT)):
            accuracies = (f"{epoch.metrics[metric]:.2%}" if epoch.metrics else "" for metric in ("top1", "top5"))
            table.add_row(name, str(epoch.epoch), f"{epoch.loss:.4f}", *accuracies, str(out / place))
        print_table(table)
    known = {"cifar10_test": "CIFAR-10's test pictures", "held_out": "the pictures held out"}
    measured, metrics = (data.tested, outcome.tested) if outcome.tested else (data.measured, last.metrics)
    said = f": top-1 {metrics['top1']:.2%} on {known.get(measured, 'the validation pictures')}" if metrics else ""
    console.print(f"wrote {out / CHECKPOINT}{said}", soft_wrap=True)
    console.print(f"next: nasnet-zoo predict PICTURES -m {typed(out)}", soft_wrap=True)


def child_network(path: Path) -> Any:
    """The config of the network that a search trained its best child as; None if it was no search that trains."""
    from nasnet_zoo.search.folder import read_config

    from ..lookup import BEST, read_architecture

    child = read_config(path).child
    if not hasattr(child, "network"):
        return None
    found = read_architecture(path / BEST)
    return child.network(found.architecture, found.kind)
