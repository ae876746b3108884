"""Headless Chromium, driven over its DevTools socket: just what a test of a page needs."""

import base64
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Page:
    """One page of a browser."""

    def __init__(self, address: str) -> None:
        from websockets.sync.client import connect

        self.socket, self.number = connect(address, max_size=None, proxy=None), 0
        self.events: list[dict[str, Any]] = []  # what the browser told of itself, of the domains that were enabled

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self.number += 1
        self.socket.send(json.dumps({"id": self.number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self.socket.recv(timeout=60))
            if message.get("id") == self.number:
                assert "error" not in message, message
                return dict(message["result"])
            self.events.append(message)

    def value(self, script: str) -> Any:
        found = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def until(self, script: str, *, seconds: float = 60.0) -> None:
        end = time.monotonic() + seconds
        while not self.value(
            f"(() => {{ try {{ return {script}; }} catch {{ return false; }} }})()"
        ):  # while it loads, there is nothing yet
            assert time.monotonic() < end, f"never true: {script}"
            time.sleep(0.05)

    def press(self, key: str, *, control: bool = False) -> None:
        typed = {"text": key} if len(key) == 1 and not control else {}
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, modifiers=2 if control else 0, **(typed if kind == "keyDown" else {}))

    def resize(self, width: int, height: int, *, dark: bool = False, phone: bool = False) -> None:
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])

    def write(self, text: str) -> None:
        self.call("Input.insertText", text=text)

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))


@contextmanager
def chromium(folder: Path, url: str) -> Iterator[Page]:
    """A browser with its profile in `folder`, showing `url`."""
    import httpx

    assert PROGRAM
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0", "--window-size=1240,1000"]
    process = subprocess.Popen(
        [PROGRAM, *options, f"--user-data-dir={folder}", "about:blank"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        told, end = folder / "DevToolsActivePort", time.monotonic() + 60
        while not (told.is_file() and "\n" in told.read_text()):
            assert time.monotonic() < end and process.poll() is None, "Chromium does not start"
            time.sleep(0.05)
        pages = httpx.get(f"http://127.0.0.1:{told.read_text().split()[0]}/json", trust_env=False).json()
        page = Page(next(each["webSocketDebuggerUrl"] for each in pages if each["type"] == "page"))
        page.call("Page.enable")
        page.call("Page.navigate", url=url)
        yield page
        page.socket.close()
    finally:
        process.terminate()
        process.wait(30)
