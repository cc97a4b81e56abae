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
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType

import psutil

from job.config.commands import TrainConfig
from job.config.load import resolved_yaml
from job.errors import ConfigError, ExitCode
from job.launch.environment import count_gpus
from job.launch.orphans import adopt_orphans, lives
from job.launch.outcome import SUPERVISOR, Outcome, read_outcome
from job.launch.spot import NOTICE_SECONDS, spot_watch
from job.storage.places import work_folder
from job.telemetry import warn

WORKER = "job.training.worker"
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
SECONDS_BETWEEN_LOOKS = 0.2
KILL_SECONDS = 5.0  # a killed process is gone at once, unless the kernel is writing something of it
KILLED = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def run_training(config: TrainConfig) -> Outcome:
    """Train as the config says, in processes of their own, and say how it ended."""
    gpus = count_gpus()
    processes = config.training.processes or max(1, gpus)
    if gpus and processes > gpus:
        raise ConfigError(f"training.processes: {processes}, but this machine has {gpus} GPUs: {gpus} at the most")
    limits = config.limits
    with work_folder(config.run) as work:
        (work / "config.yaml").write_text(resolved_yaml(config), encoding="utf-8")
        os.environ["ACCELERATE_USE_CPU"] = str(gpus == 0).lower()
        command = launch_command(work, processes, gpus > 0)
        return supervise(command, work, processes, limits.grace_seconds, limits.spot_notice)


def launch_command(work: Path, processes: int, has_gpu: bool) -> list[str]:
    """The command that starts `processes` training processes on this machine: several through accelerate."""
    if processes == 1:  # a launcher in between would only be one more that loses signals
        return [sys.executable, "-m", WORKER, str(work)]
    arguments = ["--num_machines", "1", "--num_processes", str(processes), "--mixed_precision", "no"]
    # accelerate's launcher of several processes is --multi_gpu; on the CPU they meet through gloo, and
    # ACCELERATE_USE_CPU says so. Its --cpu would start one.
    arguments += ["--dynamo_backend", "no", "--multi_gpu", "--main_process_port", str(_free_port())]
    if not has_gpu:
        arguments += ["--num_cpu_threads_per_process", str(max(1, (os.cpu_count() or 1) // processes))]
    return [sys.executable, "-m", "accelerate.commands.launch", *arguments, "--module", WORKER, str(work)]


def supervise(
    command: Sequence[str], work: Path, processes: int, grace_seconds: float, spot_notice: str | None = None
) -> Outcome:
    """Run `command` to its end, or to `grace_seconds` after a stop signal, and say how it ended."""
    adopt_orphans()
    environment = {"HF_HUB_DISABLE_TELEMETRY": "1", "TOKENIZERS_PARALLELISM": "false", SUPERVISOR: str(os.getpid())}
    family = _Family(grace_seconds)
    before = {number: signal.signal(number, family.on_stop_signal) for number in STOP_SIGNALS}
    try:
        with spot_watch(spot_notice, lambda: family.stop("spot notice", NOTICE_SECONDS)):
            returned = family.run(command, os.environ | environment)
    finally:
        family.kill()
        for number, handler in before.items():
            signal.signal(number, handler)
    return read_outcome(work, processes) or _judge(returned, processes, family.deadline is not None)


def _judge(returned: int, processes: int, stopped: bool) -> Outcome:
    """What it means that no training process could say how it ended."""
    if stopped:
        return Outcome(ExitCode.RETRY, "stopped by a signal before the training processes could say how far they were")
    lost = processes > 1 and returned == 1  # the launcher tells 1 whatever killed one of several
    if lost or -returned in KILLED or returned - 128 in KILLED:
        return Outcome(ExitCode.RETRY, "a training process was killed from outside (out of memory, or by the host)")
    return Outcome(
        ExitCode.BUG, f"the launcher ended with {returned} and no training process said why: see the log above"
    )


class _Family:
    """The launcher and all that it starts."""

    def __init__(self, grace_seconds: float) -> None:
        self._grace_seconds = grace_seconds
        self._others = set(psutil.Process().children(recursive=True))
        self._members: set[psutil.Process] = set()
        self.deadline: float | None = None  # of the end, once a stop was asked for

    def on_stop_signal(self, number: int, _frame: FrameType | None) -> None:
        """Pass a stop signal on: the launchers lose it, so each member is told itself."""
        self.stop(signal.Signals(number).name, self._grace_seconds)

    def stop(self, why: str, grace_seconds: float) -> None:
        """Ask everyone to stop within so many seconds; a second call can only bring the end nearer."""
        deadline = time.monotonic() + grace_seconds
        if self.deadline is None:
            warn("stopping", why=why, grace_seconds=grace_seconds)
        self.deadline = min(deadline, self.deadline or deadline)
        self._signal(signal.SIGTERM)

    def run(self, command: Sequence[str], environment: Mapping[str, str]) -> int:
        """Start the launcher; wait for it and whoever outlives it, and kill what is left after the grace period."""
        launcher = subprocess.Popen(command, env=environment, start_new_session=True)
        if self.deadline:
            self._signal(signal.SIGTERM)  # for the stop that came before there was anyone to tell
        while launcher.poll() is None or self._alive():
            if self.deadline and time.monotonic() > self.deadline:
                warn("the grace period is over: killing what is left")
                break
            if launcher.poll() is not None and self.deadline is None:
                break  # nobody asked to stop, so whoever is left has lost its launcher
            self._look()
            time.sleep(SECONDS_BETWEEN_LOOKS)
        self._signal(signal.SIGKILL)
        return launcher.wait()

    def kill(self) -> None:
        """Leave nobody behind, not even a name in the process table."""
        self._signal(signal.SIGKILL)
        psutil.wait_procs(self._members, timeout=KILL_SECONDS)

    def _signal(self, number: signal.Signals) -> None:
        self._look()
        for member in self._alive():
            with suppress(psutil.NoSuchProcess):
                member.send_signal(number)

    def _look(self) -> None:
        """Remember everyone: whoever loses its parent becomes this process's child, and is found here too."""
        found = set(psutil.Process().children(recursive=True)) - self._others
        self._members = self._members | found  # a new set: a signal may come while the old one is walked through

    def _alive(self) -> list[psutil.Process]:
        return [member for member in self._members if lives(member)]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
