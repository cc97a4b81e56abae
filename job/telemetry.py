"""What a run tells while it goes: log lines and progress.

Purpose: the same events to two readers. A person on a terminal gets short lines and a progress bar with an ETA; a log
collector gets one JSON object per line. Secrets named in the environment are masked in either. Knows nothing of what is
being done.
"""

import json
import logging
import math
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Protocol, TextIO

from tqdm import tqdm

from job.printable import entry, printable, visible

LOGGER = logging.getLogger("recap")
SECONDS_BETWEEN_PROGRESS_LINES = 15.0
EMBEDDED = "_aws"


def configure_logging(
    stream: TextIO | None = None, person: bool | None = None, quiet: bool = False
) -> None:
    """Send recap's events to `stream` (stderr); as text for a person on a terminal, else as JSON lines.

    `quiet` tells warnings only: of several processes that do the same, one speaks.
    """
    stream = stream or sys.stderr
    handler = _AboveTheBar(stream)
    handler.setFormatter(
        _TextFormatter() if (stream.isatty() if person is None else person) else _JsonFormatter()
    )
    LOGGER.handlers[:] = [handler]
    LOGGER.setLevel(logging.WARNING if quiet else logging.INFO)
    LOGGER.propagate = False
    tqdm.get_lock()  # type: ignore[no-untyped-call]  # made with the first line else: a stop then is an AttributeError
    _quiet_libraries(stream.isatty() if person is None else person)


def event(message: str, level: int = logging.INFO, /, **fields: Any) -> None:
    """Tell one thing: a short English message, and what belongs to it as fields (JSON types)."""
    LOGGER.log(level, message, extra={"fields": fields})


def warn(message: str, /, **fields: Any) -> None:
    """Tell something that a person should look at."""
    event(message, logging.WARNING, **fields)


def measured(message: str, metrics: Mapping[str, tuple[float, str]], /, **fields: Any) -> None:
    """Tell values with their units, in a JSON line that CloudWatch reads as metrics (embedded metric format).

    Units are CloudWatch's (Count, Seconds, None). There are no dimensions: a value for each night's date would be a
    metric of its own, and paid for.
    """
    names = [{"Name": name, "Unit": unit} for name, (_, unit) in metrics.items()]
    directive = {"Namespace": "recap", "Dimensions": [[]], "Metrics": names}
    embedded = {"Timestamp": int(time.time() * 1000), "CloudWatchMetrics": [directive]}
    event(
        message,
        **fields,
        **{name: value for name, (value, _) in metrics.items()},
        **{EMBEDDED: embedded},
    )


class Progress(Protocol):
    """How far a long thing is."""

    def advance(self, count: int = 1) -> None:
        """Count `count` more units as done."""


@contextmanager
def progress(what: str, total: int | None, unit: str = "it") -> Iterator[Progress]:
    """Show how far `what` is: a bar with rate and ETA on a terminal, else an event now and then and at the end."""
    if _has_room_for_a_bar():
        name = visible(printable(what), one_line=True)
        scale = unit == "B"
        with tqdm(total=total, desc=name, unit=unit, unit_scale=scale, dynamic_ncols=True) as bar:
            yield _Bar(bar)
    else:
        lines = _Lines(what, total, unit)
        yield lines
        lines.end()


def _has_room_for_a_bar() -> bool:
    """Whether stderr is a terminal with a size: one that nobody looks at (`docker run -t`) has none, and no bar."""
    try:
        return sys.stderr.isatty() and min(os.get_terminal_size(sys.stderr.fileno())) > 0
    except (OSError, ValueError):
        return False


def _quiet_libraries(person: bool) -> None:
    """Keep the libraries' bars and torch's C++ warnings out of logs, and a hint of bitsandbytes that is harmless."""
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    # Else it asks the Hub which agents there are, to tell it whether one of them runs this.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    if not person:
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)


class _Bar:
    def __init__(self, bar: "tqdm[Any]") -> None:
        self._bar = bar

    def advance(self, count: int = 1) -> None:
        self._bar.update(count)


class _Lines:
    def __init__(self, what: str, total: int | None, unit: str) -> None:
        self._what, self._total, self._unit, self._done = what, total, unit, 0
        self._start = self._told = time.monotonic()
        self._told_of: int | None = None

    def advance(self, count: int = 1) -> None:
        self._done += count
        now = time.monotonic()
        if now - self._told >= SECONDS_BETWEEN_PROGRESS_LINES:
            self._tell(now)

    def end(self) -> None:
        if self._told_of != self._done:
            self._tell(time.monotonic())

    def _tell(self, now: float) -> None:
        self._told, self._told_of = now, self._done
        rate = self._done / max(now - self._start, 1e-9)
        left = (
            None if self._total is None or not rate else round((self._total - self._done) / rate, 1)
        )
        event(
            self._what,
            done=self._done,
            total=self._total,
            unit=self._unit,
            per_second=round(rate, 2),
            eta_seconds=left,
        )


class _AboveTheBar(logging.StreamHandler[TextIO]):
    def emit(self, record: logging.LogRecord) -> None:
        """A bar that is on the screen steps aside for the line; a job goes on where nobody reads its log any more."""
        try:
            tqdm.write(self.format(record), file=self.stream)
        except (OSError, ValueError):  # a broken pipe, a closed stream
            self.handleError(record)


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = getattr(record, "fields", {})
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "message": printable(record.getMessage()),
            **{key: _printable(_rounded(value)) for key, value in fields.items()},
        }
        return json.dumps(line, ensure_ascii=False)


class _TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        told = {
            key: value for key, value in getattr(record, "fields", {}).items() if key != EMBEDDED
        }
        values = {key: visible(_short(value), one_line=True) for key, value in told.items()}
        fields = " ".join(f"{key}={value}" for key, value in values.items())
        mark = "" if record.levelno < logging.WARNING else f"{record.levelname.lower()}: "
        return entry(f"{mark}{record.getMessage()}{'  ' if fields else ''}{fields}")


def _printable(value: Any) -> Any:
    """Return a field as JSON types, each text printable: tools that parse the line print it raw."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # JSON has no NaN, and a collector may drop the line that has one
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Mapping):
        return {printable(str(key)): _printable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_printable(item) for item in value]
    return printable(str(value))


def _rounded(value: Any) -> Any:
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return "(" + ", ".join(f"{key} {_short(each)}" for key, each in value.items()) + ")"
    if isinstance(value, list):
        return ", ".join(map(_short, value)) or "none"
    return f"{value:.4g}" if isinstance(value, float) else "none" if value is None else str(value)
