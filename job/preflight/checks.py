"""A plan: named checks, each with a result or an error."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from job.errors import DataError, RecapError

Value = TypeVar("Value", covariant=True)

# Errors that name one of these keys need no other key before them.
NAMED_KEYS = ("model", "prompt.", "lora", "training.")


@dataclass(frozen=True)
class Found(Generic[Value]):
    """The answer to a question: a text of one line or more, and the value for later questions."""

    text: str
    value: Value


@dataclass(frozen=True)
class Check:
    """A named check of a plan, its result as text, and the error if it failed."""

    name: str
    found: str
    error: RecapError | None = None


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
    return Check(name, found.text), found.value


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
    of a night: more workers than that would find nothing to do.
    """

    title: str
    checks: Sequence[Check]
    config: str
    run: str
    done: bool = False
    story: Sequence[str] = ()
    chunks: int | None = None

    @property
    def error(self) -> RecapError | None:
        """The first error of the checks; None if the run has finished."""
        if self.done:
            return None
        for found in self.checks:
            if found.error:
                return found.error
        return None

    def findings(self) -> str:
        """Return the title and a paragraph for each check."""
        lines = [self.title, ""]
        for found in self.checks:
            mark = "✗" if found.error else "✓"
            text = found.found.replace("\n", "\n" + " " * 16)
            lines.append(f"  {mark} {found.name:12}{text}")
        return "\n".join(lines)

    def text(self) -> str:
        """Return the findings, followed by the config with every default."""
        config = "".join(f"  {line}\n" for line in self.config.splitlines())
        return "\n".join([self.findings(), "", "The config, with every default:", "", config])
