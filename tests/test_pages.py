"""Claims about every page: its links lead somewhere, and its commands exist with their options."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import click
import pytest

from job.cli import recap
from job.conversations.record import RejectReason
from job.errors import ExitCode

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "infra/**/*.md", "examples/**/*.md")
    for path in ROOT.glob(pattern)
)
EXAMPLES = sorted(ROOT.glob("examples/*.yaml"))
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))

BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`([^`]+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
OUTSIDE = ("http://", "https://", "mailto:")


def shown(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def prose(path: Path) -> str:
    """The page without its code blocks."""
    return BLOCK.sub("", path.read_text("utf-8"))


# Lines

MAX_COLUMNS = 100


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_lines_of_prose_fit_the_columns(page):
    """Tables, headings, code and links may be longer: they cannot be wrapped."""
    free = ("|", "#", "    ")
    lines = [line for line in prose(page).splitlines() if not line.startswith(free)]
    assert not [line for line in lines if len(LINK.sub("", line)) > MAX_COLUMNS]


# Links


def anchors(path: Path) -> set[str]:
    """The anchors of a page: those that GitHub makes of headings, and those set by hand."""
    text = prose(path)
    found = set(re.findall(r'<a id="([^"]+)">', text))
    for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE):
        words = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
        anchor = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")

        # GitHub numbers a heading that repeats an earlier one.
        number = 1
        unique = anchor
        while unique in found:
            unique = f"{anchor}-{number}"
            number += 1
        found.add(unique)
    return found


def is_dead(page: Path, link: str) -> bool:
    name, _, anchor = link.partition("#")
    target = (page.parent / name).resolve() if name else page
    if not target.exists() or not target.is_relative_to(ROOT):
        return True
    return bool(anchor) and anchor not in anchors(target)


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_every_link_of_a_page_leads_somewhere(page):
    links = LINK.findall(CODE.sub("", prose(page)))
    dead = [link for link in links if not link.startswith(OUTSIDE) and is_dead(page, link)]
    assert not dead


def test_a_dead_link_is_noticed():
    page = ROOT / "README.md"
    assert not is_dead(page, "docs/outputs.md#recap-summarize-under-output")
    assert not is_dead(page, "#commands")
    assert is_dead(page, "docs/no-such-page.md")
    assert is_dead(page, "docs/outputs.md#no-such-heading")
    assert is_dead(page, "../outside.md")


# Facts of the code


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_every_python_file_that_a_page_names_exists(page):
    names = re.findall(r"`([\w/]+/\w+\.py)`", prose(page))
    folders = (ROOT, ROOT / "job", page.parent)
    missing = [name for name in names if not any((place / name).exists() for place in folders)]
    assert not missing


def test_the_outputs_page_names_every_reason_of_a_reject():
    page = prose(ROOT / "docs" / "outputs.md")
    section = page.partition("### Reasons of rejects\n")[2].partition("\n### ")[0]
    reasons = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
    assert sorted(reasons) == sorted(get_args(RejectReason))


@pytest.mark.parametrize("name", ["README.md", "docs/operations.md"])
def test_a_page_with_exit_codes_names_every_exit_code(name):
    rows = re.findall(r"^\| (\d[\d, ]*) \|", (ROOT / name).read_text("utf-8"), re.MULTILINE)
    codes = {int(code) for row in rows for code in row.split(",")}
    assert codes >= set(ExitCode)


# Commands


def command_lines(path: Path) -> list[str]:
    """Every line of a shell block, and every piece of code in a sentence."""
    text = path.read_text("utf-8")
    if path.suffix == ".yaml":
        return re.findall(r"^#\s+((?:recap|make) .*)$", text, re.MULTILINE)
    lines: list[str] = []
    for language, block in BLOCK.findall(text):
        if language in ("sh", "bash"):
            lines += block.replace("\\\n", " ").splitlines()
    for code in CODE.findall(prose(path)):
        lines.append(" ".join(code.replace("\\|", "|").split()))
    return lines


def commands(path: Path) -> Iterator[list[str]]:
    """The words of each `recap` and `make` command that a page shows."""
    for line in command_lines(path):
        for part in re.split(r"&&|;", line):
            if not re.match(r"\s*(\w+=\S+\s+)*(\.venv/bin/)?(recap|make)\s", part):
                continue
            words = shlex.split(part, comments=True)
            while "=" in words[0]:
                words.pop(0)
            yield [Path(words[0]).name, *words[1:]]


def problem_of(words: list[str]) -> str | None:
    """Why there is no such command, or None."""
    if words[0] == "make":
        unknown = [word for word in words[1:] if "=" not in word and word not in TARGETS]
        return f"no target {unknown}" if unknown else None
    command: click.Command = recap
    rest = words[1:]
    while isinstance(command, click.Group) and rest and rest[0][0].islower():
        subcommands = command.commands
        for name in rest.pop(0).split("|"):
            if name not in subcommands:
                return f"no command {name}"
            command = subcommands[name]
    for word in rest:
        if re.match(r"-.", word) and word.partition("=")[0] not in options_of(command):
            return f"no option {word}"
    return None


def options_of(command: click.Command) -> set[str]:
    """The options of a command, or of all commands of a group."""
    options = {"--help"}
    for parameter in command.params:
        options |= {*parameter.opts, *parameter.secondary_opts}
    if isinstance(command, click.Group):
        for subcommand in command.commands.values():
            options |= options_of(subcommand)
    return options


@pytest.mark.parametrize("page", [*PAGES, *EXAMPLES], ids=shown)
def test_every_command_of_a_page_exists(page):
    problems = {}
    for words in commands(page):
        problem = problem_of(words)
        if problem:
            problems[" ".join(words)] = problem
    assert not problems


def test_commands_that_do_not_exist_are_noticed():
    assert problem_of(["recap", "train", "c.yaml", "--dry-run"]) is None
    assert problem_of(["recap", "submit", "aws-batch|docker", "CONFIG"]) is None
    assert problem_of(["recap", "tain", "c.yaml"]) == "no command tain"
    assert problem_of(["recap", "train", "--dry"]) == "no option --dry"
    assert problem_of(["make", "tests"]) == "no target ['tests']"


def test_values_of_commands_in_operations_are_valid():
    submits = [
        words
        for words in commands(ROOT / "docs" / "operations.md")
        if words[:2] == ["recap", "submit"] and words[2:] and not words[2].isupper()
    ]
    assert len(submits) > 5
    submit = recap.commands["submit"]
    assert isinstance(submit, click.Group)
    for words in submits:
        # Raises for an option, or a value of one, that does not exist.
        submit.commands[words[2]].make_context(words[2], words[3:])
