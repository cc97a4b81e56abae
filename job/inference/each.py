"""Generate an answer to each prompt: one that breaks the engine costs no other its answer."""

import re
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from job.config.sections import GenerationSection
from job.conversations.record import Source
from job.errors import ConfigError, RecapError, is_out_of_memory, unwritable
from job.inference.engine import Engine, Generated
from job.printable import entry
from job.telemetry import warn

# The names of a failure for want of memory: of a GPU, whatever class reported it, and of the host.
OUT_OF_MEMORY = ("OutOfMemoryError", "MemoryError")
MAX_LOGGED_ERRORS = 20  # distinct ones in the log of a process
_LOGGED: set[str] = set()

Done = Callable[[int], None]


@dataclass(frozen=True)
class Failure:
    """The reason why a prompt has no answer: the error's class and text.

    Not the error itself: its traceback would hold the batch's tensors in memory.
    """

    name: str
    detail: str

    @classmethod
    def of(cls, error: Exception) -> "Failure":
        """Return the failure of a prompt that raised this error."""
        name = type(error).__name__
        if is_out_of_memory(error) and name not in OUT_OF_MEMORY:
            name = OUT_OF_MEMORY[0]
        return cls(name, str(error))

    def __str__(self) -> str:
        return f"{self.name}: {self.detail}"


def generate_each(
    engine: Engine,
    prompts: Sequence[list[int]],
    settings: GenerationSection,
    on_done: Done,
    on_answer: Callable[[], None] = lambda: None,
) -> list[Generated | Failure]:
    """Return an answer to each prompt, or the reason why it has none.

    Prompts that fail together are halved until one fails alone. Each distinct error is logged once,
    with its traceback. `on_done` is called with the number of prompts finished since the last call,
    a negative one if some start over. `on_answer` is
    called whenever the engine has answered a prompt, even if the answer is discarded because
    others of its call fail. Raise what recap itself raises, and the error of a full disk: neither
    is about a prompt.
    """
    reported = 0

    def report(count: int) -> None:
        nonlocal reported
        reported += count
        on_done(count)
        on_answer()

    try:
        return list(engine.generate(prompts, settings, report))
    except Exception as error:
        if isinstance(error, RecapError) or unwritable(error):
            raise
        log_once(error, len(prompts))
        if len(prompts) == 1:
            on_done(1 - reported)
            return [Failure.of(error)]

    # Outside of the handler: only here are the batch's tensors free, for the halves to use.
    on_done(-reported)
    half = len(prompts) // 2
    return [
        *generate_each(engine, prompts[:half], settings, on_done, on_answer),
        *generate_each(engine, prompts[half:], settings, on_done, on_answer),
    ]


def log_once(error: Exception, prompts: int) -> None:
    """Log an error that a call of the engine ended with, unless one like it was logged before.

    A batch that fails for a reason that is not its prompts' would else be halved down in silence,
    and a night take many times as long. Errors that differ in numbers alone are alike.
    """
    kind = f"{type(error).__name__}: {re.sub('[0-9]+', '0', str(error))}"
    if kind in _LOGGED or len(_LOGGED) >= MAX_LOGGED_ERRORS:
        return
    _LOGGED.add(kind)
    print(entry("".join(traceback.format_exception(error))), file=sys.stderr)
    consequence = "its halves are generated apart" if prompts > 1 else "it gets no answer"
    what = "a batch failed" if prompts > 1 else "a prompt failed"
    warn(f"{what}: {consequence}", prompts=prompts, error=f"{type(error).__name__}: {error}")


class OneByOne:
    """Asks an engine for scores: a prompt that breaks it costs no other its answer.

    If it answers none of the first call, the model is to blame, or the config.
    """

    def __init__(self, engine: Engine, settings: GenerationSection) -> None:
        self._engine = engine
        self._settings = settings
        self._has_answered = False

    def generate(
        self, prompts: Sequence[list[int]], _sources: Sequence[Source], on_done: Done
    ) -> list[Generated | Failure]:
        """Return an answer to each prompt, in order, or the reason why it has none.

        Raise ConfigError if every prompt of the first call fails; FloatingPointError, as engines
        do, if NaN is why.
        """
        answers = generate_each(self._engine, prompts, self._settings, on_done)
        failures = [answer for answer in answers if isinstance(answer, Failure)]
        if len(failures) < len(answers):
            self._has_answered = True
        if failures and not self._has_answered:
            if failures[0].name == FloatingPointError.__name__:
                raise FloatingPointError(failures[0].detail)
            is_memory = failures[0].name in OUT_OF_MEMORY
            raise ConfigError(
                f"model: it answered none of {len(answers)} prompts (the first: "
                f"{failures[0]}); correct model, or generation where it does not fit into memory"
            ) from (MemoryError(failures[0].detail) if is_memory else None)
        return answers
