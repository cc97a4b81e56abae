"""The digests of conversations that earlier outputs of `recap summarize` have summarized.

A set of one million takes 16 MB. Duplicate ids within one input are found by `duplicates`, which
must also know where the first one is.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from job.config.sections import StorageSection
from job.errors import DamagedError, MissingError
from job.storage.folders import read_manifest_file
from job.summarization.identity import DIGEST_BYTES
from job.summarization.output import Output, open_output
from job.summarization.records import ALREADY_DONE
from job.summarization.written import written_files, written_rows
from job.telemetry import event, warn

REMEDY = "correct skip_done, or run that night again"
HEX_DIGITS = frozenset("0123456789abcdef")


class DigestSet:
    """A set of digests of 16 bytes. A Python set would take eight times as much memory.

    Digests are grouped by their first byte; each group is one sorted array of bytes.
    """

    def __init__(self, digests: Iterable[bytes]) -> None:
        self._groups = [bytearray() for _ in range(256)]
        for digest in digests:
            self._groups[digest[0]] += digest
        for group in self._groups:
            starts = range(0, len(group), DIGEST_BYTES)
            unique = {bytes(group[start : start + DIGEST_BYTES]) for start in starts}
            group[:] = b"".join(sorted(unique))

    def __len__(self) -> int:
        return sum(map(len, self._groups)) // DIGEST_BYTES

    def __contains__(self, digest: object) -> bool:
        if not isinstance(digest, bytes) or len(digest) != DIGEST_BYTES:
            return False
        group = self._groups[digest[0]]

        def digest_at(row: int) -> bytes:
            return bytes(group[row * DIGEST_BYTES : (row + 1) * DIGEST_BYTES])

        rows = range(len(group) // DIGEST_BYTES)
        row = bisect_left(rows, digest, key=digest_at)
        return row < len(rows) and digest_at(row) == digest


def read_done_digests(uris: Sequence[str], storage: StorageSection) -> DigestSet:
    """Return the digests of what the outputs at `uris` have summarized, or skipped as done before.

    An output that does not exist has done nothing; log a warning: the night before may have failed.
    """
    digests = DigestSet(_digests_at(uris, storage))
    if uris:
        event("done before", outputs=len(uris), conversations=len(digests))
    return digests


def _digests_at(uris: Sequence[str], storage: StorageSection) -> Iterator[bytes]:
    for uri in uris:
        for row in _rows_of_output(open_output(uri, storage)):
            digest = str(row.get("digest") or "")
            is_done = row.get("reason", ALREADY_DONE) == ALREADY_DONE  # a summary has no reason
            if is_done and len(digest) == 2 * DIGEST_BYTES and HEX_DIGITS.issuperset(digest):
                yield bytes.fromhex(digest)


def _rows_of_output(output: Output) -> Iterator[Any]:
    """Yield the rows of every file of an output, rejects too."""
    where = f"{output.store.uri}/{output.manifest}"
    try:
        manifest = read_manifest_file(output.store, output.manifest)
    except MissingError:
        warn("nothing is skipped by an output that is not there", skip_done=output.uri)
        return
    except DamagedError as error:
        raise DamagedError(f"{where} cannot be understood ({error}): {REMEDY}") from error

    for file in written_files(output, manifest):
        yield from written_rows(file, ("digest",), REMEDY)
