"""A worker's part of a night: the chunks of its shard that nobody has committed yet, one after the other.

Purpose: read a chunk, summarize it, see that its input did not change meanwhile and that each record has one outcome,
commit it. A worker that is stopped or killed loses the chunk that it was at. Knows nothing of other workers, nor of
what the chunks become.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from job.config.commands import SummarizeConfig
from job.conversations.pieces import read_piece
from job.conversations.read import derived_id, id_digest
from job.conversations.record import BadRecord, Conversation
from job.errors import RecapError
from job.launch.environment import count_gpus
from job.summarization.answers import Done
from job.summarization.chunks import Chunk, Chunks, check_unchanged
from job.summarization.commit import Line, commit, committed
from job.summarization.outcomes import outcomes
from job.summarization.output import Output
from job.summarization.prepare import make_task
from job.summarization.records import Counts, Outcome, Summary, reject_row, summary_row
from job.summarization.shard import Shard
from job.summarization.summarizer import Summarizer
from job.summarization.writers import json_line
from job.telemetry import event, progress, warn

SHOWN_REJECTS = 5
_Origin = tuple[tuple[int, int], bytes, bool]  # file and line, digest of the id, whether it was derived


@dataclass(frozen=True)
class Night:
    """One run: its config, where it goes, and the chunks that all its workers agree on."""

    config: SummarizeConfig
    output: Output
    chunks: Chunks


def summarize_missing(night: Night, shard: Shard, work: Path, open_model: Callable[[], Summarizer]) -> Counts:
    """Commit the shard's missing chunks; what became of their records. The model is opened only if there are any."""
    place = night.output.store, night.chunks.folder
    done = committed(*place)
    mine = [chunk for chunk in night.chunks.chunks if shard.takes(chunk.number)]
    missing = [chunk for chunk in mine if chunk.number not in done]
    total = sum(chunk.records for chunk in missing)
    event("input", files=len(night.chunks.files), records=night.chunks.records, chunks=len(night.chunks.chunks))
    event("to do", shard=str(shard), chunks=len(missing), records=total, done_before=len(mine) - len(missing))
    counts = Counts()
    if not missing:
        return counts
    worker = _Worker(night, open_model(), work)
    with progress("summarizing", total, "conversation") as bar:
        for chunk in missing:
            counts = counts.plus(worker.do(chunk, bar.advance, begun=bool(done)))
            done.add(chunk.number)
    return counts


class _Worker:
    """What summarizes, and where files lie until they are committed."""

    def __init__(self, night: Night, summarizer: Summarizer, work: Path) -> None:
        self._night, self._work, self._gpus, self._shown = night, work, count_gpus(), 0
        self._task = make_task(night.config, summarizer)

    def do(self, chunk: Chunk, on_done: Done, begun: bool) -> Counts:
        """Summarize and commit a chunk; what became of its records."""
        path, start = self._work / f"{chunk.number:06d}.outcomes", time.monotonic()
        origins: deque[_Origin] = deque()
        found = outcomes(self._records(chunk, origins), self._task, on_done, begun)
        counts = self._write(found, origins, path)
        check_unchanged([self._night.chunks.files[number] for number in {number for number, _ in chunk.pieces}])
        if counts.records != chunk.records:
            raise RecapError(f"chunk {chunk.number}: {chunk.records} records, but {counts.records} have an outcome")
        facts = {"counts": counts, "seconds": round(time.monotonic() - start, 3), "gpus": self._gpus}
        if not commit((self._night.output.store, self._night.chunks.folder), chunk.number, path, facts):
            event("another worker was faster", chunk=chunk.number)
        path.unlink()
        return counts

    def _records(self, chunk: Chunk, origins: "deque[_Origin]") -> Iterator[Conversation | BadRecord]:
        """The chunk's records, each with an id; where each came from goes to `origins`, in the same order."""
        for number, piece in chunk.pieces:
            for record in read_piece(self._night.chunks.files[number], piece, self._night.config.data):
                place = number, record.source.line
                if isinstance(record, BadRecord):
                    origins.append((place, b"", False))
                    yield record
                    continue
                is_derived = not record.id
                id = record.id or derived_id(record)
                origins.append((place, id_digest(id), is_derived))
                yield replace(record, id=id) if is_derived else record

    def _write(self, found: Iterator[Outcome], origins: "deque[_Origin]", path: Path) -> Counts:
        """One line for each outcome; they come in the order of the records."""
        counts = Counts()
        with path.open("wb") as file:
            for outcome in found:
                place, id, is_derived = origins.popleft()
                counts = counts.with_one(outcome)
                if isinstance(outcome, BadRecord):
                    self._show(outcome)
                is_summary = isinstance(outcome, Summary)
                row = summary_row(outcome) if isinstance(outcome, Summary) else reject_row(outcome)
                file.write(Line(is_summary, is_derived, id, place, json_line(row)).to_bytes())
        return counts

    def _show(self, reject: BadRecord) -> None:
        if self._shown < SHOWN_REJECTS:
            warn("rejected", record=str(reject), reason=reject.reason)
        self._shown += 1
