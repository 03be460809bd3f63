"""What a change of the house must leave as it was: every number and byte, and the speed, against an earlier commit.

    python benchmarks/unchanged.py [--before daa6e17] [--models nasnet-a-mobile ...] [--rounds 7] [--data CIFAR-10]

Both checkouts run in processes of their own, in turns. Of every model of the zoo are compared: keys and shapes of the
state_dict, the weights that seed 0 draws, their logits and features, strides and channels, cost, and the bytes of its
float32 export (without the config in the metadata, whose format may be a newer one). With --data, the shipped network's
accuracy on the 10,000 test pictures too. Of the times the fastest of all rounds are compared, and the median of the
rounds' ratios stands beside. Writes results/unchanged.json; fails if anything differs.
"""

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SLOWER = 1.05  # at most, of the earlier commit's time


def sha(tensors: Iterable[Any]) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()


def numbers(names: list[str]) -> dict[str, Any]:
    """What one checkout makes of each model."""
    import onnx
    import torch

    import nasnet_zoo
    from nasnet_zoo.export.exporter import write_graph

    torch.set_num_threads(1)
    found = {}
    for name in names or nasnet_zoo.list_models():
        model = nasnet_zoo.info(name)
        torch.manual_seed(0)
        network = nasnet_zoo.create(name).eval()
        state, side = network.state_dict(), 32 if model.config.preprocess.size[0] == 32 else 75
        x = torch.randn(1, 3, side, side + 6, generator=torch.Generator().manual_seed(1))
        with torch.inference_mode():
            logits, features = network(x), network.features(x)
        with tempfile.TemporaryDirectory() as folder:
            size = model.config.preprocess.size
            write_graph(network, Path(folder), "fp32", size, name=name, license="", source="")
            graph = onnx.load(Path(folder) / "model.onnx", load_external_data=False)
            props = {entry.key: entry.value for entry in graph.metadata_props}
            del props["nasnet_zoo.config"], graph.metadata_props[:]
        found[name] = {
            "keys": hashlib.sha256(json.dumps([[k, list(v.shape)] for k, v in state.items()]).encode()).hexdigest(),
            "weights": sha(state.values()),
            "logits": sha([logits]),
            "features": sha(features),
            "strides and channels": [network.feature_strides, network.feature_channels],
            "cost": [model.cost.parameters, model.cost.multiply_adds, model.cost.bn_statistics],
            "graph": hashlib.sha256(graph.SerializeToString(deterministic=True)).hexdigest(),
            "metadata": props,
        }
    return found


def best(function: Callable[[], Any], runs: int) -> float:
    """The least of some runs, in seconds, after one to warm up."""
    function()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def speeds() -> dict[str, float]:
    """Seconds that one checkout takes for what users wait for."""
    import torch

    import nasnet_zoo
    from nasnet_zoo.export import to_onnx
    from nasnet_zoo.search import ControllerSettings, SearchConfig, SpaceSettings
    from nasnet_zoo.search import run as search

    torch.set_num_threads(1)
    network = nasnet_zoo.create("nasnet-a-mobile").eval()
    x = torch.randn(2, 3, 224, 224)
    found = {}
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        nasnet_zoo.save(network, Path(folder) / "net")
        found["load nasnet-a-mobile"] = best(lambda: nasnet_zoo.load(Path(folder) / "net"), 5)
        found["eager forward, 2 pictures"] = best(lambda: network(x), 15)
        exported = Path(folder) / "onnx"
        found["export"] = best(lambda: to_onnx(network, exported, size=(64, 64)), 2)
    found["a child's epoch"] = best(child_epoch(), 3)

    class Instant:
        def prepare(self, device: str) -> None:
            pass

        def __call__(self, architecture: Any, seed: int) -> dict[str, Any]:
            return {"accuracy": seed % 1000 / 1000}

    def hundred() -> None:
        with tempfile.TemporaryDirectory() as folder:
            config = SearchConfig(folder, SpaceSettings("nasnet"), controller=ControllerSettings(), children=100)
            search(config, child=Instant())

    quiet_report()
    found["a search of 100 instant children"] = best(hundred, 2)
    return found


def quiet_report() -> None:
    """Reports are no part of a driver's speed."""
    try:
        from nasnet_zoo.search.report import report
    except ImportError:
        from nasnet_zoo.search import report
    report.write_report = lambda *arguments: None


def child_epoch() -> Callable[[], Any]:
    """An epoch of the preset quick's child on made-up pictures."""
    import torch

    from nasnet_zoo.search.presets import preset

    try:
        from nasnet_zoo.arch.genotypes import GENOTYPES
        from nasnet_zoo.data.cifar import Pictures
        from nasnet_zoo.search.children.cifar import CifarChild

        child = CifarChild(preset("quick").child, "cell")
    except ImportError:
        from nasnet_zoo.genotypes import GENOTYPES
        from nasnet_zoo.search.cifar import CifarChild
        from nasnet_zoo.train.data import Pictures

        child = CifarChild(preset("quick").child, "slim")
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (600, 3, 16, 16), generator=generator).to(torch.uint8)
    child.training = child.validation = Pictures(images, torch.randint(10, (600,), generator=generator))
    child.device = "cpu"
    return lambda: child(GENOTYPES["NASNet-A"], 0)


def accuracy(data: str) -> dict[str, float]:
    command = [sys.executable, "-P", "-c", "from nasnet_zoo.cli import main; main()", "eval", "--data", data, "--json"]
    said = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return {key: said[key] for key in ("pictures", "top1", "top5")}


class Side:
    """One checkout, laid out as it installs, and its answers."""

    def __init__(self, source: Path, site: Path) -> None:
        (site / "nasnet_zoo").mkdir(parents=True)
        for path in (source / "nasnet_zoo").iterdir():
            (site / "nasnet_zoo" / path.name).symlink_to(path)
        for name in ("search", "export"):
            (site / "nasnet_zoo" / name).symlink_to(source / name)
        self.environment = os.environ | {"PYTHONPATH": str(site), "PYTHONSAFEPATH": "1"}

    def ask(self, what: str, *arguments: str) -> Any:
        command = [sys.executable, __file__, "--answer", what, *arguments]
        ended = subprocess.run(command, env=self.environment, check=True, stdout=subprocess.PIPE, text=True)
        return json.loads(ended.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", default="daa6e17")
    parser.add_argument("--models", nargs="*", default=[])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--data", default="")
    parser.add_argument("--answer", nargs="*", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.answer:
        what, *rest = arguments.answer
        answer = {"numbers": lambda: numbers(rest), "speeds": speeds, "accuracy": lambda: accuracy(*rest)}[what]()
        print(json.dumps(answer))
        return
    sys.path.insert(0, str(Path(__file__).parent))
    from common import write

    with tempfile.TemporaryDirectory() as temporary:
        old = Path(temporary) / "old"
        old.mkdir()
        archive = subprocess.run(["git", "archive", arguments.before], cwd=ROOT, check=True, stdout=subprocess.PIPE)
        subprocess.run(["tar", "-x", "-C", old], input=archive.stdout, check=True)
        before, after = Side(old, Path(temporary) / "a"), Side(ROOT, Path(temporary) / "b")
        was, now = (side.ask("numbers", *arguments.models) for side in (before, after))
        different = {name: [key for key in was[name] if was[name][key] != now[name][key]] for name in was}
        different = {name: keys for name, keys in different.items() if keys}
        print(f"{len(was)} models; different: {different or 'nothing'}", flush=True)
        record: dict[str, Any] = {"before": arguments.before, "models": len(was), "different": different}
        if arguments.data:
            record["accuracy"] = [side.ask("accuracy", arguments.data) for side in (before, after)]
            print(record["accuracy"], flush=True)
        times: dict[str, list[list[float]]] = {}
        for _ in range(arguments.rounds):
            for place, side in enumerate((before, after)):
                for name, seconds in side.ask("speeds").items():
                    times.setdefault(name, [[], []])[place].append(seconds)
    rows = {}
    for name, (old_times, new_times) in times.items():
        old_best, new_best = min(old_times), min(new_times)
        median = statistics.median(new / old for old, new in zip(old_times, new_times))
        rows[name] = {"before": old_best, "after": new_best, "ratio": new_best / old_best, "median": median}
        print(f"{name:35} {old_best:8.4f} s {new_best:8.4f} s   {new_best / old_best:.3f}  median {median:.3f}")
    write("unchanged", {**record, "seconds": rows, "slower_at_most": SLOWER})
    sys.exit(1 if different else 0)


if __name__ == "__main__":
    main()
