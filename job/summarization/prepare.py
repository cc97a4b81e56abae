"""A record → the prompts that its summary is made from, or why it gets none.

Cleaning, redaction and the way with long conversations come together here. Knows nothing of files or of engines.
"""

import json
from collections.abc import Container
from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal

from job.config.commands import SummarizeConfig
from job.config.sections import GenerationSection
from job.conversations.cleaning import clean_or_reject
from job.conversations.record import BadRecord, Conversation, RejectReason
from job.conversations.redaction import Placeholders, Redactor, make_redactor, redact
from job.prompt import EncodedPart, NothingToSummarizeError, TooLongError, encode_parts, encode_prompt
from job.summarization.identity import identity
from job.summarization.records import Skipped
from job.summarization.summarizer import Summarizer

MAX_PARTS = 256  # of one conversation: some 200,000 tokens where the model's context has 1,024


@dataclass(frozen=True)
class Task:
    """What summarizes, and how it is told to; `settings` is the digest of all of that, `done` what is skipped."""

    summarizer: Summarizer
    generation: GenerationSection
    long_conversations: Literal["keep_ends", "reject", "hierarchical"] = "keep_ends"
    cut_summaries: Literal["keep", "reject"] = "keep"
    redactor: Redactor | None = None
    settings: str = ""
    done: Container[bytes] = ()


@dataclass(frozen=True)
class Prepared:
    """A conversation as the model may read it, with its prompts: one, or one for each part."""

    conversation: Conversation
    parts: list[EncodedPart]
    dropped_turns: int
    placeholders: Placeholders | None
    digest: str


def make_task(config: SummarizeConfig, summarizer: Summarizer, done: Container[bytes]) -> Task:
    """The task of a config; `done` are the digests of what is skipped."""
    return Task(
        summarizer,
        config.generation,
        config.long_conversations,
        config.cut_summaries,
        make_redactor(config.redaction),
        settings_digest(config, summarizer),
        done,
    )


def settings_digest(config: SummarizeConfig, summarizer: Summarizer) -> str:
    """32 hex digits of everything that decides a summary but the conversation."""
    deciding = identity(config, [], summarizer.digests)
    for key in ("input", "skip_done"):
        deciding.pop(key, None)
    return _hash(deciding)


def digest_of(conversation: Conversation, settings: str) -> str:
    """32 hex digits of the id, what is said by whom, and the settings; metadata decides no summary."""
    return _hash([settings, conversation.id, [[turn.role, turn.text] for turn in conversation.turns]])


def prepare(record: Conversation | BadRecord, task: Task) -> Prepared | BadRecord | Skipped:
    """The prompts of a record, or its outcome where there is nothing to generate."""
    if isinstance(record, BadRecord):
        return record
    digest = digest_of(record, task.settings)
    if bytes.fromhex(digest) in task.done:
        return Skipped(record.id, record.source, digest)
    cleaned = clean_or_reject(record, task.summarizer.cleaning)
    if isinstance(cleaned, BadRecord):
        return cleaned
    placeholders = None
    if task.redactor:
        cleaned, placeholders = redact(cleaned, task.redactor)
    return _encode(cleaned, task, placeholders, digest)


def _encode(
    conversation: Conversation, task: Task, placeholders: Placeholders | None, digest: str
) -> Prepared | BadRecord:
    summarizer = task.summarizer
    settings = conversation, summarizer.prompt, summarizer.tokenizer, summarizer.max_input_tokens
    try:
        if task.long_conversations == "hierarchical":
            return Prepared(conversation, encode_parts(*settings, MAX_PARTS), 0, placeholders, digest)
        prompt = encode_prompt(*settings)
    except (TooLongError, NothingToSummarizeError) as error:
        detail = str(error).removeprefix(f"{conversation.source}: ")
        reason: RejectReason = "too_long" if isinstance(error, TooLongError) else "nothing_to_summarize"
        return BadRecord(conversation.source, reason, detail, conversation.id)
    if prompt.dropped_turns and task.long_conversations == "reject":
        detail = (
            f"{prompt.dropped_turns} of {len(conversation.turns)} turns do not fit into "
            f"{summarizer.max_input_tokens} tokens"
        )
        return BadRecord(conversation.source, "too_long", detail, conversation.id)
    kept = EncodedPart(prompt.ids, len(conversation.turns) - prompt.dropped_turns)
    return Prepared(conversation, [kept], prompt.dropped_turns, placeholders, digest)


def _hash(value: object) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return blake2b(text.encode(), digest_size=16).hexdigest()
