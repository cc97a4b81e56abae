"""What earlier outputs of `recap summarize` have done: places in, the digests of their lines out, to be looked up.

Takes 16 MB for a million lines. Knows nothing of how a digest is made.
"""

import csv
import io
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import PurePosixPath
from typing import Any

from job.config.sections import StorageSection
from job.conversations.draft import RecordError
from job.conversations.json_text import MAX_RECORD_CHARACTERS
from job.conversations.opening import plain_stream
from job.conversations.read import read_json_lines
from job.errors import DamagedError, MissingError
from job.storage.folders import Manifest
from job.storage.open import InputFile
from job.summarization.output import Output, open_output
from job.summarization.records import ALREADY_DONE
from job.telemetry import event, warn

BYTES = 16
REMEDY = "correct skip_done, or run that night again"
HEX_DIGITS = frozenset("0123456789abcdef")


class Digests:
    """A set of digests of 16 bytes, sorted end to end by their first byte: a Python set takes eight times as much."""

    def __init__(self, digests: Iterable[bytes]) -> None:
        groups = [bytearray() for _ in range(256)]
        for digest in digests:
            groups[digest[0]] += digest
        for group in groups:
            each = sorted(
                {bytes(group[start : start + BYTES]) for start in range(0, len(group), BYTES)}
            )
            group[:] = b"".join(each)
        self._groups = groups

    def __len__(self) -> int:
        return sum(map(len, self._groups)) // BYTES

    def __contains__(self, digest: object) -> bool:
        if not isinstance(digest, bytes) or len(digest) != BYTES:
            return False
        group = self._groups[digest[0]]

        def at(place: int) -> bytes:
            return bytes(group[place * BYTES : (place + 1) * BYTES])

        count = len(group) // BYTES
        place = bisect_left(range(count), digest, key=at)
        return place < count and at(place) == digest


def read_digests(uris: Sequence[str], storage: StorageSection) -> Digests:
    """What the outputs at `uris` have summarized, or skipped as done before them.

    An output that is not there has done nothing, with a warning: the night before may have failed, or there was none.
    """
    digests = Digests(digest for uri in uris for digest in _digests_at(open_output(uri, storage)))
    event("done before", outputs=len(uris), conversations=len(digests))
    return digests


def _digests_at(output: Output) -> Iterator[bytes]:
    where = f"{output.store.uri}/{output.manifest}"
    try:
        manifest = Manifest.from_json(output.store.read(output.manifest), where)
    except MissingError:
        warn("nothing is skipped by an output that is not there", skip_done=output.uri)
        return
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedError(f"{where} cannot be understood ({error}): {REMEDY}") from error
    for key, entry in manifest.files.items():
        version = output.store.stat(key).version
        file = InputFile(f"{output.store.uri}/{key}", output.store, key, entry.size, version)
        for row in _rows(file):
            digest = str(row.get("digest") or "")
            summarized = "summary" in row or row.get("reason") == ALREADY_DONE
            if summarized and len(digest) == 2 * BYTES and HEX_DIGITS.issuperset(digest):
                yield bytes.fromhex(digest)


def _rows(file: InputFile) -> Iterator[Any]:
    match PurePosixPath(file.key).suffix.lower():
        case ".csv":
            csv.field_size_limit(MAX_RECORD_CHARACTERS)
            with closing(file.store.open(file.key)) as stored:
                yield from csv.DictReader(
                    io.TextIOWrapper(plain_stream(stored, file.uri), "utf-8-sig", newline="")
                )
        case ".parquet":
            yield from _parquet_rows(file)
        case _:
            for where, row in read_json_lines(file):
                if isinstance(row, RecordError) or not isinstance(row, dict):
                    raise DamagedError(f"{where}: is no line that recap wrote: {REMEDY}")
                yield row


def _parquet_rows(file: InputFile) -> Iterator[Any]:
    import tempfile
    from pathlib import Path

    from pyarrow import parquet

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "summaries.parquet"
        file.store.download(file.key, path)
        with parquet.ParquetFile(path) as table:
            names = [name for name in ("digest",) if name in table.schema_arrow.names]
            for batch in table.iter_batches(columns=names) if names else ():
                yield from ({"summary": "", **row} for row in batch.to_pylist())
