"""Prompts in, an answer to each out, or why there is none: one prompt that breaks the engine costs no other its answer.

Knows nothing of conversations.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from job.config.sections import GenerationSection
from job.errors import ConfigError, RecapError, RetryError, unwritable
from job.inference.engine import Engine, Generated

# What libraries raise where a model cannot be run; of anything else on a greeting, recap is to blame.
OF_LIBRARIES = (RuntimeError, ValueError, IndexError, ArithmeticError)

# What it means when the model fails on whatever it is given, by the name of the error, and what to do.
REMEDIES = {
    "FloatingPointError": "model.dtype: the base cannot compute in it",
    "OutOfMemoryError": "generation: one conversation alone does not fit into memory; lower "
    "generation.max_input_tokens or max_new_tokens, set model.quantization: nf4-double, or take a larger GPU",
}

Done = Callable[[int], None]


@dataclass(frozen=True)
class Failure:
    """Why there is no answer: the error's name and words, not the error, which would hold the batch in memory."""

    name: str
    detail: str

    def __str__(self) -> str:
        return f"{self.name}: {self.detail}"


def generate_each(
    engine: Engine, prompts: Sequence[list[int]], settings: GenerationSection, on_done: Done
) -> list[Generated | Failure]:
    """An answer to each prompt, or why there is none: prompts that fail together are halved until one fails alone.

    What recap itself raises, and a disk that is full, are about no prompt.
    """
    told = 0

    def tell(count: int) -> None:
        nonlocal told
        told += count
        on_done(count)

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
        *generate_each(engine, prompts[:half], settings, on_done),
        *generate_each(engine, prompts[half:], settings, on_done),
    ]


def check_model(answers: Sequence[Generated | Failure], greet: Callable[[], None], begun: bool) -> None:
    """See that the model is not to blame where no prompt got an answer: `greet` has it answer a greeting.

    ConfigError if it cannot, or failed by an error that only a config explains; RetryError if it could before
    (`begun`); what recap's own mistakes raise.
    """
    failures = [answer for answer in answers if isinstance(answer, Failure)]
    if not failures or len(failures) < len(answers):
        return
    is_one = len({failure.name for failure in failures}) == 1
    remedy = REMEDIES.get(failures[0].name) if is_one and not begun else None
    try:
        if remedy is None:
            greet()
            return
    except OF_LIBRARIES as error:
        if begun:
            raise RetryError(f"the model answered before, and now fails on a greeting ({error}): run again") from error
    raise ConfigError(
        f"{remedy or 'model: it cannot be run as configured'}. It failed on each of the first {len(failures)} "
        f"conversations ({failures[0]})"
    )
