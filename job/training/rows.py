"""Encode conversations as training rows, token ids and labels, and exclude those too long.

Rows go to an Arrow file in batches, as they are encoded, and are memory-mapped from there: neither
the conversations nor the rows have to be in memory at once.
"""

import json
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from job.conversations.record import Conversation
from job.errors import DataError
from job.prompt.encode import EncodedExample, Encoder, TooLongError
from job.prompt.vocabulary import check_ids
from job.telemetry import warn

Dataset = Any  # a datasets.Dataset

CONVERSATIONS_AT_ONCE = 256  # in one call of the tokenizer
# Tokenizing frees Python's lock, but making lists of ids does not: more threads would only wait.
MAX_THREADS = 8

Encoded = list[EncodedExample | TooLongError]


@dataclass(frozen=True)
class RowCounts:
    """The counts of the rows of one split."""

    rows: int = 0
    tokens: int = 0
    longest: int = 0  # in tokens
    shortened: int = 0  # rows that lost turns from the middle
    excluded: int = 0  # too long even without them
    first_excluded: str = ""  # why it does not fit
    largest_id: int = 0

    def with_batch(self, encoded: Encoded) -> "RowCounts":
        """Return the counts with those of more rows."""
        rows = _rows_of(encoded)
        lengths = [len(row.input_ids) for row in rows]
        largest_ids = [max(row.input_ids) for row in rows]
        reasons = [str(row) for row in encoded if isinstance(row, TooLongError)]
        return RowCounts(
            rows=self.rows + len(rows),
            tokens=self.tokens + sum(lengths),
            longest=max([self.longest, *lengths]),
            shortened=self.shortened + sum(row.dropped_turns > 0 for row in rows),
            excluded=self.excluded + len(reasons),
            first_excluded=self.first_excluded or next(iter(reasons), ""),
            largest_id=max([self.largest_id, *largest_ids]),
        )


@dataclass(frozen=True)
class Rows:
    """The rows of one split, memory-mapped, with their counts."""

    dataset: Dataset  # columns input_ids and labels; one row per reference
    counted: RowCounts

    def counts(self) -> dict[str, int]:
        """Return the counts as JSON."""
        return {
            "rows": self.counted.rows,
            "tokens": self.counted.tokens,
            "longest_tokens": self.counted.longest,
            "shortened_rows": self.counted.shortened,
            "excluded_rows": self.counted.excluded,
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


def write_rows(conversations: Iterable[Conversation], settings: RowSettings, file: Path) -> None:
    """Encode each conversation with its first reference, or with each, and write rows and counts.

    `read_rows` returns both, and `check_rows` judges them.
    """
    # Takes a third of a second to import, which a plan without a tokenizer does not need.
    import pyarrow as pa

    ids = pa.list_(pa.int32())
    schema = pa.schema({"input_ids": ids, "labels": ids})
    counts = RowCounts()
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_stream(sink, schema) as stream:
        for encoded in _encode(conversations, settings):
            counts = counts.with_batch(encoded)
            rows = _rows_of(encoded)
            columns = [[row.input_ids for row in rows], [row.labels for row in rows]]
            arrays = [pa.array(column, type=ids) for column in columns]
            stream.write_batch(pa.record_batch(arrays, schema=schema))
    _counts_file(file).write_text(json.dumps(asdict(counts)), encoding="utf-8")


def read_rows(file: Path) -> Rows:
    """Return the rows that `write_rows` wrote to `file`, memory-mapped."""
    from datasets import Dataset

    counts = RowCounts(**json.loads(_counts_file(file).read_bytes()))
    return Rows(Dataset.from_file(str(file)), counts)


def count_rows(conversations: Iterable[Conversation], settings: RowSettings) -> RowCounts:
    """Return the counts of the rows that `write_rows` writes. Raise and warn as `check_rows`."""
    counts = RowCounts()
    for encoded in _encode(conversations, settings):
        counts = counts.with_batch(encoded)
    check_rows(counts, settings)
    return counts


def check_rows(counts: RowCounts, settings: RowSettings) -> None:
    """Warn of excluded rows. Raise DataError if there are more than the settings allow.

    Raise ConfigError for a token without an embedding in the base.
    """
    _check_excluded(counts, settings)
    if settings.embeddings is not None:
        check_ids(counts.largest_id, settings.encoder.tokenizer, settings.embeddings)


def _check_excluded(counts: RowCounts, settings: RowSettings) -> None:
    if not counts.excluded:
        return
    total = counts.excluded + counts.rows
    allowed = settings.max_excluded_fraction
    most = settings.encoder.max_tokens
    limit, remedy = f"training.max_tokens ({most})", "raise training.max_tokens"
    if most == settings.context:
        limit, remedy = f"the context of model.base ({most} tokens)", "use a base with a longer one"
    if counts.excluded / total > allowed or not counts.rows:
        raise DataError(
            f"{counts.excluded} of {total} rows do not fit into {limit}; "
            f"limits.max_excluded_fraction allows {allowed:.0%}; {remedy}. The first: "
            f"{counts.first_excluded}"
        )
    warn(
        f"rows left out: they do not fit into {limit}",
        rows=counts.excluded,
        first=counts.first_excluded,
    )


def _encode(conversations: Iterable[Conversation], settings: RowSettings) -> Iterator[Encoded]:
    """Yield the rows of some conversations after another, in order, encoded in threads.

    Tokenizers free Python's lock. At most a few batches wait, so that memory is bounded.
    """
    encoder = settings.encoder
    encoder.encode_examples([])  # makes, before there are threads, what they share
    threads = 1
    if encoder.tokenizer.is_fast:  # one written in Python is not made for threads
        threads = min(len(os.sched_getaffinity(0)), MAX_THREADS)

    pool = ThreadPoolExecutor(threads)
    waiting: deque[Future[Encoded]] = deque()
    try:
        for batch in _batches(conversations, settings.references):
            waiting.append(pool.submit(encoder.encode_examples, batch))
            if len(waiting) > 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _batches(
    conversations: Iterable[Conversation], references: Literal["first", "all"]
) -> Iterator[list[Conversation]]:
    """Yield CONVERSATIONS_AT_ONCE conversations after another, with the references to learn."""
    batch: list[Conversation] = []
    for conversation in conversations:
        if references == "first":
            conversation = conversation._replace(references=conversation.references[:1])
        batch.append(conversation)
        if len(batch) == CONVERSATIONS_AT_ONCE:
            yield batch
            batch = []
    if batch:
        yield batch


def _rows_of(encoded: Encoded) -> list[EncodedExample]:
    return [row for row in encoded if isinstance(row, EncodedExample)]


def _counts_file(file: Path) -> Path:
    return file.with_suffix(".json")
