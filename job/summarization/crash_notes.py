"""Crash notes: they record for the next attempt what was in flight when a process died.

A process that the system kills cannot report anything, and neither can one whose GPU has failed for
good. So a worker leaves a note beside the chunks before it begins a chunk. The note is deleted when
the chunk is committed or the process is asked to stop; it stays if anything else ends the process.
A chunk whose note stayed is summarized in small batches, with a note of the records of each.

A record that kills the process while it is read or prepared is not isolated: only the note of its
chunk stays.

Before it loads the model, a worker leaves another note. If that kills the process again and again,
the night ends: no record is to blame, and most often the container's memory is too small.
"""

import re
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from job.errors import ConfigError, MissingError, RecapError, unwritable
from job.identity import sha256_of
from job.launch.outcome import MORE_MEMORY
from job.summarization.chunk_store import ChunkStore
from job.summarization.shard import WHOLE, Shard

NOTE_NAME = re.compile(
    r"(begun-(?P<chunk>\d+)|loading-(?P<shard>\d+)-(?P<start>[0-9a-f]{12})|records)"
    r"-[0-9a-f]{32}\.json"
)
MAX_DEATHS_WHILE_LOADING = 3


class CrashNotes:
    """The notes that earlier attempts left, and those of this one. Without a store there are none.

    `begun` counts the notes that earlier attempts left of each chunk. `crashes` has every record of
    a small batch that ended a process, with the number of processes that ended while that record
    was alone in its batch. A record is named by its source, never by its content. `loading` has the
    notes of processes that died while they loaded the model for `shard`, by the start of a machine:
    several workers of one machine die together.
    """

    def __init__(self, store: ChunkStore | None = None, shard: Shard = WHOLE) -> None:
        self.begun: Counter[int] = Counter()
        self.crashes: dict[str, int] = {}
        self.loading: dict[str, list[str]] = {}
        self._shard = shard
        self._store = store
        self._own: dict[int, str] = {}  # names of this process's notes, by chunk
        self._to_delete: list[str] = []
        self._id = uuid.uuid4().hex[:12]

    @contextmanager
    def model_loading(self) -> Iterator[None]:
        """Leave a note that the model is being loaded, for the duration of the block.

        Raise ConfigError if the processes of several starts died in it, and delete their notes:
        whoever starts the night again has as many attempts.
        """
        claims = self._shard.claims
        others = [names for start, names in self.loading.items() if start != self._start()]
        if len(others) >= MAX_DEATHS_WHILE_LOADING or (claims and claims.given_up):
            if claims:
                claims.give_up()  # the other workers may not see the notes any more
            self._delete_all(others)
            raise ConfigError(
                f"{MAX_DEATHS_WHILE_LOADING} attempts in a row were killed while they loaded the "
                "model. Most often it is the memory of the container, of which each worker needs "
                f"its own: {MORE_MEMORY}. If it was something else, run the same command again: "
                "it has as many attempts"
            )
        name = f"loading-{self._shard.index}-{self._start()}-{uuid.uuid4().hex}.json"
        self._write(name, {})
        try:
            yield
        finally:
            self._delete(name)
        self._delete_all(others)

    def _start(self) -> str:
        """Return an id of this start of the machine, which its workers share."""
        claims = self._shard.claims
        return sha256_of(str(claims.folder).encode())[:12] if claims else self._id

    def _delete_all(self, names: Iterable[Sequence[str]]) -> None:
        for some in names:
            for name in some:
                self._delete(name)

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


def read_crash_notes(store: ChunkStore, shard: Shard = WHOLE) -> CrashNotes:
    """Return the notes that earlier attempts left in the folder, on loading only of this shard."""
    notes = CrashNotes(store, shard)
    for name in store.names():
        match = NOTE_NAME.fullmatch(name)
        if not match:
            continue
        # The names of these notes say everything, so no note of a chunk is read.
        if match["chunk"]:
            notes.begun[int(match["chunk"])] += 1
            continue
        if match["start"]:
            if int(match["shard"]) == shard.index:
                notes.loading.setdefault(match["start"], []).append(name)
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
