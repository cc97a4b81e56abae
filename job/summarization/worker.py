"""A worker's part of a night: summarize and commit the missing chunks of its shard.

A worker reads a chunk, summarizes its records, checks that its files have not changed meanwhile and
that each record has one outcome, and commits it. If the worker is stopped or killed, it loses the
chunk at hand, and what the engine had begun of the next ones.
"""

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from job.conversations.doubts import Doubts
from job.conversations.pieces import read_piece
from job.conversations.read import derived_id, id_digest
from job.conversations.record import Conversation, Reject
from job.conversations.redaction import redact_message
from job.environment import count_gpus
from job.errors import RecapError
from job.inference.each import Done
from job.summarization.background import Background, run_here
from job.summarization.chunk_store import ChunkFacts, OutcomeLine
from job.summarization.chunks import Chunk, Chunks
from job.summarization.crash_notes import read_crash_notes
from job.summarization.inputs import check_unchanged, unless_changed
from job.summarization.night import Night
from job.summarization.outcomes import Window, answer_windows, windows_of
from job.summarization.prepare import Task, prepare_each
from job.summarization.records import (
    Counts,
    Origin,
    Outcome,
    Position,
    Record,
    Summary,
    Tally,
    row_of,
)
from job.summarization.shard import Shard
from job.summarization.summarizer import Summarizer
from job.summarization.task import make_task
from job.summarization.writers import json_line
from job.telemetry import Phases, event, progress, warn

MAX_REJECTS_SHOWN = 5

# Of Python's garbage collector: objects made since the last collection of the youngest generation,
# and collections of each generation before the next older one is collected.
COLLECTOR_THRESHOLDS = 50_000, 20, 50


def summarize_missing(
    night: Night,
    chunks: Chunks,
    shard: Shard,
    work: Path,
    open_summarizer: Callable[[], Summarizer],
    phases: Phases,
) -> Counts:
    """Summarize and commit the shard's missing chunks, and return the counts of their records.

    The summarizer is opened only if a record needs it. The first outcome ends the `phases`.
    """
    store = night.chunk_store(chunks)
    committed = store.committed_numbers()
    mine = [chunk for chunk in chunks.chunks if shard.has(chunk.number)]
    missing = [chunk for chunk in mine if chunk.number not in committed]
    records = sum(chunk.records for chunk in missing)
    done_before = len(mine) - len(missing)
    event(
        "input",
        files=len(chunks.files),
        records=chunks.records,
        chunks=len(chunks.chunks),
    )
    event(
        "to do",
        shard=str(shard),
        chunks=len(missing),
        records=records,
        done_before=done_before,
    )
    if not missing:
        return Counts()

    notes = read_crash_notes(store, shard)
    task = make_task(night, chunks, store, notes, committed, open_summarizer)
    worker = _Worker(night, chunks, task, shard, work)

    # Chunks that no process has died at come first: nothing is lost if another one dies now.
    begun = task.engine.notes.begun
    fresh = [chunk for chunk in missing if not begun[chunk.number]]
    suspect = [chunk for chunk in missing if begun[chunk.number]]
    # A chunk that kills its process while it is read ends every attempt. The chunks with fewer
    # crashes must not wait behind it.
    suspect.sort(key=lambda chunk: begun[chunk.number])
    with progress("summarizing", records, "conversation") as bar, rare_collections():
        advance = _ending_phases(phases, bar.advance)
        worker.summarize(fresh, advance)
        # Another worker of this machine, which is alive, may have left the note of its chunk.
        suspect = [chunk for chunk in suspect if not shard.leaves(chunk.number)]
        if suspect:
            warn(
                "small batches from now on: a process died at these chunks",
                chunks=len(suspect),
                first=suspect[0].number,
            )
            task.be_careful()
            worker.summarize(suspect, advance)
    worker.doubts.warn()
    return worker.counts


def _ending_phases(phases: Phases, on_done: Done) -> Done:
    """Return `on_done`, which ends the phases at the first outcome."""

    def advance(count: int) -> None:
        if count > 0:
            phases.end_last("first_outcome")
        on_done(count)

    return advance


class _Worker:
    """Summarizes chunks one after the other; holds the outcomes of one chunk on this machine."""

    def __init__(self, night: Night, chunks: Chunks, task: Task, shard: Shard, work: Path) -> None:
        self.counts = Counts()  # of the chunks that are done
        # What a redacted night replaces must not be in its log either.
        self.doubts = Doubts(shows_text=task.redactor is None)
        self._night = night
        self._chunks = chunks
        self._store = night.chunk_store(chunks)
        self._task = task
        self._shard = shard
        self._notes = task.engine.notes
        self._background = Background[Window]()
        self._draft = work / "outcomes"  # of the chunk at hand
        self._tally = Tally()  # of the chunk at hand
        self._has_challenger_summaries = False  # in the chunk at hand
        self._started = 0.0  # work on the chunk at hand
        self._rejects_shown = 0
        # Of those that this process sees, an engine uses no more.
        self._gpus = min(night.config.tensor_parallel, count_gpus())
        self._workers = 1  # on this machine
        if shard.claims and isinstance(night.config.workers, int):
            self._workers = night.config.workers

    def summarize(self, chunks: Sequence[Chunk], on_done: Done) -> None:
        """Summarize these chunks, and commit each one when it is complete.

        The records of the next chunks are read, and in flight in the engine, before that.
        """
        by_number = {chunk.number: chunk for chunk in chunks}
        self._started = time.monotonic()
        try:
            for window in answer_windows(self._windows(chunks), self._task, on_done):
                self._write(window.outcomes)
                if window.ends_chunk:
                    self._commit(by_number[window.chunk])
        except BaseException as error:
            # A stop is a BaseException, and no crash: the next attempt may go on as usual. After an
            # error the notes stay, and the next attempt summarizes these chunks carefully.
            if isinstance(error, Exception):
                self._background.end()
            else:
                self._notes.end_all_chunks()
            raise

    def _windows(self, chunks: Sequence[Chunk]) -> Iterator[Window]:
        """Take and read the chunks, and yield their records, prepared, in windows.

        The next window is prepared while the engine answers the one that was yielded last.
        """
        last: Future[Window] | None = None
        for window in self._begin_windows(chunks):
            if last is not None:
                yield last.result()
            last = window
        if last is not None:
            yield last.result()

    def _begin_windows(self, chunks: Sequence[Chunk]) -> Iterator[Future[Window] | None]:
        """Take the chunks one by one, and yield each of their windows once it is begun.

        Yield None where all windows must be answered before another one is begun: in careful
        chunks, and before a chunk of an engine that wants no prompts ahead. What a process dies at
        is then in one chunk.
        """
        engine = self._task.engine
        for chunk in chunks:
            if not self._shard.take(chunk.number):
                continue
            # Before anything is read: a record may kill the process while it is read or prepared.
            self._notes.begin_chunk(chunk.number)
            windows = windows_of(chunk.number, prepare_each(self._read(chunk), self._task))
            ends_chunk = False
            while not ends_chunk:
                window = self._begin(partial(next, windows))
                yield window
                ends_chunk = window.result().ends_chunk
                if engine.is_careful or (ends_chunk and not engine.reads_ahead):
                    yield None

    def _begin(self, prepare: Callable[[], Window]) -> Future[Window]:
        """Prepare a window in a thread; in this one while the model is not loaded.

        Engines are loaded by the thread that handles signals.
        """
        if self._task.engine.loader.is_loaded:
            return self._background.start(prepare)
        return run_here(prepare)

    def _read(self, chunk: Chunk) -> Iterator[Record]:
        """Yield the chunk's records. A conversation without an id gets one from its content."""
        for part in chunk.pieces:
            file = self._chunks.files[part.file]
            with unless_changed(file):
                for content in read_piece(file, part.piece, self._night.config.data):
                    position = Position(part.file, content.source.line)
                    if isinstance(content, Reject):
                        yield Record(Origin(chunk.number, position), content)
                        continue
                    self.doubts.add(content)
                    yield self._identify(content, chunk.number, position)

    def _identify(self, conversation: Conversation, chunk: int, position: Position) -> Record:
        """Return the conversation as a record, with the digest of its own or its derived id."""
        is_derived = not conversation.id
        if is_derived:
            conversation = conversation._replace(id=derived_id(conversation))
        digest = id_digest(conversation.id)
        has_doubts = bool(conversation.doubts)
        return Record(Origin(chunk, position, digest, is_derived, has_doubts), conversation)

    def _write(self, outcomes: Sequence[Outcome]) -> None:
        """Append the outcomes to those of the chunk at hand, on this machine."""
        with self._draft.open("ab") as file:
            for outcome in outcomes:
                is_shadow = outcome.origin.is_shadow
                if not is_shadow:
                    self._tally.add(outcome)
                result = outcome.result
                if isinstance(result, Reject):
                    # The detail may quote the record.
                    detail = redact_message(result.detail, self._task.redactor)
                    result = replace(result, detail=detail)
                    if not is_shadow:
                        self._log_reject(result)
                row = json_line(row_of(result, self._digest_of(outcome.origin)))
                is_summary = isinstance(result, Summary)
                if is_summary and outcome.origin.writer != "adapter":
                    self._has_challenger_summaries = True
                line = OutcomeLine.of(
                    outcome.origin, row, is_summary=is_summary, figures=outcome.figures
                )
                file.write(line.to_bytes())

    def _digest_of(self, origin: Origin) -> str | None:
        """Return the digest of the adapter that made an outcome of this record."""
        challenger = self._task.challenger
        if challenger is None or origin.writer == "adapter":
            return self._night.digests.adapter
        return challenger.digest

    def _commit(self, chunk: Chunk) -> None:
        """Check the chunk at hand, and commit it unless another worker has."""
        # After the last record was read and before the commit: outcomes of a file that changed
        # meanwhile, of which some may be of its old content, never count.
        files = self._chunks.files
        numbers = {part.file for part in chunk.pieces}
        check_unchanged([files[number] for number in numbers], len(files))

        counts = self._tally.counts()
        if counts.records != chunk.records:
            wrong = f"{chunk.records} records, but {counts.records} have an outcome"
            raise RecapError(f"chunk {chunk.number}: {wrong}: {self._night.remedy()}")

        seconds = round(time.monotonic() - self._started, 3)
        loader = self._task.engine.loader
        facts = ChunkFacts(
            counts,
            seconds,
            self._gpus,
            loader.engine_name,
            self._workers,
            loader.departures,
            loader.cleaning,
            self._has_challenger_summaries,
        )
        if self._store.commit(chunk.number, self._draft, facts):
            event("chunk", number=chunk.number, records=counts.records, seconds=seconds)
        else:
            event("another worker was faster", chunk=chunk.number)

        # After the commit: a process that dies in between leaves the note of a committed chunk,
        # which nobody begins again. The other way round, a crash could go unnoticed.
        self._notes.end_chunk(chunk.number)

        self.counts = self.counts.plus(counts)
        self._tally = Tally()
        self._has_challenger_summaries = False
        self._draft.unlink()
        self._started = time.monotonic()

    def _log_reject(self, reject: Reject) -> None:
        """Log the first rejects; under redaction without their details, which quote the record."""
        if self._rejects_shown < MAX_REJECTS_SHOWN:
            record = str(reject.source if self._task.redactor else reject)
            warn("rejected", record=record, reason=reject.reason)
        self._rejects_shown += 1


@contextmanager
def rare_collections() -> Iterator[None]:
    """Collect garbage rarely in the block, and never look at the objects that exist before it.

    Records live until the outcomes of their window are written, and have no cycles. With Python's
    own thresholds, looking through them again and again takes a fifth of the time of a night with
    an engine that answers at once.
    """
    thresholds = gc.get_threshold()
    was_frozen = gc.get_freeze_count() > 0

    # Freezing exempts garbage too, which would then never be freed.
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECTOR_THRESHOLDS)
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)

        # Python can only unfreeze all objects at once. If the caller froze some, all stay frozen.
        if not was_frozen:
            gc.unfreeze()
