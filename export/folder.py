"""The folder of an export: model.onnx, model.onnx.data if the weights are large, export.json. No torch."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nasnet_zoo.arch.checks import read_json
from nasnet_zoo.errors import DownloadError, ExportError, UnknownModelError, first_line
from nasnet_zoo.lookup import GRAPH, identify
from nasnet_zoo.util.files import sha256_file
from nasnet_zoo.util.hub import hub_files, parse_repo

from .metadata import Metadata

DATA, REPORT = f"{GRAPH}.data", "export.json"
OWN = (GRAPH, DATA, REPORT)  # what a folder that is replaced may hold
HUB_FOLDER = "onnx"


@dataclass(frozen=True)
class ExportFolder:
    """An export whose files are all there and unaltered."""

    model: Path
    metadata: Metadata


def find_export(source: str | Path, local_files_only: bool = False) -> ExportFolder:
    """The export at a folder, a model.onnx or a Hub repo; see Session. Raises ExportError or DownloadError."""
    path = Path(source)
    repo = parse_repo(str(source))
    if not path.exists() and repo and path.suffix != ".onnx":
        try:
            path = _from_hub(*repo, local_files_only)
        except DownloadError as error:
            raise DownloadError(f"there is no folder {source}, and {error}") from error
    else:
        try:
            named = identify(source)
        except UnknownModelError:
            raise ExportError(f"there is no graph at {path}: `nasnet-zoo export` writes one") from None
        if named.form != "export":
            raise named.refused("and an exported graph is needed here", ExportError)
    return read_export(path / GRAPH if path.is_dir() else path)


def read_export(path: Path) -> ExportFolder:
    """Reads a graph's metadata and checks its external data, before onnxruntime opens anything."""
    import onnx

    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf has several types of errors
        raise ExportError(f"{path} is damaged or no ONNX graph ({first_line(error)}): export it again") from error
    metadata = Metadata.from_props({prop.key: prop.value for prop in model.metadata_props}, str(path))
    _check_interface(path, model.graph, metadata)
    external = list(_external(model))
    if bool(external) != bool(metadata.data_sha256):
        raise ExportError(f"{path} and its metadata do not agree on external data: export it again")
    for tensor in external:
        where = {entry.key: entry.value for entry in tensor.external_data}.get("location")
        if where != DATA:
            raise ExportError(f"{path} reads weights from {where!r}, which no export of ours does: do not use it")
    data = path.with_name(DATA)
    if external:
        if not data.is_file() or data.is_symlink() and not path.is_symlink():
            raise ExportError(f"{data} is missing, and {path.name} has its weights there: copy both files")
        try:
            same = sha256_file(data) == metadata.data_sha256
        except OSError as error:
            raise ExportError(f"{data} cannot be read ({first_line(error)}): copy both files again") from error
        if not same:
            raise ExportError(f"{data} is not the file that {path.name} was exported with: copy both files again")
    _check_report(path)
    return ExportFolder(path, metadata)


def _check_interface(path: Path, graph: Any, metadata: Metadata) -> None:
    """Raises ExportError unless the graph takes and gives what its metadata promises."""
    height, width = metadata.preprocess.size if metadata.fixed else (0, 0)  # 0: any
    picture = (height, width, metadata.channels) if metadata.pixels else (metadata.channels, height, width)
    taken, given = [_described(value) for value in graph.input], [_described(value) for value in graph.output]
    inputs = [("pixels", "UINT8", (0, *picture)) if metadata.pixels else ("image", "FLOAT", (0, *picture))]
    if taken != inputs or ("logits", "FLOAT", (0, metadata.classes)) not in given:
        raise ExportError(f"{path} does not take pictures and give logits as its metadata says: export it again")


def _described(value: Any) -> tuple[str, str, tuple[int, ...]]:
    """The name, type and shape of a graph's input or output; 0 is a size that is not fixed."""
    import onnx

    tensor = value.type.tensor_type
    kind = onnx.TensorProto.DataType.Name(tensor.elem_type) if tensor.elem_type in range(1, 17) else "other"
    return value.name, kind, tuple(dim.dim_value for dim in tensor.shape.dim)


def _check_report(path: Path) -> None:
    """Checks the graph against the hash in the export.json beside it; a graph that was copied alone has none."""
    report = path.with_name(REPORT)
    if path.name != GRAPH or not report.is_file():
        return
    try:
        expected = read_json(report, "report of an export", ExportError)["model_sha256"]
    except (ExportError, KeyError, TypeError) as error:
        raise ExportError(
            f"{report} is damaged ({first_line(error)}): export again, or copy the folder again"
        ) from error
    if sha256_file(path) != expected:
        raise ExportError(f"{path} is not the graph that {REPORT} beside it describes: copy the folder again")


def _external(message: Any) -> Iterator[Any]:
    """The tensors anywhere in a model whose values are in another file: onnxruntime follows those in attributes too."""
    if message.DESCRIPTOR.name == "TensorProto":
        if message.data_location or message.external_data:
            yield message
        return
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in [value] if hasattr(value, "DESCRIPTOR") else value:
                yield from _external(part)


def _from_hub(repo: str, revision: str | None, local_files_only: bool) -> Path:
    report = f"{HUB_FOLDER}/{REPORT}"
    folder = hub_files(repo, [report], revision, local_files_only=local_files_only)
    try:
        large = read_json(folder / report, "report of an export", ExportError)["data_sha256"] != ""
    except (ExportError, KeyError, TypeError) as error:
        raise ExportError(f"{repo} has no readable {report}: export and publish it again") from error
    names = [f"{HUB_FOLDER}/{name}" for name in (GRAPH, DATA)[: 1 + large]]
    # The folder's name is the commit that the report is of.
    return hub_files(repo, [report, *names], folder.name, local_files_only=local_files_only) / HUB_FOLDER
