"""Conversations → training rows: token ids and labels, each short enough, none cut.

Knows nothing of where conversations come from, nor of how the rows are batched.
"""

from dataclasses import dataclass
from typing import Any, Literal

from job.conversations.record import Conversation
from job.errors import DataError
from job.prompt.encode import EncodedExample, Encoder, TooLongError
from job.telemetry import warn

Dataset = Any  # a datasets.Dataset


@dataclass(frozen=True)
class Rows:
    """A split as rows, with its counts."""

    dataset: Dataset  # columns input_ids, labels; one row per reference
    tokens: int
    longest: int
    shortened: int  # rows that lost turns from the middle
    excluded: int  # rows that fit in no way

    def counts(self) -> dict[str, int]:
        """The counts as plain data."""
        return {
            "rows": len(self.dataset),
            "tokens": self.tokens,
            "longest_tokens": self.longest,
            "shortened_rows": self.shortened,
            "excluded_rows": self.excluded,
        }


@dataclass(frozen=True)
class RowSettings:
    """What makes a row of a conversation and a reference."""

    encoder: Encoder
    references: Literal["first", "all"]
    max_excluded_fraction: float


def row_tokens(wanted: int, context: int | None) -> int:
    """Tokens of a row: what the config wants, or no more than the base can read."""
    if context is None or wanted <= context:
        return wanted
    warn(
        "training.max_tokens is more than the base's context, which is taken",
        max_tokens=wanted,
        context=context,
    )
    return context


def make_rows(conversations: list[Conversation], settings: RowSettings) -> Rows:
    """Encode every reference; DataError when more rows than allowed fit in no way into max_tokens."""
    from datasets import Dataset

    examples: list[EncodedExample] = []
    excluded: list[str] = []
    for conversation in conversations:
        references = (
            conversation.references if settings.references == "all" else conversation.references[:1]
        )
        for reference in references:
            try:
                examples.append(settings.encoder.encode_example(conversation, reference))
            except TooLongError as error:
                excluded.append(str(error))
    _check_excluded(excluded, len(examples), settings)
    return Rows(
        dataset=Dataset.from_dict(
            {
                "input_ids": [example.input_ids for example in examples],
                "labels": [example.labels for example in examples],
            }
        ),
        tokens=sum(len(example.input_ids) for example in examples),
        longest=max(len(example.input_ids) for example in examples),
        shortened=sum(example.dropped_turns > 0 for example in examples),
        excluded=len(excluded),
    )


def _check_excluded(excluded: list[str], rows: int, settings: RowSettings) -> None:
    if not excluded:
        return
    share = len(excluded) / (len(excluded) + rows)
    if share > settings.max_excluded_fraction or not rows:
        raise DataError(
            f"{len(excluded)} of {len(excluded) + rows} rows do not fit into training.max_tokens "
            f"({settings.encoder.max_tokens}); limits.max_excluded_fraction allows {settings.max_excluded_fraction:.0%}; "
            f"raise training.max_tokens. The first: {excluded[0]}"
        )
    warn(
        "rows left out: they do not fit into training.max_tokens",
        rows=len(excluded),
        first=excluded[0],
    )
