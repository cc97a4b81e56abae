"""A figure of a night as its manifest has it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Measured:
    """A figure of one night: its mean over so many records, and their standard deviation."""

    records: int
    mean: float
    sd: float

    @property
    def error(self) -> float:
        """The standard error of the mean."""
        return self.sd / math.sqrt(max(self.records, 1))


def figures_of(block: Mapping[str, Mapping[str, Any]]) -> dict[str, Measured]:
    """Parse the figures of a block of a manifest."""
    found = {}
    for name, value in block.items():
        found[name] = Measured(int(value["records"]), float(value["mean"]), float(value["sd"]))
    return found
