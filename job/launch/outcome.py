"""How training processes end, and what that makes of the run: the status files and the one rule that judges them.

Launchers lose exit codes, so each process writes `outcome-<rank>.json` into the work folder. Knows nothing of what the
processes compute.
"""

import json
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from job.errors import ExitCode

ROOM_BYTES = 16 << 10
SUPERVISOR = "RECAP_SUPERVISOR"  # in the environment of training processes: the supervisor's process number
SECONDS_BETWEEN_LOOKS = 0.05
KILLED = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@dataclass(frozen=True)
class Outcome:
    """The exit code of one process, its message for a person, and whose doing it is, as far as the process knows.

    `own`: what it met itself, or "done". `signal`: it was told to stop. `unclear`: what may be how it met the end of
    another process, as a broken collective is.
    """

    exit_code: int
    message: str
    cause: Literal["own", "signal", "unclear"] = "own"


@dataclass(frozen=True)
class End:
    """What the supervisor saw of the end of this machine's processes."""

    returned: int  # by the launcher
    processes: int
    several: bool  # here or elsewhere: they went through a launcher that tells 1 of whatever killed one of them
    stop_asked: bool  # by the supervisor


def keep_room(work: Path) -> None:
    """Take the disk space of this process's status file now: a disk that is full later is what it has to tell."""
    _room(work).write_bytes(bytes(ROOM_BYTES))


def write_outcome(work: Path, outcome: Outcome) -> None:
    """Write this process's status file, whole or not at all."""
    path = _path(work, _rank())
    temporary = path.with_suffix(".tmp")
    _room(work).unlink(missing_ok=True)
    temporary.write_text(json.dumps(asdict(outcome)), encoding="utf-8")
    temporary.replace(path)


def read_outcomes(work: Path) -> dict[int, Outcome]:
    """What the processes of this machine wrote, by rank, in the order in which they did."""
    files = sorted(work.glob("outcome-*.json"), key=lambda path: path.stat().st_mtime_ns)
    return {int(path.stem.rpartition("-")[2]): Outcome(**json.loads(path.read_text("utf-8"))) for path in files}


def wait_for_outcome(work: Path, rank: int, seconds: float) -> None:
    """Return when process `rank` of this machine has written its status file, or after so many seconds."""
    deadline = time.monotonic() + seconds
    while not _path(work, str(rank)).exists() and time.monotonic() < deadline:
        time.sleep(SECONDS_BETWEEN_LOOKS)


def known_failure(outcomes: Mapping[int, Outcome]) -> Outcome | None:
    """The failure that says why: the first that one met itself, else a stop, as the first process tells of it.

    `outcomes`: by rank or node, in the order in which they came.
    """
    own, stops = (
        {who: each for who, each in outcomes.items() if each.exit_code != ExitCode.DONE and each.cause == cause}
        for cause in ("own", "signal")
    )
    if own:
        return next(iter(own.values()))
    return stops.get(0) or next(iter(stops.values()), None)


def judge(outcomes: Mapping[int, Outcome], end: End) -> Outcome:
    """How the run ended on this machine, by what its processes wrote (`read_outcomes`) and how they ended.

    A stop that nobody asked this supervisor for is what the launcher does to the others when one fails, so where that
    one spoke first, it decides; where one could not speak, its death was the cause. What is unclear decides only where
    every process spoke: else it is how the others met the death of one.
    """
    failures = [each for each in outcomes.values() if each.exit_code != ExitCode.DONE]
    known, all_spoke = known_failure(outcomes), len(outcomes) == end.processes
    if all_spoke and not failures:
        return next(iter(outcomes.values()))
    if known and (known.cause == "own" or end.stop_asked or (all_spoke and failures[0].cause == "signal")):
        return known
    return failures[0] if all_spoke else _unsaid(end)


def _unsaid(end: End) -> Outcome:
    """What it means that no training process could say how it ended."""
    if end.stop_asked:
        why = "stopped by a signal before the training processes could say how far they were"
        return Outcome(ExitCode.RETRY, why, "signal")
    lost = end.several and end.returned == 1
    if lost or -end.returned in KILLED or end.returned - 128 in KILLED:
        return Outcome(ExitCode.RETRY, "a training process was killed from outside (out of memory, or by the host)")
    why = f"the launcher ended with {end.returned} and no training process said why: see the log above"
    return Outcome(ExitCode.BUG, why, "unclear")


def _path(work: Path, rank: str) -> Path:
    return work / f"outcome-{rank}.json"


def _room(work: Path) -> Path:
    return work / f"room-{_rank()}"


def _rank() -> str:
    return os.environ.get("RANK", "0")
