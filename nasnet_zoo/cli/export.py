"""The commands of the export: export, bench, demo. The zoo itself never imports it; the command line does."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from nasnet_zoo.export.precisions import PRECISIONS
from nasnet_zoo.export.providers import Provider

from ..errors import ConfigError
from .app import SHIPPED, JsonOption, app, console, print_json


def _size(text: str) -> Any:
    """native, any, or (height, width)."""
    if text in ("native", "any"):
        return text
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(side.isdecimal() for side in sides):
        raise ConfigError(f"--size {text}: write native, any, a number of pixels, or HEIGHTxWIDTH as in 224x320")
    return int(sides[0]), int(sides[-1])


def _known(precision: str) -> str:
    PRECISIONS.row(precision)
    return precision


PrecisionOption = Annotated[
    str,
    typer.Option(
        metavar=f"[{'|'.join(PRECISIONS)}]",
        callback=_known,
        help=f"The graph's numbers. {'; '.join(f'{name}: {row.title}' for name, row in PRECISIONS.items())}.",
    ),
]
ImagesOption = Annotated[
    Path | None,
    typer.Option(help="A folder of pictures like those the graph will get; a calibrated precision needs them."),
]


@app.command()
def export(
    model: Annotated[str, typer.Argument(help="Zoo name, name.tag, org/repo[@revision] or folder.")],
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
    out = out or Path(f"{about['name']}-{precision}")
    with Console(stderr=True).status("loading") as status:
        report = to_onnx(load(model), out, precision, **options, **about, on_stage=status.update)
    if as_json:
        from dataclasses import asdict

        print_json(asdict(report))
    else:
        _print_report(report, out)
    if triton is not None:
        where = write_triton(out, triton)
        if not as_json:
            console.print(f"wrote {where}", soft_wrap=True)


def _print_report(report: Any, out: Path) -> None:
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


@app.command()
def bench(
    names: Annotated[list[str], typer.Argument(help="Zoo names, or checkpoint folders.")],
    provider: Annotated[Provider | None, typer.Option(help="Where to run; by default a GPU if there is one.")] = None,
    precision: PrecisionOption = "fp32",
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

    from nasnet_zoo.export.bench import CONTENDERS, bench
    from nasnet_zoo.export.providers import SHORT, choose

    chosen = provider or SHORT[choose(None, precision)[0]]
    table = Table(box=None)
    for column in ("model", "batch", "what", "images/s", "ms p50", "ms p99", "MiB"):
        table.add_column(column, justify="left" if column in ("model", "what") else "right", no_wrap=True)
    records, failures = [], {}
    with TemporaryDirectory(prefix="nasnet-zoo-bench-") as folder, Console(stderr=True).status("starting") as status:
        for name in names:
            for size in batch or [1]:
                rows, failed = bench(
                    *(name, Path(folder), chosen, precision, size, rounds, only or CONTENDERS), on_round=status.update
                )
                failures |= {f"{name}, batch {size}, {contender}": reason for contender, reason in failed.items()}
                for row in rows:
                    records.append({"model": name, "provider": chosen, "precision": precision, **asdict(row)})
                    memory = "" if row.mebibytes is None else f"{row.mebibytes:,.0f}"
                    figures = (f"{row.images_per_second:,.1f}", f"{row.p50:,.2f}", f"{row.p99:,.2f}", memory)
                    table.add_row(name, str(size), row.contender, *figures)
    if as_json:
        print_json({"rows": records, "left_out": failures})
        return
    console.print(table)
    for what, reason in failures.items():
        console.print(f"left out: {what}: {reason}", soft_wrap=True)


@app.command()
def demo(
    model: Annotated[str, typer.Argument(help="Zoo name, name.tag, org/repo[@revision] or folder.")] = SHIPPED,
    build: Annotated[
        Path | None, typer.Option(help="Write the static site into this folder instead of serving it.")
    ] = None,
    precision: PrecisionOption = "fp16",
    images: ImagesOption = None,
    examples: Annotated[
        Path | None, typer.Option(help="A folder of pictures that the page offers as examples.")
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Where to serve; 0 is any free port.")] = 0,
    open_browser: Annotated[bool, typer.Option("--open/--no-open", help="Open the page in the browser.")] = True,
) -> None:
    """Run a model in the browser.

    Serves a page that classifies pictures, or writes it as a static site."""
    from tempfile import TemporaryDirectory

    from nasnet_zoo.export.demo import serve
    from nasnet_zoo.export.demo.network import build_demo
    from nasnet_zoo.export.exporter import CALIBRATION, check_options, origin

    from ..weights.loading import load

    calibration = _pictures(images, CALIBRATION) if images is not None else []
    check_options(precision, "native", False, 1, calibration)
    shown = _pictures(examples, 12, "--examples") if examples is not None else []
    with TemporaryDirectory(prefix="nasnet-zoo-demo-") as temporary:
        site = build or Path(temporary) / "site"
        with Console(stderr=True).status("exporting"):
            build_demo(load(model), site, precision, calibration, shown, **origin(model))
        if build is None:
            serve(site, port=port, open_browser=open_browser)
        else:
            console.print(f"wrote {build}: open it with a web server, or push it to a static Space", soft_wrap=True)


def _pictures(folder: Path, count: int, option: str = "--images") -> list[Path]:
    """At most `count` pictures of a folder and its subfolders, evenly spaced in the order of their names."""
    from PIL import Image

    if not folder.is_dir():
        raise ConfigError(f"{option} {folder}: there is no such folder; give one that holds pictures")
    Image.init()
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in Image.EXTENSION and path.is_file())
    if not found:
        raise ConfigError(f"{option} {folder}: there is no picture in it")
    step = max(len(found) / count, 1)
    return [found[int(i * step)] for i in range(min(count, len(found)))]
