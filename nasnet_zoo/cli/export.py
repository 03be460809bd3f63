"""The commands of the export: export, bench, demo. The zoo itself never imports it; the command line does."""

from pathlib import Path
from typing import Annotated, Any

import typer

from nasnet_zoo.export.precisions import PRECISIONS
from nasnet_zoo.export.providers import Provider

from ..errors import ConfigError, SessionError
from ..util.files import check_replaceable
from ..util.progress import stages
from .app import (
    CONFIG,
    GRAPH,
    SHIPPED,
    JsonOption,
    ModelArgument,
    WeightsArgument,
    app,
    console,
    model_names,
    print_json,
    print_table,
    warn_untrained,
)


def _size(text: str) -> Any:
    """native, any, or (height, width)."""
    if text in ("native", "any"):
        return text
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(side.isdecimal() for side in sides):
        raise ConfigError(f"--size {text}: write native, any, a number of pixels, or HEIGHTxWIDTH as in 224x320")
    return int(sides[0]), int(sides[-1])


def _known(precision: str | None) -> str | None:
    return None if precision is None else PRECISIONS.known(precision)


_precision = typer.Option(
    metavar=f"[{'|'.join(PRECISIONS)}]",
    callback=_known,
    help=f"The graph's numbers. {'; '.join(f'{name}: {row.title}' for name, row in PRECISIONS.items())}.",
)
PrecisionOption = Annotated[str, _precision]
OwnPrecisionOption = Annotated[str | None, _precision]  # by default that of an exported graph
ImagesOption = Annotated[
    Path | None,
    typer.Option(help="A folder of pictures like those the graph will get; a calibrated precision needs them."),
]


@app.command()
def export(
    model: WeightsArgument,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The folder to write; by default NAME-PRECISION in this folder.")
    ] = None,
    precision: PrecisionOption = "fp32",
    size: Annotated[
        Any,
        typer.Option(parser=_size, metavar="native|any|SIDE|HEIGHTxWIDTH", help="The size of the pictures, in pixels."),
    ] = "native",
    pixels: Annotated[
        bool,
        typer.Option("--pixels", help="Take uint8 pictures (batch, height, width, 3) and also give the top classes."),
    ] = False,
    top: Annotated[int | None, typer.Option(min=1, help="How many classes --pixels gives; 5 by default.")] = None,
    images: ImagesOption = None,
    triton: Annotated[Path | None, typer.Option(help="Also write the graph into this Triton model repository.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Export a model as a verified ONNX graph.

    Nothing is written unless onnxruntime's logits agree with torch's."""
    from nasnet_zoo.export.exporter import CALIBRATION, check_options, origin, to_onnx
    from nasnet_zoo.export.folder import OWN
    from nasnet_zoo.export.triton import OWN as TRITON_OWN
    from nasnet_zoo.export.triton import check_triton_name, write_triton

    from ..weights.loading import load

    if top is not None and not pixels:
        raise ConfigError("--top says how many classes a graph with --pixels gives: add --pixels or leave it out")
    pictures = _pictures(images, CALIBRATION) if images is not None else []
    options = dict(size=size, pixels=pixels, top=top or 5, images=pictures)
    check_options(precision, **options)  # before anything is fetched
    about = origin(model)
    if triton is not None:
        check_triton_name(about["name"])
        check_replaceable(triton / about["name"], TRITON_OWN)
    out = out or Path(f"{about['name']}-{precision}")
    check_replaceable(out, OWN)
    with stages("loading") as stage:
        report = to_onnx(load(model), out, precision, **options, **about, on_stage=stage)
    if as_json:
        from dataclasses import asdict

        print_json(asdict(report))
    else:
        _print_report(report, out, images)
    if triton is not None:
        where = write_triton(out, triton)
        if not as_json:
            console.print(f"wrote {where}", soft_wrap=True)


def _print_report(report: Any, out: Path, images: Path | None) -> None:
    from nasnet_zoo.export.exporter import FEW

    precision = report.precision
    taken = "any size" if report.size is None else f"{report.size[0]} x {report.size[1]} px"
    made = f"{report.nodes} nodes, {report.bytes / 1e6:,.1f} MB, {report.seconds:.1f} s"
    console.print(f"wrote {out}: {precision}, {taken}, {made}", soft_wrap=True)
    for check in report.checks:
        of = f"{check.pictures} {'pictures' if check.real else 'made-up pictures'}"
        console.print(
            f"onnxruntime {check.version} on {check.provider}: logits within {check.relative_error:.1e} of torch's, "
            f"the same class for {check.top1_agreement:.0%} of {of}",
            soft_wrap=True,
        )
    if report.calibrated:
        worst = max(check.relative_error for check in report.before)
        console.print(
            f"{precision}: weights and maps are rounded within ranges that {report.calibrated} pictures of {images} "
            f"gave; the same graph in float32 was verified before, within {worst:.1e} of torch's",
            soft_wrap=True,
        )
        if report.calibrated < FEW:
            console.print(
                f"{report.calibrated} pictures are few: give about a hundred, of the kind that the graph will get",
                soft_wrap=True,
            )


@app.command()
def bench(
    names: Annotated[list[str], typer.Argument(help=f"Each: {CONFIG}, {GRAPH}.", autocompletion=model_names)],
    provider: Annotated[Provider | None, typer.Option(help="Where to run; by default a GPU if there is one.")] = None,
    precision: OwnPrecisionOption = None,
    batch: Annotated[list[int] | None, typer.Option(help="Pictures at a time; can be given several times.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Timed runs of each.")] = 20,
    only: Annotated[
        list[str] | None,
        typer.Option(help="nasnet_zoo, unfused, torch_onnx, timm, eager, compile, or compile_max: some of them."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Time a model's graph against other ways to run it.

    The others are: the graph without its fusions, torch's own export of the network and of timm's, torch and
    torch.compile. They take turns, run by run."""
    from dataclasses import asdict
    from tempfile import TemporaryDirectory

    from rich.table import Table

    from nasnet_zoo.export.bench import CONTENDERS, bench, precision_of
    from nasnet_zoo.export.providers import SHORT, choose

    precisions = {name: precision_of(name, precision) for name in names}  # before anything takes time
    providers = {name: provider or SHORT[choose(None, precisions[name])[0]] for name in names}
    table = Table(box=None, pad_edge=False)
    for column in ("model", "batch", "what", "images/s", "ms p50", "ms p99", "MiB"):
        table.add_column(column, justify="left" if column in ("model", "what") else "right", no_wrap=True)
    records, failures = [], {}
    with TemporaryDirectory(prefix="nasnet-zoo-bench-") as folder, stages("starting") as stage:
        for name in names:
            for size in batch or [1]:
                where = providers[name], precisions[name]
                rows, failed = bench(*(name, Path(folder), *where, size, rounds, only or CONTENDERS), on_round=stage)
                failures |= {f"{name}, batch {size}, {contender}": reason for contender, reason in failed.items()}
                for row in rows:
                    records.append({"model": name, "provider": where[0], "precision": where[1], **asdict(row)})
                    memory = "" if row.mebibytes is None else f"{row.mebibytes:,.0f}"
                    figures = (f"{row.images_per_second:,.1f}", f"{row.p50:,.2f}", f"{row.p99:,.2f}", memory)
                    table.add_row(name, str(size), row.contender, *figures)
    if not records:
        raise SessionError(f"nothing was measured: {'; '.join(f'{what}: {why}' for what, why in failures.items())}")
    if as_json:
        print_json({"rows": records, "left_out": failures})
        return
    print_table(table)
    for what, reason in failures.items():
        console.print(f"left out: {what}: {reason}", soft_wrap=True)


@app.command()
def demo(
    model: ModelArgument = SHIPPED,
    build: Annotated[
        Path | None, typer.Option(help="Write the static site into this folder instead of serving it.")
    ] = None,
    precision: OwnPrecisionOption = None,
    images: ImagesOption = None,
    examples: Annotated[
        Path | None,
        typer.Option(help="A folder of pictures that the page offers as examples; by default the package's own."),
    ] = None,
    host: Annotated[
        str, typer.Option(help="The address to serve at; 0.0.0.0 is every one that this machine has.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Where to serve; 0 is any free port.")] = 0,
    open_browser: Annotated[bool, typer.Option("--open/--no-open", help="Open the page in the browser.")] = True,
) -> None:
    """Run a model in the browser.

    Serves a page that classifies pictures, or writes it as a static site."""
    from tempfile import TemporaryDirectory

    from nasnet_zoo.export.demo import serve
    from nasnet_zoo.export.demo.network import build_demo, build_graph_demo
    from nasnet_zoo.export.demo.server import check_address
    from nasnet_zoo.export.demo.site import own_files
    from nasnet_zoo.export.exporter import CALIBRATION, check_options, origin

    from ..lookup import identify
    from ..weights.loading import load

    if build is not None:
        check_replaceable(build, own_files())
    else:
        check_address(host, port)
    graph = identify(model).form == "export"
    calibration = _pictures(images, CALIBRATION) if images is not None else []
    if graph and (precision is not None or calibration):
        raise ConfigError(f"{model} is a graph already: leave out --precision and --images, or name the network")
    if not graph:
        check_options(precision or "fp16", "native", False, 1, calibration)
    shown = _pictures(examples, 12, "--examples") if examples is not None else None
    with TemporaryDirectory(prefix="nasnet-zoo-demo-") as temporary:
        site = build or Path(temporary) / "site"
        with stages("exporting"):
            if graph:
                shows = build_graph_demo(model, site, shown)
            else:
                shows = build_demo(load(model), site, precision or "fp16", calibration, shown, **origin(model))
        warn_untrained(shows, model)
        if build is None:
            serve(site, host, port, open_browser)
        else:
            console.print(f"wrote {build}: open it with a web server, or push it to a static Space", soft_wrap=True)


def _pictures(folder: Path, count: int, option: str = "--images") -> list[Path]:
    """At most `count` pictures of a folder and its subfolders, evenly spaced in the order of their names."""
    from ..data.folders import pictures_in

    if not folder.is_dir():
        raise ConfigError(f"{option} {folder}: there is no such folder; give one that holds pictures")
    found = pictures_in(folder)
    if not found:
        raise ConfigError(f"{option} {folder}: there is no picture in it")
    step = max(len(found) / count, 1)
    return [found[int(i * step)] for i in range(min(count, len(found)))]
