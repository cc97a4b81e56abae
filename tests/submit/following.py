"""Follow jobs without a clock: what happens while a test sleeps is written down beforehand."""

import threading
from collections.abc import Callable

from job.submit.log_process import THREAD_NAME
from job.telemetry import EMBEDDED


def nothing_happens() -> None:
    """Change nothing while the follower sleeps."""


class Moments:
    """A `sleep` that makes one change each time, once the logs so far were read.

    More sleeps than changes are an error, so that a follower that does not end fails its test.
    """

    MAX_MORE = 20

    def __init__(self, *changes: Callable[[], None]) -> None:
        self.changes = [*changes, *[nothing_happens] * self.MAX_MORE]
        self.slept: list[float] = []

    def __call__(self, seconds: float) -> None:
        self.slept.append(seconds)
        for thread in threading.enumerate():
            if thread.name == THREAD_NAME:
                thread.join(timeout=30)
        self.changes.pop(0)()


def shown(records: list) -> list[str]:
    """Return what the follower showed: states with their reasons in brackets, and log lines."""
    found = []
    for record in records:
        source = getattr(record, "copied_from", None)
        fields = {k: v for k, v in getattr(record, "fields", {}).items() if k != EMBEDDED}
        if source is not None:
            found.append(f"{source}> {record.getMessage()}")
        elif "state" in fields:
            why = f" ({fields['why']})" if "why" in fields else ""
            found.append(f"{fields['state']}{why}")
        else:
            found.append(f"{record.levelname}: {record.getMessage()}")
    return found
