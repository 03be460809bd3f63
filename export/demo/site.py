"""Writes the demo: the page, its scripts and onnxruntime-web, a network's graph, and the data that the page needs."""

import json
import shutil
from collections.abc import Sequence
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from nasnet_zoo.arch.preprocess import Preprocess
from nasnet_zoo.data.images import open_image
from nasnet_zoo.errors import ConfigError
from nasnet_zoo.lookup import GRAPH
from nasnet_zoo.util.files import atomic_folder

FIELDS = {"name", "precision", "size", "channels", "mean", "std", "crop", "resize", "interpolation", "antialias"}
FIELDS |= {"per_image", "labels", "license", "source", "accuracy", "trained"}
BROWSER_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp"}
GENERATED = ("card.json", GRAPH, "README.md", "cells", "examples")

# The front matter makes the folder a static Space of the Hugging Face Hub; its headers give the page threads.
README = """---
title: {title}
sdk: static
app_file: index.html
pinned: false
custom_headers:
  cross-origin-embedder-policy: require-corp
  cross-origin-opener-policy: same-origin
  cross-origin-resource-policy: cross-origin
---

# {name} in the browser

{source} License of the weights: {license}.

The page classifies a picture on the visitor's own device with onnxruntime-web and sends it nowhere. Written by
`nasnet-zoo demo --build`; any static web server can serve it.
"""


def build_site(
    out: str | Path,
    model: bytes,
    card: dict[str, Any],
    drawings: dict[str, str],
    examples: Sequence[str | Path] = (),
) -> None:
    """Writes the static site into the folder `out`, which appears complete or not at all and replaces an older demo.

    `model` is the ONNX graph: float32 `image` (batch, channels, height, width) in, `logits` (batch, classes) out.
    `card` has the FIELDS; `drawings` maps captions to SVG; the stems of `examples` are shown as their names.
    Raises ConfigError if the card does not fit, ImageError for an example that is no picture, and ZooError if `out`
    holds files of other origin or cannot be written.
    """
    _check_card(card)
    with as_file(files("nasnet_zoo.export.demo") / "static") as static:
        with atomic_folder(out, own_files()) as folder:
            shutil.copytree(static, folder, dirs_exist_ok=True)
            (folder / GRAPH).write_bytes(model)
            for name in ("cells", "examples"):
                (folder / name).mkdir()
            source = card["source"].rstrip(".") + "."
            shown = {name: card[name] for name in sorted(FIELDS)} | {"source": source, "bytes": len(model)}
            shown["cells"] = [_write_cell(folder, caption, svg) for caption, svg in drawings.items()]
            shown["examples"] = [_write_example(folder, index, Path(path)) for index, path in enumerate(examples)]
            text = json.dumps(shown, ensure_ascii=False, indent=1, allow_nan=False)
            (folder / "card.json").write_text(text, encoding="utf-8")
            readme = README.format(**shown, title=json.dumps(card["name"], ensure_ascii=False))
            (folder / "README.md").write_text(readme, encoding="utf-8")


def own_files() -> tuple[str, ...]:
    """What a folder that a demo replaces may hold."""
    return (*GENERATED, *(entry.name for entry in (files("nasnet_zoo.export.demo") / "static").iterdir()))


def _check_card(card: dict[str, Any]) -> None:
    if missing := sorted(FIELDS - set(card)):
        raise ConfigError(f"the demo's card has no {', '.join(missing)}")
    if card["channels"] not in (1, 3):
        raise ConfigError(f"the demo shows pictures of 1 or 3 channels; {card['name']} takes {card['channels']}")
    chosen = {name: card[name] for name in ("crop", "resize", "interpolation", "antialias", "per_image")}
    preprocess = Preprocess(tuple(card["size"]), tuple(card["mean"]), tuple(card["std"]), **chosen)
    if len(preprocess.mean) not in (1, 3):
        raise ConfigError(f"the demo's card: mean and std have {len(preprocess.mean)} entries; a picture needs 1 or 3")


def _write_cell(folder: Path, caption: str, svg: str) -> dict[str, str]:
    name = f"cells/{len(list((folder / 'cells').iterdir()))}.svg"
    (folder / name).write_text(svg, encoding="utf-8")
    return {"caption": caption, "file": name}


def _write_example(folder: Path, index: int, path: Path) -> dict[str, str]:
    picture = open_image(path)
    if path.suffix.lower() in BROWSER_SUFFIXES:
        name = f"examples/{index}{path.suffix.lower()}"
        shutil.copyfile(path, folder / name)
    else:
        name = f"examples/{index}.png"
        picture.save(folder / name)
    return {"caption": path.stem, "file": name}
