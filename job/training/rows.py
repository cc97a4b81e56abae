"""Encode conversations as training rows, token ids and labels, and exclude those too long.

Rows go to an Arrow file in batches, as they are encoded, and are memory-mapped from there: neither
the conversations nor the rows have to be in memory at once.
"""

import json
import os
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from job.config.commands import TrainConfig
from job.config.method_sections import Judged
from job.conversations.record import Conversation
from job.errors import DataError
from job.prompt.encode import IGNORED, Encoder, TooLongError
from job.prompt.vocabulary import check_ids
from job.telemetry import warn
from job.training.preference_rows import shared_tokens
from job.training.row_columns import COLUMNS, NAMES, EncodedRow, columns_of, schema_of, size_of

Dataset = Any  # a datasets.Dataset

CONVERSATIONS_AT_ONCE = 256  # in one call of the tokenizer
# Tokenizing frees Python's lock, but making lists of ids does not: more threads would only wait.
MAX_THREADS = 8

Encoded = Sequence[EncodedRow | TooLongError]


@dataclass(frozen=True)
class RowCounts:
    """The counts of the rows of one split."""

    rows: int = 0
    tokens: int = 0
    longest: int = 0  # in tokens
    shortened: int = 0  # rows that lost turns from the middle
    dropped_turns: int = 0  # that they lost
    dropped_tokens: int = 0  # of these turns, but for conversations that are never tokenized whole
    excluded: int = 0  # too long even without them
    first_excluded: str = ""  # why it does not fit
    largest_id: int = 0
    by_learned_tokens: Mapping[int, int] = field(default_factory=dict)  # rows by what they learn
    unlearned: int | None = None  # number of the first row that learns no more than the end, from 1
    endless: int | None = None  # number of the first row that does not learn to end, from 1

    def with_batch(self, encoded: Encoded, end: Sequence[int]) -> "RowCounts":
        """Return the counts with those of more rows. A summary ends with the tokens `end`."""
        rows = _rows_of(encoded)
        reasons = [str(row) for row in encoded if isinstance(row, TooLongError)]
        sizes = [size_of(row, end) for row in rows]
        learned = Counter(self.by_learned_tokens)
        unlearned = self.unlearned
        endless = self.endless
        for number, size in enumerate(sizes, self.rows + 1):
            learned[size.learned] += 1
            if size.is_endless:
                endless = endless or number
            elif size.learns_nothing:
                unlearned = unlearned or number
        return RowCounts(
            rows=self.rows + len(rows),
            tokens=self.tokens + sum(size.tokens for size in sizes),
            longest=max([self.longest, *(size.longest for size in sizes)]),
            shortened=self.shortened + sum(row.dropped_turns > 0 for row in rows),
            dropped_turns=self.dropped_turns + sum(row.dropped_turns for row in rows),
            dropped_tokens=self.dropped_tokens + sum(row.dropped_tokens or 0 for row in rows),
            excluded=self.excluded + len(reasons),
            first_excluded=self.first_excluded or next(iter(reasons), ""),
            largest_id=max([self.largest_id, *(size.largest_id for size in sizes)]),
            by_learned_tokens=dict(learned),
            unlearned=unlearned,
            endless=endless,
        )

    def longer_than(self, new_tokens: int) -> int:
        """Return how many rows learn a summary that generation would cut, its end included."""
        longer = (rows for learned, rows in self.by_learned_tokens.items() if learned > new_tokens)
        return sum(longer)

    def facts(self) -> dict[str, int]:
        """Return what a run and its plan report, as JSON types."""
        return {
            "rows": self.rows,
            "tokens": self.tokens,
            "longest_tokens": self.longest,
            "shortened_rows": self.shortened,
            "dropped_turns": self.dropped_turns,
            "dropped_tokens": self.dropped_tokens,
            "excluded_rows": self.excluded,
        }

    @classmethod
    def parse(cls, text: bytes) -> "RowCounts":
        """Return the counts that were written as JSON, whose keys are texts."""
        content = json.loads(text)
        learned = {int(tokens): rows for tokens, rows in content["by_learned_tokens"].items()}
        return cls(**content | {"by_learned_tokens": learned})


@dataclass(frozen=True)
class Rows:
    """The rows of one split, memory-mapped, with their counts."""

    dataset: Dataset  # with the COLUMNS; one row per reference, pair or thumb
    counted: RowCounts

    def counts(self) -> dict[str, int]:
        """Return the counts as JSON."""
        return self.counted.facts()

    def lengths(self, shares_prompts: bool = False) -> list[int]:
        """Return the tokens of each row: of a pair, both sequences with padding, or one of both."""
        if shares_prompts:
            return shared_lengths(self.dataset)
        return [len(each) * max(each) for each in sequences_of(self.dataset)]

    def learned(self) -> list[int]:
        """Return the number of tokens that the loss looks at, of each sequence of the rows."""
        if not _answers_in(self.dataset):
            by_learned = self.counted.by_learned_tokens.items()
            return [tokens for tokens, rows in by_learned for _ in range(rows)]
        return [length for lengths in self.learned_by_answer() for length in lengths]

    def learned_by_answer(self) -> list[list[int]]:
        """Return the tokens of each row's answer, for each column of judged answers."""
        return [lengths_of(self.dataset, name) for name in _answers_in(self.dataset)]

    def by_tokens(self) -> Counter[int]:
        """Return the sequences of the rows by their tokens."""
        return Counter(length for each in sequences_of(self.dataset) for length in each)


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
    max_shortened_fraction: float | None = None
    max_cut_fraction: float | None = None
    max_new_tokens: int | None = None  # of a summary, its end included
    judged: Judged | None = None

    @classmethod
    def of(
        cls, config: TrainConfig, encoder: Encoder, embeddings: int | None, context: int | None
    ) -> "RowSettings":
        """Return the rules of a config. A plan and its training have the same."""
        limits = config.limits
        return cls(
            encoder,
            config.data.references,
            limits.max_excluded_fraction,
            embeddings,
            context,
            limits.max_shortened_fraction,
            limits.max_cut_fraction,
            config.generation.max_new_tokens,
            config.judged,
        )


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
    """Encode each conversation with its references or answers, and write rows and counts.

    `read_rows` returns both, and `check_rows` judges them.
    """
    # Takes a third of a second to import, which a plan without a tokenizer does not need.
    import pyarrow as pa

    schema = schema_of(settings.judged)
    counts = RowCounts()
    end = settings.encoder.end_ids()
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_stream(sink, schema) as stream:
        for encoded in _encode(conversations, settings):
            counts = counts.with_batch(encoded, end)
            columns = columns_of(_rows_of(encoded), settings.judged)
            arrays = [
                pa.array(column, type=field.type)
                for column, field in zip(columns, schema, strict=True)
            ]
            stream.write_batch(pa.record_batch(arrays, schema=schema))
    _counts_file(file).write_text(json.dumps(asdict(counts)), encoding="utf-8")


def read_rows(file: Path) -> Rows:
    """Return the rows that `write_rows` wrote to `file`, memory-mapped."""
    from datasets import Dataset

    counts = RowCounts.parse(_counts_file(file).read_bytes())
    return Rows(Dataset.from_file(str(file)), counts)


def lengths_of(rows: Any, name: str = "input_ids") -> list[int]:
    """Return the number of tokens of each row of a dataset, without reading the tokens."""
    column = rows.with_format("arrow")[:][name]
    lengths: list[int] = []
    for chunk in column.chunks:
        lengths += chunk.value_lengths().to_pylist()
    return lengths


def prompt_ids_of(rows: Any) -> Iterator[NDArray[np.int32]]:
    """Yield the ids of the prompts of a dataset's rows, those of many rows in one array.

    The rows are memory-mapped, and looked at in the batches that they were written in.
    """
    for batch in rows.with_format("arrow")[:].to_batches():
        if "prompt_ids" in batch.column_names:  # of judged answers
            yield batch.column("prompt_ids").flatten().to_numpy(zero_copy_only=False)
            continue
        ids = batch.column("input_ids").flatten().to_numpy(zero_copy_only=False)
        labels = batch.column("labels").flatten().to_numpy(zero_copy_only=False)
        yield ids[labels == IGNORED]


def sequences_of(rows: Any) -> list[list[int]]:
    """Return the number of tokens of each sequence of each row: two of a pair, else one."""
    if "input_ids" in rows.column_names:
        return [[length] for length in lengths_of(rows)]
    columns = [lengths_of(rows, name) for name in ("prompt_ids", *_answers_in(rows))]
    lengths = zip(*columns, strict=True)
    return [[prompt + answer for answer in answers] for prompt, *answers in lengths]


def shared_lengths(rows: Any) -> list[int]:
    """Return the tokens of each pair as one row, with its prompt once."""
    columns = [lengths_of(rows, name) for name in COLUMNS["pairs"]]
    return list(map(shared_tokens, *columns))


def _answers_in(rows: Any) -> list[str]:
    """Return the columns of judged answers in a dataset; none of one that learns references."""
    given = ("input_ids", "prompt_ids")
    return [name for name in rows.column_names if name.endswith("_ids") and name not in given]


def check_rows(split: str, counts: RowCounts, settings: RowSettings) -> None:
    """Warn of excluded rows. Raise DataError if there are more than the settings allow.

    Raise DataError for other findings beyond their limits, and for a row that learns nothing or no
    end; ConfigError for a token without an embedding in the base.
    """
    _check_excluded(split, counts, settings)
    _check_learned(split, counts)
    _check_limits(split, counts, settings)
    if settings.embeddings is not None:
        check_ids(counts.largest_id, settings.encoder.tokenizer, settings.embeddings)


def _check_excluded(split: str, counts: RowCounts, settings: RowSettings) -> None:
    if not counts.excluded:
        return
    total = counts.excluded + counts.rows
    allowed = settings.max_excluded_fraction
    most = settings.encoder.max_tokens
    limit, remedy = f"training.max_tokens ({most})", "raise training.max_tokens"
    if most == settings.context:
        limit, remedy = f"the context of model.base ({most} tokens)", "use a base with a longer one"
    if not counts.rows:
        raise DataError(
            f"no row is left in {split}: none of its {total} fits into {limit}; {remedy}. The "
            f"first: {counts.first_excluded}"
        )
    if counts.excluded / total > allowed:
        raise DataError(
            f"{counts.excluded} of {total} rows of {split} do not fit into {limit}; "
            f"limits.max_excluded_fraction allows {allowed:.0%}; {remedy}. The first: "
            f"{counts.first_excluded}"
        )
    warn(
        f"rows left out: they do not fit into {limit}",
        split=split,
        rows=counts.excluded,
        first=counts.first_excluded,
    )


def _check_learned(split: str, counts: RowCounts) -> None:
    """Raise DataError for rows that would teach a model nothing, or to go on for ever."""
    if counts.unlearned is not None:
        raise DataError(
            f"row {counts.unlearned} of {counts.rows} of {split} teaches nothing but the end: its "
            "reference has no token once it is encoded (or both its answers have the same); mend "
            "it, remove the conversation, or use a base whose tokenizer knows its characters"
        )
    if counts.endless is not None:
        raise DataError(
            f"row {counts.endless} of {counts.rows} of {split} does not learn the token that ends "
            "a summary, so that the adapter would not stop: mend the tokenizer of model.base, "
            "whose end token must survive encoding"
        )


def _check_limits(split: str, counts: RowCounts, settings: RowSettings) -> None:
    """Raise DataError for more findings than a limit of the config allows."""
    shortened = settings.max_shortened_fraction
    if shortened is not None and counts.shortened > shortened * counts.rows:
        raise DataError(
            f"{counts.shortened:,} of {counts.rows:,} rows of {split} lose turns to fit into "
            f"{settings.encoder.max_tokens:,} tokens; limits.max_shortened_fraction allows "
            f"{shortened:.0%}: raise training.max_tokens, or the limit"
        )
    cut = settings.max_cut_fraction
    if cut is None or settings.max_new_tokens is None:
        return
    longer = counts.longer_than(settings.max_new_tokens)
    if longer > cut * counts.rows:
        longest = max(counts.by_learned_tokens)
        raise DataError(
            f"{longer:,} of {counts.rows:,} {NAMES[settings.judged][1]} of {split} are longer than "
            f"generation.max_new_tokens ({settings.max_new_tokens}; the longest with its end has "
            f"{longest:,} tokens), so that summaries as long as they are would be cut; "
            f"limits.max_cut_fraction allows {cut:.0%}: raise generation.max_new_tokens, or the "
            "limit"
        )


def _encode(conversations: Iterable[Conversation], settings: RowSettings) -> Iterator[Encoded]:
    """Yield the rows of some conversations after another, in order, encoded in threads.

    Tokenizers free Python's lock. At most a few batches wait, so that memory is bounded.
    """
    encoder = settings.encoder
    encode = encoder.encode_examples if settings.judged is None else encoder.encode_answers
    encode([])  # makes, before there are threads, what they share
    threads = 1
    if encoder.tokenizer.is_fast:  # one written in Python is not made for threads
        threads = min(len(os.sched_getaffinity(0)), MAX_THREADS)

    pool = ThreadPoolExecutor(threads)
    waiting: deque[Future[Encoded]] = deque()
    try:
        for batch in _batches(conversations, settings.references):
            waiting.append(pool.submit(encode, batch))
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


def _rows_of(encoded: Encoded) -> list[EncodedRow]:
    return [row for row in encoded if not isinstance(row, TooLongError)]


def _counts_file(file: Path) -> Path:
    return file.with_suffix(".json")
