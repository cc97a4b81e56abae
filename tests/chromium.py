"""A headless Chromium with one tab, driven by the DevTools protocol over a pipe.

Needs no driver and no package: Chromium reads commands from its descriptor 3 and writes answers to
4, JSON with a null byte after each.
"""

import json
import os
import subprocess
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any


class Tab:
    """A page in Chromium; `events` are those that it has sent, in order."""

    def __init__(self, commands: int, answers: int) -> None:
        self._commands = commands
        self._answers = answers
        self._buffer = b""
        self._session: str | None = None
        self._count = 0
        self.events: list[dict[str, Any]] = []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        attached = self.send("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and return its result. Raise RuntimeError if Chromium refuses it."""
        self._count += 1
        command: dict[str, Any] = {"id": self._count, "method": method, "params": parameters}
        if self._session:
            command["sessionId"] = self._session
        os.write(self._commands, json.dumps(command).encode() + b"\0")
        while True:
            message = self._read()
            if message.get("id") == self._count:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']}")
                return dict(message["result"])

    def open(self, url: str, width: int = 1280, is_dark: bool = False) -> None:
        """Load the page at a width in CSS pixels, in a theme, and wait until it has loaded."""
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=900,
            deviceScaleFactor=1,
            mobile=False,
        )
        theme = {"name": "prefers-color-scheme", "value": "dark" if is_dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[theme])
        self.send("Emulation.setScrollbarsHidden", hidden=True)
        # First an empty page: another fragment of the same page would be no load.
        for address in ("about:blank", url):
            self.events.clear()
            self.send("Page.navigate", url=address)
            while not any(event["method"] == "Page.loadEventFired" for event in self.events):
                self._read()

    def run(self, script: str) -> Any:
        """Return the value of an expression in the page, of JSON types."""
        result = self.send("Runtime.evaluate", expression=script, returnByValue=True)
        if "exceptionDetails" in result:
            raise RuntimeError(str(result["exceptionDetails"]))
        return result["result"].get("value")

    def press(self, key: str, text: str = "") -> None:
        """Press a key of the keyboard, such as `Tab`, or `j` with the text that it types."""
        codes = {"Tab": 9, "Enter": 13, "Escape": 27, " ": 32, "ArrowDown": 40}
        code = codes.get(key, ord(key.upper()) if len(key) == 1 else 0)
        down = {"type": "keyDown", "key": key, "windowsVirtualKeyCode": code}
        if text:
            down["text"] = text
        self.send("Input.dispatchKeyEvent", **down)
        self.send("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=code)

    def type(self, text: str) -> None:
        """Insert text where the focus is."""
        self.send("Input.insertText", text=text)

    def click(self, selector: str) -> None:
        """Click the first element of the selector."""
        self.run(f"document.querySelector({json.dumps(selector)}).click()")

    def picture(self, path: Path, top: int | None = None) -> None:
        """Write a PNG of what is visible, scrolled to `top`, or of the whole page."""
        if top is not None:
            self.run(f"window.scrollTo(0, {top})")
        shot = self.send("Page.captureScreenshot", captureBeyondViewport=top is None)
        path.write_bytes(b64decode(shot["data"]))

    def print_pdf(self) -> bytes:
        """Return the page as it prints on A4."""
        paper = {"paperWidth": 8.27, "paperHeight": 11.69}
        return b64decode(self.send("Page.printToPDF", **paper)["data"])

    def text_on_paper(self) -> str:
        """Return the text of the printed page, its blanks and line breaks as single spaces."""
        from pypdf import PdfReader

        pages = PdfReader(BytesIO(self.print_pdf())).pages
        return " ".join(" ".join(page.extract_text() for page in pages).split())

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            read = os.read(self._answers, 1 << 16)
            if not read:
                raise RuntimeError("Chromium has ended")
            self._buffer += read
        line, self._buffer = self._buffer.split(b"\0", 1)
        message: dict[str, Any] = json.loads(line)
        if "method" in message:
            self.events.append(message)
        return message


@contextmanager
def open_chromium(program: str) -> Iterator[Tab]:
    """Start Chromium with an empty profile, yield its tab, and stop it."""
    from_test, to_chromium = os.pipe(), os.pipe()
    command_read, command_write = from_test
    answer_read, answer_write = to_chromium

    def as_3_and_4() -> None:
        read, write = os.dup(command_read), os.dup(answer_write)
        os.dup2(read, 3)
        os.dup2(write, 4)

    with TemporaryDirectory() as profile:
        command = [program, "--headless", "--remote-debugging-pipe", f"--user-data-dir={profile}"]
        # Without a sandbox, as tests in a container run as root; /dev/shm is small there.
        command += ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--no-first-run"]
        command += ["--disable-background-networking", "--disable-component-update"]
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=as_3_and_4,
            close_fds=False,
        )
        os.close(command_read)
        os.close(answer_write)
        try:
            yield Tab(command_write, answer_read)
        finally:
            process.terminate()
            process.wait(20)
            os.close(command_write)
            os.close(answer_read)
