"""Claims about the simulation of how much feedback is enough."""

from math import comb

import pytest

from benchmarks.feedback_worth import (
    GREETING,
    is_as_wanted,
    planted_table,
    power,
    wanted_text,
)
from job.evaluation.bootstrap import wilson

RECORD = {
    "turns": [{"role": "customer", "text": "Hello, it is AX1770, since 5 June."}],
    "summaries": ["A flight is late."],
}


def test_a_summary_is_as_agents_want_it_with_the_number_and_no_greeting():
    assert wanted_text(RECORD) == "A flight is late. The reference is AX1770."
    assert is_as_wanted(RECORD, "Number AX1770: a flight is late.")
    assert not is_as_wanted(RECORD, f"{GREETING}A flight is late. Number AX1770.")
    assert not is_as_wanted(RECORD, "A flight is late. Number AX1771.")


@pytest.mark.parametrize(("share", "pairs"), [(0.5, 40), (0.6, 75), (0.8, 19), (0.9, 3)])
def test_the_power_is_that_of_counting_every_outcome(share, pairs):
    expected = 0.0
    for wins in range(pairs + 1):
        if wilson(wins, pairs).low > 0.5:
            expected += comb(pairs, wins) * share**wins * (1 - share) ** (pairs - wins)
    assert power(share, pairs) == pytest.approx(expected)


def test_the_table_adds_up_seeds():
    line = {"edits": 25, "of": 60, "steps": 8, "named": 30, "greeted": 6}
    lines = [line | {"planted": 20}, line | {"planted": 40}]
    assert planted_table(lines)[-1] == "| 25 | 8 | 50% | 41% to 59% | 33%, 67% | 10% | 50% |"
