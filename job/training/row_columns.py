"""The columns of a file of rows, and the sizes of its rows, by what a method learns from.

References become `input_ids` and `labels`. The columns of judged answers are those that TRL's
collators read.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from job.config.method_sections import Judged
from job.prompt.encode import IGNORED, EncodedAnswers, EncodedExample
from job.training.preference_rows import PairRow, row_of

EncodedRow = EncodedExample | EncodedAnswers
COLUMNS: dict[Judged | None, tuple[str, ...]] = {
    None: ("input_ids", "labels"),
    "pairs": ("prompt_ids", "chosen_ids", "rejected_ids"),
    "thumbs": ("prompt_ids", "completion_ids", "label"),
}
# What a row learns, or judges: one and several of them.
NAMES: dict[Judged | None, tuple[str, str]] = {
    None: ("reference", "references"),
    "pairs": ("chosen summary", "chosen summaries"),
    "thumbs": ("judged summary", "judged summaries"),
}


@dataclass(frozen=True)
class RowSize:
    """The tokens of a row, of all its sequences and of the longest; and what it teaches.

    `learned` are the tokens of the reference, or of the first answer, with its end.
    """

    tokens: int
    longest: int
    learned: int
    largest_id: int
    learns_nothing: bool
    is_endless: bool


def schema_of(judged: Judged | None) -> Any:
    """Return the pyarrow schema of a file of rows."""
    # Takes a third of a second to import, which a plan without a tokenizer does not need.
    import pyarrow as pa

    ids = pa.list_(pa.int32())
    return pa.schema({name: pa.bool_() if name == "label" else ids for name in COLUMNS[judged]})


def columns_of(rows: Sequence[EncodedRow], judged: Judged | None) -> list[list[Any]]:
    """Return the values of each column, in the order of COLUMNS."""
    columns: list[list[Any]] = [[] for _ in COLUMNS[judged]]
    for row in rows:
        for column, value in zip(columns, _values_of(row), strict=True):
            column.append(value)
    return columns


def size_of(row: EncodedRow, end: Sequence[int]) -> RowSize:
    """Return the size of a row. A summary ends with the tokens `end`."""
    if isinstance(row, EncodedExample):
        length = len(row.input_ids)
        learned = length - row.labels.count(IGNORED)
        is_endless = bool(learned) and row.labels[-1] != end[-1]
        is_empty = not is_endless and learned <= len(end)
        return RowSize(length, length, learned, max(row.input_ids), is_empty, is_endless)

    lengths = [len(row.prompt_ids) + len(answer) for answer in row.answers]
    is_equal = len(row.answers) > 1 and row.answers[0] == row.answers[1]
    is_empty = any(len(answer) <= len(end) for answer in row.answers)
    return RowSize(
        tokens=sum(lengths),
        longest=max(lengths),
        learned=len(row.answers[0]),
        largest_id=max(max(ids) for ids in (row.prompt_ids, *row.answers)),
        learns_nothing=is_empty or is_equal,
        is_endless=False,
    )


def _values_of(row: EncodedRow) -> tuple[Any, ...]:
    if isinstance(row, EncodedExample):
        return row.input_ids, row.labels
    found = row_of(row)
    if isinstance(found, PairRow):
        return found.prompt_ids, found.chosen_ids, found.rejected_ids
    return found.prompt_ids, found.completion_ids, found.desirable
