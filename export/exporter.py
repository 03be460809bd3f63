"""From a network to a folder that onnxruntime can run."""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import numpy as np
import onnx
from torch import nn

from nasnet_zoo.data.images import ImageSource, prepare, resized
from nasnet_zoo.data.labels import label_names
from nasnet_zoo.errors import ConfigError
from nasnet_zoo.lookup import identify
from nasnet_zoo.networks.network import Network
from nasnet_zoo.networks.plain import plain
from nasnet_zoo.registry import MODELS
from nasnet_zoo.util.arguments import checked
from nasnet_zoo.util.files import atomic_folder, sha256_file

from .emit import OPSET, emit, write
from .folder import GRAPH, OWN, REPORT
from .fuse import FUSIONS, Fusion, fuse, pad_channels
from .metadata import Metadata
from .precisions import PRECISIONS
from .quantize import quantize
from .trace import trace
from .verify import Check, enough_memory, give_back_memory, verify

CALIBRATION = 128  # pictures
FEW = 64  # with fewer the ranges depend on which pictures they are
CALIBRATION_BATCH, CALIBRATION_PIXELS = 16, 400_000  # limits of a batch: no map is freed before the end of the run


@dataclass(frozen=True)
class ExportReport:
    """What was exported and how it was checked; export.json holds the same. `size` is (height, width), None for any."""

    path: str
    name: str
    precision: str
    size: tuple[int, int] | None
    pixels: bool
    opset: int
    nodes: int
    bytes: int
    seconds: float
    weights_sha256: str
    model_sha256: str
    data_sha256: str
    checks: tuple[Check, ...]
    calibrated: int = 0  # on how many pictures, for a calibrated precision
    before: tuple[Check, ...] = ()  # of the same graph in float32, before it was calibrated

    def __repr__(self) -> str:
        size = f"{self.size[0]} x {self.size[1]} px" if self.size else "any size"
        error = max((check.relative_error for check in self.checks), default=float("nan"))
        made = f"{self.nodes} nodes, {self.bytes / 1e6:,.1f} MB, within {error:.1e} of torch"
        return f"ExportReport({self.name} {self.precision}, {size}, {made}, in {self.path})"


@checked
def to_onnx(
    network: nn.Module,
    path: str | Path,
    precision: str = "fp32",
    *,
    size: tuple[int, int] | Literal["native", "any"] = "native",
    pixels: bool = False,
    top: int = 5,
    images: Sequence[ImageSource] = (),
    name: str = "network",
    license: str = "",
    source: str = "",
    on_stage: Callable[[str], None] = lambda stage: None,
) -> ExportReport:
    """Writes a network as an ONNX graph, after onnxruntime's logits have been compared with torch's.

    The graph takes a batch of any size: float32 (batch, channels, height, width), normalised. The same network and
    options give the same bytes. An older export in the folder is replaced.

    Args:
        network: the network to export, which stays as it is; wrapped or changed, it is taken as `nasnet_zoo.save` does.
        path: the folder to write.
        precision: a row of `precisions.PRECISIONS`: "fp32", "fp16" or "int8".
        size: of the pictures: "native" (the network's own), (height, width) in pixels, or "any".
        pixels: the graph takes uint8 (batch, height, width, channels) instead, and gives the `top` best classes beside
            the logits.
        top: how many classes a graph with `pixels` gives.
        images: pictures to calibrate "int8" on, about a hundred, of the kind that the graph will get. They are also
            used for the verification, which makes its own pictures if there are none.
        name: of the network, for the metadata.
        license: of the weights, for the metadata.
        source: where the weights come from, for the metadata.
        on_stage: called with a description of each stage as it begins.

    Returns:
        What was exported and how it was checked; export.json holds the same.

    Raises:
        ExportError: if the graph does not agree with torch; nothing is written then.
        ConfigError: for options that do not fit together, or a network that was changed so that its config does not
            describe it.
        ImageError: for images that cannot be read.
        ZooError: if the folder cannot be written, or holds other files, which would be lost.
    """
    start = time.perf_counter()
    check_options(precision, size, pixels, top, images)
    network = plain(network)
    fixed = _fixed_size(network, size)
    about = dict(name=name, license=license, source=source)
    before: tuple[Check, ...] = ()
    with atomic_folder(path, OWN) as folder:
        if PRECISIONS.row(precision).calibrated:  # the rounding must not hide an earlier error
            with TemporaryDirectory(dir=folder) as passing:
                on_stage(f"verifying before {precision}")
                write_graph(network, Path(passing), "fp32", fixed, pixels, top, quantizable=True, **about)
                before = verify(network, passing, images)
        metadata, nodes = write_graph(network, folder, precision, fixed, pixels, top, images, on_stage, **about)
        on_stage("verifying")
        checks = verify(network, folder, images)
        report = ExportReport(
            path=str(path),
            name=name,
            precision=precision,
            size=fixed,
            pixels=pixels,
            opset=OPSET,
            nodes=nodes,
            bytes=sum(file.stat().st_size for file in folder.iterdir()),
            seconds=round(time.perf_counter() - start, 2),
            weights_sha256=metadata.weights_sha256,
            model_sha256=sha256_file(folder / GRAPH),
            data_sha256=metadata.data_sha256,
            checks=checks,
            calibrated=min(len(images), CALIBRATION) if before else 0,
            before=before,
        )
        record = asdict(report)
        del record["path"]
        (folder / REPORT).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return report


def check_options(precision: str, size: object, pixels: bool, top: int, images: Sequence[object]) -> None:
    """Raises ConfigError for options of `to_onnx` that fit no network."""
    if PRECISIONS.row(precision).calibrated and not images:
        raise ConfigError(f"{precision} has to be calibrated: give a folder of pictures such as it will see (--images)")
    if pixels and size == "any":
        raise ConfigError("pixels in need a fixed size: leave out size 'any', or normalise before the graph")
    if top < 1:
        raise ConfigError(f"top {top}: at least one class has to be given")


def _fixed_size(network: Network, size: object) -> tuple[int, int] | None:
    if size == "any":
        return None
    if size == "native":
        return network.config.preprocess.size
    if not (isinstance(size, (tuple, list)) and len(size) == 2 and all(type(side) is int for side in size)):
        raise ConfigError(f"size {size!r} is not 'native', 'any' or (height, width) in whole pixels")
    if min(size) < network.minimum_size:
        raise ConfigError(f"size {size} is too small: this network takes {network.minimum_size} pixels and more")
    return tuple(size)


def write_graph(
    network: Network,
    folder: Path,
    precision: str,
    size: tuple[int, int] | None,
    pixels: bool = False,
    top: int = 5,
    images: Sequence[ImageSource] = (),
    on_stage: Callable[[str], None] = lambda stage: None,
    fusions: Sequence[Fusion] = FUSIONS,
    quantizable: bool = False,
    **about: str,
) -> tuple[Metadata, int]:
    """Writes the graph alone, unverified, and returns its metadata and how many nodes it has; see `to_onnx`. With
    `quantizable` it is the one that a calibrated precision is made from."""
    config = network.config
    prepared = config.preprocess if size is None else replace(config.preprocess, size=size)
    state = {key: value.detach().float().cpu().numpy() for key, value in network.state_dict().items()}
    digest = _digest(state)
    on_stage("fusing")
    graph = trace(config, state)
    del state
    row = PRECISIONS.row(precision)
    padded = partial(pad_channels, multiple=row.multiple)
    graph = fuse(graph, [padded if fusion is pad_channels else fusion for fusion in fusions])
    on_stage("writing")
    quantizable = quantizable or row.calibrated
    model, constants = emit(graph, size, row.dtype, prepared if pixels else None, top, quantizable)
    del graph
    if row.calibrated:
        used = images[:CALIBRATION]

        def calibrating() -> Iterator[np.ndarray]:
            for number, image in enumerate(used, 1):
                on_stage(f"calibrating: picture {number} of {len(used)}")
                yield (resized if pixels else prepare)(image, prepared, config.in_channels)
            on_stage(f"rounding to {precision}")

        with TemporaryDirectory(dir=folder) as passing, enough_memory(about["name"], "calibrating"):
            batch = max(min(CALIBRATION_PIXELS // (prepared.size[0] * prepared.size[1]), CALIBRATION_BATCH), 1)
            model, constants = quantize(model, constants, calibrating(), batch, Path(passing))
    metadata = Metadata(
        **about,
        precision=precision,
        preprocess=prepared,
        channels=config.in_channels,
        classes=config.num_classes,
        labels=label_names(config),
        config=config.to_json(),
        weights_sha256=digest,
        data_sha256=write(model, constants, folder / GRAPH),
        fixed=size is not None,
        pixels=pixels,
        top=min(top, config.num_classes) if pixels else 0,
        minimum_size=network.minimum_size,
        trained=network.trained,
    )
    onnx.helper.set_model_props(model, metadata.to_props())
    (folder / GRAPH).write_bytes(model.SerializeToString(deterministic=True))
    nodes = len(model.graph.node)
    del model, constants
    give_back_memory()
    return metadata, nodes


def origin(source: str) -> dict[str, str]:
    """name, license and source, as `to_onnx` takes them, of what nasnet_zoo.load(source) loads."""
    name = identify(source).name
    if name in MODELS:
        return {"name": name, "license": MODELS[name].license, "source": f"nasnet_zoo.load({source!r})"}
    folder = source if Path(source).exists() else source.partition("@")[0]  # else of a Hub repo's revision
    return {"name": Path(folder).resolve().name, "license": "", "source": source}


def _digest(state: dict[str, np.ndarray]) -> str:
    """SHA-256 of the float32 weights, by name."""
    digest = hashlib.sha256()
    for key in sorted(state):
        digest.update(f"{key} {state[key].shape}\n".encode())
        digest.update(np.ascontiguousarray(state[key], "<f4"))
    return digest.hexdigest()
