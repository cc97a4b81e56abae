"""Claims about compressed streams: any frame is read, in linear time and bounded memory."""

import gzip
import io
import json
from typing import Any

import pytest
import zstandard

from job.config.data_sections import ReadingSection
from job.conversations import opening
from job.conversations.opening import plain_stream
from job.conversations.read import read_strictly
from job.errors import DataError

LINE = json.dumps({"id": "a", "turns": [{"role": "agent", "text": "a"}]}).encode() + b"\n"
SKIPPABLE = b"\x51\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"sizes"


def with_window(data: bytes, log: int) -> bytes:
    settings = zstandard.ZstdCompressionParameters.from_level(1, window_log=log, enable_ldm=True)
    frame = zstandard.ZstdCompressor(compression_params=settings).compressobj()
    return frame.compress(data) + frame.flush()


@pytest.mark.parametrize(
    "data",
    [
        SKIPPABLE + zstandard.compress(LINE),
        SKIPPABLE * 2 + zstandard.compress(LINE) + SKIPPABLE,
        zstandard.compress(LINE[:9]) + SKIPPABLE + zstandard.compress(LINE[9:]),
        with_window(LINE, 28),
        with_window(LINE, 29),
    ],
)
def test_zstd_of_any_writer_is_read(put, data):
    (read,) = read_strictly([put("a.jsonl.zst", data)], ReadingSection())
    assert read.id == "a"


def test_zstd_with_too_long_a_window_names_the_remedy(put):
    with pytest.raises(
        DataError,
        match=r"^a: was compressed with a window of more than 512 MiB; .*--long=29 at the",
    ):
        read_strictly([put("a", with_window(LINE, 30))], ReadingSection())


def test_skippable_frame_that_is_cut_ends_the_file(put):
    with pytest.raises(DataError, match="cut short"):
        read_strictly([put("a", SKIPPABLE[:-1])], ReadingSection())


class Counted(bytes):
    """Bytes that count how many of them are copied."""

    copied = 0

    def __getitem__(self, key: Any) -> Any:
        part = super().__getitem__(key)
        Counted.copied += len(part) if isinstance(part, bytes) else 1
        return part


def test_zstd_is_decompressed_in_linear_time(monkeypatch):
    real = zstandard.ZstdDecompressor

    class Frame:
        def __init__(self) -> None:
            self._frame = real().decompressobj()

        def __getattr__(self, name: str) -> Any:
            return getattr(self._frame, name)

        def decompress(self, data: bytes) -> bytes:
            return Counted(self._frame.decompress(data))

    class Decompressor:
        def __init__(self, **_: Any) -> None:
            pass

        def decompressobj(self) -> Frame:
            return Frame()

    monkeypatch.setattr(opening.zstandard, "ZstdDecompressor", Decompressor)
    size = 64 << 20
    data = zstandard.compress(b" " * size)
    Counted.copied = 0
    stream = plain_stream(io.BytesIO(data), "a")
    assert sum(len(piece) for piece in iter(lambda: stream.read(1 << 16), b"")) == size
    assert Counted.copied <= size


def test_piece_of_zstd_becomes_a_bounded_number_of_bytes():
    data = zstandard.compress(b" " * (256 << 20))
    assert len(data) < 16 << 10  # in one piece, it would become all of them
    frame = zstandard.ZstdDecompressor().decompressobj()
    size = opening.ZSTD_PIECE_BYTES
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    assert max(len(frame.decompress(piece)) for piece in pieces) <= 33 << 20


def test_utf16_inside_gzip_is_read(put):
    file = put("a", gzip.compress(LINE.decode().encode("utf-16")))
    (read,) = read_strictly([file], ReadingSection())
    assert read.id == "a"
