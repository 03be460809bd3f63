"""The commands that classify pictures: predict and eval, of a network or of an exported graph."""

import os
import sys
import textwrap
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

from ..errors import ImageError, ZooError
from .app import (
    SHIPPED,
    DeviceOption,
    JsonOption,
    ModelOption,
    app,
    classifier,
    console,
    print_json,
    print_table,
    progress_bar,
    warn_untrained,
)

if TYPE_CHECKING:
    from ..training.mistakes import ClassResult


@app.command()
def predict(
    pictures: Annotated[
        list[str], typer.Argument(help="Files, folders, patterns in quotes, or - for a list of names on stdin.")
    ],
    model: ModelOption = SHIPPED,
    top: Annotated[int, typer.Option("--top", "-k", min=1, help="How many classes to show.")] = 5,
    batch_size: Annotated[int, typer.Option(min=1, help="Pictures at a time.")] = 32,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Classify pictures and print the most probable classes.

    A picture that cannot be used has its error in place of its classes, and the exit code is then 1."""
    from ..data.classify import predictions

    named = _named(pictures)
    network = classifier(model, device)
    trained = network.trained
    records: list[dict[str, Any]] = []
    with progress_bar() as progress:
        found = predictions(network, [name for name, error in named if error is None], top, batch_size)
        for name, error in progress.track(named, description="predicting"):
            result = error or next(found)
            said = {"error": str(result)} if isinstance(result, ImageError) else {"top": [vars(p) for p in result]}
            records.append({"image": name, "trained": trained, **said})
    warn_untrained(network, model)
    if as_json:
        print_json(records)
    else:
        width = console.width if console.is_terminal else 1 << 16  # whole for another program
        Console(markup=False, width=width).print(_table(records, width))
    if failed := sum("error" in record for record in records):
        print(f"nasnet-zoo: {failed:,} of {len(records):,} pictures could not be used", file=sys.stderr)
        raise typer.Exit(1)


def _named(names: list[str]) -> list[tuple[str, ImageError | None]]:
    """Every picture that the arguments stand for, in their order, and what stands for none, with the reason."""
    from ..data.folders import named_pictures

    given = [each for name in names for each in (_listed() if name == "-" else [name])]
    if not given:
        raise ZooError("the list of pictures on stdin is empty: give a name on each line")
    found: list[tuple[str, ImageError | None]] = []
    for name in given:
        try:
            found += [(picture, None) for picture in named_pictures(name)]
        except ImageError as error:
            found.append((name, error))
    return found


def _listed() -> list[str]:
    data = sys.stdin.buffer.read()
    if b"\0" in data:
        raise ZooError("- takes a list of names, one on each line, and stdin has something else: name the files")
    lines = data.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    return [os.fsdecode(line.removesuffix(b"\r")) for line in lines if line.strip()]


def _table(records: list[dict[str, Any]], width: int) -> Table:
    """A row per picture: the most probable class, then the others in as many lines as the width needs."""
    tops = [[(str(p["label"] or p["index"]), f"{p['probability']:.1%}") for p in r.get("top", ())] for r in records]
    errors = [record.get("error", "") for record in records]
    rows = [row[0] if row else ("error", "") for row in tops]
    # Lines break between classes only: within one, the spaces are no-break spaces until the lines are made.
    others = [[f"{label} {probability}".replace(" ", "\xa0") for label, probability in row[1:]] for row in tops]
    names = _short([record["image"] for record in records])
    room = width - len("100.0%") - 8  # the spaces between and around four columns
    label = min(max(cell_len(label) for label, _ in rows), max(room // 3, 5))
    least = max([12, *(min(cell_len(text), 30) for row in others for text in row), *(30 for e in errors if e)])
    name = min(max(map(cell_len, ["picture", *names])), max(room - label - least, 12))
    table = Table(box=None, pad_edge=False)
    table.add_column("picture", width=name, overflow="fold")
    table.add_column("class", width=max(label, 5), overflow="fold", style="bold")
    table.add_column("", justify="right")
    table.add_column("then" if any(others) else "", overflow="fold")
    for picture, (first, probability), then, error in zip(names, rows, others, errors):
        text = ", ".join(then) or error
        lines = textwrap.wrap(text, max(room - name - label, 12), break_long_words=False, break_on_hyphens=False)
        table.add_row(picture, first, probability, "\n".join(lines).replace("\xa0", " "))
    return table


def _short(paths: list[str]) -> list[str]:
    """The last part of each path, and as many more as tell apart different paths."""
    parts = {path: (path,) if "://" in path else Path(path).parts or (path,) for path in paths}
    kept = dict.fromkeys(parts, 1)
    while True:
        short = {path: os.path.join(*parts[path][-count:]) for path, count in kept.items()}
        times = Counter(short.values())
        longer = [path for path in parts if times[short[path]] > 1 and kept[path] < len(parts[path])]
        if not longer:
            return [short[path] for path in paths]
        for path in longer:
            kept[path] += 1


@app.command("eval")
def eval_command(
    data: Annotated[
        str,
        typer.Option(
            help="cifar10, or a folder: CIFAR-10's, one subfolder per class (or train/ and val/), or labels.csv."
        ),
    ],
    model: ModelOption = SHIPPED,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Pictures at a time; at most 32 if they come from a folder.")
    ] = 250,
    confusion: Annotated[
        Path | None, typer.Option(help="Draw which class is taken for which to this .png, .svg or .pdf.")
    ] = None,
    classes: Annotated[bool, typer.Option("--per-class", help="Show each class too, the worst first.")] = False,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a model's top-1 and top-5 accuracy on labelled pictures, and where it errs."""
    from ..data.cifar import Pictures, check_cifar10, cifar10_pictures, in_classes_of
    from ..data.classes import measured_folder
    from ..data.folders import Labelled, labelled_folder
    from ..data.sets import is_cifar10
    from ..training.evaluate import measure
    from ..training.mistakes import per_class

    if confusion is not None:
        from ..training.confusion import check_drawable, draw_confusion  # with matplotlib, which takes its time

        check_drawable(confusion)
    network = classifier(model, device)
    with progress_bar() as progress:
        task = progress.add_task("evaluating", total=None, unit="pictures")

        def on_batch(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        if is_cifar10(data):
            check_cifar10(network.config)
            given = cifar10_pictures(None if data == "cifar10" else data, train=False)
            pictures: Pictures | Labelled = in_classes_of(given, network.labels)
        else:
            data = str(measured_folder(data))
            pictures = labelled_folder(data, network.labels, network.config.num_classes)
            batch_size = min(batch_size, 32)
        measured = measure(network, pictures, batch_size, on_batch)
    warn_untrained(network, model)
    count, top1, top5 = len(pictures), measured.top1, measured.top5
    labels = network.labels or tuple(map(str, range(measured.classes)))
    results = per_class(measured.confusion) if classes else None
    if as_json:
        record = {"model": model, "data": data, "trained": network.trained, "pictures": count}
        record |= {"top1": top1, "top5": top5}
        print_json(record if results is None else {**record, "classes": _named_classes(results, labels)})
    else:
        console.print(f"{model} on {count:,} pictures of {data}: top-1 {top1:.2%}, top-5 {top5:.2%}", soft_wrap=True)
        if results is not None:
            print_table(_class_table(results, labels))
    if confusion is not None:  # last: what was measured is not lost if the disk is full
        draw_confusion(measured.confusion, labels, confusion)
        if not as_json:
            console.print(f"wrote {confusion}", soft_wrap=True)


def _named_classes(results: "list[ClassResult]", labels: Sequence[str]) -> list[dict[str, Any]]:
    """The results as JSON has them: as in that of predict, each class is an index and a label."""
    records = []
    for result in results:
        other = result.taken_for and {"label": labels[result.taken_for.index], **vars(result.taken_for)}
        records.append({"label": labels[result.index], **vars(result), "taken_for": other})
    return records


def _class_table(results: "list[ClassResult]", labels: Sequence[str]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name, side in (("class", "left"), ("pictures", "right"), ("top-1", "right")):
        table.add_column(name, justify=side, no_wrap=True)
    table.add_column("most often taken for", no_wrap=True)
    table.add_column("", justify="right", no_wrap=True)
    for result in results:
        other = result.taken_for
        mistake = (labels[other.index], f"{other.share:.1%}") if other else ("", "")
        table.add_row(labels[result.index], f"{result.pictures:,}", f"{result.top1:.1%}", *mistake)
    return table
