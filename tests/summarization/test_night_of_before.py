"""Claims about a night that an earlier version of recap began: its files are read as they are.

The literals are what that version wrote. Its folders have the names that it computed.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from job.config.commands import SummarizeConfig
from job.conversations.record import Conversation, Source, Turn
from job.errors import OutputError
from job.inference.taken import Filled
from job.storage.local import LocalStore
from job.summarization.chunk_store import ChunkStore
from job.summarization.crash_notes import read_crash_notes
from job.summarization.identity import conversation_digest, hash_settings, settings_fingerprint
from job.summarization.night import Night
from job.summarization.output import open_output
from job.summarization.summarize import summarize
from job.summarization.summarizer import Digests, fetch_digests
from tests.stand_in import NO_WEIGHTS, StandInEngine, stand_in
from tests.summarization.conftest import files_below, read_lines
from tests.summarization.nights import FOLDER, manifest_of, never

INPUT = """\
{"id": "c0", "turns": [{"role": "customer", "text": "late"}, {"role": "agent", "text": "sorry"}]}
{broken
{"turns": [{"role": "customer", "text": "the same"}]}
{"turns": [{"role": "customer", "text": "the same"}], "metadata": {"shop": 3}}
"""
RECORDED = (
    '{"files": [{"uri": "URI", "size": 239, "version": "VERSION"}], "chunks": '
    '[[{"file": 0, "kind": "lines", "start": 0, "end": 106, "line": 1, "records": 2, "bytes": 106}]'
    ', [{"file": 0, "kind": "lines", "start": 106, "end": 239, "line": 3, "records": 2, '
    '"bytes": 133}]]}'
)
OUTCOMES = (
    'S\to\t9c76f8e5fd0fb19b4729a5c76a2008d7\t0\t1\t{"id": "c0", "summary": "of before", "source": '
    '{"uri": "URI", "line": 1}, "finish_reason": "stop", "input_tokens": 48, "output_tokens": 3, '
    '"dropped_turns": 0, "parts": 1, "levels": 1, "redactions": 0, "leaks": 0, "digest": '
    '"da75a56dc505cf8970d45bf4c689b43b", "metadata": {}}\n'
    'R\t-\t\t0\t2\t{"id": null, "source": {"uri": "URI", "line": 2}, "reason": "invalid_record", '
    '"detail": "not JSON"}\n'
)
MARKER = (
    '{"outcomes": "000000-51ab07b69ae343c188deed6c8167a733.outcomes", "size": SIZE, "sha256": '
    '"SHA256", "counts": {"records": 2, "summaries": 1, "rejects": {"invalid_record": 1}, '
    '"input_tokens": 48, "output_tokens": 3, "skipped": 0, "redactions": 0, "leaks": 0, '
    '"unclear_speakers": 0}, "seconds": 0.102, "gpus": 0, "engine": "stand-in of before"}\n'
)
NAME = "000000-51ab07b69ae343c188deed6c8167a733.outcomes"
BEGUN = "begun-000001-6223bcafd5d44a1cbc16165a0ffaf445.json"
IN_FLIGHT = "records-6223bcafd5d44a1cbc16165a0ffaf445.json"


@pytest.fixture
def night(config: Any, tmp_path: Path) -> SummarizeConfig:
    """A night of two chunks."""
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text("{}")
    (tmp_path / "base" / "model.safetensors").write_bytes(NO_WEIGHTS)
    (tmp_path / "in.jsonl").write_text(INPUT)
    found: SummarizeConfig = config(model={"base": str(tmp_path / "base")}, chunks={"records": 2})
    return found


def begin(night: SummarizeConfig, tmp_path: Path) -> Path:
    """Write what the earlier version leaves if it dies at the second chunk; return the folder."""
    store = LocalStore(str(tmp_path))
    uri = f"{tmp_path}/in.jsonl"
    recorded = RECORDED.replace("URI", uri).replace("VERSION", store.stat("in.jsonl").version)
    outcomes = OUTCOMES.replace("URI", uri).encode()
    sha256 = hashlib.sha256(outcomes).hexdigest()
    marker = MARKER.replace("SIZE", str(len(outcomes))).replace("SHA256", sha256)

    output = open_output(night.output, night.storage)
    settings = Night(night, Filled(night), output, fetch_digests(night, tmp_path)).settings_folder
    folder = tmp_path / "out" / settings / hashlib.sha256(recorded.encode()).hexdigest()[:16]
    folder.mkdir(parents=True)
    (folder.parent / "input-0001.json").write_text(recorded)
    (folder / NAME).write_bytes(outcomes)
    (folder / "000000.done.json").write_text(marker)
    (folder / BEGUN).write_text("{}")
    return folder


def test_a_night_of_before_goes_on_with_the_chunks_that_it_committed(night, tmp_path, log):
    begin(night, tmp_path)
    engine = StandInEngine()
    counts = summarize(night, stand_in(engine))
    assert (counts.summaries, counts.rejects) == (3, {"invalid_record": 1})
    assert engine.prompts == 2, "those of the second chunk; no greeting, as the first has a summary"
    assert "small batches from now on: a process died at these chunks" in log.messages
    assert files_below(tmp_path / "out") == FOLDER
    summaries = read_lines(tmp_path / "out" / FOLDER[2])
    assert summaries[0]["summary"] == "of before"
    assert [row["id"] for row in summaries] == ["c0", "ee21fa6d45daf2a9", "ee21fa6d45daf2a9-2"]
    assert manifest_of(tmp_path / "out")["engines"] == {"stand-in": 1, "stand-in of before": 1}


def test_crash_notes_of_before_are_read(night, tmp_path):
    folder = begin(night, tmp_path)
    (folder / IN_FLIGHT).write_text('{"records": ["a line 1", "a line 2"], "alone": 1}')
    store = ChunkStore(LocalStore(str(folder)), "")
    notes = read_crash_notes(store)
    assert (notes.begun, notes.crashes) == ({1: 1}, {"a line 1": 1, "a line 2": 1})


@pytest.mark.parametrize(
    ("keys", "digests", "fingerprint", "digest"),
    [
        (
            {
                "input": ["s3://b/day/", "s3://b/more.jsonl"],
                "output": "s3://b/out",
                "model": {"base": "a/b", "revision": "main"},
                "data": {"include": ["*.jsonl"]},
                "skip_done": "s3://b/before",
            },
            Digests(None, "d"),
            "6e3629dd3c80a73e",
            "c0a01db2189fa632c1937cb9fbc64a63",
        ),
        (
            {
                "input": "in.jsonl",
                "output": "day.csv",
                "adapter": "s3://b/a",
                "csv_output": {"formulas": "keep"},
            },
            Digests("a", "d"),
            "a1c3d7061f46f3d2",
            "427cd6f6d4b3d5bea9ca46f7c21c2166",
        ),
    ],
)
def test_settings_have_the_digests_of_before(keys, digests, fingerprint, digest):
    """Else chunks would not be taken up, and skip_done would skip nothing."""
    config = SummarizeConfig.model_validate({"run": "night", **keys})
    assert settings_fingerprint(config, digests) == fingerprint
    turns = (Turn("customer", "hi"), Turn("agent", "ho"))
    conversation = Conversation("c", turns, Source("f", 1))
    assert conversation_digest(conversation, hash_settings(config, digests)) == digest


def test_a_manifest_whose_content_was_changed_is_refused(night, tmp_path):
    """Its own SHA-256 does not match. Before, such a manifest was believed."""
    summarize(night, stand_in(StandInEngine()))
    path = tmp_path / "out" / "manifest.json"
    content = json.loads(path.read_text())
    content["extra"]["counts"]["records"] = 5
    path.write_text(json.dumps(content))
    with pytest.raises(OutputError, match=r"manifest\.json is there and .* its own SHA-256"):
        summarize(night, never)
