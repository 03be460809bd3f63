"""The exported graphs outside of the environment that made them: in the oldest onnxruntime that the docs name, and in
one without torch, with a Session of the wheel installed alone.

    python benchmarks/environments.py       needs pip and an index; a minute
"""

import json
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

import numpy as np
from common import write

import nasnet_zoo
from nasnet_zoo.data.labels import example_pictures
from nasnet_zoo.export import to_onnx

ROOT = Path(__file__).resolve().parents[1]
OLDEST = ("onnxruntime==1.15.0", "numpy<2")
SESSION = ("onnxruntime", "onnx", "numpy", "pillow", "filelock", "pydantic")  # all that a Session imports
KINDS = {"fp32": {}, "fp16": {"precision": "fp16"}, "int8": {"precision": "int8"}}
KINDS |= {"any size": {"size": "any"}, "pixels": {"pixels": True}}

RUN = """
import sys, json, numpy as np, onnxruntime
logits = []
for path in sys.argv[2:]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    entry = session.get_inputs()[0]
    x = np.load(sys.argv[1])[entry.name]
    logits.append(session.run(["logits"], {entry.name: x})[0].tolist())
print(json.dumps({"onnxruntime": onnxruntime.__version__, "logits": logits}))
"""
PREDICT = """
import sys, json
from nasnet_zoo.export import Session
predictions = Session(sys.argv[1]).predict(sys.argv[2:])
assert "torch" not in sys.modules
print(json.dumps([[p.label, p.probability] for top in predictions for p in top]))
"""


def environment(folder: Path, *packages: str) -> Path:
    """The Python of a new virtual environment with these packages and what they need."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--only-binary=:all:", *packages], check=True)
    return python


def output(python: Path | str, code: str, *arguments: object, cwd: Path) -> object:
    command = [str(python), "-c", code, *map(str, arguments)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True, cwd=cwd).stdout)


def main() -> None:
    network = nasnet_zoo.load("nasnet-a-cifar-small")
    images = example_pictures("cifar10")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for kind, options in KINDS.items():
            to_onnx(network, folder / kind, images=images, **options)
        graphs = [folder / kind / "model.onnx" for kind in KINDS]
        rng = np.random.default_rng(0)
        inputs = {"image": rng.normal(size=(3, 3, 32, 32)), "pixels": rng.integers(0, 256, (3, 32, 32, 3))}
        np.savez(folder / "x.npz", image=inputs["image"].astype("f4"), pixels=inputs["pixels"].astype("u1"))
        there = output(environment(folder / "oldest", *OLDEST), RUN, folder / "x.npz", *graphs, cwd=folder)
        here = output(sys.executable, RUN, folder / "x.npz", *graphs, cwd=folder)
        errors = {
            kind: float(np.abs(np.subtract(old, new)).max() / np.abs(new).max())
            for kind, old, new in zip(KINDS, there["logits"], here["logits"])
        }
        print(f"onnxruntime {there['onnxruntime']} against {here['onnxruntime']}: {errors}")

        subprocess.run([sys.executable, "-m", "build", "--quiet", "--wheel", "--outdir", folder, ROOT], check=True)
        python = environment(folder / "alone", *SESSION)
        (wheel,) = folder.glob("*.whl")
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", wheel], check=True)
        found = output(python, PREDICT, folder / "fp32", *images, cwd=folder)
        expected = [[p.label, p.probability] for top in network.predict(images) for p in top]
        same = [label for label, _ in found] == [label for label, _ in expected]
        difference = max(abs(a[1] - b[1]) for a, b in zip(found, expected))
        print(f"without torch: the same top 5 {same}, probabilities within {difference:.1e}")
    write(
        "environments",
        {
            "oldest": there["onnxruntime"],
            "newest": here["onnxruntime"],
            "relative_errors": errors,
            "without_torch": {"packages": SESSION, "same_top5": same, "largest_difference": difference},
        },
    )


if __name__ == "__main__":
    main()
