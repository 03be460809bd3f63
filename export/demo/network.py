"""From a network to its demo."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from nasnet_zoo.arch.kinds import get_kind
from nasnet_zoo.data.images import ImageSource
from nasnet_zoo.errors import ConfigError

from ..exporter import to_onnx
from ..folder import MODEL
from .site import build_site

if TYPE_CHECKING:
    from nasnet_zoo.networks.network import Network


def build_demo(
    network: "Network",
    out: str | Path,
    precision: str = "fp16",
    images: Sequence[ImageSource] = (),
    examples: Sequence[str | Path] = (),
    *,
    name: str = "network",
    license: str = "",
    source: str = "",
) -> None:
    """Exports `network` and writes the static site that runs it into the folder `out`; see build_site and to_onnx for
    the options and errors."""
    with TemporaryDirectory(prefix="nasnet-zoo-demo-") as temporary:
        folder = Path(temporary)
        about = dict(name=name, license=license, source=source)
        if to_onnx(network, folder / "graph", precision, images=images, **about).data_sha256:
            raise ConfigError(f"{name} has too many weights for a page in {precision}: try int8, or a smaller network")
        config, kind = network.config, get_kind(network.config.kind)
        card = asdict(config.preprocess) | {"name": name, "precision": precision, "channels": config.in_channels}
        card |= {"labels": network.labels, "license": license or "not stated", "accuracy": None}
        card["source"] = f"The weights are those of {source}"
        drawings = {}
        for part in kind.parts:
            kind.draw(config.architecture, folder / f"{part}.svg", only=part)
            drawings[f"{part} cell"] = (folder / f"{part}.svg").read_text(encoding="utf-8")
        build_site(out, (folder / "graph" / MODEL).read_bytes(), card, drawings, examples)
