"""An export as a model of a Triton Inference Server's repository. Written, never run in a Triton server."""

import re
import shutil
from pathlib import Path

from nasnet_zoo.errors import ExportError
from nasnet_zoo.util.files import atomic_folder

from .folder import DATA, GRAPH, find_export

LABELS = "labels.txt"
OWN = ("1", "config.pbtxt", LABELS)  # what a folder that is replaced may hold
MAX_BATCH_SIZE = 64
_NAME = re.compile(r"\w[\w.@+-]*")  # it becomes the name of a folder


def check_triton_name(name: str) -> None:
    """Raises ExportError if a model in Triton cannot have this name."""
    if not _NAME.fullmatch(name):
        raise ExportError(f"{name!r} is no name for a model of Triton's: rename the folder that it is loaded from")


def write_triton(export: str | Path, repository: str | Path) -> Path:
    """Writes repository/NAME with the graph as version 1 and returns that folder; replaces the one that is there.

    Raises ExportError for an export that is damaged, ZooError where the folder cannot be written.
    """
    found = find_export(export)
    data = found.metadata
    check_triton_name(data.name)
    target = Path(repository) / data.name
    size = list(data.preprocess.size) if data.fixed else [-1, -1]
    if data.pixels:
        inputs = [("pixels", "TYPE_UINT8", [*size, data.channels])]
        outputs = [("probabilities", "TYPE_FP32", [data.top]), ("classes", "TYPE_INT64", [data.top])]
    else:
        inputs, outputs = [("image", "TYPE_FP32", [data.channels, *size])], []
    outputs.insert(0, ("logits", "TYPE_FP32", [data.classes]))
    with atomic_folder(target, OWN) as folder:
        (folder / "1").mkdir()
        shutil.copyfile(found.model, folder / "1" / GRAPH)
        if data.data_sha256:
            shutil.copyfile(found.model.with_name(DATA), folder / "1" / DATA)
        lines = [
            f'name: "{data.name}"',
            'backend: "onnxruntime"',
            f"max_batch_size: {MAX_BATCH_SIZE}",
            *_tensors("input", inputs, ""),
            *_tensors("output", outputs, LABELS if data.labels else ""),
            "dynamic_batching { max_queue_delay_microseconds: 2000 }",
        ]
        (folder / "config.pbtxt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        if data.labels:
            (folder / LABELS).write_text(
                "\n".join(" ".join(label.split()) for label in data.labels) + "\n", encoding="utf-8"
            )
    return target


def _tensors(kind: str, tensors: list[tuple[str, str, list[int]]], labels: str) -> list[str]:
    lines = []
    for name, dtype, dims in tensors:
        label = f' label_filename: "{labels}"' if labels and name == "logits" else ""
        lines.append(f'{kind} {{ name: "{name}" data_type: {dtype} dims: {dims}{label} }}')
    return lines
