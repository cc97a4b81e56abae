"""Files of any known format → conversations; each record has exactly one outcome.

The content of a file decides what it is: Parquet and compression are known by their first bytes,
JSON by its bracket, a transcript by its first line; anything else is a table with a header. Lines
and tables are streamed, JSON documents are walked record by record, Parquet goes through a
temporary file, and a transcript is one record. Only the ids, which must be unique, take memory that
grows with the input: about 0.2 kB a record.

A record that is no conversation becomes a Reject. A file whose records cannot be delimited is a
DataError.
"""

import io
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from job.config.data_sections import ReadingSection
from job.config.method_sections import Judged
from job.conversations.csv_rows import TableRows, check_text, table_text
from job.conversations.doubts import Doubts
from job.conversations.draft import (
    BinaryRow,
    Draft,
    RecordError,
    id_key_of,
    id_of,
    kind,
    without_bytes,
)
from job.conversations.formats import table
from job.conversations.formats.choose import conversation_key, parse
from job.conversations.formats.judged import own_error, parse_judged, reading_of_rows
from job.conversations.json_document import iterate_document
from job.conversations.json_layout import Layout, begins_json, has_json_lines, layout_of
from job.conversations.opening import plain_stream, text_of
from job.conversations.record import Conversation, Reject, Source
from job.conversations.rows import Row, json_lines, number_members
from job.conversations.splits import content_digest
from job.conversations.transcript_files import (
    WholeTranscript,
    is_transcript,
    parse_transcript,
    separate_summaries,
    text_in,
    transcript_rows,
)
from job.errors import DataError
from job.identity import blake2b_16

if TYPE_CHECKING:
    from job.storage.open import InputFile

SHOWN_REJECTS = 20
SHOWN_OF_A_WRONG_INPUT = 3  # if each record of an input is rejected for the same
NUMBER = re.compile(r"\d+")
DERIVED_ID_CHARACTERS = 16
LINES_OF_A_URI = 1 << 40  # more than any file has
Shape = Literal["parquet", "lines", "table", "transcript"] | Layout


def read_conversations(
    files: "Iterable[InputFile]",
    reading: ReadingSection,
    shows_text: bool = True,
    judged: Judged | None = None,
) -> Iterator[Conversation | Reject]:
    """Yield every record of `files`, in order, with the answers that were `judged`.

    A record without an id gets one made from its content. Log one warning about uncertain speakers
    at the end; it quotes lines only with `shows_text`. Raise DataError for a file that cannot be
    read to its end or lacks a column, and what `store.open` raises.
    """
    ids = _Ids()
    doubts = Doubts(shows_text)
    apart = separate_summaries(files)
    for file in apart.files:
        summary = apart.summaries.get(file.uri)
        for outcome in _read_file(file, reading, summary, judged):
            doubts.add(outcome)
            yield ids.claim_id(outcome)
    doubts.warn()


def read_strictly(
    files: "Iterable[InputFile]", reading: ReadingSection, judged: Judged | None = None
) -> list[Conversation]:
    """Return the conversations of `files`, with the answers that were `judged`.

    Raise DataError if any record is rejected, naming the first of them, or a file has no records.
    """
    conversations: list[Conversation] = []
    rejects: list[Reject] = []
    everything = list(files)
    records_by_uri = {file.uri: 0 for file in separate_summaries(everything).files}
    for outcome in read_conversations(everything, reading, judged=judged):
        records_by_uri[outcome.source.uri] += 1
        if isinstance(outcome, Reject):
            rejects.append(outcome)
        else:
            conversations.append(outcome)
    empty = [uri for uri, records in records_by_uri.items() if not records]
    if empty:
        raise DataError(
            f"{empty[0]}: holds no records; name files that do, or remove it from the input"
        )
    if rejects:
        raise DataError("\n".join(_rejected(rejects, len(rejects) + len(conversations))))
    return conversations


def _rejected(rejects: Sequence[Reject], records: int) -> list[str]:
    """Return lines that name the first rejects of each kind, and count the others of it.

    A kind is a detail without its numbers.
    """
    kinds: dict[str, list[Reject]] = {}
    for reject in rejects:
        kinds.setdefault(NUMBER.sub("#", reject.detail), []).append(reject)
    lines = [f"{len(rejects)} of {records} records are no conversations; mend or remove them:"]
    largest = sorted(kinds.values(), key=lambda some: -len(some))[:SHOWN_REJECTS]
    shown = SHOWN_REJECTS // len(largest)
    if len(kinds) == 1 and len(rejects) == records:
        shown = SHOWN_OF_A_WRONG_INPUT
    like_these = "" if len(kinds) == 1 else " like this"
    for some in largest:
        lines += [f"  {reject}" for reject in some[:shown]]
        if len(some) > shown:
            lines.append(f"  and {len(some) - shown} more{like_these}")
    others = len(rejects) - sum(map(len, largest))
    if others:
        lines.append(f"  and {others} more of {len(kinds) - len(largest)} other kinds")
    return lines


def read_json_lines(file: "InputFile") -> Iterator[tuple[Source, Any]]:
    """Yield the values of JSON lines of any kind, with their sources.

    A line that is no JSON is a RecordError.
    """
    with closing(file.store.open(file.key)) as stored:
        for line, value in json_lines(text_of(plain_stream(stored, file.uri))):
            yield Source(file.uri, line), value


def _read_file(
    file: "InputFile",
    reading: ReadingSection,
    summary: "InputFile | None",
    judged: Judged | None,
) -> Iterator[Conversation | Reject]:
    """Yield the records of a file. With `summary`, it is a transcript and that its reference."""
    with closing(file.store.open(file.key)) as stored:
        for line, record in _rows_of(plain_stream(stored, file.uri), file.uri, reading, judged):
            outcome = outcome_of(record, Source(file.uri, line), reading, judged)
            if summary is None:
                yield outcome
            elif isinstance(record, WholeTranscript):
                yield _with_reference(outcome, summary)
            else:
                raise DataError(
                    f"{summary.uri}: is named like the summary of {file.uri}, which is not one "
                    "transcript; rename one of them, or leave the summary out by data.exclude"
                )


def _rows_of(
    stream: io.BufferedReader, uri: str, reading: ReadingSection, judged: Judged | None
) -> Iterator[Row]:
    if judged is None:
        yield from rows_of(stream, uri, reading)
        return
    try:
        yield from rows_of(stream, uri, reading_of_rows(reading, judged))
    except DataError as error:
        raise own_error(error, judged) from error


def _with_reference(
    outcome: Conversation | Reject,
    summary: "InputFile",
) -> Conversation | Reject:
    """Return the conversation with the text of that file as its reference.

    A file that cannot be read as text makes it a Reject.
    """
    if isinstance(outcome, Reject):
        return outcome
    try:
        with closing(summary.store.open(summary.key)) as stored:
            text = text_in(text_of(plain_stream(stored, summary.uri)))
    except RecordError as error:
        detail = f"its summary {summary.uri}: {error.detail}"
        return Reject(outcome.source, error.reason, detail, outcome.id)
    return outcome._replace(references=(text,) if text else ())


def rows_of(stream: io.BufferedReader, uri: str, reading: ReadingSection) -> Iterator[Row]:
    """Yield the records of a decompressed file of any shape."""
    shape = shape_of(stream, uri, reading)
    if isinstance(shape, Layout):
        key_of = partial(conversation_key, reading)
        return number_members(iterate_document(text_of(stream), uri, shape, key_of))
    match shape:
        case "parquet":
            # Here, because pyarrow takes a third of a second to import.
            from job.conversations.parquet_rows import parquet_rows

            return parquet_rows(stream, uri, reading)
        case "lines":
            return json_lines(text_of(stream))
        case "transcript":
            return transcript_rows(text_of(stream), uri)
        case "table":
            text, line_end = table_text(stream, uri, reading)
            return iter(TableRows(text, uri, reading, line_end))


def shape_of(stream: io.BufferedReader, uri: str, reading: ReadingSection) -> Shape:
    """Return how the records are written in a decompressed file, by its first bytes."""
    head = stream.peek()
    if head.startswith(b"PAR1") and reading.format != "transcript":
        return "parquet"
    start = head.decode("utf-8-sig", "replace").lstrip()
    if is_transcript(start, uri, reading):
        check_text(head, uri)
        return "transcript"
    if begins_json(start, is_table=reading.format == "table"):
        return layout_of(start, uri, partial(conversation_key, reading)) or "lines"
    if reading.format not in ("auto", "table"):
        return "lines"
    line = start.partition("\n")[0]
    if not table.names_conversation(line, reading) and has_json_lines(start):
        return "lines"
    return "table"


def derived_id(conversation: Conversation) -> str:
    """Return an id made from the content, for a record that brings none."""
    return content_digest(conversation)[:DERIVED_ID_CHARACTERS]


def id_digest(id: str) -> bytes:
    """Return the 16 bytes by which ids are compared."""
    return blake2b_16(id)


def outcome_of(
    record: Any, source: Source, reading: ReadingSection, judged: Judged | None = None
) -> Conversation | Reject:
    """Return the conversation that a record is, or its Reject; with the answers that were `judged`.

    The id of a conversation that brings none is empty.
    """
    found_id = None
    try:
        if isinstance(record, RecordError):
            raise record
        if isinstance(record, WholeTranscript):
            found_id = record.id
            return _conversation(found_id, parse_transcript(record, reading), source)
        if not isinstance(record, dict):
            raise RecordError(f"the record is {kind(record)}, wanted an object")
        id_key = id_key_of(record, reading)
        found_id = None if id_key is None else id_of(record, id_key)
        if judged is None:
            parts = parse(record, reading, id_key)
        else:
            parts = parse_judged(record, reading, id_key, judged)
    except RecordError as error:
        return Reject(source, error.reason, error.detail, found_id)
    if isinstance(record, BinaryRow):
        parts = parts._replace(metadata=without_bytes(parts.metadata))
    return _conversation(found_id or "", parts, source)


def _conversation(id: str, parts: Draft, source: Source) -> Conversation:
    turns, references, metadata, doubts, answers = parts
    return Conversation(id, turns, source, references, metadata, doubts, answers)


class _Ids:
    """The ids of a run so far, with the source of each.

    Digest → packed source: an integer takes half the memory of a tuple. No plain set, because a
    reject names the source of the first, and a repeated derived id gets a number. In memory:
    a night's workers find repeated ids in files instead (`summarization/duplicates.py`).
    """

    def __init__(self) -> None:
        self._uris: list[str] = []
        self._sources: dict[bytes, int] = {}  # digest of the id → index of the URI, and line
        self._repeats: dict[bytes, int] = {}  # digest of a derived id → records with that content

    def claim_id(self, outcome: Conversation | Reject) -> Conversation | Reject:
        """Record the id of an outcome, which gets one if it has none.

        Returns the outcome, or a Reject if its id is taken.
        """
        if isinstance(outcome, Reject):
            return outcome
        if not outcome.id:
            outcome = outcome._replace(id=self._derive_id(outcome))
        key = id_digest(outcome.id)
        if key in self._sources:
            index, line = divmod(self._sources[key], LINES_OF_A_URI)
            detail = f"id '{outcome.id}' is already used at {Source(self._uris[index], line)}"
            return Reject(outcome.source, "invalid_record", detail, outcome.id)
        if not self._uris or self._uris[-1] != outcome.source.uri:
            self._uris.append(outcome.source.uri)
        self._sources[key] = (len(self._uris) - 1) * LINES_OF_A_URI + outcome.source.line
        return outcome

    def _derive_id(self, conversation: Conversation) -> str:
        """Return an id made from the content; with a number if the same content came before.

        Both are records to summarize.
        """
        base = derived_id(conversation)
        key = id_digest(base)
        if key not in self._sources:
            return base
        self._repeats[key] = self._repeats.get(key, 1) + 1
        return f"{base}-{self._repeats[key]}"
