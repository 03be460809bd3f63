"""The browser demo, in a real Chromium."""

import base64
import http.client
import json
import socket
import struct
import threading
import time
import webbrowser
from contextlib import closing, contextmanager, suppress
from io import BytesIO
from types import SimpleNamespace
from urllib.parse import urlsplit

import numpy as np
import pytest
from chromium import CHROMIUM, PATIENCE, Browser
from PIL import Image

import nasnet_zoo
from nasnet_zoo.arch.preprocess import Preprocess
from nasnet_zoo.data.images import prepare
from nasnet_zoo.data.labels import example_pictures
from nasnet_zoo.errors import ConfigError, ImageError, ZooError
from nasnet_zoo.export import to_onnx
from nasnet_zoo.export.demo import build_site, serve
from nasnet_zoo.export.demo.network import build_graph_demo
from nasnet_zoo.export.demo.server import CONTENT_SECURITY_POLICY, SiteServer, _Handler, site_server

IMAGES = example_pictures("cifar10")[0].parent
CAPTION = "document.getElementById('seen-caption').textContent"
CARD = {
    "name": "tiny",
    "precision": "fp32",
    "size": [32, 32],
    "channels": 3,
    "mean": [0.5],
    "std": [0.5],
    "crop": 1.0,
    "resize": "squash",
    "interpolation": "bilinear",
    "antialias": True,
    "per_image": False,
    "labels": None,
    "license": "Apache-2.0",
    "source": "Made by the tests.",
    "accuracy": None,
    "trained": True,
}


@pytest.fixture(scope="module")
def network():
    return nasnet_zoo.load("nasnet-a-cifar-small")


@pytest.fixture(scope="module")
def graph(network, tmp_path_factory):
    folder = tmp_path_factory.mktemp("graph")
    to_onnx(network, folder)
    return (folder / "model.onnx").read_bytes()


@pytest.fixture(scope="module")
def site(network, graph, tmp_path_factory):
    """The demo of the shipped network."""
    folder = tmp_path_factory.mktemp("demo") / "site"
    preprocess = network.config.preprocess
    card = CARD | {name: getattr(preprocess, name) for name in ("mean", "std", "crop", "resize", "interpolation")}
    card |= {"name": "nasnet-a-cifar-small", "labels": list(network.labels), "accuracy": "91 %"}
    cell = '<svg xmlns="http://www.w3.org/2000/svg" width="900" height="90"><rect width="900" height="90"/></svg>'
    cells = {"normal cell": cell, "reduction cell": cell.replace("900", "450").replace("90", "120")}
    build_site(folder, graph, card, cells, sorted(IMAGES.glob("*.png")))
    return folder


@contextmanager
def serving(folder):
    with site_server(folder) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield server.address
        server.shutdown()


@pytest.fixture(scope="module")
def address(site):
    with serving(site) as address:
        yield address


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if CHROMIUM is None:
        pytest.skip("there is no Chromium on this machine")
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def page(browser, address):
    """The browser with the demo in it; the tests that load another page come after those that share this one."""
    browser.open(address)
    return browser


def answer(page, caption):
    """The (label, probability) pairs that the page shows for a picture, once it does."""
    seen = json.dumps(f"{caption} as the network sees it")
    page.wait(f"document.body.dataset.state === 'done' && {CAPTION}.startsWith({seen})")
    rows = "[...document.querySelectorAll('#classes li')]"
    pairs = page.evaluate(f"{rows}.map(r => [r.querySelector('.label').textContent, +r.dataset.probability])")
    return [tuple(pair) for pair in pairs]


def agree(shown, network, path):
    predicted = network.predict(path, k=5)
    assert [label for label, _ in shown] == [p.label for p in predicted]
    np.testing.assert_allclose([p for _, p in shown], [p.probability for p in predicted], atol=1e-3)


@pytest.mark.parametrize("name", ["cat", "frog", "ship"])
def test_a_click_on_an_example_says_what_predict_says(page, network, name):
    page.click(f"#examples button:nth-child({1 + sorted(p.stem for p in IMAGES.glob('*.png')).index(name)})")
    shown = answer(page, name)
    assert shown[0][0] == name
    agree(shown, network, IMAGES / f"{name}.png")
    threads = page.evaluate("Math.min(4, navigator.hardwareConcurrency)")
    ran = f"by WASM with {threads} thread{'s' if threads > 1 else ''}."
    assert page.text("#status").startswith(f"{name}, ") and page.text("#status").endswith(ran)


def test_a_dropped_picture_is_resized_as_predict_does_it(page, network, tmp_path):
    path = tmp_path / "a <i>large horse.png"
    Image.open(IMAGES / "horse.png").resize((610, 470), Image.Resampling.BICUBIC).save(path)
    page.drop(path)
    shown = answer(page, path.name)
    assert shown[0][0] == "horse"
    agree(shown, network, path)


def test_the_keyboard_is_enough(page, network):
    page.evaluate("document.activeElement.blur()")
    page.evaluate("document.getElementById('choose').focus()")
    page.press("Tab")
    page.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "automobile"
    page.press("Enter")
    agree(answer(page, "automobile"), network, IMAGES / "automobile.png")


@pytest.mark.parametrize("key", ["Enter", " "])
def test_a_key_on_the_drop_zone_opens_the_file_chooser(page, network, key):
    name = {"Enter": "dog.png", " ": "truck.png"}[key]
    page.call("Page.setInterceptFileChooserDialog", enabled=True)
    page.evaluate("document.getElementById('choose').focus()")
    before = len(page.events)
    page.press(key)
    while not (opened := [e for e in page.events[before:] if e.get("method") == "Page.fileChooserOpened"]):
        page.evaluate("0")  # which receives events
    node = opened[0]["params"]["backendNodeId"]
    page.call("DOM.setFileInputFiles", files=[str(IMAGES / name)], backendNodeId=node)
    agree(answer(page, name), network, IMAGES / name)


def paste(page, data):
    page.evaluate(
        f"{{ const clipboardData = new DataTransfer(); {data};"
        "document.dispatchEvent(new ClipboardEvent('paste', { clipboardData })) }"
    )


def test_a_picture_is_pasted(page, network):
    pixels = base64.b64encode((IMAGES / "airplane.png").read_bytes()).decode()
    data = f"Uint8Array.from(atob('{pixels}'), c => c.charCodeAt(0))"
    paste(page, f"clipboardData.items.add(new File([{data}], 'copied.png', {{ type: 'image/png' }}))")
    agree(answer(page, "copied.png"), network, IMAGES / "airplane.png")


def test_of_many_pictures_at_once_the_last_is_shown(page, network):
    page.evaluate("for (const button of document.querySelectorAll('#examples button')) button.click()")
    agree(answer(page, "truck"), network, IMAGES / "truck.png")
    time.sleep(0.3)
    assert answer(page, "truck")[0][0] == "truck"


def test_what_is_no_picture_gets_a_sentence_and_the_next_picture_an_answer(page, network, tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("no picture")
    page.drop(path)
    page.wait("document.body.dataset.state === 'failed'")
    expected = "notes.txt is not a picture that this browser can read: try a JPEG, PNG or WebP file."
    assert page.text("#error[role=alert]") == expected
    paste(page, "clipboardData.setData('text/plain', 'cat.jpg')")
    assert page.text("#error").startswith("What was pasted is not a picture")
    page.click("#examples button")
    agree(answer(page, "airplane"), network, IMAGES / "airplane.png")
    assert page.evaluate("document.getElementById('error').hidden")


@pytest.mark.parametrize("width", [1280, 360])
def test_nothing_sticks_out_of_a_narrow_page(page, width):
    page.resize(width, 740)
    page.click("#examples button:nth-child(3)")
    answer(page, "cat")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    drawn = page.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
    page.resize(1280, 900)
    assert drawn


def test_the_photo_is_shown_large_beside_what_the_network_sees(page, tmp_path):
    photo = Image.open(IMAGES / "horse.png").resize((1300, 650))
    photo.save(tmp_path / "large.png")
    page.drop(tmp_path / "large.png")
    answer(page, "large.png")
    sizes = page.evaluate("['photo', 'preview'].map(id => document.getElementById(id)).map(c => [c.width, c.height])")
    assert sizes == [[640, 320], [32, 32]]
    boxes = page.evaluate(
        "['photo', 'preview'].map(id => document.getElementById(id).getBoundingClientRect().toJSON())"
    )
    assert boxes[0]["top"] == boxes[1]["top"] and boxes[0]["right"] <= boxes[1]["left"]
    assert min(box["width"] for box in boxes) > 200 and min(box["height"] for box in boxes) > 200
    shown = page.evaluate("[...document.getElementById('photo').getContext('2d').getImageData(320, 160, 1, 1).data]")
    expected = np.asarray(photo.convert("RGB").resize((640, 320)))[160, 320]
    np.testing.assert_allclose(shown[:3], expected, atol=12)  # browsers shrink with another filter


def test_the_classes_are_named(page, network):
    assert page.text("#names") == ", ".join(network.labels)
    assert page.evaluate("document.getElementById('known').open")  # ten are few


@pytest.mark.parametrize("width", [1280, 700, 360])
def test_all_cells_are_drawn_at_one_scale(page, width):
    page.resize(width, 740)
    page.wait("[...document.querySelectorAll('#drawings img')].every(image => image.complete)")
    images = "[...document.querySelectorAll('#drawings img')]"
    scales = page.evaluate(f"{images}.map(image => image.getBoundingClientRect().width / image.naturalWidth)")
    page.resize(1280, 900)
    assert len(scales) == 2 and scales[0] == pytest.approx(scales[1], rel=0.02) and scales[0] > 0.4


def picture(kind):
    noise = np.random.default_rng(0).integers(0, 256, (61, 97, 4), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(noise).resize((97, 61), Image.Resampling.BICUBIC, box=(0, 0, 12, 8)))
    file = BytesIO()
    if kind == "turned":
        exif = Image.Exif()
        exif[0x0112] = 6  # the orientation of a phone held upright
        Image.fromarray(smooth[..., :3]).save(file, "JPEG", quality=95, exif=exif)
    else:
        Image.fromarray(smooth if kind == "transparent" else noise[..., :3]).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(
    ("kind", "channels", "changes", "levels"),
    [
        ("noise", 3, {}, 0),
        ("noise", 3, {"crop": 0.875, "interpolation": "bicubic", "resize": "shortest"}, 0),
        ("noise", 3, {"size": (90, 130), "interpolation": "bicubic"}, 0),
        ("noise", 3, {"antialias": False, "crop": 0.9}, 0),
        ("noise", 3, {"antialias": False, "interpolation": "bicubic"}, 0),
        ("noise", 1, {"mean": (0.4, 0.5, 0.7), "std": (0.2, 0.3, 0.4), "per_image": True}, 0),
        ("noise", 3, {"mean": (0.4,), "std": (0.2,), "size": (61, 97), "per_image": True}, 0),
        ("transparent", 3, {}, 2),  # canvases round twice
        ("turned", 3, {}, 2),  # JPEG decoders differ in the last bit
    ],
)
def test_the_page_prepares_pictures_as_the_package_does(page, kind, channels, changes, levels):
    preprocess = Preprocess(**({"size": (20, 24)} | changes))
    data = picture(kind)
    card = CARD | vars(preprocess) | {"channels": channels}
    values = page.evaluate(f"""(async () => {{
        const {{ decode, readPixels }} = await import('./picture.js');
        const {{ middle, prepare }} = await import('./prepare.js');
        const bytes = Uint8Array.from(atob('{base64.b64encode(data).decode()}'), c => c.charCodeAt(0));
        const card = {json.dumps(card)};
        const bitmap = await decode(new Blob([bytes]));
        const {{ input }} = prepare(readPixels(bitmap, middle(bitmap.width, bitmap.height, card)), card);
        return [...input];
    }})()""")
    expected = prepare(data, preprocess, channels)
    got = np.float32(values).reshape(expected.shape)
    np.testing.assert_allclose(got, expected, atol=2e-6 + levels / 255 / min(preprocess.std))


def test_no_request_has_left_the_server(page, address):
    sent = [event for event in page.events if event.get("method") == "Network.requestWillBeSent"]
    requests = [event["params"]["request"]["url"] for event in sent]
    names = {urlsplit(url).path for url in requests}
    # The last two are what the worker fetches.
    needed = {"/", "/app.js", "/model.onnx", "/worker.js", "/ort/ort.webgpu.min.mjs"}
    assert needed | {"/ort/ort-wasm-simd-threaded.asyncify.mjs"} <= names
    assert [url for url in requests if not url.startswith((address, "data:", "blob:"))] == []
    assert page.evaluate("crossOriginIsolated")


def test_webgpu_that_fails_leaves_the_work_to_wasm(browser, address):
    fake = "navigator.gpu.requestAdapter = async () => ({})"  # for the page; its worker finds no adapter
    script = browser.call("Page.addScriptToEvaluateOnNewDocument", source=fake)
    browser.open(address)
    browser.call("Page.removeScriptToEvaluateOnNewDocument", identifier=script["identifier"])
    browser.click("#examples button:nth-child(4)")
    assert answer(browser, "dog")[0][0] == "dog"
    assert "WASM" in browser.text("#status")
    assert browser.text("#note").startswith("WebGPU failed (")


def test_a_graph_that_cannot_be_loaded_gets_a_sentence(browser, tmp_path):
    build_site(tmp_path / "site", b"no graph", CARD, {})
    with serving(tmp_path / "site") as address:
        browser.open(address, "failed")
        assert browser.text("#error").startswith("The network could not be started: ")
        (tmp_path / "site" / "model.onnx").unlink()
        browser.open(address, "failed")
        assert browser.text("#error").startswith("The file model.onnx could not be loaded (status 404)")


def luminance(page, selector):
    """Of the pixel in the middle of an element's first row of pixels, 0 to 255, as it is painted."""
    page.evaluate(f"document.querySelector({json.dumps(selector)}).scrollIntoView({{block: 'center'}})")
    box = page.evaluate(f"document.querySelector({json.dumps(selector)}).getBoundingClientRect().toJSON()")
    data = page.call("Page.captureScreenshot", format="png")["data"]
    screen = Image.open(BytesIO(base64.b64decode(data))).convert("L")
    return screen.getpixel((int(box["x"] + box["width"] / 2), int(box["y"] + 2)))


def test_dark_mode_is_dark_in_the_drawings_too(browser, tmp_path):
    white = '<svg xmlns="http://www.w3.org/2000/svg" width="400" height="90"><rect width="1" height="1"/></svg>'
    build_site(tmp_path / "site", b"no graph", CARD, {"normal cell": white})
    with serving(tmp_path / "site") as address:
        browser.open(address, "failed")
        browser.wait("document.querySelector('#drawings img')?.complete")
        seen = {}
        for scheme in ("light", "dark"):
            media = [{"name": "prefers-color-scheme", "value": scheme}]
            browser.call("Emulation.setEmulatedMedia", features=media)
            seen[scheme] = [luminance(browser, selector) for selector in ("#drawings img", "#cells", "body")]
        browser.call("Emulation.setEmulatedMedia", features=[])
    assert min(seen["light"]) > 200 and max(seen["dark"]) < 60
    assert abs(seen["dark"][0] - seen["dark"][1]) <= 12  # a drawing has the panel's ground


def request(address, target):
    """The status, headers and body of a GET whose target is sent as it is, without a client's tidying."""
    parts = urlsplit(address)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=300)
    with closing(connection):
        connection.putrequest("GET", target)
        connection.endheaders()
        response = connection.getresponse()
        return response.status, response.headers, response.read()


@pytest.mark.parametrize("target", ["/../secret", "/%2e%2e/secret", "/ort/../../secret", "/link", "//secret", "/ort/"])
def test_nothing_outside_the_folder_is_served(site, address, target):
    (site.parent / "secret").write_text("secret")
    link = site / "link"
    with suppress(FileExistsError):
        link.symlink_to(site.parent / "secret")
    status, _, body = request(address, target)
    link.unlink()
    assert status == 404 and b"secret" not in body


def test_the_server_sends_the_headers_that_threads_need(site, address):
    types = {
        "": "text/html; charset=utf-8",
        "app.js": "text/javascript; charset=utf-8",
        "ort/ort.webgpu.min.mjs": "text/javascript; charset=utf-8",
        "ort/ort-wasm-simd-threaded.asyncify.wasm.gz": "application/gzip",
        "model.onnx": "application/octet-stream",
        "ort/LICENSE.txt": "text/plain; charset=utf-8",
        "cells/0.svg": "image/svg+xml",
    }
    for name, kind in types.items():
        status, headers, _ = request(address, f"/{name}")
        assert (status, headers["Content-Type"]) == (200, kind)
        assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
        assert headers["Cross-Origin-Embedder-Policy"] == "require-corp"
        assert headers["Content-Security-Policy"] == CONTENT_SECURITY_POLICY
        assert headers["Content-Encoding"] is None
    assert f'content="{CONTENT_SECURITY_POLICY}"' in (site / "index.html").read_text()


def test_a_browser_that_goes_away_is_no_error(tmp_path, capsys, monkeypatch):
    """Others print their traceback as before."""
    (tmp_path / "index.html").write_bytes(bytes(1 << 24))  # more than a socket's buffer
    ended = threading.Semaphore(0)
    finish = SiteServer.shutdown_request
    monkeypatch.setattr(SiteServer, "shutdown_request", lambda *request: (finish(*request), ended.release()))
    with serving(tmp_path) as address:
        for _ in range(3):
            with socket.create_connection((urlsplit(address).hostname, urlsplit(address).port)) as gone:
                gone.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                assert gone.recv(100)
                gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset, no farewell
            assert ended.acquire(timeout=PATIENCE)
        assert capsys.readouterr() == ("", "")
        monkeypatch.setattr(_Handler, "send_head", lambda handler: 1 / 0)
        with suppress(OSError, http.client.HTTPException):
            request(address, "/")
        assert ended.acquire(timeout=PATIENCE)
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_serve_says_where_and_ends_with_ctrl_c(site, capsys, monkeypatch):
    opened = threading.Event()
    monkeypatch.setattr(webbrowser, "open", lambda address: opened.set())

    def interrupted(server):
        raise KeyboardInterrupt

    monkeypatch.setattr(SiteServer, "serve_forever", interrupted)
    serve(site)
    assert opened.wait(PATIENCE)
    assert capsys.readouterr().out.startswith("The demo is at http://127.0.0.1:")


@pytest.fixture
def not_exported(monkeypatch):
    """No graph is made: what was asked of `serve`, if it was."""
    asked = []
    monkeypatch.setattr("nasnet_zoo.export.demo.serve", lambda site, *where: asked.append(where))

    def build_demo(*_, **__):
        asked.append("built")
        return SimpleNamespace(trained=True)

    monkeypatch.setattr("nasnet_zoo.export.demo.network.build_demo", build_demo)
    return asked


def test_the_host_is_the_one_asked_for(site, run, not_exported):
    code, _, err = run("demo", "--host", "0.0.0.0", "--port", "0", "--no-open")
    assert code == 0 and not_exported == ["built", ("0.0.0.0", 0, False)], err
    with site_server(site, "0.0.0.0") as server:
        assert server.address == f"http://127.0.0.1:{server.server_port}/"


@pytest.mark.parametrize(
    ("host", "said"),
    [
        ("", "Cannot serve at an empty host"),
        ("nope.invalid", "Cannot serve at nope.invalid"),
        (70 * "a", "aaa, port 0"),
    ],
)
def test_a_host_that_cannot_be_is_refused_before_the_export(site, run, not_exported, host, said):
    code, out, err = run("demo", "--host", host)
    assert code == 2 and out == "" and said in err and not_exported == []
    with pytest.raises(ZooError, match=said):
        serve(site, host)


@pytest.mark.parametrize(("host", "loopback"), [("0.0.0.0", "127.0.0.1"), ("0", "127.0.0.1"), ("::", "[::1]")])
def test_who_serves_at_every_address_is_told_so(site, capsys, monkeypatch, host, loopback):
    def interrupted(server):
        raise KeyboardInterrupt

    monkeypatch.setattr(SiteServer, "serve_forever", interrupted)
    monkeypatch.setattr(socket, "gethostname", lambda: "desk")
    try:
        serve(site, host, open_browser=False)
    except ZooError:
        pytest.skip("there is no IPv6 on this machine")
    first, second = capsys.readouterr().out.splitlines()
    port = urlsplit(first.split()[4]).port
    assert f"http://{loopback}:{port}/" in first
    assert "Every address of this machine" in second and f"http://desk:{port}/" in second


def test_a_network_that_was_never_trained_is_told(run, tmp_path):
    network = nasnet_zoo.create("nasnet-a-cifar", filters=4, stages=(1,)).eval()
    nasnet_zoo.save(network, tmp_path / "fresh", origin="nasnet-zoo transfer", trained=False)
    to_onnx(nasnet_zoo.load(tmp_path / "fresh"), tmp_path / "graph")
    for name in ("fresh", "graph"):
        code, _, err = run("demo", tmp_path / name, "--build", tmp_path / "site", "--examples", IMAGES)
        assert code == 0 and f"nasnet-zoo: {tmp_path / name} is not trained (its classifier has fresh weights)" in err
        assert json.loads((tmp_path / "site" / "card.json").read_text())["trained"] is False


@pytest.mark.parametrize("trained", [True, False])
def test_the_page_says_that_a_network_is_not_trained(browser, tmp_path, trained):
    build_site(tmp_path / "site", b"no graph", CARD | {"trained": trained}, {})
    with serving(tmp_path / "site") as address:
        browser.open(address, "failed")
        assert browser.evaluate("document.getElementById('untrained').hidden") is trained
        assert "its classes mean nothing" in browser.text("#untrained") or trained


def test_the_package_has_examples_for_its_own_network(graph, tmp_path, network):
    to_onnx(network, tmp_path / "graph")
    build_graph_demo(tmp_path / "graph", tmp_path / "site")
    card = json.loads((tmp_path / "site" / "card.json").read_text())
    names = [example["caption"] for example in card["examples"]]
    assert len(names) >= 8 and set(names) <= set(network.labels)
    for example in card["examples"]:
        assert network.predict(tmp_path / "site" / example["file"], k=1)


def test_serve_explains_what_it_cannot_serve(site, address, tmp_path):
    with pytest.raises(ZooError, match="There is no demo in"):
        serve(tmp_path)
    for port in (urlsplit(address).port, 70000):
        with pytest.raises(ZooError, match=f"Cannot serve at 127.0.0.1, port {port}: .*choose another port"):
            serve(site, port=port)


def test_a_demo_replaces_an_older_one_and_nothing_else(tmp_path):
    out = tmp_path / "site"
    build_site(out, b"first", CARD, {"normal cell": "<svg/>"}, [IMAGES / "cat.png"])
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(ImageError, match="broken.png"):
        build_site(out, b"second", CARD, {}, [tmp_path / "broken.png"])
    assert (out / "model.onnx").read_bytes() == b"first"
    Image.new("RGB", (4, 4)).save(tmp_path / "red.tiff")  # which browsers do not read
    build_site(out, b"third", CARD, {}, [tmp_path / "red.tiff"])
    assert (out / "model.onnx").read_bytes() == b"third"
    assert [p.name for p in (out / "examples").iterdir()] == ["0.png"] and not list((out / "cells").iterdir())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["broken.png", "red.tiff", "site"]
    (out / "mine.txt").touch()
    with pytest.raises(ZooError, match="holds mine.txt, which would be lost"):
        build_site(out, b"fourth", CARD, {})
    assert (out / "model.onnx").read_bytes() == b"third"


def test_the_site_is_a_static_space_with_the_licence_of_its_scripts(site):
    front = (site / "README.md").read_text().split("---")[1]
    assert 'title: "nasnet-a-cifar-small"' in front and "sdk: static" in front
    assert "cross-origin-embedder-policy: require-corp" in front
    assert "MIT License" in (site / "ort" / "LICENSE.txt").read_text()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"channels": 4}, "1 or 3 channels"),
        ({"std": [0.0]}, "std"),
        ({"resize": "fill"}, "resize"),
        ({"mean": [1, 2], "std": [1, 2]}, "2 entries"),
    ],
)
def test_a_card_that_fits_no_picture_is_refused(tmp_path, change, message):
    with pytest.raises(ConfigError, match=message):
        build_site(tmp_path / "site", b"", CARD | change, {})
    with pytest.raises(ConfigError, match="no accuracy, crop"):
        build_site(tmp_path / "site", b"", {k: v for k, v in CARD.items() if k not in ("accuracy", "crop")}, {})
