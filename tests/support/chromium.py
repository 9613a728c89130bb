"""Headless Chromium, driven by its DevTools protocol over one socket."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import subprocess
import tempfile
import urllib.request
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import aiohttp

FOUND = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
T = TypeVar("T")


class Chromium:
    """A browser with one page.

    Attributes:
        console: messages, exceptions and violations of the page's policy, as they came.
        requests: addresses that the page asked for.
    """

    def __init__(self) -> None:
        assert FOUND is not None
        self.loop = asyncio.new_event_loop()
        self.profile = tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True)
        self.process = subprocess.Popen(
            [
                FOUND, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run",
                "--disable-dev-shm-usage", "--disable-background-networking", "--disable-sync",
                "--disable-component-update", "--hide-scrollbars", "--remote-debugging-port=0",
                f"--user-data-dir={self.profile.name}", "about:blank",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self.console: list[str] = []
        self.requests: list[str] = []
        self.number = 0
        self.loaded = False

    def __enter__(self) -> Chromium:
        try:
            self._run(self._connect)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        if hasattr(self, "session"):
            self._run(self._disconnect)
        self.process.terminate()
        self.process.wait(20)
        self.loop.close()
        self.profile.cleanup()

    def open(
        self, path: Path | str, width: int = 1280, height: int = 900, *, dark: bool = False,
        javascript: bool = True, media: str = "",
    ) -> None:  # fmt: skip
        """Load a page from a file or an address, and wait until it is there."""
        self.console.clear()
        self.requests.clear()
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=width < 600,
        )  # fmt: skip
        self.call(
            "Emulation.setEmulatedMedia",
            media=media,
            features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}],
        )
        self.call("Emulation.setScriptExecutionDisabled", value=not javascript)
        self.loaded = False
        url = path if isinstance(path, str) else path.resolve().as_uri()
        self.call("Page.navigate", url=url)
        self._run(self._until_loaded)

    def value(self, script: str) -> Any:
        """Return what a script gives, as JSON."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def press(self, key: str) -> None:
        """Press a key, such as Tab or Enter."""
        codes = {"Tab": 9, "Enter": 13}
        text = {"text": "\r"} if key == "Enter" else {}
        code = {"key": key, "code": key, "windowsVirtualKeyCode": codes[key]}
        self.call("Input.dispatchKeyEvent", type="keyDown", **code, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", **code)

    def screenshot(self, path: Path, *, whole: bool = False) -> None:
        found = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(found["data"]))

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self._run(lambda: self._call(method, parameters))

    def _run(self, coroutine: Callable[[], Coroutine[Any, Any, T]]) -> T:
        return self.loop.run_until_complete(asyncio.wait_for(coroutine(), 60))

    async def _connect(self) -> None:
        port = Path(self.profile.name) / "DevToolsActivePort"
        while not (port.exists() and port.read_text().strip()):
            assert self.process.poll() is None, "chromium has ended"
            await asyncio.sleep(0.05)
        where = f"http://127.0.0.1:{port.read_text().split()[0]}/json/list"
        pages: list[dict[str, Any]] = []
        while not pages:
            with urllib.request.urlopen(where) as answer:
                pages = [each for each in json.load(answer) if each["type"] == "page"]
            await asyncio.sleep(0.05)
        self.session = aiohttp.ClientSession()
        address = pages[0]["webSocketDebuggerUrl"]
        self.socket = await self.session.ws_connect(address, max_msg_size=0)
        for domain in ("Page", "Runtime", "Network", "Log"):
            await self._call(f"{domain}.enable", {})

    async def _disconnect(self) -> None:
        await self.socket.close()
        await self.session.close()

    async def _call(self, method: str, parameters: dict[str, Any]) -> dict[str, Any]:
        self.number += 1
        await self.socket.send_json({"id": self.number, "method": method, "params": parameters})
        while True:
            message = await self.socket.receive_json()
            if message.get("id") == self.number:
                assert "error" not in message, f"{method}: {message['error']}"
                result: dict[str, Any] = message["result"]
                return result
            self._heard(message)

    async def _until_loaded(self) -> None:
        while not self.loaded:
            self._heard(await self.socket.receive_json())

    def _heard(self, message: dict[str, Any]) -> None:
        method, what = message.get("method"), message.get("params", {})
        if method == "Page.loadEventFired":
            self.loaded = True
        elif method == "Network.requestWillBeSent":
            self.requests.append(what["request"]["url"])
        elif method == "Runtime.consoleAPICalled":
            self.console.append(str([each.get("value") for each in what["args"]]))
        elif method == "Runtime.exceptionThrown":
            self.console.append(str(what["exceptionDetails"].get("text")))
        elif method == "Log.entryAdded":
            self.console.append(what["entry"]["text"])
