"""Adopt processes that lose their parent, as the first process of a container does.

Linux only; elsewhere a no-op.
"""

import ctypes
import sys

import psutil

PR_SET_CHILD_SUBREAPER = 36  # <linux/prctl.h>; Python has no name for it


def adopt_orphans() -> None:
    """Become the subreaper of every process that is started from now on."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def lives(process: psutil.Process) -> bool:
    """Return True if the process still runs. A zombie has ended, although it is in the table."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
