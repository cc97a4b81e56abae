from collections.abc import Sequence

import numpy as np
import pytest

from job.evaluation.bootstrap import Interval, mean_intervals, paired_differences


def covered(intervals: Sequence[Interval | None], truth: float) -> float:
    """Return the share of intervals that have the true mean."""
    found = [interval for interval in intervals if interval is not None]
    assert len(found) == len(intervals)
    return sum(interval.low <= truth <= interval.high for interval in found) / len(found)


# 2,000 experiments are the columns of one call, with 80 conversations each.


def test_a_95_percent_interval_covers_the_true_mean_about_95_times_in_100() -> None:
    draws = np.random.default_rng(7).beta(2, 5, size=(80, 2000))  # scores between 0 and 1
    assert 0.92 <= covered(mean_intervals(draws, 1000, seed=0), 2 / 7) <= 0.97


def test_a_95_percent_interval_of_a_paired_difference_covers_it_as_often() -> None:
    rng = np.random.default_rng(8)
    hard = rng.random((80, 2000))  # shared by both systems
    left = hard + rng.exponential(0.2, hard.shape)  # skewed, as scores are
    right = hard + rng.normal(0.05, 0.2, hard.shape)
    assert 0.92 <= covered(paired_differences(left, right, 1000, seed=0), 0.15) <= 0.97


def test_an_interval_covers_where_some_conversations_have_no_value() -> None:
    rng = np.random.default_rng(9)
    draws = rng.beta(2, 5, size=(80, 2000))
    draws[rng.random(draws.shape) < 0.3] = np.nan
    intervals = mean_intervals(draws, 1000, seed=0)
    assert 0.92 <= covered(intervals, 2 / 7) <= 0.97
    counts = [interval.conversations for interval in intervals if interval is not None]
    assert counts == np.count_nonzero(~np.isnan(draws), axis=0).tolist()


def test_a_column_without_any_value_has_no_interval() -> None:
    values = np.array([[np.nan, 1.0], [np.nan, np.nan], [np.nan, 3.0]])
    nothing, some = mean_intervals(values, 200, seed=0)
    assert nothing is None
    assert some is not None
    assert (some.mean, some.conversations) == (2.0, 2)


def test_the_same_seed_gives_the_same_interval_and_another_seed_another() -> None:
    values = np.random.default_rng(0).random((30, 2))
    assert mean_intervals(values, 100, seed=1) == mean_intervals(values, 100, seed=1)
    assert mean_intervals(values, 100, seed=1) != mean_intervals(values, 100, seed=2)


def test_the_mean_is_the_samples_own_and_lies_within_its_interval() -> None:
    values = np.random.default_rng(0).random((30, 3))
    for column, interval in enumerate(mean_intervals(values, 1000, seed=0)):
        assert interval.mean == pytest.approx(values[:, column].mean())
        assert interval.low < interval.mean < interval.high


def test_pairing_finds_a_difference_that_the_spread_hides() -> None:
    rng = np.random.default_rng(3)
    easy_or_hard = rng.random((100, 1))  # how hard a conversation is moves both systems alike
    worse = easy_or_hard * 0.8
    better = worse + 0.02 + rng.normal(0, 0.02, (100, 1))
    difference = paired_differences(better, worse, 1000, seed=0)[0]
    assert 0 < difference.low < 0.02 < difference.high < 0.04
    alone, other = mean_intervals(better, 1000, 0)[0], mean_intervals(worse, 1000, 0)[0]
    assert alone.low < other.high


def test_no_difference_has_an_interval_around_zero() -> None:
    rng = np.random.default_rng(4)
    left, right = rng.random((200, 1)), rng.random((200, 1))
    difference = paired_differences(left, right, 1000, seed=0)[0]
    assert difference.low < 0 < difference.high
    assert paired_differences(left, left, 100, seed=0)[0].high == 0


def test_one_conversation_has_an_interval_without_width() -> None:
    (interval,) = mean_intervals(np.array([[0.25]]), 100, seed=0)
    assert (interval.low, interval.mean, interval.high) == (0.25, 0.25, 0.25)
