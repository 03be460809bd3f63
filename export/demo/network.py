"""From a network, or its exported graph, to its demo."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from nasnet_zoo.arch.config import NetworkConfig
from nasnet_zoo.arch.kinds import get_kind
from nasnet_zoo.data.images import ImageSource
from nasnet_zoo.data.labels import example_pictures
from nasnet_zoo.errors import ConfigError

from ..exporter import to_onnx
from ..folder import find_export
from ..metadata import Metadata
from .site import build_site

if TYPE_CHECKING:
    from nasnet_zoo.networks.network import Network


def build_demo(
    network: "Network",
    out: str | Path,
    precision: str = "fp16",
    images: Sequence[ImageSource] = (),
    examples: Sequence[str | Path] | None = None,
    *,
    name: str = "network",
    license: str = "",
    source: str = "",
) -> Metadata:
    """Exports `network` and writes the static site that runs it into the folder `out`; see build_site and to_onnx for
    the options and errors. Returns what the graph says of itself."""
    with TemporaryDirectory(prefix="nasnet-zoo-demo-") as temporary:
        graph = Path(temporary) / "graph"
        to_onnx(network, graph, precision, images=images, name=name, license=license, source=source)
        return build_graph_demo(graph, out, examples)


def build_graph_demo(graph: str | Path, out: str | Path, examples: Sequence[str | Path] | None = None) -> Metadata:
    """`build_demo` for a graph that is exported already: its folder. Without `examples` the page offers those that the
    package has for the network's label set. Raises ConfigError for a graph that a page cannot run, and ExportError."""
    found = find_export(graph)
    data = found.metadata
    if data.data_sha256:
        raise ConfigError(f"{data.name} has too many weights for a page in {data.precision}: try int8")
    if data.pixels:
        raise ConfigError(f"{graph} takes pixels, and the page normalises pictures itself: export it without --pixels")
    card = asdict(data.preprocess) | {"name": data.name, "precision": data.precision, "channels": data.channels}
    card |= {"labels": data.labels, "license": data.license or "not stated", "accuracy": None, "trained": data.trained}
    card["source"] = f"The weights are those of {data.source}"
    config = NetworkConfig.from_json(data.config)
    kind, drawings = get_kind(config.kind), {}
    with TemporaryDirectory(prefix="nasnet-zoo-demo-") as temporary:
        for part in kind.parts:
            drawing = Path(temporary) / f"{part}.svg"
            kind.draw(config.architecture, drawing, only=part)
            drawings[f"{part} cell"] = drawing.read_text(encoding="utf-8")
    shown = example_pictures(config.labels) if examples is None else examples
    build_site(out, found.model.read_bytes(), card, drawings, shown)
    return data
