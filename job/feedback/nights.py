"""The nights that agents have read: their manifests, and those of their lines that have a verdict.

A line has no digest of the conversation alone, but of the settings, the id and the turns. The
settings are in the night's manifest, so whoever has a conversation can compute the line's digest,
and knows by it that the conversation is what the model read.
"""

from array import array
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from hashlib import blake2b
from typing import Any, NamedTuple

from pydantic import ValidationError

from job.config.data_sections import ReadingSection
from job.config.redaction import RedactionSection
from job.config.sections import StorageSection, names_one_file
from job.conversations.record import Source
from job.conversations.redaction import Redactor, make_redactor
from job.errors import DamagedError, MissingError
from job.identity import json_digest
from job.storage.folders import MANIFEST, Manifest, read_manifest_file
from job.storage.keys import below, is_below
from job.storage.open import InputFile, open_store
from job.summarization.identity import hash_identity, hash_identity_of_challenger
from job.summarization.nights_before import DATE, inside_anchors
from job.summarization.output import SHADOW_ENDING, Output, open_output
from job.summarization.writers import unescaped
from job.summarization.written import written_files, written_rows
from job.telemetry import warn

COLUMNS = ("id", "summary", "digest", "adapter", "input_tokens", "source_uri", "source_line")
OTHERS = (".rejects.jsonl", SHADOW_ENDING)  # beside one file of summaries
REMEDY = "correct nights, or run that night again"


@dataclass(frozen=True)
class Night:
    """A finished output of `recap summarize`: where it is, how it read, and who wrote it.

    `day` is the last date in its name, None without one. `settings` has the hash with which digests
    of its lines begin, and that of the lines of a challenger, if it had one.
    """

    output: Output
    manifest: Manifest
    day: date | None
    settings: tuple[blake2b, ...]
    reading: ReadingSection
    redactor: Redactor | None
    inputs: tuple[str, ...]

    @property
    def name(self) -> str:
        """Its date, or else the last part of its URI."""
        return self.day.isoformat() if self.day else self.output.uri.rstrip("/").rpartition("/")[2]

    @property
    def week(self) -> str | None:
        """The week of its date, such as 2026-W05."""
        return week_of(self.day) if self.day else None

    @property
    def digest(self) -> str:
        """A digest of its settings and of the content of its files."""
        files = {key: entry.sha256 for key, entry in self.manifest.files.items()}
        return json_digest([self.manifest.extra["identity"], files])


class Line(NamedTuple):
    """A summary that a night wrote."""

    night: int  # its position among the nights
    id: str
    digest: str
    summary: str
    adapter: str | None
    input_tokens: int
    source: Source


@dataclass
class Written:
    """The lines of all nights that have a verdict, and the lengths of all lines.

    `lines` has, by id and digest, each different summary. `digests` has those of every id that a
    verdict names. The arrays have a number for each line of a night, in the same order.
    """

    lines: dict[tuple[str, str], list[Line]] = field(default_factory=dict)
    digests: dict[str, set[str]] = field(default_factory=dict)
    characters: list["array[int]"] = field(default_factory=list)  # of summaries, by night
    input_tokens: list["array[int]"] = field(default_factory=list)
    counts: dict[tuple[int, str | None], int] = field(default_factory=dict)  # by night and adapter


def find_nights(
    uris: Sequence[str], storage: StorageSection, anchors: Sequence[str] = ()
) -> list[Night]:
    """Return the finished nights at and below `uris`, each once, by date and URI.

    What is below `anchors` is no night. Those without a date in their names are last. Raise
    MissingError for a URI with none, DamagedError for an output that cannot be understood.
    """
    left_out = [open_store(uri, storage).uri for uri in anchors]
    nights: dict[str, Night] = {}
    for uri in uris:
        found = list(_nights_at(uri, storage, left_out))
        if not found:
            beside = f", but for anchors, {', '.join(anchors)}" if anchors else ""
            raise MissingError(
                f"{uri}: no finished output of recap summarize is there or below{beside}; correct "
                "nights"
            )
        nights |= {night.output.uri: night for night in found}
        _warn_of_anchors(found, open_store(uri, storage).uri)
    return sorted(nights.values(), key=_place)


def _warn_of_anchors(nights: Sequence[Night], uri: str) -> None:
    inside = inside_anchors(uri, (night.output.uri for night in nights))
    if inside:
        warn(
            "outputs below a folder `anchors` count as nights that agents have read: if they are "
            "those of recap watch, name their folder in the key anchors",
            count=len(inside),
            first=inside[0],
        )


def _place(night: Night) -> tuple[date, str]:
    return night.day or date.max, night.output.uri


def read_lines(nights: Sequence[Night], ids: Container[str]) -> Written:
    """Read every line of the nights, and keep those whose id is among `ids`.

    Of nights that wrote the same line, the first has it: an agent who has read any has read that.
    """
    written = Written()
    for number, night in enumerate(nights):
        characters = array("I")
        input_tokens = array("I")
        for line in _lines_of(night, number):
            characters.append(len(line.summary))
            input_tokens.append(line.input_tokens)
            key = (number, line.adapter)
            written.counts[key] = written.counts.get(key, 0) + 1
            if line.id in ids:
                written.digests.setdefault(line.id, set()).add(line.digest)
                same = written.lines.setdefault((line.id, line.digest), [])
                if line.summary not in [other.summary for other in same]:
                    same.append(line)
        written.characters.append(characters)
        written.input_tokens.append(input_tokens)
    return written


def week_of(day: date) -> str:
    """Return the ISO week of a day, such as 2026-W05."""
    year, week, _ = day.isocalendar()
    return f"{year}-W{week:02d}"


def _nights_at(uri: str, storage: StorageSection, left_out: Sequence[str]) -> Iterator[Night]:
    if names_one_file(uri):
        yield from _night(open_output(uri, storage))
        return
    store = open_store(uri, storage)
    for entry in store.list():
        folder, _, name = entry.key.rpartition("/")
        where = below(store.uri, folder) if folder else store.uri
        if any(part.startswith(("_", ".")) for part in entry.key.split("/")):
            continue
        if is_below(where, left_out):
            continue
        if name == MANIFEST:
            yield from _night(open_output(where, storage))
        elif name.endswith(f".{MANIFEST}"):
            manifest = read_manifest_file(store, entry.key)
            for key in manifest.files:
                if names_one_file(key) and not key.endswith(OTHERS):
                    yield from _night(open_output(below(where, key), storage))


def _night(output: Output) -> Iterator[Night]:
    """Yield the night at this output, nothing if another folder of recap is there."""
    try:
        manifest = read_manifest_file(output.store, output.manifest)
    except MissingError:
        return
    extra = manifest.extra
    identity = extra.get("identity")
    config = extra.get("config")
    if not isinstance(identity, Mapping) or not {"weights", "generation"} <= identity.keys():
        return
    try:
        reading = ReadingSection.model_validate(dict(config or {}).get("data", {}))
        section = identity["redaction"]
        redaction = None if section is None else RedactionSection.model_validate(section)
        inputs = tuple(identity["input"])
    except (ValidationError, KeyError, TypeError, ValueError) as error:
        raise DamagedError(
            f"{output.uri}: its manifest is of another version of recap and cannot be understood "
            f"({type(error).__name__}): {REMEDY}"
        ) from error
    yield Night(
        output=output,
        manifest=manifest,
        day=_date_in(output.uri),
        settings=_settings(identity),
        reading=reading,
        redactor=make_redactor(redaction),
        inputs=inputs,
    )


def _settings(identity: Mapping[str, Any]) -> tuple[blake2b, ...]:
    own = hash_identity(identity)
    challenger = hash_identity_of_challenger(identity)
    return (own,) if challenger is None else (own, challenger)


def _date_in(uri: str) -> date | None:
    """Return the last date in a name; None without one."""
    for found in reversed(DATE.findall(uri)):
        try:
            return date.fromisoformat(found)
        except ValueError:  # digits that are no date
            continue
    return None


def _lines_of(night: Night, number: int) -> Iterator[Line]:
    for file in written_files(night.output, night.manifest):
        if _has_rejects(file, night.output):
            continue
        is_escaped = file.key.lower().endswith(".csv") and _escapes(night.manifest)
        for row in written_rows(file, COLUMNS, REMEDY):
            yield _line(row, number, file, is_escaped)


def _has_rejects(file: InputFile, output: Output) -> bool:
    return file.key == output.rejects or file.key.startswith(f"{output.rejects}/")


def _escapes(manifest: Manifest) -> bool:
    config = manifest.extra.get("config") or {}
    form = config.get("csv_output") or {}
    return bool(form.get("formulas", "escape") == "escape")


def _line(row: Mapping[str, Any], night: int, file: InputFile, is_escaped: bool) -> Line:
    try:
        source = row.get("source")
        uri = source["uri"] if source else row["source_uri"]
        line = source["line"] if source else row["source_line"]
        id = str(row["id"])
        summary = str(row["summary"])
        if is_escaped:
            id = unescaped(id)
            summary = unescaped(summary)
        return Line(
            night=night,
            id=id,
            digest=str(row["digest"]),
            summary=summary,
            adapter=row.get("adapter") or None,
            input_tokens=int(row.get("input_tokens") or 0),
            source=Source(str(uri), int(line)),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedError(
            f"{file.uri}: has a line without {error}, which recap did not write: {REMEDY}"
        ) from error
