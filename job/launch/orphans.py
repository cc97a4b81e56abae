"""Processes that lose their parent become this one's children, as they do below a container's first process.

Linux only; elsewhere nothing changes. Knows nothing of what the processes are.
"""

import ctypes
import sys

import psutil

PR_SET_CHILD_SUBREAPER = 36  # <linux/prctl.h>; Python has no name for it


def adopt_orphans() -> None:
    """Become the subreaper of all that is started from here on."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def lives(process: psutil.Process) -> bool:
    """Whether a process still runs; a dead one stays in the table until its parent has looked."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
