"""Who holds a lease or a lock: a process, known by its machine, number and start. Knows nothing of either."""

import os
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import psutil


@dataclass(frozen=True)
class Holder:
    """A process: told to a person, and compared where both run on one machine."""

    id: str
    machine: str  # this boot of this machine, and the process numbers' name space: containers have their own
    pid: int
    started: str
    name: str

    def is_dead(self, here: "Holder") -> bool:
        """Whether it surely runs no more; from another machine that cannot be told."""
        if self.machine != here.machine:
            return False
        try:
            return started(self.pid) != self.started
        except psutil.NoSuchProcess:
            return True


def this_process() -> Holder:
    """Give the running process as a holder."""
    space = Path("/proc/self/ns/pid")
    machine = this_machine() + (f" {space.readlink()}" if space.is_symlink() else "")
    pid = os.getpid()
    return Holder(uuid.uuid4().hex, machine, pid, started(pid), f"{os.uname().nodename}, pid {pid}")


def this_machine() -> str:
    """Name this boot of this machine; containers on it have the same."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    return boot.read_text(encoding="utf-8").strip() if boot.exists() else os.uname().nodename


def started(pid: int) -> str:
    """When a process began, to tell it from a later one of its number; psutil.NoSuchProcess if there is none.

    On Linux in ticks since the boot: the time of day is set while processes run, often just after a machine began.
    """
    stat = Path(f"/proc/{pid}/stat")
    process = psutil.Process(pid)
    try:
        return stat.read_text(encoding="utf-8").rpartition(")")[2].split()[19]  # proc(5): field 22, starttime
    except FileNotFoundError:
        return str(process.create_time())


def holder_of(content: Mapping[str, Any]) -> Holder:
    """Whatever a lease's content tells of its holder; a newer recap may tell more, and damage less."""
    said = content.get("holder")
    unknown = Holder("", "", 0, "", "unknown")
    known = {name: said[name] for name in asdict(unknown) if name in said} if isinstance(said, dict) else {}
    return replace(unknown, **known)
