"""The real command with real signals, and who is left behind."""

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
from tests.faults.trials import PLACE, QUIET, STEP

LAUNCHER = "accelerate.commands.launch"
MARK = "RECAP_TEST_RUN"


class RealRun:
    """`recap train` on one config, as often as it takes."""

    def __init__(self, config: dict[str, Any], folder: Path) -> None:
        self._path = folder / f"{config['run']}.yaml"
        self._path.write_text(yaml.safe_dump(config), encoding="utf-8")
        self._mark = uuid.uuid4().hex
        self.said = ""

    def start(self) -> "subprocess.Popen[str]":
        """Start the command; its log comes through stderr."""
        return subprocess.Popen(
            [sys.executable, "-m", "job", "train", str(self._path)],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=PLACE,
            env=os.environ | QUIET | {MARK: self._mark},
        )  # fmt: skip

    def finish(self) -> None:
        """Run to the end."""
        code = self.end(self.start())
        assert code == ExitCode.DONE, self.said

    def interrupt(self, at_step: int, number: signal.Signals, trainer: int | None = None) -> int:
        """Run until the log tells of a step, send a signal to the first process, or to one training process alone.

        How the first process ended.
        """
        process = self.start()
        for line in process.stderr:  # type: ignore[union-attr]
            found = STEP.search(line)
            if found and int(found[1]) >= at_step:
                told = process if trainer is None else self.trainers()[trainer]
                told.send_signal(number)
                break
        return self.end(process)

    def end(self, process: "subprocess.Popen[str]") -> int:
        """Wait for the end of a process; nobody that it started may be left a little later."""
        _, self.said = process.communicate()
        for _ in range(200):
            if not self.family():
                return process.returncode
            time.sleep(0.1)
        raise AssertionError(f"left behind: {[member.cmdline() for member in self.family()]}")

    def trainers(self) -> list[psutil.Process]:
        """The training processes, without launcher and supervisor."""
        found = [(member, member.cmdline()) for member in self.family()]
        return [member for member, line in found if WORKER in line and LAUNCHER not in line]

    def family(self) -> list[psutil.Process]:
        """Every living process that this run started, whoever its parent is now."""
        found = []
        for process in psutil.process_iter():
            try:
                lives = process.status() != psutil.STATUS_ZOMBIE
                if lives and process.environ().get(MARK) == self._mark:
                    found.append(process)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        return found
