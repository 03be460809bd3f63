"""The command info: what is known of whatever a user names."""

from collections import Counter
from typing import Annotated, Any

import typer
from rich.table import Table

from ..arch.config import NetworkConfig, read_config
from ..arch.cost import network_cost
from ..arch.kinds import get_kind
from ..lookup import CONFIG as CONFIG_FILE
from ..lookup import SEARCHES, Found, Named, find_architecture, find_config, identify
from ..registry import ModelInfo, get_model, stated
from .app import ARCHITECTURE, GRAPH, JsonOption, app, architecture_names, million, print_json, print_table

Rows = list[tuple[str, str]]


@app.command()
def info(
    what: Annotated[str, typer.Argument(help=f"{ARCHITECTURE}, {GRAPH}.", autocompletion=architecture_names)],
    as_json: JsonOption = False,
) -> None:
    """Show what is known of a model, a checkpoint, an architecture or a graph: its size, cost, figures and weights."""
    named = identify(what)
    if named.form in ("model", "weights"):
        record, rows = _of_model(get_model(named.name))
    elif named.form == "export":
        record, rows = _of_graph(what)
    elif named.form in ("genotype", "architecture", "entry", *SEARCHES):
        record, rows = _of_architecture(find_architecture(what))
    else:
        record, rows = _of_config(named, find_config(what))
    if as_json:
        print_json(record)
        return
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    for row in rows:
        table.add_row(*row)
    print_table(table)


def _of_model(model: ModelInfo) -> tuple[dict[str, Any], Rows]:
    published, name = model.published, model.name
    record = {"name": name, "description": model.description, "paper": model.paper, "license": model.license}
    record |= _counted(model.config) | {"published": vars(published), "weights": [vars(w) for w in model.weights]}
    figures = ", ".join(f"{kind} {v} %" for kind, v in (("top-1", published.top1), ("top-5", published.top5)) if v)
    claimed = {"parameters": published.parameters, "multiply-adds": published.multiply_adds}
    rows = [
        ("model", f"{name}: {model.description}"),
        ("paper", f"{model.paper}; licence of the weights {model.license}"),
        *(
            (key, f"{value} (published: {million(claimed[key]) or 'none'})" if key in claimed else value)
            for key, value in _config_rows(model.config)
        ),
        ("published", f"{figures or 'nothing'}: {published.source}"),
    ]
    if not model.weights:
        rows.append(("weights", "none yet: nasnet_zoo.create() gives it freshly initialised"))
    for source in model.weights:
        address, accuracy, who = stated(source)
        measured = "" if accuracy == "-" else f"; top-1 / top-5 {accuracy} % ({who})"
        rows.append(("weights", f"{name}.{source.tag}: {source.form}, {address}{measured}"))
    return record | {"config": model.config.to_json()}, rows


def _of_config(named: Named, config: NetworkConfig) -> tuple[dict[str, Any], Rows]:
    weights: dict[str, Any] = {}
    if named.form in ("checkpoint", "training") and named.path is not None:
        weights = read_config(named.path / CONFIG_FILE)[1]
    record = {"name": named.what, "form": named.form, **_counted(config), "weights": weights}
    rows = [(named.form, named.what), *_config_rows(config)]
    rows += [(f"weights: {key}", _short(value)) for key, value in weights.items()]
    return record | {"config": config.to_json()}, rows


def _of_architecture(found: Found) -> tuple[dict[str, Any], Rows]:
    kind = get_kind(found.kind)
    written, digest = kind.write(found.architecture), kind.hash(found.architecture)
    record = {"name": found.title, "kind": found.kind, "hash": digest, "architecture": written}
    rows = [("architecture", f"{found.title} of kind {found.kind}; it has no size yet"), ("hash", digest)]
    for part in kind.parts:
        blocks = written.get(part, {}).get("blocks") if isinstance(written, dict) else None
        if blocks:
            ops = Counter(block[side][1] for block in blocks for side in ("left", "right"))
            rows.append((part, f"{len(blocks)} blocks: {', '.join(f'{n} {op}' for op, n in ops.most_common())}"))
    return record, rows


def _of_graph(what: str) -> tuple[dict[str, Any], Rows]:
    from nasnet_zoo.export.folder import DATA, find_export

    found = find_export(what)
    data = found.metadata
    files = [found.model, *([found.model.with_name(DATA)] if data.data_sha256 else [])]
    size = sum(file.stat().st_size for file in files)
    config = NetworkConfig.from_json(data.config)
    record = {"name": data.name, "form": "export", "precision": data.precision, "bytes": size, "pixels": data.pixels}
    record |= {"license": data.license, "source": data.source, "weights_sha256": data.weights_sha256}
    taken = "uint8 pixels" if data.pixels else "normalised float32"
    rows = [
        ("graph", f"{data.name} in {data.precision}, {size / 1e6:,.1f} MB, from {data.source or 'an unnamed source'}"),
        ("takes", f"{taken}, {data.channels} channels, {'one size only' if data.fixed else 'any size'}"),
        *_config_rows(config),
    ]
    return record | _counted(config) | {"config": data.config}, rows


def _counted(config: NetworkConfig) -> dict[str, int]:
    cost = network_cost(config)
    return {"parameters": cost.parameters, "multiply_adds": cost.multiply_adds}


def _config_rows(config: NetworkConfig) -> Rows:
    cost, prepared = network_cost(config), config.preprocess
    height, width = prepared.size
    labels = config.labels if isinstance(config.labels, str) else _short(list(config.labels or ())) or "unnamed"
    return [
        ("scale", ", ".join(f"{field} {value}" for field, value in vars(config.scale).items())),
        ("picture", f"{height} x {width} px, middle {prepared.crop:.1%}, {prepared.interpolation}"),
        ("mean, std", f"{list(prepared.mean)}, {list(prepared.std)}"),
        ("classes", f"{config.num_classes} ({labels})"),
        ("parameters", f"{cost.parameters:,}"),
        ("multiply-adds", f"{cost.multiply_adds:,}"),
    ]


def _short(value: Any, widest: int = 200) -> str:
    """A JSON value as text of one line."""
    if isinstance(value, dict):
        value = [f"{key} {entry}" for key, entry in value.items()]
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= widest else text[: widest - 3] + "..."
