"""Find the cause of an error that a library raised: the config, the base, memory, or a bug.

Until the first optimizer step, libraries fail for what a config or a base did: an adapter that does
not fit, a family that a library does not know. Which of recap's keys it was, the library whose code
raised the error says. What recap's own code raises is a bug, and so is a failure after a step,
since the step went well.
"""

import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import job
from job.errors import ConfigError, RecapError, is_out_of_memory, shortened, unwritable
from job.printable import entry

OWN = str(Path(job.__file__).parent)

# By a part of the path of the code that raised the error: the key of the config to look at, and
# the library. The first that fits; code of a base has a folder of its own in the Hub's cache.
LIBRARIES = (
    ("/peft/", "lora", "peft"),
    ("/bitsandbytes/", "model.quantization", "bitsandbytes"),
    ("/transformers/models/", "model.base", "transformers"),
    ("/transformers/integrations/", "model.base", "transformers"),
    ("/transformers_modules/", "model.base", "its own code"),
    ("/transformers/", "training", "transformers"),
    ("/trl/", "training", "trl"),
    ("/accelerate/", "training", "accelerate"),
)


MAX_CHARACTERS = 400  # of a library's text in an error; the log has all of it


@dataclass(frozen=True)
class Phase:
    """A part of a training, by what it does, and the remedy if memory runs out in it."""

    doing: str
    more_memory: str


READING = Phase(
    "reading and encoding the conversations",
    "take a machine with more memory, or fewer conversations",
)
BUILDING = Phase(
    "adding the adapter",
    "lower lora.r, or take a smaller base or a larger GPU; a smaller batch_size does not help",
)
STEPPING = Phase(
    "computing a training step",
    "lower training.batch_size (and raise gradient_accumulation_steps), lower "
    "training.max_tokens, or set training.activation_checkpointing: true",
)
EVALUATING = Phase(
    "computing the validation loss",
    "lower training.batch_size or training.max_tokens; a single process makes smaller batches by "
    "itself",
)
PUBLISHING = Phase(
    "writing the adapter",
    "all steps are done: run the same command again on a machine with more memory, and it goes on "
    "with its last checkpoint",
)


@contextmanager
def explaining(phase: Phase) -> Iterator[None]:
    """Raise ConfigError with the phase's remedy if memory runs out in the block."""
    try:
        yield
    except Exception as error:
        if isinstance(error, RecapError) or not is_out_of_memory(error):
            raise
        _log(error)
        why = shortened(error, MAX_CHARACTERS)
        raise ConfigError(
            f"memory ran out while {phase.doing} ({why}): {phase.more_memory}"
        ) from error


@contextmanager
def blaming_the_config(has_begun: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """Raise ConfigError with the key to look at if a library fails in the block.

    Once an optimizer step is done, `has_begun` returns True, and nothing is blamed any more. The
    library's own text is in the error, and its traceback in the log.
    """
    try:
        yield
    except Exception as error:
        found = _library_of(error)
        is_known = isinstance(error, RecapError) or is_out_of_memory(error) or unwritable(error)
        if is_known or found is None or has_begun():
            raise
        key, library = found
        _log(error)
        why = shortened(error, MAX_CHARACTERS)
        raise ConfigError(
            f"{key}: this base cannot be trained with this config; {library}: {why}"
        ) from error


def _library_of(error: BaseException) -> tuple[str, str] | None:
    """Return the key and the library of the innermost code with a name in LIBRARIES.

    Return None if recap's own code is further inside: then the error is recap's.
    """
    files = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    for file in reversed(files):
        if file.startswith(OWN):
            return None
        for part, key, library in LIBRARIES:
            if part in file:
                return key, library
    return None


def _log(error: BaseException) -> None:
    print(entry("".join(traceback.format_exception(error))), file=sys.stderr)
