"""The command that tunes a recipe: a grid on held-out pictures, then one training and the test pictures once."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from ..errors import ConfigError
from ..util.files import atomic_file, check_run_folder
from .app import app, console, model_names, print_table, resumable
from .train import (
    LabelsOption,
    SeedOption,
    SetOption,
    WithRecipes,
    WorkersOption,
    child_network,
    perform,
)

HELD_OUT_SHARE = 0.1  # of the training pictures, unless the user says how many
SHOWN = 10  # of the table's best rows
GRID, CHOSEN, FINAL = "grid", "chosen", "final"  # in the folder: the search, what it chose, the last training


@app.command(cls=WithRecipes)
def tune(
    model: Annotated[
        str,
        typer.Option(
            "--model",
            "-m",
            help="The network, which begins with fresh weights: zoo name, config.json, search folder or best.json.",
            autocompletion=model_names,
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="A folder; what it holds of this tuning goes on.")],
    data: Annotated[
        str | None, typer.Option(help="cifar10, the default, or a folder: CIFAR-10's, or of class folders.")
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="The recipe that the grid changes: one below, or a JSON file.")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="How long each training is, if not as the recipe says.", min=1)
    ] = None,
    setting: SetOption = None,
    grid: Annotated[
        list[str] | None,
        typer.Option(
            help="A field of the recipe, or of the network's scale, and its values: --grid learning_rate=0.05,0.1. By "
            "default learning rate, weight decay, epsilon of batch norms and, of a recipe with steps, their epochs."
        ),
    ] = None,
    labels: LabelsOption = None,
    seed: SeedOption = None,
    hold_out: Annotated[
        int | None, typer.Option(help="How many of the training pictures the grid is measured on; a tenth.", min=1)
    ] = None,
    fleet: Annotated[str, typer.Option(help="Where it runs: a fleet of `nasnet-zoo search --help`.")] = "processes",
    per_device: Annotated[int, typer.Option(help="Trainings at a time per device; 0: one a GPU or core.", min=0)] = 0,
    device: Annotated[list[str] | None, typer.Option(help="cpu, cuda:0, ...; by default all GPUs.")] = None,
    workers: WorkersOption = None,
) -> None:
    """Tune a recipe: a grid on held-out pictures, then the best on all of them, with the test pictures read once."""
    from nasnet_zoo.search import FleetSettings, SearchConfig
    from nasnet_zoo.search.children.recipes import changed
    from nasnet_zoo.search.children.settings import RecipeChildSettings
    from nasnet_zoo.search.progress import Progress
    from nasnet_zoo.search.rows import read_children
    from nasnet_zoo.search.runner import run
    from nasnet_zoo.search.spaces.table import RecipeSpaceSettings

    from ..data.sets import with_held_out
    from ..lookup import JOURNAL, typed
    from ..networks.build import build
    from ..training.begin import Request, begin
    from ..training.recipes import parsed_changes
    from ..training.run import classify

    check_run_folder(out, (f"{GRID}/{JOURNAL}",), "tuning")
    changes = parsed_changes(setting or []) | ({} if epochs is None else {"epochs": epochs})
    request = Request(out / "start", model, data, recipe, labels, seed, changes=changes, search=child_network)
    start, network, pictures, notes = begin(request, "cpu")
    if network.trained:
        raise ConfigError(f"{model} has weights of its own, and tune begins with fresh ones: name its config.json")
    for note in notes:
        console.print(note, soft_wrap=True)
    count = hold_out or max(round(HELD_OUT_SHARE * len(pictures.train)), 1)
    held_out = with_held_out(pictures, count)
    texts = tuple(grid or default_grid(start.recipe, network.config))
    space = RecipeSpaceSettings("recipes", grid=texts)
    every = all_of(space.space())
    for tokens in every:  # what is impossible ends it at once
        config, one = changed(network.config, start.recipe, space.space().decode(tokens))
        classify(build(config, empty=True), held_out, one).close()
    child = RecipeChildSettings(
        data=start.record["data"],
        config=network.config.to_json(),
        recipe=start.recipe,
        hold_out=count,
        labels=start.record["labels"],
        seed=start.seed,
    )
    where = FleetSettings(fleet, tuple(device or ()), per_device)
    options = dict(child=child, children=len(every), enqueue=every, fleet=where, seed=start.seed)
    with resumable():
        with Progress() as progress:
            found = run(SearchConfig(str(out / GRID), space, "random", **options), on_change=progress.changed)
        _print_rows(read_children(out / GRID), list(found.architecture))
        config, best = changed(network.config, start.recipe, found.architecture)
        _write(out / CHOSEN / "config.json", {"network": config.to_json()})
        _write(out / CHOSEN / "recipe.json", asdict(best))
    settings = ", ".join(f"{name} {value}" for name, value in found.architecture.items())
    console.print(f"the best: {settings}; {typed(out / CHOSEN)} has its recipe and network", soft_wrap=True)
    console.print("now it is trained on all training pictures, and measured on the test pictures once", soft_wrap=True)
    given = dict(model=str(out / CHOSEN / "config.json"), recipe=str(out / CHOSEN / "recipe.json"), hold_out=0)
    given |= dict(data=child.data, labels=labels, seed=start.seed)
    perform(out / FINAL, given, device=(device or [None])[0], workers=workers)


def default_grid(recipe: Any, config: Any) -> list[str]:
    """The small grid after a search (Zoph & Le 2016, section 4.1): learning rate, weight decay, epsilon of batch norms,
    and the epochs of the steps, if the learning rate falls in steps."""
    grid = [f"learning_rate={_values(recipe.learning_rate, (0.5, 1, 2))}"]
    grid.append(
        f"weight_decay={_values(recipe.weight_decay, (0.4, 1))}" if recipe.weight_decay else "weight_decay=0,1e-4"
    )
    if hasattr(config.scale, "bn_eps"):
        grid.append(f"bn_eps={','.join(f'{value:g}' for value in sorted({1e-5, 1e-3, config.scale.bn_eps}))}")
    if recipe.schedule == "step":
        grid.append(f"decay_epochs={_values(recipe.decay_epochs, (0.67, 1, 1.5))}")
    return grid


def _values(value: float, factors: tuple[float, ...]) -> str:
    return ",".join(f"{value * factor:g}" for factor in factors)


def all_of(space: Any) -> tuple[tuple[int, ...], ...]:
    """Every sequence of a space of fixed decisions."""
    from itertools import product

    return tuple(product(*(range(decision.outcomes) for decision in space.decisions)))


def _write(path: Path, value: Any) -> None:
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def _print_rows(rows: list[Any], names: list[str]) -> None:
    """The best settings of the grid, and how many had no result."""
    done = sorted((row for row in rows if row["status"] == "done"), key=lambda row: (-row["reward"], row["child"]))
    table = Table(box=None, pad_edge=False)
    for heading in (*names, "top-1 held out"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in done[:SHOWN]:
        values = (row["architecture"][name] for name in names)
        table.add_row(
            *(f"{value:g}" if isinstance(value, float) else str(value) for value in values), f"{row['reward']:.2%}"
        )
    print_table(table)
    said = [f"{len(rows)} trainings"] + [f"{len(rows) - len(done)} without a result"] * (len(done) < len(rows))
    console.print(f"the best {min(SHOWN, len(done))} of {', '.join(said)}")
