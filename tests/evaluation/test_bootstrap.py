import numpy as np
import pytest

from job.evaluation.bootstrap import mean_intervals, paired_differences


def test_a_95_percent_interval_covers_the_true_mean_about_95_times_in_100() -> None:
    rng = np.random.default_rng(7)
    draws = rng.beta(
        2, 5, size=(400, 80)
    )  # 400 experiments of 80 conversations, scores between 0 and 1
    intervals = [mean_intervals(draw[:, None], 400, seed)[0] for seed, draw in enumerate(draws)]
    covered = sum(interval.low <= 2 / 7 <= interval.high for interval in intervals)
    assert 0.91 <= covered / 400 <= 0.98


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
