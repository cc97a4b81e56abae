"""Sums of the figures of a night, in thousandths: whole numbers, whose sums have any order."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SCALE = 1000  # figures are counted in thousandths


@dataclass
class FigureSums:
    """Number, sum and sum of squares of one figure, in thousandths: whole numbers, so exact."""

    records: int = 0
    total: int = 0
    squares: int = 0

    def add(self, value: int) -> None:
        """Add a record's value."""
        self.records += 1
        self.total += value
        self.squares += value * value

    def to_json(self) -> dict[str, float]:
        """Return number, mean and standard deviation; there is a record at least."""
        mean = self.total / self.records
        # Of whole numbers until here: a difference of two large floats would lose its digits.
        spread = self.records * self.squares - self.total * self.total
        variance = spread / (self.records * max(self.records - 1, 1))
        return {
            "records": self.records,
            "mean": round(mean / SCALE, 6),
            "sd": round(math.sqrt(variance) / SCALE, 6),
        }


class RewardSums:
    """Sums of the rewards of a night with candidates, over all its summaries.

    `gain` is what the chosen summaries have above their first candidates, which a night without
    candidates would have written.
    """

    def __init__(self) -> None:
        self.chosen = FigureSums()
        self._gain = FigureSums()
        self._spread = FigureSums()
        self._firsts = 0
        self._unscored = 0
        self._drawn_tokens = 0

    def add(self, row: Mapping[str, Any]) -> None:
        """Add one summary; a no-op in a night without candidates."""
        if "candidate" not in row:
            return
        self._firsts += row["candidate"] == 1
        self._drawn_tokens += row["drawn_tokens"]
        if row["reward"] is None:
            self._unscored += 1
            return
        reward = round(row["reward"] * SCALE)
        self.chosen.add(reward)
        if row["reward_of_first"] is not None:
            self._gain.add(reward - round(row["reward_of_first"] * SCALE))
        self._spread.add(round((row["highest_reward"] - row["lowest_reward"]) * SCALE))

    def facts(self) -> dict[str, Any]:
        """Return the sums as a manifest has them."""
        figures = {"reward_of_summary": self.chosen, "gain": self._gain, "spread": self._spread}
        found: dict[str, Any] = {
            name: sums.to_json() for name, sums in figures.items() if sums.records
        }
        counts = {"first_chosen": self._firsts, "unscored": self._unscored}
        return found | counts | {"drawn_tokens": self._drawn_tokens}
