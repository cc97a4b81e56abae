"""Call a function that runs what a stranger wrote, such as a chat template, within limits.

A forked child calls it. A loop without end, or a text of gigabytes, ends the child and not the job.
"""

import json
import os
import resource
import select
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

MAX_CPU_SECONDS = 10  # a chat template takes milliseconds
MAX_WAIT_SECONDS = 120  # on a machine that is busy with other work
MAX_MORE_MEMORY = 1 << 30  # bytes, beyond those of this process
MAX_ANSWER = 16 << 20  # bytes of JSON


class BoundedError(Exception):
    """The function raised an error, or ran into a limit. The text says which."""


def call_bounded(work: Callable[[], Any]) -> Any:
    """Return what `work` returns, a JSON value. Raise BoundedError if it fails or does not end."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        _answer_and_exit(work, writing)
    os.close(writing)
    try:
        with open(reading, "rb") as pipe:
            # The child's own limit ends a loop. This one is for a child that waits for something.
            ready, _, _ = select.select([pipe], [], [], MAX_WAIT_SECONDS)
            answer = pipe.read() if ready else b""
    finally:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(child, 0)

    if not answer:
        raise BoundedError(f"it did not end within {MAX_CPU_SECONDS} seconds")
    found = json.loads(answer)
    if "error" in found:
        raise BoundedError(found["error"])
    return found["value"]


def _answer_and_exit(work: Callable[[], Any], writing: int) -> NoReturn:
    """Write the result of `work`, or its error, to the pipe, and end this process."""
    try:
        _limit()
        answer = _answer(work)
        while answer:
            answer = answer[os.write(writing, answer) :]
    finally:
        # Not `sys.exit`: this process has copies of files and threads that are not its own.
        os._exit(0)


def _limit() -> None:
    """Limit this process, and let signals end it as they end any other."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    _lower(resource.RLIMIT_CORE, 0)
    _lower(resource.RLIMIT_CPU, MAX_CPU_SECONDS)
    size = Path("/proc/self/statm")
    if size.exists():
        used = int(size.read_text().split()[0]) * resource.getpagesize()
        _lower(resource.RLIMIT_AS, used + MAX_MORE_MEMORY)


def _lower(kind: int, limit: int) -> None:
    """Set a limit of this process, unless a lower one is set already."""
    limits = resource.getrlimit(kind)
    known = [each for each in (limit, *limits) if each != resource.RLIM_INFINITY]
    resource.setrlimit(kind, (min(known), limits[1]))


def _answer(work: Callable[[], Any]) -> bytes:
    try:
        answer = json.dumps({"value": work()}).encode()
    except MemoryError:
        answer = _error(f"it took more than {MAX_MORE_MEMORY >> 20} MiB of memory")
    except Exception as error:
        answer = _error(f"{type(error).__name__}: {error}"[:1000])
    if len(answer) > MAX_ANSWER:
        answer = _error(f"it made a text of more than {MAX_ANSWER >> 20} MiB")
    return answer


def _error(text: str) -> bytes:
    return json.dumps({"error": text}).encode()
