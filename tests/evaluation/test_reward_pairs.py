"""Claims about a reward model's agreement with people: numbers by hand, lengths, and verdicts."""

from dataclasses import replace

import numpy as np
import pytest

from job.evaluation.held_out_pairs import HeldOutPair
from job.evaluation.reward_pairs import RewardOnPairs, compare


def of(scores, lengths, conversations=None):
    numbers = conversations or range(len(scores))
    pairs = [HeldOutPair(number, "a", "b") for number in numbers]
    return compare(pairs, np.array(scores, float), np.array(lengths, float), samples=200)


def test_accuracy_and_margin_are_those_of_a_hand_computation():
    found = of([1.0, -1.0, 0.0, 2.0], [1, 1, 1, 1])
    assert found.accuracy.mean == pytest.approx((1 + 0 + 0.5 + 1) / 4)
    assert found.margin.mean == pytest.approx(0.5)
    assert (found.pairs, found.conversations) == (4, 4)


def test_pairs_of_one_conversation_count_by_their_mean():
    found = of([1.0, -1.0, 1.0], [1, 1, 1], conversations=[0, 0, 1])
    assert found.accuracy.mean == pytest.approx((0.5 + 1) / 2)
    assert found.conversations == 2


def test_a_model_that_knows_lengths_alone_is_not_trusted():
    lengths = [3, -2, 5, 1] * 15
    found = of(lengths, lengths)
    assert found.length_correlation == pytest.approx(1.0)
    assert found.longer
    assert not found.is_trusted
    assert "no more than lengths" in found.verdict()


def test_preferring_shorter_summaries_is_a_rule_too():
    found = of([1.0] * 50, [-4] * 45 + [4] * 5)
    assert not found.longer
    assert found.by_length.mean == pytest.approx(0.9)


def test_a_model_that_is_right_whatever_the_length_is_trusted():
    found = of([1.0] * 60, [3, -3] * 30)
    assert found.is_trusted
    assert found.accuracy.low > 0.9
    assert "better than chance and than to prefer the longer summary" in found.verdict()


def test_chance_is_not_trusted():
    found = of([1.0, -1.0] * 30, [2, -1, 1, 3] * 15)
    assert not found.is_trusted
    assert "not shown to be better than chance: do not rely on it" in found.verdict()


def test_no_pair_is_no_verdict():
    assert "Nothing is known" in RewardOnPairs(0, 0, left_out=2).verdict()
    assert RewardOnPairs(0, 0, 2).lines() == [
        "0 held-out pairs of 0 conversations; 2 more do not fit into a row"
    ]


def test_pairs_that_chose_the_checkpoint_are_called_so():
    found = replace(of([1.0] * 60, [3, -3] * 30), has_chosen=True)
    assert "of pairs that also chose the checkpoint" in found.verdict()
    assert found.lines()[0].endswith("the checkpoint was chosen, too: that flatters it")
    assert "held-out" not in " ".join([found.verdict(), *found.lines()])
    assert RewardOnPairs.from_json(found.to_json()) == found


def test_pairs_that_could_not_be_compared_are_not_called_held_out():
    found = replace(of([1.0] * 60, [3, -3] * 30), not_compared="nobody knows")
    assert not found.is_trusted
    assert "60 pairs of 60 conversations, which could not be compared with" in found.lines()[0]
    assert "(nobody knows)" in found.lines()[0]
    assert "held-out" not in " ".join([found.verdict(), *found.lines()])
    assert RewardOnPairs.from_json(found.to_json()) == found


def test_a_result_is_read_as_it_was_written():
    found = of([1.0, -1.0, 0.5], [1, 2, -1])
    assert RewardOnPairs.from_json(found.to_json()) == found
