"""A worker's part of a night: the chunks of its shard that nobody has committed yet, one after the other.

Purpose: read a chunk, summarize it, see that its input did not change meanwhile and that each record has one outcome,
commit it. A worker that is stopped or killed loses the chunk that it was at, and what was under way of the next ones.
Knows nothing of other workers, nor of what the chunks become.
"""

import time
from collections import deque
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from job.config.commands import SummarizeConfig
from job.config.sections import as_list
from job.conversations.doubts import Doubts
from job.conversations.pieces import read_piece
from job.conversations.read import derived_id, id_digest
from job.conversations.record import Conversation, Reject
from job.conversations.redaction import make_redactor, redact_message
from job.environment import count_gpus
from job.errors import RecapError
from job.inference.each import Done
from job.storage.selection import LeftOut
from job.summarization.chunks import Chunk, Chunks, check_unchanged, unless_changed
from job.summarization.collector import seldom_collected
from job.summarization.commit import commit, committed, make_line, names_in, read_marker
from job.summarization.done import read_digests
from job.summarization.outcomes import outcomes
from job.summarization.output import Output
from job.summarization.prepare import Task, hash_settings
from job.summarization.records import Counts, Outcome, Summary, Tally, reject_row, summary_row
from job.summarization.shard import Shard
from job.summarization.summarizer import Digests, Summarizer
from job.summarization.suspects import Suspects, read_suspects
from job.summarization.writers import json_line
from job.telemetry import event, progress, warn

SHOWN_REJECTS = 5
MARKERS_ASKED = 5  # for whether the model has answered in this night


@dataclass(frozen=True)
class Night:
    """One run: its config, where it goes, the chunks that all its workers agree on, and the digests of the weights.

    `left_out` are the files below the input that are not read.
    """

    config: SummarizeConfig
    output: Output
    chunks: Chunks
    digests: Digests
    left_out: LeftOut = field(default_factory=LeftOut)

    @property
    def remedy(self) -> str:
        """What to do where committed chunks do not add up."""
        where = f"{self.output.store.uri}/{self.chunks.settings}"
        return f"remove {where} and run again; if it ends so again, this is a bug in recap: please report it"


class _Origin(NamedTuple):
    """Where a record came from: chunk, file and line; the digest of its id, and if that is derived.

    `has_doubts` says that lines of it may be another speaker's.
    """

    chunk: int
    place: tuple[int, int]
    id: bytes
    is_derived: bool
    has_doubts: bool = False


def summarize_missing(
    night: Night, shard: Shard, work: Path, open_model: Callable[[], Summarizer]
) -> Counts:
    """Commit the shard's missing chunks; what became of their records. The model is opened only if one needs it."""
    place = night.output.store, night.chunks.folder
    names = names_in(*place)
    done = committed(names)
    mine = [chunk for chunk in night.chunks.chunks if shard.takes(chunk.number)]
    missing = [chunk for chunk in mine if chunk.number not in done]
    total = sum(chunk.records for chunk in missing)
    event(
        "input",
        files=len(night.chunks.files),
        records=night.chunks.records,
        chunks=len(night.chunks.chunks),
    )
    event(
        "to do",
        shard=str(shard),
        chunks=len(missing),
        records=total,
        done_before=len(mine) - len(missing),
    )
    counts = Counts()
    if not missing:
        return counts
    before = as_list(night.config.skip_done or [])
    # Before the model is loaded: a mistake in skip_done is told at once.
    skipped = read_digests(before, night.config.storage) if before else ()
    suspects = read_suspects(*place, names)
    suspects.has_answered = any(
        _has_summaries(night, number) for number in sorted(done)[:MARKERS_ASKED]
    )
    task = _make_task(night, open_model, skipped, suspects)
    if not skipped:
        _ = task.summarizer  # loaded before the progress begins
    worker = _Worker(night, task, work)
    again = [chunk for chunk in missing if suspects.begun[chunk.number]]
    first = [chunk for chunk in missing if not suspects.begun[chunk.number]]
    with progress("summarizing", total, "conversation") as bar, seldom_collected():
        for of_chunk in worker.do(first, bar.advance):
            counts = counts.plus(of_chunk)
        if again:
            warn(
                "small batches from now on: a process died at these chunks",
                chunks=len(again),
                first=again[0].number,
            )
            suspects.is_careful = True
        for of_chunk in worker.do(again, bar.advance):
            counts = counts.plus(of_chunk)
    worker.doubts.warn()
    return counts


def _has_summaries(night: Night, chunk: int) -> bool:
    marker = read_marker(night.output.store, night.chunks.folder, chunk)
    return marker is not None and marker.counts.summaries > 0


def _make_task(
    night: Night,
    open_model: Callable[[], Summarizer],
    skipped: Container[bytes],
    suspects: Suspects,
) -> Task:
    config = night.config
    return Task(
        open_model,
        config.generation,
        config.long_conversations,
        config.cut_summaries,
        make_redactor(config.redaction),
        hash_settings(config, night.digests),
        skipped,
        suspects,
    )


class _Worker:
    """What summarizes, and where files lie until they are committed."""

    def __init__(self, night: Night, task: Task, work: Path) -> None:
        self._night, self._task, self._work, self._shown = night, task, work, 0
        # What a redacted night replaces must not stand in its log either.
        self.doubts = Doubts(shows_text=task.redactor is None)
        self._notes: dict[int, str] = {}  # of the chunks under way
        self._gpus = min(
            1, count_gpus()
        )  # an engine is in one process, on one of those that it sees

    def do(self, chunks: Sequence[Chunk], on_done: Done) -> Iterator[Counts]:
        """Summarize the chunks and commit each when it is complete; what became of its records.

        Its successors are read, and under way in the engine, while its last records end.
        """
        origins: deque[_Origin] = deque()
        found = outcomes((self._records(chunk, origins) for chunk in chunks), self._task, on_done)
        try:
            for chunk in chunks:
                counts = self._complete(chunk, found, origins)
                self._task.suspects.take_away(self._notes.pop(chunk.number))
                yield counts
        except BaseException as end:
            if not isinstance(
                end, Exception
            ):  # told to stop; chunks that an error ended at are begun with more care
                for note in self._notes.values():
                    self._task.suspects.take_away(note)
            raise

    def _complete(
        self, chunk: Chunk, found: Iterator[Outcome], origins: "deque[_Origin]"
    ) -> Counts:
        """Summarize one chunk and commit it."""
        path, start = self._work / f"{chunk.number:06d}.outcomes", time.monotonic()
        counts = self._write(chunk, found, origins, path)
        files = self._night.chunks.files
        check_unchanged(
            [files[number] for number in {number for number, _ in chunk.pieces}], len(files)
        )
        if counts.records != chunk.records:
            wrong = f"{chunk.records} records, but {counts.records} have an outcome"
            raise RecapError(f"chunk {chunk.number}: {wrong}: {self._night.remedy}")
        seconds = round(time.monotonic() - start, 3)
        facts = {
            "counts": counts,
            "seconds": seconds,
            "gpus": self._gpus,
            "engine": self._task.engine_name,
        }
        if not commit(
            (self._night.output.store, self._night.chunks.folder), chunk.number, path, facts
        ):
            event("another worker was faster", chunk=chunk.number)
        path.unlink()
        return counts

    def _records(self, chunk: Chunk, origins: "deque[_Origin]") -> Iterator[Conversation | Reject]:
        """The chunk's records, each with an id; where each came from goes to `origins`, in the same order."""
        self._notes[chunk.number] = self._task.suspects.begin(chunk.number)
        for number, piece in chunk.pieces:
            file = self._night.chunks.files[number]
            with unless_changed(file):
                for record in read_piece(file, piece, self._night.config.data):
                    place = number, record.source.line
                    if isinstance(record, Reject):
                        origins.append(_Origin(chunk.number, place, b"", False))
                        yield record
                        continue
                    self.doubts.add(record)
                    is_derived = not record.id
                    id = record.id or derived_id(record)
                    digest, has_doubts = id_digest(id), bool(record.doubts)
                    origins.append(_Origin(chunk.number, place, digest, is_derived, has_doubts))
                    yield record._replace(id=id) if is_derived else record

    def _write(
        self, chunk: Chunk, found: Iterator[Outcome], origins: "deque[_Origin]", path: Path
    ) -> Counts:
        """One line for each outcome of the chunk; they come in the order of the records."""
        tally, unclear_speakers = Tally(), 0
        with path.open("wb") as file:
            for outcome in islice(found, chunk.records):
                origin = origins.popleft()
                if origin.chunk != chunk.number:
                    break  # told by the count
                tally.add(outcome)
                unclear_speakers += origin.has_doubts
                if isinstance(outcome, Reject):
                    detail = redact_message(outcome.detail, self._task.redactor)
                    outcome = replace(outcome, detail=detail)
                    self._show(outcome)
                is_summary = isinstance(outcome, Summary)
                row = summary_row(outcome) if isinstance(outcome, Summary) else reject_row(outcome)
                file.write(
                    make_line(
                        is_summary, origin.is_derived, origin.id, origin.place, json_line(row)
                    ).to_bytes()
                )
        return replace(tally.counts(), unclear_speakers=unclear_speakers)

    def _show(self, reject: Reject) -> None:
        """Log the first rejects; under redaction without their details, which quote the record."""
        if self._shown < SHOWN_REJECTS:
            record = str(reject.source if self._task.redactor else reject)
            warn("rejected", record=record, reason=reject.reason)
        self._shown += 1
