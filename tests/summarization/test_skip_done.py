"""Claims about nights that skip what an earlier one has summarized."""

import random
import tracemalloc
from hashlib import blake2b

import pytest

from job.conversations.record import Conversation, Source, Turn
from job.errors import DamagedError
from job.summarization.identity import conversation_digest
from job.summarization.skip_done import DigestSet
from job.summarization.summarize import summarize
from tests.stand_in import StandInEngine, stand_in
from tests.summarization.conftest import conversation, read_lines, write_lines
from tests.summarization.nights import manifest_of, never

PART, REJECTS = "parts/part-00000.jsonl", "rejects/part-00000.jsonl"


def ids(path):
    return [record["id"] for record in read_lines(path)]


@pytest.fixture
def night(config, tmp_path):
    """Summarize a file of records into a place of its own; its counts."""

    def run(name, records, output=None, **keys):
        write_lines(tmp_path / f"{name}.jsonl", records)
        return summarize(
            config(
                input=str(tmp_path / f"{name}.jsonl"),
                output=str(tmp_path / (output or name)),
                **keys,
            )
        )

    return run


def test_what_an_earlier_night_summarized_unchanged_is_skipped(night, tmp_path):
    old = [conversation(f"c{n}", f"my parcel {n}") for n in range(6)]
    first = night("one", old)
    done = set(ids(tmp_path / "one" / PART))
    changed = conversation("c0", "my parcel 0", "it came")
    renamed = conversation("other", "my parcel 1")
    noted = old[2] | {"metadata": {"status": "closed"}}
    records = [changed, renamed, noted, *old[3:]]
    second = night("two", records, skip_done=str(tmp_path / "one"))
    skipped = [
        row for row in read_lines(tmp_path / "two" / REJECTS) if row["reason"] == "already_done"
    ]
    assert [row["id"] for row in skipped] == [id for id in ("c2", "c3", "c4", "c5") if id in done]
    assert second.skipped == len(skipped) > 0
    assert second.records == second.summaries + second.rejected + second.skipped == 6
    assert not set(ids(tmp_path / "two" / PART)) & {row["id"] for row in skipped}
    assert first.skipped == 0


def test_a_night_after_that_skips_what_two_nights_ago_was_done(night, tmp_path):
    records = [conversation(f"c{n}", f"my parcel {n}") for n in range(6)]
    first = night("one", records)
    assert night("two", records, skip_done=str(tmp_path / "one")).skipped == first.summaries
    assert night("three", records, skip_done=[str(tmp_path / "two")]).skipped == first.summaries


def test_no_model_is_loaded_where_all_is_skipped(config, tmp_path):
    write_lines(tmp_path / "one.jsonl", [conversation(f"c{n}", f"my parcel {n}") for n in range(6)])
    write_lines(
        tmp_path / "two.jsonl",
        [conversation(f"c{n}", f"my parcel {n}") for n in range(6)] + ["{broken"],
    )
    first, second = (
        config(
            input=str(tmp_path / f"{name}.jsonl"),
            output=str(tmp_path / name),
            chunks={"records": 3},
        )
        for name in ("one", "two")
    )
    summarize(first, stand_in(StandInEngine()))
    counts = summarize(second.model_copy(update={"skip_done": str(tmp_path / "one")}), never)
    assert (counts.skipped, counts.rejected, counts.summaries) == (6, 1, 0)
    assert manifest_of(tmp_path / "two")["engines"] == {"none": 3}


def test_a_digest_is_of_id_roles_and_texts_and_not_of_metadata():
    def digest(id, *turns, settings=b"", **metadata):
        conversation = Conversation(
            id, tuple(Turn(*turn) for turn in turns), Source("f", 1), (), metadata
        )
        return conversation_digest(conversation, blake2b(settings, digest_size=16))

    different = [
        digest("a"),
        digest("a", ("b", "c")),
        digest("ab", ("", "c")),
        digest("a", ("bc", "")),
        digest("a", ("", "bc")),
        digest("a", ("b", "c"), ("d", "e")),
        digest("a", ("b", "cd"), ("", "e")),
        digest("", ("a", "b"), ("c", "")),
        digest("a", ("b", "c"), settings=b"s"),
    ]
    assert len(set(different)) == len(different)
    assert digest("a", ("b", "c"), status="closed") == digest("a", ("b", "c"))


def test_other_settings_skip_nothing(night, tmp_path):
    records = [conversation(f"c{n}", f"my parcel {n}") for n in range(4)]
    night("one", records)
    assert (
        night(
            "two", records, skip_done=str(tmp_path / "one"), prompt={"system": "Be brief."}
        ).skipped
        == 0
    )
    assert night("three", records, skip_done=str(tmp_path / "one"), redaction={}).skipped == 0


@pytest.mark.parametrize("name", ["day.jsonl", "day.csv", "day.parquet"])
def test_an_earlier_output_may_be_one_file(night, tmp_path, name):
    records = [conversation(f"c{n}", f"my parcel {n}") for n in range(4)]
    first = night("one", records, output=name)
    assert night("two", records, skip_done=str(tmp_path / name)).skipped == first.summaries > 0


def test_an_earlier_output_that_is_not_there_skips_nothing(night, tmp_path):
    assert night("two", [conversation("c")], skip_done=str(tmp_path / "never")).skipped == 0


def test_an_earlier_output_that_cannot_be_read_is_no_empty_one(night, tmp_path):
    night("one", [conversation("c")])
    (tmp_path / "one" / "manifest.json").write_text("{")
    with pytest.raises(
        DamagedError, match=r"manifest\.json cannot be understood .*correct skip_done"
    ):
        night("two", [conversation("c")], skip_done=str(tmp_path / "one"))


def test_digests_are_found_and_take_16_bytes_each():
    rng = random.Random(5)
    known = [rng.randbytes(16) for _ in range(50_000)]
    tracemalloc.start()
    digests = DigestSet([*known, known[0]])
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert len(digests) == len(known)
    assert all(digest in digests for digest in known)
    assert not any(rng.randbytes(16) in digests for _ in range(1000))
    assert "text" not in digests
    assert held < 50_000 * 16 * 1.3
