"""Time and memory of `load` for nasnet-a-large from a folder, against timm's create_model + load_state_dict with the
same weights in the same process; and the time of `import nasnet_zoo`.

    python benchmarks/loading.py           needs timm; about a minute
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from common import interleaved, write

# VmHWM belongs to the process alone; getrusage's ru_maxrss would be inherited from this one.
IDLE = "import torch, safetensors.torch, huggingface_hub; "
PEAK = "print(next(int(l.split()[1]) for l in open('/proc/self/status') if l.startswith('VmHWM')) / 1024)"
# Every weight is read once, so that mapped pages count like copied ones.
LOAD = "import nasnet_zoo; n = nasnet_zoo.load({folder!r}); [p.sum() for p in n.state_dict().values()]; "
TIMM = (
    "import timm; n = timm.create_model('nasnetalarge', num_classes=1000); "
    "n.load_state_dict(safetensors.torch.load_file({file!r})); [p.sum() for p in n.state_dict().values()]; "
)
IMPORT = "import time; t = time.perf_counter(); import nasnet_zoo, sys; d = time.perf_counter() - t; print(d); "


def printed(code: str) -> float:
    """The last number that a fresh interpreter prints."""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    return float(out.split()[-1])


def main() -> None:
    import timm
    from safetensors.torch import load_file, save_file

    import nasnet_zoo
    from nasnet_zoo.convert.names import slim_sources, torch_name

    with tempfile.TemporaryDirectory() as temporary:
        folder, file = f"{temporary}/ours", f"{temporary}/timm.safetensors"
        network = nasnet_zoo.create("nasnet-a-large")
        nasnet_zoo.save(network, folder)
        state, sources = network.state_dict(), slim_sources(network.config, False)
        theirs = {torch_name(s.name, pnasnet=False): state[s.key].contiguous() for s in sources}
        tracked = timm.create_model("nasnetalarge", num_classes=1000).state_dict()
        theirs |= {key: value for key, value in tracked.items() if key.endswith("num_batches_tracked")}
        save_file(theirs, file)
        megabytes = Path(folder, "model.safetensors").stat().st_size / 2**20
        del network, state, theirs, tracked

        def touched(network) -> None:
            for value in network.state_dict().values():
                value.sum()

        def ours():
            return nasnet_zoo.load(folder)

        def timms():
            model = timm.create_model("nasnetalarge", num_classes=1000)
            model.load_state_dict(load_file(file))
            return model

        seconds = interleaved(
            {
                "load": ours,
                "timm": timms,
                "load, every weight read": lambda: touched(ours()),
                "timm, every weight read": lambda: touched(timms()),
            },
            rounds=5,
        )
        idle = printed(IDLE + PEAK)
        peak = {
            "load": printed(IDLE + LOAD.format(folder=folder) + PEAK) - idle,
            "timm": printed(IDLE + TIMM.format(file=file) + PEAK) - idle,
        }
    imported = min(printed(IMPORT) for _ in range(5))
    ratio = seconds["load"] / seconds["timm"]
    read_ratio = seconds["load, every weight read"] / seconds["timm, every weight read"]
    for name, value in seconds.items():
        print(f"{name}: {value:.3f} s")
    print(f"time / timm's: {ratio:.3f}; with every weight read {read_ratio:.3f}")
    for name, value in peak.items():
        print(f"peak above idle, {name}: {value:.0f} MiB = {value / megabytes:.2f} x the weights ({megabytes:.0f} MiB)")
    print(f"import nasnet_zoo: {imported:.3f} s")
    write(
        "loading",
        {
            "seconds": seconds,
            "ratio": ratio,
            "ratio_read": read_ratio,
            "peak_mib": peak,
            "weights_mib": megabytes,
            "import_seconds": imported,
        },
    )


if __name__ == "__main__":
    main()
