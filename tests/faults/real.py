"""The real command with real signals, and the processes that it leaves behind."""

import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import psutil
import yaml

from job.errors import ExitCode
from job.launch.supervisor import WORKER
from tests.faults.trials import QUIET, ROOT, STEP

LAUNCHER = "accelerate.commands.launch"
MARK = "RECAP_TEST_RUN"  # an environment variable, which every descendant inherits


class RealRun:
    """A command of recap on one config, as often as it takes. `log` is the last process's."""

    def __init__(self, config: dict[str, Any], folder: Path, command: str = "train") -> None:
        self._command = command
        self._path = folder / f"{config['run']}.yaml"
        self._path.write_text(yaml.safe_dump(config), encoding="utf-8")
        self._mark = uuid.uuid4().hex
        self.log = ""

    def start(self) -> "subprocess.Popen[str]":
        """Start the command, with its log in a pipe."""
        return subprocess.Popen(
            [sys.executable, "-m", "job", self._command, str(self._path)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=os.environ | QUIET | {MARK: self._mark},
        )

    def finish(self) -> None:
        """Run to the end."""
        code = self.end(self.start())
        assert code == ExitCode.DONE, self.log

    def interrupt(self, at_step: int, number: signal.Signals, trainer: int | None = None) -> int:
        """Send a signal once the log reports the step; return the exit code of the command.

        The signal goes to the command, or to the training process number `trainer` alone.
        """
        process = self.start()
        for line in process.stderr:  # type: ignore[union-attr]
            found = STEP.search(line)
            if found and int(found[1]) >= at_step:
                target = process if trainer is None else self.trainers()[trainer]
                target.send_signal(number)
                break
        return self.end(process)

    def interrupt_at(self, message: str, number: signal.Signals) -> int:
        """Send a signal to the command once the log has the message; return its exit code."""
        process = self.start()
        for line in process.stderr:  # type: ignore[union-attr]
            if message in line:
                process.send_signal(number)
                break
        return self.end(process)

    def end(self, process: "subprocess.Popen[str]") -> int:
        """Wait for the end and return the exit code; raise if a descendant lives on for 20 s."""
        _, self.log = process.communicate()
        for _ in range(200):
            if not self.family():
                return process.returncode
            time.sleep(0.1)
        raise AssertionError(f"left behind: {[member.cmdline() for member in self.family()]}")

    def trainers(self) -> list[psutil.Process]:
        """Return the training processes, without launcher and supervisor."""
        found = [(member, member.cmdline()) for member in self.family()]
        return [member for member, line in found if WORKER in line and LAUNCHER not in line]

    def workers(self) -> list[psutil.Process]:
        """Return the workers of a night, without the process above them."""
        return [member for member in self.family() if "--shard" in member.cmdline()]

    def family(self) -> list[psutil.Process]:
        """Return every living process that this run started, whatever its parent is now."""
        found = []
        for process in psutil.process_iter():
            try:
                is_zombie = process.status() == psutil.STATUS_ZOMBIE
                if not is_zombie and process.environ().get(MARK) == self._mark:
                    found.append(process)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        return found
