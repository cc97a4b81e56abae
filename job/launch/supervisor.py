"""The supervisor: the container's first process, above the launcher and the training processes.

Purpose: start the launcher, forward stop signals to everyone below it, bound the time to the end, leave no process
behind, and end with the code that the training processes wrote. Knows nothing of training.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType

import psutil

from job.config.commands import TrainConfig
from job.config.load import resolved_yaml
from job.errors import ExitCode
from job.launch.environment import count_gpus
from job.launch.outcome import Outcome, read_outcome
from job.storage.places import work_folder
from job.telemetry import warn

WORKER = "job.training.worker"
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
SECONDS_BETWEEN_LOOKS = 0.2


def run_training(config: TrainConfig) -> Outcome:
    """Train as the config says, in processes of their own, and say how it ended."""
    gpus = count_gpus()
    processes = config.training.processes or max(1, gpus)
    with work_folder(config.run) as work:
        (work / "config.yaml").write_text(resolved_yaml(config), encoding="utf-8")
        os.environ["ACCELERATE_USE_CPU"] = str(gpus == 0).lower()
        return supervise(launch_command(work, processes, gpus > 0), work, processes, config.limits.grace_seconds)


def launch_command(work: Path, processes: int, has_gpu: bool) -> list[str]:
    """The command that starts `processes` training processes on this machine through accelerate."""
    arguments = ["--num_machines", "1", "--num_processes", str(processes), "--mixed_precision", "no"]
    arguments += ["--dynamo_backend", "no"]
    if processes > 1:
        # accelerate's launcher of several processes is --multi_gpu; on the CPU they meet through gloo, and
        # ACCELERATE_USE_CPU says so. Its --cpu would start one.
        arguments += ["--multi_gpu", "--main_process_port", str(_free_port())]
    elif not has_gpu:
        arguments += ["--cpu"]
    if not has_gpu:
        arguments += ["--num_cpu_threads_per_process", str(max(1, (os.cpu_count() or 1) // processes))]
    return [sys.executable, "-m", "accelerate.commands.launch", *arguments, "--module", WORKER, str(work)]


def supervise(command: Sequence[str], work: Path, processes: int, grace_seconds: float) -> Outcome:
    """Run `command` to its end, or to `grace_seconds` after a stop signal, and say how it ended."""
    environment = os.environ | {"HF_HUB_DISABLE_TELEMETRY": "1", "TOKENIZERS_PARALLELISM": "false"}
    family = _Family(subprocess.Popen(command, env=environment, start_new_session=True), grace_seconds)
    before = {number: signal.signal(number, family.on_stop_signal) for number in STOP_SIGNALS}
    try:
        returned = family.wait()
    finally:
        family.kill()
        for number, handler in before.items():
            signal.signal(number, handler)
    return _judge(read_outcome(work, processes), returned, family.stopped_at is not None)


def _judge(outcome: Outcome | None, returned: int, stopped: bool) -> Outcome:
    if outcome is not None:
        return outcome
    if stopped:
        return Outcome(ExitCode.RETRY, "stopped by a signal before the training processes could say how far they were")
    if returned < 0 or returned in (128 + signal.SIGKILL, 128 + signal.SIGTERM):
        return Outcome(ExitCode.RETRY, "a training process was killed from outside (out of memory, or by the host)")
    return Outcome(
        ExitCode.BUG, f"the launcher ended with {returned} and no training process said why: see the log above"
    )


class _Family:
    """The launcher and all that it started."""

    def __init__(self, launcher: "subprocess.Popen[bytes]", grace_seconds: float) -> None:
        self._launcher = launcher
        self._grace_seconds = grace_seconds
        self._members = {psutil.Process(launcher.pid)}
        self.stopped_at: float | None = None

    def on_stop_signal(self, number: int, _frame: FrameType | None) -> None:
        """Pass a stop signal on: the launchers lose it, so each member is told itself."""
        if self.stopped_at is None:
            self.stopped_at = time.monotonic()
            warn("stopping", signal=signal.Signals(number).name, grace_seconds=self._grace_seconds)
        self._signal(signal.SIGTERM)

    def wait(self) -> int:
        """Wait for the launcher and for those who outlive it; kill them when the grace period is over."""
        while self._launcher.poll() is None or self._alive():
            if self.stopped_at and time.monotonic() - self.stopped_at > self._grace_seconds:
                warn("the grace period is over: killing what is left", grace_seconds=self._grace_seconds)
                break
            if self._launcher.poll() is not None and self.stopped_at is None:
                break  # nobody asked to stop, so whoever is left has lost its launcher
            self._look()
            time.sleep(SECONDS_BETWEEN_LOOKS)
        self.kill()
        return self._launcher.wait()

    def kill(self) -> None:
        """Leave nobody behind."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        self._look()
        for member in self._alive():
            with suppress(psutil.NoSuchProcess):
                member.send_signal(number)

    def _look(self) -> None:
        """Remember everyone while the launcher still stands between them and us: orphans have no parent to ask."""
        for member in list(self._members):
            with suppress(psutil.NoSuchProcess):
                self._members.update(member.children(recursive=True))

    def _alive(self) -> list[psutil.Process]:
        return [member for member in self._members if _lives(member)]


def _lives(member: psutil.Process) -> bool:
    try:
        return bool(member.is_running() and member.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
