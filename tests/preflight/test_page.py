"""Claims about a plan on a terminal: its width, its colors, and what it says first."""

import json
import re
from pathlib import Path

import pytest

from job.config.commands import TrainConfig
from job.errors import ConfigError, ExitCode, ForbiddenError
from job.preflight.checks import EXAMPLE, Check, Plan
from job.preflight.html import html_page
from job.preflight.page import has_colors, page
from job.preflight.plan import plan as plan_job
from tests.html_page import mistakes, parse

WORDS = "a table of words that is wider than any terminal has columns for it " * 3
COLOR = re.compile(r"\x1b\[\d+m")


def training(folder: Path, base: Path) -> TrainConfig:
    for name in ("train", "validation"):
        turns = [{"role": "customer", "text": f"{name} {WORDS}"}]
        lines = [{"id": str(each), "turns": turns, "summaries": [WORDS]} for each in range(3)]
        (folder / f"{name}.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    values = {
        "run": "r",
        "model": {"base": str(base)},
        "data": {name: str(folder / f"{name}.jsonl") for name in ("train", "validation")},
        "output": str(folder / "runs"),
    }
    return TrainConfig.model_validate(values)


def plan(*checks: Check) -> Plan:
    return Plan("plan of training run r", checks, "run: r\n", "r")


@pytest.mark.parametrize("columns", [80, 120])
def test_no_line_is_wider_than_the_terminal(columns):
    shown = page(plan(Check("data", f"{WORDS}\n{WORDS}"), Check("run", "new")), columns, False)
    lines = shown.splitlines()
    assert columns - 20 < max(map(len, lines)) <= columns
    assert all(line.startswith(" " * 16) for line in lines[4:6])


def test_the_findings_of_a_real_plan_fit_into_80_columns(tmp_path, base_folder):
    shown = page(plan_job(training(tmp_path, base_folder)), 80, False)
    findings = shown.partition("\nThe config, with every default:\n")[0].splitlines()
    assert len(findings) > 40
    # Paths stay whole.
    assert [line for line in findings if len(line) > 80 and len(line.split()) > 3] == []


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


def test_the_page_for_a_browser_is_offline_and_shows_text_as_text(monkeypatch):
    monkeypatch.setenv("SOME_TOKEN", "abcdefghijklmnop")
    script = "<script>alert(1)</script> abcdefghijklmnop"
    checks = (
        Check("data", script),
        Check(EXAMPLE, "said Ada"),
        Check("base", "no", ConfigError("no")),
    )
    root = parse(html_page(plan(*checks)))
    assert mistakes(root) == []
    assert len(root.all("script")) == 1
    assert [head.text for head in root.all("h3")] == ["✓ data: well", "✗ base: error"]
    assert "<script>alert(1)</script> ***" in root.text
    assert "Ada" not in root.text
    assert "it would end with 64: 1 error, 0 warnings" in root.text
    assert "run: r" in root.all("pre")[-1].text


def test_the_plan_is_written_beside_what_is_printed(recap, tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text(f"{{run: r, input: {tmp_path}/none, output: {tmp_path}/o, summaries: /s}}")
    file = tmp_path / "plan.html"
    ended = recap("plan", config, "--command", "evaluate", "--html", file)
    assert ended.code == ExitCode.MISSING
    shown = parse(file.read_text(encoding="utf-8"))
    assert ended.out.splitlines()[1] == shown.all("p")[0].text


def test_neither_control_characters_nor_secrets_reach_a_terminal(monkeypatch):
    monkeypatch.setenv("SOME_TOKEN", "abcdefghijklmnop")
    shown = page(plan(Check("data", "\x1b[2J abcdefghijklmnop")), 80, False)
    assert "\x1b" not in shown
    assert "abcdefghijklmnop" not in shown
