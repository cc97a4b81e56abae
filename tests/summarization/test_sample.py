"""Claims about the sample of a night's rows."""

import json
from hashlib import blake2b

from job.conversations.pieces import Piece
from job.summarization.chunk_store import OutcomeLine
from job.summarization.chunks import Chunk, FilePiece
from job.summarization.records import Origin, Position
from job.summarization.sample import MAX_SUMMARIES, NightSample


def test_the_sample_has_the_summaries_of_the_smallest_digests():
    chunk = Chunk(0, (FilePiece(0, Piece("lines", 0, 1, 1, 300, 1)),))
    sample = NightSample()
    rows = {}
    for number in range(1, 301):
        row = {"id": f"c{number}", "summary": "é", "finish_reason": "stop", "dropped_turns": 0}
        text = json.dumps(row, ensure_ascii=False).encode()
        rows[blake2b(text, digest_size=8).digest()] = number
        origin = Origin(0, Position(0, number))
        sample.add(OutcomeLine.of(origin, text, is_summary=True), chunk)

    smallest = sorted(rows)[:MAX_SUMMARIES]
    chosen = [sampled.position.line for sampled in sample.summaries()]
    assert chosen == sorted(rows[digest] for digest in smallest)
    assert list(sample.lengths) == [1] * 300
