"""Claims about processes that measure by turns: their order, and those that fail or hang."""

import time

import pytest

from benchmarks.gpu import turns


@pytest.fixture(autouse=True)
def _counting(monkeypatch):
    monkeypatch.setattr(turns, "WORKER", "tests.benchmarks.counting_worker")


def measured(tmp_path, specifications, rounds):
    deadline = time.monotonic() + 200
    return list(turns.rounds_by_turns(specifications, rounds, deadline, tmp_path))


def test_variants_alternate_after_a_warm_up(tmp_path):
    found = measured(tmp_path, {"one": {}, "other": {}}, rounds=2)
    assert [(line["variant"], line["round"]) for line in found] == [
        ("other", 0),
        ("one", 0),
        ("one", 1),
        ("other", 1),
        ("other", 2),
        ("one", 2),
    ]
    assert [line["counted"] for line in found] == [0, 0, 1, 1, 2, 2]


def test_one_that_fails_ends_alone(tmp_path):
    variants = {"good": {}, "large": {"fails": True}, "broken": {"crashes": True}}
    found = measured(tmp_path, variants, rounds=1)
    failed = {line["variant"]: line["failed"] for line in found if "failed" in line}
    assert failed == {"large": "out of memory", "broken": "the last words"}
    assert [line["counted"] for line in found if line["variant"] == "good"] == [0, 1]


def test_one_that_hangs_is_ended(tmp_path):
    process = turns.Process({"hangs_at": 1}, tmp_path / "log", str(tmp_path))
    assert process.answer(time.monotonic() + 200) == {"counted": 0}
    process.ask()
    assert process.answer(time.monotonic() + 0.2) == {"failed": "not done within its time limit"}
    assert not process.is_alive
