"""A gate's result as one screen for the terminal: verdict, a line for each check, what to do."""

import shlex
from collections.abc import Mapping
from textwrap import wrap
from typing import Any

from job.config.gate_sections import MIN_CONVERSATIONS
from job.errors import GateError
from job.evaluation.gate import Check, GateResult
from job.evaluation.result import shorten, signed
from job.evaluation.systems import GIVEN
from job.evaluation.win_rate import HALF

MAX_COLUMNS = 100
NAME_COLUMNS = 47
MARKS = {True: "✓", False: "✗", None: "–"}


def screen_or_raise(gate: Mapping[str, Any], adapter: str, pointer: str | None) -> str:
    """Return the screen of a recorded result; raise GateError with it if it did not pass."""
    result = GateResult.from_json(gate)
    screen = gate_screen(result, adapter, pointer)
    if not result.passed:
        raise GateError(screen)
    return screen


def gate_screen(result: GateResult, adapter: str, pointer: str | None) -> str:
    """Return the screen, in plain text of at most 100 columns beside a command to copy.

    `adapter` is where the judged adapter is, `pointer` that of the champion.
    """
    # All lines but the first are indented, since an error is printed so.
    lines = [*wrap(f"{result.verdict()}.", MAX_COLUMNS, subsequent_indent="  "), ""]
    if result.checks:
        lines += [f"     {'gain':>{NAME_COLUMNS + 7}}  95% interval      must be", ""]
        for check in result.checks:
            lines += _lines(check)
        lines.append("")
    if not result.passed:
        lines.append("  What serves is unchanged. What to do:")
        for text in _remedies(result, adapter):
            lines += wrap(
                f"- {text}",
                MAX_COLUMNS,
                initial_indent="  ",
                subsequent_indent="    ",
                break_long_words=False,
                break_on_hyphens=False,
            )
        if pointer is not None and not is_refused(result):
            lines.append("  - If it should serve in spite of this, a person decides:")
            lines.append(f"      {shlex.join(['recap', 'champion', 'set', pointer, adapter])}")
    return "\n".join(lines)


def is_refused(result: GateResult) -> bool:
    """Return True if others could not load the adapter, or loaded another than was scored."""
    return any(check.rule == "refused" for check in result.failures)


def _lines(check: Check) -> list[str]:
    """Return the line of a check, and its reason below if it has no numbers."""
    name = shorten(check.name, NAME_COLUMNS)
    title = f"  {MARKS[check.passed]}  {name:{NAME_COLUMNS}}"
    if check.value is None:
        reason = check.sentence.removeprefix(f"{check.name}: ")
        indent = " " * 5
        return [title.rstrip(), *wrap(reason, MAX_COLUMNS, initial_indent=indent,
                                      subsequent_indent=indent)]  # fmt: skip
    assert check.low is not None
    assert check.high is not None
    # A win rate is no gain, and has no sign.
    number = "{:.3f}".format if check.rule == "win rate" else signed
    bounds = f"[{number(check.low)}, {number(check.high)}]"
    return [f"{title}{number(check.value):>7}  {bounds:16}  {_demand(check)}"]


def _demand(check: Check) -> str:
    """Return where the interval must be, or of a guard the mean."""
    if check.rule == "win rate":
        return f"above {HALF - check.margin:g}"
    if check.rule == "better":
        return "above 0"
    limit = f"-{check.margin:.3g}" if check.margin else "0"
    return f"mean from {limit}" if check.rule == "guard" else f"from {limit}"


def _remedies(result: GateResult, adapter: str) -> list[str]:
    """Return what a person can do now, most likely first."""
    if is_refused(result):
        return [
            "Let it not serve: what is in storage is not what was scored, or only recap can load "
            "it. That is a bug in recap or in a library: please report it with the log above."
        ]
    found = []
    rules = {check.rule for check in result.failures}
    if result.reason is not None and not result.checks:
        found.append(
            "Score it where it can be served, as in the image of nights: `recap evaluate` or "
            f"`recap submit` with adapter: {adapter} and the same section publish."
        )
    if result.failures and result.conversations < MIN_CONVERSATIONS:
        found.append(
            f"Give more conversations with references: fewer than {MIN_CONVERSATIONS} never pass."
        )
    elif any(_is_unclear(check) for check in result.failures):
        found.append(
            "More conversations make the intervals narrower: raise evaluation.max_conversations, "
            "or add test data."
        )
    if rules & {"win rate", "agreement"}:
        found.append(
            "Agents would not have kept its summaries: train on more of their edits, or start from "
            "the champion. Few pairs, or edits that contradict each other, show nobody as better."
        )
    if rules & {"better", "no worse", "older set"}:
        found.append(
            "The report has examples of what the author of the summaries could do better."
            if result.judged == GIVEN
            else "Train longer, or on more or better references; the report has examples."
        )
    if "reload" in rules:
        found.append(
            "Run the training again where the adapter can be loaded once more, or with "
            "publish.verify: false. It is not trained again, and judged as it is in storage."
        )
    guards = [check for check in result.failures if check.rule == "guard"]
    if any(check.value is not None for check in guards):
        found.append("Read the summaries that a guard counts: the report lists the worst.")
    if any(check.value is None for check in guards):
        found.append("Remove a guard that cannot be used here from publish.gate.guards.")
    return found


def _is_unclear(check: Check) -> bool:
    """Return True if the interval of a failed comparison reaches to both sides of its limit."""
    if check.rule == "guard" or check.high is None:
        return False
    if check.rule == "win rate":
        return check.high > HALF - check.margin
    return check.high > (0 if check.rule == "better" else -check.margin)
