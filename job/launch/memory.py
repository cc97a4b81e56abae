"""The kernel's counters of this container's control group: processes killed for memory.

Such a process ends with SIGKILL, as one that an eviction or a person killed. Only the counters tell
them apart: to run again does not help where the container's own limit was reached.
"""

from dataclasses import dataclass
from pathlib import Path

MOUNT = Path("/sys/fs/cgroup")
OWN_GROUPS = Path("/proc/self/cgroup")
NO_LIMIT_BYTES = 1 << 60  # version 1 of control groups writes a number near 2^63

# A group whose peak is this share of its limit counts as full.
FULL = 0.98


@dataclass(frozen=True)
class MemoryCounts:
    """Counters of a control group. `at_limit` counts how often its own limit was reached.

    `kills` counts processes that were killed for memory, also where the whole machine had none.
    """

    kills: int
    at_limit: int


@dataclass(frozen=True)
class ControlGroup:
    """The memory of one control group, of either version of Linux's control groups.

    Without a folder it is unknown: nothing is counted, and there is no limit.
    """

    folder: Path | None
    version: int = 2

    def counts(self) -> MemoryCounts:
        """Return the present counters. Zeros if they cannot be read."""
        if self.folder is None:
            return MemoryCounts(0, 0)
        try:
            if self.version == 2:
                events = _numbers(self.folder / "memory.events")
                return MemoryCounts(events.get("oom_kill", 0), events.get("oom", 0))
            kills = _numbers(self.folder / "memory.oom_control").get("oom_kill", 0)
            return MemoryCounts(kills, int((self.folder / "memory.failcnt").read_text()))
        except (OSError, ValueError):
            return MemoryCounts(0, 0)

    def limit_gib(self) -> float | None:
        """Return the limit in GiB, None without one."""
        if self.folder is None:
            return None
        limit = self._bytes("memory.max" if self.version == 2 else "memory.limit_in_bytes")
        return None if limit is None else round(limit / 2**30, 2)

    def kill_since(self, before: MemoryCounts) -> str | None:
        """Return what happened if the limit killed a process since `before`, else None."""
        now = self.counts()
        if now.kills <= before.kills:
            return None
        if now.at_limit <= before.at_limit and not self._was_full():
            return None
        limit = self.limit_gib()
        size = f" of {limit:g} GiB" if limit else ""
        return f"a process was killed at the container's memory limit{size}"

    def _was_full(self) -> bool:
        """Return True if the group was once as large as its limit allows, as far as is known.

        Version 2 counts `oom` where the limit was met first. In a pod with one container that is
        the pod's group, which has the same limit, holds a little more, and cannot be seen from
        within. Linux writes the peak since 5.19.
        """
        limit = self._bytes("memory.max")
        peak = self._bytes("memory.peak")
        return limit is not None and peak is not None and peak >= FULL * limit

    def _bytes(self, name: str) -> int | None:
        """Return the number in a file; None if there is none, or if it stands for no limit."""
        if self.folder is None:
            return None
        try:
            number = int((self.folder / name).read_text())
        except (OSError, ValueError):
            return None  # version 2 writes "max"
        return number if number < NO_LIMIT_BYTES else None


def own_control_group(mount: Path = MOUNT, own: Path = OWN_GROUPS) -> ControlGroup:
    """Return the control group that limits this process's memory, an unknown one if none is."""
    try:
        lines = own.read_text(encoding="utf-8").splitlines()
    except OSError:
        return ControlGroup(None)
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            version, root, name = 1, mount / "memory", "memory.oom_control"
        elif controllers == "":
            version, root, name = 2, mount, "memory.events"
        else:
            continue
        # In a container, the mount often begins at the container's own group, whatever its path.
        for folder in (root / path.lstrip("/"), root):
            if (folder / name).is_file():
                return ControlGroup(folder, version)
    return ControlGroup(None)


def _numbers(path: Path) -> dict[str, int]:
    pairs = [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
    return {name: int(number) for name, number in pairs}
