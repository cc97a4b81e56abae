"""Committed chunks → the files of the output on this machine, in the order of the input, at constant memory.

Purpose: here it is checked that summaries and rejects together are the input, each record once: the outcomes of each
chunk are as many as the records that were counted when it was cut, and their places only ascend. An id must be unique
in the whole input, which only here is in sight: who brings one that stood before is a reject, and ids that recap
derived from the content are numbered. Knows nothing of how outcomes come about, nor of publishing.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from job.conversations.record import Reject, Source
from job.errors import RecapError, RetryError
from job.storage.open import InputFile
from job.summarization.chunks import Chunk
from job.summarization.commit import (
    Line,
    Marker,
    fetch_outcomes,
    make_line,
    read_lines,
    read_marker,
)
from job.summarization.records import Counts, counts_of_row, reject_row
from job.summarization.repeats import Ids, Place, Repeat, counted_ids
from job.summarization.worker import Night
from job.summarization.writers import Write, json_line


@dataclass(frozen=True)
class Assembled:
    """What became of all records, how long the machines worked for it, in seconds, and the chunks of each engine."""

    counts: Counts
    seconds: float
    gpu_seconds: float
    engines: Mapping[str, int]


def assemble(night: Night, work: Path, target: Path) -> Assembled:
    """Fetch and check every chunk's outcomes, then write summaries and rejects below `target` as in the store."""
    paths, counts, seconds, gpu_seconds, last = [], Counts(), 0.0, 0.0, (0, 0)
    engines = Counter[str]()
    with counted_ids(work / "ids") as ids:
        for chunk in night.chunks.chunks:
            path = work / f"{chunk.number:06d}.fetched"
            marker = _fetch(night, chunk, path)
            last = _check(night, chunk, path, ids, last)
            paths.append(path)
            counts, seconds = counts.plus(marker.counts), seconds + marker.seconds
            gpu_seconds += marker.seconds * marker.gpus
            engines[marker.engine] += 1
        written = _write(night, paths, target, ids.repeats())
    counts = counts.plus(written)
    if counts.records != night.chunks.records:
        wrong = f"{night.chunks.records} records, but {counts.records} have an outcome"
        raise RecapError(f"{night.output.uri}: {wrong}: {night.remedy}")
    return Assembled(counts, seconds, gpu_seconds, engines)


def _fetch(night: Night, chunk: Chunk, path: Path) -> Marker:
    place = night.output.store, night.chunks.folder
    marker = read_marker(*place, chunk.number)
    if marker is None:
        raise RetryError(
            f"{night.output.uri}: chunk {chunk.number} was there and is gone: run again"
        )
    fetch_outcomes(place, marker, path)
    return marker


def _check(night: Night, chunk: Chunk, path: Path, ids: Ids, last: Place) -> Place:
    """The place of the chunk's last record; RecapError unless it has each of its records once."""
    records = 0
    for line in read_lines(path):
        place = line.place
        if place <= last:
            where = Source(night.chunks.files[place[0]].uri, place[1])
            raise RecapError(f"chunk {chunk.number}: {where} has two outcomes: {night.remedy}")
        last, records = place, records + 1
        if line.id_digits:
            ids.add(line.id, place, line.is_derived)
    if records != chunk.records:
        wrong = f"{chunk.records} records, but {records} have an outcome"
        raise RecapError(f"chunk {chunk.number}: {wrong}: {night.remedy}")
    return last


def _write(night: Night, paths: Sequence[Path], target: Path, repeats: Iterator[Repeat]) -> Counts:
    """Write all outcomes, each file removed when it is done; how the counts differ from those of the chunks."""
    changed, repeat = Counts(), next(repeats, None)
    writer = night.output.write_summaries(target, night.config.csv_output)
    with writer as summary, night.output.write_rejects(target) as reject:
        for path in paths:
            for line in read_lines(path):
                if repeat is not None and repeat.place == line.place:
                    line, difference = _settled(line, repeat, night.chunks.files)
                    changed, repeat = changed.plus(difference), next(repeats, None)
                write: Write = summary if line.is_summary else reject
                write(line.row)
            path.unlink()
    return changed


def _settled(line: Line, repeat: Repeat, files: Sequence[InputFile]) -> tuple[Line, Counts]:
    """The outcome of a record whose id stood before, and how the counts change by it."""
    row = json.loads(line.row)
    if line.is_derived:
        numbered = row | {"id": f"{row['id']}-{repeat.number}"}
        return line._replace(row=json_line(numbered)), Counts()
    file, number = repeat.first
    detail = f"id '{row['id']}' already stands at {Source(files[file].uri, number)}"
    source = Source(row["source"]["uri"], row["source"]["line"])
    bad = Reject(source, "invalid_record", detail, row["id"])
    difference = Counts(rejects={bad.reason: 1}).minus(counts_of_row(row, line.is_summary))
    return make_line(False, False, line.id, line.place, json_line(reject_row(bad))), difference
