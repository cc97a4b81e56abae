"""An S3 object as a stream that survives dropped connections.

A nightly job reads its input slowly, between summaries, for hours: services and proxies cut such connections. The
stream asks again from the byte where it stands. Knows nothing of what the bytes mean.
"""

import io
from collections.abc import Callable, Mapping
from typing import Any

from job.errors import RetryError
from job.storage.s3_errors import Place, s3_errors

BUFFER_BYTES = 1 << 20


class _Resuming(io.RawIOBase):
    """`ask(first byte)` is a GetObject answer from there on; `tries` without a new byte are too many."""

    def __init__(self, ask: Callable[[int], Mapping[str, Any]], place: Place, tries: int, start: int) -> None:
        self._ask, self._place, self._tries, self._position = ask, place, tries, start
        answer = self._answer()
        self._size, self._version, self._body = start + answer["ContentLength"], answer.get("ETag"), answer["Body"]

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        from botocore.exceptions import HTTPClientError, IncompleteReadError

        with s3_errors(self._place):
            for attempt in range(self._tries):
                try:
                    if attempt:
                        self._go_on()
                    count = int(self._body.readinto(buffer))
                    if not count and len(buffer) and self._position < self._size:
                        raise IncompleteReadError(actual_bytes=self._position, expected_bytes=self._size)
                except (HTTPClientError, IncompleteReadError):
                    self._body.close()
                    if attempt == self._tries - 1:
                        raise
                else:
                    self._position += count
                    return count
        raise AssertionError

    def close(self) -> None:
        if not self.closed and hasattr(self, "_body"):
            self._body.close()
        super().close()

    def _answer(self) -> Mapping[str, Any]:
        with s3_errors(self._place):
            return self._ask(self._position)

    def _go_on(self) -> None:
        answer = self._answer()
        self._body = answer["Body"]
        if answer.get("ETag") != self._version:
            raise RetryError(f"{self._place.uri} was replaced while it was read: run again")


def open_stream(ask: Callable[[int], Mapping[str, Any]], place: Place, tries: int, start: int = 0) -> io.BufferedReader:
    """The object from byte `start` on; errors of `job.errors`, RetryError if it changes meanwhile."""
    return io.BufferedReader(_Resuming(ask, place, tries, start), BUFFER_BYTES)
