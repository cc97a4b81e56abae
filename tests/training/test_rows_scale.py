"""The benchmark of preparing data names each goal that is missed."""

from benchmarks.rows_scale import MAX_TOKENS, config_of, misses, records

GOOD = {
    "first": {"encode_seconds": 10.0, "seconds": 20.0, "peak_mib": 900.0},
    "second": {"encode_seconds": 0.1, "seconds": 1.0, "peak_mib": 800.0},
}


def test_only_missed_goals_are_named():
    slow = GOOD | {"first": GOOD["first"] | {"encode_seconds": 50.0}}
    late = GOOD | {"second": GOOD["second"] | {"seconds": 2.5}}
    large = GOOD | {"first": GOOD["first"] | {"peak_mib": 9000.0}}
    assert list(misses(100_000, GOOD)) == []
    assert list(misses(100_000, slow)) == ["100,000: 2,000 conversations/s, wanted 3,000"]
    assert list(misses(1_000, slow)) == [], "too few to measure the speed"
    assert list(misses(100_000, late)) == ["100,000: the second start took 2.5 s, wanted 2.0"]
    assert list(misses(100_000, large)) == ["100,000: 9,000 MiB, wanted 8,192"]


def test_the_conversations_are_those_of_a_valid_config(tmp_path):
    some = list(records(20))
    assert len({record["summary"] for record in some}) == 20
    assert config_of(tmp_path / "data.jsonl").training.max_tokens == MAX_TOKENS
