"""Stored files as streams of UTF-8 bytes, whatever their compression and encoding.

Gzip, zstd and UTF-16 are recognized by the first bytes, never by the name. Memory is constant. A
compressed stream that is damaged or cut short is a DataError, because what is missing cannot be
counted.
"""

import codecs
import gzip
import io
import re
import zlib
from typing import BinaryIO, Protocol

import zstandard

from job.errors import DataError

BUFFER_BYTES = 1 << 20
# Four bytes of zstd may stand for a block of 128 KiB, so a piece becomes 32 MiB at the most.
ZSTD_PIECE_BYTES = 1 << 10
ZSTD_WINDOW_BYTES = 1 << 29  # as of `zstd --long=29`; the decoder itself stops at 1 << 27
TEXT_PIECE_BYTES = 1 << 16
GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
ZSTD_SKIPPABLE = re.compile(rb"[\x50-\x5f]\x2a\x4d\x18")  # pzstd begins with a frame of sizes
# The mark of UTF-32 begins with that of UTF-16. It stays, and becomes the mark of UTF-8.
MARKS = {
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
LONE_SURROGATE = re.compile("[\ud800-\udfff]")


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes | memoryview: ...


def plain_stream(stream: BinaryIO, uri: str) -> io.BufferedReader:
    """Return the decompressed bytes of `stream`; UTF-8 for UTF-16 with a byte order mark.

    `peek()` shows as many of the first BUFFER_BYTES as there are.
    """
    return open_plain(stream, uri)[0]


def open_plain(stream: BinaryIO, uri: str) -> tuple[io.BufferedReader, bool]:
    """Return `plain_stream`, and True if its bytes are not those of `stream`."""
    stored = buffer(stream, uri)
    head = stored.peek()
    plain = stored
    if head.startswith(GZIP):
        plain = buffer(gzip.GzipFile(fileobj=stored), uri)
    elif head.startswith(ZSTD) or ZSTD_SKIPPABLE.match(head):
        plain = buffer(_Zstd(stored, uri), uri)
    head = plain.peek()
    encoding = next((name for mark, name in MARKS.items() if head.startswith(mark)), None)
    if encoding:
        plain = buffer(_Recoded(plain, uri, encoding), uri)
    return plain, plain is not stored


def in_utf8(stream: io.BufferedReader, uri: str, encoding: str) -> io.BufferedReader:
    """Return text of this encoding as UTF-8, or as it is where a mark says that it is UTF-8.

    Bytes invalid in the encoding are kept.
    """
    if encoding == "utf-8" or stream.peek().startswith(codecs.BOM_UTF8):
        return stream
    return buffer(_Recoded(stream, uri, encoding), uri)


def buffer(stream: _Readable, uri: str) -> io.BufferedReader:
    """Return the stream with a `peek()` that shows BUFFER_BYTES."""
    return io.BufferedReader(_Raw(stream, uri), BUFFER_BYTES)


def text_of(stream: io.BufferedReader, start: int = 0, line_end: str = "\n") -> io.TextIOWrapper:
    """Return the stream as text, each foreign byte as a lone surrogate.

    `start` is the byte of the file where the stream begins: at 0 a byte order mark is left out.
    """
    encoding = "utf-8" if start else "utf-8-sig"
    return io.TextIOWrapper(stream, encoding, errors="surrogateescape", newline=line_end)


class _Raw(io.RawIOBase):
    """Any stream, for `io.BufferedReader`. Every read but the last returns a full buffer."""

    def __init__(self, stream: _Readable, uri: str) -> None:
        self._stream = stream
        self._uri = uri

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
        filled = 0
        while filled < len(buffer):
            try:
                data = self._stream.read(len(buffer) - filled)
            except (EOFError, gzip.BadGzipFile, zlib.error, zstandard.ZstdError) as error:
                what = f"the compressed stream is damaged or cut short ({error})"
                raise DataError(f"{self._uri}: {what}; replace the file") from error
            if not data:
                break
            buffer[filled : filled + len(data)] = data
            filled += len(data)
        return filled


class _Zstd:
    """Zstd frames, one after the other.

    Raise EOFError where the last frame is cut short; `stream_reader` would end silently.
    """

    def __init__(self, stream: io.BufferedReader, uri: str) -> None:
        self._stream = stream
        self._uri = uri
        self._frame: zstandard.ZstdDecompressionObj | None = None
        self._compressed = b""
        self._ready = memoryview(b"")
        self._taken = 0

    def read(self, size: int, /) -> memoryview:
        while self._taken == len(self._ready):
            self._compressed = self._compressed or self._stream.read(ZSTD_PIECE_BYTES)
            if not self._compressed:
                if self._frame is not None:
                    raise EOFError("the last frame has no end")
                return memoryview(b"")
            self._ready = memoryview(self._decompress())
            self._taken = 0
        data = self._ready[self._taken : self._taken + size]
        self._taken += len(data)
        return data

    def _decompress(self) -> bytes:
        if self._frame is None:
            decompressor = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_BYTES)
            self._frame = decompressor.decompressobj()
        try:
            data = self._frame.decompress(self._compressed)
        except zstandard.ZstdError as error:
            if "too much memory" not in str(error):
                raise
            raise DataError(
                f"{self._uri}: was compressed with a window of more than "
                f"{ZSTD_WINDOW_BYTES >> 20} MiB; compress it with zstd --long=29 at the most"
            ) from error
        self._compressed = b""
        if self._frame.eof:
            self._compressed = self._frame.unused_data
            self._frame = None
        return data


class _Recoded:
    """Text of any encoding as UTF-8."""

    def __init__(self, stream: io.BufferedReader, uri: str, encoding: str) -> None:
        self._stream = stream
        self._uri = uri
        self._encoding = encoding
        self._is_wide = encoding.startswith(("utf-16", "utf-32"))
        # In UTF-16, half of a pair is a character that is cut, and no foreign byte.
        errors = "surrogatepass" if self._is_wide else "surrogateescape"
        self._decoder = codecs.getincrementaldecoder(encoding)(errors)
        self._ready = memoryview(b"")
        self._taken = 0

    def read(self, size: int, /) -> memoryview:
        while self._taken == len(self._ready):
            stored = self._stream.read(TEXT_PIECE_BYTES)
            self._ready = memoryview(self._recode(stored))
            self._taken = 0
            if not stored:
                break
        data = self._ready[self._taken : self._taken + size]
        self._taken += len(data)
        return data

    def _recode(self, data: bytes) -> bytes:
        try:
            text = self._decoder.decode(data, final=not data)
        except UnicodeError as error:
            raise DataError(
                f"{self._uri}: is not {self._encoding} up to its end ({error}); replace the file"
            ) from error
        if self._is_wide:
            text = LONE_SURROGATE.sub("\ufffd", text)
        return text.encode("utf-8", "surrogateescape")
