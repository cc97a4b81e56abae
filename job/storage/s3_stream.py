"""An S3 object as a stream that survives dropped connections.

A nightly job reads its input slowly, between summaries, for hours; services and proxies drop such
connections. The stream then requests the object again, from the byte that it has reached.
"""

import io
from collections.abc import Callable, Mapping
from typing import Any

from job.errors import RetryError
from job.storage.s3_errors import Target, s3_errors

BUFFER_BYTES = 1 << 20


class _Resuming(io.RawIOBase):
    """A stream over GetObject answers; `ask(start)` requests one from the byte `start` on.

    It fails after `tries` requests in a row without a new byte.
    """

    def __init__(
        self,
        ask: Callable[[int], Mapping[str, Any]],
        target: Target,
        tries: int,
        start: int,
    ) -> None:
        self._ask = ask
        self._target = target
        self._tries = tries
        self._position = start

        answer = self._request()
        self._size = start + answer["ContentLength"]
        self._version = answer.get("ETag")
        self._body = answer["Body"]

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        from botocore.exceptions import HTTPClientError, IncompleteReadError

        with s3_errors(self._target):
            for attempt in range(self._tries):
                try:
                    if attempt:
                        self._resume()
                    count = int(self._body.readinto(buffer))

                    # A connection that ends early looks like the end of the object.
                    if not count and len(buffer) and self._position < self._size:
                        raise IncompleteReadError(
                            actual_bytes=self._position,
                            expected_bytes=self._size,
                        )
                except (HTTPClientError, IncompleteReadError):
                    self._body.close()
                    if attempt == self._tries - 1:
                        raise
                else:
                    self._position += count
                    return count
        raise AssertionError

    def close(self) -> None:
        # There is no body if the first request failed.
        if not self.closed and hasattr(self, "_body"):
            self._body.close()
        super().close()

    def _request(self) -> Mapping[str, Any]:
        """Return GetObject's answer. Asks again where a small one broke off: botocore does not.

        Such is the answer that there is no object.
        """
        from urllib3.exceptions import HTTPError

        with s3_errors(self._target):
            for attempt in range(self._tries):
                try:
                    return self._ask(self._position)
                except HTTPError:
                    if attempt == self._tries - 1:
                        raise
        raise AssertionError

    def _resume(self) -> None:
        """Request the rest of the object. Raise RetryError if it has another version now."""
        answer = self._request()
        self._body = answer["Body"]
        if answer.get("ETag") != self._version:
            raise RetryError(f"{self._target.uri} was replaced while it was read: run again")


def open_stream(
    ask: Callable[[int], Mapping[str, Any]],
    target: Target,
    tries: int,
    start: int = 0,
) -> io.BufferedReader:
    """Return the object as a stream from byte `start` on.

    `ask(start)` returns GetObject's answer from a byte on. Reading raises errors of `job.errors`,
    RetryError among them if the object is replaced meanwhile.
    """
    return io.BufferedReader(_Resuming(ask, target, tries, start), BUFFER_BYTES)
