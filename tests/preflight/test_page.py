"""Claims about a plan on a terminal: its width, its colors, and what it says first."""

import re

import pytest

from job.errors import ConfigError, ForbiddenError
from job.preflight.checks import Check, Plan
from job.preflight.page import has_colors, page

WORDS = "a table of words that is wider than any terminal has columns for it " * 3
COLOR = re.compile(r"\x1b\[\d+m")


def plan(*checks: Check) -> Plan:
    return Plan("plan of training run r", checks, "run: r\n", "r")


@pytest.mark.parametrize("columns", [80, 120])
def test_no_line_is_wider_than_the_terminal(columns):
    shown = page(plan(Check("data", f"{WORDS}\n{WORDS}"), Check("run", "new")), columns, False)
    lines = shown.splitlines()
    assert columns - 20 < max(map(len, lines)) <= columns
    assert all(line.startswith(" " * 16) for line in lines[4:6])


def test_a_path_is_never_broken():
    path = "/data/" + "conversations-of-a-year/" * 6 + "train.jsonl"
    assert path in page(plan(Check("data", f"read from {path}")), 80, False)


def test_colors_change_no_character():
    found = plan(Check("data", f"fine\nwarning: {WORDS}"), Check("base", "no", ConfigError("no")))
    plain = page(found, 80, colored=False)
    colored = page(found, 80, colored=True)
    assert not COLOR.search(plain)
    assert len(COLOR.findall(colored)) > 10
    assert COLOR.sub("", colored) == plain


def test_no_color_and_dumb_terminals_are_heeded():
    assert has_colors({"TERM": "xterm"})
    assert not has_colors({"NO_COLOR": "1", "TERM": "xterm"})
    assert not has_colors({"TERM": "dumb"})


def test_the_verdict_comes_first():
    warning = Check("data", "fine\nwarning: one\nwarning: another")
    open_question = Check("hub", "not asked", is_known=False)
    good = page(plan(warning, open_question), 80, False).splitlines()
    assert good[1] == "nothing found that would end it; 2 warnings, 1 not checked"
    failed = Check("output", "no", ForbiddenError("no"))
    bad = page(plan(warning, failed), 80, False).splitlines()
    assert bad[1] == "it would end with 77: 1 error, 2 warnings"


def test_neither_control_characters_nor_secrets_reach_a_terminal(monkeypatch):
    monkeypatch.setenv("SOME_TOKEN", "abcdefghijklmnop")
    shown = page(plan(Check("data", "\x1b[2J abcdefghijklmnop")), 80, False)
    assert "\x1b" not in shown
    assert "abcdefghijklmnop" not in shown
