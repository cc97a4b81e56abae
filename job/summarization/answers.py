"""Decide by a greeting whether the model is to blame where prompts got no answer.

Knows nothing of conversations.
"""

from collections.abc import Callable, Sequence

from job.errors import ConfigError, RecapError, RetryError, unwritable
from job.inference.each import Failure
from job.inference.engine import Generated

# What libraries raise where a model cannot be run; of anything else on a greeting, recap is to blame.
OF_LIBRARIES = (RuntimeError, ValueError, IndexError, ArithmeticError, MemoryError, OSError)
CANNOT_RUN = "model: it cannot be run as configured"

# What it means when the model fails on whatever it is given, by the name of the error, and what to do.
REMEDIES = {
    "FloatingPointError": "model.dtype: the base cannot compute in it",
    "OutOfMemoryError": "generation: one conversation alone does not fit into memory; lower "
    "generation.max_input_tokens or max_new_tokens, set model.quantization: nf4-double, or take a larger GPU",
}


def check_model(
    answers: Sequence[Generated | Failure], greet: Callable[[], None], has_answered: bool
) -> None:
    """See that the model is not to blame where a prompt got no answer: it must answer a greeting.

    ConfigError also where all failed by an error that only a config explains. `has_answered`: it did before.
    """
    failures = [answer for answer in answers if isinstance(answer, Failure)]
    if not failures:
        return
    has_answered = has_answered or len(failures) < len(answers)
    remedy = (
        REMEDIES.get(failures[0].name) if len({failure.name for failure in failures}) == 1 else None
    )
    said = f"It failed on each of the first {len(failures)} conversations ({failures[0]})"
    if remedy and len(failures) > 1 and not has_answered:
        raise ConfigError(f"{remedy}. {said}")
    see_it_work(greet, has_answered, f"{remedy or CANNOT_RUN}. {said}")


def see_it_work(
    greet: Callable[[], None], has_answered: bool, else_said: str = f"{CANNOT_RUN}. It fails"
) -> None:
    """Have the model answer a greeting. Where it cannot: RetryError if it has answered before; else ConfigError, unless
    the error is recap's own mistake.
    """
    try:
        greet()
    except RecapError:
        raise
    except Exception as error:
        if unwritable(error):
            raise
        failed = f"{type(error).__name__}: {error}"
        if has_answered:
            raise RetryError(
                f"the model answered before, and now fails on a greeting ({failed}): run again"
            ) from error
        if isinstance(error, OF_LIBRARIES):
            raise ConfigError(f"{else_said}, and on a greeting ({failed})") from error
        raise
