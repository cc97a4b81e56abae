"""Conversations of summaries that are written, read from the input again.

A night keeps no conversation. What shows or scores a sample of its summaries reads those few again.
"""

from collections import defaultdict
from collections.abc import Sequence

from job.config.data_sections import CleaningStep
from job.conversations.cleaning import clean
from job.conversations.pieces import read_piece
from job.conversations.record import Conversation, Turn
from job.conversations.redaction import Redactor, redact
from job.summarization.chunks import Chunks
from job.summarization.night import Night
from job.summarization.records import Position
from job.summarization.sample import SampledSummary


def read_again(
    chunks: Chunks, sampled: Sequence[SampledSummary], night: Night
) -> dict[Position, Conversation]:
    """Return the conversations of these summaries by position, read from the input again."""
    wanted = defaultdict(set)
    pieces = {}
    for summary in sampled:
        for part in summary.chunk.pieces:
            if part.file == summary.position.file:
                wanted[part].add(summary.position.line)
                pieces[part] = chunks.files[part.file]

    found = {}
    for part, file in pieces.items():
        missing = wanted[part]
        for content in read_piece(file, part.piece, night.config.data, only=missing):
            line = content.source.line
            if isinstance(content, Conversation):
                found[Position(part.file, line)] = content
                missing.discard(line)
            if not missing:
                break
    return found


def turns_as_read(
    conversation: Conversation | None,
    cleaning: Sequence[CleaningStep] | None,
    redactor: Redactor | None,
) -> Sequence[Turn]:
    """Return the turns as the night read them, none if that is not known.

    Redaction is for cleaned text: before that, an address may be hidden in entities of HTML.
    """
    if conversation is None or cleaning is None:
        return ()
    cleaned = clean(conversation, cleaning)
    return cleaned.turns if redactor is None else redact(cleaned, redactor)[0].turns
