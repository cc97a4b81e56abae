"""Claims about events: text for a person, JSON for a collector, and secrets for neither."""

import io
import json
import logging
import os
import re
import subprocess
import sys
import termios
import time

import pytest

from job import telemetry

SECRET = 'top"secret\\value'


@pytest.fixture
def secret(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("HF_TOKEN", SECRET)
    return SECRET


@pytest.mark.parametrize("person", [True, False])
def test_a_broken_log_stream_does_not_end_the_job(person, capsys, tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb", buffering=0) as broken:
        telemetry.configure_logging(io.TextIOWrapper(broken, write_through=True), person=person)
        telemetry.event("one")
        assert "BrokenPipeError" in capsys.readouterr().err, "it was met, and raised nothing"

        # From now on the same descriptor is a file, as if somebody read the log again.
        with (tmp_path / "log").open("wb") as log:
            os.dup2(log.fileno(), writer)
        telemetry.event("two")
    assert "two" in (tmp_path / "log").read_text()


@pytest.mark.parametrize("person", [True, False])
def test_no_event_has_a_secret_at_any_depth(secret, person):
    stream = io.StringIO()
    telemetry.configure_logging(stream, person=person)
    telemetry.event(
        f"at {secret}", logging.INFO, plain=secret, deep={"list": [f"x {secret}"], secret: 1}
    )
    line = stream.getvalue()
    assert "top" not in line
    assert line.count("***") == 4
    if not person:
        assert json.loads(line)["deep"] == {"list": ["x ***"], "***": 1}


def test_a_number_that_json_does_not_have_is_text():
    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    stream = io.StringIO()
    telemetry.configure_logging(stream, person=False)
    telemetry.event("step", logging.INFO, loss=float("nan"), deep=[{"norm": float("inf")}])
    line = json.loads(stream.getvalue(), parse_constant=refuse)
    assert (line["loss"], line["deep"]) == ("nan", [{"norm": "inf"}])


FOREIGN = "a\x1b[2J\x07\r\x7f\x9b\u2028\u2029\u202e\u2066\u200f\nerror: forged\n{}"


@pytest.mark.parametrize("person", [True, False])
def test_no_line_has_control_characters_at_any_depth(person):
    stream = io.StringIO()
    telemetry.configure_logging(stream, person=person)
    telemetry.event(FOREIGN, logging.WARNING, text=FOREIGN, deep={FOREIGN: [(FOREIGN,)]}, of=Odd())
    shown = stream.getvalue()
    unsafe = [c for c in shown if not c.isprintable() and c != "\n"]
    assert unsafe == []
    assert "\\x1b[2J" in shown
    if not person:
        line = json.loads(shown)
        assert line["text"].startswith("a\\x1b[2J\\x07\\x0d\\x7f\\x9b\\u2028")
        assert [*line["deep"]] == [line["text"]]
        assert "\x1b" not in line["of"]


class Odd:
    """No JSON type."""

    def __str__(self) -> str:
        return FOREIGN


def test_a_text_cannot_forge_a_line_for_a_person():
    stream = io.StringIO()
    telemetry.configure_logging(stream, person=True)
    telemetry.warn("cannot read a\nerror: forged", key="b\nerror: forged too")
    first, second = stream.getvalue().splitlines()
    assert first == "warning: cannot read a"
    assert second == "  error: forged  key=b\\nerror: forged too"


def test_a_person_reads_fields_as_words_not_as_python(secret):
    stream = io.StringIO()
    telemetry.configure_logging(stream, person=True)
    telemetry.event(
        "environment", gpus=[], cuda=None, versions={"torch": "2.13.0", "loss": 0.123456}
    )
    assert (
        stream.getvalue()
        == "environment  gpus=none cuda=none versions=(torch 2.13.0, loss 0.1235)\n"
    )


def told(person: bool) -> str:
    stream = io.StringIO()
    telemetry.configure_logging(stream, person)
    telemetry.log_metrics(
        "summaries", {"records": (31, "Count"), "seconds": (1.5, "Seconds")}, run="night"
    )
    return stream.getvalue()


def test_measured_values_are_a_line_in_the_embedded_metric_format(secret):
    line = json.loads(told(person=False))
    (directive,) = line["_aws"]["CloudWatchMetrics"]
    assert directive["Namespace"] == "recap"
    assert directive["Dimensions"] == [[]]
    assert {metric["Name"]: metric["Unit"] for metric in directive["Metrics"]} == {
        "records": "Count",
        "seconds": "Seconds",
    }
    assert all(isinstance(line[metric["Name"]], int | float) for metric in directive["Metrics"])
    assert isinstance(line["_aws"]["Timestamp"], int)
    assert line["run"] == "night"


def test_a_person_sees_measured_values_without_the_metric_format(secret):
    assert told(person=True) == "summaries  run=night records=31 seconds=1.5\n"


PROGRESS = """
from job.telemetry import configure_logging, progress
configure_logging()
with progress("training", 20, "step") as bar:
    bar.advance(20)
"""


@pytest.mark.parametrize(
    ("size", "wanted"),
    [
        ((24, 80), r"training: 100%\|█+\| 20/20 \[\d\d:\d\d<\d\d:\d\d"),
        ((0, 0), r"training  done=20 total=20 unit=step"),
    ],
)
def test_only_a_terminal_with_a_size_shows_a_bar_with_an_eta(size, wanted):
    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, size)
    subprocess.run(
        [sys.executable, "-c", PROGRESS],
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        check=True,
    )
    said = os.read(ours, 65536).decode()
    os.close(ours)
    os.close(theirs)
    assert re.search(wanted, said), said


def test_a_bar_has_a_name_without_control_characters_and_secrets(secret):
    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    code = PROGRESS.replace('"training"', repr(f"fetching \x1b]0;a\x07\n{secret}\x9b"))
    subprocess.run(
        [sys.executable, "-c", code],
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        check=True,
    )
    said = os.read(ours, 65536).decode()
    os.close(ours)
    os.close(theirs)
    assert "fetching \\x1b]0;a\\x07\\n***\\x9b: 100%" in said
    assert "\x1b]" not in said


def progress_lines(done: int, *laps: tuple[int, float]) -> list[dict[str, float]]:
    """Return the lines of a progress with 100 units, advanced by counts after seconds."""
    stream = io.StringIO()
    telemetry.configure_logging(stream, person=False)
    now = [0.0]
    with telemetry.progress("summarizing", 100, done=done, clock=lambda: now[0]) as bar:
        for count, seconds in laps:
            now[0] += seconds
            bar.advance(count)
    telemetry.configure_logging()
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_the_time_left_does_not_count_the_first_batch():
    first, second = progress_lines(0, (10, 60.0), (10, 20.0))
    assert (first["done"], first["eta_seconds"]) == (10, 540)  # nothing else is known yet
    assert (second["done"], second["eta_seconds"], second["per_second"]) == (20, 160, 0.5)


def test_units_that_an_earlier_attempt_did_do_not_count_as_fast_ones():
    (line,) = progress_lines(80, (10, 30.0))
    assert (line["done"], line["eta_seconds"]) == (90, 30)


def test_a_long_phase_logs_that_it_is_under_way():
    stream = io.StringIO()
    telemetry.configure_logging(stream, person=False)
    with telemetry.heartbeat("loading the base", seconds=0.001):
        while stream.getvalue().count("\n") < 2:
            time.sleep(0.001)
    first, second, *_ = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert first["message"] == second["message"] == "loading the base"
    assert second["minutes"] >= first["minutes"]


def test_a_short_phase_logs_nothing():
    stream = io.StringIO()
    telemetry.configure_logging(stream, person=False)
    with telemetry.heartbeat("loading the base"):
        pass
    assert stream.getvalue() == ""


def test_phases_follow_each_other_and_are_logged_once():
    stream = io.StringIO()
    telemetry.configure_logging(stream, person=False)
    now = [107.0]
    phases = telemetry.Phases(100.0, clock=lambda: now[0])
    phases.end("plan", at=101.5)
    phases.end("import")
    assert phases.seconds == {"plan_seconds": 1.5, "import_seconds": 5.5}
    for now[0] in (110.0, 120.0):
        phases.end_last("first_step")
    (line,) = map(json.loads, stream.getvalue().splitlines())
    assert line["message"] == "phases"
    assert (line["first_step_seconds"], line["seconds"]) == (3.0, 10.0)
