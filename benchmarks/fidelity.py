"""How far our networks are from TF-slim's: every golden case and both TF checkpoints; timm's port on one of them; and
our counts beside the papers'.

    python benchmarks/fidelity.py          needs timm and ../shared/golden; about a minute
"""

import dataclasses
import json

import numpy as np
import torch
from common import SHARED, write
from golden_rule import golden_pictures, golden_value

from nasnet_zoo import convert, info, list_models
from nasnet_zoo.arch.cost import network_cost
from nasnet_zoo.convert.names import slim_sources, torch_name
from nasnet_zoo.convert.tf_checkpoint import read
from nasnet_zoo.networks.build import build

GOLDEN = SHARED / "golden"


def picture(height: int, width: int) -> torch.Tensor:
    """The input of a golden case, NCHW."""
    return torch.from_numpy(golden_pictures(height, width))


def relative(ours: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference of a logit over the largest logit."""
    return float(np.abs(ours - expected).max() / np.abs(expected).max())


def network_of(variables: dict[str, np.ndarray], config):
    network = build(config, empty=True)
    network.load_state_dict(convert.from_tf_slim(variables, config), assign=True)
    return network.eval()


@torch.inference_mode()
def golden_cases() -> dict[str, float]:
    """`relative` per case."""
    logits = np.load(GOLDEN / "visible.npz")
    shapes = json.loads((GOLDEN / "visible.variables.json").read_text(encoding="utf-8"))
    differences, network, built = {}, None, None
    for case in logits:
        name, size = case.split("@")
        if name != built:
            config = info(name).config
            if config.num_classes == 1000:
                config = dataclasses.replace(config, num_classes=1001)
            network, built = network_of({key: golden_value(key, shape) for key, shape in shapes[name]}, config), name
        ours = network(picture(*map(int, size.split("x")))).numpy()
        differences[case] = relative(ours, logits[case])
    return differences


@torch.inference_mode()
def tf_checkpoints() -> dict[str, float]:
    """The same for the two small checkpoints, through the file reader."""
    folder, differences = GOLDEN / "tf-checkpoints", {}
    expected = np.load(folder / "logits.npy")
    config = info("nasnet-a-cifar").config
    config = dataclasses.replace(
        config, scale=dataclasses.replace(config.scale, filters=8, stem_channels=24, stages=(2, 2, 2))
    )
    for path in sorted(folder.glob("*.tar.gz")):
        ours = network_of(read(path), config)(picture(32, 32)).numpy()
        differences[path.name] = relative(ours, expected)
    return differences


@torch.inference_mode()
def timm_difference() -> float:
    """`relative` of timm's nasnetalarge at 331 x 331, whose weights are those of the golden case."""
    import timm

    shapes = json.loads((GOLDEN / "visible.variables.json").read_text(encoding="utf-8"))["nasnet-a-large"]
    config = info("nasnet-a-large").config
    state = convert.from_tf_slim({name: golden_value(name, shape) for name, shape in shapes}, config)
    theirs = timm.create_model("nasnetalarge", num_classes=1000).eval()
    named = {torch_name(s.name, pnasnet=False): state[s.key] for s in slim_sources(config, False)}
    left_out = theirs.load_state_dict(named, strict=False)
    assert not left_out.unexpected_keys and all(key.endswith("num_batches_tracked") for key in left_out.missing_keys)
    expected = np.load(GOLDEN / "visible.npz")["nasnet-a-large@331x331"][:, 1:]  # without the background class
    return relative(theirs(picture(331, 331)).numpy(), expected)


def counts() -> list[dict]:
    """Our parameters and multiply-adds of every model beside the published ones."""
    rows = []
    for name in list_models():
        model = info(name)
        ours, published = model.cost, model.published
        rows.append(
            {
                "model": name,
                "parameters": ours.parameters,
                "published_parameters": published.parameters,
                "bn_statistics": ours.bn_statistics,
                "multiply_adds": ours.multiply_adds,
                "published_multiply_adds": published.multiply_adds,
            }
        )
    return rows


def main() -> None:
    differences = {**golden_cases(), **tf_checkpoints()}
    print("| case | largest difference / largest logit |\n| --- | --- |")
    for case, difference in differences.items():
        print(f"| {case} | {difference:.1e} |")
    timm = timm_difference()
    print(f"| timm, nasnet-a-large@331x331 | {timm:.1e} |")
    table = counts()
    print("\n| model | parameters | published | multiply-adds | published |\n| --- | --- | --- | --- | --- |")
    for row in table:
        published = (row["published_parameters"], row["published_multiply_adds"])
        texts = ["-" if value is None else f"{value / 1e6:,.1f} M" for value in published]
        print(f"| {row['model']} | {row['parameters']:,} | {texts[0]} | {row['multiply_adds']:,} | {texts[1]} |")
    deep = info("nasnet-a-cifar-7@2304").config
    shallower = dataclasses.replace(deep, scale=dataclasses.replace(deep.scale, stages=(6, 6, 6)))
    six = network_cost(shallower, deep.preprocess.size).parameters
    print(f"\nCIFAR 6 @ 2304: {six:,} parameters")
    write("fidelity", {"differences": differences, "timm": timm, "counts": table, "cifar_6@2304_parameters": six})


if __name__ == "__main__":
    main()
