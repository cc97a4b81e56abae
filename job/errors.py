"""The exception tree and the exit codes.

Purpose: every way a command can end, by cause. A cause has one class and one exit code, and schedulers decide by that
code whether to run the job again. Messages say what, where, got, wanted and remedy. Knows nothing of the rest of recap.
"""

import errno
from enum import IntEnum


class ExitCode(IntEnum):
    """What a command's process ends with; the numbers follow BSD's sysexits.h."""

    DONE = 0
    USAGE = 2
    CONFIG = 64
    DATA = 65
    MISSING = 66
    BUG = 70
    OUTPUT = 73
    RETRY = 75
    FORBIDDEN = 77


# Why nothing can be written, by the system's error number: the machine's fault, wherever it shows.
UNWRITABLE = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the quota is used up",
    errno.EFBIG: "the file is too large",
    errno.EROFS: "it is mounted read-only",
}


def unwritable(error: BaseException) -> str | None:
    """Why a file could not be written, and the remedy, if that is what the system says."""
    why = UNWRITABLE.get(error.errno or 0) if isinstance(error, OSError) else None
    return f"{why}: make room, or choose another output" if why else None


def bug(error: BaseException) -> str:
    """What is told of an error that no part of recap foresaw."""
    return f"{type(error).__name__}: {error}\nthis is a bug in recap: please report it with the output above"


class RecapError(Exception):
    """Any end that recap foresees; `exit_code` tells the scheduler which."""

    exit_code: ExitCode = ExitCode.BUG


class ConfigError(RecapError):
    """The config, or the way its parts fit together, is wrong."""

    exit_code = ExitCode.CONFIG


class DataError(RecapError):
    """The data is wrong, or more of it than the limits allow."""

    exit_code = ExitCode.DATA


class MissingError(RecapError):
    """An input, a model or an adapter is not there."""

    exit_code = ExitCode.MISSING


class OutputError(RecapError):
    """The output cannot be written: disk full, read-only, or taken by something else."""

    exit_code = ExitCode.OUTPUT


class AlreadyExistsError(OutputError):
    """A guarded write found the key taken."""


class RetryError(RecapError):
    """A service failed for longer than retries; the same job may well succeed later."""

    exit_code = ExitCode.RETRY


class PreemptedError(RetryError):
    """The job was told to stop before it was done."""


class Stopped(BaseException):
    """Raised where a stop signal found the process; no Exception, or libraries that retry would swallow it."""


class DivergedError(RecapError):
    """The training ran away: a loss or gradients that are no numbers, or gradients beyond the limit."""

    exit_code = ExitCode.BUG


class ForbiddenError(RecapError):
    """Access is denied: S3 403, a gated model without access."""

    exit_code = ExitCode.FORBIDDEN


class DamagedError(DataError):
    """A folder's content is not what its manifest says, or it has no manifest."""
