"""From a cleaned conversation to the prompts that a model reads.

Nights and evaluations read in the same way: personal data is replaced first, if a config says so,
and `long_conversations` decides what happens to a conversation that does not fit into one prompt.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from job.conversations.record import Conversation, Source
from job.conversations.redaction import Placeholders, Redactor, redact
from job.prompt.encode import EncodedPart, Encoder, NothingToSummarizeError, TooLongError

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


Unreadable = TooLongError | NothingToSummarizeError


@dataclass(frozen=True)
class Reader:
    """Makes prompts of conversations in the way that a config says."""

    encoder: Encoder
    long_conversations: Literal["keep_ends", "reject", "hierarchical"] = "keep_ends"
    redactor: Redactor | None = None

    def read_each(self, conversations: Sequence[Conversation]) -> list[Read | Unreadable]:
        """Return the prompts of each cleaned conversation, or the error why it has none.

        Personal data is replaced before. The error is a NothingToSummarizeError without any text, a
        TooLongError if a conversation does not fit, or is too large to be redacted.
        """
        found: list[Read | Unreadable | None] = [None] * len(conversations)
        redacted: dict[int, tuple[Conversation, Placeholders | None]] = {}
        for row, conversation in enumerate(conversations):
            try:
                redacted[row] = self._redact(conversation)
            except TooLongError as error:
                found[row] = error
        whole = self.encoder.tokenize_each([conversation for conversation, _ in redacted.values()])

        for ids, (row, (conversation, placeholders)) in zip(whole, redacted.items(), strict=True):
            try:
                parts, dropped_turns = self._encode(conversation, ids)
            except (TooLongError, NothingToSummarizeError) as error:
                # The traceback would hold the conversation.
                found[row] = error.with_traceback(None)
                continue
            id, source = conversation.id, conversation.source
            prompts = Prompts(id, source, parts, dropped_turns, placeholders)
            found[row] = Read(conversation, prompts)
        return [one for one in found if one is not None]

    def read(self, conversation: Conversation) -> Read:
        """Return the prompts of one cleaned conversation, or raise the error why it has none."""
        (found,) = self.read_each([conversation])
        if isinstance(found, Unreadable):
            raise found
        return found

    def _redact(self, conversation: Conversation) -> tuple[Conversation, Placeholders | None]:
        """Return the conversation with placeholders, and the values that they replace."""
        if not self.redactor:
            return conversation, None
        characters = sum(len(turn.role) + len(turn.text) for turn in conversation.turns)
        if characters > MAX_REDACTED_CHARACTERS:
            raise TooLongError(
                f"{conversation.source}: {characters:,} characters after cleaning, and "
                f"redaction reads at most {MAX_REDACTED_CHARACTERS:,} of one conversation; "
                "split it"
            )
        return redact(conversation, self.redactor)

    def _encode(
        self, conversation: Conversation, whole: list[int] | None
    ) -> tuple[list[EncodedPart], int]:
        """Return the prompts, and the number of turns that are in none of them."""
        if self.long_conversations == "hierarchical":
            return self.encoder.encode_parts(conversation, MAX_PARTS, whole), 0

        prompt = self.encoder.encode(conversation, whole)
        dropped = prompt.dropped_turns
        turns = len(conversation.turns)
        if dropped and self.long_conversations == "reject":
            raise TooLongError(
                f"{dropped} of {turns} turns do not fit into {self.encoder.max_tokens} tokens"
            )
        return [EncodedPart(prompt.ids, turns - dropped)], dropped
