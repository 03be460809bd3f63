"""The commands of the search: search, report, transfer. The zoo itself never imports it; the command line does."""

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from click import Context, HelpFormatter
from rich.table import Table
from typer.core import TyperCommand

from ..arch.checks import json_or_text, read_json
from ..errors import ConfigError, SearchError
from ..util.files import check_replaceable, check_run_folder
from .app import (
    ArchitectureArgument,
    DeviceOption,
    app,
    chosen_device,
    console,
    million,
    print_json,
    print_table,
    progress_bar,
    resumable,
)

LATENCY_BATCH = 32  # at which a latency is measured too, if one is asked for and no size is set


class _WithTables(TyperCommand):
    """A command whose help ends with the rows of the tables, read when the help is printed."""

    def format_epilog(self, ctx: Context, formatter: HelpFormatter) -> None:
        from nasnet_zoo.search import CHILDREN, FLEETS, REWARDS, SEARCHERS, SPACES
        from nasnet_zoo.search.presets import PRESETS

        options = {"--preset": PRESETS, "--searcher": SEARCHERS, "--space": SPACES, "--fleet": FLEETS}
        settings = {"--set reward=...": REWARDS, "--set child.task=...": CHILDREN}
        for option, table in (options | settings).items():
            with formatter.section(option):
                formatter.write_dl([(name, row.title) for name, row in table.items()])


@app.command(cls=_WithTables)
def search(
    folder: Annotated[Path, typer.Argument(help="The run folder; a search that it holds is resumed.")],
    preset: Annotated[str | None, typer.Option(help="The name of a complete config to start from; see below.")] = None,
    config: Annotated[Path | None, typer.Option(help="A search config in JSON, instead of a preset.")] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="A folder of your own pictures, with a subfolder for each class or with train/ and val/; or the "
            "folder that holds CIFAR-10, or a table's CSV file."
        ),
    ] = None,
    searcher: Annotated[str | None, typer.Option(help="What proposes the children; see below.")] = None,
    space: Annotated[str | None, typer.Option(help="The search space of the children; see below.")] = None,
    children: Annotated[int | None, typer.Option(help="How many children to evaluate.")] = None,
    seed: Annotated[int | None, typer.Option(help="The seed of the searcher and the children.")] = None,
    fleet: Annotated[str | None, typer.Option(help="Where the children run; see below.")] = None,
    workers: Annotated[int | None, typer.Option(help="Workers per device, with --fleet processes or ray.")] = None,
    device: Annotated[
        list[str] | None, typer.Option(help="cpu, cuda:0, ...; by default all GPUs (inline: the first).")
    ] = None,
    enqueue: Annotated[
        str | None, typer.Option(help="Cells to try first: --enqueue NASNet-A,runs/first/best.json.")
    ] = None,
    target_madds: Annotated[
        str | None, typer.Option(help="The multiply-adds of a child that its reward is measured by: 5M.")
    ] = None,
    max_madds: Annotated[str | None, typer.Option(help="The most multiply-adds of a child; more are rejected.")] = None,
    max_params: Annotated[str | None, typer.Option(help="The most parameters of a child; more are rejected.")] = None,
    target_latency: Annotated[
        float | None,
        typer.Option(help="The milliseconds for a picture, on the children's device, that the reward is measured by."),
    ] = None,
    max_latency: Annotated[
        float | None, typer.Option(help="The most milliseconds for a picture; children that take more are rejected.")
    ] = None,
    rungs: Annotated[
        str | None, typer.Option(help="Epochs after which children that fall behind are stopped: --rungs 1,3.")
    ] = None,
    setting: Annotated[
        list[str] | None, typer.Option("--set", help="Any setting: --set controller.learning_rate=0.001.")
    ] = None,
    baseline: Annotated[
        list[str] | None,
        typer.Option(
            help="A searcher to compare with, which gets as many children: --baseline random; or the folder of a "
            "search that is there, ./random if it has a searcher's name."
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(help="How many seeds to search with, one after another.", min=1, max=1000)] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print the best cell as JSON.")] = False,
) -> None:
    """Search for cells. After an interruption, `nasnet-zoo search FOLDER` continues where it stopped."""
    from nasnet_zoo.search.folder import whole
    from nasnet_zoo.search.own_data import for_own_data
    from nasnet_zoo.search.presets import changed
    from nasnet_zoo.search.several import parts, run_several

    from ..lookup import BEST, typed

    given = {"data": data, "searcher": searcher, "space.name": space, "children": children, "seed": seed}
    given |= {"fleet.kind": fleet, "fleet.per_device": workers, "fleet.devices": device or None}
    given["child.data"] = given.pop("data")
    given |= {"cost.target": _amount(target_madds, "--target-madds")}
    if target_madds is not None and target_latency is not None:
        raise ConfigError("search: a reward has one target: give --target-madds or --target-latency")
    given |= {"cost.measure": "multiply_adds" if target_madds is not None else None}
    if target_latency is not None:
        given |= {"cost.target": target_latency, "cost.measure": "latency_ms"}
    given |= {"cost.max_multiply_adds": _amount(max_madds, "--max-madds")}
    given |= {"cost.max_parameters": _amount(max_params, "--max-params")}
    given["rungs.epochs"] = None if rungs is None else _epochs(rungs)
    changes = {key: value for key, value in given.items() if value is not None}
    for text in setting or ():
        key, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"--set {text}: write a setting's name, =, and its value, as in --set child.cells=2")
        changes[key] = json_or_text(value)
    _check_run_folder(folder)
    start = _start(folder, preset, config)
    changes, notes = for_own_data(start, changes)
    for note in notes:
        print(f"nasnet-zoo: {note}", file=sys.stderr)
    settings = changed(start, {**changes, "folder": str(folder)})
    if target_latency is not None or max_latency is not None:
        settings = replace(settings, child=_measuring_latency(settings.child, max_latency))
    if enqueue is not None:
        settings = replace(settings, enqueue=_enqueued(enqueue, settings.space.space()))
    searchers, folders = _baselines(baseline or ())
    several = parts(settings, searchers, seeds)
    for part in several[1:]:
        _check_run_folder(Path(part.config.folder))
    if any(part.config.searcher == "evolution" for part in several):
        _check_population(settings)
    options = "".join([f" --baseline {name}" for name in searchers] + [f" --seeds {seeds}"] * (seeds > 1))
    with resumable(lambda: f"`nasnet-zoo search {typed(folder)}{options}`"):
        watched = partial(_watched, [part.config.folder for part in several])
        results = run_several(settings, baseline=searchers, seeds=seeds, beside=folders or None, watched=watched)
    own = [result for result, part in zip(results, several) if part.config.searcher == settings.searcher]
    leader = max(own, key=lambda result: result.best.reward)
    if as_json:
        print_json(read_json(leader.folder / BEST, "best cell"))
        return
    if len(several) > 1:
        _print_figures(folder)
    best, where = leader.best, f" in {leader.folder}" if len(own) > 1 else ""
    said = f"best of {leader.children:,} children{where}: child {best.child}, reward {best.reward:.4f}"
    console.print(said, soft_wrap=True)
    console.print(f"see {folder / 'report.html'}", soft_wrap=True)
    if settings.space.space().kind is not None:  # the cells of a table cannot be built
        name = typed(f"{whole(leader.folder)}-600M")
        command = f"nasnet-zoo transfer {typed(leader.folder)} --max-madds 600M -o {name}"
        console.print(f"next: {command}", soft_wrap=True)


def _check_population(settings) -> None:
    """Says if so few children are all random, as those are that evolution begins with."""
    population = settings.evolution.population
    if settings.children <= population:
        print(
            f"nasnet-zoo: evolution begins with {population} random children, and there are {settings.children}: "
            f"--set evolution.population={max(settings.children // 16, 5)} --set evolution.sample="
            f"{max(settings.children // 32, 2)} lets it begin sooner",
            file=sys.stderr,
        )


def _measuring_latency(child, most: float | None):
    """A child's settings with a size of the batch at which latency is measured, if they have none, and with a limit."""
    if not hasattr(child, "latency"):
        raise ConfigError(
            f"search: children of the task {child.task} are {child.summary()} and have no latency: leave out "
            f"--target-latency and --max-latency"
        )
    limit = child.max_latency_ms if most is None else most
    return replace(child, latency=child.latency or LATENCY_BATCH, max_latency_ms=limit)


def _check_run_folder(folder: Path) -> None:
    from ..lookup import CONFIG, JOURNAL

    _check_folder(folder)
    check_run_folder(folder, (CONFIG, JOURNAL), "search")


def _baselines(named: Sequence[str]) -> tuple[list[str], list[Path]]:
    """The searchers and the run folders among what is named."""
    from nasnet_zoo.search import SEARCHERS

    searchers = [name for name in dict.fromkeys(named) if name in SEARCHERS]
    folders = [name for name in named if name not in searchers]
    for name in folders:
        if not Path(name).exists():
            raise ConfigError(
                f"--baseline {name}: there is no such searcher and no such folder: name one of "
                f"{', '.join(SEARCHERS)}, or the run folder of a search"
            )
    return searchers, [Path(name) for name in folders]


@contextmanager
def _watched(folders: Sequence[str], part) -> Iterator[Callable]:
    """Shows the progress of one of the searches in these folders."""
    from nasnet_zoo.search.progress import Progress

    if len(folders) > 1:
        place = folders.index(part.config.folder) + 1
        print(f"search {place} of {len(folders)}: {part.title}", file=sys.stderr)
    with Progress() as progress:
        yield progress.changed


def _print_figures(folder: Path) -> None:
    """The table of several searches, with intervals over their seeds."""
    from nasnet_zoo.search.report.seeds import LEVEL, figures

    last, rows = figures(folder)
    table = Table(box=None, pad_edge=False)
    for name in ("searcher", "seeds", "mean reward", f"of the last {last}", "best"):
        table.add_column(name, justify="left" if name == "searcher" else "right")
    for row in rows:
        table.add_row(row["name"], str(row["seeds"]), row["mean"], row["last"], row["best"])
    print_table(table)
    if any(row["seeds"] > 1 for row in rows):
        console.print(f"± is half of the {LEVEL:.0%} interval over the seeds, by Student's t")


def _epochs(text: str) -> list[int]:
    """1,3 as numbers."""
    try:
        return [int(each) for each in text.split(",") if each]
    except ValueError:
        raise ConfigError(f"--rungs {text}: write numbers of epochs with commas between, as in --rungs 1,3") from None


def _enqueued(names: str, space) -> tuple[tuple[int, ...], ...]:
    """The tokens of the named cells; says how those that are not in the space are changed."""
    from ..lookup import find_architecture

    found = []
    for name in filter(None, names.split(",")):
        architecture = find_architecture(name)
        if architecture.kind != space.kind:
            raise ConfigError(
                f"--enqueue {name}: it is of the kind {architecture.kind}, and the space {space.name} is of the kind "
                f"{space.kind}: choose another space"
            )
        try:
            tokens, notes = space.project(architecture.architecture)
        except ConfigError as error:
            raise ConfigError(f"--enqueue {name}: {error}") from error
        for note in notes:
            print(f"nasnet-zoo: {name}: {note}", file=sys.stderr)
        found.append(tokens)
    return tuple(found)


def _check_folder(folder: Path) -> None:
    """Raises SearchError for what is something else than a search's run folder, or lies in one."""
    from ..lookup import SEARCHES, identify_path

    with suppress(OSError):  # of a folder that may not be read, which check_run_folder tells
        if not folder.exists():
            return
        named = identify_path(folder)
        if folder.is_file():
            of_search = identify_path(folder.parent).form in SEARCHES
            advice = f"name its folder, {folder.parent}" if of_search else "choose a new folder"
            raise named.refused("and a search's run folder is needed here", SearchError, advice)
        if named.form not in ("folder", *SEARCHES):
            raise named.refused("and no search's run folder", SearchError, "choose a new folder")


def _start(folder: Path, preset: str | None, config: Path | None):
    """The config to start from: a preset, a file, or that of the search in the folder."""
    from nasnet_zoo.search.config import read_search_config
    from nasnet_zoo.search.folder import read_config
    from nasnet_zoo.search.presets import preset as named

    from ..lookup import CONFIG

    if preset is not None and config is not None:
        raise ConfigError("give --preset or --config, not both")
    if config is not None:
        return read_search_config(config)
    if preset is not None:
        return named(preset)
    if (folder / CONFIG).is_file():
        return read_config(folder)
    return named("nasnet")


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="The run folder of a search, running or finished.")],
    baseline: Annotated[
        list[Path] | None, typer.Option(help="Run folders of random searches, to compare with; remembered.")
    ] = None,
    seeds: Annotated[
        list[Path] | None, typer.Option(help="Run folders of the same search with other seeds; remembered.")
    ] = None,
    as_csv: Annotated[
        bool, typer.Option("--csv", help="Print a row for each child instead of writing the report.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The same rows as JSON.")] = False,
    pareto: Annotated[
        bool, typer.Option("--pareto", help="Print the children that no other beats in accuracy and costs, as CSV.")
    ] = False,
    costs: Annotated[
        str | None, typer.Option(help="What --pareto weighs: multiply_adds,parameters, or metrics by their names.")
    ] = None,
) -> None:
    """Write the report.html of a search again, or print its children."""
    from nasnet_zoo.search import fronts
    from nasnet_zoo.search.report.report import write_report
    from nasnet_zoo.search.rows import read_children, strict, write_csv

    if as_csv + as_json + pareto + bool(baseline or seeds) > 1:
        raise ConfigError("report: give --csv, --json or --pareto alone; --baseline and --seeds are for report.html")
    if costs is not None and not pareto:
        raise ConfigError("report: --costs is for --pareto: give both")
    if pareto:
        names = [name.strip() for name in costs.split(",")] if costs is not None else fronts.COSTS
        fronts.write_front(fronts.pareto(folder, names), names, sys.stdout)
    elif as_csv:
        write_csv(read_children(folder), sys.stdout)
    elif as_json:
        print_json(strict(read_children(folder)))
    else:
        console.print(f"wrote {write_report(folder, baseline or None, seeds or None)}", soft_wrap=True)


@app.command()
def transfer(
    source: ArchitectureArgument,
    max_madds: Annotated[str | None, typer.Option(help="The most multiply-adds: 600M, 2.5G.")] = None,
    params: Annotated[str | None, typer.Option(help="The most parameters: 5.3M.")] = None,
    cells: Annotated[int | None, typer.Option("-n", help="N, normal cells per stage.")] = None,
    penultimate: Annotated[int | None, typer.Option("-p", help="P, channels of the last map.")] = None,
    stem: Annotated[
        Literal["imagenet", "cifar"], typer.Option(help="The stem of the network: for large pictures or small ones.")
    ] = "imagenet",
    size: Annotated[
        int | None, typer.Option(help="The pictures' side in pixels; by default 224 for imagenet, 32 for cifar.", min=8)
    ] = None,
    classes: Annotated[
        int | None,
        typer.Option(
            help="How many classes; by default those of your own pictures, if the search was on them, else 1000 for "
            "imagenet and 10 for cifar.",
            min=1,
        ),
    ] = None,
    auxiliary: Annotated[
        bool,
        typer.Option(
            "--aux/--no-aux",
            help="With the auxiliary head of the paper's trainings, or without, as recipes that begin on smaller "
            "pictures need it.",
        ),
    ] = True,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write a folder with fresh weights to train.")] = None,
    rerank: Annotated[
        int, typer.Option(help="First train this many of the search's best cells for longer.", min=0)
    ] = 0,
    epochs: Annotated[int, typer.Option(help="How long --rerank trains, in epochs.", min=1)] = 40,
    data: Annotated[
        str | None, typer.Option(help="The folder of the search's data, if they are elsewhere now, for --rerank.")
    ] = None,
    device: DeviceOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the network's config as JSON.")] = False,
) -> None:
    """Build a network of a given size from a found cell."""
    from nasnet_zoo.search.scaling import Target, best_of, check_target, ladder

    from ..data.labels import as_label_set, with_classes
    from ..lookup import find_architecture

    if out is not None:
        from ..weights.checkpoint import OWN

        check_replaceable(out, OWN)
    if rerank:
        _check_search(source)
    found = find_architecture(source)  # before the target: what does not exist needs none
    labels = found.labels if classes is None else None
    if labels is not None:
        classes = len(labels)
    target = Target(_amount(max_madds, "--max-madds"), _amount(params, "--params"), cells, penultimate)
    if rerank:
        fits = partial(check_target, target=target, stem=stem, size=size, num_classes=classes)
        source = _rerank(Path(source), rerank, epochs, data, device, fits)
        found = find_architecture(source)
    scale = dict(kind=found.kind, stem=stem, size=size, num_classes=classes, auxiliary=auxiliary)
    rungs = ladder(found.architecture, target, **scale)
    best = best_of(rungs, target, stem)
    config = best.config if labels is None else with_classes(best.config, labels=as_label_set(labels))
    if out is not None:
        from ..networks.build import build
        from ..weights.checkpoint import save

        save(build(config), out, origin=f"nasnet-zoo transfer {source}", trained=False)
    if as_json:
        print_json(config.to_json())
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("", "N", "F", "P", "parameters", "multiply-adds", "memory"):
        table.add_column(heading, justify="right", no_wrap=True)
    for rung in rungs:
        mark = "->" if rung is best else ""
        amounts = million(rung.cost.parameters), million(rung.cost.multiply_adds), f"{rung.memory / 2**20:,.0f} MiB"
        table.add_row(mark, str(rung.cells), str(rung.filters), str(rung.penultimate), *amounts)
    print_table(table)
    cost = f"{best.cost.parameters:,} parameters, {best.cost.multiply_adds:,} multiply-adds"
    console.print(f"{best.cells} @ {best.penultimate}: {cost} at {best.config.preprocess.size[0]} px", soft_wrap=True)
    if out is not None:
        console.print(f"wrote {out}, with fresh weights", soft_wrap=True)
        pictures = data or found.data if labels is not None else None
        console.print(f"next: {_training(out, config.labels, best.cost.multiply_adds, pictures)}", soft_wrap=True)


def _training(out: Path, labels: str | tuple[str, ...] | None, multiply_adds: int, pictures: str | None) -> str:
    """The command that trains what was written to `out`, on a folder of pictures if it is known."""
    from nasnet_zoo.search.folder import whole

    from ..lookup import typed
    from ..training.recipes import imagenet_recipe

    data = "" if labels == "cifar10" else f" --data {'DIR' if pictures is None else typed(pictures)}"
    recipe = f" --recipe {imagenet_recipe(multiply_adds)}" if labels == "imagenet-1k" else ""
    return f"nasnet-zoo train -m {typed(out)}{data}{recipe} -o {typed(f'{whole(out)}-trained')}"


def _check_search(source: str) -> None:
    from ..lookup import SEARCHES, identify

    named = identify(source)
    if named.form not in SEARCHES:
        raise named.refused("and --rerank needs the run folder of a search", SearchError)


def _rerank(
    folder: Path, count: int, epochs: int, data: str | None, device: str | None, check: Callable[[Any], None]
) -> str:
    """Trains a search's best cells for longer, prints how well the short training ranked them, and returns the best."""
    from nasnet_zoo.search.reranking import BEST_RERANKED, RERANK
    from nasnet_zoo.search.reranking import rerank as reranked

    with resumable(), progress_bar() as progress:
        task = progress.add_task("training the best for longer", total=count, unit="children")
        result = reranked(
            folder,
            count,
            epochs=epochs,
            data=data,
            device=chosen_device(device),
            check=check,
            on_child=lambda done, of: progress.update(task, completed=done, total=of),
        )
    table = Table(box=None, pad_edge=False)
    for heading in ("child", "reward in the search", f"accuracy after {epochs} epochs"):
        table.add_column(heading, justify="right")
    for entry in result.children:
        table.add_row(str(entry["child"]), f"{entry['reward']:.4f}", f"{entry['accuracy']:.4f}")
    print_table(table)
    agreed = "cannot be said" if result.tau is None else f"{result.tau:.2f} (p = {result.p:.2g})"
    for child, why in result.failed.items():
        console.print(f"child {child} could not be trained: {why}", soft_wrap=True, markup=False)
    where = folder / RERANK.format(epochs)
    console.print(f"Kendall's rank correlation of the two: {agreed}; all of it in {where}", soft_wrap=True)
    return str(folder / BEST_RERANKED)


def _amount(text: str | None, option: str) -> float | None:
    """5.3M, 600000000 or 2.5G as a number."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kKmMgGbB]?)", text.strip())
    if match is None:
        raise ConfigError(f"{option} {text}: write a number, with M or G for millions or billions")
    return float(match[1]) * {"": 1, "k": 1e3, "m": 1e6, "g": 1e9, "b": 1e9}[match[2].lower()]
