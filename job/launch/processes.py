"""The tree of processes below a supervisor: one launcher or more, and everything that they start.

Stop signals reach every member, the grace period bounds the time to the end, and no process is left
behind.
"""

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType
from typing import IO, Literal

import psutil

from job.errors import ExitCode
from job.launch.outcome import Outcome
from job.telemetry import warn

SECONDS_BETWEEN_LOOKS = 0.2

# A killed process is gone at once, unless the kernel is writing something for it.
KILL_SECONDS = 5.0
CLEANUP_SECONDS = 1.0

PR_SET_PDEATHSIG = 1  # <linux/prctl.h>; Python has no names for these
PR_SET_CHILD_SUBREAPER = 36

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)

# Who is sent SIGTERM when a stop is requested. "all but launcher" is for accelerate's launcher of
# several processes: it would kill them 30 seconds after its own signal, whatever the grace period.
# It ends by itself once they have. "launchers" is for processes that end those below them.
Signalled = Literal["all", "all but launcher", "launchers"]


def adopt_orphans() -> None:
    """Become the parent of every process below that loses its own, as a container's process 1 is.

    Holds for processes that are started from now on. Linux only; elsewhere a no-op.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def die_with_parent(parent: int) -> None:
    """Let the kernel kill this process as soon as process `parent`, which started it, is gone.

    Ends this process if it is gone already. Linux only; elsewhere a no-op.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(ExitCode.RETRY)


def is_alive(process: psutil.Process) -> bool:
    """Return True if the process still runs. A zombie has ended, although it is in the table."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


@dataclass(frozen=True)
class Start:
    """A process to start. `read_log` reads its stderr, on a thread of its own, to the end."""

    command: Sequence[str]
    environment: Mapping[str, str]
    read_log: Callable[[IO[bytes]], None] | None = None


class ProcessTree:
    """Launchers and everything that they start. Children that were there before are not in it."""

    def __init__(self, grace_seconds: float, signalled: Signalled) -> None:
        self._grace_seconds = grace_seconds
        self._signalled_by_stop = signalled

        self._others = set(psutil.Process().children(recursive=True))
        self._members: set[psutil.Process] = set()
        self._signalled: set[psutil.Process] = set()  # members that were asked to stop
        self._unlogged_stop: dict[str, object] = {}

        # The time by which all must have ended; None until a stop is requested.
        self.deadline: float | None = None

    @contextmanager
    def handling_stop_signals(self) -> Iterator[None]:
        """Let stop signals to this process request a stop in the block; kill what it leaves."""
        before = {number: signal.signal(number, self.on_stop_signal) for number in STOP_SIGNALS}
        try:
            yield
        finally:
            # The handlers come last: a signal during `kill` must not leave a process behind.
            self.kill()
            for number, handler in before.items():
                signal.signal(number, handler)

    def on_stop_signal(self, number: int, _frame: FrameType | None) -> None:
        """Request a stop. A signal handler: it only sets variables."""
        self.request_stop(signal.Signals(number).name, self._grace_seconds)

    def on_failure_elsewhere(self, failure: Outcome) -> None:
        """Request a stop because another node failed: processes here would wait for it."""
        why = f"another node ended: {failure.message}"

        # Most bugs break the other nodes too, and one of them may know the cause. Do not interrupt
        # a process that may still report it.
        if failure.exit_code == ExitCode.BUG:
            arguments = (why, self._grace_seconds)
            timer = threading.Timer(self._grace_seconds, self.request_stop, arguments)
            timer.daemon = True
            timer.start()
        else:
            self.request_stop(why, self._grace_seconds)

    def request_stop(self, why: str, grace_seconds: float) -> None:
        """Set the deadline for all members; a second request can only bring it nearer.

        `run` passes the request on and logs it. A signal handler must do neither: the signal may
        have interrupted a write to the same log.
        """
        deadline = time.monotonic() + grace_seconds
        if self.deadline is None:
            self._unlogged_stop = {"why": why, "grace_seconds": grace_seconds}
        self.deadline = min(deadline, self.deadline or deadline)

    def run(self, command: Sequence[str], environment: Mapping[str, str]) -> int:
        """Start one launcher and block until all members ended; return its return code.

        Kills the members that are left after the grace period, or that outlive the launcher
        although nobody requested a stop.
        """
        return self.run_all([Start(command, environment)])[0]

    def run_all(self, starts: Sequence[Start]) -> list[int]:
        """Do as `run` does with several launchers, and return their return codes.

        None of them is stopped because another one ended.
        """
        readers: list[threading.Thread] = []
        launchers = [_start(start, readers) for start in starts]
        pids = {launcher.pid for launcher in launchers}
        while _are_running(launchers) or self._alive():
            is_over = self.deadline is None or self._signalled_by_stop == "launchers"
            if not _are_running(launchers) and is_over:
                break

            self._find_members()
            self._reap(pids)
            if self.deadline is not None:
                self._signal_stop(pids)
                self._log_stop()
                if time.monotonic() > self.deadline:
                    warn("the grace period is over: killing what is left")
                    break
            time.sleep(SECONDS_BETWEEN_LOOKS)

        if self._signalled_by_stop == "launchers":
            # Python's tracker of shared memory ends when its process has, after it has cleaned up.
            # Not a launcher: psutil would take its return code away from `Popen`.
            others = [member for member in self._alive() if member.pid not in pids]
            psutil.wait_procs(others, timeout=CLEANUP_SECONDS)
        self._signal_all(signal.SIGKILL)
        returned = [_return_code(launcher) for launcher in launchers]
        for reader in readers:
            # Ends with the last process that has this log open.
            reader.join(KILL_SECONDS)
        return returned

    def kill(self) -> None:
        """Kill all members, and wait until they have left the process table."""
        self._signal_all(signal.SIGKILL)
        _, left = psutil.wait_procs(self._members, timeout=KILL_SECONDS)
        if left:
            warn(
                "killed processes do not end: the kernel holds them, as on a disk that does not "
                "answer",
                pids=", ".join(str(each.pid) for each in left),
            )

    def _signal_stop(self, launchers: Collection[int]) -> None:
        """Send SIGTERM once to each member that is to get it, also to those that start later.

        A launcher cannot be trusted to pass it on.
        """
        alive = self._alive()
        for member in set(alive) - self._signalled:
            is_launcher = member.pid in launchers
            spared = self._signalled_by_stop == "launchers" and not is_launcher
            if self._signalled_by_stop == "all but launcher":
                # Before it has started any, it is the only one that can be asked.
                spared = is_launcher and len(alive) > 1
            if not spared:
                self._signalled.add(member)
                _send(member, signal.SIGTERM)

    def _log_stop(self) -> None:
        # Emptied before it is logged: a signal may arrive during the write.
        stop = self._unlogged_stop
        self._unlogged_stop = {}
        if stop:
            warn("stopping", **stop)

    def _signal_all(self, number: signal.Signals) -> None:
        self._find_members()
        for member in self._alive():
            _send(member, number)

    def _find_members(self) -> None:
        """Add new descendants, and forget members that have left the process table.

        A process that loses its parent becomes this process's child, so it is found here too.
        """
        found = set(psutil.Process().children(recursive=True)) - self._others
        members = set()
        for member in self._members | found:
            if member.is_running():
                members.add(member)
        self._members = members

    def _reap(self, launchers: Collection[int]) -> None:
        """Remove adopted members that have ended from the process table.

        Not launchers: their return codes belong to `Popen`.
        """
        for member in self._members:
            if member.pid not in launchers and not is_alive(member):
                # Raised if the member has another parent, which will reap it.
                with suppress(ChildProcessError):
                    os.waitpid(member.pid, os.WNOHANG)

    def _alive(self) -> list[psutil.Process]:
        return [member for member in self._members if is_alive(member)]


def _send(process: psutil.Process, number: signal.Signals) -> None:
    with suppress(psutil.NoSuchProcess):
        process.send_signal(number)


def _start(start: Start, readers: list[threading.Thread]) -> "subprocess.Popen[bytes]":
    """Start a process, and the reader of its log, which is added to `readers`."""
    # A session of its own: Ctrl-C in a terminal would otherwise reach every member at once, past
    # the grace period.
    process = subprocess.Popen(
        start.command,
        env=start.environment,
        start_new_session=True,
        stderr=subprocess.PIPE if start.read_log else None,
    )
    if start.read_log:
        reader = threading.Thread(target=start.read_log, args=(process.stderr,), daemon=True)
        reader.start()
        readers.append(reader)
    return process


def _are_running(launchers: Sequence["subprocess.Popen[bytes]"]) -> bool:
    # Each is polled: that also removes those that ended from the process table.
    return None in [launcher.poll() for launcher in launchers]


def _return_code(launcher: "subprocess.Popen[bytes]") -> int:
    try:
        return launcher.wait(timeout=KILL_SECONDS)
    except subprocess.TimeoutExpired:
        return -signal.SIGKILL  # `kill` warns of it
