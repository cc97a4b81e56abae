"""The outcomes of training processes, and the rule that makes one outcome of the run.

Launchers lose exit codes, so each process writes its own to `outcome-<rank>.json` in the work
folder, and the supervisor judges by these files.
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

RESERVED_BYTES = 16 << 10
SUPERVISOR = "RECAP_SUPERVISOR"  # environment variable of training processes: the supervisor's pid
SECONDS_BETWEEN_LOOKS = 0.05
MORE_MEMORY = (
    "give the container more (Kubernetes: resources.limits.memory, docker: --memory, Batch: the "
    "job's memory), or take a smaller base or fewer conversations"
)
KILLED = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@dataclass(frozen=True)
class Outcome:
    """The exit code of one process, its message for people, and the cause as the process saw it.

    `own`: its own failure, or success. `signal`: it received a stop signal. `unclear`: perhaps only
    an effect of another process's end, as a broken collective is.
    """

    exit_code: int
    message: str
    cause: Literal["own", "signal", "unclear"] = "own"

    # Killed, hung, or lost with its machine: no process could say why. Such attempts of a training
    # are counted.
    silent: bool = False


@dataclass(frozen=True)
class End:
    """The end of this machine's processes, as the supervisor saw it."""

    returned: int  # the launcher's return code, negative if a signal killed it
    processes: int

    # More than one process, here or elsewhere. They have a launcher in between, which returns 1
    # whatever killed one of them.
    several: bool

    stop_asked: bool  # the supervisor asked the processes to stop

    # Why processes ended that wrote nothing, as far as the supervisor knows.
    at_memory_limit: str | None = None  # the limit of the container, at which one was killed
    absent_nodes: str | None = None  # which never joined


def keep_room(work: Path) -> None:
    """Reserve disk space for this process's status file.

    A disk that fills up may be the very failure that it has to report.
    """
    _room(work).write_bytes(bytes(RESERVED_BYTES))


def write_outcome(work: Path, outcome: Outcome) -> None:
    """Write this process's status file, atomically, in the space reserved by `keep_room`."""
    path = _path(work, _rank())
    temporary = path.with_suffix(".tmp")
    _room(work).unlink(missing_ok=True)
    temporary.write_text(json.dumps(asdict(outcome)), encoding="utf-8")
    temporary.replace(path)


def read_outcomes(work: Path) -> dict[int, Outcome]:
    """Return the outcomes of this machine's processes by rank, in the order of writing."""
    files = sorted(work.glob("outcome-*.json"), key=lambda path: path.stat().st_mtime_ns)
    outcomes = {}
    for path in files:
        rank = int(path.stem.rpartition("-")[2])
        outcomes[rank] = Outcome(**json.loads(path.read_text("utf-8")))
    return outcomes


def wait_for_outcome(work: Path, rank: int, seconds: float) -> None:
    """Block until process `rank` of this machine wrote its status file, at most for `seconds`."""
    deadline = time.monotonic() + seconds
    while not _path(work, str(rank)).exists() and time.monotonic() < deadline:
        time.sleep(SECONDS_BETWEEN_LOOKS)


def known_failure(outcomes: Mapping[int, Outcome]) -> Outcome | None:
    """Return the failure that explains the end, or None if none does.

    It is the first failure of a process's own; else a stop, preferably as rank 0 reports it.
    `outcomes` are by rank or node, in the order of arrival.
    """
    own = {}
    stops = {}
    for rank, outcome in outcomes.items():
        if outcome.exit_code == ExitCode.DONE:
            continue
        if outcome.cause == "own":
            own[rank] = outcome
        elif outcome.cause == "signal":
            stops[rank] = outcome

    if own:
        return next(iter(own.values()))
    return stops.get(0) or next(iter(stops.values()), None)


def judge(outcomes: Mapping[int, Outcome], end: End) -> Outcome:
    """Return the run's outcome on this machine, from `read_outcomes` and the observed end.

    The first row that applies decides:

    ===========================================================  ===================================
    the processes                                                the run
    ===========================================================  ===================================
    all wrote "done"                                             done
    one wrote a failure of its own                               the first such failure
    one wrote "stopped", and this supervisor asked for the stop  that stop
    one was killed at the container's memory limit               the config's failure
    all wrote something, and "stopped" was the first failure     that stop
    all wrote something                                          the first failure, although unclear
    one wrote nothing                                            judged by the launcher's end
    ===========================================================  ===================================

    A stop that this supervisor did not ask for usually comes from the launcher, which stops all
    processes when one fails. Therefore such a stop counts only if nothing came before it and no
    process died in silence. An unclear failure is likewise how processes meet the death of another.
    """
    failures = [each for each in outcomes.values() if each.exit_code != ExitCode.DONE]
    all_wrote = len(outcomes) == end.processes
    if all_wrote and not failures:
        return next(iter(outcomes.values()))

    known = known_failure(outcomes)
    if known and known.cause == "own":
        return known
    if known and end.stop_asked:
        return known
    if end.at_memory_limit and not end.stop_asked:
        return Outcome(ExitCode.CONFIG, f"{end.at_memory_limit}: {MORE_MEMORY}")
    if known and all_wrote and failures[0].cause == "signal":
        return known

    if all_wrote:
        return failures[0]
    return _outcome_of_silence(end)


def _outcome_of_silence(end: End) -> Outcome:
    """Return the run's outcome if the process whose end decides wrote no status file."""
    if end.stop_asked:
        why = "stopped by a signal before the training processes could say how far they were"
        return Outcome(ExitCode.RETRY, why, "signal")

    # Popen returns -N after signal N, a shell returns 128 + N.
    is_lost = end.several and end.returned == 1
    if is_lost or -end.returned in KILLED or end.returned - 128 in KILLED:
        if end.absent_nodes:
            return Outcome(ExitCode.RETRY, end.absent_nodes)
        why = "a training process was killed from outside (out of memory, or by the host)"
        return Outcome(ExitCode.RETRY, why, silent=True)

    why = f"the launcher ended with {end.returned} and no training process said why"
    return Outcome(ExitCode.BUG, f"{why}: see the log above", "unclear", silent=True)


def _path(work: Path, rank: str) -> Path:
    return work / f"outcome-{rank}.json"


def _room(work: Path) -> Path:
    return work / f"room-{_rank()}"


def _rank() -> str:
    return os.environ.get("RANK", "0")
