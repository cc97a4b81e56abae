"""Draw a plan for a terminal: a verdict, a section for each check, and the config without errors.

Lines are wrapped at words under the start of their section. Those of the config stay whole: they
may be copied.
"""

import textwrap
from collections.abc import Mapping
from typing import Literal

from job.preflight.checks import INDENT, WARNING, Check, Plan, State
from job.printable import printable

MIN_WIDTH = 40
MAX_WIDTH = 120  # longer lines are hard to read

Style = Literal["strong", "good", "bad", "doubtful"]
CODES: Mapping[Style, str] = {"strong": "1", "good": "32", "bad": "31", "doubtful": "33"}
OF_STATE: Mapping[State, Style] = {
    "error": "bad",
    "warning": "doubtful",
    "unknown": "doubtful",
    "estimate": "strong",
    "well": "good",
}


def has_colors(environment: Mapping[str, str]) -> bool:
    """Return True unless the user asks for none, by https://no-color.org or a dumb terminal."""
    return not environment.get("NO_COLOR") and environment.get("TERM") != "dumb"


def page(plan: Plan, columns: int, colored: bool) -> str:
    """Return the plan without secrets, its findings as lines of at most `columns` characters."""
    width = max(MIN_WIDTH, min(columns, MAX_WIDTH))
    lines = [
        _styled(printable(plan.title), "strong", colored),
        _styled(plan.verdict(), "bad" if plan.error else "good", colored),
    ]
    previous_is_long = True
    for found, text in plan.sections():
        section = _section(found, printable(text), width, colored)
        is_long = len(section) > 1
        if is_long or previous_is_long:
            lines.append("")
        lines += section
        previous_is_long = is_long
    if not plan.error:
        lines += ["", _styled("The config, with every default:", "strong", colored), ""]
        lines += [f"  {line}" for line in printable(plan.config).splitlines()]
    return "\n".join(lines)


def _section(found: Check, text: str, width: int, colored: bool) -> list[str]:
    """Return the lines of a check, the first with its mark and name."""
    lines: list[str] = []
    for paragraph in text.split("\n"):
        is_warning = paragraph.startswith(WARNING)
        for line in _wrapped(paragraph, width - INDENT):
            lines.append(_styled(line, "doubtful", colored) if is_warning else line)

    mark = _styled(found.mark, OF_STATE[found.state], colored)
    head = f"  {mark} {_styled(found.name, 'strong', colored)}"
    indent = " " * INDENT
    room = INDENT - len(f"  {found.mark} {found.name}")
    if room < 1:  # a long name has a line of its own
        return [head, *(indent + line for line in lines)]
    return [head + " " * room + lines[0], *(indent + line for line in lines[1:])]


def _wrapped(paragraph: str, width: int) -> list[str]:
    """Return a paragraph as lines. Columns of a table, and paths that are too long, stay whole."""
    indent = "" if len(paragraph) <= width else "  "
    wrapped = textwrap.wrap(
        paragraph,
        width,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
        replace_whitespace=False,
    )
    return wrapped or [""]


def _styled(text: str, style: Style, colored: bool) -> str:
    return f"\x1b[{CODES[style]}m{text}\x1b[0m" if colored and text else text
