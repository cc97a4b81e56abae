"""Prompts in, an answer to each out: one prompt that breaks the engine costs no other its answer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from job.config.sections import GenerationSection
from job.errors import ConfigError, RecapError, unwritable
from job.inference.engine import Engine, Generated
from job.telemetry import warn

EMPTY = Generated("", 0, "stop")
Done = Callable[[int], None]


@dataclass(frozen=True)
class Failure:
    """The reason for no answer: the error's name and words.

    The error itself would hold the batch in memory.
    """

    name: str
    detail: str

    def __str__(self) -> str:
        return f"{self.name}: {self.detail}"


def generate_each(
    engine: Engine,
    prompts: Sequence[list[int]],
    settings: GenerationSection,
    on_done: Done,
    on_answer: Callable[[], None] = lambda: None,
) -> list[Generated | Failure]:
    """Return an answer to each prompt, or why there is none.

    Prompts that fail together are halved until one fails alone. `on_answer` is called for each answer
    of the engine, whatever becomes of the prompts beside it. Raises what recap itself raises, and
    the error of a full disk: they are about no prompt.
    """
    told = 0

    def tell(count: int) -> None:
        nonlocal told
        told += count
        on_done(count)
        on_answer()

    try:
        return list(engine.generate(prompts, settings, tell))
    except Exception as error:
        if isinstance(error, RecapError) or unwritable(error):
            raise
        if len(prompts) == 1:
            on_done(1 - told)
            return [Failure(type(error).__name__, str(error))]
    on_done(-told)  # they are generated again
    half = len(prompts) // 2
    return [
        *generate_each(engine, prompts[:half], settings, on_done, on_answer),
        *generate_each(engine, prompts[half:], settings, on_done, on_answer),
    ]


class OneByOne:
    """An engine whose failure on one prompt costs the others nothing: that one is answered without text."""

    prompts_ahead = 0

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.context_tokens = engine.context_tokens

    def generate(
        self,
        prompts: Sequence[list[int]],
        settings: GenerationSection,
        on_done: Callable[[int], None] | None = None,
    ) -> list[Generated]:
        """Return the answers in the order of `prompts`.

        Raise ConfigError where every one fails; FloatingPointError where that is for NaN, as engines do.
        """
        answers = generate_each(self._engine, prompts, settings, on_done or (lambda _: None))
        failures = [answer for answer in answers if isinstance(answer, Failure)]
        if failures and len(failures) == len(answers):
            if failures[0].name == FloatingPointError.__name__:
                raise FloatingPointError(failures[0].detail)
            raise ConfigError(
                f"model: it summarized none of {len(answers)} conversations (the first: {failures[0]}); "
                "correct model, or generation where it does not fit into memory"
            )
        if failures:
            warn("not summarized: scored as empty", summaries=len(failures), first=str(failures[0]))
        return [answer if isinstance(answer, Generated) else EMPTY for answer in answers]

    def expect(self, prompts: Sequence[list[int]], settings: GenerationSection) -> None:
        """Do nothing: no call comes ahead of another."""
