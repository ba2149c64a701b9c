"""Headless Chromium, spoken to by its debugging protocol over a pipe: no port, no driver, no package in between.

The protocol is that of chrome's --remote-debugging-pipe: JSON messages that end with a zero byte, requests on the
browser's descriptor 3, answers and events on its 4.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.procs import WATCHDOG

#: By what name distributions have it.
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


class BrowserError(Exception):
    """The browser refused, or ended."""


class Browser:
    """A browser with one page, which has a profile of its own. A context manager; ends for certain."""

    def __init__(self, command: str) -> None:
        self._command = command
        self._number = 0
        self._session: str | None = None
        self._buffer = b""
        #: What the page asked for, logged, and threw.
        self.requests: list[str] = []
        self.problems: list[str] = []

    def __enter__(self) -> Browser:
        self._profile = tempfile.TemporaryDirectory(prefix="coopshm-browser-", ignore_cleanup_errors=True)
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()
        arguments = [
            "--headless=new",
            "--remote-debugging-pipe",
            f"--user-data-dir={self._profile.name}",
            "--no-first-run",
            "--disable-gpu",
            "--disable-dev-shm-usage",  # /dev/shm is for the caches under test
            "--disable-background-networking",
            "--disable-component-update",
            "--hide-scrollbars",
            "--force-color-profile=srgb",
            "--font-render-hinting=none",
        ]
        if os.geteuid() == 0:
            arguments.append("--no-sandbox")  # which refuses to run as root
        # The shell moves the two pipes to where the browser wants them, whatever their numbers are here.
        script = f'exec "$0" "$@" 3<&{theirs_in} 4>&{theirs_out}'
        self._process = subprocess.Popen(
            ["/bin/bash", "-c", script, self._command, *arguments, "about:blank"],
            pass_fds=(theirs_in, theirs_out),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        try:
            target = self.call("Target.createTarget", url="about:blank")["targetId"]
            self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            for domain in ("Page", "Runtime", "Log", "Network"):
                self.call(f"{domain}.enable")
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._out)
        os.close(self._in)
        self._profile.cleanup()

    # ---- the protocol

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Ask the browser for something; what happens meanwhile is noted."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._out, data) :]
        for answer in self._messages():
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise BrowserError(f"{method}: {answer['error']}")
                result: dict[str, Any] = answer["result"]
                return result
            self._note(answer)
        raise BrowserError("the browser has ended")

    def _messages(self) -> Iterator[dict[str, Any]]:
        while True:
            while (end := self._buffer.find(b"\0")) >= 0:
                message, self._buffer = self._buffer[:end], self._buffer[end + 1 :]
                yield json.loads(message)
            if not select.select([self._in], [], [], WATCHDOG)[0]:
                raise BrowserError("the browser does not answer")
            data = os.read(self._in, 1 << 16)
            if not data:
                return
            self._buffer += data

    def _note(self, event: dict[str, Any]) -> None:
        params = event.get("params", {})
        match event.get("method"):
            case "Network.requestWillBeSent":
                self.requests.append(params["request"]["url"])
            case "Runtime.exceptionThrown":
                self.problems.append(json.dumps(params["exceptionDetails"]))
            case "Runtime.consoleAPICalled" if params["type"] in ("error", "warning", "assert"):
                self.problems.append(json.dumps(params["args"]))
            case "Log.entryAdded" if params["entry"]["level"] in ("error", "warning"):
                self.problems.append(json.dumps(params["entry"]))

    # ---- what a person does

    def go(self, url: str) -> None:
        error = self.call("Page.navigate", url=url).get("errorText")
        if error:
            raise BrowserError(f"{url}: {error}")
        self.until("document.readyState === 'complete'")

    def look(self, width: int, height: int = 900, theme: str = "light") -> None:
        """Have a window of this size, and prefer this theme."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": theme}])

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression, awaited."""
        answer = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            raise BrowserError(json.dumps(answer["exceptionDetails"]))
        return answer["result"].get("value")

    def until(self, script: str, what: Callable[[], object] = lambda: "") -> Any:
        """The value of the expression, once it is one that counts as true. (An element comes back as an empty dict.)"""
        deadline = time.monotonic() + WATCHDOG
        while not ((value := self.run(script)) or value == {}):
            if time.monotonic() > deadline:
                raise BrowserError(f"never became true: {script} {what()} {self.problems}")
            time.sleep(0.02)
        return value

    def screenshot(self, path: Path, width: int, height: int) -> None:
        """Write a PNG of the page's upper left part of this size, however large the window is."""
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        path.write_bytes(base64.b64decode(shot["data"]))
