"""Log how the GPUs are used, once a minute, and their faults at once.

The lines show whether a job that is slow uses its GPU, and sum up to the GPU hours that it had.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from job.gpus.nvml import Nvml, Use, open_nvml
from job.telemetry import log_metrics, warn

IDLE_BELOW_PERCENT = 1


@dataclass(frozen=True)
class Pace:
    """Seconds between two readings, between two lines, and for the last reading at the end."""

    reading: float = 5.0
    line: float = 60.0
    end: float = 5.0


def mean_use(uses: Sequence[Use]) -> dict[str, tuple[float, str]]:
    """Return the mean utilization and the largest share of memory, as metrics with their units.

    A number that no GPU has is absent.
    """
    metrics = {}
    utilizations = [use.utilization for use in uses if use.utilization is not None]
    if utilizations:
        metrics["gpu_utilization"] = (sum(utilizations) / len(utilizations), "Percent")
    if uses:
        metrics["gpu_memory"] = (max(use.memory for use in uses), "Percent")
    return metrics


class IdleTime:
    """The time in which GPUs did nothing, without a break, as their readings show it."""

    def __init__(self) -> None:
        self._since: dict[int, float] = {}  # of the GPUs that are idle, in seconds
        self._is_known = False

    def add(self, uses: Sequence[Use], now: float) -> None:
        """Take the readings of this second."""
        for use in uses:
            if use.utilization is not None:
                self._is_known = True
                if use.utilization < IDLE_BELOW_PERCENT:
                    self._since.setdefault(use.gpu, now)
                else:
                    self._since.pop(use.gpu, None)

    def metrics(self, now: float) -> dict[str, tuple[float, str]]:
        """Return the minutes of the GPU that has been idle for longest, 0 if none is.

        Nothing if no GPU has a utilization.
        """
        longest = now - min(self._since.values(), default=now)
        return {"gpu_idle_minutes": (longest / 60, "None")} if self._is_known else {}


@contextmanager
def gpu_lines(
    environment: Mapping[str, str] | None = None,
    find: Callable[[Mapping[str, str]], Nvml | None] | None = None,
    pace: Pace | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[None]:
    """Log the use of the GPUs and their faults during the block, on another thread.

    A line is the message "gpus", with metrics. On a machine without a GPU this is a no-op. Call it
    once on each machine, in the process above those that compute: the lines of two would count
    every GPU twice.
    """
    nvml = (find or open_nvml)(os.environ if environment is None else environment)
    if nvml is None:
        yield
        return

    pace = pace or Pace()
    ended = threading.Event()
    arguments = (nvml, pace, clock, ended)
    thread = threading.Thread(target=_run, args=arguments, name="gpu lines", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        # NVML may hang in a broken driver.
        thread.join(pace.end)


def _run(nvml: Nvml, pace: Pace, clock: Callable[[], float], ended: threading.Event) -> None:
    last_line = clock()
    readings: list[Use] = []
    idle = IdleTime()
    while True:
        is_last = ended.wait(pace.reading)
        uses = nvml.uses()
        now = clock()
        readings += uses
        idle.add(uses, now)
        for fault in nvml.new_faults():
            warn(fault.what, gpu=fault.gpu, why=fault.why)

        seconds = now - last_line
        if is_last or seconds >= pace.line:
            # Lost GPUs count in the minutes: they are paid for.
            counts: dict[str, tuple[float, str]] = {
                "gpus": (len(uses), "Count"),
                "gpu_minutes": (nvml.count * seconds / 60, "None"),
            }
            log_metrics("gpus", counts | mean_use(readings) | idle.metrics(now))
            last_line = now
            readings = []
        if is_last:
            return
