"""From a cleaned conversation to the prompts that a model reads.

Nights and evaluations read in the same way: personal data is replaced first, if a config says so,
and `long_conversations` decides what happens to a conversation that does not fit into one prompt.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from job.conversations.record import Conversation, Source
from job.conversations.redaction import Placeholders, Redactor, redact
from job.prompt.encode import EncodedPart, Encoder, TooLongError

# Redaction takes at most some 40 seconds of a core for so much text, whatever it is.
MAX_REDACTED_CHARACTERS = 1_000_000

# Parts of one conversation: some 200,000 tokens if the model's context has 1,024.
MAX_PARTS = 256


class Prompts(NamedTuple):
    """The prompts of a conversation, without its turns: nights hold many of these."""

    id: str
    source: Source
    parts: list[EncodedPart]  # one prompt, or one for each part of a long conversation
    dropped_turns: int  # that are in none of them
    placeholders: Placeholders | None  # of the values that were redacted


class Read(NamedTuple):
    """A conversation as the model reads it, with placeholders, and its prompts."""

    conversation: Conversation
    prompts: Prompts


@dataclass(frozen=True)
class Reader:
    """Makes prompts of conversations in the way that a config says."""

    encoder: Encoder
    long_conversations: Literal["keep_ends", "reject", "hierarchical"] = "keep_ends"
    redactor: Redactor | None = None

    def read(self, conversation: Conversation) -> Read:
        """Return the prompts of a cleaned conversation, whose personal data is replaced before.

        Raise NothingToSummarizeError without any text, TooLongError if it does not fit, or is too
        large to be redacted.
        """
        placeholders = None
        if self.redactor:
            characters = sum(len(turn.role) + len(turn.text) for turn in conversation.turns)
            if characters > MAX_REDACTED_CHARACTERS:
                raise TooLongError(
                    f"{conversation.source}: {characters:,} characters after cleaning, and "
                    f"redaction reads at most {MAX_REDACTED_CHARACTERS:,} of one conversation; "
                    "split it"
                )
            conversation, placeholders = redact(conversation, self.redactor)
        parts, dropped_turns = self._encode(conversation)
        id, source = conversation.id, conversation.source
        return Read(conversation, Prompts(id, source, parts, dropped_turns, placeholders))

    def _encode(self, conversation: Conversation) -> tuple[list[EncodedPart], int]:
        """Return the prompts, and the number of turns that are in none of them."""
        if self.long_conversations == "hierarchical":
            return self.encoder.encode_parts(conversation, MAX_PARTS), 0

        prompt = self.encoder.encode(conversation)
        dropped = prompt.dropped_turns
        turns = len(conversation.turns)
        if dropped and self.long_conversations == "reject":
            raise TooLongError(
                f"{dropped} of {turns} turns do not fit into {self.encoder.max_tokens} tokens"
            )
        return [EncodedPart(prompt.ids, turns - dropped)], dropped
