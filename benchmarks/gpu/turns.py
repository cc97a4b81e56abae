"""Let processes that hold a model each measure by turns, and stop those that take too long.

A variant has a process of its own, which loads once and then measures one round whenever it is
asked. So variants alternate without loading again, and one that runs out of memory or hangs ends
alone. The protocol is a line of JSON on stdout after each round, and a line on stdin that asks for
the next.
"""

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

ROOT = Path(__file__).parents[2]
WORKER = "benchmarks.gpu.worker"


class Turn:
    """The measuring process's end: reports a round, and blocks until it is asked for the next."""

    def __init__(self) -> None:
        self._answers = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)  # libraries print to stdout

    def report(self, found: Mapping[str, Any]) -> None:
        """Report one round. End this process if no other is wanted."""
        print(json.dumps(dict(found)), file=self._answers, flush=True)
        if not sys.stdin.readline():
            # Not `sys.exit`: a trainer in the middle of its steps has nothing to save.
            os._exit(0)

    def fail(self, reason: str) -> None:
        """Report that this process measures nothing more."""
        print(json.dumps({"failed": reason}), file=self._answers, flush=True)


class Process:
    """The measuring process of one variant, as its parent sees it."""

    def __init__(self, specification: Mapping[str, Any], log: Path, work: str) -> None:
        self._log = log
        with log.open("wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", WORKER, json.dumps(dict(specification))],
                cwd=ROOT,
                env=_environment(work),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,
            )
        self.is_alive = True

    def answer(self, deadline: float) -> dict[str, Any]:
        """Block until the process reports, and return it; {"failed": why} if it does not."""
        assert self._process.stdout is not None
        left = max(0, deadline - time.monotonic())
        ready, _, _ = select.select([self._process.stdout], [], [], left)
        if not ready:
            self.stop()
            return {"failed": "not done within its time limit"}
        line = self._process.stdout.readline()
        found: dict[str, Any] = json.loads(line) if line else {"failed": self._last_words()}
        if "failed" in found:
            self.stop()
        return found

    def ask(self) -> None:
        """Ask for one more round."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write("\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            return  # it has ended, which `answer` notices

    def stop(self) -> None:
        """End the process and those that it has started. A no-op if it has ended."""
        if not self.is_alive:
            return
        self.is_alive = False
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.communicate()

    def _last_words(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        return next((line.strip()[:200] for line in reversed(lines) if line.strip()), "it ended")


def rounds_by_turns(
    specifications: Mapping[str, Mapping[str, Any]], rounds: int, deadline: float, logs: Path
) -> Iterator[dict[str, Any]]:
    """Start all variants at once, measure them by turns, and yield each result with its variant.

    Round 0 is the warm-up. Every second round has the opposite order. `deadline` is by
    `time.monotonic`.
    """
    logs.mkdir(parents=True, exist_ok=True)
    processes: dict[str, Process] = {}
    work = mkdtemp(prefix="recap-bench-")
    try:
        for name, specification in specifications.items():
            log = logs / f"{name.replace(' ', '-')}.log"
            processes[name] = Process(specification, log, work)
        for number in range(rounds + 1):
            names = list(processes)
            if number % 2 == 0:
                names.reverse()
            for name in names:
                process = processes[name]
                if not process.is_alive:
                    continue
                if number > 0:
                    process.ask()
                yield {"variant": name, "round": number, **process.answer(deadline)}
    finally:
        for process in processes.values():
            process.stop()
        # A process that is killed cannot delete what it wrote.
        shutil.rmtree(work, ignore_errors=True)


def _environment(work: str) -> dict[str, str]:
    """Return a measuring process's environment; its temporary files go to the folder `work`."""
    ours = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "TMPDIR": work}
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    ours["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    return os.environ | ours
