"""The status file: how a training process tells its supervisor what became of it.

Launchers lose exit codes, so each process writes `outcome-<rank>.json` into the work folder, and the first one written
that is not "done" decides. Knows nothing of what the processes compute.
"""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from job.errors import ExitCode

ROOM_BYTES = 16 << 10
SUPERVISOR = "RECAP_SUPERVISOR"  # in the environment of training processes: the supervisor's process number


@dataclass(frozen=True)
class Outcome:
    """The exit code of one process, and its message for a person."""

    exit_code: int
    message: str


def keep_room(work: Path) -> None:
    """Take the disk space of this process's status file now: a disk that is full later is what it has to tell."""
    _room(work).write_bytes(bytes(ROOM_BYTES))


def write_outcome(work: Path, outcome: Outcome) -> None:
    """Write this process's status file, whole or not at all."""
    path = work / f"outcome-{_rank()}.json"
    temporary = path.with_suffix(".tmp")
    _room(work).unlink(missing_ok=True)
    temporary.write_text(json.dumps(asdict(outcome)), encoding="utf-8")
    temporary.replace(path)


def read_outcome(work: Path, processes: int) -> Outcome | None:
    """What decides: the first failure, or "done" if every process says so; None if some process never spoke.

    What looks like a bug beside a process that never spoke is how the others met its death: they do not decide.
    """
    files = sorted(work.glob("outcome-*.json"), key=lambda path: path.stat().st_mtime_ns)
    outcomes = [Outcome(**json.loads(path.read_text(encoding="utf-8"))) for path in files]
    all_spoke = len(outcomes) == processes
    failures = [outcome for outcome in outcomes if outcome.exit_code != ExitCode.DONE]
    foreseen = [outcome for outcome in failures if outcome.exit_code != ExitCode.BUG]
    if foreseen or (failures and all_spoke):
        return (foreseen or failures)[0]
    return outcomes[0] if all_spoke else None


def _room(work: Path) -> Path:
    return work / f"room-{_rank()}"


def _rank() -> str:
    return os.environ.get("RANK", "0")
