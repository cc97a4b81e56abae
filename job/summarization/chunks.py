"""The chunks of a night, which all its workers and all its attempts agree on.

The first worker lists the input, cuts it into chunks, and records both by one guarded write. The
record lies in a folder that is named by a fingerprint of everything that decides what is written;
all other workers and later attempts use it, so that chunk 17 means the same records to all of them.
If a recorded file has changed since, the next worker records the input anew. The outcomes of each
record lie in a folder of its own, so those of two inputs are never mixed.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from job.config.commands import SummarizeConfig
from job.config.data_sections import ReadingSection
from job.config.sections import ChunksSection
from job.conversations.csv_rows import Header
from job.conversations.pieces import Piece, Size, cut
from job.errors import AlreadyExistsError, MissingError, RetryError
from job.identity import sha256_of
from job.storage.keys import below
from job.storage.open import InputFile
from job.storage.store import Store
from job.summarization.identity import FINGERPRINT_DIGITS
from job.summarization.inputs import check_enough, check_unchanged, unless_changed
from job.telemetry import event

MAX_ATTEMPTS = 3


@dataclass(frozen=True)
class FilePiece:
    """A piece of the file that has this number in the input."""

    file: int
    piece: Piece


@dataclass(frozen=True)
class Chunk:
    """Consecutive records of the input: pieces of one or more files."""

    number: int
    pieces: tuple[FilePiece, ...]

    @property
    def records(self) -> int:
        """The number of records in the chunk."""
        return sum(part.piece.records for part in self.pieces)


@dataclass(frozen=True)
class Chunks:
    """The recorded input, its chunks in order, and the store's folder for their outcomes."""

    files: tuple[InputFile, ...]
    chunks: tuple[Chunk, ...]
    folder: str

    @property
    def settings_folder(self) -> str:
        """The folder of all chunks with the same settings, whatever their input."""
        return self.folder.rpartition("/")[0]

    @property
    def records(self) -> int:
        """The number of records in the input."""
        return sum(chunk.records for chunk in self.chunks)


def size_of(section: ChunksSection) -> Size:
    """Return the size of chunks that the config asks for."""
    return Size(section.records, round(section.megabytes * 1e6))


def count_chunks(files: Sequence[InputFile], reading: ReadingSection, size: Size) -> int:
    """Return how many chunks a night would cut these files into. Reads them; records nothing."""
    return sum(1 for _ in _cut_into_chunks(files, reading, size))


def agree_on_chunks(
    store: Store,
    folder: str,
    files: Sequence[InputFile],
    config: SummarizeConfig,
) -> Chunks:
    """Return the chunks that are recorded in this folder of the store.

    Cut the input and record its chunks if nobody has, if the input has changed since, or if the
    recorded chunks hold fewer records than `limits.min_records`. Raise MissingError, without
    recording anything, if the input holds fewer, and RetryError if files change meanwhile.
    """
    for _ in range(MAX_ATTEMPTS):
        # Only the newest record counts. Older ones describe inputs that have changed since, and a
        # worker that still follows one notices it at the end by `is_agreed`.
        newest = _newest_number(store, folder)
        if newest:
            recorded = _read_recorded(store, folder, newest, files)
            if recorded and recorded.records >= config.limits.min_records:
                return recorded

        # Every worker that starts before there is a record cuts the input itself. None waits for
        # another one, which may die.
        chunks = list(_cut_into_chunks(files, config.data, size_of(config.chunks)))
        check_enough(sum(chunk.records for chunk in chunks), config)
        content = _to_json(files, chunks)

        # A file that changed while it was cut has pieces that do not fit its recorded version.
        check_unchanged(files)

        # The guarded write decides: it fails if any other worker has taken this number.
        try:
            store.write(_key(folder, newest + 1), content, if_absent=True)
        except AlreadyExistsError:
            continue  # another worker was faster: its record counts, so read it
    raise RetryError(
        f"{store.uri}/{folder}: the input changes faster than it can be listed: run again"
    )


def is_agreed(store: Store, chunks: Chunks) -> bool:
    """Return True if these chunks are still the newest record, which other workers use too."""
    folder = chunks.settings_folder

    # Compared by content, not by number: a store that ignores conditional writes lets two workers
    # write the same number, each with its own content.
    try:
        content = store.read(_key(folder, _newest_number(store, folder)))
    except MissingError:
        return False
    return _outcomes_folder(folder, content) == chunks.folder


def _cut_into_chunks(
    files: Sequence[InputFile],
    reading: ReadingSection,
    size: Size,
) -> Iterator[Chunk]:
    """Yield the chunks. Small neighbouring pieces, also of several files, make one chunk."""
    chunks = 0
    parts: list[FilePiece] = []
    records = 0
    size_bytes = 0
    for number, file in enumerate(files):
        with unless_changed(file):
            for piece in cut(file, reading, size):
                has_room = (
                    records + piece.records <= size.records
                    and size_bytes + piece.bytes <= size.bytes
                )
                # A piece is not divided: one larger than a chunk becomes a chunk of its own.
                if parts and not has_room:
                    yield Chunk(chunks, tuple(parts))
                    chunks += 1
                    parts = []
                    records = 0
                    size_bytes = 0
                parts.append(FilePiece(number, piece))
                records += piece.records
                size_bytes += piece.bytes
    if parts:
        yield Chunk(chunks, tuple(parts))


def _to_json(files: Sequence[InputFile], chunks: Sequence[Chunk]) -> bytes:
    """Return the record: the files, and the pieces of each chunk."""
    event("the input is cut into chunks", files=len(files), chunks=len(chunks))
    listed = [{"uri": file.uri, "size": file.size, "version": file.version} for file in files]
    pieces = [[_piece_to_json(part) for part in chunk.pieces] for chunk in chunks]
    return json.dumps({"files": listed, "chunks": pieces}, ensure_ascii=False).encode()


def _piece_to_json(part: FilePiece) -> dict[str, Any]:
    fields = asdict(part.piece)
    # Most kinds of pieces use few of the fields, and a large night has many pieces.
    return {
        "file": part.file,
        **{name: fields[name] for name in fields if fields[name] is not None},
    }


def _read_recorded(
    store: Store,
    folder: str,
    number: int,
    files: Sequence[InputFile],
) -> Chunks | None:
    """Return the chunks of a record, or None if one of its files has changed or is gone.

    Files that the record does not have came later: they are left for another night.
    """
    try:
        content = store.read(_key(folder, number))
    except MissingError:
        return None
    raw = json.loads(content)

    # Only the recorded files, in the recorded order: pieces name their file by its number there.
    by_uri = {file.uri: file for file in files}
    known = []
    for recorded in raw["files"]:
        file = by_uri.get(recorded["uri"])
        if file is None or (file.size, file.version) != (recorded["size"], recorded["version"]):
            return None
        known.append(file)

    # A record of an empty input is not the record of one that has files now.
    if files and not known:
        return None

    chunks = []
    for position, pieces in enumerate(raw["chunks"]):
        chunks.append(Chunk(position, tuple(_piece_from_json(piece) for piece in pieces)))
    return Chunks(tuple(known), tuple(chunks), _outcomes_folder(folder, content))


def _piece_from_json(raw: dict[str, Any]) -> FilePiece:
    file = raw.pop("file")
    header = raw.pop("header", None)
    if header:
        header = Header(**header | {"columns": tuple(header["columns"])})
    return FilePiece(file, Piece(**raw, header=header))


def _newest_number(store: Store, folder: str) -> int:
    """Return the number of the newest record, or 0 if there is none."""
    # The listing has the outcomes too. Numbers are compared as numbers: after 9999, names no longer
    # sort like them.
    newest = 0
    for entry in store.list(folder):
        name = entry.key.rpartition("/")[2]
        number = name.removeprefix("input-").removesuffix(".json")
        if name.startswith("input-") and number.isdigit():
            newest = max(newest, int(number))
    return newest


def _outcomes_folder(folder: str, content: bytes) -> str:
    """Return the folder for the outcomes of the chunks of this record."""
    # Named by the content of the record: workers that agreed on different records (of a changed
    # input, or in a store without conditional writes) can never commit to one folder.
    return below(folder, sha256_of(content)[:FINGERPRINT_DIGITS])


def _key(folder: str, number: int) -> str:
    return below(folder, f"input-{number:04d}.json")
