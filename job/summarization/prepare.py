"""From a record to the prompts that its summary is made from, or to its outcome if it gets none.

A conversation is skipped, cleaned, redacted and encoded here. If it does not fit into one prompt,
`long_conversations` decides what happens.
"""

from collections.abc import Container
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Literal, NamedTuple

from job.conversations.cleaning import clean_or_reject
from job.conversations.record import Conversation, Reject, RejectReason
from job.conversations.redaction import Redactor, redact
from job.prompt.encode import EncodedPart, NothingToSummarizeError, TooLongError
from job.summarization.careful_engine import CarefulEngine
from job.summarization.identity import DIGEST_BYTES, conversation_digest
from job.summarization.records import Outcome, Prepared, Record, Skipped

# Redaction takes at most some 40 seconds of a core for so much text, whatever it is.
MAX_REDACTED_CHARACTERS = 1_000_000

# Parts of one conversation: some 200,000 tokens if the model's context has 1,024.
MAX_PARTS = 256


@dataclass(frozen=True)
class Task:
    """Everything that decides what becomes of a record."""

    engine: CarefulEngine
    long_conversations: Literal["keep_ends", "reject", "hierarchical"] = "keep_ends"
    cut_summaries: Literal["keep", "reject"] = "keep"
    redactor: Redactor | None = None
    settings: blake2b = field(default_factory=lambda: blake2b(digest_size=DIGEST_BYTES))
    done_before: Container[bytes] = ()  # digests of the conversations that are skipped


def prepare(record: Record, task: Task) -> Prepared | Outcome:
    """Return the prompts of a record, or its outcome if nothing is to be generated."""
    origin, conversation = record
    if isinstance(conversation, Reject):
        return Outcome(origin, conversation)

    # Of the record as it was read: skipping it needs no model, and so no cleaning.
    digest = conversation_digest(conversation, task.settings)
    if bytes.fromhex(digest) in task.done_before:
        return Outcome(origin, Skipped(conversation.id, conversation.source, digest))

    cleaned = clean_or_reject(conversation, task.engine.loader.load().cleaning)
    if isinstance(cleaned, Reject):
        return Outcome(origin, cleaned)

    placeholders = None
    if task.redactor:
        characters = sum(len(turn.role) + len(turn.text) for turn in cleaned.turns)
        if characters > MAX_REDACTED_CHARACTERS:
            detail = (
                f"{characters:,} characters after cleaning, and redaction reads at most "
                f"{MAX_REDACTED_CHARACTERS:,} of one conversation; split it"
            )
            return Outcome(origin, _reject(conversation, "too_long", detail))
        cleaned, placeholders = redact(cleaned, task.redactor)

    try:
        encoded = _encode(cleaned, task)
    except TooLongError as error:
        return Outcome(origin, _reject(cleaned, "too_long", str(error)))
    except NothingToSummarizeError as error:
        return Outcome(origin, _reject(cleaned, "nothing_to_summarize", str(error)))
    return Prepared(
        origin=origin,
        id=cleaned.id,
        source=cleaned.source,
        metadata=cleaned.metadata,
        parts=encoded.parts,
        dropped_turns=encoded.dropped_turns,
        placeholders=placeholders,
        digest=digest,
    )


class _Encoded(NamedTuple):
    """The prompts of a conversation, and the number of its turns that are in none of them."""

    parts: list[EncodedPart]
    dropped_turns: int


def _encode(conversation: Conversation, task: Task) -> _Encoded:
    encoder = task.engine.loader.load().encoder
    if task.long_conversations == "hierarchical":
        return _Encoded(encoder.encode_parts(conversation, MAX_PARTS), 0)

    prompt = encoder.encode(conversation)
    dropped = prompt.dropped_turns
    turns = len(conversation.turns)
    if dropped and task.long_conversations == "reject":
        raise TooLongError(
            f"{dropped} of {turns} turns do not fit into {encoder.max_tokens} tokens"
        )
    return _Encoded([EncodedPart(prompt.ids, turns - dropped)], dropped)


def _reject(conversation: Conversation, reason: RejectReason, detail: str) -> Reject:
    # Errors begin with the source, which the reject has already.
    detail = detail.removeprefix(f"{conversation.source}: ")
    return Reject(conversation.source, reason, detail, conversation.id)
