"""The supervisor: the container's first process, above the launcher and the training processes.

Purpose: start the launcher, forward stop signals to everyone below it, bound the time to the end, leave no process
behind, and end with the code that the training processes wrote. Knows nothing of training.
"""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from types import FrameType

import psutil

from job.config.commands import TrainConfig
from job.config.load import resolved_yaml
from job.environment import count_gpus
from job.errors import ConfigError, ExitCode
from job.launch.cluster import ALONE, TAKEN, Cluster, find_cluster
from job.launch.orphans import adopt_orphans, lives
from job.launch.outcome import SUPERVISOR, End, Outcome, judge, read_outcomes
from job.launch.peers import Peers
from job.launch.spot import NOTICE_SECONDS, notice_url, spot_watch
from job.launch.waiting import waiting_variables
from job.safe_path import safe_variables
from job.storage.places import work_folder
from job.telemetry import event, warn

WORKER = "job.training.worker"
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
SECONDS_BETWEEN_LOOKS = 0.2
KILL_SECONDS = 5.0  # a killed process is gone at once, unless the kernel is writing something of it


def run_training(config: TrainConfig) -> Outcome:
    """Train as the config says, in processes of their own, and say how it ended; on several nodes, on each of them."""
    gpus, cluster = count_gpus(), find_cluster(os.environ)
    processes = config.training.processes or max(1, gpus)
    if gpus and processes > gpus:
        raise ConfigError(
            f"training.processes: {processes}, but this machine has {gpus} GPUs: {gpus} at the most"
        )
    if config.training.distribution == "fsdp" and processes * cluster.nodes == 1:
        raise ConfigError(
            "training.distribution: fsdp shares the base between processes, and there is one: use ddp"
        )
    limits, notice = config.limits, notice_url(config.limits.spot_notice, os.environ)
    with work_folder(config.run) as work:
        (work / "config.yaml").write_text(resolved_yaml(config), encoding="utf-8")
        os.environ["ACCELERATE_USE_CPU"] = str(gpus == 0).lower()
        command = launch_command(work, processes, gpus > 0, cluster)
        peers = None
        if cluster != ALONE:
            event(
                "training on several nodes",
                node=cluster.rank,
                nodes=cluster.nodes,
                main=cluster.address,
            )
            peers = Peers(cluster, config.run)
        return supervise(command, work, processes, limits.grace_seconds, notice, peers)


def launch_command(
    work: Path, processes: int, has_gpu: bool, cluster: Cluster = ALONE
) -> list[str]:
    """The command that starts `processes` training processes on this machine: several in all through accelerate."""
    if (
        processes * cluster.nodes == 1
    ):  # a launcher in between would only be one more that loses signals
        return [sys.executable, "-m", WORKER, str(work)]
    port = _free_port() if cluster == ALONE else cluster.port
    arguments = [
        "--num_machines",
        str(cluster.nodes),
        "--num_processes",
        str(processes * cluster.nodes),
    ]
    # accelerate's launcher of several processes is --multi_gpu; on the CPU they meet through gloo, and
    # ACCELERATE_USE_CPU says so. Its --cpu would start one.
    arguments += [
        "--mixed_precision",
        "no",
        "--dynamo_backend",
        "no",
        "--multi_gpu",
        "--main_process_port",
        str(port),
    ]
    if cluster != ALONE:
        arguments += [
            "--machine_rank",
            str(cluster.rank),
            "--main_process_ip",
            cluster.address,
            "--same_network",
        ]
    if not has_gpu:
        arguments += [
            "--num_cpu_threads_per_process",
            str(max(1, (os.cpu_count() or 1) // processes)),
        ]
    return [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        *arguments,
        "--module",
        WORKER,
        str(work),
    ]


def supervise(
    command: Sequence[str],
    work: Path,
    processes: int,
    grace_seconds: float,
    spot_notice: str | None = None,
    peers: Peers | None = None,
) -> Outcome:
    """Run `command` to its end, or to `grace_seconds` after a stop signal, and say how it ended.

    With `peers`, the run ends on all nodes when it ends on one, and as node 0 decides.
    """
    adopt_orphans()
    own = {
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TOKENIZERS_PARALLELISM": "false",
        SUPERVISOR: str(os.getpid()),
    }
    given = {name: value for name, value in os.environ.items() if not TAKEN.fullmatch(name)}
    environment = given | own | safe_variables(given) | waiting_variables(given)
    several = processes > 1 or peers is not None
    family = _Family(grace_seconds, several)
    with peers.talking(family.on_failure_elsewhere) if peers else nullcontext():
        before = {number: signal.signal(number, family.on_stop_signal) for number in STOP_SIGNALS}
        try:
            with spot_watch(spot_notice, lambda: family.stop("spot notice", NOTICE_SECONDS)):
                returned = family.run(command, environment)
        finally:
            family.kill()
            for number, handler in before.items():
                signal.signal(number, handler)
        outcome = judge(
            read_outcomes(work), End(returned, processes, several, family.deadline is not None)
        )
        return peers.agree(outcome) if peers else outcome


class _Family:
    """The launcher and all that it starts."""

    def __init__(self, grace_seconds: float, several: bool) -> None:
        self._grace_seconds, self._several = grace_seconds, several
        self._others = set(psutil.Process().children(recursive=True))
        self._members: set[psutil.Process] = set()
        self._asked: set[psutil.Process] = set()  # to stop
        self._news: dict[str, object] = {}  # of a stop, not told yet
        self.deadline: float | None = None  # of the end, once a stop was asked for

    def on_stop_signal(self, number: int, _frame: FrameType | None) -> None:
        """Note a stop signal."""
        self.stop(signal.Signals(number).name, self._grace_seconds)

    def stop(self, why: str, grace_seconds: float) -> None:
        """Note that all shall stop within so many seconds; a second call can only bring the end nearer.

        `run` passes it on and tells of it: a signal handler must not write where what it interrupts may be writing.
        """
        deadline = time.monotonic() + grace_seconds
        if self.deadline is None:
            self._news = {"why": why, "grace_seconds": grace_seconds}
        self.deadline = min(deadline, self.deadline or deadline)

    def on_failure_elsewhere(self, failure: Outcome) -> None:
        """Another node ended: what waits for it here must end too, with the time that it takes to leave in order."""

        def stop() -> None:
            self.stop(f"another node ended: {failure.message}", self._grace_seconds)

        if (
            failure.exit_code == ExitCode.BUG
        ):  # what happened may be known here: whoever can say it is not interrupted
            timer = threading.Timer(self._grace_seconds, stop)
            timer.daemon = True
            timer.start()
        else:
            stop()

    def run(self, command: Sequence[str], environment: Mapping[str, str]) -> int:
        """Start the launcher; wait for it and whoever outlives it, and kill what is left after the grace period."""
        launcher = subprocess.Popen(command, env=environment, start_new_session=True)
        while launcher.poll() is None or self._alive():
            if launcher.poll() is not None and self.deadline is None:
                break  # nobody asked to stop, so whoever is left has lost its launcher
            self._look()
            self._reap(launcher.pid)
            if self.deadline is not None:
                self._ask_to_stop(launcher.pid)
                if time.monotonic() > self.deadline:
                    warn("the grace period is over: killing what is left")
                    break
            time.sleep(SECONDS_BETWEEN_LOOKS)
        self._signal(signal.SIGKILL)
        try:
            return launcher.wait(timeout=KILL_SECONDS)
        except subprocess.TimeoutExpired:
            return -signal.SIGKILL  # `kill` tells of it

    def kill(self) -> None:
        """Leave nobody behind, not even a name in the process table."""
        self._signal(signal.SIGKILL)
        _, left = psutil.wait_procs(self._members, timeout=KILL_SECONDS)
        if left:
            held = ", ".join(str(each.pid) for each in left)
            warn(
                "killed processes do not end: the kernel holds them, as on a disk that does not answer",
                pids=held,
            )

    def _ask_to_stop(self, launcher: int) -> None:
        """Ask each member once, also those that come later: the launchers lose the signal.

        A launcher of several would kill its processes 30 seconds after it was asked, whatever the grace period: it
        ends by itself when they have. While it has none, there is nobody else to ask.
        """
        alive = self._alive()
        for member in set(alive) - self._asked:
            if member.pid != launcher or not self._several or len(alive) == 1:
                self._asked.add(member)
                with suppress(psutil.NoSuchProcess):
                    member.send_signal(signal.SIGTERM)
        news, self._news = self._news, {}
        if news:
            warn("stopping", **news)

    def _signal(self, number: signal.Signals) -> None:
        self._look()
        for member in self._alive():
            with suppress(psutil.NoSuchProcess):
                member.send_signal(number)

    def _look(self) -> None:
        """Remember everyone: whoever loses its parent becomes this process's child, and is found here too."""
        found = set(psutil.Process().children(recursive=True)) - self._others
        self._members = {each for each in self._members | found if each.is_running()}

    def _reap(self, launcher: int) -> None:
        """Take adopted orphans that have ended out of the process table; the launcher's status is its waiter's."""
        for member in self._members:
            if member.pid != launcher and not lives(member):
                with suppress(ChildProcessError):  # it has another parent, who will
                    os.waitpid(member.pid, os.WNOHANG)

    def _alive(self) -> list[psutil.Process]:
        return [member for member in self._members if lives(member)]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
