"""From a record to the prompts that its summary is made from, or to its outcome if it gets none.

A conversation is skipped or cleaned here, and then read in the way of the config.
"""

from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Literal, NamedTuple

from job.conversations.cleaning import clean_or_reject
from job.conversations.record import Conversation, Reject, RejectReason
from job.conversations.redaction import Redactor
from job.inference.reader import Read, Reader, Unreadable
from job.prompt.encode import TooLongError
from job.summarization.careful_engine import CarefulEngine
from job.summarization.identity import DIGEST_BYTES, conversation_digest
from job.summarization.quality import NO_SAMPLE, QualitySample
from job.summarization.records import Origin, Outcome, Prepared, Record, Skipped

# Of the records that one call tokenizes, so that all cores have work: a record takes 0.1 ms.
RECORDS_TOGETHER = 256
CHARACTERS_TOGETHER = 4 << 20  # of conversations; what is prepared of them takes 20 times as much


@dataclass(frozen=True)
class Task:
    """Everything that decides what becomes of a record."""

    engine: CarefulEngine
    long_conversations: Literal["keep_ends", "reject", "hierarchical"] = "keep_ends"
    cut_summaries: Literal["keep", "reject"] = "keep"
    redactor: Redactor | None = None
    settings: blake2b = field(default_factory=lambda: blake2b(digest_size=DIGEST_BYTES))
    done_before: Container[bytes] = ()  # digests of the conversations that are skipped
    quality: QualitySample = NO_SAMPLE


class _Readable(NamedTuple):
    """A conversation that is to be summarized, cleaned, before its prompts are made."""

    origin: Origin
    conversation: Conversation
    digest: str


def prepare_each(records: Iterable[Record], task: Task) -> Iterator[Prepared | Outcome]:
    """Yield the prompts of each record, or its outcome if nothing is to be generated, in order.

    Records are tokenized together.
    """
    together: list[Record] = []
    characters = 0
    for record in records:
        together.append(record)
        content = record.content
        if isinstance(content, Conversation):
            characters += sum([len(turn.text) for turn in content.turns])
        if len(together) == RECORDS_TOGETHER or characters >= CHARACTERS_TOGETHER:
            yield from _prepare_together(together, task)
            together = []
            characters = 0
    yield from _prepare_together(together, task)


def _prepare_together(records: Sequence[Record], task: Task) -> Iterator[Prepared | Outcome]:
    items = [_clean_or_decide(record, task) for record in records]
    readable = [item for item in items if isinstance(item, _Readable)]
    found: Iterator[Read | Unreadable] = iter(())
    if readable:  # else no model may be needed, and asking for its encoder would load one
        encoder = task.engine.loader.load().encoder
        reader = Reader(encoder, task.long_conversations, task.redactor)
        found = iter(reader.read_each([item.conversation for item in readable]))

    for item in items:
        if isinstance(item, Outcome):
            yield item
            continue
        read = next(found)
        if isinstance(read, Unreadable):
            reason: RejectReason = "nothing_to_summarize"
            if isinstance(read, TooLongError):
                reason = "too_long"
            yield Outcome(item.origin, _reject(item.conversation, reason, str(read)))
        else:
            metadata = item.conversation.metadata
            kept = read.conversation if task.quality.has(item.origin.id_digest) else None
            yield Prepared(item.origin, read.prompts, metadata, item.digest, kept)


def _clean_or_decide(record: Record, task: Task) -> _Readable | Outcome:
    """Return a record's conversation, cleaned, or the outcome of one that is not to be read."""
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
    return _Readable(origin, cleaned, digest)


def _reject(conversation: Conversation, reason: RejectReason, detail: str) -> Reject:
    # Errors begin with the source, which the reject has already.
    detail = detail.removeprefix(f"{conversation.source}: ")
    return Reject(conversation.source, reason, detail, conversation.id)
