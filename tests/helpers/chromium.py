"""A page of a headless Chromium, driven through its debugging pipe: no driver to install, and no port."""

import json
import os
import select
import shutil
import subprocess
import time
from itertools import count

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
FLAGS += ["--disable-background-networking", "--disable-component-update", "--remote-debugging-pipe"]
PATIENCE = 300  # seconds; the machine may be busy
KEYS = {"Tab": (9, ""), "Enter": (13, "\r"), " ": (32, " ")}


class Browser:
    """One page of a headless Chromium, over the Chrome DevTools Protocol."""

    def __init__(self, profile):
        from_us, self._out = os.pipe()
        self._in, to_us = os.pipe()
        # Chromium reads commands from file descriptor 3 and writes answers to 4, each ended by a zero byte. Not sh:
        # Debian's knows no descriptors above 9.
        shell = f'exec "$@" 3<&{from_us} 4>&{to_us}'
        command = ["bash", "-c", shell, "bash", CHROMIUM, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        self._process = subprocess.Popen(command, pass_fds=(from_us, to_us), stderr=subprocess.DEVNULL)
        os.close(from_us)
        os.close(to_us)
        self._ids, self._buffer, self._session, self.events = count(1), b"", None, []
        (page,) = (t for t in self.call("Target.getTargets")["targetInfos"] if t["type"] == "page")
        attached = self.call("Target.attachToTarget", targetId=page["targetId"], flatten=True)
        self._session = attached["sessionId"]
        self.call("Page.enable")
        self._watch(self._session)
        self.resize(1280, 900)

    def close(self):
        os.close(self._out)  # Chromium ends when its pipe does
        self._process.wait(PATIENCE)
        os.close(self._in)

    def call(self, method, **parameters):
        number = self._send(self._session, method, **parameters)
        while (answer := self._receive()).get("id") != number:
            self.events.append(answer)
            if answer.get("method") == "Target.attachedToTarget":
                self._watch(answer["params"]["sessionId"])
        assert "error" not in answer, (method, answer["error"])
        return answer["result"]

    def _watch(self, session):
        """Sees the requests of a page or worker, and of the workers that it starts, from the first one on."""
        self._send(session, "Network.enable")
        self._send(session, "Target.setAutoAttach", autoAttach=True, waitForDebuggerOnStart=True, flatten=True)
        self._send(session, "Runtime.runIfWaitingForDebugger")

    def _send(self, session, method, **parameters):
        message = {"id": next(self._ids), "method": method, "params": parameters}
        os.write(self._out, json.dumps(message | ({"sessionId": session} if session else {})).encode() + b"\0")
        return message["id"]

    def _receive(self):
        while b"\0" not in self._buffer:
            assert select.select([self._in], [], [], PATIENCE)[0], "Chromium says nothing"
            received = os.read(self._in, 1 << 20)
            assert received, "Chromium has ended"
            self._buffer += received
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def evaluate(self, expression):
        answer = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, expression):
        end = time.monotonic() + PATIENCE
        while not (value := self.evaluate(expression)):
            assert time.monotonic() < end, (expression, self.evaluate("document.body?.innerText"))
            time.sleep(0.02)
        return value

    def open(self, address, state="ready"):
        self.call("Page.navigate", url=address)
        self.wait(f"document.body?.dataset.state === '{state}'")

    def resize(self, width, height):
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500
        )

    def middle(self, selector):
        element = f"document.querySelector({json.dumps(selector)})"
        self.evaluate(f"{element}.scrollIntoView({{block: 'center'}})")
        x, y, width, height = self.evaluate(
            f"(({{ x, y, width, height }}) => [x, y, width, height])({element}.getBoundingClientRect())"
        )
        return {"x": x + width / 2, "y": y + height / 2}

    def click(self, selector):
        where = self.middle(selector)
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **where)

    def drop(self, path):
        data = {"items": [], "files": [str(path)], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.call("Input.dispatchDragEvent", type=kind, data=data, **self.middle("#choose"))

    def press(self, key):
        code, text = KEYS[key]
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, text=text)

    def text(self, selector):
        return self.evaluate(f"document.querySelector({json.dumps(selector)}).textContent")
