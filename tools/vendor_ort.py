"""Fetches the pinned onnxruntime-web into static/ort: `python tools/vendor_ort.py`, which needs npm.

Its asyncify build is the one that runs WebGPU and WASM from one file in every browser; it is kept gzipped, as the page
takes it. The npm package holds no licence, so that and the notices come from the Python package of the same project.
"""

import base64
import gzip
import hashlib
import importlib.util
import os
import subprocess
import tarfile
import tempfile
from pathlib import Path

from nasnet_zoo.errors import DownloadError
from nasnet_zoo.util.files import atomic_folder

VERSION = "1.30.0"
INTEGRITY = "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
SCRIPTS = ("ort.webgpu.min.mjs", "ort-wasm-simd-threaded.asyncify.mjs")
BINARY = "ort-wasm-simd-threaded.asyncify.wasm"
FOLDER = Path(__file__).resolve().parents[1] / "export" / "demo" / "static" / "ort"


def main() -> None:
    """Replaces static/ort. Raises DownloadError if npm fails or gives another package than the pinned one."""
    with tempfile.TemporaryDirectory() as temporary, atomic_folder(FOLDER, os.listdir(FOLDER)) as folder:
        command = ["npm", "pack", "--silent", "--pack-destination", temporary, f"onnxruntime-web@{VERSION}"]
        try:
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        except (OSError, subprocess.CalledProcessError) as error:
            raise DownloadError(f"cannot fetch onnxruntime-web {VERSION}: {error}; npm must be there") from error
        (package,) = Path(temporary).glob("*.tgz")
        digest = base64.b64encode(hashlib.sha512(package.read_bytes()).digest()).decode()
        if f"sha512-{digest}" != INTEGRITY:
            raise DownloadError(f"npm's onnxruntime-web {VERSION} has the hash sha512-{digest}, not the pinned one")
        with tarfile.open(package) as archive:
            for name in (*SCRIPTS, BINARY):
                data = archive.extractfile(f"package/dist/{name}").read()
                if name == BINARY:
                    (folder / f"{name}.gz").write_bytes(gzip.compress(data, 9, mtime=0))
                else:
                    (folder / name).write_bytes(data)
        runtime = Path(importlib.util.find_spec("onnxruntime").origin).parent
        (folder / "LICENSE.txt").write_bytes((runtime / "LICENSE").read_bytes())
        notices = (runtime / "ThirdPartyNotices.txt").read_bytes()
        (folder / "ThirdPartyNotices.txt.gz").write_bytes(gzip.compress(notices, 9, mtime=0))
        (folder / "VERSION").write_text(f"onnxruntime-web {VERSION} {INTEGRITY}\n")


if __name__ == "__main__":
    main()
