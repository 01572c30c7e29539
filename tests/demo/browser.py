"""Headless Chromium, told what to do over a pair of pipes in its own protocol (Chrome DevTools Protocol)."""

import base64
import json
import os
import select
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any

PATIENCE = 120
"""Seconds for anything to happen, on a machine that is busy."""


class Browser:
    """One page of a browser; use as a context manager.

    Attributes:
        complaints: what stood in the page's console, and errors that its script did not catch.
    """

    def __init__(self, program: str, folder: Path) -> None:
        self.complaints: list[str] = []
        command = [program, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}"]
        command += ["--remote-debugging-pipe", "--no-proxy-server", "--window-size=1200,1000"]
        (theirs_in, self._out), (self._in, theirs_out) = os.pipe(), os.pipe()
        theirs = [os.dup(end) for end in (theirs_in, theirs_out)]  # above 3 and 4, which the browser wants them at

        def place_pipes() -> None:
            for end, place in zip(theirs, (3, 4), strict=True):
                os.dup2(end, place)

        self._process = subprocess.Popen(
            command,
            pass_fds=(3, 4, *theirs),
            preexec_fn=place_pipes,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "HOME": str(folder)},
        )
        for end in (theirs_in, theirs_out, *theirs):
            os.close(end)
        self._buffer, self._number, self._session = b"", 0, ""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "DOM"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._process.kill()
        self._process.wait()
        for end in (self._in, self._out):
            os.close(end)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The browser's answer to a command."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        session = {"sessionId": self._session} if self._session else {}
        os.write(self._out, json.dumps({**message, **session}).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._in], [], [], PATIENCE)
            part = os.read(self._in, 1 << 20) if ready else b""
            assert part, "the browser says nothing more"
            self._buffer += part
        message, _, self._buffer = self._buffer.partition(b"\0")
        event = json.loads(message)
        if event.get("method") in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded"):
            self.complaints.append(json.dumps(event["params"]))
        return event

    def open(self, address: str) -> None:
        """Loads a page."""
        self.call("Page.navigate", url=address)

    def ask(self, expression: str) -> Any:
        """The value of an expression in the page."""
        said = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in said, said
        return said["result"].get("value")

    def wait_for(self, expression: str) -> Any:
        """The value of an expression in the page, once it is true."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            if value := self.ask(expression):
                return value
            time.sleep(0.02)
        raise AssertionError(f"never true: {expression}; {self.complaints}")

    def choose_file(self, selector: str, file: Path) -> None:
        """Puts a file into an `<input type=file>`, as a person would."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", files=[str(file)], nodeId=node)

    def picture(self) -> bytes:
        """The page as it is seen, as PNG."""
        return base64.b64decode(self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"])
