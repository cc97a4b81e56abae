"""The stop signal: between optimizer steps it sets a flag, elsewhere it ends the work at once."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from job.errors import PreemptedError, Stopped


class StopSignal:
    """The handler of SIGTERM and SIGINT. `requested` is True once one of them was received."""

    def __init__(self) -> None:
        self.requested = False
        self._may_wait = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._receive)

    @contextmanager
    def between_steps(self) -> Iterator[None]:
        """Let the block poll `requested` and stop in good order: no signal raises in it."""
        self._may_wait = True
        try:
            yield
        finally:
            self._may_wait = False

    def settle(self) -> None:
        """Let no further signal raise: the process's outcome is decided and must be written."""
        self._may_wait = True

    def check(self, what: str) -> None:
        """Raise PreemptedError if a stop was requested; `what` says how far the work is."""
        if self.requested:
            raise PreemptedError(f"{what}: run the same command again to resume")

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        is_first = not self.requested
        self.requested = True

        # Only the first signal raises: a second must not break the cleanup that the first began.
        if is_first and not self._may_wait:
            name = signal.Signals(number).name
            raise Stopped(f"stopped by {name}: run the same command again to resume")
