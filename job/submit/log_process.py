"""The log that a command-line tool prints as it grows: `kubectl logs` and `docker logs`.

A thread reads what the tool prints, so that asking for new lines never waits.
"""

import os
import re
import subprocess
import threading
from collections.abc import Iterator, Sequence
from queue import Empty, SimpleQueue

from job.submit.tool import ENGLISH, no_tool
from job.telemetry import warn_once

THREAD_NAME = "recap-log"
MAX_LAST_READINGS = 3

# Both tools begin a line so with --timestamps. They print their own messages without.
TIMESTAMPED = re.compile(r"(\d{4}-\d\d-\d\dT\S+) (.*)")


class LogProcess:
    """A tool that follows a container's log with --timestamps, and is started again if it ends."""

    def __init__(self, command: Sequence[str], since: str) -> None:
        """Start the tool. `since` is its option for the time at which a log is read on."""
        self._command = list(command)
        self._since = since
        self._lines: SimpleQueue[str] = SimpleQueue()
        self._newest = ""  # timestamp of the newest line
        self._count = 0  # of the lines with this timestamp
        self._last_readings = 0  # since the container has ended
        self._start([])

    @property
    def has_ended(self) -> bool:
        """True if the tool has ended and `lines` has yielded everything."""
        return not self._thread.is_alive() and self._lines.empty()

    @property
    def error(self) -> str | None:
        """The tool's last message if it has ended with an error, None otherwise."""
        return self._message if self.has_ended and self._process.wait() else None

    def is_complete(self, is_running: bool) -> bool:
        """Return True if the log of a container was read to its end; else read on.

        A tool that loses its connection may end without an error. So the log of a container that
        has ended is read once more.
        """
        if not self.has_ended:
            return False
        if self.error:
            warn_once("a log cannot be followed, trying again", why=self.error)
        if not is_running:
            if self._last_readings and self.error is None:
                return True
            # docker has log drivers that cannot be read at all.
            if self._last_readings == MAX_LAST_READINGS:
                return True
            self._last_readings += 1
        self._start([f"{self._since}={self._newest}"] if self._newest else [])
        return False

    def lines(self) -> Iterator[str]:
        """Yield the new lines of the log, without their timestamps."""
        while True:
            try:
                line = self._lines.get_nowait()
            except Empty:
                return
            found = TIMESTAMPED.fullmatch(line)
            if not found:
                self._message = line
            elif self._is_new(found[1]):
                yield found[2]

    def close(self) -> None:
        """End the tool."""
        self._process.kill()
        self._process.wait()
        self._thread.join()

    def _start(self, options: list[str]) -> None:
        try:
            self._process = subprocess.Popen(
                [*self._command, *options],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,  # docker prints there what the container did
                env=os.environ | ENGLISH,
                start_new_session=True,  # Ctrl-C is this process's to handle
            )
        except FileNotFoundError as error:
            raise no_tool(self._command[0]) from error
        self._message = ""
        self._resume_at = self._newest
        self._repeated = self._count
        self._thread = threading.Thread(
            target=self._read, args=[self._process], name=THREAD_NAME, daemon=True
        )
        self._thread.start()

    def _read(self, process: "subprocess.Popen[bytes]") -> None:
        assert process.stdout is not None
        with process.stdout as output:
            for line in output:
                self._lines.put(line.decode("utf-8", "replace").rstrip("\r\n"))
        process.wait()

    def _is_new(self, timestamp: str) -> bool:
        """Return False for a line that was yielded before the last start; note any other.

        The tools repeat the whole second of the time that they begin with.
        """
        if timestamp < self._resume_at:
            return False
        if timestamp == self._resume_at and self._repeated:
            self._repeated -= 1
            return False

        if timestamp > self._newest:
            self._newest = timestamp
            self._count = 0
        if timestamp == self._newest:
            self._count += 1
        return True
