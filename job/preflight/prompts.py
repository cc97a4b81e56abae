"""Ask of which conversations no prompt can be made, by the reader of the job itself."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from job.config.commands import EvaluateConfig, SummarizeConfig
from job.config.data_sections import CleaningStep
from job.config.sections import GenerationSection
from job.conversations.cleaning import clean_or_reject
from job.conversations.record import Conversation, Reject
from job.conversations.redaction import make_redactor
from job.errors import DataError
from job.inference.open import cleaning_of
from job.inference.reader import Reader, Unreadable
from job.inference.summaries import input_budget
from job.model.families import UNLIMITED
from job.model.load import context_tokens
from job.preflight.access import SmallFiles
from job.preflight.checks import Check, Found, check_value
from job.printable import number_of
from job.prompt.encode import Encoder
from job.prompt.template import Prompt

TOGETHER = 256  # conversations in one call of the tokenizer
FIRST = 2_000  # conversations of a night that are looked at, and more if many have no prompt


@dataclass(frozen=True)
class Prompting:
    """The reader of a job and the cleaning before it. `limit` is that of a prompt, for people."""

    reader: Reader
    cleaning: Sequence[CleaningStep]
    limit: str

    @classmethod
    def of(
        cls,
        prompt: Prompt,
        small: SmallFiles,
        generation: GenerationSection,
        reads: Any,  # the keys of READING_KEYS
        cleaning: Sequence[CleaningStep] = (),
    ) -> "Prompting":
        """Return that of a job: `reads` has its `long_conversations` and `redaction`."""
        tokenizer = small.tokenizer
        context = context_tokens(small.folder) or tokenizer.model_max_length
        budget = input_budget(context, generation)
        why = "generation.max_input_tokens"
        if budget != generation.max_input_tokens:
            why = f"a context of {context} less generation.max_new_tokens"
        reader = Reader(
            Encoder(prompt, tokenizer, budget),
            reads.long_conversations,
            make_redactor(reads.redaction),
        )
        limit = f"at most {budget:,} tokens ({why})" if budget < UNLIMITED else "any length"
        return cls(reader, cleaning, limit)

    def failures(self, conversations: Sequence[Conversation]) -> list[str]:
        """Return why there is no prompt, for each conversation that has none."""
        reasons = []
        readable = []
        for conversation in conversations:
            cleaned = clean_or_reject(conversation, self.cleaning)
            if isinstance(cleaned, Reject):
                reasons.append(str(cleaned))
            else:
                readable.append(cleaned)
        for read, conversation in zip(self.reader.read_each(readable), readable, strict=True):
            if isinstance(read, Unreadable):
                source = str(conversation.source)
                reasons.append(f"{source}: {str(read).removeprefix(f'{source}: ')}")
        return reasons


def prompts_checks(
    small: SmallFiles,
    config: SummarizeConfig | EvaluateConfig,
    prompt: Callable[[], Prompt],
    look: Callable[[Prompting], Found[None]],
) -> list[Check]:
    """Return the check that prompts can be made, as `look` finds it.

    None of a base whose code is not run for a plan: its tokenizer may have some.
    """
    if config.model.trust_remote_code:
        return []

    def ask() -> Found[None]:
        made = prompt()
        cleaning = cleaning_of(made, config.data)
        return look(Prompting.of(made, small, config.generation, config, cleaning))

    return [check_value("prompts", ask)[0]]


def describe_prompts(conversations: Sequence[Conversation], prompting: Prompting) -> Found[None]:
    """Say how many of the conversations that are scored get an empty summary."""
    reasons = prompting.failures(conversations)
    of = number_of(len(conversations), "conversation", "conversations")
    return Found(_told(reasons, of, prompting, "their summaries will be empty"), None)


def describe_prompts_of_night(
    records: Iterable[Conversation | Reject],
    counts: tuple[int, int],
    config: SummarizeConfig,
    prompting: Prompting,
) -> Found[None]:
    """Say how many conversations a night rejects for want of a prompt.

    `counts` are those of all records, and of the rejects among them. Looks at the first
    conversations, and on while more of them than the limit allows have no prompt: until the night
    is sure to end with 65, which is the error, or to the end. What `skip_done` leaves out of a
    night is not known, and so there is no error then.
    """
    total, rejects = counts
    allowed = config.limits.max_reject_fraction
    good = (record for record in islice(records, total) if isinstance(record, Conversation))
    looked = 0
    reasons: list[str] = []
    while together := list(islice(good, TOGETHER)):
        looked += len(together)
        reasons += prompting.failures(together)
        too_many = rejects + len(reasons) > allowed * total
        if too_many or (looked >= FIRST and len(reasons) <= allowed * looked):
            break
    of = number_of(looked, "conversation", "conversations")
    if looked < total - rejects:
        of = f"the first {of} (of {total - rejects:,}: the others were not looked at)"
    text = _told(reasons, of, prompting, "they are rejects")
    if rejects + len(reasons) <= allowed * total or not reasons or config.skip_done is not None:
        return Found(text, None)
    error = DataError(
        f"more rejects than limits.max_reject_fraction allows ({allowed:.2%}), so the night would "
        "end with 65: lower generation.max_new_tokens, use a base with a longer context, set "
        "long_conversations: hierarchical, or raise the limit"
    )
    return Found(text, None, error=error)


def _told(reasons: Sequence[str], of: str, prompting: Prompting, then: str) -> str:
    if not reasons:
        return f"{of} fit into prompts of {prompting.limit}"
    return (
        f"warning: {len(reasons):,} of {of} have no prompt of {prompting.limit}: {then}. "
        f"The first: {reasons[0]}"
    )
