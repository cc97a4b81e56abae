"""The exceptions of recap and its exit codes: every way a command can end, by cause.

Each cause has one class and one exit code, by which schedulers decide whether to run the job again:

    RecapError
    ├── ConfigError                64  the config is wrong
    ├── DataError                  65  the data is wrong
    │   └── DamagedError               a folder does not match its manifest
    ├── MissingError               66  an input, a model or an adapter does not exist
    ├── DivergedError              70  the training diverged
    ├── OutputError                73  the output cannot be written
    │   ├── AlreadyExistsError         the key of a guarded write is taken
    │   └── ChangedError               what a guarded write would replace is not what was read
    ├── RetryError                 75  a service failed; run the job again
    │   └── PreemptedError             a stop signal came before the end
    ├── GateError                  76  the adapter is there, but did not pass its gate
    ├── AlarmError                 76  nights are not as those before
    └── ForbiddenError             77  access is denied

    Stopped                        75  a stop signal came: a BaseException, so that nobody retries

An error that is none of these is a bug, with exit code 70.

Adding a new exception
----------------------

1. Look for a class whose remedy is the same: most new errors are a new message of an old class.
2. Derive a class only if code must tell it apart, as `except AlreadyExistsError` does. It inherits
   the exit code of its parent.
3. Derive from RecapError itself for a cause with another remedy. If it needs a new exit code, add
   that to `ExitCode`, the epilog of `recap --help`, README.md, docs/operations.md, and the retry
   rules of infra/.
4. Add the class to the tree above.
5. Write the message: what is wrong and where, what was found and wanted, and the remedy. It has no
   secret: a value that could be one is not quoted.
"""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum


class ExitCode(IntEnum):
    """The exit code of a command; most numbers follow BSD's sysexits.h."""

    DONE = 0
    USAGE = 2
    CONFIG = 64
    DATA = 65
    MISSING = 66
    BUG = 70
    OUTPUT = 73
    RETRY = 75
    GATE = 76
    FORBIDDEN = 77


# Codes of a process that crashed or was killed: 128 + SEGV, ABRT, KILL, TERM, the most telling
# first. The next attempt may end otherwise.
CRASHED_OR_KILLED = (139, 134, 137, 143)

# Reasons why nothing can be written, by the system's error number. They are the machine's fault,
# whichever file they are raised for.
UNWRITABLE = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the quota is used up",
    errno.EFBIG: "the file is too large",
    errno.EROFS: "it is mounted read-only",
}

# The words of CUDA and its siblings, of their libraries (cuBLAS, cuDNN, cuSPARSE, NCCL), of torch's
# allocator for the CPU, of the system, and of C++. An illegal memory access is none of them.
OUT_OF_MEMORY = re.compile(
    r"out[ _]?of[ _]?memory|cudaErrorMemoryAllocation|_ALLOC(?:ATION)?_FAILED\b"
    r"|Failed to CUDA (?:host )?[cm]alloc|Cannot allocate memory|std::bad_alloc"
    # What a library says whose handle got no memory.
    r"|_STATUS_NOT_INITIALIZED,? when calling `?cu\w+Create\b|CUDNN_STATUS_NOT_INITIALIZED"
    r"|DefaultCPUAllocator: (?:can't allocate|not enough) memory",
    re.IGNORECASE,
)

# How vLLM refuses to start, with a ValueError, where the cache does not fit beside the weights.
NO_MEMORY_FOR_CACHE = re.compile(
    r"No available memory for the cache blocks"
    r"|KV cache is needed, which is larger than the available KV cache memory"
    r"|(?:Free|Available) memory on (?:device|node) .* is less than "
)


def unwritable(error: BaseException) -> str | None:
    """Return why a file could not be written, with the remedy; None for any other error."""
    if not isinstance(error, OSError):
        return None
    why = UNWRITABLE.get(error.errno or 0)
    return f"{why}: make room, or choose another output" if why else None


def is_out_of_memory(error: BaseException) -> bool:
    """Return True if memory ran out, on a GPU or on the host, whatever class reports it.

    torch raises its OutOfMemoryError only for its own allocator on a GPU. What CUDA's libraries
    and the host's allocator cannot allocate comes as RuntimeError or AcceleratorError, and shows in
    the text alone. A library's error of any class counts if a lack of memory is its cause, or was
    being handled when it was raised; an error of recap has its own verdict. Does not import torch,
    which takes seconds.
    """
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, RecapError):
        if _reports_lack_of_memory(cause):
            return True
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return False


def _reports_lack_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    if isinstance(error, ValueError):
        return NO_MEMORY_FOR_CACHE.search(" ".join(str(error).split())) is not None
    if not isinstance(error, RuntimeError):
        return False
    names = [parent.__name__ for parent in type(error).__mro__]
    return "OutOfMemoryError" in names or OUT_OF_MEMORY.search(str(error)) is not None


def shortened(error: BaseException, limit: int = 300) -> str:
    """Return class and text of an error in one line, the text cut after `limit` characters."""
    line = " ".join(str(error).split())
    if len(line) > limit:
        line = line[:limit] + "…"
    return f"{type(error).__name__}: {line}" if line else type(error).__name__


def bug(error: BaseException) -> str:
    """Return the message for an error that recap did not foresee."""
    remedy = "this is a bug in recap: please report it with the output above"
    return f"{type(error).__name__}: {error}\n{remedy}"


class RecapError(Exception):
    """Any failure that recap foresees; `exit_code` tells the scheduler which."""

    exit_code: ExitCode = ExitCode.BUG


class ConfigError(RecapError):
    """The config is wrong, or its parts do not fit together."""

    exit_code = ExitCode.CONFIG


class DataError(RecapError):
    """The data is wrong, or more records are wrong than the limits allow."""

    exit_code = ExitCode.DATA


class MissingError(RecapError):
    """An input, a model or an adapter does not exist."""

    exit_code = ExitCode.MISSING


class OutputError(RecapError):
    """The output cannot be written: disk full, read-only, or taken by something else."""

    exit_code = ExitCode.OUTPUT


class AlreadyExistsError(OutputError):
    """The key of a guarded write is taken."""


class ChangedError(OutputError):
    """The object of a guarded write is not what was read before: somebody else was faster."""


class RetryError(RecapError):
    """A service failed for longer than retries last; the same job may well succeed later."""

    exit_code = ExitCode.RETRY


class PreemptedError(RetryError):
    """The job received a stop signal before it finished."""


class GateError(RecapError):
    """The adapter is published under its run, but did not pass its gate: a person decides."""

    exit_code = ExitCode.GATE


class AlarmError(RecapError):
    """The summaries are there, but nights are not as those before: a person decides."""

    exit_code = ExitCode.GATE


class Stopped(BaseException):
    """Raised by the handler of a stop signal, wherever the process is.

    Not an Exception, so that libraries that retry do not swallow it.
    """


class DivergedError(RecapError):
    """The training diverged: its loss or gradients are NaN, or the gradients exceed the limit."""

    exit_code = ExitCode.BUG


class ForbiddenError(RecapError):
    """Access is denied: S3 403, a gated model without access."""

    exit_code = ExitCode.FORBIDDEN


class DamagedError(DataError):
    """A folder's content is not what its manifest says, or it has no manifest."""


@contextmanager
def naming_key(key: str) -> Iterator[None]:
    """Put a config's key before the text of an error that does not begin with it."""
    try:
        yield
    except RecapError as error:
        if str(error).startswith(key):
            raise
        raise type(error)(f"{key}: {error}") from error
