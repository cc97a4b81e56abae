"""Claims about what the benchmark of whole nights judges."""

from benchmarks.summarize_scale import judge

FAST, SLOW = ({"records": 100_000, "seconds": seconds, "peak_mib": 200.0} for seconds in (8, 11))
PACED = {"engine_seconds": 60.0, "seconds": 61.0}


def missed(*arguments: object) -> list[str]:
    return [line for line, is_kept in judge(*arguments) if not is_kept]  # type: ignore[arg-type]


def test_each_missed_promise_is_named_for_the_slowest_size():
    assert missed([FAST, FAST], FAST, PACED) == []
    assert missed([FAST, SLOW], FAST, PACED) == [
        "records per second, the slowest: 9,091 (at least 10,000)"
    ]
    assert missed([FAST, FAST], SLOW, PACED) == [
        "records per second, with a real tokenizer: 9,091 (at least 10,000)"
    ]
    assert missed([FAST, FAST | {"peak_mib": 230.0}], None, None) == [
        "peak memory largest / smallest: 1.150 (at most 1.1)"
    ]
    assert missed([], None, PACED | {"seconds": 63.0}) == [
        "of the time at 50 records/s, not the engine's: 4.8% (at most 3%)"
    ]
