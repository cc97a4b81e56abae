"""Encode judged answers as rows: a pair of completions, or one completion with a thumb.

A row has the prompt that summaries and supervised rows have, and completions that end as theirs do.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from job.conversations.record import Conversation
from job.prompt.encode import EncodedAnswers, Encoder, TooLongError


@dataclass(frozen=True)
class PairRow:
    """Ids of a prompt, and of two completions of which the first is preferred."""

    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]


@dataclass(frozen=True)
class ThumbRow:
    """Ids of a prompt and of a completion, which is desirable or not."""

    prompt_ids: list[int]
    completion_ids: list[int]
    desirable: bool


PreferenceRow = PairRow | ThumbRow


def shared_tokens(prompt: int, chosen: int, rejected: int) -> int:
    """Return the tokens of a pair in one row, where the last token of the prompt comes twice."""
    return prompt + chosen + 1 + rejected


def preference_rows(
    conversations: Sequence[Conversation], encoder: Encoder
) -> list[PreferenceRow | TooLongError]:
    """Return the row of each conversation with judged answers: of two a pair, of one a thumb.

    A TooLongError stands for one that does not fit, whatever turns are dropped.
    """
    return [
        found if isinstance(found, TooLongError) else row_of(found)
        for found in encoder.encode_answers(conversations)
    ]


def row_of(encoded: EncodedAnswers) -> PreferenceRow:
    """Return the row of a prompt with one answer or two, as ids."""
    if len(encoded.answers) == 1:
        return ThumbRow(encoded.prompt_ids, encoded.answers[0], encoded.wanted[0])
    chosen, rejected = encoded.answers
    return PairRow(encoded.prompt_ids, chosen, rejected)
