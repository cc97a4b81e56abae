"""A record → the prompts that its summary is made from, or why it gets none.

Cleaning, redaction and the way with long conversations come together here. Knows nothing of files or of engines.
"""

import json
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b
from typing import Any, Literal, NamedTuple

from job.config.commands import SummarizeConfig
from job.config.sections import GenerationSection
from job.conversations.cleaning import clean_or_reject
from job.conversations.record import Conversation, Reject, RejectReason, Source
from job.conversations.redaction import Placeholders, Redactor, redact
from job.prompt.encode import (
    EncodedPart,
    NothingToSummarizeError,
    TooLongError,
)
from job.summarization.done import BYTES
from job.summarization.identity import identity
from job.summarization.records import Skipped
from job.summarization.summarizer import Digests, Summarizer
from job.summarization.suspects import Suspects

# Redaction takes at most some 40 seconds of a core for so much, whatever the text is.
MAX_REDACTED_CHARACTERS = 1_000_000
MAX_PARTS = 256  # of one conversation: some 200,000 tokens where the model's context has 1,024


@dataclass(frozen=True)
class Task:
    """What summarizes, and how it is told to; `settings` has hashed all of that, `done` is what is skipped.

    `suspects` are the records that processes have ended on.
    """

    open_summarizer: Callable[[], Summarizer]
    generation: GenerationSection
    long_conversations: Literal["keep_ends", "reject", "hierarchical"] = "keep_ends"
    cut_summaries: Literal["keep", "reject"] = "keep"
    redactor: Redactor | None = None
    settings: blake2b = field(default_factory=lambda: blake2b(digest_size=BYTES))
    done: Container[bytes] = ()
    suspects: Suspects = field(default_factory=Suspects)

    @cached_property
    def summarizer(self) -> Summarizer:
        """What summarizes, opened by the first record that needs it: where all are skipped, no model is loaded."""
        return self.open_summarizer()

    @property
    def engine_name(self) -> str:
        """The engine with its version, `none` as long as there was nothing for one to do."""
        return self.summarizer.engine_name if "summarizer" in vars(self) else "none"


class Prepared(NamedTuple):
    """What is left of a conversation once its prompts are made (one, or one for each part): not what was said.

    `digest` is of its id, its words and all that decides its summary.
    """

    id: str
    source: Source
    metadata: Mapping[str, Any]
    parts: list[EncodedPart]
    dropped_turns: int
    placeholders: Placeholders | None
    digest: str


def hash_settings(config: SummarizeConfig, digests: Digests) -> blake2b:
    """A hash that goes on after everything that decides a summary but the conversation."""
    deciding = identity(config, [], digests)
    for key in ("input", "skip_done", "csv_output"):
        deciding.pop(key, None)
    return blake2b(
        json.dumps(deciding, sort_keys=True, separators=(",", ":")).encode(), digest_size=BYTES
    )


def digest_of(conversation: Conversation, settings: blake2b) -> str:
    """32 hex digits of the settings, the id, and what is said by whom; metadata decides no summary."""
    texts = ["", conversation.id]
    for turn in conversation.turns:
        texts += turn.role, turn.text
    digest = settings.copy()
    digest.update("\0".join(texts).encode())  # no text of a record holds this character
    return digest.hexdigest()


def prepare(record: Conversation | Reject, task: Task) -> Prepared | Reject | Skipped:
    """The prompts of a record, or its outcome where there is nothing to generate."""
    if isinstance(record, Reject):
        return record
    digest = digest_of(record, task.settings)
    if bytes.fromhex(digest) in task.done:
        return Skipped(record.id, record.source, digest)
    cleaned = clean_or_reject(record, task.summarizer.cleaning)
    if isinstance(cleaned, Reject):
        return cleaned
    placeholders = None
    if task.redactor:
        characters = sum(len(turn.role) + len(turn.text) for turn in cleaned.turns)
        if characters > MAX_REDACTED_CHARACTERS:
            detail = (
                f"{characters:,} characters after cleaning, and redaction reads at most "
                f"{MAX_REDACTED_CHARACTERS:,} of one conversation; split it"
            )
            return Reject(record.source, "too_long", detail, record.id)
        cleaned, placeholders = redact(cleaned, task.redactor)
    return _encode(cleaned, task, placeholders, digest)


def _encode(
    conversation: Conversation, task: Task, placeholders: Placeholders | None, digest: str
) -> Prepared | Reject:
    encoder = task.summarizer.encoder
    kept = conversation.id, conversation.source, conversation.metadata
    try:
        if task.long_conversations == "hierarchical":
            parts = encoder.encode_parts(conversation, MAX_PARTS)
            return Prepared(*kept, parts, 0, placeholders, digest)
        prompt = encoder.encode(conversation)
    except (TooLongError, NothingToSummarizeError) as error:
        detail = str(error).removeprefix(f"{conversation.source}: ")
        reason: RejectReason = (
            "too_long" if isinstance(error, TooLongError) else "nothing_to_summarize"
        )
        return Reject(conversation.source, reason, detail, conversation.id)
    if prompt.dropped_turns and task.long_conversations == "reject":
        detail = (
            f"{prompt.dropped_turns} of {len(conversation.turns)} turns do not fit into "
            f"{encoder.max_tokens} tokens"
        )
        return Reject(conversation.source, "too_long", detail, conversation.id)
    part = EncodedPart(prompt.ids, len(conversation.turns) - prompt.dropped_turns)
    return Prepared(*kept, [part], prompt.dropped_turns, placeholders, digest)
