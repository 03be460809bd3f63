"""The commands of the export: export, bench, demo. The zoo itself never imports it; the command line does."""

from pathlib import Path
from typing import Annotated, Any

import typer

from .cli import JsonOption, _print_json, app, console
from .errors import ConfigError

ImagesOption = Annotated[
    Path | None, typer.Option(help="A folder of pictures such as the graph will see: int8 is calibrated on them.")
]


@app.command()
def export(
    model: Annotated[str, typer.Argument(help="Zoo name, name.tag, org/repo[@revision] or folder.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The folder to write; NAME-PRECISION here.")] = None,
    precision: Annotated[str, typer.Option(help="fp32, fp16 or int8.")] = "fp32",
    size: Annotated[str, typer.Option(help="native, any, a side, or HEIGHTxWIDTH in pixels.")] = "native",
    pixels: Annotated[
        bool, typer.Option("--pixels", help="Take uint8 pictures (batch, height, width, 3), give the top classes too.")
    ] = False,
    top: Annotated[int, typer.Option(min=1, help="How many classes --pixels gives.")] = 5,
    images: ImagesOption = None,
    triton: Annotated[Path | None, typer.Option(help="Also write the graph into this Triton model repository.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Export a model as an ONNX graph, checked against torch before it is written."""
    from rich.console import Console

    from .export.exporter import CALIBRATION, to_onnx
    from .export.triton import write_triton
    from .loading import load

    pictures = _pictures(images, CALIBRATION) if images is not None else []
    name, license, source = _origin(model)
    out = out or Path(f"{name}-{precision}")
    with Console(stderr=True).status("loading") as status:
        network = load(model)
        report = to_onnx(
            *(network, out, precision),
            size=_size(size),
            pixels=pixels,
            top=top,
            images=pictures,
            name=name,
            license=license,
            source=source,
            on_stage=status.update,
        )
    if triton is not None:
        where = write_triton(out, triton)
    if as_json:
        from dataclasses import asdict

        _print_json(asdict(report))
        return
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
    if triton is not None:
        console.print(f"wrote {where}", soft_wrap=True)


def _size(text: str) -> Any:
    """native, any, or (height, width)."""
    if text in ("native", "any"):
        return text
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(side.isdecimal() for side in sides):
        raise ConfigError(f"--size {text}: write native, any, a number of pixels, or HEIGHTxWIDTH as in 224x320")
    return int(sides[0]), int(sides[-1])


def _origin(model: str) -> tuple[str, str, str]:
    """(name, licence, where the weights are from) of what `load` loads."""
    from .models import MODELS

    name = model if model in MODELS else model.rpartition(".")[0]
    if name in MODELS:
        return name, MODELS[name].license, f"nasnet_zoo.load({model!r})"
    return Path(model.partition("@")[0]).resolve().name, "", model


def _pictures(folder: Path, count: int) -> list[Path]:
    """At most `count` pictures of a folder and those below it, evenly spaced in the order of their names."""
    from PIL import Image

    if not folder.is_dir():
        raise ConfigError(f"--images {folder}: there is no such folder; give one that holds pictures")
    Image.init()
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in Image.EXTENSION and path.is_file())
    if not found:
        raise ConfigError(f"--images {folder}: there is no picture in it")
    step = max(len(found) / count, 1)
    return [found[int(i * step)] for i in range(min(count, len(found)))]
