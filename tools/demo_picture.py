"""Draws docs/demo.png: the demo of the shipped network in a headless Chromium, after a click on an example.

python tools/demo_picture.py [OUT]
"""

import base64
import sys
import tempfile
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "helpers"))
from chromium import CHROMIUM, Browser

import nasnet_zoo
from nasnet_zoo.cli.app import SHIPPED
from nasnet_zoo.export.demo.network import build_demo
from nasnet_zoo.export.demo.server import site_server
from nasnet_zoo.export.exporter import origin

WIDTH, EXAMPLE = 1180, 3  # the third example is the cat


def main(out: Path) -> None:
    if CHROMIUM is None:
        sys.exit("there is no Chromium on this machine: install one")
    with tempfile.TemporaryDirectory() as folder:
        site = Path(folder) / "site"
        build_demo(nasnet_zoo.load(SHIPPED), site, **origin(SHIPPED))
        with site_server(site) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            browser = Browser(Path(folder) / "profile")
            browser.resize(WIDTH, 900)
            browser.open(server.address)
            browser.click(f"#examples button:nth-child({EXAMPLE})")
            browser.wait("document.body.dataset.state === 'done'")
            height = browser.evaluate("document.documentElement.scrollHeight")
            clip = {"x": 0, "y": 0, "width": WIDTH, "height": height, "scale": 1}
            shot = browser.call("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
            out.write_bytes(base64.b64decode(shot["data"]))
            browser.close()
            server.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/demo.png"))
