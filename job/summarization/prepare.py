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
from job.summarization.challenger import Choice
from job.summarization.identity import DIGEST_BYTES, conversation_digest
from job.summarization.quality import NO_SAMPLE, QualitySample
from job.summarization.records import Origin, Outcome, Prepared, Record, Skipped, Writer

# Of the records that one call tokenizes, so that all cores have work: a record takes 0.1 ms.
RECORDS_TOGETHER = 256
CHARACTERS_TOGETHER = 4 << 20  # of conversations; what is prepared of them takes 20 times as much


@dataclass(frozen=True)
class ChallengerTask:
    """The challenger's part of a task: its choice of records, and what becomes of them there."""

    choice: Choice
    digest: str  # of the adapter
    engine: CarefulEngine
    settings: blake2b
    quality: QualitySample = NO_SAMPLE  # of the chosen records


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
    challenger: ChallengerTask | None = None

    @property
    def keeps_conversations(self) -> bool:
        """True if all are needed again: candidates of their summaries are scored."""
        return len(self.engine.settings_of_each) > 1

    def engine_of(self, writer: Writer) -> CarefulEngine:
        """Return the engine of the adapter that writes."""
        if writer == "adapter":
            return self.engine
        assert self.challenger is not None, "only it writes as canary or shadow"
        return self.challenger.engine

    def engines(self) -> list[CarefulEngine]:
        """Return the engines of all adapters."""
        return [self.engine] if self.challenger is None else [self.engine, self.challenger.engine]

    def be_careful(self) -> None:
        """Generate in small batches from now on, by each engine."""
        for engine in self.engines():
            engine.is_careful = True

    def writers(self, id_digest: bytes) -> tuple[Writer, ...]:
        """Return who summarizes the record with this digest of its id."""
        if self.challenger is None or not self.challenger.choice.has(id_digest):
            return ("adapter",)
        return ("canary",) if self.challenger.choice.mode == "canary" else ("adapter", "shadow")

    def measures(self, origin: Origin) -> bool:
        """Return True if figures of quality are wanted of this outcome."""
        if not origin.is_shadow and self.quality.has(origin.id_digest):
            return True
        challenger = self.challenger
        if challenger is None or not challenger.quality.has(origin.id_digest):
            return False
        return challenger.choice.has(origin.id_digest)


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
    items: list[_Readable | Outcome] = []
    for record in records:
        items += _decide(record, task)
    readable = [item for item in items if isinstance(item, _Readable)]
    found: dict[CarefulEngine, Iterator[Read | Unreadable]] = {}
    for engine in task.engines():
        # An adapter has a prompt and a cleaning of its own.
        mine = [each for each in readable if task.engine_of(each.origin.writer) is engine]
        if mine:  # else no model may be needed, and asking for its encoder would load one
            encoder = engine.loader.load().encoder
            reader = Reader(encoder, task.long_conversations, task.redactor)
            found[engine] = iter(reader.read_each([each.conversation for each in mine]))

    for item in items:
        if isinstance(item, Outcome):
            yield item
            continue
        read = next(found[task.engine_of(item.origin.writer)])
        if isinstance(read, Unreadable):
            reason: RejectReason = "nothing_to_summarize"
            if isinstance(read, TooLongError):
                reason = "too_long"
            yield Outcome(item.origin, _reject(item.conversation, reason, str(read)))
        else:
            metadata = item.conversation.metadata
            is_kept = task.keeps_conversations or task.measures(item.origin)
            kept = read.conversation if is_kept else None
            yield Prepared(item.origin, read.prompts, metadata, item.digest, kept)


def _decide(record: Record, task: Task) -> list[_Readable | Outcome]:
    """Return what becomes of a record by each adapter that gets it, in the order of their lines."""
    origin, content = record
    if isinstance(content, Reject):
        return [Outcome(origin, content)]
    if task.challenger is None:
        return [_clean_or_skip(origin, content, task)]
    found = []
    for writer in task.writers(origin.id_digest):
        item = _clean_or_skip(origin._replace(writer=writer), content, task)
        found.append(item)
        if isinstance(item, Outcome) and isinstance(item.result, Skipped):
            break  # nothing is summarized tonight that the challenger could be beside
    return found


def _clean_or_skip(origin: Origin, conversation: Conversation, task: Task) -> _Readable | Outcome:
    """Return the conversation, cleaned, or the outcome of one that is not to be read."""
    settings = task.settings
    if origin.writer != "adapter":
        assert task.challenger is not None, "it writes"
        settings = task.challenger.settings
    # Of the record as it was read: skipping it needs no model, and so no cleaning.
    digest = conversation_digest(conversation, settings)
    if not origin.is_shadow and bytes.fromhex(digest) in task.done_before:
        return Outcome(origin, Skipped(conversation.id, conversation.source, digest))

    cleaned = clean_or_reject(conversation, task.engine_of(origin.writer).loader.load().cleaning)
    if isinstance(cleaned, Reject):
        return Outcome(origin, cleaned)
    return _Readable(origin, cleaned, digest)


def _reject(conversation: Conversation, reason: RejectReason, detail: str) -> Reject:
    # Errors begin with the source, which the reject has already.
    detail = detail.removeprefix(f"{conversation.source}: ")
    return Reject(conversation.source, reason, detail, conversation.id)
