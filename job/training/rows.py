"""Encode conversations as training rows, token ids and labels, and exclude those too long."""

from dataclasses import dataclass
from typing import Any, Literal

from job.conversations.record import Conversation
from job.errors import DataError
from job.prompt.encode import EncodedExample, Encoder, TooLongError
from job.prompt.vocabulary import check_ids
from job.telemetry import warn

Dataset = Any  # a datasets.Dataset


@dataclass(frozen=True)
class Rows:
    """The rows of one split, with their counts."""

    dataset: Dataset  # columns input_ids and labels; one row per reference
    tokens: int
    longest: int  # in tokens
    shortened: int  # rows that lost turns from the middle
    excluded: int  # too long even without them

    def counts(self) -> dict[str, int]:
        """Return the counts as JSON."""
        return {
            "rows": len(self.dataset),
            "tokens": self.tokens,
            "longest_tokens": self.longest,
            "shortened_rows": self.shortened,
            "excluded_rows": self.excluded,
        }


@dataclass(frozen=True)
class Splits:
    """The rows to train on, and the rows to evaluate on."""

    train: Rows
    validation: Rows


@dataclass(frozen=True)
class RowSettings:
    """The rules by which conversations become rows."""

    encoder: Encoder
    references: Literal["first", "all"]
    max_excluded_fraction: float
    embeddings: int | None = None  # of the base; None if not known
    context: int | None = None  # of the base; None without a limit


def row_tokens(wanted: int, context: int | None) -> int:
    """Return the maximum length of a row: `wanted` tokens, or the base's context if it is smaller.

    Warns in the second case.
    """
    if context is None or wanted <= context:
        return wanted
    warn(
        "training.max_tokens is more than the base's context, which is taken",
        max_tokens=wanted,
        context=context,
    )
    return context


def make_rows(conversations: list[Conversation], settings: RowSettings) -> Rows:
    """Encode each conversation with its first reference, or with each of them.

    Rows that do not fit are excluded with a warning. Raise DataError if these are all, or more than
    the allowed fraction.
    """
    # Takes a second to import, which a plan without a tokenizer does not need.
    from datasets import Dataset

    examples: list[EncodedExample] = []
    excluded: list[str] = []
    for conversation in conversations:
        references = conversation.references
        if settings.references == "first":
            references = references[:1]
        for reference in references:
            try:
                examples.append(settings.encoder.encode_example(conversation, reference))
            except TooLongError as error:
                excluded.append(str(error))
    _check_excluded(excluded, len(examples), settings)
    if settings.embeddings is not None:
        largest = max(max(example.input_ids) for example in examples)
        check_ids(largest, settings.encoder.tokenizer, settings.embeddings)

    columns = {
        "input_ids": [example.input_ids for example in examples],
        "labels": [example.labels for example in examples],
    }
    lengths = [len(example.input_ids) for example in examples]
    return Rows(
        dataset=Dataset.from_dict(columns),
        tokens=sum(lengths),
        longest=max(lengths),
        shortened=sum(example.dropped_turns > 0 for example in examples),
        excluded=len(excluded),
    )


def _check_excluded(excluded: list[str], rows: int, settings: RowSettings) -> None:
    """Warn of excluded rows. Raise DataError if there are more than the settings allow."""
    if not excluded:
        return
    total = len(excluded) + rows
    allowed = settings.max_excluded_fraction
    most = settings.encoder.max_tokens
    limit, remedy = f"training.max_tokens ({most})", "raise training.max_tokens"
    if most == settings.context:
        limit, remedy = f"the context of model.base ({most} tokens)", "use a base with a longer one"
    if len(excluded) / total > allowed or not rows:
        raise DataError(
            f"{len(excluded)} of {total} rows do not fit into {limit}; "
            f"limits.max_excluded_fraction allows {allowed:.0%}; {remedy}. The first: {excluded[0]}"
        )
    warn(
        f"rows left out: they do not fit into {limit}",
        rows=len(excluded),
        first=excluded[0],
    )
