"""A stored object as the plain bytes it holds: gzip and zstd are told by their first bytes, never by the name.

Binary stream → buffered, decompressed binary stream, at constant memory. A compressed stream that is damaged or cut
short is a DataError: what is missing cannot be counted. Knows nothing of formats.
"""

import gzip
import io
import zlib
from typing import BinaryIO, Protocol

import zstandard

from job.errors import DataError

BUFFER_BYTES = 1 << 20
ZSTD_PIECE_BYTES = 8 << 10  # what comes out of a piece at once may be thousands of times as much
GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


def plain_stream(stream: BinaryIO, uri: str) -> io.BufferedReader:
    """The decompressed bytes of `stream`; `peek()` shows as many of the first BUFFER_BYTES as there are."""
    return open_plain(stream, uri)[0]


def open_plain(stream: BinaryIO, uri: str) -> tuple[io.BufferedReader, bool]:
    """The same, and whether `stream` was compressed."""
    buffered = _buffered(stream, uri)
    head = buffered.peek()
    if head.startswith(GZIP):
        return _buffered(gzip.GzipFile(fileobj=buffered), uri), True
    if head.startswith(ZSTD):
        return _buffered(_Zstd(buffered), uri), True
    return buffered, False


def _buffered(stream: _Readable, uri: str) -> io.BufferedReader:
    return io.BufferedReader(_Raw(stream, uri), BUFFER_BYTES)


class _Raw(io.RawIOBase):
    """Any stream, as `io.BufferedReader` wants it; each read is full but for the last."""

    def __init__(self, stream: _Readable, uri: str) -> None:
        self._stream, self._uri = stream, uri

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
        filled = 0
        while filled < len(buffer):
            try:
                data = self._stream.read(len(buffer) - filled)
            except (EOFError, gzip.BadGzipFile, zlib.error, zstandard.ZstdError) as error:
                raise DataError(
                    f"{self._uri}: the compressed stream is damaged or cut short ({error}); replace the file"
                ) from error
            if not data:
                break
            buffer[filled : filled + len(data)] = data
            filled += len(data)
        return filled


class _Zstd:
    """Zstd frames one after the other; unlike `stream_reader`, which ends in silence, it tells when the last is cut."""

    def __init__(self, stream: io.BufferedReader) -> None:
        self._stream = stream
        self._frame: zstandard.ZstdDecompressionObj | None = None
        self._compressed, self._ready = b"", b""

    def read(self, size: int, /) -> bytes:
        while not self._ready:
            self._compressed = self._compressed or self._stream.read(ZSTD_PIECE_BYTES)
            if not self._compressed:
                if self._frame is not None:
                    raise EOFError("the last frame has no end")
                return b""
            self._frame = self._frame or zstandard.ZstdDecompressor().decompressobj()
            self._ready = self._frame.decompress(self._compressed)
            self._compressed = b""
            if self._frame.eof:
                self._compressed, self._frame = self._frame.unused_data, None
        data, self._ready = self._ready[:size], self._ready[size:]
        return data
