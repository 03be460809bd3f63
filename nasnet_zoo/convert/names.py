"""Which foreign tensor every tensor of a state_dict comes from. Imports no torch.

All other names were derived from TF-slim's. So `slim_sources` derives TF-slim's names from a config's plan, and the
names of the ports (Cadene's and timm's PyTorch code, Keras) are found by renaming those.
"""

import re
from collections.abc import Iterator
from itertools import count
from typing import NamedTuple

from ..arch.config import NetworkConfig
from ..arch.genotype import Genotype
from ..arch.layers import Conv, Factorized, Layers, Norm
from ..arch.plan import Plan, Step
from ..errors import ConversionError

NORM = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}


class Source(NamedTuple):
    """`key` of our state_dict comes from TF-slim's variable `name`, whose axes are laid out as `layout` says:
    "conv" (height, width, in, out), "depthwise" (height, width, channels, 1), "dense" (in, out) or "vector"."""

    key: str
    name: str
    layout: str


def slim_sources(config: NetworkConfig, numbered_reductions: bool) -> list[Source]:
    """Every tensor of a network of cells in the slim style. With `numbered_reductions` the reduction cells are numbered
    among the `cell_i` (PNASNet), otherwise they are `reduction_cell_i` (NASNet). Raises ConversionError for other
    styles and for operations that have no names in TF-slim."""
    genotype, scale, plan = config.architecture, config.scale, config.plan
    if not isinstance(genotype, Genotype) or genotype.style != "slim" or scale.stem == "imagenet-nds":
        raise ConversionError("only cell networks of the slim style have TF-slim names; this config is another kind")
    conv, norm = ("l1_stem_3x3", "l1_stem_bn") if scale.stem == "cifar" else ("conv0", "conv0_bn")
    sources = [*_conv("stem.0.conv", conv), *_norm("stem.0.bn", norm)]
    scopes, last = _scopes(plan, numbered_reductions), ""
    for index, step in enumerate(plan.steps):
        if step.name.startswith("cells."):
            last = scopes[step.name.split(".")[1]]
            sources += _step(step, last)
        if plan.auxiliary is not None and index == plan.auxiliary.inputs[0]:
            auxiliary = f"{last.replace('cell', 'aux')}/aux_logits"
    sources += _dense("classifier", "final_layer/FC")
    if plan.auxiliary is not None:
        for ours, convolution, normed in (("project", "proj", "aux_bn0"), ("reduce", "Conv", "aux_bn1")):
            sources += _conv(f"aux.{ours}.conv", f"{auxiliary}/{convolution}")
            sources += _norm(f"aux.{ours}.bn", f"{auxiliary}/{normed}")
        sources += _dense("aux.classifier", f"{auxiliary}/FC")
    return sources


def _scopes(plan: Plan, numbered_reductions: bool) -> dict[str, str]:
    """TF-slim's scope of each cell, by the cell's name."""
    scopes: dict[str, str] = {}
    names = dict.fromkeys(step.name.split(".")[1] for step in plan.steps if step.name.startswith("cells."))
    numbers = count()
    for name in names:
        role, index = name.split("_")
        if role == "stem":
            scopes[name] = f"cell_stem_{index}"
        elif role == "reduction" and not numbered_reductions:
            scopes[name] = f"reduction_cell_{index}"
        else:
            scopes[name] = f"cell_{next(numbers)}"
    return scopes


def _conv(key: str, scope: str) -> Iterator[Source]:
    yield Source(f"{key}.weight", f"{scope}/weights", "conv")


def _norm(key: str, scope: str) -> Iterator[Source]:
    for ours, theirs in NORM.items():
        yield Source(f"{key}.{ours}", f"{scope}/{theirs}", "vector")


def _dense(key: str, scope: str) -> Iterator[Source]:
    yield Source(f"{key}.weight", f"{scope}/weights", "dense")
    yield Source(f"{key}.bias", f"{scope}/biases", "vector")


def _factorized(key: str, scope: str, norm: str) -> Iterator[Source]:
    for path in (1, 2):
        yield from _conv(f"{key}.path.path_{path}", f"{scope}/path{path}_conv")
    yield from _norm(f"{key}.bn", f"{scope}/{norm}")


def _step(step: Step, scope: str) -> Iterator[Source]:
    """The tensors of one step of a cell: `inputs.i`, `blocks.b.left` or `.right`, or `outputs.s`."""
    if not step.layers:
        return
    _, _, part, *rest = step.name.split(".")
    if part == "blocks":
        block, side = rest
        if side == "combine":
            raise ConversionError(f"TF-slim has no names for what combines the sides of a block in {step.name}")
        yield from _op(step.layers, step.name, f"{scope}/comb_iter_{block}/{side}")
        return
    if part == "inputs":
        conv, norm = (("1x1", "beginning_bn"), ("prev_1x1", "prev_bn"))[int(rest[0])]
    else:
        scope, conv, norm = f"{scope}/cell_output/reduction_{rest[0]}", "path_conv", "path_bn"
    if any(isinstance(layer, Factorized) for layer in step.layers):
        yield from _factorized(step.name, scope, "final_path_bn")
    else:
        yield from _conv(f"{step.name}.conv", f"{scope}/{conv}")
        yield from _norm(f"{step.name}.bn", f"{scope}/{norm}")


def _op(layers: Layers, key: str, scope: str) -> Iterator[Source]:
    size = ""
    for layer in layers:
        match layer:
            case Conv() if layer.name.startswith("depthwise"):
                size = f"{layer.kernel[0]}x{layer.kernel[1]}_{layer.name[-1]}"
                yield Source(f"{key}.{layer.name}.weight", f"{scope}/separable_{size}/depthwise_weights", "depthwise")
            case Conv() if layer.name.startswith("pointwise"):
                yield Source(f"{key}.{layer.name}.weight", f"{scope}/separable_{size}/pointwise_weights", "conv")
            case Conv() if layer.kernel == (1, 1) and layer.name == "conv":
                yield from _conv(f"{key}.conv", f"{scope}/1x1")
            case Conv():
                raise ConversionError(f"TF-slim has no name for the convolution {layer.name} of {key}")
            case Norm():
                yield from _norm(f"{key}.{layer.name}", f"{scope}/bn_sep_{size}" if size else f"{scope}/bn_1")


_TORCH_LEAF = {
    **{theirs: ours for ours, theirs in NORM.items()},
    "weights": "weight",
    "biases": "bias",
    "depthwise_weights": "weight",
    "pointwise_weights": "weight",
}


def torch_name(slim: str, *, pnasnet: bool, gaps: int = 0) -> str:
    """The name of a TF-slim variable in Cadene's and timm's PyTorch code. `gaps` is the number of normal cells in a
    stage where the port's cell numbers skip two per reduction (Cadene's mobile), else 0."""
    *scope, leaf = slim.split("/")
    path = "/".join(scope)
    if gaps:
        path = re.sub(r"^cell_(\d+)", lambda m: f"cell_{int(m[1]) + 2 * (int(m[1]) // gaps)}", path)
    kind = {"depthwise_weights": ".depthwise_conv2d", "pointwise_weights": ".pointwise_conv2d"}.get(leaf, "")
    stem = "conv_0" if pnasnet else "conv0"
    previous = "/conv_prev_1x1" if pnasnet else ""
    for pattern, ours in (
        (r"^conv0_bn$", f"{stem}.bn"),
        (r"^conv0$", f"{stem}.conv"),
        (r"^final_layer/FC$", "last_linear"),
        (r"/comb_iter_(\d+)/(left|right)", r"/comb_iter_\1_\2"),
        (r"/separable_\dx\d_(\d)$", rf"/separable_\1{kind}"),
        (r"/bn_sep_\dx\d_(\d)$", r"/bn_sep_\1"),
        (r"(comb_iter_\d+_\w+)/1x1$", r"\1/conv"),
        (r"(comb_iter_\d+_\w+)/bn_1$", r"\1/bn"),
        (r"/path(\d)_conv$", rf"{previous}/path_\1.conv"),
        (r"/final_path_bn$", rf"{previous}/final_path_bn"),
        (r"/prev_1x1$", "/conv_prev_1x1.conv"),
        (r"/prev_bn$", "/conv_prev_1x1.bn"),
        (r"/1x1$", "/conv_1x1.conv"),
        (r"/beginning_bn$", "/conv_1x1.bn"),
    ):
        path = re.sub(pattern, ours, path)
    return f"{path}.{_TORCH_LEAF[leaf]}".replace("/", ".")


_KERAS_LEAF = {
    **{name: name for name in NORM.values()},
    "weights": "kernel",
    "biases": "bias",
    "depthwise_weights": "depthwise_kernel",
    "pointwise_weights": "pointwise_kernel",
}


def keras_name(slim: str, stages: tuple[int, ...]) -> str:
    """`layer/leaf` of a TF-slim variable in Keras's NASNet. Keras numbers a reduction cell by the normal cells before
    it, skips one number after the first, and calls the left side of block 5 of a reduction cell `left4`."""
    scope, *rest = slim.split("/")
    leaf = _KERAS_LEAF[rest[-1]]
    if scope.startswith("conv0"):
        return f"{'stem_bn1' if scope.endswith('bn') else 'stem_conv1'}/{leaf}"
    if scope == "final_layer":
        return f"predictions/{leaf}"
    number = int(scope.rsplit("_", 1)[1])
    if scope.startswith("cell_stem"):
        role, cell = "reduction", f"stem_{number + 1}"
    elif scope.startswith("reduction"):
        role, cell = "reduction", f"reduce_{sum(stages[: number + 1])}"
    else:
        role, cell = "normal", str(number + (number >= stages[0]))
    simple = {
        "1x1": f"{role}_conv_1",
        "beginning_bn": f"{role}_bn_1",
        "prev_1x1": "adjust_conv_projection",
        "prev_bn": "adjust_bn",
        "final_path_bn": "adjust_bn",
        "path1_conv": "adjust_conv_1",
        "path2_conv": "adjust_conv_2",
    }
    if rest[0] in simple:
        return f"{simple[rest[0]]}_{cell}/{leaf}"
    block, side = int(rest[0].rsplit("_", 1)[1]) + 1, rest[1]
    position = f"{side}{4 if (role, block) == ('reduction', 5) else block}"
    part = rest[2].rsplit("_", 1)[1] + ("_bn" if rest[2].startswith("bn") else "")
    return f"separable_conv_{part}_{role}_{position}_{cell}/{leaf}"
