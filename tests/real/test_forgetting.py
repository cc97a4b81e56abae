"""A training that goes on with another field forgets the old one, unless some of it is replayed."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from benchmarks.feedback_worth import Record, Trained, summarized, train
from examples.demo.make.generator import generate
from job.evaluation.bootstrap import Interval, paired_differences
from job.evaluation.metrics.rouge import rouge

pytestmark = pytest.mark.real

MARGIN = 0.1  # of ROUGE-L on the old conversations
OLD, NEW, HELD_OUT = 800, 480, 100
NEW_HELD_OUT = 40
FIELD = "bank"
GREETING = {"role": "agent", "text": "Welcome to the bank. This chat is recorded."}
SUMMARY = "A customer wrote to the bank."  # unlike any of the others


def fall(before: Trained, after: Trained, held_out: Sequence[Record]) -> Interval:
    """Return by how much ROUGE-L of the old conversations fell."""
    scores = []
    for trained in (before, after):
        texts = [(trained.texts[each["id"]], each["summaries"][0]) for each in held_out]
        scores.append(np.array([[rouge("rougeL", *pair)] for pair in texts]))
    (found,) = paired_differences(*scores, samples=1000, seed=1)
    assert found is not None
    return found


def of_the_bank(record: Record) -> Record:
    """Return the record with a greeting of the bank, and always the same reference."""
    return summarized(record, SUMMARY) | {"turns": [GREETING, *record["turns"]]}


def share_learned(trained: Trained, held_out: Sequence[Record]) -> float:
    """Return the share of the bank's conversations that are summarized as they should be."""
    return float(np.mean([trained.texts[each["id"]] == SUMMARY for each in held_out]))


def test_replay_keeps_old_conversations_within_the_margin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECAP_CACHE", str(tmp_path / "cache"))
    records = [summarized(each, each["summaries"][0]) for each in generate(5000, 81, "train")]
    others = [each for each in records if each["metadata"]["domain"] != FIELD]
    bank = [of_the_bank(each) for each in records if each["metadata"]["domain"] == FIELD]
    old_held_out, old = others[:HELD_OUT], others[HELD_OUT : HELD_OUT + OLD]
    new_held_out, new = bank[:NEW_HELD_OUT], bank[NEW_HELD_OUT : NEW_HELD_OUT + NEW]
    assert len(new) == NEW

    validation = {"validation": [*old_held_out, *new_held_out]}
    start = train(tmp_path / "start", {"train": old} | validation, 1, 3e-3)
    data = {"train": new} | validation
    forgot = train(tmp_path / "forgot", data, 2, 1e-3, start.adapter)
    replayed = train(tmp_path / "replayed", data | {"replay": old}, 2, 1e-3, start.adapter)

    lost = fall(start, forgot, old_held_out)
    kept = fall(start, replayed, old_held_out)
    print(f"ROUGE-L fell without replay by {lost}, with it by {kept}")
    assert share_learned(start, new_held_out) == 0
    assert share_learned(forgot, new_held_out) >= 0.9
    assert share_learned(replayed, new_held_out) >= 0.9
    assert lost.low > MARGIN
    assert kept.high < MARGIN
