"""The chunks of a night: what is listed and cut once, recorded, and taken by every worker of every try.

Purpose: workers that start at different moments, and the next try, must mean the same by chunk 17. So whoever comes
first lists the input with sizes and versions, cuts it, and records both by one small guarded write, below a fingerprint
of everything that decides what is written; the others take what is recorded. Where a recorded file has changed since,
a new record follows it, with another digest: nothing of the two is ever mixed. Knows nothing of what chunks become.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import Any

from job.config.commands import SummarizeConfig
from job.config.sections import ChunksSection, ReadingSection
from job.conversations.csv_rows import Header
from job.conversations.pieces import Piece, Size, cut
from job.errors import AlreadyExistsError, ConfigError, DataError, MissingError, RetryError
from job.storage.keys import below
from job.storage.open import InputFile
from job.storage.store import Store
from job.summarization.inputs import check_enough
from job.telemetry import event

FINGERPRINT_DIGITS = 16
TRIES = 3
ASKED_FOR = 50  # files of one store, one by one
LISTED_PER_ASKED = 100  # a page of 1,000 takes about as long as ten files that are asked for


@dataclass(frozen=True)
class Chunk:
    """Consecutive records of the input: pieces with the number of the file that each is of."""

    number: int
    pieces: tuple[tuple[int, Piece], ...]

    @property
    def records(self) -> int:
        """How many records the pieces hold."""
        return sum(piece.records for _, piece in self.pieces)


@dataclass(frozen=True)
class Chunks:
    """The recorded input, its chunks in order, and the folder of the store where their outcomes come to lie."""

    files: tuple[InputFile, ...]
    chunks: tuple[Chunk, ...]
    folder: str

    @property
    def settings(self) -> str:
        """The folder of all chunks made with the same settings, of this input or another."""
        return self.folder.rpartition("/")[0]

    @property
    def records(self) -> int:
        """How many records the input holds."""
        return sum(chunk.records for chunk in self.chunks)


def fingerprint(content: Mapping[str, Any]) -> str:
    """A short digest of JSON values."""
    text = json.dumps(content, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:FINGERPRINT_DIGITS]


def size_of(section: ChunksSection) -> Size:
    """Where the config has the input cut."""
    return Size(section.records, round(section.megabytes * 1e6))


def count_chunks(files: Sequence[InputFile], reading: ReadingSection, size: Size) -> int:
    """How many chunks a run would cut these files into; reads them whole and records nothing."""
    return sum(1 for _ in _grouped(files, reading, size))


def agree_on_chunks(
    place: tuple[Store, str], files: Sequence[InputFile], config: SummarizeConfig
) -> Chunks:
    """The chunks as recorded in this folder of this store, recorded now if nobody did or the input has changed.

    Raises RetryError where files change while they are listed and cut; MissingError, and records nothing, where they
    hold fewer records than `limits.min_records`.
    """
    store, folder = place
    for _ in range(TRIES):
        newest = _newest(store, folder)
        recorded = _read(store, folder, newest, files) if newest else None
        if recorded and recorded.records >= config.limits.min_records:
            return recorded
        chunks = list(_grouped(files, config.data, size_of(config.chunks)))
        check_enough(sum(piece.records for pieces in chunks for _, piece in pieces), config)
        content = _recorded(files, chunks)
        check_unchanged(files)
        try:
            store.write(_key(folder, newest + 1), content, if_absent=True)
        except AlreadyExistsError:
            continue  # another worker was faster: what it recorded counts
    raise RetryError(
        f"{store.uri}/{folder}: the input changes faster than it can be listed: run again"
    )


def is_agreed(place: tuple[Store, str], chunks: Chunks) -> bool:
    """Whether these chunks are still what is recorded last, so that other workers take them too."""
    store, folder = place
    try:
        content = store.read(_key(folder, _newest(store, folder)))
    except MissingError:
        return False
    return _folder_of(folder, content) == chunks.folder


def check_unchanged(files: Sequence[InputFile], listed: int = 0) -> None:
    """RetryError if one of the files is not what was listed; `listed` is how many a listing would tell of.

    Few are asked for one by one. Many of one store are listed once more, at up to 1,000 in a request.
    """
    stores: dict[int, list[InputFile]] = {}
    for file in files:
        stores.setdefault(id(file.store), []).append(file)
    for mine in stores.values():
        many = len(mine) > max(ASKED_FOR, listed // LISTED_PER_ASKED)
        now = _list_versions(mine) if many else _ask_for(mine)
        for file in mine:
            if file.key not in now:
                raise RetryError(f"{file.uri} was removed while it was summarized: run again")
            if now[file.key] != file.version:
                raise RetryError(f"{file.uri} changed while it was summarized: run again")


@contextmanager
def unless_changed(file: InputFile) -> Iterator[None]:
    """What the block, which reads the file, cannot read of it is RetryError if the file is not what was listed."""
    try:
        yield
    except (
        DataError,
        MissingError,
        ConfigError,
    ):  # the last: S3's answer where an object ends before a piece begins
        check_unchanged([file])
        raise


def _list_versions(files: Sequence[InputFile]) -> dict[str, str]:
    """Return the versions by key of those files of one store that are there, by listing it."""
    keys = {file.key for file in files}
    # Keys of other files may be unfit to be paths, which is their own affair.
    entries = files[0].store.list(skip=lambda key: key not in keys)
    return {entry.key: entry.version for entry in entries}


def _ask_for(files: Sequence[InputFile]) -> dict[str, str]:
    """The versions of those files of one store that are there."""
    found = {}
    for file in files:
        with suppress(MissingError):
            found[file.key] = file.store.stat(file.key).version
    return found


def _recorded(files: Sequence[InputFile], chunks: Sequence[Sequence[tuple[int, Piece]]]) -> bytes:
    """The record: files, and chunks as lists of pieces."""
    event("the input is cut into chunks", files=len(files), chunks=len(chunks))
    listed = [{"uri": file.uri, "size": file.size, "version": file.version} for file in files]
    cut_up = [[{"file": number} | _lean(piece) for number, piece in pieces] for pieces in chunks]
    return json.dumps({"files": listed, "chunks": cut_up}, ensure_ascii=False).encode()


def _grouped(
    files: Sequence[InputFile], reading: ReadingSection, size: Size
) -> Iterator[list[tuple[int, Piece]]]:
    """The pieces of each chunk with the number of their file; small neighbours are one chunk."""
    group: list[tuple[int, Piece]] = []
    records = weight = 0
    for number, file in enumerate(files):
        with unless_changed(file):
            for piece in cut(file, reading, size):
                if group and (
                    records + piece.records > size.records or weight + piece.bytes > size.bytes
                ):
                    yield group
                    group, records, weight = [], 0, 0
                group.append((number, piece))
                records, weight = records + piece.records, weight + piece.bytes
    if group:
        yield group


def _lean(piece: Piece) -> dict[str, Any]:
    return {name: value for name, value in asdict(piece).items() if value is not None}


def _newest(store: Store, folder: str) -> int:
    """The number of the newest record; 0 where there is none."""
    names = [entry.key.rpartition("/")[2] for entry in store.list(folder)]
    numbers = [
        name.removeprefix("input-").removesuffix(".json")
        for name in names
        if name.startswith("input-")
    ]
    return max((int(number) for number in numbers if number.isdigit()), default=0)


def _read(store: Store, folder: str, number: int, files: Sequence[InputFile]) -> Chunks | None:
    """What is recorded; None if a file of it has changed since, or is gone. New files are left for another night."""
    try:
        content = store.read(_key(folder, number))
    except MissingError:
        return None
    raw = json.loads(content)
    there = {file.uri: file for file in files}
    listed = [there.get(file["uri"]) for file in raw["files"]]
    known = tuple(file for file in listed if file is not None)
    recorded = [(file["size"], file["version"]) for file in raw["files"]]
    if [(file.size, file.version) for file in known] != recorded or bool(known) != bool(files):
        return None
    chunks = tuple(
        Chunk(number, tuple((piece.pop("file"), _piece(piece)) for piece in pieces))
        for number, pieces in enumerate(raw["chunks"])
    )
    return Chunks(known, chunks, _folder_of(folder, content))


def _folder_of(folder: str, content: bytes) -> str:
    """Where the outcomes of the chunks of this record come to lie."""
    return below(folder, hashlib.sha256(content).hexdigest()[:FINGERPRINT_DIGITS])


def _piece(raw: dict[str, Any]) -> Piece:
    header = raw.pop("header", None)
    if header:
        header = Header(**header | {"columns": tuple(header["columns"])})
    return Piece(**raw, header=header)


def _key(folder: str, number: int) -> str:
    return below(folder, f"input-{number:04d}.json")
