"""Compare what a plan knew of a training with what the run did, for its report.

Nothing is simulated here: memory and time are predicted only by `recap plan` on the same machine.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from job.evaluation.charts import History
from job.pages.charts import Table
from job.training.planned_steps import PlannedSteps
from job.training.predictions import CPU, Predictions

GIB = 1 << 30
MINUTE = 60
HOUR = 3600
NOT_ASKED = "not asked"
NOT_MEASURED = "not measured"
NOTE = (
    "Memory is the most that the first process held: of its GPU, or of the host without one. "
    "Memory and time are predicted by recap plan, where it ran on the same machine before. Times "
    "of the run are those of its last attempt."
)

# Parts of a run: name, the plan's keys, and the run's timings that they are compared with.
PARTS = (
    ("Start", ("start",), ("plan", "import", "prepare", "load")),
    ("Steps and evaluations", ("reference", "training", "evaluations"), ("train",)),
    ("Choosing and scoring", ("scores",), ("select", "evaluate")),
)


@dataclass(frozen=True)
class Measured:
    """The measurements of a run: its last step, history, and seconds of the last attempt by part.

    `device` is the name of the first process's GPU, or CPU.
    """

    step: int
    history: History
    timings: Mapping[str, float]
    device: str

    def highest(self, name: str) -> float | None:
        """Return the highest number of this name in the history."""
        return max((entry[name] for entry in self.history if name in entry), default=None)


def comparison(
    steps: PlannedSteps, tokens_per_epoch: int, predictions: Predictions, measured: Measured
) -> Table:
    """Return steps, tokens, memory and time as planned, and as this run had them."""
    tokens = measured.highest("tokens")
    memory = measured.highest("memory_gib")
    planned_tokens = round(tokens_per_epoch * steps.all / steps.per_epoch)
    rows = [
        ("Optimizer steps", f"{steps.all:,}", f"{measured.step:,}"),
        ("Tokens", f"{planned_tokens:,}", NOT_MEASURED if tokens is None else f"{tokens:,.0f}"),
        (
            "Peak memory",
            _memory(predictions, measured.device),
            NOT_MEASURED if memory is None else f"{memory:.2f} GiB",
        ),
    ]
    predicted = _durations(predictions, steps.processes, measured.device)
    for name, keys, timings in PARTS:
        rows.append((name, _predicted_time(predicted, keys), _measured_time(measured, timings)))
    return Table(("", "planned", "this run"), rows, NOTE)


def device_name() -> str:
    """Return the name of this process's GPU, or CPU."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else CPU


def _memory(predictions: Predictions, device: str) -> str:
    found = predictions.get("memory", {})
    if device == CPU and "cpu" in found:
        return f"{found['cpu']['process_bytes'] / GIB:.2f} GiB"
    for each in found.get("gpus", ()):
        if each["gpu"] == device:
            return f"{each['reserved_bytes'] / GIB:.2f} GiB"
    return NOT_ASKED


def _durations(predictions: Predictions, processes: int, device: str) -> Mapping[str, Any]:
    """Return the least and the most seconds of each part on this device."""
    devices: Mapping[str, Any] = predictions.get("time", {}).get("devices", {})
    if device == CPU:
        return dict(devices.get("this CPU", {}))
    several = device if processes == 1 else f"{processes} x {device}"
    return dict(devices.get(several, {}))


def _predicted_time(predicted: Mapping[str, Any], keys: Sequence[str]) -> str:
    if not predicted:
        return NOT_ASKED
    ranges = [predicted.get(f"{key}_seconds", (0, 0)) for key in keys]
    least, most = (sum(each[end] for each in ranges) for end in (0, 1))
    return f"{_shown(least)} to {_shown(most)}"


def _measured_time(measured: Measured, names: Sequence[str]) -> str:
    seconds = [measured.timings.get(f"{name}_seconds") for name in names]
    known = [each for each in seconds if each is not None]
    return _shown(sum(known)) if known else NOT_MEASURED


def _shown(seconds: float) -> str:
    if seconds < MINUTE:
        return f"{seconds:.0f} s"
    if seconds < HOUR:
        return f"{seconds / MINUTE:.1f} min"
    return f"{seconds / HOUR:.2f} h"
