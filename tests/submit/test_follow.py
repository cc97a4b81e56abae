"""Claims about following a job, with a scheduler that answers as each test writes down."""

import json
import logging
import os
from collections.abc import Iterator
from typing import ClassVar

import pytest

from job import telemetry
from job.errors import ConfigError, ForbiddenError, RetryError, Stopped
from job.submit.follow import (
    MAX_FAILED_LOOKS,
    MAX_QUIET_SECONDS,
    MAX_WAIT_SECONDS,
    Line,
    Look,
    Outcome,
    follow,
    worst,
)
from job.telemetry import configure_logging, copy_line
from tests.submit.following import Moments, shown

STOP = "docker stop 1"
DONE = Look("SUCCEEDED", outcome=Outcome(0, ""))


class Scheduler:
    """Answers each look with the next of these: a state or an error; a list is its log before."""

    seconds_between_looks: ClassVar[float] = 7.0

    def __init__(self, *answers: Look | BaseException | list[Line]) -> None:
        self.answers = list(answers)
        self.is_closed = False

    def look(self) -> Look:
        answer = self.answers.pop(0)
        assert not isinstance(answer, list)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def lines(self) -> Iterator[Line]:
        if isinstance(self.answers[0], list):
            yield from self.answers.pop(0)

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture(autouse=True)
def _all_levels(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


def test_states_are_shown_as_they_change_with_the_log_between_them(caplog):
    scheduler = Scheduler(
        Look("RUNNABLE", "CAPACITY:INSUFFICIENT_INSTANCE_CAPACITY"),
        Look("RUNNABLE", "CAPACITY:INSUFFICIENT_INSTANCE_CAPACITY"),
        Look("RUNNING"),
        [Line("first"), Line("second", "worker 1")],
        Look("RUNNING"),
        [Line("last")],
        DONE,
    )
    assert follow(scheduler, STOP, Moments()) == Outcome(0, "")
    assert shown(caplog.records) == [
        "RUNNABLE (CAPACITY:INSUFFICIENT_INSTANCE_CAPACITY)",
        "RUNNING",
        "> first",
        "worker 1> second",
        "> last",
        "SUCCEEDED",
    ]
    assert scheduler.is_closed


def test_a_state_that_lasts_is_shown_again_so_that_ci_sees_a_sign_of_life(caplog):
    waits = [Look("RUNNABLE")] * 1000
    moments = Moments(*[lambda: None] * 1000)
    follow(Scheduler(*waits, DONE), STOP, moments)
    states = shown(caplog.records)
    assert states == ["RUNNABLE"] * (len(states) - 1) + ["SUCCEEDED"]
    seconds = sum(moments.slept) / (len(states) - 1)
    assert 60 < seconds <= MAX_QUIET_SECONDS + Scheduler.seconds_between_looks


@pytest.mark.parametrize("signal", [KeyboardInterrupt(), Stopped()])
def test_ctrl_c_and_sigterm_leave_the_job_running_and_say_how_to_stop_it(signal):
    scheduler = Scheduler(Look("RUNNING"), signal)
    with pytest.raises(RetryError) as raised:
        follow(scheduler, STOP, Moments())
    assert str(raised.value).startswith("stopped following: the job goes on\n")
    assert f"\nstop it (it saves): {STOP}" in str(raised.value)
    assert scheduler.is_closed


def test_errors_that_pass_are_asked_about_again_and_cost_no_line(caplog):
    busy = RetryError("AWS answered ThrottlingException")
    lines = [Line("one"), Line("two")]
    scheduler = Scheduler(busy, busy, Look("RUNNING"), lines, busy, Look("RUNNING"), DONE)
    moments = Moments()
    assert follow(scheduler, STOP, moments).code == 0
    unknown = "WARNING: the job's state is unknown: asking again"
    assert shown(caplog.records) == [
        unknown,
        "RUNNING",
        "> one",
        "> two",
        unknown,
        "SUCCEEDED",
    ]
    assert moments.slept[0] < moments.slept[1], "the second wait is longer"


def test_a_service_that_stays_away_ends_the_following_but_not_the_job():
    scheduler = Scheduler(*[RetryError("AWS cannot be reached")] * (MAX_FAILED_LOOKS + 1))
    waits: list[float] = []
    with pytest.raises(RetryError, match="AWS cannot be reached\nthe job goes on"):
        follow(scheduler, STOP, waits.append)
    assert len(waits) == MAX_FAILED_LOOKS
    assert max(waits) == MAX_WAIT_SECONDS


def test_a_success_between_failures_starts_the_count_again():
    answers: list[Look | BaseException] = []
    for _ in range(MAX_FAILED_LOOKS + 1):
        answers += [RetryError("busy"), Look("RUNNING")]
    assert follow(Scheduler(*answers, DONE), STOP, lambda seconds: None).code == 0


def test_expired_credentials_end_the_following_but_not_the_job():
    scheduler = Scheduler(Look("RUNNING"), ForbiddenError("ExpiredToken: credentials expired"))
    with pytest.raises(ForbiddenError) as raised:
        follow(scheduler, STOP, Moments())
    assert "credentials expired\nthe job goes on" in str(raised.value)
    with pytest.raises(ConfigError, match="the job goes on"):
        follow(Scheduler(ConfigError("kubectl says")), STOP, Moments())


@pytest.mark.parametrize(
    ("codes", "decides"),
    [
        ({"worker 0": 0, "worker 1": 75}, ("worker 1", 75)),
        ({"worker 0": 137, "worker 1": 64, "worker 2": 75}, ("worker 1", 64)),
        ({"worker 0": 65, "worker 1": 77}, ("worker 1", 77)),
        ({"worker 0": 137, "worker 1": 75}, ("worker 0", 137)),
        ({"": 70}, ("", 70)),
    ],
)
def test_a_final_code_decides_before_one_that_may_pass(codes, decides):
    assert worst(codes) == decides
    assert worst(dict(reversed(codes.items()))) == decides


LINE = {"time": "2026-01-31T02:00:05.123+00:00", "level": "info", "message": "training"}


def copied(capsys: pytest.CaptureFixture[str], line: str, person: bool, source: str = "") -> str:
    configure_logging(person=person)
    copy_line(line, source)
    return capsys.readouterr().err


def test_a_person_reads_text_where_the_job_logs_json(capsys):
    line = json.dumps(LINE | {"step": 4, "loss": 1.25, "_aws": {"Timestamp": 1}})
    text = copied(capsys, line, person=True, source="worker 2")
    assert text.startswith("[worker 2] ")
    assert text.endswith(":00:05 training  step=4 loss=1.25\n")
    warned = copied(capsys, json.dumps(LINE | {"level": "warning"}), person=True)
    assert warned.endswith(" warning: training\n")


def test_a_collector_gets_the_jobs_line_as_it_was(capsys):
    line = json.dumps(LINE)
    assert copied(capsys, line, person=False) == f"{line}\n"
    assert copied(capsys, line, person=False, source="node 1") == f"[node 1] {line}\n"


@pytest.mark.parametrize("line", ["plain text", "[1, 2]", '{"message": 1}', '{"time": 3}', "{"])
def test_a_line_that_is_not_recaps_is_shown_as_it_is(capsys, line):
    assert copied(capsys, line, person=True) == f"{line}\n"


def test_a_line_of_the_log_cannot_draw_on_the_terminal(capsys):
    text = copied(capsys, "\x1b[2J\x1b[Herased", person=True)
    assert text == "\\x1b[2J\\x1b[Herased\n"
    line = json.dumps(LINE | {"message": "a\nb\x1b[2J"})
    assert copied(capsys, line, person=True).endswith("a\n  b\\x1b[2J\n")


def test_the_last_line_of_a_terminal_is_the_state_cut_to_its_width(monkeypatch, capfd):
    monkeypatch.setattr(telemetry, "_has_room_for_a_bar", lambda: True)
    monkeypatch.setattr(os, "get_terminal_size", lambda *_: os.terminal_size((40, 10)))
    configure_logging(person=True)
    with telemetry.status_line() as show:
        show("RUNNABLE\x1b[2J  " + "waits for a machine " * 9)
    written = capfd.readouterr().err
    assert "RUNNABLE\\x1b[2J  waits for a" in written
    assert max(len(line) for line in written.split("\r")) <= 40
