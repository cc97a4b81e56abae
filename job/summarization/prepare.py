"""From a record to the prompts that its summary is made from, or to its outcome if it gets none.

A conversation is skipped or cleaned here, and then read in the way of the config.
"""

from collections.abc import Container
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Literal

from job.conversations.cleaning import clean_or_reject
from job.conversations.record import Conversation, Reject, RejectReason
from job.conversations.redaction import Redactor
from job.inference.reader import Reader
from job.prompt.encode import NothingToSummarizeError, TooLongError
from job.summarization.careful_engine import CarefulEngine
from job.summarization.identity import DIGEST_BYTES, conversation_digest
from job.summarization.records import Outcome, Prepared, Record, Skipped


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

    summarizer = task.engine.loader.load()
    cleaned = clean_or_reject(conversation, summarizer.cleaning)
    if isinstance(cleaned, Reject):
        return Outcome(origin, cleaned)

    reader = Reader(summarizer.encoder, task.long_conversations, task.redactor)
    try:
        prompts = reader.read(cleaned).prompts
    except TooLongError as error:
        return Outcome(origin, _reject(cleaned, "too_long", str(error)))
    except NothingToSummarizeError as error:
        return Outcome(origin, _reject(cleaned, "nothing_to_summarize", str(error)))
    return Prepared(origin, prompts, cleaned.metadata, digest)


def _reject(conversation: Conversation, reason: RejectReason, detail: str) -> Reject:
    # Errors begin with the source, which the reject has already.
    detail = detail.removeprefix(f"{conversation.source}: ")
    return Reject(conversation.source, reason, detail, conversation.id)
