"""The engine of a night. A prompt that breaks it costs no other prompt its answer.

A batch that fails is halved until one prompt fails alone. This does not help if the process is
killed, or if its GPU fails for good: then every later call of that process fails too. So the
prompts of a chunk that ended a process before are generated carefully: in small batches, with a
crash note of the records of each. Records of a batch that ended a process come one by one. A record
that ends processes while it is alone gets no answer.

If prompts get no answer, the model itself may be broken. It must then answer a greeting: if it
cannot, no record is to blame.
"""

import traceback
from collections.abc import Sequence

from job.config.candidates_section import NightGenerationSection
from job.config.sections import LARGEST_SEED, GenerationSection
from job.conversations.record import Conversation, Source, Turn
from job.errors import ConfigError, RecapError, RetryError, unwritable
from job.inference.each import OUT_OF_MEMORY, Done, Failure, generate_each
from job.inference.engine import Generated
from job.summarization.crash_notes import CrashNotes
from job.summarization.summarizer import SummarizerLoader

CAREFUL_BATCH = 32  # prompts
IN_SHADOW = " in shadow"  # after the name of a record in a note

# One crash may be the machine's fault; two while alone in a batch are the record's.
MAX_CRASHES_PER_RECORD = 2
CRASHED = Failure(
    "Broken",
    f"the process, or its GPU, failed on it alone, {MAX_CRASHES_PER_RECORD} times",
)

GREETING = Conversation(
    "greeting",
    (Turn("customer", "Hello"), Turn("agent", "Hello")),
    Source("recap", 1),
)

# Errors of libraries that cannot run a model, and the packages where any error means this. Any
# other error on a greeting is a bug of recap.
LIBRARY_ERRORS = (RuntimeError, ValueError, IndexError, ArithmeticError, MemoryError, OSError)
LIBRARIES = ("torch", "transformers", "transformers_modules", "peft", "bitsandbytes", "vllm")

# So many first conversations that all fail on one error are no coincidence: the model cannot
# summarize, though it may answer a greeting.
MIN_FAILURES_ALIKE = 8
CANNOT_RUN = "model: it cannot be run as configured"
FAILS_AT_ONCE = f"{CANNOT_RUN}. It fails"

# The likely mistake in the config, if the model fails on every prompt with the error of this name.
REMEDIES = {
    "FloatingPointError": "model.dtype: the base cannot compute in it",
    **dict.fromkeys(
        OUT_OF_MEMORY,
        "generation: one conversation alone does not fit into memory; lower "
        "generation.max_input_tokens or max_new_tokens, set model.quantization: nf4-double, or "
        "take a larger machine",
    ),
}


class CarefulEngine:
    """The engine of a worker's summarizer, with its crash notes.

    `has_answered` is True once the model has answered in this night, also in an earlier attempt:
    what fails from then on is no mistake in the config. With `is_careful`, prompts are generated in
    small batches and none is announced ahead, so that every prompt in flight is in a note. Nobody
    waits for an engine in shadow: it gets no greeting, and whatever it fails on is the failure of a
    prompt. Its records have names of their own in notes, since another engine has them, too: one
    that ends processes there does not cost the adapter's line. `settings_of_each` are those of each
    candidate of a summary. `has_scored` is True once the reward model has scored some of them here;
    until then, `unscored` counts the conversations with summaries that it did not score.
    """

    def __init__(
        self,
        loader: SummarizerLoader,
        settings: NightGenerationSection,
        notes: CrashNotes | None = None,
        has_answered: bool = False,
        is_careful: bool = False,
        is_shadow: bool = False,
    ) -> None:
        self.loader = loader
        self.settings = settings
        self.settings_of_each = settings_of_each(settings)
        self.notes = notes or CrashNotes()
        self.has_answered = has_answered
        self.is_careful = is_careful
        self.has_scored = False
        self.unscored = 0
        self._is_shadow = is_shadow

    @property
    def reads_ahead(self) -> bool:
        """True if prompts of later chunks may be in flight: the loaded engine asks for them."""
        is_loaded = self.loader.is_loaded and not self.is_careful
        return is_loaded and self.loader.load().engine.prompts_ahead > 0

    def expect(self, prompts: Sequence[list[int]]) -> int:
        """Announce prompts of later calls, if the engine wants that. Loads the model if needed.

        There is one call for each candidate. Return the number of prompts of later calls that
        should be announced.
        """
        if self.is_careful:
            return 0
        engine = self.loader.load().engine
        if not engine.prompts_ahead:
            return 0
        if len(self.settings_of_each) == 1:
            engine.expect(prompts, self.settings)
            return engine.prompts_ahead
        for prompt in prompts:
            # One after the other, so that all candidates find the prompt in the engine's cache.
            for settings in self.settings_of_each:
                engine.expect([prompt], settings)
        return engine.prompts_ahead

    def generate(
        self,
        prompts: Sequence[list[int]],
        sources: Sequence[Source],
        on_done: Done,
        settings: GenerationSection | None = None,
    ) -> list[Generated | Failure]:
        """Return an answer to each prompt, or why there is none.

        `sources` are those of the records that the prompts are made of, and `settings` those of a
        candidate. Raise ConfigError if the model cannot answer a greeting either, or RetryError if
        it has answered before.
        """
        settings = settings or self.settings
        if not self.is_careful:
            return self._generate(prompts, settings, on_done)

        if not self.has_answered:
            self._check_model_answers(FAILS_AT_ONCE)
            self.has_answered = True

        records = [self.name_in_notes(source) for source in sources]
        crashes = self.notes.crashes
        suspects = [row for row, record in enumerate(records) if record in crashes]
        others = [row for row, record in enumerate(records) if record not in crashes]
        answers: dict[int, Generated | Failure] = {}

        for start in range(0, len(others), CAREFUL_BATCH):
            rows = others[start : start + CAREFUL_BATCH]
            with self.notes.records_in_flight([records[row] for row in rows]):
                found = self._generate([prompts[row] for row in rows], settings, on_done)
            answers |= zip(rows, found, strict=True)

        # Records that crashed alone come last: a GPU that fails at random should not meet the same
        # record at the beginning of every attempt.
        for row in sorted(suspects, key=lambda row: crashes[records[row]]):
            answers[row] = self._generate_alone(prompts[row], records[row], settings, on_done)
        return [answers[row] for row in range(len(prompts))]

    def name_in_notes(self, source: Source) -> str:
        """Return the name of a record in notes.

        In shadow it is another one, unless the adapter has given the record up: what ended its
        processes is not tried again for a line that nobody reads.
        """
        record = str(source)
        if not self._is_shadow or self.notes.crashes.get(record, 0) >= MAX_CRASHES_PER_RECORD:
            return record
        return f"{record}{IN_SHADOW}"

    def _generate_alone(
        self,
        prompt: list[int],
        record: str,
        settings: GenerationSection,
        on_done: Done,
    ) -> Generated | Failure:
        """Return the answer to a prompt whose record was in flight when a process died."""
        crashes = self.notes.crashes[record]
        if crashes >= MAX_CRASHES_PER_RECORD:
            on_done(1)
            return CRASHED

        # A broken GPU must not be noted as a crash of this record.
        self._check_model_answers(FAILS_AT_ONCE)
        with self.notes.records_in_flight([record], crashes_alone=crashes + 1):
            (answer,) = self._generate([prompt], settings, on_done)
        return answer

    def _generate(
        self,
        prompts: Sequence[list[int]],
        settings: GenerationSection,
        on_done: Done,
    ) -> list[Generated | Failure]:
        engine = self.loader.load().engine
        answers = generate_each(engine, prompts, settings, on_done, self._note_answer)
        self.check_failures(answers)
        self.has_answered = True
        return answers

    def _note_answer(self) -> None:
        self.has_answered = True

    def check_failures(self, answers: Sequence[Generated | Failure]) -> None:
        """If a prompt got no answer, send the model a greeting, and raise if it cannot answer that.

        Sets `has_answered` if there are failures and another prompt got an answer. Raise
        ConfigError, without a greeting, if several prompts failed, all of them with one error that
        only a config explains, or many with any one error, unless the model has answered before.
        """
        failures = [answer for answer in answers if isinstance(answer, Failure)]
        if not failures or self._is_shadow:
            return
        if len(failures) < len(answers):
            self.has_answered = True

        names = {failure.name for failure in failures}
        remedy = REMEDIES.get(failures[0].name) if len(names) == 1 else None
        found = f"It failed on each of the first {len(failures)} conversations ({failures[0]})"
        too_many = 2 if remedy else MIN_FAILURES_ALIKE
        if len(names) == 1 and len(failures) >= too_many and not self.has_answered:
            raise ConfigError(f"{remedy or CANNOT_RUN}. {found}")
        self._check_model_answers(f"{remedy or CANNOT_RUN}. {found}")

    def _check_model_answers(self, mistake: str) -> None:
        """Send a greeting as a canary prompt.

        If it fails, raise RetryError if the model has answered before; else ConfigError, which
        begins with `mistake`, unless the error is a bug of recap.
        """
        if self._is_shadow:
            return
        try:
            self._greet()
        except RecapError:
            raise
        except Exception as error:
            if unwritable(error):
                raise
            failed = f"{type(error).__name__}: {error}"
            if self.has_answered:
                raise RetryError(
                    f"the model answered before, and now fails on a greeting ({failed}): run again"
                ) from error
            if isinstance(error, LIBRARY_ERRORS) or _is_raised_in_a_library(error):
                raise ConfigError(f"{mistake}, and on a greeting ({failed})") from error
            raise

    def _greet(self) -> None:
        summarizer = self.loader.load()
        prompt = summarizer.encoder.encode(GREETING)
        summarizer.engine.generate([prompt.ids], self.settings)


def settings_of_each(settings: NightGenerationSection) -> list[NightGenerationSection]:
    """Return the settings of each candidate: they differ in their seeds, which follow each other.

    Those of the first are `settings` themselves.
    """
    found = [settings]
    for number in range(1, settings.candidates):
        seed = (settings.seed + number) % (LARGEST_SEED + 1)
        found.append(settings.model_copy(update={"seed": seed}))
    return found


def _is_raised_in_a_library(error: Exception) -> bool:
    """Return True if the innermost frame of the error is in one of LIBRARIES."""
    *_, (frame, _line) = traceback.walk_tb(error.__traceback__)
    module: str = frame.f_globals.get("__name__", "")
    return module.split(".")[0] in LIBRARIES
