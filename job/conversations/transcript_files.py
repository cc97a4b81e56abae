"""Files of one transcript each: their recognition, their record, and the summary beside them.

`call.vtt` is the conversation with the id `call`; its reference is the text of `call.summary.txt`
in the same folder, if that is in the input too. The content decides what a file is; its name helps
where the content could be a table's.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

from job.config.data_sections import ReadingSection
from job.conversations.captions import is_captions
from job.conversations.draft import Draft, RecordError, draft, plain
from job.conversations.formats.table import names_conversation
from job.conversations.json_text import MAX_RECORD_CHARACTERS, check_utf8
from job.conversations.speaker_lines import read_line
from job.conversations.speakers import Known
from job.conversations.transcript import LINE_END, NoSpeakerError, read_transcript

if TYPE_CHECKING:
    from job.storage.open import InputFile

COMPRESSED = re.compile(r"\.(?:gz|zst)$", re.IGNORECASE)
CAPTIONS = re.compile(r"\.(?:vtt|srt)$", re.IGNORECASE)
TEXT = re.compile(r"\.txt$", re.IGNORECASE)
SUMMARY = re.compile(r"\.summary\.txt$", re.IGNORECASE)
OF_OTHER_FORMATS = re.compile(r"\.(?:csv|tsv|json|jsonl|ndjson|parquet)$", re.IGNORECASE)
# Other endings are of programs, configs and mails, where each `key: value` reads like speech.
OF_TRANSCRIPTS = re.compile(
    r"(?:^|/)[^./]+$"
    r"|\.(?:txt|text|transcript|log|md|vtt|srt|[\d_-]+)$",
    re.IGNORECASE,
)
DELIMITER = re.compile(r"[,;\t|]")
LOOKED_AT_LINES = 20


@dataclass(frozen=True)
class WholeTranscript:
    """The one record of a file: its id from the file's name, and the text."""

    id: str
    text: str


@dataclass(frozen=True)
class Apart:
    """The files with conversations, and by their URI the files with their summaries."""

    files: "list[InputFile]"
    summaries: "dict[str, InputFile]"


def separate_summaries(files: "Iterable[InputFile]") -> Apart:
    """Separate files with summaries from those with conversations, wherever both are there."""
    everything = list(files)
    summaries = {_without(SUMMARY, file.uri): file for file in everything if _is_summary(file.uri)}
    if not summaries:
        return Apart(everything, {})
    found: dict[str, InputFile] = {}
    for file in everything:
        base = _base(file.uri)
        if base in summaries and not _is_summary(file.uri):
            found[file.uri] = summaries[base]
    taken = {file.uri for file in found.values()}
    return Apart([file for file in everything if file.uri not in taken], found)


def is_transcript(start: str, uri: str, reading: ReadingSection) -> bool:
    """Return True if a text that begins with `start` is a transcript, and no table nor JSON."""
    name = COMPRESSED.sub("", uri)
    if reading.format != "auto" or OF_OTHER_FORMATS.search(name):
        return reading.format == "transcript"
    lines = LINE_END.split(start.lstrip("\ufeff"), LOOKED_AT_LINES)
    if is_captions(lines):
        return True
    first = next((line for line in lines if line.strip()), "")
    if first.startswith(("{", "[{", '["')) or names_conversation(first, reading):
        return False
    if _names_a_speaker(first, reading):
        # Where a label may be any text, it proves nothing by itself.
        return reading.roles != "as_written" or OF_TRANSCRIPTS.search(name) is not None
    if first.startswith("["):  # an array over several lines
        return False
    if CAPTIONS.search(name):
        return True
    return TEXT.search(name) is not None and first != "" and not DELIMITER.search(first)


def transcript_rows(text: TextIO, uri: str) -> Iterator[tuple[int, WholeTranscript]]:
    """Yield the one record of a file of a transcript."""
    content = text.read(MAX_RECORD_CHARACTERS + 1)
    yield 1, WholeTranscript(name_of(uri), content)


def parse_transcript(record: WholeTranscript, reading: ReadingSection) -> Draft:
    """Return the conversation of a file. Raise RecordError if it is not one."""
    _check_text(record.text)
    try:
        transcript = read_transcript(plain(record.text), reading)
    except NoSpeakerError as error:
        remedy = "if the file is no transcript, leave it out by data.exclude"
        raise RecordError(f"{error.detail}; {remedy}") from error
    return draft(transcript.turns, (), {}, transcript.doubts)


def text_in(file: TextIO) -> str:
    """Return the text of a file with a summary.

    Raise RecordError if it is too long or not UTF-8.
    """
    text = file.read(MAX_RECORD_CHARACTERS + 1)
    _check_text(text)
    return str(plain(text)).strip()


def _check_text(text: str) -> None:
    if len(text) > MAX_RECORD_CHARACTERS:
        raise RecordError(f"the text is longer than {MAX_RECORD_CHARACTERS} characters")
    check_utf8(text)


def name_of(uri: str) -> str:
    """Return the id of the conversation in a file: its name without the ending of a transcript."""
    name: str = plain(_base(uri).rpartition("/")[2])
    return name


def _base(uri: str) -> str:
    """Return the URI without the ending of a transcript."""
    return _without(CAPTIONS, _without(TEXT, uri))


def _without(ending: re.Pattern[str], uri: str) -> str:
    return ending.sub("", COMPRESSED.sub("", uri))


def _is_summary(uri: str) -> bool:
    return SUMMARY.search(COMPRESSED.sub("", uri)) is not None


def _names_a_speaker(line: str, reading: ReadingSection) -> bool:
    known = Known(reading)
    found = read_line(1, line, known)
    if found.form in ("colon", "heading"):
        return True
    return found.form != "none" and (known(found.label) or found.is_bracketed or found.is_dated)
