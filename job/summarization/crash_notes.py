"""Crash notes: they record for the next attempt what was in flight when a process died.

A process that the system kills cannot report anything, and neither can one whose GPU has failed for
good. So a worker leaves a note beside the chunks before it begins a chunk. The note is deleted when
the chunk is committed or the process is asked to stop; it stays if anything else ends the process.
A chunk whose note stayed is summarized in small batches, with a note of the records of each.

A record that kills the process while it is read or prepared is not isolated: only the note of its
chunk stays.
"""

import re
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from job.errors import MissingError, RecapError, unwritable
from job.summarization.chunk_store import ChunkStore

NOTE_NAME = re.compile(r"(begun-(?P<chunk>\d+)|records)-[0-9a-f]{32}\.json")


class CrashNotes:
    """The notes that earlier attempts left, and those of this one. Without a store there are none.

    `begun` counts the notes that earlier attempts left of each chunk. `crashes` has every record of
    a small batch that ended a process, with the number of processes that ended while that record
    was alone in its batch. A record is named by its source, never by its content.
    """

    def __init__(self, store: ChunkStore | None = None) -> None:
        self.begun: Counter[int] = Counter()
        self.crashes: dict[str, int] = {}
        self._store = store
        self._own: dict[int, str] = {}  # names of this process's notes, by chunk
        self._to_delete: list[str] = []

    def begin_chunk(self, number: int) -> None:
        """Leave a note that the chunk is in flight."""
        # A name of its own: a worker with the same chunk must not delete this note, and the next
        # attempt counts the processes that died.
        name = f"begun-{number:06d}-{uuid.uuid4().hex}.json"
        self._write(name, {})
        self._own[number] = name

    def end_chunk(self, number: int) -> None:
        """Delete the note of a chunk that is committed."""
        self._delete(self._own.pop(number))

    def end_all_chunks(self) -> None:
        """Delete the notes of all chunks in flight: the process is stopped, and did not crash."""
        for number in list(self._own):
            self.end_chunk(number)

    @contextmanager
    def records_in_flight(self, records: Sequence[str], crashes_alone: int = 0) -> Iterator[None]:
        """Leave a note of these records for the duration of the block.

        `crashes_alone` is the number of crashes that the record will have if this note stays; 0 for
        a batch of several.
        """
        name = f"records-{uuid.uuid4().hex}.json"
        try:
            # Written before the block begins. A process that is killed in it writes nothing more.
            self._write(name, {"records": list(records), "alone": crashes_alone})
            yield
            self._delete(name)
        except BaseException as error:
            # A stop (no Exception) and a full disk are no fault of a record.
            if not isinstance(error, Exception) or unwritable(error):
                self._delete(name)
            raise

    def _write(self, name: str, note: Any) -> None:
        if self._store is not None:
            self._store.write_note(name, note)

    def _delete(self, name: str) -> None:
        """Delete a note. If the store fails, delete it together with the next one."""
        if self._store is None:
            return
        # A note that cannot be deleted must not end the night. Those that failed before are tried
        # again, the newest first, and kept for the next call once one fails.
        self._to_delete.append(name)
        with suppress(RecapError):
            while self._to_delete:
                self._store.delete_note(self._to_delete[-1])
                self._to_delete.pop()


def read_crash_notes(store: ChunkStore) -> CrashNotes:
    """Return the notes that earlier attempts left in the folder."""
    notes = CrashNotes(store)
    for name in store.names():
        match = NOTE_NAME.fullmatch(name)
        if not match:
            continue
        # The names of these notes say everything, so no note of a chunk is read.
        if match["chunk"]:
            notes.begun[int(match["chunk"])] += 1
            continue
        try:
            note = store.read_note(name)
        except MissingError:
            continue  # deleted since the folder was listed: its worker is alive

        # The highest number counts: an attempt notes one more than it found. A batch of several
        # notes 0: its records are suspects, and none of them has crashed alone.
        for record in note["records"]:
            notes.crashes[record] = max(note["alone"], notes.crashes.get(record, 0))
    return notes
