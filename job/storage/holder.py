"""The identity of a process that holds a lease or a lock.

A process is identified by its machine, its number and its start: process numbers are reused.
"""

import os
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import psutil


@dataclass(frozen=True)
class Holder:
    """A process: `name` is for people, the rest is compared by processes of the same machine."""

    id: str
    machine: str  # a boot of a machine, and the namespace of process numbers (containers differ)
    pid: int
    started: str
    name: str

    def is_dead(self, here: "Holder") -> bool:
        """Return True if the process certainly runs no more.

        `here` is the process that asks. False for a process of another machine: it cannot be known.
        """
        if self.machine != here.machine:
            return False
        try:
            return process_start(self.pid) != self.started
        except psutil.NoSuchProcess:
            return True


def this_process() -> Holder:
    """Return the running process as a holder."""
    machine = this_machine()
    namespace = Path("/proc/self/ns/pid")
    if namespace.is_symlink():
        machine += f" {namespace.readlink()}"

    pid = os.getpid()
    name = f"{os.uname().nodename}, pid {pid}"
    return Holder(uuid.uuid4().hex, machine, pid, process_start(pid), name)


def this_machine() -> str:
    """Return a name for this boot of this machine; it is the same in all containers on it."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    return boot.read_text(encoding="utf-8").strip() if boot.exists() else os.uname().nodename


def process_start(pid: int) -> str:
    """Return a process's start, which distinguishes it from a later process with its number.

    On Linux it is in clock ticks since the boot, not the time of day: clocks are set while
    processes run, often just after a machine has started. Raise psutil.NoSuchProcess if there is
    none.
    """
    stat = Path(f"/proc/{pid}/stat")
    process = psutil.Process(pid)
    try:
        # proc(5): field 22 is starttime. Field 2, in parentheses, may itself contain spaces.
        return stat.read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    except FileNotFoundError:
        return str(process.create_time())


def holder_of(content: Mapping[str, Any]) -> Holder:
    """Parse the holder from a lease's content.

    Unknown fields are ignored and missing ones get a default: the lease may be damaged, or written
    by a newer version of recap.
    """
    unknown = Holder("", "", 0, "", "unknown")
    fields = content.get("holder")
    if not isinstance(fields, dict):
        return unknown
    known = {name: fields[name] for name in asdict(unknown) if name in fields}
    return replace(unknown, **known)
