"""A plan: named checks, each with a result or an error."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Literal, TypeVar

from job.errors import DataError, RecapError
from job.printable import number_of

Value = TypeVar("Value", covariant=True)

Facts = Mapping[str, Any]
EXAMPLE = "example"  # name of the check that quotes a conversation

INDENT = 16  # of the lines of a check, below its name
WARNING = "warning: "  # begins a line of a check that a person should read

State = Literal["error", "warning", "unknown", "estimate", "well"]
MARKS: Mapping[State, str] = {
    "error": "✗",
    "warning": "!",
    "unknown": "–",
    "estimate": "~",
    "well": "✓",
}

MIN_REPETITION = 60  # characters; shorter ends of errors may stay

# Errors that name one of these keys need no other key before them.
NAMED_KEYS = (
    "model",
    "prompt.",
    "lora",
    "training.",
    "generation.",
    "publish.",
    "tensor_parallel",
)


@dataclass(frozen=True)
class Found(Generic[Value]):
    """The answer to a question: a text of one line or more, and the value for later questions.

    Some answers are that nothing is known, as another check has failed. `facts` are its numbers, as
    JSON types. With `error`, the run would end with it, and the text has what was found besides.
    """

    text: str
    value: Value
    is_known: bool = True
    facts: Facts = field(default_factory=dict)
    error: RecapError | None = None


@dataclass(frozen=True)
class Check:
    """A named check of a plan, its result as text, and the error if it failed."""

    name: str
    found: str
    error: RecapError | None = None
    is_known: bool = True
    facts: Facts = field(default_factory=dict)
    is_estimate: bool = False

    @property
    def state(self) -> State:
        """Its result in one word. A line that warns makes it a warning."""
        if self.error:
            return "error"
        if self.warnings():
            return "warning"
        if not self.is_known:
            return "unknown"
        return "estimate" if self.is_estimate else "well"

    @property
    def mark(self) -> str:
        """The sign of its state: a cross for an error, a tick for what was found to be well."""
        return MARKS[self.state]

    def warnings(self) -> list[str]:
        """Return the lines that warn of something."""
        return [line for line in self.found.splitlines() if line.startswith(WARNING)]

    def report(self) -> dict[str, Any]:
        """Return the check as JSON types."""
        report: dict[str, Any] = {"name": self.name, "state": self.state, "text": self.found}
        report["warnings"] = [line.removeprefix(WARNING) for line in self.warnings()]
        if self.error:
            report["exit_code"] = int(self.error.exit_code)
        return report | {"facts": self.facts}


def check(name: str, question: Callable[[], str], key: str | None = None) -> Check:
    """Ask, and return the answer. A RecapError becomes the answer: a plan lists all of them.

    `key` is the key of the config that the question is about.
    """
    return check_value(name, lambda: Found(question(), None), key)[0]


def check_value(
    name: str, question: Callable[[], Found[Value]], key: str | None = None
) -> tuple[Check, Value | None]:
    """Ask as `check` does; return the check with the value that was found, None if it failed."""
    try:
        found = question()
    except RecapError as error:
        named = _with_key(error, key)
        return Check(name, str(named), named), None
    text = f"{found.error}\n{found.text}" if found.error else found.text
    return Check(name, text, found.error, found.is_known, found.facts), found.value


def _with_key(error: RecapError, key: str | None) -> RecapError:
    """Return the error with the config's key before its text, unless the text names its own."""
    # An error in the data names a file and a line.
    if key is None or isinstance(error, DataError):
        return error
    if str(error).startswith((key, *NAMED_KEYS)):
        return error
    return type(error)(f"{key}: {error}")


@dataclass(frozen=True)
class Plan:
    """The checks of a run that has not started, as the report for a user.

    `config` is the resolved YAML, and `story` the earlier attempts of this run, a line each. If
    `done`, the run `run` has finished and nothing is left to do. `chunks` is the number of chunks
    of a night: more workers than that would find nothing to do. `not_passed` is the error of a
    finished run whose adapter did not pass its gate.
    """

    title: str
    checks: Sequence[Check]
    config: str
    run: str
    done: bool = False
    story: Sequence[str] = ()
    chunks: int | None = None
    not_passed: RecapError | None = None

    @property
    def error(self) -> RecapError | None:
        """The first error of the checks; of a finished run, that its adapter did not pass."""
        if self.done:
            return self.not_passed
        for found in self.checks:
            if found.error:
                return found.error
        return None

    @property
    def errors(self) -> RecapError | None:
        """The first error, with those of the other checks as lines below it."""
        first = self.error
        if first is None or self.done:
            return first
        lines = [str(first)]
        for found, text in self._without_repetition():
            if found.error not in (None, first):
                lines.append(f"also: {text}")
        return type(first)("\n".join(lines))

    def verdict(self) -> str:
        """Return one line: how the run would end, by what is known, and what to read."""
        errors = sum(found.error is not None for found in self.checks)
        warnings = sum(len(found.warnings()) for found in self.checks)
        unknown = sum(found.state == "unknown" for found in self.checks)
        rest = number_of(warnings, "warning", "warnings")
        if unknown:
            rest += f", {unknown} not checked"
        if self.done:
            return f"it is done; {rest}"
        if self.error:
            ends = f"it would end with {int(self.error.exit_code)}"
            return f"{ends}: {number_of(errors, 'error', 'errors')}, {rest}"
        return f"nothing found that would end it; {rest}"

    def sections(self) -> list[tuple[Check, str]]:
        """Return each check with its text: that of `errors`, without the name of the check."""
        return [
            (found, text.removeprefix(f"{found.name}: "))
            for found, text in self._without_repetition()
        ]

    def _without_repetition(self) -> list[tuple[Check, str]]:
        """Return each check with its text, without the causes that an earlier error has named."""
        sections = []
        told: list[str] = []
        for found in self.checks:
            text = found.found
            if found.error:
                text = _without_repetition(text, told)
                told.append(found.found)
            sections.append((found, text))
        return sections

    def findings(self) -> str:
        """Return title, verdict, and a paragraph for each check."""
        lines = [self.title, self.verdict(), ""]
        for found, text in self.sections():
            indent = "\n" + " " * INDENT
            text = text.replace("\n", indent)
            head = f"  {found.mark} {found.name}"
            # A long name has a line of its own.
            head = head.ljust(INDENT) if len(head) < INDENT else head + indent
            lines.append(head + text)
        return "\n".join(lines)

    def without_example(self) -> "Plan":
        """Return the plan without the check that quotes a conversation, for logs and files."""
        return replace(self, checks=[each for each in self.checks if each.name != EXAMPLE])

    def report(self) -> dict[str, Any]:
        """Return the plan as JSON types. `config` is the resolved one, in YAML."""
        return {
            "title": self.title,
            "run": self.run,
            "done": self.done,
            "exit_code": int(self.error.exit_code) if self.error else 0,
            "story": list(self.story),
            "checks": [each.report() for each in self.checks],
            "config": self.config,
        }

    def text(self) -> str:
        """Return the findings and, unless there is an error, the config with every default."""
        if self.error:
            return f"{self.findings()}\n"
        config = "".join(f"  {line}\n" for line in self.config.splitlines())
        return "\n".join([self.findings(), "", "The config, with every default:", "", config])


def _without_repetition(text: str, told: Sequence[str]) -> str:
    """Return an error without the cause and remedy that an earlier one had too.

    Missing credentials are the same error for each place.
    """
    start = text.find(": ")
    while 0 <= start < len(text) - MIN_REPETITION:
        if any(earlier.endswith(text[start:]) for earlier in told):
            return f"{text[:start]}: as above"
        start = text.find(": ", start + 1)
    return text
