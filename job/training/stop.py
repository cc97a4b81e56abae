"""The stop signal: between two optimizer steps it is a flag, anywhere else it ends the work at once.

Knows nothing of what is being stopped.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from job.errors import PreemptedError, Stopped


class StopSignal:
    """Whether the process was told to stop (SIGTERM or SIGINT)."""

    def __init__(self) -> None:
        self.requested = False
        self._may_wait = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._receive)

    @contextmanager
    def between_steps(self) -> Iterator[None]:
        """While inside, the work looks at `requested` itself and leaves in good order."""
        self._may_wait = True
        try:
            yield
        finally:
            self._may_wait = False

    def settle(self) -> None:
        """How the process ends is decided: a signal that still comes must not keep it from saying so."""
        self._may_wait = True

    def check(self, what: str) -> None:
        """PreemptedError, with `what` was reached, if a stop was asked for."""
        if self.requested:
            raise PreemptedError(f"{what}: run the same command again to go on")

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        first, self.requested = not self.requested, True
        if first and not self._may_wait:
            raise Stopped(f"stopped by {signal.Signals(number).name}: run the same command again to go on")
