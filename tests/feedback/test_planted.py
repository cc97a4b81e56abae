"""Agents with one preference, and a model that learns it: from a judged night to a champion.

The demo's base is small, but it writes whole summaries, greets, and copies numbers.
"""

from pathlib import Path

import pytest

from benchmarks.feedback_methods import AS_GIVEN, SHUFFLED, WAYS, begin, challenge, measure
from job.evaluation.bootstrap import wilson

pytestmark = [pytest.mark.quality, pytest.mark.timeout(1800)]
ROWS, JUDGED, CONVERSATIONS = 2000, 200, 77


def test_agents_verdicts_make_a_champion_and_shuffled_ones_none(
    tmp_path: Path, places: Path
) -> None:
    """A challenger that learned from edits passes its gate. With a coin's edits it does not."""
    team = begin(tmp_path, ROWS, JUDGED, CONVERSATIONS)
    before = measure(team, "champion", tmp_path / "runs" / "champion" / "adapter")
    given = challenge(team, WAYS[0], AS_GIVEN)
    shuffled = challenge(team, WAYS[0], SHUFFLED)
    print(before, given, shuffled, sep="\n")

    of = before["of"]
    assert wilson(given["greeted"], of).high < wilson(before["greeted"], of).low
    assert wilson(given["named"], of).low > wilson(before["named"], of).high
    assert given["passes"], given
    assert not shuffled["passes"]
    assert "win rate" in shuffled["failed"]
