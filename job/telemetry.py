"""Log events and progress, for a person or for a log collector.

A person at a terminal gets short lines and a progress bar with an ETA. A log collector gets one
JSON object per line. Neither gets secrets.
"""

import json
import logging
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Protocol, TextIO

from tqdm import tqdm

from job.pace import Pace
from job.printable import entry, printable, visible

LOGGER = logging.getLogger("recap")
SECONDS_BETWEEN_PROGRESS_LINES = 15.0
SECONDS_BETWEEN_HEARTBEATS = 120.0
_WARNED: set[str] = set()  # messages of `warn_once`
EMBEDDED = "_aws"  # field of a log line by which CloudWatch finds metrics


def configure_logging(
    stream: TextIO | None = None, person: bool | None = None, quiet: bool = False
) -> None:
    """Log to `stream` (stderr): as text if a person reads it at a terminal, else as JSON lines.

    With `quiet`, only warnings are logged: of several processes that do the same, one logs it.
    """
    stream = stream or sys.stderr
    if person is None:
        person = stream.isatty()

    handler = _AboveTheBar(stream)
    handler.setFormatter(_TextFormatter() if person else _JsonFormatter())
    LOGGER.handlers[:] = [handler]
    LOGGER.setLevel(logging.WARNING if quiet else logging.INFO)
    LOGGER.propagate = False
    # tqdm would create its lock with the first line. A stop signal in that moment would end in an
    # AttributeError.
    tqdm.get_lock()  # type: ignore[no-untyped-call]
    _quiet_libraries(person)


def event(message: str, level: int = logging.INFO, /, **fields: Any) -> None:
    """Log one event: a short English message, and its values as fields of JSON types."""
    LOGGER.log(level, message, extra={"fields": fields})


def warn(message: str, /, **fields: Any) -> None:
    """Log an event that a person should look at."""
    event(message, logging.WARNING, **fields)


def warn_once(message: str, /, **fields: Any) -> None:
    """Log an event that a person should look at, unless this process has logged one of its name."""
    if message not in _WARNED:
        _WARNED.add(message)
        warn(message, **fields)


@contextmanager
def recorded_warnings() -> Iterator[list[tuple[str, dict[str, Any]]]]:
    """Yield the list of the warnings of the block, message and fields, while they are logged."""
    recorder = _Recorder(logging.WARNING)
    LOGGER.addHandler(recorder)
    try:
        yield recorder.warnings
    finally:
        LOGGER.removeHandler(recorder)


def log_metrics(message: str, metrics: Mapping[str, tuple[float, str]], /, **fields: Any) -> None:
    """Log values that CloudWatch reads as metrics, by its embedded metric format.

    `metrics` has a value and a unit of CloudWatch (Count, Seconds, None) by name. There are no
    dimensions: each date of a night would make another metric, which costs money.
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


@contextmanager
def heartbeat(what: str, seconds: float = SECONDS_BETWEEN_HEARTBEATS) -> Iterator[None]:
    """Log every two minutes during the block that `what` is under way, and for how long.

    For what logs nothing by itself: a phase that is long looks like one that hangs.
    """
    ended = threading.Event()
    start = time.monotonic()

    def beat() -> None:
        while not ended.wait(seconds):
            event(what, minutes=round((time.monotonic() - start) / 60, 1))

    threading.Thread(target=beat, name="heartbeat", daemon=True).start()
    try:
        yield
    finally:
        ended.set()


class Phases:
    """The way from the start of a command to its first result, in seconds by phase, logged once."""

    def __init__(self, started: float, clock: Callable[[], float] = time.time) -> None:
        """Begin the first phase at `started`, in the seconds of `clock`."""
        self.seconds: dict[str, float] = {}
        self._clock = clock
        self._began = started
        self._is_over = False

    def end(self, phase: str, at: float | None = None) -> None:
        """End a phase now, or `at` that time, and begin the next one."""
        if self._is_over:
            return
        now = self._clock() if at is None else at
        self.seconds[f"{phase}_seconds"] = round(now - self._began, 2)
        self._began = now

    def end_last(self, phase: str) -> None:
        """End the last phase, and log all of them. Does nothing when called again."""
        self.end(phase)
        if not self._is_over:
            event("phases", **self.seconds, seconds=round(sum(self.seconds.values()), 2))
        self._is_over = True


def copy_line(line: str, source: str = "") -> None:
    """Log a line of another process's log, which `source` names if there are several.

    At a terminal, a JSON line of recap becomes text. Anywhere else the line is copied as it is.
    """
    LOGGER.info(line, extra={"copied_from": source})


class Progress(Protocol):
    """The progress of a long task."""

    def advance(self, count: int = 1) -> None:
        """Add `count` units to those that are done."""


@contextmanager
def progress(
    what: str,
    total: int | None,
    unit: str = "it",
    done: int = 0,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Progress]:
    """Show the progress of `what`, which has `total` units if that is known, and `done` of them.

    At a terminal it is a bar with rate and ETA, otherwise an event every 15 seconds and at the end.
    """
    if _has_room_for_a_bar():
        name = visible(printable(what), one_line=True)
        scale = unit == "B"
        with tqdm(
            total=total,
            desc=name,
            unit=unit,
            unit_scale=scale,
            dynamic_ncols=True,
            initial=done,
        ) as bar:
            yield _Bar(bar)
    else:
        lines = _Lines(what, total, unit, done, clock)
        yield lines
        lines.end()


@contextmanager
def status_line() -> Iterator[Callable[[str], None]]:
    """Yield a function that shows a text and the time since the start, in a terminal's last line.

    Without a terminal it shows nothing.
    """
    if not _has_room_for_a_bar():
        yield lambda text: None
        return

    with tqdm(bar_format="{elapsed} {desc}", leave=False) as bar:

        def show(text: str) -> None:
            # A line that is longer than the terminal is wide would not be overwritten.
            columns = os.get_terminal_size(sys.stderr.fileno()).columns - len(" 00:00:00")
            bar.set_description_str(visible(printable(text), one_line=True)[:columns])

        yield show


def _has_room_for_a_bar() -> bool:
    """Return True if stderr is a terminal with a size.

    A terminal that nobody looks at, as by `docker run -t`, has none.
    """
    try:
        return sys.stderr.isatty() and min(os.get_terminal_size(sys.stderr.fileno())) > 0
    except (OSError, ValueError):
        return False


def _quiet_libraries(person: bool) -> None:
    """Keep progress bars, torch's C++ warnings and a harmless hint of bitsandbytes out of logs."""
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    # Otherwise huggingface_hub asks the Hub for a list of agents, to report which one runs it.
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
    def __init__(
        self, what: str, total: int | None, unit: str, done: int, clock: Callable[[], float]
    ) -> None:
        self._what = what
        self._total = total
        self._unit = unit
        self._done = done
        self._clock = clock
        # The first units wait for all that is prepared.
        self._pace = Pace()
        self._logged_done: int | None = None
        self._advanced_at = self._logged_at = clock()

    def advance(self, count: int = 1) -> None:
        now = self._clock()
        self._done += count
        self._pace.add(count, now - self._advanced_at)
        self._advanced_at = now
        if now - self._logged_at >= SECONDS_BETWEEN_PROGRESS_LINES:
            self._log(now)

    def end(self) -> None:
        if self._logged_done != self._done:
            self._log(self._clock())

    def _log(self, now: float) -> None:
        self._logged_at = now
        self._logged_done = self._done
        each = self._pace.unit_seconds
        eta_seconds = None
        if self._total is not None and each is not None:
            eta_seconds = round((self._total - self._done) * each, 1)
        event(
            self._what,
            done=self._done,
            total=self._total,
            unit=self._unit,
            per_second=0.0 if each is None else round(1 / max(each, 1e-9), 2),
            eta_seconds=eta_seconds,
        )


class _Recorder(logging.Handler):
    """Remembers messages and fields of the warnings that are logged."""

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.warnings: list[tuple[str, dict[str, Any]]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.warnings.append((record.getMessage(), getattr(record, "fields", {})))


class _AboveTheBar(logging.StreamHandler[TextIO]):
    def emit(self, record: logging.LogRecord) -> None:
        """Write the line above a progress bar."""
        try:
            tqdm.write(self.format(record), file=self.stream)
        except (OSError, ValueError):
            # A broken pipe or a closed stream: the job goes on if nobody reads its log any more.
            self.handleError(record)


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        copied_from = getattr(record, "copied_from", None)
        if copied_from is not None:
            return printable(_with_source(record.getMessage(), copied_from))

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
        copied_from = getattr(record, "copied_from", None)
        if copied_from is not None:
            return entry(_with_source(_text_of_line(record.getMessage()), copied_from))
        return entry(_text(record.getMessage(), record.levelname, getattr(record, "fields", {})))


def _text(message: str, level: str, fields: Mapping[str, Any]) -> str:
    if logging.getLevelNamesMapping().get(level.upper(), 0) >= logging.WARNING:
        message = f"{level.lower()}: {message}"

    shown = []
    for key, value in fields.items():
        if key != EMBEDDED:
            shown.append(f"{key}={visible(_short(value), one_line=True)}")
    return f"{message}  {' '.join(shown)}" if shown else message


def _text_of_line(line: str) -> str:
    """Return a JSON line of recap as text with its time of day, and any other line as it is."""
    try:
        fields = json.loads(line)
        message = str(fields.pop("message"))
        moment = datetime.fromisoformat(fields.pop("time"))
        level = str(fields.pop("level"))
    except (ValueError, TypeError, KeyError, AttributeError):
        return line
    return f"{moment.astimezone():%H:%M:%S} {_text(message, level, fields)}"


def _with_source(line: str, source: str) -> str:
    return f"[{source}] {line}" if source else line


def _printable(value: Any) -> Any:
    """Return a field as JSON types with printable texts: parsers of the line print them raw."""
    if isinstance(value, float) and not math.isfinite(value):
        # JSON has no NaN, and a collector may drop a line that has one.
        return str(value)
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
    if isinstance(value, float):
        return f"{value:.4g}"
    return "none" if value is None else str(value)
