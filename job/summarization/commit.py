"""The outcomes of a chunk: one file of lines under a name of the writer's own, and a marker that makes it count.

Purpose: the marker is written last, by one small guarded write, and says which file is meant and what it holds; of two
workers on one chunk, the one whose marker is there has committed it, and the other takes its file away again. A line
is `S` (summary) or `R` (reject), how its record came to its id (`o` its own, `d` derived from its content, `-` none was
read), the id's digest, the number of the record's file, its line there, and the row as JSON, between tabs. Knows
nothing of how outcomes come about, nor of where they are put together.
"""

import json
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

from job.errors import AlreadyExistsError, DamagedError, MissingError
from job.storage.folders import sha256_file
from job.storage.keys import below, relative_to
from job.storage.store import Store
from job.summarization.records import Counts

DONE = ".done.json"
OURS = re.compile(
    r"probe-[0-9a-f]{32}|lease/\d+\.json|[0-9a-f]{16}/input-\d+\.json"
    r"|[0-9a-f]{16}/[0-9a-f]{16}/(\d+(-[0-9a-f]{32}\.outcomes|\.done\.json)|(begun-\d+|records)-[0-9a-f]{32}\.json)"
)


class Line(NamedTuple):
    """One outcome as it is written; what else is asked of it is read from that."""

    kind: bytes
    origin: bytes
    id_digits: bytes
    file: bytes
    number: bytes
    row: bytes

    @property
    def is_summary(self) -> bool:
        """Whether it is no reject."""
        return self.kind == b"S"

    @property
    def is_derived(self) -> bool:
        """Whether the record brought no id."""
        return self.origin == b"d"

    @property
    def id(self) -> bytes:
        """16 bytes of digest, empty where no id was read."""
        return bytes.fromhex(self.id_digits.decode())

    @property
    def place(self) -> tuple[int, int]:
        """The number of the record's file, and its line there."""
        return int(self.file), int(self.number)

    def to_bytes(self) -> bytes:
        """The line with its end."""
        return b"\t".join(self) + b"\n"

    @classmethod
    def from_bytes(cls, line: bytes) -> Self:
        """The opposite of `to_bytes`."""
        return cls(*line.rstrip(b"\n").split(b"\t", 5))


def make_line(
    is_summary: bool, is_derived: bool, id: bytes, place: tuple[int, int], row: bytes
) -> Line:
    """The line of an outcome; an empty `id` is none."""
    origin = (b"d" if is_derived else b"o") if id else b"-"
    return Line(
        b"S" if is_summary else b"R",
        origin,
        id.hex().encode(),
        b"%d" % place[0],
        b"%d" % place[1],
        row,
    )


@dataclass(frozen=True)
class Marker:
    """What a committed chunk is: its file of outcomes with size and SHA-256, what became of the records, how long it
    took, on how many GPUs and by which engine.
    """

    outcomes: str
    size: int
    sha256: str
    counts: Counts
    seconds: float
    gpus: int
    engine: str

    def to_json(self) -> bytes:
        """The marker's bytes."""
        return (json.dumps(asdict(self) | {"counts": self.counts.to_json()}) + "\n").encode()

    @classmethod
    def from_json(cls, text: bytes) -> Self:
        """The opposite of `to_json`."""
        raw: dict[str, Any] = json.loads(text)
        return cls(**raw | {"counts": Counts.from_json(raw["counts"])})


def commit(place: tuple[Store, str], number: int, path: Path, facts: Mapping[str, Any]) -> bool:
    """Make the outcomes in `path` those of the chunk; False if another worker's are already.

    `facts` are counts, seconds, gpus and engine of the marker.
    """
    store, folder = place
    name = f"{number:06d}-{uuid.uuid4().hex}.outcomes"
    marker = Marker(name, path.stat().st_size, sha256_file(path), **facts)
    store.upload(path, below(folder, name))
    try:
        store.write(_key(folder, number), marker.to_json(), if_absent=True)
    except AlreadyExistsError:
        winner = read_marker(store, folder, number)
        if (
            winner is not None and winner.outcomes != name
        ):  # else the answer to the first request was lost
            store.delete(below(folder, name))
            return False
    return True


def names_in(store: Store, folder: str) -> list[str]:
    """The names of what lies in the folder of the chunks."""
    return [entry.key.rpartition("/")[2] for entry in store.list(folder)]


def committed(names: Iterable[str]) -> set[int]:
    """The numbers of the chunks that have a marker among these names."""
    return {int(name.removesuffix(DONE)) for name in names if name.endswith(DONE)}


def read_marker(store: Store, folder: str, number: int) -> Marker | None:
    """The marker of a chunk; None if there is none."""
    try:
        return Marker.from_json(store.read(_key(folder, number)))
    except MissingError:
        return None


def fetch_outcomes(place: tuple[Store, str], marker: Marker, path: Path) -> None:
    """Bring the outcomes of a chunk to `path`; DamagedError, naming them, if they are not what the marker says."""
    store, folder = place
    where = f"{store.uri}/{below(folder, marker.outcomes)}"
    try:
        store.download(below(folder, marker.outcomes), path)
    except MissingError as error:
        raise DamagedError(
            f"{where} is gone, which a marker names: remove {store.uri}/{folder} and run again"
        ) from error
    if path.stat().st_size != marker.size or sha256_file(path) != marker.sha256:
        raise DamagedError(
            f"{where} is not what its marker says: remove {store.uri}/{folder} and run again"
        )


def read_lines(path: Path) -> Iterator[Line]:
    """The outcomes in a file, one at a time."""
    with path.open("rb") as file:
        for line in file:
            yield Line.from_bytes(line)


def remove_all(store: Store, chunks: str, only: str | None = None) -> bool:
    """Remove what recap wrote in the folder of chunks, or only in this folder of it; whether any chunk was committed.

    Markers first, so that none is without its outcomes.
    """
    listed = [entry.key for entry in store.list(only or chunks)]
    keys = [key for key in listed if OURS.fullmatch(relative_to(chunks, key))]
    for key in sorted(keys, key=lambda key: not key.endswith(DONE)):
        store.delete(key)
    return any(key.endswith(DONE) for key in keys)


def _key(folder: str, number: int) -> str:
    return below(folder, f"{number:06d}{DONE}")
