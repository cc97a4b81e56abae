"""The tree of processes below a supervisor: the launcher, and everything that it starts.

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
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import FrameType

import psutil

from job.errors import ExitCode
from job.launch.outcome import Outcome
from job.telemetry import warn

SECONDS_BETWEEN_LOOKS = 0.2

# A killed process is gone at once, unless the kernel is writing something for it.
KILL_SECONDS = 5.0

PR_SET_CHILD_SUBREAPER = 36  # <linux/prctl.h>; Python has no name for it


def adopt_orphans() -> None:
    """Become the parent of every process below that loses its own, as a container's process 1 is.

    Holds for processes that are started from now on. Linux only; elsewhere a no-op.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def is_alive(process: psutil.Process) -> bool:
    """Return True if the process still runs. A zombie has ended, although it is in the table."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


class ProcessTree:
    """The launcher and everything that it starts. Children that were there before are not in it."""

    def __init__(self, grace_seconds: float, several: bool) -> None:
        self._grace_seconds = grace_seconds
        self._several = several  # the launcher is a process of its own, above several others

        self._others = set(psutil.Process().children(recursive=True))
        self._members: set[psutil.Process] = set()
        self._signalled: set[psutil.Process] = set()  # members that were asked to stop
        self._unlogged_stop: dict[str, object] = {}

        # The time by which all must have ended; None until a stop is requested.
        self.deadline: float | None = None

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
        """Start the launcher and block until all members ended; return the launcher's return code.

        Kills the members that are left after the grace period, or that outlive the launcher
        although nobody requested a stop.
        """
        # A session of its own: Ctrl-C in a terminal would otherwise reach every member at once,
        # past the grace period.
        launcher = subprocess.Popen(command, env=environment, start_new_session=True)
        while launcher.poll() is None or self._alive():
            if launcher.poll() is not None and self.deadline is None:
                break

            self._find_members()
            self._reap(launcher.pid)
            if self.deadline is not None:
                self._signal_stop(launcher.pid)
                self._log_stop()
                if time.monotonic() > self.deadline:
                    warn("the grace period is over: killing what is left")
                    break
            time.sleep(SECONDS_BETWEEN_LOOKS)

        self._signal_all(signal.SIGKILL)
        try:
            return launcher.wait(timeout=KILL_SECONDS)
        except subprocess.TimeoutExpired:
            return -signal.SIGKILL  # `kill` warns of it

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

    def _signal_stop(self, launcher: int) -> None:
        """Send SIGTERM once to each member, also to those that start later.

        The launcher cannot be trusted to pass it on.
        """
        alive = self._alive()
        for member in set(alive) - self._signalled:
            # accelerate's launcher of several processes would kill them 30 seconds after its own
            # signal, whatever the grace period. It gets none: it ends by itself once they have.
            # Before it has started any, it is the only one that can be asked.
            spared = member.pid == launcher and self._several and len(alive) > 1
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

    def _reap(self, launcher: int) -> None:
        """Remove adopted members that have ended from the process table.

        Not the launcher: its return code belongs to `Popen`.
        """
        for member in self._members:
            if member.pid != launcher and not is_alive(member):
                # Raised if the member has another parent, which will reap it.
                with suppress(ChildProcessError):
                    os.waitpid(member.pid, os.WNOHANG)

    def _alive(self) -> list[psutil.Process]:
        return [member for member in self._members if is_alive(member)]


def _send(process: psutil.Process, number: signal.Signals) -> None:
    with suppress(psutil.NoSuchProcess):
        process.send_signal(number)
