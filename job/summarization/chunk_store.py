"""The folder of a night's chunks in the output's store: outcomes, markers and crash notes.

The outcomes of a chunk are one file of lines, under a name that no other worker uses. A marker
makes that file count: it is written last, by one guarded write, and names the file with its size
and SHA-256. If two workers summarize the same chunk, the one whose marker is there has committed
it, and the other deletes its own file.

A line of outcomes has these fields, separated by tabs:

- `S` for a summary or `R` for a reject; with a `c` after it, of the challenger in place of the
  adapter; with an `s`, of the challenger beside the adapter, whose line is the one before;
- where the id came from: `o` the record's own, `d` derived from its content, `-` none was read;
- the digest of the id, in hexadecimal digits;
- the number of the record's file, and its line there;
- the row of the output, as JSON;
- in the sample of `quality.py`, the figures of the record, as JSON.
"""

import json
import re
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

from job.config.data_sections import CleaningStep
from job.errors import AlreadyExistsError, DamagedError, MissingError
from job.storage.folders import sha256_file
from job.storage.keys import below, relative_to
from job.storage.store import Store
from job.summarization.records import Counts, Origin, Position, Writer

MARKER_SUFFIX = ".done.json"
SUMMARY = b"S"  # kinds of outcomes, in their lines
REJECT = b"R"
WRITERS: dict[Writer, bytes] = {"adapter": b"", "canary": b"c", "shadow": b"s"}

# Every key below the folder of chunks that recap writes; whatever else is there belongs to others.
OWN_KEYS = re.compile(
    r"probe-[0-9a-f]{32}"
    r"|(champion|challenger)-[0-9a-f]{16}\.json"
    r"|lease/\d+\.json"
    r"|[0-9a-f]{16}/input-\d+\.json"
    r"|[0-9a-f]{16}/[0-9a-f]{16}/\d+-[0-9a-f]{32}\.outcomes"
    r"|[0-9a-f]{16}/[0-9a-f]{16}/\d+\.done\.json"
    r"|[0-9a-f]{16}/[0-9a-f]{16}/(begun-\d+|loading-\d+-[0-9a-f]{12}|records|scoring)-[0-9a-f]{32}\.json"
)


class OutcomeLine(NamedTuple):
    """One line of outcomes, as the bytes of its fields; the properties parse them."""

    kind: bytes
    id_origin: bytes
    id_digits: bytes
    file: bytes
    line: bytes
    row: bytes
    figures: bytes = b""

    @classmethod
    def of(cls, origin: Origin, row: bytes, *, is_summary: bool, figures: bytes = b"") -> Self:
        """Return the line of one outcome."""
        if not origin.id_digest:
            id_origin = b"-"
        elif origin.is_derived:
            id_origin = b"d"
        else:
            id_origin = b"o"
        return cls(
            (SUMMARY if is_summary else REJECT) + WRITERS[origin.writer],
            id_origin,
            origin.id_digest.hex().encode(),
            b"%d" % origin.position.file,
            b"%d" % origin.position.line,
            row,
            figures,
        )

    @property
    def is_summary(self) -> bool:
        """True for a summary, False for a reject or a skipped record."""
        return self.kind.startswith(SUMMARY)

    @property
    def is_shadow(self) -> bool:
        """True for the second line of a record, which counts as no outcome of it."""
        return self.kind.endswith(WRITERS["shadow"])

    @property
    def is_by_challenger(self) -> bool:
        """True for what the challenger made of a record."""
        return len(self.kind) > 1

    @property
    def is_derived(self) -> bool:
        """True if the record brought no id and recap derived one."""
        return self.id_origin == b"d"

    @property
    def id_digest(self) -> bytes:
        """The 16 bytes of the id's digest; empty if no id was read."""
        return bytes.fromhex(self.id_digits.decode())

    @property
    def position(self) -> Position:
        """The position of the record in the input."""
        return Position(int(self.file), int(self.line))

    def to_bytes(self) -> bytes:
        """Return the line with its line break."""
        fields = self if self.figures else self[:-1]
        return b"\t".join(fields) + b"\n"

    @classmethod
    def from_bytes(cls, line: bytes) -> Self:
        """Parse what `to_bytes` returned."""
        # JSON has no tab in it: those of a text are escaped.
        return cls(*line.rstrip(b"\n").split(b"\t"))


@dataclass(frozen=True)
class ChunkFacts:
    """Facts about a summarized chunk: its counts, and how long it took on how many GPUs.

    `workers` is the number of workers that shared the machine. `departures` are what differed from
    the settings that the adapter carries. `cleaning` has the steps by which conversations
    were cleaned, None if no model was loaded. `has_challenger_summaries` is True if the challenger
    made one.
    """

    counts: Counts
    seconds: float
    gpus: int
    engine: str  # name and version
    workers: int = 1
    departures: tuple[str, ...] = ()
    cleaning: tuple[CleaningStep, ...] | None = None
    has_challenger_summaries: bool = False


@dataclass(frozen=True)
class Marker:
    """The marker of a committed chunk: name, size and SHA-256 of its outcomes, and its facts."""

    outcomes: str
    size: int
    sha256: str
    facts: ChunkFacts

    def to_json(self) -> bytes:
        """Return the bytes of the marker's file."""
        content = {
            "outcomes": self.outcomes,
            "size": self.size,
            "sha256": self.sha256,
            **asdict(self.facts),
            "counts": self.facts.counts.to_json(),
        }
        return (json.dumps(content) + "\n").encode()

    @classmethod
    def from_json(cls, text: bytes) -> Self:
        """Parse what `to_json` returned."""
        raw: dict[str, Any] = json.loads(text)
        facts = ChunkFacts(
            counts=Counts.from_json(raw["counts"]),
            seconds=raw["seconds"],
            gpus=raw["gpus"],
            engine=raw["engine"],
            workers=raw.get("workers", 1),  # earlier versions had one
            departures=tuple(raw.get("departures", ())),  # earlier versions had none
            cleaning=None if raw.get("cleaning") is None else tuple(raw["cleaning"]),
            has_challenger_summaries=raw.get("has_challenger_summaries", False),
        )
        return cls(raw["outcomes"], raw["size"], raw["sha256"], facts)


@dataclass(frozen=True)
class ChunkStore:
    """The folder of a store that holds the chunks of one night."""

    store: Store
    folder: str

    @property
    def uri(self) -> str:
        """The folder's URI."""
        return f"{self.store.uri}/{self.folder}"

    def names(self) -> list[str]:
        """Return the names of all files in the folder."""
        return [entry.key.rpartition("/")[2] for entry in self.store.list(self.folder)]

    def committed_numbers(self) -> set[int]:
        """Return the numbers of the chunks that have a marker."""
        names = [name for name in self.names() if name.endswith(MARKER_SUFFIX)]
        return {int(name.removesuffix(MARKER_SUFFIX)) for name in names}

    def commit(self, number: int, path: Path, facts: ChunkFacts) -> bool:
        """Upload the outcomes in `path` and commit them as those of the chunk.

        Return False, and leave nothing behind, if another worker has committed the chunk.
        """
        # A name of its own: two workers with the same chunk never write to one key, and outcomes
        # that a marker names never change.
        name = f"{number:06d}-{uuid.uuid4().hex}.outcomes"
        marker = Marker(name, path.stat().st_size, sha256_file(path), facts)

        # Outcomes first: a marker must never name a file that is not there yet.
        self.store.upload(path, self._key(name))

        # The guarded write is the commit. A process that dies before it leaves outcomes that no
        # marker names: nobody reads them, and they are deleted with the other chunks.
        try:
            self.store.write(self._key(_marker_name(number)), marker.to_json(), if_absent=True)
        except AlreadyExistsError:
            # A request whose answer was lost is sent again, and finds this worker's own marker.
            winner = self.read_marker(number)
            if winner is not None and winner.outcomes != name:
                self.store.delete(self._key(name))
                return False
        return True

    def read_marker(self, number: int) -> Marker | None:
        """Return the marker of a chunk, or None if the chunk is not committed."""
        try:
            return Marker.from_json(self.store.read(self._key(_marker_name(number))))
        except MissingError:
            return None

    def fetch_outcomes(self, marker: Marker, path: Path) -> None:
        """Download the outcomes of a committed chunk to `path`.

        Raise DamagedError, which names them, if they do not match their marker.
        """
        where = f"{self.store.uri}/{self._key(marker.outcomes)}"
        try:
            self.store.download(self._key(marker.outcomes), path)
        except MissingError as error:
            raise DamagedError(
                f"{where} is gone, which a marker names: remove {self.uri} and run again"
            ) from error

        # The size first: it is known at once, and a file that was cut off needs no hash.
        if path.stat().st_size != marker.size or sha256_file(path) != marker.sha256:
            raise DamagedError(
                f"{where} is not what its marker says: remove {self.uri} and run again"
            )

    def read_note(self, name: str) -> Any:
        """Return the JSON of a crash note. Raise MissingError if it was deleted meanwhile."""
        return json.loads(self.store.read(self._key(name)))

    def write_note(self, name: str, note: Any) -> None:
        """Write a crash note as JSON."""
        self.store.write(self._key(name), json.dumps(note).encode())

    def delete_note(self, name: str) -> None:
        """Delete a crash note."""
        self.store.delete(self._key(name))

    def _key(self, name: str) -> str:
        return below(self.folder, name)


def read_lines(path: Path) -> Iterator[OutcomeLine]:
    """Yield the lines of a file of outcomes."""
    with path.open("rb") as file:
        for line in file:
            yield OutcomeLine.from_bytes(line)


def delete_chunks(store: Store, chunks: str, only: str | None = None) -> bool:
    """Delete recap's files below the folder `chunks`, or only those below its folder `only`.

    Return True if any chunk had been committed.
    """
    # A file that somebody else has put into the folder stays.
    listed = [entry.key for entry in store.list(only or chunks)]
    keys = [key for key in listed if OWN_KEYS.fullmatch(relative_to(chunks, key))]

    # Markers first: a process that dies in between leaves no marker whose outcomes are gone.
    markers = [key for key in keys if key.endswith(MARKER_SUFFIX)]
    others = [key for key in keys if not key.endswith(MARKER_SUFFIX)]
    for key in [*markers, *others]:
        store.delete(key)
    return bool(markers)


def _marker_name(number: int) -> str:
    return f"{number:06d}{MARKER_SUFFIX}"
